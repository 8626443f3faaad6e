//! Back: steps undone, files as they were, the old release up again and verified.

use std::time::Instant;

use guard_model::deploy::{DeploymentEnd, DeploymentKind, Image, Phase, Step, Undo};
use guard_model::deployments::Deployment;
use guard_model::{BackupId, RelPath};

use super::desk::{Desk, Fault, Gone, failed};
use super::flow::{self, Ending};
use super::keep::keep;
use super::{looks, preflight, release};
use crate::operations::Work;
use crate::warden::{Command, RestoreWish};
use crate::work_tree;

/// Rolls back a deployment that failed because of `cause`.
pub(super) fn after(desk: &mut Desk, cause: &str) -> Result<Ending, Gone> {
    desk.go_back();
    let d = desk.order.deployment.clone();
    let begun = begun_steps(desk, &d);
    let ended = match d.backup.clone() {
        Some(backup) => back_to(desk, &backup, &begun),
        None => Err(failed("there is no backup of what stood before")),
    };
    match ended {
        Ok(()) => Ok(Ending { end: DeploymentEnd::RolledBack, ..ending(desk, cause) }),
        Err(fault) => {
            let why = format!("{cause}; and the rollback failed: {}", fault.why()?);
            Ok(Ending::of(DeploymentEnd::NeedsOperator, why))
        }
    }
}

/// A rollback that somebody asked for.
pub(super) fn wished(desk: &mut Desk) -> Result<Ending, Gone> {
    match wish(desk) {
        Ok(()) => flow::finish(desk),
        Err(fault) => Ok(Ending::of(DeploymentEnd::NeedsOperator, fault.why()?)),
    }
}

fn wish(desk: &mut Desk) -> Result<(), Fault> {
    desk.go_back();
    preflight::open_window(desk)?;
    let d = desk.order.deployment.clone();
    let to = d.to.clone().ok_or_else(|| failed("it is not known what to go back to"))?;
    let images = images_of(desk, &to);
    if d.backup.is_none() {
        desk.secured(to.clone(), None, images.clone())?;
        keep_what_goes(desk, &to)?;
    }
    // Everything since then is undone, the newest first.
    let since: Vec<Deployment> = undone_by(desk, &to);
    let begun: Vec<Step> = since.iter().rev().flat_map(|d| begun_steps(desk, d)).collect();
    go_back(desk, &to, &images, &begun)?;
    release::verify(desk, Phase::VerifyRollBack)
}

/// What it goes back to stays, and so do the images of the release that goes: somebody may want it back. A rollback goes
/// on without.
fn keep_what_goes(desk: &mut Desk, to: &BackupId) -> Result<(), Gone> {
    for outcome in [keep(desk, to), looks::pin_images(desk).map(drop)] {
        if let Err(fault) = outcome {
            desk.log.says(&format!("goes on, though not all of it is kept: {}", fault.why()?));
        }
    }
    Ok(())
}

/// The images that ran when this backup was made.
fn images_of(desk: &Desk, to: &BackupId) -> Vec<Image> {
    let past = &desk.order.state.deployments.past;
    let before = past.iter().find(|d| d.backup.as_ref() == Some(to)).map(|d| d.images_before.clone());
    let left = || {
        let ended = past.iter().filter_map(|d| d.ended.as_ref());
        ended.filter(|e| e.release.as_ref() == Some(to)).map(|e| e.images.clone()).next_back()
    };
    before.or_else(left).unwrap_or_default()
}

/// The deployments that a rollback to this backup takes back, oldest first.
fn undone_by(desk: &Desk, to: &BackupId) -> Vec<Deployment> {
    let past = &desk.order.state.deployments.past;
    let is_later = |d: &&Deployment| {
        d.kind == DeploymentKind::Deploy
            && d.backup.as_ref().is_some_and(|b| b.sequence() >= to.sequence())
            && d.ended.as_ref().is_some_and(|e| e.end != DeploymentEnd::RolledBack)
    };
    past.iter().filter(is_later).cloned().collect()
}

/// The steps of a deployment that were begun, as they are configured, the last one first.
fn begun_steps(desk: &Desk, d: &Deployment) -> Vec<Step> {
    let configured = |name: &String| desk.deploy.steps.iter().find(|step| step.name == *name).cloned();
    d.begun.iter().rev().filter_map(configured).collect()
}

fn back_to(desk: &mut Desk, backup: &BackupId, begun: &[Step]) -> Result<(), Fault> {
    let images = desk.order.deployment.images_before.clone();
    go_back(desk, backup, &images, begun)?;
    release::verify(desk, Phase::VerifyRollBack)?;
    let d = desk.order.deployment.clone();
    release::lock_again(desk, &format!("{} {} was rolled back", d.kind, d.id))?;
    Ok(())
}

/// Steps undone, files put back, the rollback's own steps run. Goes on to the end whatever fails, and then says so.
fn go_back(desk: &mut Desk, backup: &BackupId, images: &[Image], begun: &[Step]) -> Result<(), Fault> {
    let mut troubles: Vec<String> = Vec::new();
    let mut note = |outcome: Result<(), Fault>| -> Result<(), Gone> {
        if let Err(fault) = outcome {
            troubles.push(fault.why()?);
        }
        Ok(())
    };
    note(desk.begin(Phase::RollBack, None).map(drop))?;
    // With the new release's own files, which know how.
    for step in begun {
        match (step.undo, &step.undo_run) {
            (Undo::Reversible, Some(line)) => note(release::run_step(desk, Phase::RollBackStep, step, line))?,
            (Undo::Irreversible, _) => desk.log.says(&format!("step {} cannot be undone", step.name)),
            _ => {}
        }
    }
    note(put_back(desk, backup))?;
    note(looks::repin_images(desk, images))?;
    for step in desk.deploy.rollback.clone() {
        note(release::run_step(desk, Phase::RollBackStep, &step, &step.run))?;
    }
    match troubles.is_empty() {
        true => Ok(()),
        false => Err(failed(troubles.join("; "))),
    }
}

/// Every protected path exactly as the backup has it: what was added goes to quarantine.
fn put_back(desk: &mut Desk, backup: &BackupId) -> Result<(), Fault> {
    let since = Instant::now();
    let outcome = restore(desk, backup);
    // HEAD is back, and git's index still that of the release: it would show all of it as staged.
    if outcome.is_ok()
        && work_tree::is_in(&desk.order.root)
        && let Err(why) = desk.ask_git(|tree| tree.reset_index())
    {
        desk.log.says(&format!("git's index is not that of the commit: {why}"));
    }
    desk.conclude(Phase::RollBack, Some("files"), since, outcome)
}

fn restore(desk: &Desk, backup: &BackupId) -> Result<String, Fault> {
    let (by, from, work) = (desk.order.deployment.by.clone(), Some(backup.to_string()), Work::shared());
    let done = desk.ask(|reply| {
        let paths = vec![RelPath::root()];
        Command::Restore(RestoreWish { paths, from, exactly: true, plan: false, by, work, reply })
    })?;
    match done.skipped.first() {
        None => Ok(format!("{} paths put back from {backup}", done.steps_total)),
        Some(first) => {
            let more = done.skipped.len() - 1;
            Err(failed(format!("not put back: {} ({}) and {more} more", first.path, first.why)))
        }
    }
}

fn ending(desk: &mut Desk, cause: &str) -> Ending {
    let revision_after = release::revision(desk);
    Ending { revision_after, ..Ending::of(DeploymentEnd::RolledBack, cause) }
}
