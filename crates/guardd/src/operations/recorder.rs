//! The second look of a lock: everything is read, and what is seen is written down.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use guard_model::baseline::{BaselineRecord, Role};
use guard_model::seal::{Marks, Skip, unsealed};
use guard_model::{Class, Entry, Observed, RelPath, Seal};
use guard_store::{BaselineWriter, EncodedRecords, FullRun, StoreError};
use guard_tree::{OpenWriters, Visitor, WhyNoFlags};

use super::lock::LISTED;
use super::open_writers::Told;
use super::survey::{Survey, is_sealable};

/// What the kernel refused while sealing.
#[derive(Default)]
pub(super) struct Refused {
    pub(super) modes: HashSet<RelPath>,
    /// By device: the right is the daemon's, and the flag the file system's.
    pub(super) flags: HashMap<u64, WhyNoFlags>,
}

/// The first few entries of a kind, and how many there are.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) paths: Vec<(RelPath, Skip)>,
    pub(super) count: u64,
}

impl Listed {
    fn add(&mut self, path: &RelPath, skip: Skip) {
        self.count += 1;
        if self.paths.len() < LISTED {
            self.paths.push((path.clone(), skip));
        }
    }

    fn append(&mut self, other: Self) {
        self.count += other.count;
        self.paths.extend(other.paths);
        self.paths.truncate(LISTED);
    }
}

/// What everybody saw.
pub(super) struct Recorded {
    pub(super) writer: BaselineWriter,
    /// Left unsealed.
    pub(super) unsealed: Listed,
    /// Sealed, and less than asked for.
    pub(super) partial: Listed,
    /// At least one entry has the immutable flag of the seal.
    pub(super) immutable: bool,
    pub(super) unread: Vec<(RelPath, String)>,
    pub(super) writers: Told,
    pub(super) error: Option<StoreError>,
}

/// What was seen of a directory, and waits to be written down together with others of it.
#[derive(Default)]
pub(super) struct Seen {
    records: EncodedRecords,
    unsealed: Listed,
    partial: Listed,
    immutable: bool,
    unread: Vec<(RelPath, String)>,
}

/// Of a directory no more than this many bytes of records wait.
const TOGETHER: usize = 256 << 10;

impl Recorded {
    /// Gives a full run, which is written by whoever gave the last of it.
    fn add(&mut self, seen: Seen) -> Option<FullRun> {
        self.unsealed.append(seen.unsealed);
        self.partial.append(seen.partial);
        self.immutable |= seen.immutable;
        self.unread.extend(seen.unread);
        if self.error.is_some() { None } else { self.writer.add(&seen.records) }
    }

    /// How far the tree is sealed, and why no further. Where some entries fall short of the
    /// others, they are listed; where all do, the tree does.
    pub(super) fn seal_done(&mut self, asked: Seal) -> (Seal, Option<&'static str>) {
        let partial = std::mem::take(&mut self.partial);
        match partial.paths.first().map(|(_, skip)| skip.of_the_tree()) {
            Some(why) if !self.immutable => (Seal::ReadOnly, why),
            _ => {
                self.unsealed.count += partial.count;
                let room = LISTED.saturating_sub(self.unsealed.paths.len());
                self.unsealed.paths.extend(partial.paths.into_iter().take(room));
                (asked, None)
            }
        }
    }
}

/// Second pass: reads everything and writes the baseline.
pub(super) struct Recorder<'a> {
    pub(super) survey: &'a Survey,
    pub(super) refused: Refused,
    pub(super) seal: Seal,
    pub(super) out: Mutex<Recorded>,
}

impl Recorder<'_> {
    /// The record of `entry` as it is on disk now, with what sealing took from it given back.
    fn record(&self, path: RelPath, role: Role, entry: Entry) -> BaselineRecord {
        let record = |sealed, skip, entry| BaselineRecord { path: path.clone(), role, sealed, skip, entry };
        if self.seal == Seal::None || !is_sealable(role) {
            return record(Seal::None, None, entry);
        }
        match self.survey.originals.get(&path) {
            Some(original) if original.identity == (entry.dev, entry.ino) => {
                if let Some(skip) = self.survey.skip(&path, original) {
                    return record(Seal::None, Some(skip), entry);
                }
                let now = Marks::of(&entry);
                let reached = [Seal::Immutable, Seal::ReadOnly]
                    .into_iter()
                    .find(|seal| *seal <= self.seal && now == original.marks.under(*seal));
                let Some(seal) = reached else {
                    let skip = self.refused.modes.contains(&path).then_some(Skip::NotPermitted);
                    return record(Seal::None, skip, entry);
                };
                let skip = (seal < self.seal).then(|| self.why_no_flags(entry.dev));
                record(seal, skip, unsealed(entry, original.marks))
            }
            // It came while the tree was being sealed; the next lock seals it.
            _ => record(Seal::None, None, entry),
        }
    }
}

impl Recorder<'_> {
    fn hand_in(&self, seen: Seen) {
        let out = || self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let full = out().add(seen);
        if let Some(Err(e)) = full.map(FullRun::write) {
            out().error.get_or_insert(e);
        }
    }

    fn why_no_flags(&self, dev: u64) -> Skip {
        match self.refused.flags.get(&dev) {
            Some(WhyNoFlags::NotPermitted) => Skip::FlagNotPermitted,
            Some(WhyNoFlags::Unsupported) | None => Skip::NoFlag,
        }
    }
}

impl Visitor for Recorder<'_> {
    type Dir = Seen;

    fn enter(&self, _dir: &RelPath) -> Seen {
        Seen::default()
    }

    fn expected<'v>(&'v self, _dir: &'v Seen, _path: &RelPath) -> Option<Cow<'v, Entry>> {
        None
    }

    fn writers(&self, _dir: &mut Seen, path: &RelPath, identity: (u64, u64), writers: OpenWriters) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.writers.add(path, identity, writers);
    }

    fn found(&self, seen: &mut Seen, path: RelPath, _class: Class, role: Role, observed: Observed) {
        let (entry, unread) = match observed {
            Observed::Present(e) => (e, None),
            Observed::Unreadable { entry: Some(e), why } => (e, Some(why)),
            Observed::Unreadable { entry: None, why } => {
                seen.unread.push((path, why));
                return;
            }
            Observed::Absent => return,
        };
        let record = self.record(path, role, entry);
        if let Some(why) = unread {
            seen.unread.push((record.path.clone(), why));
        }
        seen.immutable |= record.sealed == Seal::Immutable;
        match record.skip {
            Some(skip) if skip.is_partial() => seen.partial.add(&record.path, skip),
            Some(skip) => seen.unsealed.add(&record.path, skip),
            None => {}
        }
        seen.records.push(&record);
        if seen.records.size() >= TOGETHER {
            self.hand_in(std::mem::take(seen));
        }
    }

    fn leave(&self, seen: Seen, _path: &RelPath) {
        self.hand_in(seen);
    }
}
