//! `lock` on a locked environment: seals again what lost its seal.

use std::sync::Arc;

use guard_store::Baseline;
use guard_tree::{MarksSet, Root};

use super::{OperationError, Phase, Work, unlock};
use crate::comparer::DeviceMap;

/// Takes the write bits from every entry that had been sealed and still is the
/// same inode; how many had them. Makes no baseline.
pub(crate) fn repair(
    root: &Root,
    baseline: &Arc<Baseline>,
    device: DeviceMap,
    work: &Work,
) -> Result<u64, OperationError> {
    let steps = unlock::steps(baseline, device)?;
    work.enter(Phase::Sealing, steps.len() as u64);
    let mut repaired = 0;
    for step in steps {
        work.check_cancelled()?;
        if root.set_marks(&step.path, step.identity, step.before())? == MarksSet::Done {
            repaired += 1;
        }
        work.step();
    }
    Ok(repaired)
}
