//! What an operation that was cut short left behind is finished or undone.
//!
//! | plan | ledger says | so |
//! |---|---|---|
//! | lock, accept | locked by its generation or a later one | it was committed: the plan has served |
//! | lock, accept | anything else | it was not: every mode and flag is given back |
//! | unlock | unlocked | it was committed: the rest of the modes and flags is given back |
//! | unlock | locked | it was not, and had changed nothing |
//! | break links | anything | each file is whole: copies under temporary names are removed |
//! | restore | anything | each path is as it was or put back whole: see [`restore::recover`] |

use guard_model::Observed;
use guard_model::baseline::LockState;
use guard_model::ledger::Event;
use guard_model::state::EnvironmentState;
use guard_store::{Plan, PlanKind, PlanStep, RestoreStep};
use guard_tree::{Content, Root};

use super::{OperationError, Work, break_links, lock, restore, unlock};
use crate::comparer::DeviceMap;
use crate::ward::Ward;

/// What was done about an operation that was cut short.
pub(crate) struct Recovered {
    /// For the ledger.
    pub(crate) events: Vec<Event>,
    /// It may have been cut short before the lock file said what the ledger says.
    pub(crate) is_committed: bool,
}

/// Finishes or undoes. `device_at_lock` is the root's device as the baseline has it, where there is
/// one. The plan stays: it is the caller's to clear, once ledger and lock file say so, too.
pub(crate) fn recover(
    ward: &Ward,
    root: &Root,
    state: &EnvironmentState,
    device_at_lock: Option<u64>,
) -> Result<Option<Recovered>, OperationError> {
    guard_store::baseline::remove_unfinished(&ward.house.state_dir, &ward.name)?;
    let Some(plan) = Plan::load(&ward.house.state_dir, &ward.name)? else { return Ok(None) };
    let kind = plan.header().kind;
    let steps = on_this_boot(&plan, root)?;
    let newest = state.baseline.as_ref().map_or(0, |b| b.generation);
    // An acceptance plans like a lock, in an environment that is locked already.
    let committed = match kind {
        PlanKind::Lock => state.state == LockState::Locked && newest >= plan.header().generation,
        PlanKind::Unlock => state.state == LockState::Unlocked,
        PlanKind::BreakLinks | PlanKind::Restore => true,
    };
    let changes_the_tree = match kind {
        PlanKind::Lock => !committed,
        PlanKind::Unlock => committed,
        PlanKind::BreakLinks | PlanKind::Restore => true,
    };
    if changes_the_tree && !steps.is_empty() && plan.header().root_identity.1 != root.identity().1 {
        return Err(OperationError::OtherRoot { path: root.path().to_owned() });
    }
    let mut events = Vec::new();
    let how = match (kind, committed) {
        (PlanKind::Lock, true) => "finished: it was committed and complete".to_owned(),
        (PlanKind::Lock, false) => {
            let undone = lock::undo(ward, root, steps.iter().cloned(), plan.header().generation)?;
            format!("undone: the modes and flags of {undone} entries given back")
        }
        (PlanKind::Unlock, true) => {
            let (ours, others): (Vec<_>, Vec<_>) =
                steps.iter().cloned().partition(|s| is_as_planned(root, s));
            let done = unlock::give_back(root, &ours, &Work::default())?;
            format!(
                "finished: the modes and flags of {} entries given back, {} left as they are",
                done.restored,
                done.left.len() + others.len()
            )
        }
        (PlanKind::BreakLinks, _) => break_links::recover(root, &steps)?,
        (PlanKind::Restore, _) => {
            let device =
                DeviceMap { at_lock: device_at_lock.unwrap_or(root.identity().0), now: root.identity().0 };
            let (restored, how) = restore::recover::recover(ward, root, device, plan.header(), &steps)?;
            events = restored;
            how
        }
        (PlanKind::Unlock, false) => "undone: it had not been committed and had changed nothing".to_owned(),
    };
    let operation = match kind {
        PlanKind::Lock => "lock",
        PlanKind::Unlock => "unlock",
        PlanKind::BreakLinks => "lock --break-links",
        PlanKind::Restore => "restore",
    };
    events.push(Event::Recovered { operation: operation.to_owned(), how });
    // A restore is committed by what stands in the tree; the lock file says nothing of it.
    Ok(Some(Recovered { events, is_committed: committed && kind != PlanKind::Restore }))
}

/// Has it the mode that the lock gave it, or already the one that it is to get back? Another is what somebody gave it in
/// the window meanwhile.
fn is_as_planned(root: &Root, step: &PlanStep) -> bool {
    match root.observe(&step.path, Content::Skip) {
        Observed::Present(now) => [step.mode_before, step.mode_after].contains(&now.mode),
        _ => true,
    }
}

/// The plan's steps with the root's device number of this boot.
fn on_this_boot(plan: &Plan, root: &Root) -> Result<Vec<PlanStep>, OperationError> {
    let device = DeviceMap { at_lock: plan.header().root_identity.0, now: root.identity().0 };
    let mut steps = Vec::new();
    for step in plan.steps() {
        let step = step?;
        let identity = (device.on_disk(step.identity.0), step.identity.1);
        let mut step = PlanStep { identity, ..step };
        if let Some(RestoreStep::Make { found: Some(found), .. }) = step.restore.as_deref_mut() {
            found.0 = device.on_disk(found.0);
        }
        steps.push(step);
    }
    Ok(steps)
}
