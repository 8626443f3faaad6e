//! Waiting for conditions.

use std::time::{Duration, Instant};

/// Longer than anything takes on a machine that does something else besides.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until `found` finds something; fails the test, saying `what` was waited for, where it never does.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Tries every case on a thread of its own: most of the time each waits for its daemon.
pub(crate) fn each<T: Sync>(cases: impl IntoIterator<Item = T>, tried: impl Fn(&T) + Sync) {
    let cases: Vec<T> = cases.into_iter().collect();
    std::thread::scope(|scope| {
        for case in &cases {
            let tried = &tried;
            scope.spawn(move || tried(case));
        }
    });
}

/// Waits until `holds`.
#[track_caller]
pub(crate) fn until_true(what: &str, mut holds: impl FnMut() -> bool) {
    until(what, || holds().then_some(()));
}
