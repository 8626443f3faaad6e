//! `lock` on a locked environment: seals again what lost its seal.

use guard_model::RelPath;
use guard_tree::{MarksSet, Root, WhyNoFlags};

use super::{OperationError, Phase, Work, unlock};
use crate::comparer::Expectation;

/// What a repair did.
#[derive(Debug, Default)]
pub(crate) struct Repaired {
    /// Entries that had lost their seal and have it again.
    pub(crate) entries: u64,
    /// Those that could not be given it, and why.
    pub(crate) left: Vec<(RelPath, String)>,
}

/// Seals every entry that had been sealed and still is the same inode. Makes no baseline.
pub(crate) fn repair(root: &Root, expected: &Expectation, work: &Work) -> Result<Repaired, OperationError> {
    let steps = unlock::steps(expected)?;
    work.enter(Phase::Sealing, steps.len() as u64);
    let mut done = Repaired::default();
    for step in steps {
        work.check_cancelled()?;
        let why = match root.set_marks(&step.path, step.identity, step.before())? {
            MarksSet::Done => {
                done.entries += 1;
                None
            }
            MarksSet::NotPermitted => Some("not permitted"),
            MarksSet::NoFlags(WhyNoFlags::NotPermitted) => Some("the immutable flag: not permitted"),
            MarksSet::NoFlags(WhyNoFlags::Unsupported) => {
                Some("the immutable flag: the file system has none")
            }
            // What stands there instead is a finding of its own.
            MarksSet::Already | MarksSet::Vanished | MarksSet::Replaced => None,
        };
        done.left.extend(why.map(|why| (step.path, format!("not sealed: {why}"))));
        work.step();
    }
    if done.entries > 0 {
        root.to_disk()?;
    }
    Ok(done)
}
