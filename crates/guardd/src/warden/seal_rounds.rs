//! The seal, looked at over and over: the kernel sends no event for an inode flag.
//!
//! A thread beside the warden glances at every sealed entry, round after round, in the order of
//! the baseline's records, of which it holds one block at a time. It takes about one hundredth of
//! a core and not more, by its own processor time; how long a round lasts follows from that and is
//! what `status` shows. The root and sensitive files are glanced at every second beside it.
//!
//! What differs is a hint like any other: the observer decides.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::iter::Peekable;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use guard_model::baseline::{BaselineRecord, Role};
use guard_model::seal::Marks;
use guard_model::{Digest, RelPath, Seal};
use guard_store::StoreError;
use guard_sys::clock::{boottime_micros, thread_cpu_micros};
use guard_tree::{Glance, Glancer, Root};

use super::observer::View;
use super::troubles::Topic;
use super::{Message, Warden};
use crate::comparer::Expectation;
use crate::failure::chain;
use crate::ward::Ward;

/// Between two looks at the root and sensitive files, and at least between the beginnings of
/// two rounds, microseconds.
const EVERY_US: u64 = 1_000_000;

/// Processor time of one piece of a round, microseconds: short, so that it is no burst.
const PIECE_US: u64 = 2_000;

/// For one microsecond at work so many of pause, less than one hundredth of a core in all.
const REST: u64 = 110;

/// Sensitive files looked at every second; those beyond wait for their turn in the round.
const FIRST: usize = 4096;

/// Entries between two looks at the clock.
const STRIDE: usize = 32;

/// Rounds that are under way in this process, which share the hundredth.
static AT_WORK: AtomicUsize = AtomicUsize::new(0);

/// The rounds of one locked environment; they end when this is dropped.
pub(super) struct SealRounds {
    of: Subject,
    clock: Arc<RoundClock>,
    thread: JoinHandle<()>,
    _stop: Sender<()>,
}

/// What the rounds are about: other baseline or other root, other rounds.
type Subject = (Digest, (u64, u64));

/// When rounds begin, for `status`.
#[derive(Debug, Default)]
struct RoundClock {
    began_us: AtomicU64,
    /// From the beginning of the last whole round to that of the next; 0 before there was one.
    period_us: AtomicU64,
}

impl RoundClock {
    fn begin(&self, now_us: u64) {
        let before = self.began_us.swap(now_us, Ordering::Relaxed);
        if before != 0 {
            self.period_us.store(now_us.saturating_sub(before).max(1), Ordering::Relaxed);
        }
    }

    /// How long at most an entry waits for its turn: as long as a round, or as this one lasts already.
    fn bound_ms(&self, now_us: u64) -> Option<u64> {
        let period = self.period_us.load(Ordering::Relaxed);
        let so_far = now_us.saturating_sub(self.began_us.load(Ordering::Relaxed));
        (period != 0).then(|| period.max(so_far).div_ceil(1000))
    }
}

impl Warden {
    /// Begins or ends the rounds as the state wants it.
    pub(super) fn look_after_seal(&mut self) {
        let wanted = self.begun
            && self.running.is_none()
            && !self.guard.root_away
            && Ward::is_locked(&self.state)
            && self.held.as_ref().is_some_and(|h| h.manifest.seal_done != Seal::None);
        let subject = self.view().filter(|_| wanted).and_then(|view| {
            let of = (self.held.as_ref()?.digest, view.root.identity());
            Some((view, of))
        });
        let Some((view, of)) = subject else {
            self.seal_rounds = None;
            return;
        };
        if self.seal_rounds.as_ref().is_some_and(|rounds| rounds.of == of && !rounds.thread.is_finished()) {
            return;
        }
        let begun = SealRounds::begin(&self.ward.name, view, of, self.myself.clone());
        match begun {
            Ok(rounds) => {
                self.seal_rounds = Some(rounds);
                self.troubles.end(Topic::Seal);
            }
            Err(e) => {
                self.troubles.begin(Topic::Seal, format!("cannot start looking at the seal: {e}"));
            }
        }
    }

    /// Within which time a weakened seal is seen; `None` where nothing is sealed or the first
    /// round is not done.
    pub(super) fn seal_bound_ms(&self) -> Option<u64> {
        self.seal_rounds.as_ref().and_then(|rounds| rounds.clock.bound_ms(boottime_micros()))
    }
}

impl SealRounds {
    fn begin(name: &str, view: View, of: Subject, hints: Sender<Message>) -> std::io::Result<Self> {
        let clock = Arc::new(RoundClock::default());
        let (stop, stopped) = channel();
        let name = name.to_owned();
        let own = Arc::clone(&clock);
        let thread = std::thread::Builder::new().name(format!("seal {name}")).spawn(move || {
            AT_WORK.fetch_add(1, Ordering::Relaxed);
            let walk = Walk::new(&view.root, &view.expectation, &hints);
            if let Err(e) = walk.go_round(&own, &stopped) {
                // The warden begins anew; scans say what is wrong with the baseline.
                tracing::error!(environment = name, error = %chain(&e), "the seal cannot be looked at");
            }
            AT_WORK.fetch_sub(1, Ordering::Relaxed);
        })?;
        Ok(Self { of, clock, thread, _stop: stop })
    }
}

/// One thread's way through a baseline.
struct Walk<'a> {
    glancer: Glancer<'a>,
    expectation: &'a Expectation,
    hints: &'a Sender<Message>,
    /// What was hinted at: path and what was seen there, as digests, so that a storm stays small.
    hinted: HashMap<u64, u64>,
    hasher: RandomState,
}

impl<'a> Walk<'a> {
    fn new(root: &'a Root, expectation: &'a Expectation, hints: &'a Sender<Message>) -> Self {
        Self {
            glancer: Glancer::new(root),
            expectation,
            hints,
            hinted: HashMap::new(),
            hasher: RandomState::new(),
        }
    }

    /// Goes round until told to stop.
    fn go_round(mut self, clock: &RoundClock, stopped: &Receiver<()>) -> Result<(), StoreError> {
        let expectation = self.expectation;
        let first = self.first()?;
        let mut records = expectation.iter().peekable();
        let mut round_us = boottime_micros();
        let (mut first_due, mut piece_due) = (round_us, round_us);
        clock.begin(round_us);
        loop {
            if boottime_micros() >= first_due {
                first_due = boottime_micros().saturating_add(EVERY_US);
                first.iter().for_each(|(path, expected)| self.look(path, *expected));
            }
            if boottime_micros() >= piece_due {
                if records.peek().is_none() {
                    round_us = boottime_micros();
                    clock.begin(round_us);
                    records = expectation.iter().peekable();
                }
                let spent_us = self.piece(&mut records)?;
                let shared = AT_WORK.load(Ordering::Relaxed).max(1) as u64;
                let rest_us = spent_us.saturating_mul(REST).saturating_mul(shared);
                piece_due = boottime_micros().saturating_add(rest_us);
                if records.peek().is_none() {
                    piece_due = piece_due.max(round_us.saturating_add(EVERY_US));
                }
            }
            self.glancer.pause();
            let wait = first_due.min(piece_due).saturating_sub(boottime_micros());
            match stopped.recv_timeout(Duration::from_micros(wait)) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    /// What is looked at every second: the root, and what is sensitive.
    fn first(&self) -> Result<Vec<(RelPath, Glance)>, StoreError> {
        let mut first = Vec::new();
        for record in self.expectation.iter() {
            let record = record?;
            let wanted = record.path.is_root() || record.role == Role::Sensitive;
            if wanted && first.len() < FIRST {
                first.push((record.path.clone(), self.expected(&record)));
            }
        }
        Ok(first)
    }

    /// Looks at the next few entries; gives the processor time that it took, microseconds.
    fn piece<R>(&mut self, records: &mut Peekable<R>) -> Result<u64, StoreError>
    where
        R: Iterator<Item = Result<BaselineRecord, StoreError>>,
    {
        let began = thread_cpu_micros();
        loop {
            for record in records.by_ref().take(STRIDE) {
                let record = record?;
                if matches!(record.role, Role::Protected | Role::Sensitive) {
                    self.look(&record.path, self.expected(&record));
                }
            }
            let spent = thread_cpu_micros().saturating_sub(began);
            if spent >= PIECE_US || records.peek().is_none() {
                return Ok(spent);
            }
        }
    }

    /// What a sealed entry looks like on disk.
    fn expected(&self, record: &BaselineRecord) -> Glance {
        let found = Glance::of(&record.entry);
        let marks = Marks::of(&record.entry).under(record.sealed);
        let (dev, ino) = found.identity;
        Glance {
            mode: marks.mode,
            flags: found.flags | marks.flags,
            identity: (self.expectation.device.on_disk(dev), ino),
            ..found
        }
    }

    /// Hints at a path that differs in another way than when it was hinted at last.
    fn look(&mut self, path: &RelPath, expected: Glance) {
        let seen = self.glancer.glance(path);
        let is_as_expected = seen == Some(expected);
        if is_as_expected && self.hinted.is_empty() {
            return;
        }
        let key = self.hasher.hash_one(path.as_bytes());
        let is_new = if is_as_expected {
            self.hinted.remove(&key).is_some()
        } else {
            let look = self.hasher.hash_one(seen);
            self.hinted.insert(key, look) != Some(look)
        };
        if is_new {
            // The warden is gone only when the daemon stops.
            self.hints.send(Message::Touch(path.clone(), None)).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_the_last_round_or_this_one_if_it_is_longer() {
        let clock = RoundClock::default();
        assert_eq!(clock.bound_ms(5), None);
        clock.begin(1_000_000);
        assert_eq!(clock.bound_ms(9_000_000), None);
        clock.begin(3_500_000);
        assert_eq!(clock.bound_ms(3_600_000), Some(2_500));
        assert_eq!(clock.bound_ms(7_500_000), Some(4_000));
        clock.begin(8_000_000);
        assert_eq!(clock.bound_ms(8_000_001), Some(4_500));
    }
}
