//! What people ask a warden for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guard_api::Known;
use guard_api::wire::{CheckResult, DeploymentPlan, DiffResult, Environment, LockResult, UnlockResult};
use guard_model::baseline::LockState;
use guard_model::deploy::{Force, Revision};
use guard_model::ledger::{Event, WindowEnd};
use guard_model::state::Window;
use guard_model::{Entry, RelPath, Seal};
use guard_store::index::AlertScope;

use super::backups::BackupView;
use super::deploying::DeploymentWish;
use super::outcomes::Finished;
use super::restore::RestoreWish;
use super::sensitive::SensitiveView;
use super::troubles::Topic;
use super::{Message, Running, Warden};
use crate::failure::chain;
use crate::operations::accept::AcceptTask;
use crate::operations::backup::OnNoBackup;
use crate::operations::file_diff::Reader;
use crate::operations::lock::{EndedWindow, LockOptions, LockTask, OutsideLinks};
use crate::operations::unlock::UnlockTask;
use crate::operations::{Work, now, repair};
use crate::ward::Ward;
use crate::wire;

/// Why something is not done; the very error that goes to the caller.
pub(crate) type Refusal = Known;

/// The way an answer goes back. The asker may be gone: then nobody hears it.
pub(crate) type Reply<T> = tokio::sync::oneshot::Sender<Result<T, Refusal>>;

/// What a warden can be asked for.
pub(crate) enum Command {
    /// How it stands, and what is not as it should be.
    Status(Reply<(Environment, Vec<String>)>),
    Lock(LockOrder),
    Unlock(UnlockWish),
    Check {
        quick: bool,
        below: RelPath,
        work: Arc<Work>,
        reply: Reply<CheckResult>,
    },
    Diff {
        below: RelPath,
        reader: Reader,
        work: Arc<Work>,
        reply: Reply<DiffResult>,
    },
    Accept(AcceptWish),
    /// What is needed to make and read backups.
    Backups(Reply<BackupView>),
    /// What the gates before a deployment are about.
    Gates(Reply<Box<crate::gates::Subject>>),
    /// Where its sensitive files are.
    Sensitive(Reply<SensitiveView>),
    Restore(RestoreWish),
    /// A deployment or a rollback is to begin.
    Deploy(DeploymentWish),
    /// What a deployment would do.
    PlanDeployment {
        revision: Option<Revision>,
        force: Vec<Force>,
        reply: Reply<DeploymentPlan>,
    },
    /// One of the others, by the deployment of that id, which nobody else may disturb.
    ByDeployment(u64, Box<Command>),
    /// The deployment that runs is to stop, and is rolled back. Answers with its id.
    CancelDeployment(Reply<u64>),
    /// What the baseline says of a path.
    Expected {
        path: RelPath,
        reply: Reply<Option<Entry>>,
    },
}

/// A lock that somebody asks for.
pub(crate) struct LockOrder {
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) options: LockOptions,
    /// How an open window ends by it.
    pub(crate) how: WindowEnd,
    pub(crate) work: Arc<Work>,
    pub(crate) reply: Reply<LockResult>,
}

/// An unlock that somebody wishes.
pub(crate) struct UnlockWish {
    pub(crate) by: String,
    pub(crate) maintainer: String,
    pub(crate) reason: String,
    /// The configured default where `None`.
    pub(crate) length: Option<Duration>,
    pub(crate) longest: Duration,
    pub(crate) on_no_backup: OnNoBackup,
    pub(crate) work: Arc<Work>,
    pub(crate) reply: Reply<UnlockResult>,
}

/// An acceptance that somebody wishes.
pub(crate) struct AcceptWish {
    /// Each names itself and everything below it.
    pub(crate) paths: Vec<RelPath>,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) work: Arc<Work>,
    pub(crate) reply: Reply<guard_api::method::AcceptReply>,
}

/// A lock that somebody, or the end of a window, wishes.
pub(super) struct LockWish {
    pub(super) by: String,
    pub(super) reason: String,
    pub(super) ends: Option<(Window, WindowEnd)>,
    pub(super) options: LockOptions,
    pub(super) work: Arc<Work>,
    /// `None` for a lock by timer.
    pub(super) reply: Option<Reply<LockResult>>,
}

pub(super) fn answer<T>(reply: Reply<T>, with: Result<T, Refusal>) {
    // The asker may have hung up, which changes nothing.
    reply.send(with).ok();
}

impl Command {
    /// Refuses what would change something.
    fn refuse(self, why: Refusal) {
        match self {
            Self::Lock(order) => answer(order.reply, Err(why)),
            Self::Unlock(wish) => answer(wish.reply, Err(why)),
            Self::Accept(wish) => answer(wish.reply, Err(why)),
            Self::Restore(wish) => answer(wish.reply, Err(why)),
            // Nothing else comes here; what did would hear that nobody answers.
            _ => {}
        }
    }
}

impl Warden {
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Status(reply) => {
                let status = (self.status(), self.troubles());
                answer(reply, Ok(status));
            }
            Command::Expected { path, reply } => {
                let found = self.held.as_ref().map_or(Ok(None), |h| h.baseline.get(&path));
                let found = found.map(|r| r.map(|r| self.overlay.over(r).entry));
                answer(reply, found.map_err(|e| Known::Failed { message: chain(&e), hint: None }));
            }
            Command::Backups(reply) => {
                let view = self.backup_view();
                answer(reply, view);
            }
            Command::Gates(reply) => answer(reply, Ok(Box::new(self.gates()))),
            Command::Sensitive(reply) => {
                let view = self.sensitive_view();
                answer(reply, view);
            }
            Command::PlanDeployment { revision, force, reply } => {
                let plan = self.plan_deployment(revision, force);
                answer(reply, plan);
            }
            Command::CancelDeployment(reply) => {
                let cancelled = self.cancel_deployment();
                answer(reply, cancelled);
            }
            // What guardd puts back by itself is over in a moment: nobody is refused for it.
            waiting if self.tamper.is_running => self.deferred.push_back(waiting),
            Command::Check { quick, below, work, reply } => self.check(quick, below, work, reply),
            Command::Diff { below, reader, work, reply } => self.diff(below, reader, work, reply),
            // These change what observations are compared with: first the one under way.
            changing if self.observing => self.deferred.push_back(changing),
            Command::Deploy(wish) => self.begin_deployment(wish),
            Command::ByDeployment(id, command) => {
                // One that ended meanwhile asks for nothing any more.
                if self.state.deployments.running.as_ref().is_some_and(|d| d.id == id) {
                    self.change(*command);
                }
            }
            changing => match self.no_deployment() {
                Ok(()) => self.change(changing),
                Err(refusal) => changing.refuse(refusal),
            },
        }
    }

    /// Carries out what changes the tree or what it is compared with.
    fn change(&mut self, command: Command) {
        match command {
            Command::Lock(LockOrder { by, reason, options, how, work, reply }) => {
                let wish = LockWish { by, reason, ends: None, options, work, reply: None };
                self.lock(wish, how, reply);
            }
            Command::Unlock(wish) => self.unlock(wish),
            Command::Accept(wish) => self.accept(wish),
            Command::Restore(wish) => self.restore(wish),
            other => self.obey(other),
        }
    }

    /// Takes up the commands that waited for an observation.
    pub(super) fn take_deferred(&mut self) {
        for command in std::mem::take(&mut self.deferred) {
            self.obey(command);
        }
    }

    pub(super) fn is_free(&self) -> Result<(), Refusal> {
        self.running.as_ref().map_or(Ok(()), |running| {
            Err(Known::Busy { environment: self.ward.name.clone(), operation: running.name.to_owned() })
        })
    }

    pub(super) fn begin(&mut self, name: &'static str, work: &Arc<Work>) -> Result<(), Refusal> {
        self.is_free()?;
        if let Some(message) = &self.left_out.needs_operator {
            return Err(Known::NeedsOperator {
                message: message.clone(),
                hint: Some("put the cause right and restart guardd".to_owned()),
            });
        }
        // Every operation begins with a backup, and there is one writer.
        if self.vault().is_ok_and(|v| v.backups.is_being_written()) {
            return Err(Known::Busy { environment: self.ward.name.clone(), operation: "backup".to_owned() });
        }
        self.scans.cancel();
        self.seal_rounds = None;
        self.running = Some(Running { name, work: Arc::clone(work) });
        Ok(())
    }

    /// Runs an operation on a thread of its own; its end comes as a message.
    pub(super) fn spawn(&mut self, operation: impl FnOnce() -> Finished + Send + 'static) {
        let back = self.myself.clone();
        let name = self.running.as_ref().map_or("operation", |r| r.name);
        let spawned =
            std::thread::Builder::new().name(format!("{name} {}", self.ward.name)).spawn(move || {
                // The warden waits for this message even while it stops.
                back.send(Message::Finished(Box::new(operation()))).ok();
            });
        if let Err(e) = spawned {
            // The closure is gone, and with it the reply: the caller hears that it was dropped.
            tracing::error!(error = %e, "no thread for an operation");
            self.troubles.begin(Topic::Thread, format!("cannot start a thread: {e}"));
            self.running = None;
            self.tamper.is_running = false;
        }
    }

    /// The root, if its path still leads to it: what is said of another tree would be no answer.
    pub(super) fn root_in_place(&self) -> Result<Arc<guard_tree::Root>, Refusal> {
        self.present_root().and_then(|root| match self.guard.root_away {
            true => Err(self.no_root()),
            false => Ok(root),
        })
    }

    /// The root, wherever it was moved meanwhile.
    fn present_root(&self) -> Result<Arc<guard_tree::Root>, Refusal> {
        self.root.clone().ok_or_else(|| self.no_root())
    }

    /// There is none, or it is lost.
    pub(super) fn no_baseline(&self) -> Refusal {
        match (&self.state.baseline, self.troubles.of(Topic::Baseline)) {
            (Some(_), Some(why)) => Known::Failed {
                message: why.to_owned(),
                hint: Some("put the state directory back from a backup, or unlock and lock again".to_owned()),
            },
            _ => Known::NoBaseline { environment: self.ward.name.clone(), generation: None },
        }
    }

    fn no_root(&self) -> Refusal {
        Known::Refused {
            message: self.troubles.of(Topic::Root).unwrap_or("the root is not there").to_owned(),
            hint: Some(
                "make the root directory, or correct `root` in the configuration and reload".to_owned(),
            ),
            anyway: false,
        }
    }

    fn lock(&mut self, wish: LockWish, how: WindowEnd, reply: Reply<LockResult>) {
        let begun = if !Ward::is_locked(&self.state) {
            let ends = self.state.window.clone().map(|w| (w, how));
            self.begin_lock(LockWish { ends, reply: Some(reply), ..wish })
        } else if wish.options.outside_links == OutsideLinks::Break {
            // Other inodes are another baseline, which a repair never makes.
            let refusal = Known::Refused {
                message: format!("{} is locked: its links cannot be broken now", self.ward.name),
                hint: Some("unlock it, and lock it again with --break-links".to_owned()),
                anyway: false,
            };
            answer(reply, Err(refusal.clone()));
            Err(refusal)
        } else {
            self.begin_repair(wish.by, wish.work, reply)
        };
        if let Err(refusal) = begun {
            tracing::debug!(?refusal, "lock refused");
        }
    }

    pub(super) fn begin_lock(&mut self, mut wish: LockWish) -> Result<(), Refusal> {
        let ready = self.is_free().and_then(|()| {
            // The root's path is resolved anew: what is locked is what stands there now.
            let root = if self.find_root() { self.present_root() } else { Err(self.no_root()) }?;
            self.begin("lock", &wish.work).map(|()| root)
        });
        let root = match ready {
            Ok(root) => root,
            Err(refusal) => {
                if let Some(reply) = wish.reply.take() {
                    answer(reply, Err(refusal.clone()));
                }
                return Err(refusal);
            }
        };
        let before = self.held.as_ref().map(|h| Arc::clone(&h.baseline));
        let ends = wish.ends.map(|(window, how)| EndedWindow {
            window,
            how,
            before,
            put_back: Arc::clone(&self.overlay),
        });
        let task = LockTask {
            ward: self.ward.clone(),
            root,
            policy: Arc::clone(&self.config.policy),
            seal: self.config.seal,
            by: wish.by,
            reason: wish.reason,
            previous: self.state.baseline.as_ref().map(|b| b.digest),
            generation: self.next_generation(),
            ends,
            safety: self.safety(wish.options.on_no_backup),
            options: wish.options,
            work: wish.work,
        };
        let (began, reply) = (Instant::now(), wish.reply);
        self.spawn(move || Finished::Lock { began, result: task.run(), reply });
        Ok(())
    }

    /// Greater than any that was ever committed, or begun and not committed.
    fn next_generation(&self) -> u64 {
        let committed = self.state.baseline.as_ref().map_or(0, |b| b.generation) + 1;
        let on_disk = guard_store::baseline::next_generation(&self.ward.house.state_dir, &self.ward.name);
        on_disk.unwrap_or(committed).max(committed)
    }

    fn begin_repair(&mut self, by: String, work: Arc<Work>, reply: Reply<LockResult>) -> Result<(), Refusal> {
        let ready = self.root_in_place().and_then(|root| {
            let expectation = self.expectation().ok_or_else(|| self.no_baseline())?;
            self.begin("lock", &work)?;
            Ok((root, expectation))
        });
        let (root, expectation) = match ready {
            Ok(ready) => ready,
            Err(refusal) => {
                answer(reply, Err(refusal.clone()));
                return Err(refusal);
            }
        };
        let began = Instant::now();
        self.spawn(move || {
            let result = repair::repair(&root, &expectation, &work);
            Finished::Repair { began, by, result, reply: Some(reply) }
        });
        Ok(())
    }

    fn unlock(&mut self, wish: UnlockWish) {
        let length = wish.length.unwrap_or(self.config.window_default);
        let ready = if !Ward::is_locked(&self.state) {
            Err(Known::AlreadyUnlocked {
                environment: self.ward.name.clone(),
                window: self.state.window.as_ref().map(wire::window),
            })
        } else if length.is_zero() || length > wish.longest {
            Err(Known::InvalidWindow { asked_seconds: length.as_secs(), max_seconds: wish.longest.as_secs() })
        } else {
            // A baseline that is lost must not keep it locked for ever.
            self.present_root().and_then(|root| {
                self.begin("unlock", &wish.work)?;
                Ok((root, self.expectation()))
            })
        };
        let (root, expectation) = match ready {
            Ok(ready) => ready,
            Err(refusal) => return answer(wish.reply, Err(refusal)),
        };
        let micros = u64::try_from(length.as_micros()).unwrap_or(u64::MAX);
        let seconds = i64::try_from(length.as_secs()).unwrap_or(i64::MAX);
        let opened = Event::WindowOpened {
            by: wish.by.clone(),
            maintainer: wish.maintainer,
            reason: wish.reason.clone(),
            until: now().plus_seconds(seconds),
            until_boot_us: guard_sys::clock::boottime_micros().saturating_add(micros),
            boot_id: self.ward.house.boot_id.clone(),
        };
        let task = UnlockTask {
            ward: self.ward.clone(),
            root,
            expectation,
            generation: self.state.baseline.as_ref().map_or(0, |b| b.generation),
            by: wish.by,
            reason: wish.reason,
            opened,
            policy: self.policy(),
            safety: self.safety(wish.on_no_backup),
            work: wish.work,
        };
        let (began, reply) = (Instant::now(), wish.reply);
        self.spawn(move || Finished::Unlock { began, result: task.run(), reply });
    }

    fn accept(&mut self, wish: AcceptWish) {
        let ready = self.root_in_place().and_then(|root| {
            let expectation = self
                .expectation()
                .filter(|_| Ward::is_locked(&self.state))
                .ok_or_else(|| Known::NotLocked { environment: self.ward.name.clone() })?;
            let held = self.held.as_ref().ok_or_else(|| self.no_baseline())?;
            let (baseline, baseline_digest) = (Arc::clone(&held.baseline), held.digest);
            let shown = self.shown_below(&wish.paths)?;
            self.begin("accept", &wish.work)?;
            Ok((root, expectation, baseline, baseline_digest, shown))
        });
        let (root, expectation, baseline, baseline_digest, shown) = match ready {
            Ok(ready) => ready,
            Err(refusal) => return answer(wish.reply, Err(refusal)),
        };
        let paths = shown.keys().cloned().collect();
        let task = AcceptTask {
            ward: self.ward.clone(),
            root,
            policy: self.policy(),
            baseline,
            baseline_digest,
            seal: self.held.as_ref().map_or(Seal::None, |h| h.manifest.seal_done),
            generation: self.next_generation(),
            expectation,
            shown,
            by: wish.by,
            reason: wish.reason,
            safety: self.safety(OnNoBackup::Refuse),
            work: wish.work,
        };
        let reply = wish.reply;
        self.spawn(move || Finished::Accept { paths, result: task.run(), reply });
    }

    /// What the open findings at and below `paths` showed last.
    fn shown_below(&self, paths: &[RelPath]) -> Result<BTreeMap<RelPath, Option<Entry>>, Refusal> {
        let open = self.ward.house.index().alerts(Some(&self.ward.name), AlertScope::Unresolved);
        let open = open.map_err(|e| Known::Failed { message: chain(&e), hint: None })?;
        let mut shown = BTreeMap::new();
        for alert in &open {
            for f in alert.standing() {
                if let Ok(path) = RelPath::from_text(&f.path)
                    && paths.iter().any(|p| path.is_within(p))
                {
                    shown.insert(path, f.after.clone());
                }
            }
        }
        let nothing: Vec<String> =
            paths.iter().filter(|p| !shown.keys().any(|s| s.is_within(p))).map(ToString::to_string).collect();
        if nothing.is_empty() && !paths.is_empty() {
            return Ok(shown);
        }
        Err(Known::Refused {
            message: format!("no open finding at or below: {}", nothing.join(", ")),
            hint: Some("guardctl alerts list shows what can be accepted".to_owned()),
            anyway: false,
        })
    }

    /// A new configuration. While locked, root, patterns and seal stay as the lock signed them.
    pub(super) fn configure(&mut self, config: guard_config::Environment) {
        self.config = config;
        self.reconsider_tampering();
        // An operation goes on in the root that it began in.
        if self.state.state == LockState::Unlocked && self.running.is_none() {
            self.find_root();
        }
    }
}
