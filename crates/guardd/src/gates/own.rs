//! Lock, integrity and seal: what the daemon knows by itself.

use guard_api::Known;
use guard_api::wire::{Change, CheckResult};
use guard_model::baseline::LockState;
use guard_model::deploy::{Gate, Verdict};
use guard_store::lock_file;

use super::{Subject, gate};
use crate::failure::chain;

const NEVER: &str = "never locked: there is no baseline";

/// The lock file says what the ledger says, signed by this host's key.
pub(super) fn lock(subject: &Subject) -> Gate {
    let (ward, state) = (&subject.ward, &subject.state);
    let by_hand = "guardd verify --offline".to_owned();
    let says = |verdict, evidence| gate("lock", "", verdict, evidence, by_hand.clone());
    let Some(baseline) = &state.baseline else { return says(Verdict::Pass, NEVER.to_owned()) };
    let read = ward
        .house
        .state_dir
        .lock_file(&ward.name)
        .map_err(|e| chain(&e))
        .and_then(|path| lock_file::read_verified(&path, &ward.house.public).map_err(|e| chain(&e)));
    let file = match read {
        Ok((file, _)) => file,
        Err(why) => return says(Verdict::Fail, why),
    };
    let is_same = file.state == state.state
        && file.generation == baseline.generation
        && file.baseline == baseline.digest
        && file.machine_id == ward.house.machine_id;
    if !is_same {
        return says(Verdict::Fail, "the lock file is not the one that was written last".to_owned());
    }
    let since = state.since.map(|at| format!(" since {at}")).unwrap_or_default();
    let word = match state.state {
        LockState::Locked => "locked",
        LockState::Unlocked => "unlocked",
    };
    says(
        Verdict::Pass,
        format!("{word}{since}, baseline {}; its lock file's signature is good", baseline.generation),
    )
}

/// Every byte as the baseline has it.
pub(super) fn integrity(subject: &Subject, checked: Option<&Result<CheckResult, Known>>) -> Gate {
    let by_hand = format!("guardctl check {}", subject.ward.name);
    let (verdict, evidence) = match (checked, &subject.rootless, &subject.state.baseline) {
        (Some(Ok(r)), ..) if r.clean => {
            (Verdict::Pass, format!("{} files are as baseline {} has them", r.files, r.generation))
        }
        (Some(Ok(r)), ..) if r.findings_total == 0 => (Verdict::Unknown, unread(r)),
        (Some(Ok(r)), ..) => (Verdict::Fail, differing(r)),
        (Some(Err(known)), ..) => (Verdict::Unknown, super::told(known)),
        (None, Some(why), _) => (Verdict::Fail, why.clone()),
        (None, None, None) => (Verdict::Pass, NEVER.to_owned()),
        (None, None, Some(_)) => {
            (Verdict::Pass, "unlocked: what changes is recorded under the window".to_owned())
        }
    };
    gate("integrity", "", verdict, evidence, by_hand)
}

fn unread(r: &CheckResult) -> String {
    let first = r.skipped.first().map(|s| format!("{} ({})", s.path, s.why)).unwrap_or_default();
    format!("{} entries could not be compared: {first}", r.skipped.len())
}

fn differing(r: &CheckResult) -> String {
    let named: Vec<&str> = r.findings.iter().take(3).map(|f| f.path.as_str()).collect();
    let more = r.findings_total.saturating_sub(named.len() as u64);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{} differ from baseline {}: {}{more}", r.findings_total, r.generation, named.join(", "))
}

/// Nobody took the seal off.
pub(super) fn seal(subject: &Subject, checked: Option<&Result<CheckResult, Known>>) -> Gate {
    let by_hand = format!("guardctl status {}", subject.ward.name);
    let says = |verdict, evidence| gate("seal", "", verdict, evidence, by_hand.clone());
    let Some(checked) = checked else {
        let why = if subject.state.baseline.is_some() { "unlocked: nothing is sealed" } else { NEVER };
        return says(Verdict::Pass, why.to_owned());
    };
    let (Some(seal), Ok(checked)) = (&subject.seal, checked) else {
        return says(Verdict::Unknown, "the tree could not be compared".to_owned());
    };
    let is_of_seal = |c: &Change| matches!(c, Change::Seal | Change::Mode | Change::Flags);
    let broken: Vec<&str> = checked
        .findings
        .iter()
        .filter(|f| f.change.iter().any(is_of_seal))
        .map(|f| f.path.as_str())
        .collect();
    if let Some(first) = broken.first() {
        return says(
            Verdict::Fail,
            format!("the seal of {} entries is not as it was set: {first}", broken.len()),
        );
    }
    let mut told = seal.done.clone();
    if seal.done != seal.asked {
        let why = seal.why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        told = format!("{told}, though {} was asked for{why}", seal.asked);
    }
    if seal.unsealed > 0 {
        told = format!("{told}; {} entries could not be sealed", seal.unsealed);
    }
    says(Verdict::Pass, told)
}
