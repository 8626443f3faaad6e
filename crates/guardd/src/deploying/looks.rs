//! Looking at the application: by a child as the configured user, whose every line is read as hostile.

use std::time::Duration;

use guard_deploy::worker::{Line, Look, Tag};
use guard_model::deploy::{Compose, Image, Phase, Probe};

use super::desk::{Desk, Fault, failed};
use crate::operations::millis;

/// Between two rounds of probes.
const ROUND: Duration = Duration::from_secs(1);
/// Beyond a look's own deadline the child is ended.
const SLACK: Duration = Duration::from_secs(30);
/// What asks or tags all images of a project takes no longer.
const IMAGES: Duration = Duration::from_secs(120);

/// Is everything well, without a break, for `stable_for`? Says what was seen. Of a rollback, what failed before the
/// deployment already is told and not asked for.
pub(super) fn verified(desk: &mut Desk, phase: Phase) -> Result<String, Fault> {
    let failed_before = desk.order.deployment.failed_before.clone();
    let (probes, proves_nothing): (Vec<Probe>, Vec<Probe>) =
        desk.deploy.health.iter().cloned().partition(|probe| {
            phase != Phase::VerifyRollBack
                || !failed_before.iter().any(|name| name.ends_with(&probe.to_string()))
        });
    for probe in &proves_nothing {
        desk.log.says(&format!("{probe} failed before the deployment, too: what it says proves nothing"));
    }
    // Services that were not well before are not expected to be well after going back.
    let is_ill = |name: &String| name.starts_with("service ") || name.ends_with(&Probe::Compose.to_string());
    let was_ill = phase == Phase::VerifyRollBack && failed_before.iter().any(is_ill);
    let compose = compose(desk).filter(|_| !was_ill);
    if probes.is_empty() && compose.is_none() {
        return Ok("not verified: there is no probe to ask".to_owned());
    }
    let look = Look::Verify {
        probes,
        compose,
        stable_ms: millis(desk.deploy.stable_for),
        deadline_ms: millis(desk.deploy.deadline),
        interval_ms: millis(ROUND),
    };
    let mut verdict = None;
    // A probe is told when it says something else than before.
    let mut last: Vec<(String, bool, String)> = Vec::new();
    let deadline = desk.deploy.deadline + SLACK;
    // Told as it comes: whoever follows wants to see what it waits for.
    let mut log = std::mem::take(&mut desk.log);
    let looked = desk.look("verify", look, deadline, &mut |line| match line {
        Line::Probed { probe, ok, evidence, .. } => {
            let is_news = last.iter().all(|(p, o, e)| *p != probe || *o != ok || (!ok && *e != evidence));
            if is_news {
                last.retain(|(p, ..)| *p != probe);
                let how = if ok { "well" } else { "not well" };
                log.says(&format!("{probe}: {how}: {evidence}"));
                last.push((probe, ok, evidence));
            }
        }
        Line::Verified { well, why, .. } => verdict = Some((well, why)),
        Line::Failed { what, why } => log.says(&format!("cannot {what}: {why}")),
        _ => {}
    });
    desk.log = log;
    looked?;
    match verdict {
        Some((true, why)) => Ok(why),
        Some((false, why)) => Err(failed(why)),
        None => Err(failed("whether the application is well could not be told")),
    }
}

/// Keeps the images that run from being pruned; which they are. None where there is no compose project.
pub(super) fn pin_images(desk: &mut Desk) -> Result<Vec<Image>, Fault> {
    let Some(compose) = compose(desk) else { return Ok(Vec::new()) };
    let prefix = format!("{}:{}-", repository(desk), desk.id());
    let (mut images, mut troubles) = (Vec::new(), Vec::new());
    desk.look("pin", Look::Pin { compose, prefix }, IMAGES, &mut |line| match line {
        Line::Image { service, image, id, .. } => images.push(Image { service, image, id }),
        Line::Failed { what, why } => troubles.push(format!("cannot {what}: {why}")),
        _ => {}
    })?;
    match troubles.into_iter().next() {
        None => Ok(images),
        Some(first) => Err(failed(first)),
    }
}

/// Gives the configured references back to the images that ran before.
pub(super) fn repin_images(desk: &mut Desk, images: &[Image]) -> Result<(), Fault> {
    if images.is_empty() {
        return Ok(());
    }
    let tags = images.iter().map(|i| Tag { image: i.image.clone(), id: i.id.clone() }).collect();
    let mut troubles = Vec::new();
    desk.look("repin", Look::Repin { tags }, IMAGES, &mut |line| {
        if let Line::Failed { what, why } = line {
            troubles.push(format!("cannot {what}: {why}"));
        }
    })?;
    troubles.into_iter().next().map_or(Ok(()), |first| Err(failed(first)))
}

/// The images that run now. What cannot be told is left out: it decides nothing.
pub(super) fn images(desk: &mut Desk) -> Result<Vec<Image>, Fault> {
    let Some(compose) = compose(desk) else { return Ok(Vec::new()) };
    let mut images = Vec::new();
    let looked = desk.look("images", Look::Images { compose }, IMAGES, &mut |line| {
        if let Line::Image { service, image, id, .. } = line {
            images.push(Image { service, image, id });
        }
    });
    if let Err(fault) = looked {
        fault.why()?;
    }
    Ok(images)
}

/// Frees the images of releases that nobody goes back to.
pub(super) fn unpin_images(desk: &mut Desk) -> Result<(), Fault> {
    if compose(desk).is_none() {
        return Ok(());
    }
    let keep = super::keep::kept(desk)?.iter().map(|id| format!("{id}-")).collect();
    let look = Look::Unpin { repository: repository(desk), keep };
    if let Err(fault) = desk.look("unpin", look, IMAGES, &mut |_| {}) {
        // They take space, and the next deployment tries again.
        fault.why()?;
    }
    Ok(())
}

fn repository(desk: &Desk) -> String {
    format!("guardd-keep/{}", desk.order.ward.name)
}

/// The project, where the environment has one.
fn compose(desk: &Desk) -> Option<Compose> {
    let asks = desk.deploy.health.contains(&Probe::Compose);
    desk.order.config.compose.clone().or_else(|| asks.then(Compose::default))
}
