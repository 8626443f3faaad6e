//! What a warden says of its environment.

use guard_api::wire::{Environment, SealState, Skipped, State, WatchState};
use guard_model::RelPath;
use guard_model::baseline::LockState;
use guard_model::path::escape;
use guard_model::seal::Skip;

use super::Warden;
use crate::wire::{self, time, window};

/// What the last lock or scan could not do, shown until the next one.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    pub(super) unsealed: Vec<(RelPath, Skip)>,
    /// Why the tree is sealed less than asked for.
    pub(super) seal_short: Option<&'static str>,
    pub(super) unread: Vec<(RelPath, String)>,
    pub(super) mounts: Vec<RelPath>,
    pub(super) unmatched: Vec<String>,
    /// An operation that was cut short and could not be recovered.
    pub(super) needs_operator: Option<String>,
    /// Why the last scan did not come to its end.
    pub(super) scan_trouble: Option<String>,
}

/// What stands of the watches.
#[derive(Debug, Default)]
pub(crate) struct WatchReport {
    pub(crate) backend: &'static str,
    /// Why it is not the best one there is.
    pub(crate) instead: Option<String>,
    /// How processes that end at once are named; whether they are may change.
    pub(crate) memory: guard_watch::Memory,
    /// The configuration asked for another one by name.
    pub(crate) is_second_best: bool,
    /// It was watched while guardd was not there, too.
    pub(crate) adopted: bool,
    pub(crate) directories: u64,
    pub(crate) failed: Vec<(RelPath, String)>,
    /// No watch at all, and why.
    pub(crate) none: Option<String>,
}

impl WatchReport {
    /// What is wrong with the watches, in one line.
    pub(super) fn trouble(&self) -> Option<String> {
        if let Some(why) = &self.none {
            return Some(format!("not watched: {why}"));
        }
        if let (true, Some(why)) = (self.is_second_best, &self.instead) {
            return Some(format!("watched by {} and not as configured: {why}", self.backend));
        }
        let (path, why) = self.failed.first()?;
        Some(match self.failed.len() {
            1 => format!("{path} is not watched: {why}"),
            n => format!("{path} and {} more directories are not watched: {why}", n - 1),
        })
    }
}

/// Entries of one kind listed in a status; the rest are counted.
const LISTED: usize = 100;

impl Warden {
    pub(super) fn status(&self) -> Environment {
        use std::os::unix::ffi::OsStrExt;
        let root = self.root.as_ref().map_or(self.config.root.as_path(), |r| r.path());
        let deployments = &self.state.deployments;
        let needs_operator = self.left_out.needs_operator.is_some() || deployments.needs_operator.is_some();
        let is_busy = self.running.is_some() || deployments.running.is_some();
        let state = match (needs_operator, is_busy, self.state.state) {
            (true, ..) => State::NeedsOperator,
            (false, true, _) => State::Busy,
            (false, false, LockState::Locked) => State::Locked,
            (false, false, LockState::Unlocked) => State::Unlocked,
        };
        let deployment = deployments.running.as_ref().map(|d| match &d.step {
            Some(step) => format!("{} {}: {step}", d.kind, d.id),
            None => format!("{} {}", d.kind, d.id),
        });
        let open = self.ward.house.index().open_alerts(&self.ward.name);
        Environment {
            name: self.ward.name.clone(),
            root: escape(root.as_os_str().as_bytes()),
            state,
            operation: deployment.or_else(|| self.running.as_ref().map(|r| r.name.to_owned())),
            generation: self.state.baseline.as_ref().map(|b| b.generation),
            since: self.state.since.map(time),
            by: self.state.by.clone(),
            reason: self.state.reason.clone(),
            window: self.state.window.as_ref().map(window),
            protected: self.state.baseline.as_ref().map(|b| wire::totals(&b.totals)).unwrap_or_default(),
            seal: self.seal_state(),
            watch: WatchState {
                backend: self.watch_report.backend.to_owned(),
                instead: self.watch_report.instead.clone(),
                nameless: self.watch_report.memory.lacking(),
                directories: self.watch_report.directories,
                gaps: self.state.gaps.iter().filter_map(wire::gap).collect(),
                skipped: self.skipped(),
                unmatched: self.left_out.unmatched.clone(),
                reads: self.read_state(),
            },
            last_rehash: self.state.last_rehash.as_ref().map(wire::rehash),
            last_deep_rehash: self.state.last_deep_rehash.as_ref().map(wire::rehash),
            rehash_seconds: self.config.rehash.as_secs(),
            next_rehash_at: self.next_rehash_at(),
            rehash_overdue_seconds: self.overdue().map(|took| took.as_secs()),
            alerts_open: open.unwrap_or(0),
            backups: self.backup_state(),
        }
    }

    /// Everything that is not as it should be.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        all.extend(self.left_out.needs_operator.clone());
        let stuck = self.state.deployments.needs_operator.as_ref();
        all.extend(stuck.map(|(id, why)| format!("deployment {id} needs an operator: {why}")));
        all.extend(self.troubles.all().cloned());
        all.extend(self.left_out.scan_trouble.clone().map(|why| format!("the last scan failed: {why}")));
        all.extend(self.rehash_trouble());
        all.extend(self.put_back_stops());
        all.extend(self.watch_report.trouble());
        all.extend(self.read_trouble());
        if !self.unwritten.is_empty() {
            all.push(format!("{} events wait to be written to the ledger", self.unwritten.len()));
        }
        all
    }

    fn next_rehash_at(&self) -> Option<guard_api::Time> {
        let last = self.scans.last_rehash_us().filter(|_| crate::ward::Ward::is_locked(&self.state))?;
        let ago = guard_sys::clock::boottime_micros().saturating_sub(last);
        let every = u64::try_from(self.config.rehash.as_micros()).unwrap_or(u64::MAX);
        let ahead = i64::try_from(every.saturating_sub(ago)).unwrap_or(i64::MAX);
        Some(guard_api::Time(crate::operations::now().0.saturating_add(ahead)))
    }

    /// What the gates before a deployment are about.
    pub(super) fn gates(&mut self) -> crate::gates::Subject {
        // The last look at it may have been a second ago.
        self.check_root();
        let root = self.root.as_ref().map_or(self.config.root.as_path(), |r| r.path());
        crate::gates::Subject {
            ward: self.ward.clone(),
            config: self.config.clone(),
            state: self.state.clone(),
            root: root.to_owned(),
            rootless: self.root_in_place().err().map(|refusal| crate::gates::told(&refusal)),
            seal: self.seal_state(),
            recorded: self.deployed_revision(),
        }
    }

    /// The commit that the last deployment left, as long as nobody has unlocked since.
    fn deployed_revision(&self) -> Option<String> {
        let ended = self.state.deployments.last_done()?.ended.as_ref()?;
        let is_as_left = self.state.state == LockState::Locked && self.state.since <= Some(ended.at);
        ended.revision_after.clone().filter(|_| is_as_left)
    }

    pub(super) fn seal_state(&self) -> Option<SealState> {
        let held = self.held.as_ref()?;
        Some(SealState {
            asked: held.manifest.seal.to_string(),
            done: held.manifest.seal_done.to_string(),
            unsealed: self.state.baseline.as_ref().map_or(0, |b| b.unsealed),
            why: self.left_out.seal_short.map(str::to_owned),
            every_ms: self.seal_bound_ms(),
        })
    }

    fn skipped(&self) -> Vec<Skipped> {
        let mut all: Vec<Skipped> = self.left_out.unread.iter().take(LISTED).map(wire::skipped).collect();
        all.extend(self.left_out.mounts.iter().take(LISTED).map(wire::mount));
        all.extend(self.watch_report.failed.iter().take(LISTED).map(wire::skipped));
        all.extend(
            self.left_out
                .unsealed
                .iter()
                .take(LISTED)
                .map(|(p, skip)| Skipped { path: p.to_string(), why: wire::unsealed(*skip) }),
        );
        all
    }
}
