//! Unlock: gives back the exact modes and flags, by the baseline's record.

use std::sync::Arc;

use guard_model::ledger::{Event, Record};
use guard_model::seal::Marks;
use guard_model::{BackupKind, Policy};
use guard_store::{Plan, PlanKind, PlanStep};
use guard_tree::{MarksSet, Root};

use super::backup::{Cause, Safety, Secured};
use super::sealing::{OnCancel, carry_out};
use super::{OperationError, Phase, Work};
use crate::comparer::Expectation;
use crate::failure::chain;
use crate::ward::Ward;

/// What to unlock.
pub(crate) struct UnlockTask {
    pub(crate) ward: Ward,
    pub(crate) root: Arc<Root>,
    /// `None` where the baseline is lost: then nothing can be given back.
    pub(crate) expectation: Option<Expectation>,
    pub(crate) generation: u64,
    pub(crate) by: String,
    pub(crate) reason: String,
    /// The `window_opened` that commits it.
    pub(crate) opened: Event,
    /// The policy by which the tree is backed up.
    pub(crate) policy: Arc<Policy>,
    pub(crate) safety: Safety,
    pub(crate) work: Arc<Work>,
}

/// What an unlock brought.
pub(crate) struct UnlockDone {
    pub(crate) records: Vec<Record>,
    pub(crate) unsealed: Unsealed,
    /// What is to be said of the backup.
    pub(crate) warnings: Vec<String>,
    /// All was given back, or cannot be: the plan has served.
    pub(crate) is_finished: bool,
}

/// What became of the sealed entries.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Unsealed {
    /// Entries whose modes and flags were given back.
    pub(crate) restored: u64,
    /// Entries that are not what was sealed any more; left as they are.
    pub(crate) left: Vec<String>,
}

impl UnlockTask {
    /// Unlocks. The ledger record is the commit point: a failure before it
    /// changes nothing, an interruption after it is finished at the next start.
    /// The plan stays until the lock file says what the ledger says.
    pub(crate) fn run(self) -> Result<UnlockDone, OperationError> {
        let steps = match &self.expectation {
            Some(e) => steps(e)?,
            None => Vec::new(),
        };
        let secured = self.secure()?;
        self.work.check_cancelled()?;
        self.work.enter(Phase::Unsealing, steps.len() as u64);
        let header =
            self.ward.plan_header(PlanKind::Unlock, self.generation, &self.root, &self.by, &self.reason);
        Plan::write(&self.ward.house.state_dir, &header, steps.iter().cloned())?;
        let events = secured.event.into_iter().chain([self.opened.clone()]).collect();
        let mut records = match self.ward.append(events) {
            Ok(records) => records,
            Err(e) => {
                Plan::clear(&self.ward.house.state_dir, &self.ward.name)?;
                return Err(e.into());
            }
        };
        // It is committed: what goes wrong from here on is said, and tried again at the next start.
        let given = give_back(&self.root, &steps, &self.work);
        let is_finished = given.is_ok();
        let mut unsealed = given.unwrap_or_else(|e| Unsealed {
            restored: 0,
            left: vec![format!(
                ".: not everything was given back, which the next start tries again: {}",
                chain(&e)
            )],
        });
        if self.expectation.is_none() {
            unsealed.left.push(".: the baseline is lost, so no mode and no flag was given back".to_owned());
        }
        records.extend(self.safety.prune(&self.ward));
        Ok(UnlockDone { records, unsealed, warnings: secured.warnings, is_finished })
    }
}

impl UnlockTask {
    /// The tree as it stands, before anything is changed.
    fn secure(&self) -> Result<Secured, OperationError> {
        let cause = Cause::new(BackupKind::Emergency, &self.by, self.generation);
        let expectation = self.expectation.as_ref();
        self.safety.secure(|vault| {
            vault.store_tree(&self.ward, &self.root, &self.policy, expectation, cause, &self.work)
        })
    }
}

/// One step for each entry that lock took write bits from or gave a flag.
pub(crate) fn steps(expected: &Expectation) -> Result<Vec<PlanStep>, OperationError> {
    let mut steps = Vec::new();
    for record in expected.iter() {
        let record = record?;
        let original = Marks::of(&record.entry);
        let sealed = original.under(record.sealed);
        if sealed != original {
            let identity = (expected.device.on_disk(record.entry.dev), record.entry.ino);
            steps.push(PlanStep::new(record.path, identity, sealed, original));
        }
    }
    Ok(steps)
}

/// Sets every step's mode and flags on the very inode that was sealed. What stands at a
/// name instead of it is left alone and named.
pub(crate) fn give_back(root: &Root, steps: &[PlanStep], work: &Work) -> Result<Unsealed, OperationError> {
    let others = carry_out(root, steps.iter().cloned(), steps.len(), work, OnCancel::GoOn)?;
    let mut done = Unsealed { restored: (steps.len() - others.len()) as u64, left: Vec::new() };
    for (step, set) in others {
        match set {
            MarksSet::Done | MarksSet::Already => done.restored += 1,
            MarksSet::Vanished => done.left.push(format!("{}: is gone", step.path)),
            MarksSet::Replaced => done.left.push(format!("{}: is another file than was locked", step.path)),
            MarksSet::NotPermitted | MarksSet::NoFlags(_) => {
                done.left.push(format!("{}: not permitted", step.path))
            }
        }
    }
    if done.restored > 0 {
        root.to_disk()?;
    }
    Ok(done)
}
