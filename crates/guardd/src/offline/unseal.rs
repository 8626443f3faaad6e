//! `guardd unseal --offline`: gives back what lock took, without a daemon.
//!
//! It changes modes and flags only. The ledger is not touched: the next daemon finds the
//! environment locked and its seal gone, and says so.

use std::sync::Arc;

use guard_api::Exit;
use guard_model::baseline::{Expect, LockState};
use guard_store::StateDir;

use super::{State, open_root};
use crate::Failure;
use crate::cli::Unseal;
use crate::comparer::{DeviceMap, Expectation, MountsAtLock, Records};
use crate::operations::{Work, unlock};

/// Unseals one environment or all.
pub(crate) fn run(asked: &Unseal) -> Result<Exit, Failure> {
    if asked.all && !asked.state_dir.join("locks").is_dir() {
        // Removing a package that was never used.
        return Ok(Exit::Done);
    }
    // The daemon holds this lock: both at once would undo each other.
    let _alone = StateDir::open(&asked.state_dir).map_err(|e| {
        Failure::of(Exit::Refused, &e).hint("systemctl stop guardd, or use guardctl unlock while it runs")
    })?;
    let state = State::open(&asked.state_dir)?;
    let names = match asked.all {
        true => state.environments()?,
        false => vec![state.chosen(asked.environment.as_deref())?],
    };
    let mut worst = Exit::Done;
    for name in names {
        match unseal(&state, &name, asked) {
            Ok(exit) if exit.code() > worst.code() => worst = exit,
            Ok(_) => {}
            Err(e) if asked.all => {
                // The others are unsealed all the same.
                tell(&format!("{name}: {}", e.text));
                worst = e.exit;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(worst)
}

fn unseal(state: &State, name: &str, asked: &Unseal) -> Result<Exit, Failure> {
    let said = state.lock_file(name)?;
    if said.state != LockState::Locked {
        tell(&format!("{name}: is not locked"));
        return Ok(Exit::Done);
    }
    let baseline = state.baseline(&said)?;
    let root = open_root(baseline.manifest(), asked.root.as_ref())?;
    let device = DeviceMap { at_lock: baseline.manifest().root_identity.0, now: root.identity().0 };
    let failed = |e: crate::operations::OperationError| Failure::of(Exit::NeedsOperator, &e);
    let overlay = Arc::new(state.overlay(name)?);
    let expected = Expectation {
        records: Records::Baseline(Arc::new(baseline)),
        overlay,
        expect: Expect::Sealed,
        device,
        mounts: MountsAtLock::default(),
    };
    let steps = unlock::steps(&expected).map_err(failed)?;
    let done = unlock::give_back(&root, &steps, &Work::default()).map_err(failed)?;
    tell(&format!("{name}: the modes and flags of {} entries were given back", done.restored));
    for left in &done.left {
        tell(&format!("{name}: left as it is: {left}"));
    }
    Ok(Exit::Done)
}

#[expect(clippy::print_stdout, reason = "the answer is the program's output")]
fn tell(line: &str) {
    println!("{line}");
}
