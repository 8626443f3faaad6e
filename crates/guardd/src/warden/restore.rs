//! Restore, because somebody asks for it.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guard_api::Known;
use guard_api::wire::{RestoreResult, RestoreStep, Skipped};
use guard_model::baseline::{BaselineRecord, Expect};
use guard_model::ledger::Event;
use guard_model::put_back::PUT_BACK;
use guard_model::{Digest, RelPath};
use guard_store::backup::{BackupError, Backups, Unpacking};
use guard_tree::Root;

use super::Warden;
use super::commands::{Refusal, Reply, answer};
use super::outcomes::Finished;
use super::touches::Reach;
use crate::comparer::{BackupRecords, DeviceMap, Expectation, MountsAtLock, Records};
use crate::operations::backup::OnNoBackup;
use crate::operations::restore::{Contents, How, Planned, RestoreDone, RestoreTask, Scope, Wanted, Wish};
use crate::operations::{Work, millis};
use crate::ward::Ward;
use crate::wire;

/// A restore that somebody wishes.
pub(crate) struct RestoreWish {
    /// Each names itself and everything below it.
    pub(crate) paths: Vec<RelPath>,
    /// The backup to take them from, as it was typed.
    pub(crate) from: Option<String>,
    /// With `from`: everything is to be as the backup has it, and what it does not hold goes to quarantine.
    pub(crate) exactly: bool,
    /// Only say what would be done.
    pub(crate) plan: bool,
    pub(crate) by: String,
    pub(crate) work: Arc<Work>,
    pub(crate) reply: Reply<RestoreResult>,
}

/// Steps of one answer; the rest are counted.
const SHOWN: usize = 10_000;

impl Contents for Unpacking {
    fn holds(&self, digest: &Digest) -> Result<bool, Box<dyn Error + Send + Sync>> {
        Ok(self.backups().holds(digest)?)
    }

    fn write(&self, digest: &Digest, out: &mut dyn Write) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.content(digest, out)?)
    }
}

impl Warden {
    pub(super) fn restore(&mut self, wish: RestoreWish) {
        let task = match self.restore_task(&wish) {
            Ok(task) => task,
            Err(refusal) => return answer(wish.reply, Err(refusal)),
        };
        let (environment, began, reply) = (self.ward.name.clone(), Instant::now(), wish.reply);
        if wish.plan {
            let spawned = std::thread::Builder::new().name(format!("plan {environment}")).spawn(move || {
                let result = task.plan().map(|planned| planned_result(&task, planned, began.elapsed()));
                answer(reply, result.map_err(|e| super::outcomes::refusal(&environment, &e)));
            });
            if let Err(e) = spawned {
                tracing::error!(error = %e, "no thread to plan a restore");
            }
            return;
        }
        match self.begin("restore", &wish.work) {
            Ok(()) => self.spawn(move || {
                let from = task.from().map(str::to_owned);
                Finished::Restore { began, from, result: task.run(), reply }
            }),
            Err(refusal) => answer(reply, Err(refusal)),
        }
    }

    fn restore_task(&mut self, wish: &RestoreWish) -> Result<RestoreTask, Refusal> {
        if let Some(running) = &self.running {
            let operation = running.name.to_owned();
            return Err(Known::Busy { environment: self.ward.name.clone(), operation });
        }
        let root = self.root_in_place()?;
        let failed = |message: String| Known::Failed { message, hint: None };
        let backups =
            self.vault().map_err(|why| failed(format!("the backups cannot be read: {why}")))?.backups;
        let standing = self.expectation();
        let baseline = || standing.clone().ok_or_else(|| self.no_baseline());
        let (expectation, wanted) = match &wish.from {
            None => (baseline()?, Wanted::Baseline),
            Some(_) if Ward::is_locked(&self.state) => {
                return Err(Known::Refused {
                    message: format!(
                        "{} is locked: what a backup holds may not be what its baseline says",
                        self.ward.name
                    ),
                    hint: Some("unlock it first; without --from the baseline's state is restored".to_owned()),
                    anyway: false,
                });
            }
            Some(asked) => {
                let mounts = self.held.as_ref().map(|h| h.mounts.clone()).unwrap_or_default();
                let (id, records) = from_backup(&backups, asked).map_err(|e| failed(e.with_causes()))?;
                match wish.exactly {
                    true => (as_backed_up(&root, records, mounts), Wanted::Exactly { id }),
                    false => {
                        let records = records.into_iter().map(|r| (r.path.clone(), r)).collect();
                        (baseline()?, Wanted::Backup { id, records: Arc::new(records) })
                    }
                }
            }
        };
        Ok(RestoreTask {
            ward: self.ward.clone(),
            root,
            policy: self.policy(),
            expectation,
            standing,
            wanted,
            scope: Scope::Below(wish.paths.clone()),
            contents: Arc::new(Unpacking::of(backups)),
            safety: Some(self.safety(OnNoBackup::GoOn)),
            generation: self.state.baseline.as_ref().map_or(0, |b| b.generation),
            by: wish.by.clone(),
            reason: "restore".to_owned(),
            work: Arc::clone(&wish.work),
        })
    }

    pub(super) fn restored(
        &mut self,
        began: Instant,
        from: Option<String>,
        mut done: RestoreDone,
    ) -> RestoreResult {
        self.take_in_restored(&mut done);
        let result = RestoreResult {
            environment: self.ward.name.clone(),
            generation: self.state.baseline.as_ref().map_or(0, |b| b.generation),
            from,
            plan: false,
            steps_total: done.done.len() as u64,
            steps: done.done.iter().take(SHOWN).filter_map(|(path, how)| done.step(path, *how)).collect(),
            skipped: done.left.iter().map(wire::skipped).collect(),
            remarks: done.remarks.iter().map(wire::skipped).collect(),
            quarantine: done.quarantine.clone(),
            duration_ms: millis(began.elapsed()),
        };
        for (path, _) in &done.done {
            if let Ok(path) = RelPath::from_text(&path.to_string()) {
                self.forgive(&path);
            }
        }
        result
    }

    /// What was put back is expected from now on, and no difference any more.
    pub(super) fn take_in_restored(&mut self, done: &mut RestoreDone) {
        let events = std::mem::take(&mut done.events);
        let is_nothing = events.is_empty();
        let records = self.record(events);
        // The rounds go on with what is expected from now on.
        self.seal_rounds = None;
        // What the ledger does not know yet, the next start has to learn from the plan.
        if is_nothing || !records.is_empty() {
            self.clear_plan();
        }
        let mut by_alert: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        let removed: Vec<&RelPath> =
            done.done.iter().filter(|(_, how)| *how != How::Adjust).map(|(path, _)| path).collect();
        // What had been reported below something that was taken away is gone with it.
        let reported = self.raised.reported();
        let settled = reported.into_iter().filter(|path| {
            !done.left.iter().any(|(left, _)| left == path)
                && (done.done.iter().any(|(d, _)| d == path) || removed.iter().any(|top| path.is_within(top)))
        });
        for path in settled.collect::<Vec<_>>() {
            let text = path.to_string();
            if let Some(alert) = self.raised.settle(&text) {
                by_alert.entry(alert).or_default().push(text);
            }
        }
        let events = by_alert.into_iter().map(|(alert, paths)| Event::AlertSettled {
            alert,
            paths,
            how: PUT_BACK.to_owned(),
            reviewed: false,
        });
        self.record(events.collect());
        // Each is looked at once more, as after any change.
        for (path, _) in &done.done {
            self.touches.add(path.clone(), Reach::Entry, None);
        }
        for (path, _) in &done.left {
            self.touches.add(path.clone(), Reach::Entry, None);
        }
    }
}

impl RestoreTask {
    fn from(&self) -> Option<&str> {
        match &self.wanted {
            Wanted::Baseline => None,
            Wanted::Backup { id, .. } | Wanted::Exactly { id } => Some(id),
        }
    }
}

impl RestoreDone {
    fn step(&self, path: &RelPath, how: How) -> Option<RestoreStep> {
        let (change, quarantined) = self.told.get(path).cloned().unwrap_or_default();
        step(path, how, &change, quarantined)
    }
}

fn step(path: &RelPath, how: How, change: &[guard_model::Change], quarantined: u64) -> Option<RestoreStep> {
    Some(RestoreStep {
        path: path.to_string(),
        action: how.word().to_owned(),
        change: wire::changes(change)?,
        quarantined,
    })
}

fn planned_result(task: &RestoreTask, planned: Planned, took: Duration) -> RestoreResult {
    let taken = |w: &Wish| if w.found.is_some() && w.how != How::Adjust { w.size } else { 0 };
    RestoreResult {
        environment: task.ward.name.clone(),
        generation: task.generation,
        from: task.from().map(str::to_owned),
        plan: true,
        steps_total: planned.wishes.len() as u64,
        steps: planned
            .wishes
            .iter()
            .take(SHOWN)
            .filter_map(|w| step(&w.path, w.how, &w.change, taken(w)))
            .collect(),
        skipped: planned.left.iter().map(wire::skipped).collect::<Vec<Skipped>>(),
        remarks: Vec::new(),
        quarantine: None,
        duration_ms: millis(took),
    }
}

/// Everything that a backup holds.
fn from_backup(backups: &Backups, asked: &str) -> Result<(String, Vec<BaselineRecord>), BackupError> {
    let id = backups.find(asked)?;
    let backup = backups.open_backup(&guard_store::backup::Which::Id(id.clone()))?;
    let records = backup.entries()?.map(|entry| Ok(entry?.record)).collect::<Result<_, BackupError>>()?;
    Ok((id.to_string(), records))
}

/// A backup's word on everything: the tree as it stood, not sealed.
fn as_backed_up(root: &Root, records: Vec<BaselineRecord>, mounts: MountsAtLock) -> Expectation {
    let records = BackupRecords::of(records);
    let now = root.identity().0;
    let device = DeviceMap { at_lock: records.device().unwrap_or(now), now };
    let (records, overlay) = (Records::Backup(Arc::new(records)), Arc::default());
    Expectation { records, overlay, expect: Expect::Original, device, mounts }
}
