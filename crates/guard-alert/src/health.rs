//! How a sink does.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use guard_model::Timestamp;

/// How one sink does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkHealth {
    /// Which: `log:security-alerts`, `journald`, `terminal`, `notify:ENV`.
    pub name: String,
    /// False while it fails, and while it has not answered for ten seconds.
    pub healthy: bool,
    /// Since when it is so, by the wall clock.
    pub since: Timestamp,
    /// Why it fails, in one line. A healthy sink may have a complaint too.
    pub error: Option<String>,
    /// The last ledger record that it delivered, or had no use for.
    pub delivered: u64,
    /// Ledger records that wait for it.
    pub waiting: u64,
}

/// A sink's state, shared between its thread and whoever asks.
#[derive(Debug)]
pub(crate) struct Status {
    name: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    since: Timestamp,
    /// The first failure in a row, and the last error.
    failing: Option<(Instant, String)>,
    /// The failure was told.
    told: bool,
    /// In a delivery since then.
    busy: Option<Instant>,
    complaint: Option<String>,
    delivered: u64,
}

/// What has changed for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    Worse,
    Better,
}

impl Status {
    /// A delivery that takes longer is shown as a failure. A notify command has
    /// its own deadline instead.
    const STALLED: Duration = Duration::from_secs(10);

    pub(crate) fn new(name: String, delivered: u64) -> Self {
        Self {
            name,
            inner: Mutex::new(Inner {
                since: now(),
                failing: None,
                told: false,
                busy: None,
                complaint: None,
                delivered,
            }),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn begin(&self) {
        self.lock().busy = Some(Instant::now());
    }

    pub(crate) fn succeeded(&self) -> Option<Turn> {
        let mut inner = self.lock();
        inner.busy = None;
        inner.failing = None;
        let was_told = std::mem::take(&mut inner.told);
        if was_told {
            inner.since = now();
        }
        was_told.then_some(Turn::Better)
    }

    /// Counts a failure; it is told once failures have gone on for `grace`.
    pub(crate) fn failed(&self, error: String, grace: Duration) -> Option<Turn> {
        let mut inner = self.lock();
        inner.busy = None;
        let first = match &mut inner.failing {
            Some((first, last)) => {
                *last = error;
                *first
            }
            none => {
                *none = Some((Instant::now(), error));
                Instant::now()
            }
        };
        if inner.told || first.elapsed() < grace {
            return None;
        }
        inner.told = true;
        inner.since = now();
        Some(Turn::Worse)
    }

    pub(crate) fn complain(&self, complaint: Option<String>) {
        self.lock().complaint = complaint;
    }

    pub(crate) fn delivered(&self, seq: u64) {
        self.lock().delivered = seq;
    }

    /// The state, with `head` being the ledger's last record.
    pub(crate) fn health(&self, head: u64) -> SinkHealth {
        let inner = self.lock();
        let stalled = inner.busy.map(|at| at.elapsed()).filter(|&d| d > Self::STALLED);
        let error = match (&inner.failing, stalled) {
            (_, Some(d)) => Some(format!("has not answered for {} s", d.as_secs())),
            (Some((_, error)), None) => Some(error.clone()),
            (None, None) => inner.complaint.clone(),
        };
        SinkHealth {
            name: self.name.clone(),
            healthy: !inner.told && stalled.is_none(),
            since: inner.since,
            error,
            delivered: inner.delivered,
            waiting: head.saturating_sub(inner.delivered),
        }
    }
}

fn now() -> Timestamp {
    Timestamp(guard_sys::clock::wall_micros())
}
