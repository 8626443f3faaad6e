//! What is still to be done, shared by the threads.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Two stacks: big files are begun before anything else.
pub(crate) struct Stack<B, T> {
    state: Mutex<State<B, T>>,
    changed: Condvar,
}

struct State<B, T> {
    big: Vec<B>,
    tasks: Vec<T>,
    busy: usize,
    failed: bool,
}

/// What a thread does next.
pub(crate) enum Next<B, T> {
    Big(B),
    Task(T),
}

impl<B, T> Stack<B, T> {
    pub(crate) fn new(first: T) -> Self {
        let state = State { big: Vec::new(), tasks: vec![first], busy: 0, failed: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    pub(crate) fn push(&self, big: impl IntoIterator<Item = B>, tasks: impl IntoIterator<Item = T>) {
        let mut state = self.lock();
        state.big.extend(big);
        state.tasks.extend(tasks);
        drop(state);
        self.changed.notify_all();
    }

    /// Waits while others may still find something.
    pub(crate) fn take(&self) -> Option<Next<B, T>> {
        let mut state = self.lock();
        loop {
            if state.failed {
                return None;
            }
            let next = match state.big.pop() {
                Some(big) => Some(Next::Big(big)),
                None => state.tasks.pop().map(Next::Task),
            };
            match next {
                Some(next) => {
                    state.busy += 1;
                    return Some(next);
                }
                None if state.busy == 0 => return None,
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// What was taken is done, or could not be.
    pub(crate) fn done(&self, failed: bool) {
        let mut state = self.lock();
        state.busy -= 1;
        state.failed |= failed;
        if state.failed || (state.busy == 0 && state.tasks.is_empty() && state.big.is_empty()) {
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<B, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
