//! Reading no faster than asked.

use std::num::{NonZeroU8, NonZeroU64};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use guard_model::baseline::Totals;
use guard_sys::clock::thread_cpu_micros;

/// The fastest that a paced scan may read. Each entry counts as [`Pace::ENTRY_COST`]
/// bytes and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes per second.
    pub bytes_per_second: NonZeroU64,
    /// The most of one processor that each worker may use from its beginning on, in percent; over times of rest, more may be
    /// used for a while.
    pub most_cpu: NonZeroU8,
}

impl Pace {
    /// What looking at an entry costs beside reading its content, in bytes of reading.
    pub const ENTRY_COST: u64 = 16 << 10;

    /// A whole processor.
    pub const WHOLE_CPU: NonZeroU8 = NonZeroU8::new(100).unwrap();

    /// The pace at which a tree of this size takes about `duration`, whatever processor time it takes.
    #[must_use]
    pub fn spread(totals: &Totals, duration: Duration) -> Self {
        let entries = totals.files.saturating_add(totals.directories);
        let cost = totals.bytes.saturating_add(entries.saturating_mul(Self::ENTRY_COST));
        let millis = duration.as_millis().max(1);
        let rate = u64::try_from(u128::from(cost) * 1000 / millis).unwrap_or(u64::MAX);
        let bytes_per_second = NonZeroU64::new(rate).unwrap_or(NonZeroU64::MIN);
        Self { bytes_per_second, most_cpu: Self::WHOLE_CPU }
    }
}

/// Work may run ahead of the pace by this much, so that nobody sleeps after every entry.
const AHEAD: Duration = Duration::from_millis(10);
/// The longest sleep before the caller's wish to stop is looked at again.
const SLICE: Duration = Duration::from_millis(50);

/// Keeps the workers of one scan together to a pace.
#[derive(Debug)]
pub(crate) struct Throttle {
    pace: Pace,
    start: Instant,
    /// Nanoseconds after `start` at which all that was charged so far is due to be done.
    due: AtomicU64,
}

impl Throttle {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, start: Instant::now(), due: AtomicU64::new(0) }
    }

    /// Counts work of `bytes` in and sleeps while it is ahead of the pace. Time that was
    /// not used is not made up for later.
    pub(crate) fn charge(&self, bytes: u64, cancel: Option<&AtomicBool>) {
        let cost = u128::from(bytes) * 1_000_000_000 / u128::from(self.pace.bytes_per_second.get());
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let now = nanos(self.start.elapsed());
        let after = |due: u64| due.max(now).saturating_add(cost);
        // Always answered: the closure never gives up.
        let before = self.due.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |due| Some(after(due)));
        let due =
            Duration::from_nanos(after(before.unwrap_or_default())).max(self.due_by_cpu(thread_cpu_micros()));
        loop {
            let early = due.saturating_sub(self.start.elapsed());
            if early <= AHEAD || cancel.is_some_and(|c| c.load(Ordering::Relaxed)) {
                return;
            }
            sleep(early.min(SLICE));
        }
    }

    /// When what a worker has used is due. Each is a thread of its own, made for the scan.
    fn due_by_cpu(&self, used_micros: u64) -> Duration {
        match u64::from(self.pace.most_cpu.get()) {
            100.. => Duration::ZERO,
            percent => Duration::from_micros(used_micros.saturating_mul(100) / percent),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(n: u64) -> Pace {
        Pace { bytes_per_second: NonZeroU64::new(n).unwrap(), most_cpu: Pace::WHOLE_CPU }
    }

    #[test]
    fn spread_counts_entries_and_bytes() {
        let totals = Totals { files: 99, directories: 1, bytes: 1_000_000 };
        let p = Pace::spread(&totals, Duration::from_secs(10));
        assert_eq!(p, pace((1_000_000 + 100 * Pace::ENTRY_COST) / 10));
        assert_eq!(Pace::spread(&Totals::default(), Duration::ZERO), pace(1));
        let most = Totals { files: u64::MAX, directories: 0, bytes: u64::MAX };
        assert_eq!(Pace::spread(&most, Duration::ZERO), pace(u64::MAX));
    }

    #[test]
    fn two_workers_share_one_pace() {
        let throttle = Throttle::new(pace(1_000_000));
        std::thread::scope(|s| {
            for _ in 0..2 {
                s.spawn(|| (0..10).for_each(|_| throttle.charge(10_000, None)));
            }
        });
        assert!(throttle.start.elapsed() >= Duration::from_millis(200) - AHEAD);
    }

    #[test]
    fn a_worker_rests_three_times_as_long_as_it_works_at_a_quarter() {
        let quarter = Pace { most_cpu: NonZeroU8::new(25).unwrap(), ..pace(u64::MAX) };
        assert_eq!(Throttle::new(quarter).due_by_cpu(500_000), Duration::from_secs(2));
        assert_eq!(Throttle::new(pace(1)).due_by_cpu(500_000), Duration::ZERO);
        std::thread::spawn(move || {
            let throttle = Throttle::new(quarter);
            while thread_cpu_micros() < 30_000 {
                throttle.charge(0, None);
            }
            assert!(throttle.start.elapsed() >= Duration::from_millis(110) - AHEAD);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_wish_to_stop_ends_the_longest_sleep() {
        let throttle = Throttle::new(pace(1));
        throttle.charge(u64::MAX, Some(&AtomicBool::new(true)));
    }
}
