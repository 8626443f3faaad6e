//! Putting back: what is expected since then, and when it stops.
//!
//! What was put back stands in another inode than the baseline recorded. It is expected from then on without a new
//! generation: the ledger says which inode, and that is laid over the baseline's record.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::baseline::BaselineRecord;
use crate::entry::{Entry, Kind, Stamp};
use crate::ledger::{Event, Record};
use crate::path::RelPath;

/// How an alert's paths are settled when guardd put them back.
pub const PUT_BACK: &str = "put back";

/// What stands at a path since it was put back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Where.
    pub path: RelPath,
    /// Device number, as the baseline has it (another boot may renumber devices).
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Hard links; 0 for directories.
    pub nlink: u32,
    /// When the inode last changed: as long as it did not, its content need not be read again.
    pub ctime: Stamp,
}

impl Standing {
    /// That of an entry whose device number is the baseline's.
    #[must_use]
    pub fn of(path: RelPath, now: &Entry) -> Self {
        Self { path, dev: now.dev, ino: now.ino, nlink: now.nlink, ctime: now.ctime }
    }
}

/// What was put back since the baseline was made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlay(BTreeMap<RelPath, Standing>);

impl Overlay {
    /// The events that it is folded from.
    pub const EVENTS: [&'static str; 3] = ["restored", "locked", "accepted"];

    /// Takes in one record of the environment. A new baseline records what stands there itself.
    pub fn apply(&mut self, record: &Record) {
        match &record.event {
            Event::Restored { paths, .. } => {
                self.0.extend(paths.iter().map(|s| (s.path.clone(), s.clone())));
            }
            Event::Locked { .. } | Event::Accepted { .. } => self.0.clear(),
            _ => {}
        }
    }

    /// True where nothing was put back.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The baseline's record with what stands there since.
    #[must_use]
    pub fn over(&self, mut record: BaselineRecord) -> BaselineRecord {
        if let Some(standing) = self.0.get(&record.path) {
            record.entry.dev = standing.dev;
            record.entry.ino = standing.ino;
            record.entry.ctime = standing.ctime;
            if record.entry.kind != Kind::Directory {
                record.entry.nlink = standing.nlink;
            }
        }
        record
    }
}

/// Something is not put back any more until a person has looked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PutBackStop {
    /// This path alone, escaped; `None` for the whole environment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The alert that says so. Acknowledging it ends the stop.
    pub alert: u64,
    /// Why.
    pub why: String,
}

/// May something be put back now?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MayPutBack {
    /// It may.
    Now,
    /// Not before this time, in microseconds of the caller's clock.
    At(u64),
    /// Somebody fights it: no more, until a person has looked.
    No,
}

/// Counts what guardd puts back by itself, so that it does not fight for ever.
///
/// Times are microseconds of a clock that never goes back.
#[derive(Debug, Clone, Default)]
pub struct PutBackLimits {
    rounds: VecDeque<u64>,
    paths: HashMap<RelPath, VecDeque<u64>>,
}

impl PutBackLimits {
    /// A path is put back so often in a minute.
    pub const PATH_MOST: usize = 5;
    /// So often at once; then there is [`Self::PAUSE_US`] between two times.
    pub const PATH_QUICK: usize = 3;
    /// Between two times after the first ones.
    pub const PAUSE_US: u64 = 10_000_000;
    /// An environment is put right so often in a minute, however many paths each time.
    pub const ROUNDS_MOST: usize = 20;
    /// The span that is counted over.
    pub const SPAN_US: u64 = 60_000_000;

    /// May this path be put back?
    #[must_use]
    pub fn path(&self, path: &RelPath, now: u64) -> MayPutBack {
        let times = self.paths.get(path).into_iter().flatten().copied();
        let recent: Vec<u64> = times.filter(|at| now.saturating_sub(*at) < Self::SPAN_US).collect();
        match recent.last() {
            _ if recent.len() >= Self::PATH_MOST => MayPutBack::No,
            Some(last) if recent.len() >= Self::PATH_QUICK && now < last.saturating_add(Self::PAUSE_US) => {
                MayPutBack::At(last.saturating_add(Self::PAUSE_US))
            }
            _ => MayPutBack::Now,
        }
    }

    /// May anything in the environment?
    #[must_use]
    pub fn round(&self, now: u64) -> MayPutBack {
        let recent = self.rounds.iter().filter(|at| now.saturating_sub(**at) < Self::SPAN_US).count();
        if recent >= Self::ROUNDS_MOST { MayPutBack::No } else { MayPutBack::Now }
    }

    /// These paths are put back now.
    pub fn count<'a>(&mut self, paths: impl IntoIterator<Item = &'a RelPath>, now: u64) {
        let is_recent = |at: &u64| now.saturating_sub(*at) < Self::SPAN_US;
        self.rounds.retain(is_recent);
        self.rounds.push_back(now);
        self.paths.retain(|_, times| {
            times.retain(is_recent);
            !times.is_empty()
        });
        for path in paths {
            self.paths.entry(path.clone()).or_default().push_back(now);
        }
    }

    /// A person has looked at what became of one path, or of all: its counting begins anew.
    pub fn forgive(&mut self, path: Option<&RelPath>) {
        match path {
            Some(path) => {
                self.paths.remove(path);
            }
            None => *self = Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::Role;
    use crate::entry::{Digest, tests::file};
    use crate::seal::Seal;
    use crate::time::Timestamp;
    use proptest::prelude::*;

    fn path(text: &str) -> RelPath {
        RelPath::from_text(text).unwrap()
    }

    fn record(event: Event) -> Record {
        Record { seq: 1, at: Timestamp(1), prev: Digest([0; 32]), environment: Some("p".into()), event }
    }

    #[test]
    fn what_was_put_back_is_expected_until_the_next_baseline() {
        let entry = Entry { ino: 99, nlink: 3, ctime: Stamp { sec: 8, nsec: 0 }, ..file() };
        let paths = vec![Standing::of(path("a"), &entry)];
        let restored = record(Event::Restored { by: String::new(), from: None, paths });
        let of_baseline = |p: &str| BaselineRecord {
            path: path(p),
            role: Role::Protected,
            sealed: Seal::None,
            skip: None,
            entry: file(),
        };
        let mut overlay = Overlay::default();
        overlay.apply(&restored);
        let over = overlay.over(of_baseline("a")).entry;
        assert_eq!((over.ino, over.nlink, over.ctime.sec, over.mode), (99, 3, 8, file().mode));
        assert_eq!(overlay.over(of_baseline("b")), of_baseline("b"));
        let text = serde_json::to_string(&restored).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), restored);
        let accepted = Event::Accepted {
            generation: 2,
            baseline: Digest([0; 32]),
            by: String::new(),
            reason: String::new(),
            paths: vec![],
            totals: crate::baseline::Totals::default(),
        };
        assert!(Overlay::EVENTS.contains(&accepted.name()));
        overlay.apply(&record(accepted));
        assert!(overlay.is_empty());
    }

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_path_is_put_back_at_once_then_slower_then_not() {
        let (mut limits, p) = (PutBackLimits::default(), path("a"));
        for i in 0..3 {
            assert_eq!(limits.path(&p, i * SECOND), MayPutBack::Now);
            limits.count([&p], i * SECOND);
        }
        assert_eq!(limits.path(&p, 3 * SECOND), MayPutBack::At(12 * SECOND));
        assert_eq!(limits.path(&p, 12 * SECOND), MayPutBack::Now);
        limits.count([&p], 12 * SECOND);
        limits.count([&p], 22 * SECOND);
        assert_eq!(limits.path(&p, 40 * SECOND), MayPutBack::No);
        assert_eq!(limits.path(&path("b"), 40 * SECOND), MayPutBack::Now);
        limits.forgive(Some(&p));
        assert_eq!(limits.path(&p, 40 * SECOND), MayPutBack::Now);
    }

    #[test]
    fn an_environment_is_put_right_twenty_times_a_minute() {
        let mut limits = PutBackLimits::default();
        let paths: Vec<RelPath> = (0..100).map(|i| path(&format!("f{i}"))).collect();
        for i in 0..20 {
            assert_eq!(limits.round(i * SECOND), MayPutBack::Now);
            limits.count(&paths, i * SECOND);
        }
        assert_eq!(limits.round(30 * SECOND), MayPutBack::No);
        assert_eq!(limits.round(60 * SECOND), MayPutBack::Now);
    }

    proptest! {
        #[test]
        fn no_minute_has_more_than_the_limits(steps in prop::collection::vec(0u64..5_000_000, 1..300)) {
            let (mut limits, mut now, p) = (PutBackLimits::default(), 0, path("a"));
            let mut done: Vec<u64> = Vec::new();
            for step in steps {
                now += step;
                if limits.path(&p, now) == MayPutBack::Now && limits.round(now) == MayPutBack::Now {
                    limits.count([&p], now);
                    done.push(now);
                }
            }
            for (i, at) in done.iter().enumerate() {
                let within = done.iter().skip(i).filter(|t| **t - at < PutBackLimits::SPAN_US).count();
                prop_assert!(within <= PutBackLimits::PATH_MOST);
            }
        }
    }
}
