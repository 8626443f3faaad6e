//! Lock: plan, seal, hash, sign, commit.

use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError};

use guard_model::baseline::Totals;
use guard_model::ledger::{Event, Record, WindowEnd};
use guard_model::path::escape;
use guard_model::put_back::Overlay;
use guard_model::seal::Skip;
use guard_model::state::Window;
use guard_model::{BackupKind, Digest, Finding, Policy, RelPath, Seal, Severity};
use guard_store::{Baseline, BaselineWriter, ManifestDraft, Plan, PlanHeader, PlanKind, PlanStep};
use guard_tree::{MarksSet, Root, ScanContent, ScanOptions, ScanReport};

use super::backup::{Cause, OnNoBackup, Safety, Secured};
use super::open_writers::{OnOpenWriters, Told};
use super::recorder::{Listed, Recorded, Recorder, Refused};
use super::sealing::{OnCancel, carry_out};
use super::survey::{Survey, Surveyor};
use super::{OperationError, Phase, Work, baseline_diff, now};
use crate::comparer::DeviceMap;
use crate::sessions::alert;
use crate::ward::Ward;

/// What to lock, and on whose word.
pub(crate) struct LockTask {
    pub(crate) ward: Ward,
    pub(crate) root: Arc<Root>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) seal: Seal,
    pub(crate) by: String,
    pub(crate) reason: String,
    /// The manifest of the generation before.
    pub(crate) previous: Option<Digest>,
    pub(crate) generation: u64,
    /// The window that this lock ends.
    pub(crate) ends: Option<EndedWindow>,
    pub(crate) options: LockOptions,
    pub(crate) safety: Safety,
    pub(crate) work: Arc<Work>,
}

/// What the caller decides about a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LockOptions {
    pub(crate) on_writers: OnOpenWriters,
    pub(crate) outside_links: OutsideLinks,
    pub(crate) on_no_backup: OnNoBackup,
}

/// What a lock does about files that have names outside the root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OutsideLinks {
    /// They are left unsealed, and listed.
    #[default]
    Leave,
    /// They get an inode of their own first.
    Break,
}

/// A window that ends with a lock.
pub(crate) struct EndedWindow {
    pub(crate) window: Window,
    pub(crate) how: WindowEnd,
    /// The baseline from before the window; `None` where it is lost.
    pub(crate) before: Option<Arc<Baseline>>,
    /// What was put back since that one was made.
    pub(crate) put_back: Arc<Overlay>,
}

/// What a lock brought.
pub(crate) struct LockDone {
    pub(crate) records: Vec<Record>,
    /// Paths that differ from the baseline before the window.
    pub(crate) changed: Option<u64>,
    pub(crate) seal_done: Seal,
    pub(crate) totals: Totals,
    /// Entries left unsealed, at most [`LISTED`].
    pub(crate) unsealed: Vec<(RelPath, Skip)>,
    /// Paths that could not be read or walked, with why.
    pub(crate) skipped: Vec<(RelPath, String)>,
    /// What lies on another mount than its directory.
    pub(crate) mounts: Vec<RelPath>,
    /// Literal patterns that matched nothing.
    pub(crate) unmatched: Vec<String>,
    /// What became of links, what is open for writing, or could not be told not to be.
    pub(crate) warnings: Vec<String>,
}

/// Unsealed entries named one by one; the rest are counted.
pub(crate) const LISTED: usize = 200;

impl LockTask {
    /// Locks. Where it fails, every mode and flag is as it was. The plan stays until the
    /// lock file says what the ledger says.
    pub(crate) fn run(self) -> Result<LockDone, OperationError> {
        let mut survey = self.survey()?;
        let mut said = Vec::new();
        if self.options.outside_links == OutsideLinks::Break {
            said = self.break_links(&survey)?;
            if !said.is_empty() {
                survey = self.survey()?;
            }
        }
        let header = self.plan_header(PlanKind::Lock);
        Plan::write(&self.ward.house.state_dir, &header, survey.steps(self.seal))?;
        match self.seal_and_commit(&survey) {
            Ok(mut done) => {
                done.warnings.splice(..0, said);
                Ok(done)
            }
            Err(cause) => {
                let steps = survey.steps(self.seal);
                Err(failed(cause, &self.ward, &self.root, steps, self.generation))
            }
        }
    }

    fn survey(&self) -> Result<Survey, OperationError> {
        if self.seal == Seal::None && self.options.outside_links == OutsideLinks::Leave {
            // Nothing will be changed: what is there is seen when it is read.
            return Ok(Survey::default());
        }
        self.work.enter(Phase::Walking, 0);
        let began = now();
        let surveyor =
            Surveyor { seal: self.seal, outside_links: self.options.outside_links, found: Mutex::default() };
        guard_tree::scan(
            &self.root,
            &self.policy,
            &RelPath::root(),
            &self.options(ScanContent::Glance),
            &surveyor,
        )?;
        self.work.check_cancelled()?;
        let mut survey = surveyor.into_survey();
        survey.confirm_links(&self.root, began);
        Ok(survey)
    }

    fn options(&self, content: ScanContent) -> ScanOptions<'_> {
        ScanOptions {
            content,
            workers: workers(),
            pace: None,
            cancel: &self.work.cancel,
            progress: &self.work.progress,
        }
    }

    fn seal_and_commit(&self, survey: &Survey) -> Result<LockDone, OperationError> {
        let count = survey.steps(self.seal).count();
        self.work.enter(Phase::Sealing, count as u64);
        let mut refused = Refused::default();
        let steps = survey.steps(self.seal);
        for (step, set) in carry_out(&self.root, steps, count, &self.work, OnCancel::Stop)? {
            match set {
                MarksSet::NotPermitted => {
                    refused.modes.insert(step.path);
                }
                MarksSet::NoFlags(why) => {
                    refused.flags.insert(step.identity.0, why);
                }
                MarksSet::Done | MarksSet::Already | MarksSet::Vanished | MarksSet::Replaced => {}
            }
        }

        self.work.enter(Phase::Hashing, survey.entries);
        let writer = BaselineWriter::create(&self.ward.house.state_dir, &self.ward.name, self.generation)?;
        let recorder = Recorder {
            survey,
            refused,
            seal: self.seal,
            out: Mutex::new(Recorded {
                writer,
                unsealed: Listed::default(),
                partial: Listed::default(),
                unread: Vec::new(),
                immutable: false,
                writers: Told::default(),
                error: None,
            }),
        };
        let report = guard_tree::scan(
            &self.root,
            &self.policy,
            &RelPath::root(),
            &self.options(ScanContent::AllAndWriters),
            &recorder,
        )?;
        self.work.check_cancelled()?;
        self.commit(recorder.out.into_inner().unwrap_or_else(PoisonError::into_inner), report)
    }

    fn commit(&self, mut recorded: Recorded, report: ScanReport) -> Result<LockDone, OperationError> {
        self.work.enter(Phase::Committing, 0);
        if let Some(e) = recorded.error {
            return Err(e.into());
        }
        let open = recorded.writers.open_files();
        let open = match open {
            Some(open) if self.refuses_writers() => return Err(OperationError::OpenForWriting(open)),
            open => open,
        };
        let (seal_done, why) = recorded.seal_done(self.seal);
        if let Some(why) = why {
            tracing::warn!(environment = self.ward.name, seal = %seal_done, asked = %self.seal, why, "sealed less than asked for");
        }
        let committed =
            recorded.writer.finish(self.manifest(seal_done, &report.mounts), &self.ward.house.key)?;
        let totals = committed.manifest.totals;
        let after = self.ward.house.baseline(&self.ward.name, self.generation, &committed.digest)?;
        // The content of a generation is stored before the generation counts.
        let secured = self.secure(&after)?;
        self.work.enter(Phase::Committing, 0);
        let mut events: Vec<Event> = secured.event.into_iter().collect();
        events.push(Event::Locked {
            generation: self.generation,
            baseline: committed.digest,
            by: self.by.clone(),
            reason: self.reason.clone(),
            seal: seal_done,
            totals,
            unsealed: recorded.unsealed.count,
        });
        let mut changed = None;
        if let Some(ended) = &self.ends {
            let findings = match &ended.before {
                Some(before) => baseline_diff::between(before, &ended.put_back, &after, now())?,
                None => Vec::new(),
            };
            changed = ended.before.is_some().then_some(findings.len() as u64);
            events.extend(ended.events(findings));
        }
        if let (Some(open), true) = (&open, self.is_by_timer()) {
            events.push(open.alert());
        }
        if let (Some(why), true) = (&secured.why_none, self.is_by_timer()) {
            events.push(no_backup_alert(why));
        }
        self.root.to_disk()?;
        let mut records = self.ward.append(events)?;
        records.extend(self.safety.prune(&self.ward));
        let mut skipped = report.skipped;
        skipped.extend(recorded.unread);
        Ok(LockDone {
            records,
            changed,
            seal_done,
            totals,
            unsealed: recorded.unsealed.paths,
            skipped,
            mounts: report.mounts,
            unmatched: report
                .unmatched
                .into_iter()
                .map(|(list, pattern)| format!("{list}: {pattern}"))
                .collect(),
            warnings: open
                .map(|open| format!("locked with open writers: {open}"))
                .into_iter()
                .chain(recorded.writers.untested())
                .chain(secured.warnings)
                .collect(),
        })
    }

    fn secure(&self, baseline: &Baseline) -> Result<Secured, OperationError> {
        let cause = Cause::new(BackupKind::PreLock, &self.by, self.generation);
        let device = DeviceMap::same(&self.root);
        self.safety
            .secure(|vault| vault.store_baseline(&self.ward, &self.root, baseline, device, cause, &self.work))
    }

    /// Nobody waits for its answer.
    fn is_by_timer(&self) -> bool {
        self.ends.as_ref().is_some_and(|e| e.how.is_by_clock())
    }

    pub(super) fn plan_header(&self, kind: PlanKind) -> PlanHeader {
        self.ward.plan_header(kind, self.generation, &self.root, &self.by, &self.reason)
    }

    fn manifest(&self, seal_done: Seal, mounts: &[RelPath]) -> ManifestDraft {
        ManifestDraft {
            created_at: now(),
            by: self.by.clone(),
            reason: self.reason.clone(),
            root: escape(self.root.path().as_os_str().as_bytes()),
            root_identity: self.root.identity(),
            ancestors: super::ancestors::of(self.root.path()),
            mounts: Some(mounts.to_vec()),
            policy: self.policy.text().clone(),
            seal: self.seal,
            seal_done,
            previous: self.previous,
        }
    }
}

/// The tree is guarded again, though nothing could be put back from a backup of it.
fn no_backup_alert(why: &str) -> Event {
    alert(Severity::High, format!("locked without a backup: {why}"), Vec::new())
}

impl EndedWindow {
    /// Findings of a window that one alert names; the rest are counted in its title.
    const NAMED: usize = 1000;

    /// The end of the window and, where nobody was there to look, the alert about its changes.
    fn events(&self, mut findings: Vec<Finding>) -> Vec<Event> {
        let changed = findings.len();
        let mut events =
            vec![Event::WindowClosed { window: self.window.id, how: self.how, changed: changed as u64 }];
        let paths = match &self.before {
            Some(_) => format!("{changed} paths"),
            // The baseline to compare with is lost.
            None => "nobody can tell which paths".to_owned(),
        };
        if self.how.is_by_clock() && (changed > 0 || self.before.is_none()) {
            findings.truncate(Self::NAMED);
            events.push(alert(
                Severity::Warning,
                format!(
                    "unreviewed window changes: {paths} changed while {} had it unlocked for: {}",
                    self.window.maintainer, self.window.reason
                ),
                findings,
            ));
        }
        events
    }
}

/// What a lock ends with that could not be carried out: it is undone, and its plan goes.
pub(crate) fn failed(
    cause: OperationError,
    ward: &Ward,
    root: &Root,
    steps: impl IntoIterator<Item = PlanStep>,
    generation: u64,
) -> OperationError {
    let cleared = || Ok(Plan::clear(&ward.house.state_dir, &ward.name)?);
    match undo(ward, root, steps, generation).and_then(|_| cleared()) {
        Ok(()) => cause,
        Err(undo) => OperationError::NotUndone { cause: Box::new(cause), undo: Box::new(undo) },
    }
}

/// Gives back the modes and flags of a lock that did not come about, and removes what there is of its
/// baseline. The plan stays.
pub(crate) fn undo(
    ward: &Ward,
    root: &Root,
    steps: impl IntoIterator<Item = PlanStep>,
    generation: u64,
) -> Result<u64, OperationError> {
    let (mut undone, mut is_empty) = (0, true);
    for step in steps {
        is_empty = false;
        if root.set_marks(&step.path, step.identity, step.before())? == MarksSet::Done {
            undone += 1;
        }
    }
    if !is_empty {
        root.to_disk()?;
    }
    guard_store::baseline::discard(&ward.house.state_dir, &ward.name, generation)?;
    Ok(undone)
}

/// Workers of a scan that somebody waits for.
pub(crate) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(8))
}
