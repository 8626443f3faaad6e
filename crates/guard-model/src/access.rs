//! Who opened or read sensitive files: readings, and how many of them become one.
//!
//! A reader is told by what does not change from one process to the next: its program, unit, container
//! and user. What the same reader does to the same path is one reading, however often it is done.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::finding::Actor;
use crate::time::Timestamp;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Opened, for reading or for writing: the kernel does not say which.
    Opened,
    /// Read from.
    Read,
    /// Executed.
    Executed,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Opened => "opened",
            Self::Read => "read",
            Self::Executed => "executed",
        })
    }
}

/// What one reader did to one path in one span of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Escaped, relative to the root.
    pub path: String,
    /// What was done, each once.
    pub access: Vec<Access>,
    /// How often at least: what comes quickly one after the other is told by the kernel as one.
    pub times: u64,
    /// When it was first done in that span.
    pub first: Timestamp,
    /// When it was last done.
    pub last: Timestamp,
    /// Is the reader among those that the configuration expects? `None` where it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<bool>,
    /// The process that did it last, where the kernel told.
    pub actor: Option<Actor>,
}

/// What makes two processes the same reader.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reader {
    program: Option<String>,
    unit: Option<String>,
    container: Option<String>,
    uid: Option<u32>,
    login_uid: Option<u32>,
}

impl Reader {
    /// The reader that a process stands for; all of whom nothing is known are one.
    #[must_use]
    pub fn of(actor: Option<&Actor>) -> Self {
        Self {
            program: actor.and_then(|a| a.exe.clone().or_else(|| a.comm.clone())),
            unit: actor.and_then(|a| a.unit.clone()),
            container: actor.and_then(|a| a.container.clone()),
            uid: actor.and_then(|a| a.uid),
            login_uid: actor.and_then(|a| a.login_uid),
        }
    }
}

/// Readings on their way to the ledger: the first of each reader at once, what follows in ever longer spans.
///
/// Times are microseconds of a clock that never goes back.
#[derive(Debug, Default)]
pub struct Readings {
    by_reader: HashMap<(String, Reader), Gathering>,
    /// Accesses of more readers than can be told apart.
    uncounted: u64,
}

#[derive(Debug)]
struct Gathering {
    reading: Option<Reading>,
    /// When it is told, or forgotten where there is nothing to tell.
    due_us: u64,
    span_us: u64,
}

impl Readings {
    /// The span after a reader's first reading.
    pub const FIRST_SPAN_US: u64 = 60_000_000;
    /// Spans double up to this: a reader that goes on all day brings some thirty records.
    pub const LONGEST_SPAN_US: u64 = 3_600_000_000;
    /// Readers of paths told apart at once, some 2 KiB each.
    pub const READERS: usize = 1024;

    /// Takes in what was done.
    pub fn add(&mut self, reading: Reading, now_us: u64) {
        let key = (reading.path.clone(), Reader::of(reading.actor.as_ref()));
        if self.by_reader.len() >= Self::READERS && !self.by_reader.contains_key(&key) {
            self.uncounted = self.uncounted.saturating_add(reading.times);
            return;
        }
        let gathering = self.by_reader.entry(key).or_insert(Gathering {
            reading: None,
            due_us: now_us,
            span_us: Self::FIRST_SPAN_US,
        });
        match &mut gathering.reading {
            Some(known) => known.and(reading),
            none => *none = Some(reading),
        }
    }

    /// The readings that are due, in the order of their paths.
    pub fn take_due(&mut self, now_us: u64) -> Vec<Reading> {
        let mut due = Vec::new();
        self.by_reader.retain(|_, gathering| {
            if gathering.due_us > now_us {
                return true;
            }
            let Some(reading) = gathering.reading.take() else { return false };
            due.push(reading);
            gathering.due_us = now_us.saturating_add(gathering.span_us);
            gathering.span_us = gathering.span_us.saturating_mul(2).min(Self::LONGEST_SPAN_US);
            true
        });
        due.sort_by(|a, b| (&a.path, a.first).cmp(&(&b.path, b.first)));
        due
    }

    /// Everything that was not told yet, and nothing is remembered.
    pub fn take_all(&mut self) -> Vec<Reading> {
        let mut all: Vec<Reading> = self.by_reader.drain().filter_map(|(_, g)| g.reading).collect();
        all.sort_by(|a, b| (&a.path, a.first).cmp(&(&b.path, b.first)));
        all
    }

    /// Accesses since the last call that belong to no reading, since there were more than [`Readings::READERS`].
    pub fn take_uncounted(&mut self) -> u64 {
        std::mem::take(&mut self.uncounted)
    }

    /// True where something waits that is due.
    #[must_use]
    pub fn has_due(&self, now_us: u64) -> bool {
        self.uncounted > 0 || self.by_reader.values().any(|g| g.due_us <= now_us)
    }
}

impl Reading {
    fn and(&mut self, later: Self) {
        self.times = self.times.saturating_add(later.times);
        self.first = self.first.min(later.first);
        self.last = self.last.max(later.last);
        for access in later.access {
            if !self.access.contains(&access) {
                self.access.push(access);
            }
        }
        self.access.sort_unstable();
        self.expected = later.expected;
        self.actor = later.actor.or(self.actor.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Confidence;

    fn actor(pid: i32, exe: &str) -> Actor {
        Actor {
            pid,
            comm: None,
            exe: Some(exe.to_owned()),
            cmdline: None,
            uid: Some(0),
            login_uid: None,
            started_at: None,
            parents: Vec::new(),
            unit: None,
            container: None,
            confidence: Confidence::Verified,
        }
    }

    fn reading(path: &str, access: Access, actor: Option<Actor>, at: i64) -> Reading {
        Reading {
            path: path.to_owned(),
            access: vec![access],
            times: 1,
            first: Timestamp(at),
            last: Timestamp(at),
            expected: None,
            actor,
        }
    }

    #[test]
    fn the_first_is_told_at_once_and_ten_thousand_more_are_one() {
        let mut r = Readings::default();
        r.add(reading(".env", Access::Opened, Some(actor(1, "/bin/cat")), 5), 0);
        assert!(r.has_due(0));
        assert_eq!(r.take_due(0).len(), 1);
        for i in 0..10_000 {
            let access = if i % 2 == 0 { Access::Read } else { Access::Opened };
            r.add(reading(".env", access, Some(actor(i, "/bin/cat")), 10 + i64::from(i)), 1000);
        }
        assert_eq!(r.take_due(Readings::FIRST_SPAN_US - 1), []);
        let told = r.take_due(Readings::FIRST_SPAN_US);
        assert_eq!(told.len(), 1);
        let one = told.first().unwrap();
        assert_eq!((one.times, one.first, one.last), (10_000, Timestamp(10), Timestamp(10_009)));
        assert_eq!(one.access, [Access::Opened, Access::Read]);
        assert_eq!(one.actor.as_ref().map(|a| a.pid), Some(9_999));
    }

    #[test]
    fn spans_grow_to_an_hour_and_who_is_quiet_is_forgotten() {
        let mut r = Readings::default();
        let (mut now, mut told) = (0, 0);
        while now < 24 * Readings::LONGEST_SPAN_US {
            r.add(reading(".env", Access::Read, Some(actor(1, "/app")), 0), now);
            told += r.take_due(now).len();
            now += 1_000_000;
        }
        assert!((24..40).contains(&told), "{told}");
        now += 2 * Readings::LONGEST_SPAN_US;
        r.take_due(now);
        r.take_due(now + 2 * Readings::LONGEST_SPAN_US);
        assert!(r.by_reader.is_empty());
        r.add(reading(".env", Access::Read, Some(actor(1, "/app")), 0), now);
        assert_eq!(r.take_due(now).len(), 1);
    }

    #[test]
    fn readers_are_told_apart_and_their_number_is_bounded() {
        let mut r = Readings::default();
        for i in 0..5000 {
            r.add(reading(".env", Access::Read, Some(actor(1, &format!("/tmp/{i}"))), 0), 0);
        }
        r.add(reading(".env", Access::Read, None, 0), 0);
        assert_eq!(r.take_due(0).len(), Readings::READERS);
        assert_eq!(r.take_uncounted(), 5001 - Readings::READERS as u64);
        assert_eq!(r.take_uncounted(), 0);
        r.add(reading(".env", Access::Opened, Some(actor(9, "/tmp/0")), 0), 1);
        assert_eq!(r.take_all().len(), 1);
    }
}
