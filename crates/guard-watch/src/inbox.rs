//! The set of paths between the reader threads and the worker.
//!
//! A reader adds and never waits for anybody but another adder; the worker
//! takes all there is at once. A path that is in the set already costs nothing,
//! so a hot file cannot fill it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use guard_model::finding::Actor;

/// What is known of a path's events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum News {
    /// Content or attributes.
    Changed,
    /// A file was made or deleted.
    File,
    /// A directory, or something that may be one, was made, moved or deleted.
    Structure,
}

/// Who made a change, as far as one event tells.
#[derive(Debug, Clone)]
pub(crate) struct By {
    pub(crate) actor: Arc<Actor>,
    /// The event tells only that a writer closed the file; it may have changed nothing.
    pub(crate) closed_only: bool,
}

/// What is known of a path.
#[derive(Debug, Clone)]
pub(crate) struct Told {
    pub(crate) news: News,
    /// Who changed it last.
    pub(crate) by: Option<By>,
    /// What came last says that nothing more need be on its way.
    pub(crate) complete: bool,
}

impl Told {
    fn and(&mut self, news: News, by: Option<By>, complete: bool) {
        self.news = self.news.max(news);
        self.complete = complete;
        let Some(by) = by else { return };
        let is_same = |known: &By| known.actor.is_fuller_than(&by.actor);
        if self.by.as_ref().is_some_and(is_same) {
            return;
        }
        if !by.closed_only || self.by.as_ref().is_none_or(|known| known.closed_only) {
            self.by = Some(by);
        }
    }
}

/// Everything that arrived since the worker looked last.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) paths: HashMap<PathBuf, Told>,
    /// Canaries by number, with the reader that heard each.
    pub(crate) canaries: BTreeSet<(usize, u8)>,
    /// The kernel's queue, or this set, overflowed.
    pub(crate) overflow: bool,
    /// Errors from the backend, in words.
    pub(crate) errors: Vec<String>,
    /// A reader of this generation has ended.
    pub(crate) ended: Option<u64>,
    /// The canaries' directory is to be watched anew.
    pub(crate) nest: bool,
    /// The worker is to end.
    pub(crate) stop: bool,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.paths.is_empty()
            && !self.overflow
            && self.errors.is_empty()
            && self.ended.is_none()
            && !self.nest
            && self.canaries.is_empty()
            && !self.stop
    }
}

/// The set, with a bell.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<State>,
    bell: Condvar,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    batch: Batch,
    /// How many readers of each generation run.
    readers: BTreeMap<u64, usize>,
}

impl Inbox {
    /// Distinct paths held for a worker that is behind; more is an overflow, so
    /// that memory stays bounded (about 150 bytes a path) whatever happens.
    pub(crate) const PATHS: usize = 65_536;
    const ERRORS: usize = 16;

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is plain data and valid after every single step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Batch)) {
        let mut state = self.lock();
        let was_empty = state.batch.is_empty();
        change(&mut state.batch);
        drop(state);
        if was_empty {
            self.bell.notify_one();
        }
    }

    /// Runs `f` while nobody can add anything.
    #[cfg(test)]
    pub(crate) fn while_held(&self, f: impl FnOnce()) {
        let held = self.lock();
        f();
        drop(held);
    }

    /// Something happened to a path, and may go on.
    pub(crate) fn path(&self, path: PathBuf, news: News, by: Option<By>) {
        self.tell(path, news, by, false);
    }

    /// Something that happened to a path is complete: it was closed, moved or deleted.
    pub(crate) fn complete(&self, path: PathBuf, news: News, by: Option<By>) {
        self.tell(path, news, by, true);
    }

    fn tell(&self, path: PathBuf, news: News, by: Option<By>, complete: bool) {
        self.change(|batch| {
            if batch.paths.len() >= Self::PATHS && !batch.paths.contains_key(&path) {
                batch.paths.clear();
                batch.overflow = true;
            }
            let told = batch.paths.entry(path).or_insert(Told { news, by: None, complete });
            told.and(news, by, complete);
        });
    }

    pub(crate) fn canary(&self, number: usize, reader: u8) {
        self.change(|batch| {
            batch.canaries.insert((number, reader));
        });
    }

    pub(crate) fn overflow(&self) {
        self.change(|batch| batch.overflow = true);
    }

    pub(crate) fn error(&self, error: String) {
        self.change(|batch| {
            if batch.errors.len() < Self::ERRORS {
                batch.errors.push(error);
            }
        });
    }

    pub(crate) fn started(&self, generation: u64) {
        *self.lock().readers.entry(generation).or_default() += 1;
    }

    pub(crate) fn ended(&self, generation: u64) {
        let mut state = self.lock();
        let left = state.readers.remove(&generation).unwrap_or(0).saturating_sub(1);
        if left > 0 {
            state.readers.insert(generation, left);
        }
        state.batch.ended = state.batch.ended.max(Some(generation));
        drop(state);
        self.bell.notify_one();
        self.ended.notify_all();
    }

    pub(crate) fn renew_nest(&self) {
        self.change(|batch| batch.nest = true);
    }

    pub(crate) fn stop(&self) {
        self.change(|batch| batch.stop = true);
    }

    /// Waits until all readers of `generation` have ended; false after `patience`.
    pub(crate) fn wait_for_end(&self, generation: u64, patience: Duration) -> bool {
        let (_state, timeout) = self
            .ended
            .wait_timeout_while(self.lock(), patience, |state| state.readers.contains_key(&generation))
            .unwrap_or_else(PoisonError::into_inner);
        !timeout.timed_out()
    }

    /// Waits for something to arrive, or until `until`, and takes it all.
    pub(crate) fn take(&self, until: Option<Instant>) -> Batch {
        let mut state = self.lock();
        while state.batch.is_empty() {
            state = match until {
                None => self.bell.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.bell.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        std::mem::take(&mut state.batch)
    }
}
