//! What wakes a sink's thread.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use guard_model::ledger::Record;

/// One sink's bell. Ringing never waits.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    state: Mutex<State>,
    rung: Condvar,
}

#[derive(Debug, Default)]
struct State {
    rung: bool,
    reopen: bool,
    /// When to end at the latest.
    stop: Option<Instant>,
    undurable: VecDeque<Arc<Record>>,
}

impl Bell {
    /// Undurable records held for a sink that does not take them. The same
    /// records come by the ledger later, so dropping the oldest loses nothing.
    const UNDURABLE: usize = 256;

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring_after(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        state.rung = true;
        drop(state);
        self.rung.notify_all();
    }

    pub(crate) fn ring(&self) {
        self.ring_after(|_| {});
    }

    pub(crate) fn reopen(&self) {
        self.ring_after(|state| state.reopen = true);
    }

    pub(crate) fn stop(&self, at_the_latest: Instant) {
        self.ring_after(|state| state.stop = Some(at_the_latest));
    }

    pub(crate) fn undurable(&self, record: Arc<Record>) {
        self.ring_after(|state| {
            if state.undurable.len() >= Self::UNDURABLE {
                state.undurable.pop_front();
            }
            state.undurable.push_back(record);
        });
    }

    pub(crate) fn next_undurable(&self) -> Option<Arc<Record>> {
        self.lock().undurable.pop_front()
    }

    pub(crate) fn take_reopen(&self) -> bool {
        std::mem::take(&mut self.lock().reopen)
    }

    /// True once the sink is to end as soon as nothing is left to deliver.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stop.is_some()
    }

    /// True once the sink is to end, whatever is left.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().stop.is_some_and(|at| Instant::now() >= at)
    }

    /// Waits until somebody rings or `longest` is over, but not beyond the time to end.
    pub(crate) fn wait(&self, longest: Duration) {
        let end = Instant::now() + longest;
        let mut state = self.lock();
        while !state.rung {
            let end = state.stop.map_or(end, |stop| end.min(stop));
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.rung.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.rung = false;
    }

    /// Waits before trying again what failed. New records are no reason to try
    /// sooner; a reopen or a stop is.
    pub(crate) fn pause(&self, longest: Duration) {
        let end = Instant::now() + longest;
        let mut state = self.lock();
        let had_stop = state.stop.is_some();
        loop {
            let end = state.stop.map_or(end, |stop| end.min(stop));
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || state.reopen || state.stop.is_some() != had_stop {
                return;
            }
            state = self.rung.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
