//! Work that is shared between threads and makes more work.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// A stack of tasks. It is done when it is empty and nobody works on a task that
/// could put more on it.
#[derive(Debug)]
pub(crate) struct Stack<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
    /// For those who wait for nothing but the end: a task is not to wake them instead of somebody who takes it.
    ended: Condvar,
}

#[derive(Debug)]
struct State<T> {
    /// Taken before all others.
    first: Vec<T>,
    tasks: Vec<T>,
    busy: usize,
    stopped: bool,
}

/// Says, while it lives, that somebody works on a task.
#[derive(Debug)]
pub(crate) struct Busy<'s, T>(&'s Stack<T>);

impl<T> Default for Stack<T> {
    fn default() -> Self {
        let state = State { first: Vec::new(), tasks: Vec::new(), busy: 0, stopped: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), ended: Condvar::new() }
    }
}

impl<T> Stack<T> {
    pub(crate) fn push(&self, task: T) {
        self.lock().tasks.push(task);
        self.changed.notify_one();
    }

    /// What takes long: it is begun before anything else.
    pub(crate) fn push_first(&self, task: T) {
        self.lock().first.push(task);
        self.changed.notify_one();
    }

    /// Takes the newest task; `None` where there is none now, or after [`Stack::stop`].
    pub(crate) fn take_now(&self) -> Option<(T, Busy<'_, T>)> {
        self.lock().take().map(|task| (task, Busy(self)))
    }

    /// Takes the newest task; waits while there is none and there may be one yet. `None` once
    /// all is done, or after [`Stack::stop`].
    pub(crate) fn take(&self) -> Option<(T, Busy<'_, T>)> {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.take() {
                return Some((task, Busy(self)));
            }
            if state.stopped || state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits so long, or until all is done or stopped. How many tasks wait to be taken; `None` once there will be
    /// none any more.
    pub(crate) fn watch(&self, so_long: Duration) -> Option<usize> {
        let state = self.lock();
        let ends = |state: &mut State<T>| !state.has_ended();
        let (state, _) =
            self.ended.wait_timeout_while(state, so_long, ends).unwrap_or_else(PoisonError::into_inner);
        (!state.has_ended()).then_some(state.first.len() + state.tasks.len())
    }

    /// Nobody gets another task.
    pub(crate) fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
        self.ended.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing between taking and releasing it can panic half-way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    /// A task for somebody who is busy from now on.
    fn take(&mut self) -> Option<T> {
        if self.stopped {
            return None;
        }
        let task = self.first.pop().or_else(|| self.tasks.pop())?;
        self.busy += 1;
        Some(task)
    }

    fn has_ended(&self) -> bool {
        self.stopped || (self.busy == 0 && self.first.is_empty() && self.tasks.is_empty())
    }
}

impl<T> Drop for Busy<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy -= 1;
        // What a panic left undone is not done: the others are not to wait for it.
        state.stopped |= thread::panicking();
        if state.has_ended() {
            self.0.changed.notify_all();
            self.0.ended.notify_all();
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
    fn what_takes_long_comes_first() {
        let stack = Stack::default();
        stack.push(1);
        stack.push_first(2);
        stack.push(3);
        let order: Vec<u32> = std::iter::from_fn(|| stack.take().map(|(task, _)| task)).collect();
        assert_eq!(order, [2, 3, 1]);
    }

    #[test]
    fn who_watches_hears_of_the_end() {
        let stack = Stack::default();
        stack.push(1);
        assert_eq!(stack.watch(Duration::ZERO), Some(1));
        let taken = stack.take();
        assert_eq!(stack.watch(Duration::ZERO), Some(0));
        thread::scope(|s| {
            let watching = s.spawn(|| stack.watch(Duration::from_secs(60)));
            drop(taken);
            assert_eq!(watching.join().unwrap(), None);
        });
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
