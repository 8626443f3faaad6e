//! `Validate`: everything that must hold before a deployment, beside the warden.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use guard_api::method::{Step, Validate};
use guard_api::wire::{Gate, ValidateResult};
use guard_model::RelPath;
use guard_model::deploy::Verdict;

use super::connection::Out;
use super::methods::{Daemon, Ended, OnHangup};
use super::streams;
use crate::gates::{self, Subject, Ways};
use crate::operations::{Phase, Work, millis};
use crate::warden::{Command, WardenHandle};

pub(super) async fn validate(daemon: &Daemon, asked: Validate, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let subject = warden.ask(Command::Gates).await?;
    let work = Work::shared();
    let own = Arc::clone(&work);
    let name = warden.name.clone();
    let result = super::backups::beside(&name, "validate", move || Ok(look(&subject, &warden, &own)));
    let result = streams::with_progress(result, &work, OnHangup::Cancel, out).await?;
    Ok(out.last(&Step::result(result)).await?)
}

fn look(subject: &Subject, warden: &WardenHandle, work: &Arc<Work>) -> ValidateResult {
    let began = Instant::now();
    work.enter(Phase::Verifying, 0);
    let found = gates::all(
        subject,
        Ways {
            check: &mut || {
                let work = Arc::clone(work);
                warden.ask_and_wait(|reply| Command::Check {
                    quick: false,
                    below: RelPath::root(),
                    work,
                    reply,
                })
            },
            backups: &mut || warden.ask_and_wait(Command::Backups),
            stop: &work.cancel,
            tell: &mut |_| work.step(),
        },
    );
    ValidateResult {
        environment: subject.ward.name.clone(),
        passed: !work.cancel.load(Ordering::Relaxed) && found.iter().all(|g| g.verdict.lets_pass()),
        gates: found.into_iter().map(wire).collect(),
        duration_ms: millis(began.elapsed()),
    }
}

/// A gate as it is told.
pub(crate) fn wire(gate: guard_model::deploy::Gate) -> Gate {
    use guard_api::wire::Verdict as Told;
    Gate {
        gate: gate.gate,
        subject: gate.subject,
        verdict: match gate.verdict {
            Verdict::Pass => Told::Pass,
            Verdict::Fail => Told::Fail,
            Verdict::Unknown => Told::Unknown,
            Verdict::Waived => Told::Waived,
        },
        evidence: gate.evidence,
        by_hand: gate.by_hand,
    }
}
