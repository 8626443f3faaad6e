//! The way of a deployment: forward while everything holds, else back.
//!
//! | cut short after | so the next start |
//! |---|---|
//! | preflight, window, backup | locks again what was locked: nothing had been changed |
//! | a step, or the verification | rolls back |
//! | the verification was good (`relock`) | finishes |
//! | the rollback was begun | rolls back once more; the third time somebody has to look |

use guard_model::deploy::{DeploymentEnd, DeploymentKind, Image, Phase};
use guard_model::deployments::Deployment;
use guard_model::ledger::Event;
use guard_model::{BackupId, Severity};

use super::desk::{Desk, Gone};
use super::{Order, Start, preflight, release, roll_back};
use crate::operations::millis;

/// So often a rollback is begun before somebody has to look.
const ROLLBACKS: u32 = 3;

/// So often a good release is tried to be locked.
const RELOCKS: u32 = 5;
const BETWEEN_RELOCKS: std::time::Duration = std::time::Duration::from_secs(3);

/// How a deployment ended, with what there is to know.
pub(super) struct Ending {
    pub(super) end: DeploymentEnd,
    pub(super) why: String,
    pub(super) revision_after: Option<String>,
    pub(super) changed: u64,
    pub(super) images: Vec<Image>,
    pub(super) release: Option<BackupId>,
}

impl Ending {
    pub(super) fn of(end: DeploymentEnd, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { end, why, revision_after: None, changed: 0, images: Vec::new(), release: None }
    }
}

pub(super) fn run(order: Order) {
    let (ward, warden) = (order.ward.clone(), order.warden.clone());
    let (id, began) = (order.deployment.id, std::time::Instant::now());
    let ending = match Desk::new(order) {
        Ok(mut desk) => carry_out(&mut desk),
        Err(fault) => fault.why().map(|why| Ending::of(DeploymentEnd::NeedsOperator, why)),
    };
    let Ok(ending) = ending else { return };
    let mut events = Vec::new();
    if ending.end == DeploymentEnd::NeedsOperator {
        let title = format!("deployment {id} needs an operator: {}", ending.why);
        events.push(crate::sessions::alert(Severity::Critical, title, Vec::new()));
    }
    events.push(Event::DeploymentEnded {
        deployment: id,
        end: ending.end,
        why: ending.why,
        revision_after: ending.revision_after,
        changed: ending.changed,
        images: ending.images,
        release: ending.release,
        duration_ms: millis(began.elapsed()),
    });
    // While the disk is full it goes on running, and nothing else is begun.
    loop {
        match ward.append(events.clone()) {
            Ok(records) => {
                warden.send(crate::warden::Message::Recorded(records)).ok();
                return;
            }
            Err(e) => {
                tracing::error!(environment = ward.name, error = %crate::failure::chain(&e), "the end of a deployment cannot be written");
                std::thread::sleep(std::time::Duration::from_secs(1));
                // A warden that has ended hears nothing: guardd stops.
                if warden.send(crate::warden::Message::Recorded(Vec::new())).is_err() {
                    return;
                }
            }
        }
    }
}

fn carry_out(desk: &mut Desk) -> Result<Ending, Gone> {
    let running = desk.order.deployment.clone();
    match (desk.order.start, running.kind) {
        (Start::Resume, _) => resume(desk, &running),
        (Start::New, DeploymentKind::Deploy) => deploy(desk),
        (Start::New, DeploymentKind::Rollback) => roll_back::wished(desk),
    }
}

fn deploy(desk: &mut Desk) -> Result<Ending, Gone> {
    if let Err(fault) = preflight::prepare(desk) {
        return nothing_changed(desk, fault.why()?);
    }
    match release::make(desk) {
        Ok(()) => finish(desk),
        Err(fault) => roll_back::after(desk, &fault.why()?),
    }
}

/// What was verified is recorded, and what was locked is locked.
pub(super) fn finish(desk: &mut Desk) -> Result<Ending, Gone> {
    let mut tried = 0;
    loop {
        tried += 1;
        let why = match release::record(desk) {
            Ok(ending) => return Ok(ending),
            Err(fault) => fault.why()?,
        };
        // The release is good, and what guards it is not: nobody rolls back for that.
        if tried == RELOCKS {
            let why = format!("it is verified, but could not be locked: {why}");
            return Ok(Ending::of(DeploymentEnd::NeedsOperator, why));
        }
        // A disk that was full for a moment needs nobody.
        tracing::warn!(environment = desk.order.ward.name, why, "a good release is not locked yet");
        desk.log.says(&format!("tried again: {why}"));
        std::thread::sleep(BETWEEN_RELOCKS);
    }
}

/// Before the first step: what was unlocked is locked again.
fn nothing_changed(desk: &mut Desk, why: String) -> Result<Ending, Gone> {
    match release::lock_again(desk, &format!("nothing was changed: {why}")) {
        Ok(_) => Ok(Ending::of(DeploymentEnd::Refused, why)),
        Err(fault) => {
            let lock = fault.why()?;
            let why = format!("{why}; nothing was changed, but it could not be locked again: {lock}");
            Ok(Ending::of(DeploymentEnd::NeedsOperator, why))
        }
    }
}

fn resume(desk: &mut Desk, running: &Deployment) -> Result<Ending, Gone> {
    let told = desk.tell(vec![Event::Recovered {
        operation: format!("{} {}", running.kind, running.id),
        how: match running {
            d if d.is_verified() => "it had been verified: finished".to_owned(),
            d if d.has_acted() => "rolled back".to_owned(),
            _ => "nothing had been changed: ended".to_owned(),
        },
    }]);
    if let Err(fault) = told.and_then(|_| desk.end_left_over()) {
        let why = format!("what its steps had started may still run: {}", fault.why()?);
        return Ok(Ending::of(DeploymentEnd::NeedsOperator, why));
    }
    desk.log.at(running.phase.unwrap_or(Phase::Preflight), running.step.as_deref());
    desk.log.says("guardd was ended here");
    if running.is_verified() {
        return finish(desk);
    }
    if !running.has_acted() {
        return nothing_changed(desk, "guardd was ended before the first step".to_owned());
    }
    if running.rollbacks >= ROLLBACKS {
        let why = format!("the rollback was cut short {} times", running.rollbacks);
        return Ok(Ending::of(DeploymentEnd::NeedsOperator, why));
    }
    match running.kind {
        DeploymentKind::Deploy => roll_back::after(desk, "guardd was ended while it ran"),
        DeploymentKind::Rollback => roll_back::wished(desk),
    }
}
