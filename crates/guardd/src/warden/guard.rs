//! What no hint tells of: the root's and its ancestors' identity, the lock
//! file, the end of a window. Looked at once a second.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use guard_model::baseline::LockState;
use guard_model::ledger::{GapCause, Head, WindowEnd};
use guard_model::path::escape;
use guard_model::seal::Skip;
use guard_model::state::Window;
use guard_model::{Actor, Change, Finding, RelPath, Severity};
use guard_store::{Baseline, LockFileSeen, lock_file};
use guard_tree::{Root, RootCheck};

use super::baseline_files::files_in;
use super::commands::LockWish;
use super::troubles::Topic;
use super::{Held, Warden};
use crate::comparer::MountsAtLock;
use crate::failure::chain;
use crate::operations::backup::OnNoBackup;
use crate::operations::lock::{LISTED, LockOptions};
use crate::operations::open_writers::OnOpenWriters;
use crate::operations::{ancestors, now, recover};
use crate::ward::Ward;

/// What was seen at the last look.
#[derive(Debug, Default)]
pub(super) struct Guard {
    last_tick_us: u64,
    lock_file: Option<LockFileSeen>,
    /// It could not be written last time, and is not what it should be: nobody touched it.
    lock_file_is_old: bool,
    /// Paths outside the tree that are reported as differing.
    reported: BTreeSet<String>,
    /// The root's path does not lead to the locked root.
    root_lost: bool,
    /// The root's path does not lead to what was opened: nothing there is looked at.
    pub(super) root_away: bool,
    last_relock_us: Option<u64>,
    /// Who mounted something over the root or above it, and when, microseconds.
    mounted_by: Option<(Arc<Actor>, u64)>,
}

impl Guard {
    /// A relock that fails, because the root is away, say, is tried again at this distance.
    const RELOCK_AGAIN_US: u64 = 15_000_000;
    /// A look follows what tells of a mount; what is found later has other causes.
    const MOUNT_SHOWS_IN_US: u64 = 2_000_000;

    fn relock_may_be_tried(&self) -> bool {
        let now = guard_sys::clock::boottime_micros();
        self.last_relock_us.is_none_or(|at| now.saturating_sub(at) >= Self::RELOCK_AGAIN_US)
    }

    fn relock_tried(&mut self) {
        self.last_relock_us = Some(guard_sys::clock::boottime_micros());
    }

    /// A relock came about: the next window's end is not held up by this one's.
    pub(super) fn relocked(&mut self) {
        self.last_relock_us = None;
    }

    /// Mounts show at the root's whereabouts, which are looked at at once.
    pub(super) fn mounted(&mut self, by: Option<Arc<Actor>>) {
        let now = guard_sys::clock::boottime_micros();
        self.mounted_by = by.map(|actor| (actor, now));
        self.last_tick_us = 0;
    }

    /// Who stands for a change of the root or above it that was found just now.
    fn actor_of(&self, change: &[Change]) -> Option<Actor> {
        let (actor, at) = self.mounted_by.as_ref().filter(|_| change.contains(&Change::Mount))?;
        let now = guard_sys::clock::boottime_micros();
        (now.saturating_sub(*at) <= Self::MOUNT_SHOWS_IN_US).then(|| actor.as_ref().clone())
    }

    /// Is the next look due? If so it counts as done.
    pub(super) fn tick_due(&mut self) -> bool {
        let now = guard_sys::clock::boottime_micros();
        let due = now.saturating_sub(self.last_tick_us) >= 900_000;
        if due {
            self.last_tick_us = now;
        }
        due
    }
}

impl Warden {
    /// Opens the root, if it is there, finishes or undoes what was cut short in it, and
    /// sets the watches. False where it is not there.
    pub(super) fn find_root(&mut self) -> bool {
        match Root::open(&self.config.root) {
            Ok(root) => {
                self.root = Some(Arc::new(root));
                self.guard.root_away = false;
                self.troubles.end(Topic::Root);
                self.recover();
                self.watch();
                self.follow_reads();
                true
            }
            Err(e) => {
                let why = chain(&e);
                if self.troubles.begin(Topic::Root, why.clone()) {
                    tracing::warn!(environment = self.ward.name, why, "the root cannot be opened");
                }
                false
            }
        }
    }

    /// Sets or renews the watches. What could not be watched comes back as a gap.
    pub(super) fn watch(&mut self) {
        let Some(root) = &self.root else { return };
        self.watch_report = self.watching.watch(self.id, root.path(), self.policy());
    }

    /// Opens the baseline that the ledger names.
    pub(super) fn load_baseline(&mut self) {
        let Some(current) = &self.state.baseline else {
            self.held = None;
            return;
        };
        let opened = self.ward.house.baseline(&self.ward.name, current.generation, &current.digest);
        match opened {
            Ok(baseline) => match guard_model::Policy::new(baseline.manifest().policy.clone()) {
                Ok(policy) => {
                    self.troubles.end(Topic::Baseline);
                    (self.left_out.unsealed, self.left_out.seal_short) =
                        unsealed(&baseline, current.unsealed);
                    self.held = Some(Held {
                        digest: current.digest,
                        policy: Arc::new(policy),
                        manifest: baseline.manifest().clone(),
                        mounts: MountsAtLock::of(baseline.manifest()),
                        files: files_in(baseline.dir()),
                        baseline: Arc::new(baseline),
                    });
                }
                Err(_) => {
                    let why = "the signed policy holds a pattern that is no pattern";
                    self.troubles.begin(Topic::Baseline, why);
                }
            },
            Err(e) => {
                self.held = None;
                self.baseline_lost(chain(&e));
            }
        }
    }

    /// The baseline is damaged: nothing can be compared, which is an alarm of its own.
    pub(super) fn baseline_lost(&mut self, why: String) {
        tracing::error!(environment = self.ward.name, why, "the baseline cannot be opened");
        self.troubles.begin(Topic::Baseline, format!("the baseline cannot be opened: {why}"));
        let path = self.ward.house.state_dir.baselines().join(&self.ward.name);
        self.report_outside(path.as_os_str().as_bytes(), vec![Change::Content], Some(why));
    }

    /// Finishes or undoes what was cut short.
    fn recover(&mut self) {
        let Some(root) = self.root.clone().filter(|_| self.running.is_none()) else { return };
        let device = self.held.as_ref().map(|h| h.manifest.root_identity.0);
        match recover::recover(&self.ward, &root, &self.state, device) {
            Ok(None) => {}
            Ok(Some(recovered)) => {
                let events = recovered.events;
                tracing::warn!(environment = self.ward.name, ?events, "an operation had been cut short");
                self.record(events);
                self.left_out.needs_operator = None;
                // A plan that stayed would undo again, at the next start, what somebody does until then.
                if self.renew_lock_file() || !recovered.is_committed {
                    self.clear_plan();
                }
            }
            Err(e) => {
                self.left_out.needs_operator =
                    Some(format!("an operation was cut short and could not be recovered: {}", chain(&e)));
            }
        }
    }

    /// Does the root's path still lead to the locked root, and are its ancestors as they were?
    pub(super) fn check_root(&mut self) {
        let Some(root) = self.root.clone() else {
            if self.find_root() {
                self.scans.cancel();
            } else if self.held.is_some() {
                self.root_is(vec![Change::Deleted, Change::Root], Some("nothing is there".to_owned()));
            }
            return;
        };
        let standing = root.still_there();
        self.guard.root_away = !matches!(standing, Ok(RootCheck::Same | RootCheck::Remounted));
        let is_free = self.running.is_none();
        if self.guard.root_away && is_free && self.wants_what_stands_there(&root) && self.find_root() {
            self.scans.cancel();
            return;
        }
        match standing {
            Ok(RootCheck::Same) => self.root_is(self.root_replaced_since_lock(&root), None),
            Ok(RootCheck::Gone) => {
                self.root_is(vec![Change::Deleted, Change::Root], Some("nothing is there".to_owned()));
            }
            Ok(RootCheck::Remounted) => {
                let why = "something is mounted over it, or over a directory above it".to_owned();
                self.root_is(vec![Change::Root, Change::Mount], Some(why));
            }
            Ok(RootCheck::Other { dev, is_mount_point, .. })
                if is_mount_point || dev != root.identity().0 =>
            {
                let why = "something else is mounted over it, or over a directory above it".to_owned();
                self.root_is(vec![Change::Root, Change::Mount], Some(why));
            }
            Ok(RootCheck::Other { .. }) => {
                self.root_is(
                    vec![Change::Root, Change::Inode],
                    Some("another directory stands there".to_owned()),
                );
            }
            Err(e) => self.root_is(vec![Change::Root], Some(chain(&e))),
        }
        self.check_ancestors(&root);
    }

    /// Another directory stands at the root's path now. Is it to be guarded instead? While
    /// locked, only the locked one, come back after another one had stood there at start.
    fn wants_what_stands_there(&self, opened: &Root) -> bool {
        let Ok(standing) = Root::open(&self.config.root) else { return false };
        match &self.held {
            Some(held) if Ward::is_locked(&self.state) => {
                let locked = held.manifest.root_identity.1;
                opened.identity().1 != locked && standing.identity().1 == locked
            }
            _ => true,
        }
    }

    /// The root is the one that was opened; is it also the one that was locked?
    fn root_replaced_since_lock(&self, root: &Root) -> Vec<Change> {
        match &self.held {
            Some(held) if held.manifest.root_identity.1 != root.identity().1 => {
                vec![Change::Root, Change::Inode]
            }
            _ => Vec::new(),
        }
    }

    fn root_is(&mut self, change: Vec<Change>, why: Option<String>) {
        let lost = !change.is_empty();
        let path = self.config.root.as_os_str().as_bytes().to_vec();
        if lost {
            let said = why.as_deref().unwrap_or("it is not the directory that was locked");
            self.troubles.begin(Topic::Root, format!("{}: {said}", escape(&path)));
            self.report_outside(&path, change, why.clone());
        } else {
            self.troubles.end(Topic::Root);
            self.settle_outside(&path);
        }
        if lost && !self.guard.root_lost {
            self.hints_lost(
                GapCause::Root,
                why.unwrap_or_else(|| "the root is not the locked one".to_owned()),
            );
        }
        if !lost && self.guard.root_lost {
            self.watch();
        }
        self.guard.root_lost = lost;
    }

    fn check_ancestors(&mut self, root: &Root) {
        let Some(held) = &self.held else { return };
        let recorded = held.manifest.ancestors.clone();
        let differ = ancestors::differences(&recorded, &ancestors::of(root.path()));
        for ancestor in &recorded {
            if differ.iter().all(|(path, _)| *path != ancestor.path) {
                self.settle_outside_text(&ancestor.path);
            }
        }
        for (path, change) in differ {
            self.report_outside_text(path, change, None);
        }
    }

    /// Is the lock file the one that was written last? A touched one is reported and put right.
    pub(super) fn check_lock_file(&mut self) {
        if self.state.baseline.is_none() || self.running.is_some() {
            return;
        }
        if self.guard.lock_file_is_old {
            if !self.renew_lock_file() {
                return;
            }
            self.clear_plan();
        }
        let Ok(path) = self.ward.house.state_dir.lock_file(&self.ward.name) else { return };
        let seen = lock_file::seen(&path).ok();
        if seen.is_some() && seen == self.guard.lock_file {
            return;
        }
        let why = match self.read_lock_file(&path) {
            // The first look of this run: it says what it should.
            Ok(seen) if self.guard.lock_file.is_none() => {
                self.guard.lock_file = Some(seen);
                return;
            }
            Ok(_) => "it was touched or replaced by a copy".to_owned(),
            Err(why) => why,
        };
        let text = path.as_os_str().as_bytes();
        self.report_outside(text, vec![Change::LockFile], Some(format!("{why}; guardd writes it anew")));
        if self.renew_lock_file() {
            self.settle_outside(text);
        }
    }

    fn read_lock_file(&self, path: &std::path::Path) -> Result<LockFileSeen, String> {
        let (said, seen) = lock_file::read_verified(path, &self.ward.house.public).map_err(|e| chain(&e))?;
        let mode = path.symlink_metadata().map_err(|e| e.to_string())?.mode() & 0o7777;
        if mode != guard_store::lock_file::MODE {
            return Err(format!("its mode is {mode:04o}"));
        }
        let generation = self.state.baseline.as_ref().map(|b| b.generation);
        if said.state == self.state.state && Some(said.generation) == generation {
            Ok(seen)
        } else {
            Err("it says something else than the ledger (an older lock file was put back?)".to_owned())
        }
    }

    /// Writes the lock file anew and remembers what it looks like. False where it cannot be written.
    pub(super) fn renew_lock_file(&mut self) -> bool {
        let head: Head = self.ward.house.ledger.head();
        let root = self.root.as_ref().map_or(self.config.root.clone(), |r| r.path().to_owned());
        let written = self.ward.write_lock_file(&self.state, &root, &self.config.branches, head);
        self.guard.lock_file_is_old = written.is_err();
        match written {
            Ok(seen) => {
                self.guard.lock_file = seen;
                self.troubles.end(Topic::LockFile);
                true
            }
            Err(e) => {
                let why = format!("the lock file cannot be written: {}", chain(&e));
                self.troubles.begin(Topic::LockFile, why);
                false
            }
        }
    }

    fn report_outside(&mut self, path: &[u8], change: Vec<Change>, note: Option<String>) {
        self.report_outside_text(escape(path), change, note);
    }

    fn report_outside_text(&mut self, path: String, change: Vec<Change>, note: Option<String>) {
        self.guard.reported.insert(path.clone());
        let finding = Finding {
            path,
            at: now(),
            actor: self.guard.actor_of(&change),
            change,
            before: None,
            after: None,
            restored: false,
            note,
        };
        let found = vec![(finding, false)];
        // Nobody is authorised to touch a lock file, window or not.
        if found.iter().all(|(f, _)| !f.change.contains(&Change::LockFile)) {
            return self.raise(found);
        }
        for (finding, _) in self.raised.only_new(found) {
            let title = guard_model::alert::title_of(&finding);
            let alert = self.raise_apart(Severity::Critical, title, vec![finding.clone()]);
            self.raised.remember(alert, &[(finding, false)]);
        }
    }

    fn settle_outside(&mut self, path: &[u8]) {
        self.settle_outside_text(&escape(path));
    }

    fn settle_outside_text(&mut self, path: &str) {
        let was_reported = self.guard.reported.remove(path) || self.raised.is_reported(path);
        if was_reported {
            self.settle(std::iter::once(path.to_owned()), "as before");
        }
    }

    /// Locks again where the window's time is up.
    pub(super) fn end_window_in_time(&mut self) {
        if self.running.is_some() || !self.guard.relock_may_be_tried() {
            return;
        }
        if let Some(window) = self.ended_window() {
            self.guard.relock_tried();
            self.begin_relock(window, WindowEnd::Timer);
        }
    }

    /// Before READY: a window that ended while nobody watched is closed now.
    pub(super) fn relock_if_window_ended_while_down(&mut self) {
        if let Some(window) = self.ended_window() {
            self.begin_relock(window, WindowEnd::WhileDown);
            self.wait_for_operation();
        }
    }

    fn ended_window(&self) -> Option<Window> {
        // A deployment locks again itself. One that needs an operator must not become the baseline by the clock.
        let deployments = &self.state.deployments;
        if deployments.running.is_some() || deployments.needs_operator.is_some() {
            return None;
        }
        let boot_us = guard_sys::clock::boottime_micros();
        self.state.window.clone().filter(|w| {
            self.state.state == LockState::Unlocked && w.has_ended(now(), boot_us, &self.ward.house.boot_id)
        })
    }

    fn begin_relock(&mut self, window: Window, how: WindowEnd) {
        let reason = format!("window {} of {} ended: {}", window.id, window.maintainer, window.reason);
        let wish = LockWish {
            by: "guardd".to_owned(),
            reason,
            ends: Some((window, how)),
            // What is open, or a full disk, must not keep it open to everybody.
            options: LockOptions {
                on_writers: OnOpenWriters::Warn,
                on_no_backup: OnNoBackup::GoOn,
                ..LockOptions::default()
            },
            work: crate::operations::Work::shared(),
            reply: None,
        };
        if let Err(refusal) = self.begin_lock(wish) {
            let why = format!("the window ended and the environment cannot be locked: {refusal:?}");
            self.troubles.begin(Topic::Operation, why);
        }
    }
}

/// The entries that were left unsealed, as far as they are listed, and why the tree is sealed
/// less than asked for, if it is.
fn unsealed(baseline: &Baseline, count: u64) -> (Vec<(RelPath, Skip)>, Option<&'static str>) {
    let manifest = baseline.manifest();
    // What cannot be read here cannot be compared either, which is said where it is.
    let skips = || baseline.iter().flatten().filter_map(|r| r.skip.map(|skip| (r.path, skip)));
    let listed = match count {
        0 => Vec::new(),
        _ => skips().filter(|(_, skip)| manifest.lists(*skip)).take(LISTED).collect(),
    };
    let short = (manifest.seal_done < manifest.seal)
        .then(|| skips().find(|(_, skip)| skip.is_partial()).and_then(|(_, skip)| skip.of_the_tree()));
    (listed, short.flatten())
}
