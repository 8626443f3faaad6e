//! Work that is shared between threads and makes more work.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// A stack of tasks. It is done when it is empty and nobody works on a task that
/// could put more on it.
#[derive(Debug)]
pub(crate) struct Stack<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    tasks: Vec<T>,
    busy: usize,
    stopped: bool,
}

/// Says, while it lives, that somebody works on a task.
#[derive(Debug)]
pub(crate) struct Busy<'s, T>(&'s Stack<T>);

impl<T> Default for Stack<T> {
    fn default() -> Self {
        let state = State { tasks: Vec::new(), busy: 0, stopped: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<T> Stack<T> {
    pub(crate) fn push(&self, task: T) {
        self.lock().tasks.push(task);
        self.changed.notify_one();
    }

    /// Takes the newest task; waits while there is none and there may be one yet. `None` once
    /// all is done, or after [`Stack::stop`].
    pub(crate) fn take(&self) -> Option<(T, Busy<'_, T>)> {
        let mut state = self.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some(task) = state.tasks.pop() {
                state.busy += 1;
                return Some((task, Busy(self)));
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nobody gets another task.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing between taking and releasing it can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy -= 1;
        // What a panic left undone is not done: the others are not to wait for it.
        state.stopped |= thread::panicking();
        if state.stopped || (state.busy == 0 && state.tasks.is_empty()) {
            self.0.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Every task of depth n makes three of depth n - 1.
    fn run(stack: &Stack<u32>, done: &AtomicUsize, fail_at: usize) {
        while let Some((depth, _busy)) = stack.take() {
            assert!(done.fetch_add(1, Ordering::Relaxed) != fail_at, "as the test wants it");
            (0..if depth == 0 { 0 } else { 3 }).for_each(|_| stack.push(depth - 1));
        }
    }

    #[test]
    fn everybody_stops_when_all_is_done() {
        let (stack, done) = (Stack::default(), AtomicUsize::new(0));
        stack.push(6);
        thread::scope(|s| {
            for _ in 0..8 {
                s.spawn(|| run(&stack, &done, usize::MAX));
            }
        });
        assert_eq!(done.into_inner(), (3usize.pow(7) - 1) / 2);
    }

    #[test]
    fn a_panic_does_not_leave_the_others_waiting() {
        let (stack, done) = (Stack::default(), AtomicUsize::new(0));
        stack.push(6);
        let all = thread::scope(|s| {
            let threads: Vec<_> = (0..4).map(|_| s.spawn(|| run(&stack, &done, 50))).collect();
            threads.into_iter().map(|t| t.join().is_ok()).collect::<Vec<_>>()
        });
        assert_eq!(all.iter().filter(|ok| !**ok).count(), 1);
    }
}
