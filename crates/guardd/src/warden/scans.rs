//! Background scans: a metadata sweep now and then, a full rehash in `rehash`, one past the page cache in `deep_rehash`.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use guard_config::Environment;
use guard_model::RelPath;
use guard_model::ledger::Event;
use guard_tree::{Pace, ScanContent, ScanOptions};

use super::observer::View;
use super::touches::Reach;
use super::troubles::Topic;
use super::{Message, Warden};
use crate::comparer::{Collected, Comparer};
use crate::operations::{Work, millis};

/// What a rehash reads in a second where there is no hurry: a few hundredths of
/// a core that hashes some 1.5 GB/s.
const UNHURRIED: NonZeroU64 = NonZeroU64::new(64 << 20).unwrap();

/// How thorough a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ScanKind {
    /// Metadata of everything, content where it differs.
    Sweep,
    /// Content of everything.
    Rehash,
    /// Content of everything as the devices hold it, past the page cache.
    Deep,
}

/// The scan that runs, and when the last ones began, by the boot-time clock.
#[derive(Default)]
pub(super) struct Scans {
    running: Option<(ScanKind, Arc<Work>)>,
    /// How long the last rehash took, where that was longer than `rehash`.
    overdue: Option<Duration>,
    /// At `pace` `rehash` was not met.
    hurries: bool,
    last_sweep_us: Option<u64>,
    last_rehash_us: Option<u64>,
    last_deep_us: Option<u64>,
    /// Counts up when what scans compare with is replaced: the word of older ones is void.
    epoch: u64,
}

impl Scans {
    /// Stops the running scan and voids what it may still say.
    pub(super) fn cancel(&mut self) {
        self.epoch += 1;
        if let Some((_, work)) = self.running.take() {
            work.cancel.store(true, Ordering::Relaxed);
        }
    }

    /// From now on the intervals count anew: everything was just read.
    pub(super) fn all_was_read(&mut self) {
        let now = guard_sys::clock::boottime_micros();
        self.last_sweep_us = Some(now);
        self.last_rehash_us = Some(now);
    }

    /// A rehash of this run came to its end after so long.
    fn rehashed(&mut self, took: Duration, config: &Environment) {
        self.overdue = (took > config.rehash).then_some(took);
        // Slower again only once it would be done in time at the slower pace, too.
        let (pace, pace_max) = (u32::from(config.pace.get()), u32::from(config.pace_max.get()));
        let in_time_at_pace = took.saturating_mul(pace_max) / pace <= config.rehash;
        self.hurries = self.overdue.is_some() || (self.hurries && !in_time_at_pace);
    }

    /// When the last rehash began; `None` before the first one of this run.
    pub(super) fn last_rehash_us(&self) -> Option<u64> {
        self.last_rehash_us
    }
}

/// A scan's report to its warden.
pub(crate) struct ScanEnd {
    kind: ScanKind,
    epoch: u64,
    began_us: u64,
    took: Duration,
    outcome: Result<Scanned, String>,
}

pub(super) struct Scanned {
    pub(super) collected: Collected,
    /// What could not be looked at, and why.
    pub(super) skipped: Vec<(RelPath, String)>,
    /// What lies on another mount, and was looked at.
    pub(super) mounts: Vec<RelPath>,
    pub(super) files: u64,
    pub(super) bytes: u64,
}

/// Scans once. `pace` is `None` where somebody waits for it.
pub(super) fn scan(
    view: &View,
    kind: ScanKind,
    from: &RelPath,
    pace: Option<Pace>,
    work: &Work,
) -> Result<Scanned, guard_tree::TreeError> {
    let options = ScanOptions {
        content: match kind {
            ScanKind::Sweep => ScanContent::WhereDiffers,
            ScanKind::Rehash => ScanContent::All,
            ScanKind::Deep => ScanContent::AllFromDevice,
        },
        workers: if pace.is_some() { 1 } else { crate::operations::lock::workers() },
        pace,
        cancel: &work.cancel,
        progress: &work.progress,
    };
    let comparer = Comparer::new(&view.root, view.expectation.clone(), from.clone());
    let report = guard_tree::scan(&view.root, &view.policy, from, &options, &comparer)?;
    let mut collected = comparer.into_collected();
    if from.is_root() {
        view.expectation.add_mounts(&view.root, &report.mounts, &mut collected);
    }
    Ok(Scanned {
        collected,
        skipped: report.skipped,
        mounts: report.mounts,
        files: report.totals.files,
        bytes: work.progress.bytes.load(Ordering::Relaxed),
    })
}

impl Warden {
    /// A sweep comes this often, or five times a rehash where that is less.
    const SWEEP_AT_MOST: Duration = Duration::from_secs(60);

    /// How often metadata is compared.
    pub(super) fn sweep_interval(&self) -> Duration {
        (self.config.rehash / 5).min(Self::SWEEP_AT_MOST).max(Duration::from_secs(1))
    }

    /// Compares all metadata now, on this thread: at start, before READY.
    pub(super) fn sweep_now(&mut self) {
        let Some(view) = self.view() else { return };
        let work = Work::default();
        let began_us = guard_sys::clock::boottime_micros();
        let began = Instant::now();
        let outcome = scan(&view, ScanKind::Sweep, &RelPath::root(), None, &work)
            .map_err(|e| crate::failure::chain(&e));
        self.scans.last_sweep_us = Some(began_us);
        self.scan_ended(ScanEnd {
            kind: ScanKind::Sweep,
            epoch: self.scans.epoch,
            began_us,
            took: began.elapsed(),
            outcome,
        });
    }

    /// Begins the scan that is due, if any.
    pub(super) fn scan_in_time(&mut self) {
        let idle =
            self.begun && self.running.is_none() && self.scans.running.is_none() && !self.guard.root_away;
        if !idle {
            return;
        }
        // In a maintenance window a sweep says what came of it that the kernel did not tell;
        // the lock that ends it reads everything anyway.
        let locked = crate::ward::Ward::is_locked(&self.state);
        let now = guard_sys::clock::boottime_micros();
        let due = |last: Option<u64>, every: Duration| {
            last.is_none_or(|at| u128::from(now.saturating_sub(at)) >= every.as_micros())
        };
        if self.gaps.wants_sweep() {
            self.begin_scan(ScanKind::Sweep);
        } else if locked && self.deep_is_due() {
            self.begin_scan(ScanKind::Deep);
        } else if locked && due(self.scans.last_rehash_us, self.config.rehash) {
            self.begin_scan(ScanKind::Rehash);
        } else if due(self.scans.last_sweep_us, self.sweep_interval()) {
            self.begin_scan(ScanKind::Sweep);
        }
    }

    /// By the wall clock, since it outlasts the daemon; one that was set back makes it due.
    fn deep_is_due(&self) -> bool {
        let last = self.state.last_deep_rehash.as_ref().map(|r| r.finished_at).or(self.state.first_locked_at);
        let every = i64::try_from(self.config.deep_rehash.as_micros()).unwrap_or(i64::MAX);
        let now = crate::operations::now().0;
        // What began and failed is not begun again at once.
        let begun = self.scans.last_deep_us.is_some_and(|at| {
            u128::from(guard_sys::clock::boottime_micros().saturating_sub(at))
                < self.config.rehash.as_micros()
        });
        !begun && last.is_none_or(|at| now < at.0 || now.saturating_sub(at.0) >= every)
    }

    /// Slow enough to be no burden, fast enough to be done in four fifths of `rehash` with the `pace` of a processor. Where that
    /// is not enough, which the last rehash showed, with `pace_max`.
    fn pace(&self) -> Pace {
        let totals = self.state.baseline.as_ref().map(|b| b.totals).unwrap_or_default();
        let in_time = Pace::spread(&totals, self.config.rehash * 4 / 5);
        let most_cpu = if self.scans.hurries { self.config.pace_max } else { self.config.pace };
        Pace { bytes_per_second: in_time.bytes_per_second.max(UNHURRIED), most_cpu }
    }

    /// How long the last rehash took, where that was longer than `rehash`: as one follows the other, how often everything
    /// is really read.
    pub(super) fn overdue(&self) -> Option<Duration> {
        self.scans.overdue.filter(|took| *took > self.config.rehash)
    }

    /// That `rehash` is not met, and what is true instead.
    pub(super) fn rehash_trouble(&self) -> Option<String> {
        let (asked, took) = (self.config.rehash, self.overdue()?);
        Some(format!(
            "the rehash is overdue: the last one took {} s, and `rehash` asks for one in {} s; it goes on without a pause, with up to {} % of a processor (`pace_max`)",
            took.as_secs(),
            asked.as_secs(),
            self.config.pace_max
        ))
    }

    fn begin_scan(&mut self, kind: ScanKind) {
        let Some(view) = self.view() else { return };
        let began_us = guard_sys::clock::boottime_micros();
        let (epoch, back, work) = (self.scans.epoch, self.myself.clone(), Work::shared());
        let own = Arc::clone(&work);
        // A sweep reads next to nothing and closes gaps: it is not paced.
        let pace = (kind > ScanKind::Sweep).then(|| self.pace());
        let spawned = std::thread::Builder::new().name(format!("scan {}", self.ward.name)).spawn(move || {
            let began = Instant::now();
            let outcome =
                scan(&view, kind, &RelPath::root(), pace, &own).map_err(|e| crate::failure::chain(&e));
            // The warden is gone only when the daemon stops.
            back.send(Message::Scanned(Box::new(ScanEnd {
                kind,
                epoch,
                began_us,
                took: began.elapsed(),
                outcome,
            })))
            .ok();
        });
        match spawned {
            Ok(_) => {
                self.scans.running = Some((kind, work));
                self.scans.last_sweep_us = Some(began_us);
                if kind > ScanKind::Sweep {
                    self.scans.last_rehash_us = Some(began_us);
                }
                if kind == ScanKind::Deep {
                    self.scans.last_deep_us = Some(began_us);
                }
            }
            Err(e) => {
                self.troubles.begin(Topic::Thread, format!("cannot start a scan: {e}"));
            }
        }
    }

    pub(super) fn scan_ended(&mut self, end: ScanEnd) {
        if end.epoch != self.scans.epoch {
            return;
        }
        self.scans.running = None;
        let scanned = match end.outcome {
            Ok(scanned) => scanned,
            Err(why) => {
                tracing::warn!(environment = self.ward.name, why, "a scan did not come to its end");
                self.left_out.scan_trouble = Some(why);
                return;
            }
        };
        self.left_out.scan_trouble = scanned.collected.error.as_ref().map(|e| crate::failure::chain(e));
        if let Some(why) = &self.left_out.scan_trouble {
            tracing::error!(environment = self.ward.name, why, "the baseline cannot be read");
            return;
        }
        self.left_out.unread = scanned.skipped;
        self.left_out.mounts = scanned.mounts;
        let suspects: Vec<RelPath> = scanned.collected.differences.into_iter().map(|d| d.path).collect();
        // What was reported and is no difference in this scan is looked at again, too: by the same
        // means at least, or a change that shows only on the device would count as gone.
        let reported = self.raised.reported();
        for path in suspects.iter().cloned() {
            match end.kind {
                // It found them by metadata that moved, as the kernel's hints are about.
                ScanKind::Sweep => self.touches.add(path, Reach::Entry, None),
                ScanKind::Rehash | ScanKind::Deep => self.touches.suspect(path),
            }
        }
        reported.into_iter().for_each(|path| self.touches.suspect(path));
        self.gaps.scanned(end.kind, end.began_us, &suspects);
        if end.kind > ScanKind::Sweep {
            self.scans.rehashed(end.took, &self.config);
            self.record(vec![Event::RehashFinished {
                files: scanned.files,
                bytes: scanned.bytes,
                duration_ms: millis(end.took),
                findings: suspects.len() as u64,
                deep: end.kind == ScanKind::Deep,
            }]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rehash_that_took_too_long_hurries_the_next_until_the_pace_is_enough() {
        let everything = guard_model::Policy::new(guard_model::policy::PatternText::default()).unwrap();
        let mut config = Environment::new("e".to_owned(), "/srv".into(), everything);
        config.rehash = Duration::from_secs(60);
        let mut scans = Scans::default();
        let mut after = |seconds| {
            scans.rehashed(Duration::from_secs(seconds), &config);
            (scans.hurries, scans.overdue.is_some())
        };
        assert_eq!(after(60), (false, false));
        assert_eq!(after(61), (true, true));
        assert_eq!(after(20), (true, false), "at a quarter of the speed it would take longer than a minute");
        assert_eq!(after(15), (false, false));
        assert_eq!(after(40), (false, false));
        assert_eq!(after(100), (true, true));
        config.pace_max = config.pace;
        let mut after = |seconds| {
            scans.rehashed(Duration::from_secs(seconds), &config);
            (scans.hurries, scans.overdue.is_some())
        };
        assert_eq!(after(60), (false, false), "it is no faster in a hurry");
    }
}
