//! Restore: paths are brought back to what they should be.
//!
//! First a look at what differs ([`survey`]), then what is to be done about each path ([`wishes`]), which is the plan;
//! it is on the disk before the first change. [`carry_out`] goes from the top down, a directory at a time. What an
//! interruption leaves is put right by [`recover`], which looks at the plan and the tree only. What stands in the way
//! is kept in quarantine, and what came back is expected from then on in its new inode.

mod carry_out;
pub(crate) mod held_open;
pub(crate) mod recover;
mod survey;
mod wishes;

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{self, Read, Write};
use std::sync::Arc;

use guard_model::baseline::BaselineRecord;
use guard_model::ledger::Event;
use guard_model::put_back::Standing;
use guard_model::{BackupKind, Change, Digest, Entry, Kind, Observed, Policy, RelPath};
use guard_store::{Case, Plan, PlanHeader, PlanKind};
use guard_tree::{Content, Keeper, Root};

use super::backup::{Cause, Safety};
use super::{OperationError, Phase, Work, now};
use crate::comparer::Expectation;
use crate::ward::Ward;
pub(crate) use wishes::{How, Wish};

/// Where the content of files comes from.
pub(crate) trait Contents: Send + Sync {
    /// Is this content to be had? An error where that cannot be told.
    fn holds(&self, digest: &Digest) -> Result<bool, Box<dyn Error + Send + Sync>>;

    /// Writes it; what it writes is checked by whoever asked.
    fn write(&self, digest: &Digest, out: &mut dyn Write) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Which paths are to be put right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Scope {
    /// These and everything below them, by somebody's wish.
    Below(Vec<RelPath>),
    /// These alone: guardd found them differing.
    Exactly(Vec<RelPath>),
}

/// What to bring paths back to.
#[derive(Clone)]
pub(crate) enum Wanted {
    /// What the baseline says.
    Baseline,
    /// What a backup of that name holds.
    Backup { id: String, records: Arc<BTreeMap<RelPath, BaselineRecord>> },
    /// What the expectation says, which is a backup's of that name.
    Exactly { id: String },
}

/// What to restore, and on whose word.
pub(crate) struct RestoreTask {
    pub(crate) ward: Ward,
    pub(crate) root: Arc<Root>,
    pub(crate) policy: Arc<Policy>,
    /// What paths are compared with.
    pub(crate) expectation: Expectation,
    /// What the baseline says of the tree, where there is one.
    pub(crate) standing: Option<Expectation>,
    pub(crate) wanted: Wanted,
    pub(crate) scope: Scope,
    pub(crate) contents: Arc<dyn Contents>,
    /// The backup of the tree as it stands that is made first; `None` where guardd restores by itself, which
    /// may not wait, and whose quarantine has what it takes away.
    pub(crate) safety: Option<Safety>,
    pub(crate) generation: u64,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) work: Arc<Work>,
}

/// What would be done, or was.
#[derive(Default)]
pub(crate) struct Planned {
    pub(crate) wishes: Vec<Wish>,
    /// What cannot be done, and why.
    pub(crate) left: Vec<(RelPath, String)>,
}

/// What a restore brought.
#[derive(Default)]
pub(crate) struct RestoreDone {
    /// To be written into the ledger: then it is committed.
    pub(crate) events: Vec<Event>,
    /// What was done, and how.
    pub(crate) done: Vec<(RelPath, How)>,
    /// What could not be done, and why; these paths are as they were.
    pub(crate) left: Vec<(RelPath, String)>,
    /// What is to be known of paths that were put back: attributes they lack, who goes on with the old inode.
    pub(crate) remarks: Vec<(RelPath, String)>,
    /// Where below `quarantine/` what was taken away is.
    pub(crate) quarantine: Option<String>,
    /// Left since somebody changed them at that very moment: worth another look.
    pub(crate) raced: Vec<RelPath>,
    /// Left for want of space on a disk, which may come.
    pub(crate) starved: Vec<RelPath>,
    /// Nothing more can be kept.
    pub(crate) quarantine_full: bool,
    /// In what each path differed, and the bytes of it that were taken away.
    pub(crate) told: BTreeMap<RelPath, (Vec<Change>, u64)>,
}

impl RestoreTask {
    /// What a restore would do. Changes nothing.
    pub(crate) fn plan(&self) -> Result<Planned, OperationError> {
        self.work.enter(Phase::Hashing, 0);
        let differences = survey::differences(self)?;
        self.work.check_cancelled()?;
        wishes::decide(self, differences)
    }

    /// Restores. The plan stays until the events are in the ledger.
    pub(crate) fn run(self) -> Result<RestoreDone, OperationError> {
        let planned = self.plan()?;
        let mut done = RestoreDone { left: planned.left, ..RestoreDone::default() };
        if planned.wishes.is_empty() {
            return Ok(done);
        }
        let mut case = Case::begin(&self.ward.house.state_dir, &self.ward.name, now())?;
        let taken: u64 = planned.wishes.iter().map(Wish::takes_away).sum();
        if taken > case.room() {
            return Err(OperationError::QuarantineFull { needed: taken, room: case.room() });
        }
        self.secure(&mut done)?;
        self.work.enter(Phase::Restoring, planned.wishes.len() as u64);
        let wishes = planned.wishes;
        // It begins at the moment that the quarantine's case is named by: recovery goes on with that.
        let header =
            self.ward.plan_header(PlanKind::Restore, self.generation, &self.root, &self.by, &self.reason);
        let header = PlanHeader { at: case.at(), ..header };
        Plan::write(&self.ward.house.state_dir, &header, carry_out::steps(&self, &wishes))?;
        done.told = wishes.iter().map(|w| (w.path.clone(), (w.change.clone(), w.takes_away()))).collect();
        let mounted = held_open::mounted_elsewhere(&self.root, &wishes);
        carry_out::carry_out(&self, &wishes, &mut case, &mut done);
        self.account(&wishes, &case, &mut done);
        done.remarks.extend(held_open::remarks(&wishes, &done, mounted));
        Ok(done)
    }

    /// Originals come back also where no backup can be made: what is taken away is in quarantine.
    fn secure(&self, done: &mut RestoreDone) -> Result<(), OperationError> {
        let Some(safety) = &self.safety else { return Ok(()) };
        self.work.enter(Phase::BackingUp, 0);
        let cause = Cause::new(BackupKind::Emergency, &self.by, self.generation);
        let cause = cause.noted("before a restore".to_owned());
        let secured = safety.secure(|vault| {
            vault.store_tree(&self.ward, &self.root, &self.policy, self.standing.as_ref(), cause, &self.work)
        })?;
        done.events.extend(secured.event);
        if let Some(why) = secured.why_none {
            let remark = format!("no backup of the tree as it stood was made: {why}");
            done.remarks.push((RelPath::root(), remark));
        }
        Ok(())
    }

    /// Looks at what came of it, and makes the events that say so.
    fn account(&self, wishes: &[Wish], case: &Case, done: &mut RestoreDone) {
        let mut standing = Vec::new();
        for (path, how) in &done.done {
            let Some(wish) = wishes.iter().find(|w| w.path == *path) else { continue };
            if *how == How::Remove {
                continue;
            }
            let Some(wanted) = &wish.wanted else { continue };
            // Its ctime is only certain when it has been left alone for a while; then its content is, too.
            let seen = self.expectation.device.as_recorded(self.root.observe(path, Content::Read));
            let Observed::Present(now) = &seen else { continue };
            if let Some(why) = still_differs(wanted, now) {
                done.remarks.push((path.clone(), why));
            }
            // As long as it lacks names it is not what is expected from now on.
            let is_whole = *how != How::Adjust || !lacks_names(wanted, now);
            if is_whole && now.sha256 == wanted.sha256 && now.kind == wanted.kind {
                standing.push(Standing::of(path.clone(), now));
            }
        }
        done.events.extend(self.restored(standing));
        if let Some(place) = case.place() {
            done.events.extend(quarantined(&self.by, &place, case));
            done.quarantine = Some(place);
        }
    }

    fn restored(&self, standing: Vec<Standing>) -> Vec<Event> {
        let from = match &self.wanted {
            Wanted::Baseline => None,
            Wanted::Backup { id, .. } | Wanted::Exactly { id } => Some(id.clone()),
        };
        restored(&self.by, from.as_deref(), &standing)
    }
}

/// Paths of one record: far below what a line of the ledger may hold.
const PATHS_PER_RECORD: usize = 5000;

/// The records that say what was restored.
fn restored(by: &str, from: Option<&str>, standing: &[Standing]) -> Vec<Event> {
    let record = |paths: &[Standing]| Event::Restored {
        by: by.to_owned(),
        from: from.map(str::to_owned),
        paths: paths.to_vec(),
    };
    standing.chunks(PATHS_PER_RECORD).map(record).collect()
}

/// The records that say what was taken away.
fn quarantined(by: &str, place: &str, case: &Case) -> Vec<Event> {
    let bytes = case.bytes();
    let record = |paths: &[RelPath]| Event::Quarantined {
        by: by.to_owned(),
        place: place.to_owned(),
        paths: paths.iter().map(ToString::to_string).collect(),
        bytes,
    };
    case.paths().chunks(PATHS_PER_RECORD).map(record).collect()
}

/// Has it fewer names than it should? Those of directories are about something else.
fn lacks_names(wanted: &Entry, now: &Entry) -> bool {
    wanted.kind == Kind::File && now.nlink < wanted.nlink
}

/// In what an entry is still not as wanted; which inode it is does not count.
fn still_differs(wanted: &Entry, now: &Entry) -> Option<String> {
    let observed =
        Observed::Present(Entry { ino: wanted.ino, dev: wanted.dev, nlink: wanted.nlink, ..now.clone() });
    let change: Vec<String> = guard_model::compare(Some(wanted), &observed)
        .into_iter()
        .filter(|c| !matches!(c, Change::Inode | Change::Links))
        .map(|c| c.to_string())
        .collect();
    (!change.is_empty()).then(|| format!("still differs in: {}", change.join(", ")))
}

/// A quarantine's case as the hands know it.
pub(super) struct InQuarantine<'a>(pub(super) &'a mut Case);

impl Keeper for InQuarantine<'_> {
    fn keep(&mut self, path: &RelPath, entry: &Entry, content: Option<&mut dyn Read>) -> io::Result<()> {
        self.0.keep(path, entry, content)
    }

    fn durable(&mut self) -> io::Result<()> {
        self.0.durable()
    }
}
