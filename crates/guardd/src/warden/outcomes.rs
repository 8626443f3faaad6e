//! What becomes of the state when an operation has ended.

use std::collections::BTreeMap;
use std::time::Instant;

use guard_api::Known;
use guard_api::wire::{LockResult, RestoreResult, SealState, Skipped, UnlockResult};
use guard_model::RelPath;
use guard_model::ledger::Event;
use guard_store::BackupError;

use super::commands::{Refusal, Reply, answer};
use super::touches::Reach;
use super::troubles::Topic;
use super::{Message, Warden};
use crate::failure::chain;
use crate::operations::accept::AcceptDone;
use crate::operations::lock::LockDone;
use crate::operations::repair::Repaired;
use crate::operations::restore::RestoreDone;
use crate::operations::unlock::UnlockDone;
use crate::operations::{OperationError, millis, now};
use crate::wire::{self, time};

/// The end of an operation, with the way its answer goes.
pub(crate) enum Finished {
    Lock {
        began: Instant,
        result: Result<LockDone, OperationError>,
        reply: Option<Reply<LockResult>>,
    },
    Repair {
        began: Instant,
        by: String,
        result: Result<Repaired, OperationError>,
        reply: Option<Reply<LockResult>>,
    },
    Unlock {
        began: Instant,
        result: Result<UnlockDone, OperationError>,
        reply: Reply<UnlockResult>,
    },
    Accept {
        paths: Vec<RelPath>,
        result: Result<AcceptDone, OperationError>,
        reply: Reply<guard_api::method::AcceptReply>,
    },
    Restore {
        began: Instant,
        from: Option<String>,
        result: Result<RestoreDone, OperationError>,
        reply: Reply<RestoreResult>,
    },
    /// guardd did it by itself.
    PutBack {
        result: Result<RestoreDone, OperationError>,
    },
}

/// An operation's failure as its caller hears it.
pub(super) fn refusal(environment: &str, error: &OperationError) -> Refusal {
    match error {
        OperationError::ChangedSinceShown(paths) => Known::ChangedSinceShown {
            environment: environment.to_owned(),
            paths: paths.iter().map(ToString::to_string).collect(),
        },
        OperationError::NothingKnown(_) => Known::Refused {
            message: chain(error),
            hint: Some(
                "write paths relative to the root, as guardctl prints them; what is `ignore`d or `writable` is not compared"
                    .to_owned(),
            ),
            anyway: false,
        },
        OperationError::OpenForWriting(_) => Known::Refused {
            message: chain(error),
            hint: Some(
                "stop the process, or put what it may write under `writable` in the configuration".to_owned(),
            ),
            anyway: true,
        },
        OperationError::Backup(BackupError::Busy) => {
            Known::Busy { environment: environment.to_owned(), operation: "backup".to_owned() }
        }
        OperationError::NoBackup { .. } => Known::Refused {
            message: chain(error),
            hint: Some("put that right, or make room: the oldest backups go with `guardctl backup prune --keep N`".to_owned()),
            anyway: true,
        },
        OperationError::QuarantineFull { .. } => Known::Refused {
            message: chain(error),
            hint: Some("look at what is in quarantine/ENV of the state directory, and remove it".to_owned()),
            anyway: false,
        },
        OperationError::NotUndone { .. } => Known::NeedsOperator {
            message: chain(error),
            hint: Some("look at the daemon's journal, put the cause right and restart guardd: it finishes or undoes what was begun".to_owned()),
        },
        _ => Known::Failed { message: chain(error), hint: None },
    }
}

impl Warden {
    pub(super) fn operation_ended(&mut self, finished: Finished) {
        self.running = None;
        match finished {
            Finished::Lock { began, result, reply } => {
                let result = result.map(|done| self.locked(began, done));
                self.conclude("lock", result, reply);
            }
            Finished::Repair { began, by, result, reply } => {
                let result = result.map(|repaired| self.repaired(began, by, repaired));
                self.conclude("lock", result, reply);
            }
            Finished::Unlock { began, result, reply } => {
                let result = result.map(|done| self.unlocked(began, done));
                self.conclude("unlock", result, Some(reply));
            }
            Finished::Accept { paths, result, reply } => {
                let result = result.map(|done| self.accepted(paths, done));
                self.conclude("accept", result, Some(reply));
            }
            Finished::Restore { began, from, result, reply } => {
                let result = result.map(|done| self.restored(began, from, done));
                self.conclude("restore", result, Some(reply));
            }
            Finished::PutBack { result } => self.put_back_ended(result),
        }
    }

    fn conclude<T>(&mut self, name: &str, result: Result<T, OperationError>, reply: Option<Reply<T>>) {
        let result = result.map_err(|e| {
            tracing::error!(environment = self.ward.name, operation = name, error = %chain(&e), "failed");
            if matches!(e, OperationError::NotUndone { .. }) {
                self.left_out.needs_operator = Some(chain(&e));
            }
            if reply.is_none() {
                self.troubles.begin(Topic::Operation, format!("{name} failed: {}", chain(&e)));
            }
            refusal(&self.ward.name, &e)
        });
        if let Some(reply) = reply {
            answer(reply, result);
        }
    }

    /// Guards by the baseline that an operation has committed.
    fn take_up_baseline(&mut self, records: &[guard_model::ledger::Record]) {
        self.take_in(records);
        self.load_baseline();
        self.follow_reads();
        // Until the lock file says so, too, the plan stays and tells the next start why it does not.
        if self.renew_lock_file() {
            self.clear_plan();
        }
        self.prune_baselines();
    }

    fn locked(&mut self, began: Instant, done: LockDone) -> LockResult {
        self.troubles.end(Topic::Operation);
        self.take_up_baseline(&done.records);
        // What was found before is part of the new baseline; its alerts stay until somebody looks.
        let generation = self.state.baseline.as_ref().map_or(0, |b| b.generation);
        let mut events: Vec<Event> = self.gaps.covered_by_new_baseline();
        let mut settled = self.raised.clear();
        settled.extend(unreviewed(&done.records));
        events.extend(settled.into_iter().map(|(alert, paths)| Event::AlertSettled {
            alert,
            paths,
            how: format!("became baseline {generation}"),
            reviewed: false,
        }));
        // Taking the baseline read every protected file.
        events.push(Event::RehashFinished {
            files: done.totals.files,
            bytes: done.totals.bytes,
            duration_ms: millis(began.elapsed()),
            findings: 0,
            deep: false,
        });
        self.record(events);
        // The watches stand since before the walk, by the same policy: renewing them would be a gap.
        self.scans.all_was_read();
        self.guard.relocked();
        let unsealed: Vec<Skipped> = done
            .unsealed
            .iter()
            .map(|(p, skip)| Skipped { path: p.to_string(), why: wire::unsealed(*skip) })
            .collect();
        self.left_out.unsealed = done.unsealed;
        self.left_out.unread = done.skipped.clone();
        self.left_out.mounts.clone_from(&done.mounts);
        self.left_out.unmatched.clone_from(&done.unmatched);
        let mut skipped: Vec<Skipped> =
            done.skipped.iter().map(wire::skipped).chain(done.mounts.iter().map(wire::mount)).collect();
        skipped.extend(unsealed);
        for warning in &done.warnings {
            tracing::warn!(environment = self.ward.name, warning, "locked");
        }
        let mut warnings = done.warnings;
        warnings.extend(self.lock_warnings());
        LockResult {
            environment: self.ward.name.clone(),
            generation,
            repaired: None,
            changed: done.changed,
            protected: wire::totals(&done.totals),
            seal: self.seal_state().unwrap_or_else(|| SealState {
                asked: self.config.seal.to_string(),
                done: done.seal_done.to_string(),
                ..SealState::default()
            }),
            skipped,
            unmatched: done.unmatched,
            warnings,
            duration_ms: millis(began.elapsed()),
        }
    }

    fn lock_warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        warnings.extend(self.watch_report.trouble());
        warnings.extend(self.troubles.all().cloned());
        warnings
    }

    fn repaired(&mut self, began: Instant, by: String, done: Repaired) -> LockResult {
        let repaired = done.entries;
        self.record(vec![Event::LockRepaired { by, repaired }]);
        self.renew_lock_file();
        let reported = self.raised.reported();
        for path in reported {
            self.touches.add(path, Reach::Entry, None);
        }
        let current = self.state.baseline.clone();
        LockResult {
            environment: self.ward.name.clone(),
            generation: current.as_ref().map_or(0, |b| b.generation),
            repaired: Some(repaired),
            changed: None,
            protected: current.map(|b| wire::totals(&b.totals)).unwrap_or_default(),
            seal: self.seal_state().unwrap_or_default(),
            skipped: done.left.iter().map(wire::skipped).collect(),
            unmatched: Vec::new(),
            warnings: self.lock_warnings(),
            duration_ms: millis(began.elapsed()),
        }
    }

    fn unlocked(&mut self, began: Instant, done: UnlockDone) -> UnlockResult {
        self.take_in(&done.records);
        self.renew_lock_file();
        if done.is_finished {
            self.clear_plan();
        }
        // Differences found while locked keep their alerts; inside the window they are changes anew.
        self.raised.close_group();
        if self.held.as_ref().is_some_and(|h| h.policy.text() != self.config.policy.text()) {
            self.watch();
        }
        let skipped = done
            .unsealed
            .left
            .iter()
            .map(|text| {
                let (path, why) = text.split_once(": ").unwrap_or((text, ""));
                Skipped { path: path.to_owned(), why: why.to_owned() }
            })
            .collect();
        let window = self.state.window.as_ref().map(wire::window);
        UnlockResult {
            environment: self.ward.name.clone(),
            window: window.unwrap_or_else(|| guard_api::wire::Window {
                id: 0,
                by: String::new(),
                maintainer: String::new(),
                reason: String::new(),
                since: time(now()),
                until: time(now()),
            }),
            restored: done.unsealed.restored,
            skipped,
            warnings: done.warnings,
            duration_ms: millis(began.elapsed()),
        }
    }

    fn accepted(&mut self, paths: Vec<RelPath>, done: AcceptDone) -> guard_api::method::AcceptReply {
        self.take_up_baseline(&done.records);
        let texts: Vec<String> = paths.iter().map(ToString::to_string).collect();
        let mut by_alert: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for text in &texts {
            if let Some(alert) = self.raised.settle(text) {
                by_alert.entry(alert).or_default().push(text.clone());
            }
        }
        let events = by_alert
            .into_iter()
            .map(|(alert, paths)| Event::AlertSettled {
                alert,
                paths,
                how: format!("accepted as baseline {}", done.generation),
                reviewed: true,
            })
            .collect();
        self.record(events);
        for path in paths {
            self.touches.add(path, Reach::Entry, None);
        }
        guard_api::method::AcceptReply {
            environment: self.ward.name.clone(),
            generation: done.generation,
            accepted: texts,
            warnings: done.warnings,
        }
    }

    /// Removes the oldest generations beyond those that are kept.
    fn prune_baselines(&self) {
        use guard_store::baseline::{KEEP, prune};
        let current = self.state.baseline.as_ref().map_or(0, |b| b.generation);
        if let Err(e) = prune(&self.ward.house.state_dir, &self.ward.name, KEEP, current) {
            // They only take space; the next lock tries again.
            tracing::warn!(error = %chain(&e), "old baselines could not be removed");
        }
    }

    pub(super) fn clear_plan(&mut self) {
        if let Err(e) = guard_store::Plan::clear(&self.ward.house.state_dir, &self.ward.name) {
            // The next start finds it committed and clears it.
            tracing::warn!(error = %chain(&e), "the plan could not be removed");
        }
    }

    /// Handles nothing but the end of the operation that runs: before READY.
    pub(super) fn wait_for_operation(&mut self) {
        let mut later = Vec::new();
        while self.running.is_some() {
            match self.inbox.recv() {
                Ok(Message::Finished(finished)) => self.operation_ended(*finished),
                Ok(other) => later.push(other),
                Err(_) => return,
            }
        }
        later.into_iter().for_each(|message| self.handle(message));
    }
}

/// An alert about unreviewed changes holds what is the baseline already.
fn unreviewed(records: &[guard_model::ledger::Record]) -> Vec<(u64, Vec<String>)> {
    records
        .iter()
        .filter_map(|r| match &r.event {
            Event::AlertOpened { findings, .. } if !findings.is_empty() => {
                Some((r.seq, findings.iter().map(|f| f.path.clone()).collect()))
            }
            _ => None,
        })
        .collect()
}
