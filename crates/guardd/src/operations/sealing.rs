//! Setting the modes and flags of many entries.
//!
//! Each step is about one inode, is idempotent, and is in a plan that is on the disk: they need no order among each other.
//! Few are done one after the other, in the order of the plan, by whoever asks.

use std::sync::{Mutex, PoisonError};
use std::thread;

use guard_store::PlanStep;
use guard_tree::{MarksSet, Root, WhyNoFlags};

use super::lock::workers;
use super::{OperationError, Work};

/// From so many on there are several threads.
const WORTH_THREADS: usize = 5_000;
/// Steps that a thread takes at once.
const TOGETHER: usize = 128;

/// Steps, and what they came to.
pub(super) type Others = Vec<(PlanStep, MarksSet)>;

/// Whether it goes on where it is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnCancel {
    Stop,
    /// It is committed.
    GoOn,
}

/// Carries out `count` steps; gives those of them that came to something else than [`MarksSet::Done`], sorted by path.
///
/// # Errors
/// The first one; others may have gone on for a moment.
pub(super) fn carry_out(
    root: &Root,
    steps: impl Iterator<Item = PlanStep> + Send,
    count: usize,
    work: &Work,
    on_cancel: OnCancel,
) -> Result<Others, OperationError> {
    let all: Mutex<Result<Others, OperationError>> = Mutex::new(Ok(Vec::new()));
    let steps = Mutex::new(steps);
    let next = || -> Vec<PlanStep> {
        let mut steps = steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.by_ref().take(TOGETHER).collect()
    };
    let run = || {
        let mut others = Vec::new();
        let mut steps = next();
        while !steps.is_empty() && all.lock().unwrap_or_else(PoisonError::into_inner).is_ok() {
            let done = steps.into_iter().try_for_each(|step| -> Result<(), OperationError> {
                if on_cancel == OnCancel::Stop {
                    work.check_cancelled()?;
                }
                let set = root.set_marks(&step.path, step.identity, step.after())?;
                if set != MarksSet::Done {
                    others.push((step, set));
                }
                work.step();
                Ok(())
            });
            if let Err(e) = done {
                let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                if all.is_ok() {
                    *all = Err(e);
                }
                return;
            }
            steps = next();
        }
        if let Ok(all) = all.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            all.extend(others);
        }
    };
    let beside = if count < WORTH_THREADS { 0 } else { workers().saturating_sub(1) };
    thread::scope(|scope| {
        for n in 0..beside {
            let named = thread::Builder::new().name(format!("seal-{n}"));
            if let Err(e) = named.spawn_scoped(scope, run) {
                tracing::warn!(error = %e, "fewer threads to set modes and flags");
                break;
            }
        }
        run();
    });
    let mut all = all.into_inner().unwrap_or_else(PoisonError::into_inner)?;
    all.sort_unstable_by(|a, b| a.0.path.cmp(&b.0.path));
    if beside > 0 {
        // Two names of one inode may have been in each other's way.
        for (step, set) in &mut all {
            if matches!(set, MarksSet::NotPermitted | MarksSet::NoFlags(WhyNoFlags::NotPermitted)) {
                *set = root.set_marks(&step.path, step.identity, step.after())?;
            }
        }
        all.retain(|(_, set)| *set != MarksSet::Done);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::sync::atomic::Ordering;

    use guard_model::RelPath;
    use guard_model::seal::Marks;

    use super::*;

    /// Steps that take write permission from files, by several threads.
    fn many(top: &std::path::Path) -> Vec<PlanStep> {
        let step = |n: usize| {
            let name = format!("{n:05}");
            fs::write(top.join(&name), "").unwrap();
            fs::set_permissions(top.join(&name), fs::Permissions::from_mode(0o600)).unwrap();
            let stat = guard_sys::stat::absolute(&top.join(&name)).unwrap();
            let marks = |mode| Marks { mode, flags: 0 };
            PlanStep::new(RelPath::from_text(&name).unwrap(), stat.identity(), marks(0o600), marks(0o400))
        };
        (0..WORTH_THREADS + TOGETHER + 1).map(step).collect()
    }

    #[test]
    fn every_step_is_done_once_and_what_is_not_done_is_told_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut steps = many(dir.path());
        let (root, work) = (Root::open(dir.path()).unwrap(), Work::default());
        for other in [7, 4000, 900] {
            steps[other].identity.1 += 1 << 40;
        }
        fs::remove_file(dir.path().join("00100")).unwrap();
        let left = carry_out(&root, steps.iter().cloned(), steps.len(), &work, OnCancel::Stop).unwrap();
        let left: Vec<_> = left.iter().map(|(step, set)| (step.path.to_string(), *set)).collect();
        let expected = [
            ("00007", MarksSet::Replaced),
            ("00100", MarksSet::Vanished),
            ("00900", MarksSet::Replaced),
            ("04000", MarksSet::Replaced),
        ];
        assert_eq!(left, expected.map(|(path, set)| (path.to_owned(), set)));
        assert_eq!(work.counted(), steps.len() as u64);
        let modes = steps.iter().filter_map(|s| fs::metadata(dir.path().join(s.path.as_path())).ok());
        assert_eq!(modes.filter(|m| m.mode() & 0o7777 == 0o400).count(), steps.len() - 4);
    }

    #[test]
    fn what_is_cancelled_stops_unless_it_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let steps = many(dir.path());
        let (root, work) = (Root::open(dir.path()).unwrap(), Work::default());
        work.cancel.store(true, Ordering::Relaxed);
        let run = |on_cancel| carry_out(&root, steps.iter().cloned(), steps.len(), &work, on_cancel);
        assert!(matches!(run(OnCancel::Stop), Err(OperationError::Cancelled)));
        assert_eq!(work.counted(), 0);
        assert!(run(OnCancel::GoOn).unwrap().is_empty());
        assert_eq!(work.counted(), steps.len() as u64);
    }
}
