//! Forward: the steps, whether the application is well after them, and what is recorded of it.

use std::time::{Duration, Instant};

use guard_deploy::run::{End, Ended};
use guard_model::deploy::{DeploymentEnd, DeploymentKind, Force, Phase, Step, Undo};
use guard_model::ledger::WindowEnd;

use super::desk::{Desk, Fault, failed};
use super::flow::Ending;
use super::keep::keep;
use super::looks;
use crate::failure::chain;
use crate::operations::Work;
use crate::operations::backup::OnNoBackup;
use crate::operations::lock::LockOptions;
use crate::operations::open_writers::OnOpenWriters;
use crate::ward::Ward;
use crate::warden::{Command, LockOrder};
use crate::work_tree;

/// Paths that one line names.
const NAMED: usize = 5;

/// Runs the steps and looks whether the application is well. What fails here has to be rolled back.
pub(super) fn make(desk: &mut Desk) -> Result<(), Fault> {
    for step in desk.deploy.steps.clone() {
        if desk.is_cancelled() {
            return Err(failed("it was cancelled"));
        }
        run_step(desk, Phase::Step, &step, &step.run)?;
    }
    let forced = desk.order.deployment.force.contains(&Force::Health);
    match verify(desk, Phase::Verify) {
        Err(Fault::Failed(why)) if forced && !desk.is_cancelled() => {
            desk.log.says(&format!("goes on, since health is skipped: {why}"));
            Ok(())
        }
        other => other,
    }
}

/// Runs one command line of a step; says how it ended.
pub(super) fn run_step(desk: &mut Desk, phase: Phase, step: &Step, line: &str) -> Result<(), Fault> {
    let since = desk.begin(phase, Some(&step.name))?;
    if phase == Phase::Step && step.undo == Undo::Irreversible {
        desk.log.says("this cannot be undone by a rollback");
    }
    let outcome = match desk.run_step(phase, step, line) {
        Ok(ended) => how_it_ended(step, desk.deploy.deadline, ended),
        Err(fault) => Err(fault.why()?),
    };
    let told = outcome.as_ref().map(String::as_str).map_err(String::as_str);
    desk.end(phase, Some(&step.name), since, told)?;
    outcome.map(drop).map_err(|why| failed(format!("step {}: {why}", step.name)))
}

fn how_it_ended(step: &Step, deadline: Duration, ended: Ended) -> Result<String, String> {
    let took = ended.took.as_secs_f32();
    match ended.end {
        End::Exited(0) => Ok(format!("done in {took:.1} s")),
        End::Exited(code @ 129..=192) => Err(format!("ended by signal {} after {took:.1} s", code - 128)),
        End::Exited(code) => Err(format!("failed with status {code} after {took:.1} s")),
        End::Late => {
            Err(format!("not done after {} s, and ended", step.deadline.unwrap_or(deadline).as_secs()))
        }
        End::Stopped => Err("cancelled".to_owned()),
    }
}

/// Is the application well, without a break, for as long as is configured?
pub(super) fn verify(desk: &mut Desk, phase: Phase) -> Result<(), Fault> {
    let since = desk.begin(phase, None)?;
    let outcome = looks::verified(desk, phase);
    desk.conclude(phase, None, since, outcome)
}

/// The release is good: what it changed is recorded, and what was locked is locked with it as the baseline.
pub(super) fn record(desk: &mut Desk) -> Result<Ending, Fault> {
    // Whatever is asked from here on comes too late.
    desk.go_back();
    to_disk(desk)?;
    let since = desk.begin(Phase::Relock, None)?;
    let d = desk.order.deployment.clone();
    let revision_after = revision(desk);
    if d.kind == DeploymentKind::Deploy && work_tree::is_at(&desk.order.root) {
        compare_with_commit(desk)?;
    }
    let what = d.revision.clone().map(|r| format!(" of {r}")).unwrap_or_default();
    let locked = lock_again(desk, &format!("{} {}{what}: {}", d.kind, d.id, d.reason))?;
    let told = match &locked {
        Some((generation, changed)) => format!("locked, generation {generation}, {changed} paths differ"),
        None => "done".to_owned(),
    };
    desk.end(Phase::Relock, None, since, Ok(&told))?;
    let newest = desk.order.ward.house.index().environment_state(&desk.order.ward.name);
    let release = newest.ok().and_then(|state| state.backups.newest).map(|newest| newest.id);
    if let (Some(release), true) = (&release, locked.is_some()) {
        keep(desk, release)?;
    }
    let verified =
        if desk.deploy.health.is_empty() { "not verified: no probe is configured" } else { "verified" };
    let images = looks::images(desk)?;
    looks::unpin_images(desk)?;
    Ok(Ending {
        images,
        revision_after,
        changed: locked.map_or(0, |(_, changed)| changed),
        // Without a lock nothing stored the release.
        release: locked.and(release),
        ..Ending::of(DeploymentEnd::Done, verified)
    })
}

/// What the steps wrote has to outlive a power cut before the ledger says that it is good.
fn to_disk(desk: &Desk) -> Result<(), Fault> {
    let root = desk.ask(Command::Backups)?.root?;
    root.to_disk().map_err(|e| failed(format!("what the steps wrote may not be on the disk: {}", chain(&e))))
}

/// Locks what was locked; gives its generation and how many paths changed. `None` where nothing is to be locked.
pub(super) fn lock_again(desk: &mut Desk, reason: &str) -> Result<Option<(u64, u64)>, Fault> {
    let state = desk.order.ward.house.index().environment_state(&desk.order.ward.name);
    let is_locked = state.is_ok_and(|state| Ward::is_locked(&state));
    let d = &desk.order.deployment;
    // Before the first step only what the deployment itself unlocked is its business.
    let is_wanted = if d.has_acted() { d.relock } else { d.locked };
    if is_locked || !is_wanted {
        return Ok(None);
    }
    let order = |reply| LockOrder {
        by: desk.order.deployment.by.clone(),
        reason: reason.to_owned(),
        // A log file that is open, or a full disk, must not leave it open to everybody.
        options: LockOptions {
            on_writers: OnOpenWriters::Warn,
            on_no_backup: OnNoBackup::GoOn,
            ..LockOptions::default()
        },
        how: WindowEnd::Deployment,
        work: Work::shared(),
        reply,
    };
    let locked = desk.ask(|reply| Command::Lock(order(reply)))?;
    Ok(Some((locked.generation, locked.changed.unwrap_or(0))))
}

/// The commit that the root's git work tree is at, where it is one or in one.
pub(super) fn revision(desk: &mut Desk) -> Option<String> {
    if !work_tree::is_in(&desk.order.root) {
        return None;
    }
    let head = desk.ask_git(|tree| tree.head());
    head.inspect_err(|why| desk.log.says(&format!("at which commit it is could not be told: {why}"))).ok()
}

/// What stands in the tree and is not from the commit is said.
fn compare_with_commit(desk: &mut Desk) -> Result<(), Fault> {
    let since = Instant::now();
    let outcome = match desk.ask_git(|tree| tree.differing(&desk.order.config.policy)) {
        Ok(differing) if differing.paths.is_empty() => Ok("the tree is that of the commit".to_owned()),
        Ok(differing) => Err(format!("not from the commit: {}", differing.named(NAMED))),
        Err(why) => Err(format!("whether all of it is from the commit could not be told: {why}")),
    };
    let told = outcome.as_ref().map(String::as_str).map_err(String::as_str);
    desk.end(Phase::Relock, Some("commit"), since, told)
}
