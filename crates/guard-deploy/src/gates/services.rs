//! Services of the compose project: running, healthy, not restarting, and of the configured image.

use std::io;
use std::time::Duration;

use guard_model::deploy::{Compose, Verdict};

use super::{Tell, gate};
use crate::bounded::Context;
use crate::compose::{self, Container, Service};

/// Who was restarted and has run for less than this may be about to be restarted again.
const CALM: Duration = Duration::from_secs(600);

/// Tells each service; gives back the containers of the project.
pub(super) fn all(context: &Context, compose: &Compose, tell: &mut Tell<'_>) -> io::Result<Vec<Container>> {
    let by_hand = |service: &str| compose::by_hand(compose, &format!("ps --all {service}"));
    let project = match compose::project(context, compose) {
        Ok(project) => project,
        Err(why) => {
            tell(gate("service", "", Verdict::Unknown, why, by_hand("").trim_end().to_owned()))?;
            return Ok(Vec::new());
        }
    };
    let found = match compose::containers(context, &project) {
        Ok(found) => found,
        Err(why) => {
            for name in project.services.keys() {
                tell(gate("service", name, Verdict::Unknown, why.clone(), by_hand(name)))?;
            }
            return Ok(Vec::new());
        }
    };
    for (name, service) in &project.services {
        let own: Vec<&Container> = found.iter().filter(|c| c.service == *name).collect();
        let (verdict, evidence) = one(context, service, &own);
        tell(gate("service", name, verdict, evidence, by_hand(name)))?;
    }
    Ok(found)
}

fn one(context: &Context, service: &Service, own: &[&Container]) -> (Verdict, String) {
    if own.is_empty() {
        return (Verdict::Fail, "it has no container".to_owned());
    }
    let mut wrong: Vec<String> = Vec::new();
    let mut restarts = 0;
    for c in own {
        wrong.extend(compose::faults(c, service.is_one_shot));
        restarts += c.restarts;
        let age = compose::since(&c.started_at);
        if let Some(age) = age.filter(|a| c.restarts > 0 && c.is_running() && *a < CALM) {
            wrong.push(format!(
                "{} was restarted {} times, last {} seconds ago",
                c.name,
                c.restarts,
                age.as_secs()
            ));
        }
        if c.is_running() {
            wrong.extend(compose::stale(context, c));
        }
    }
    if !wrong.is_empty() {
        return (Verdict::Fail, wrong.join("; "));
    }
    let wanted = match compose::resolve(context, &service.image) {
        Ok(id) => id,
        Err(why) => {
            return (Verdict::Unknown, format!("which image {} is cannot be told: {why}", service.image));
        }
    };
    if let Some(c) = own.iter().find(|c| c.image_id != wanted) {
        let is_another = if c.image == service.image { "is another image now" } else { "is configured" };
        return (
            Verdict::Fail,
            format!(
                "{} runs {} ({}), and {} {is_another}",
                c.name,
                c.image,
                short(&c.image_id),
                service.image
            ),
        );
    }
    let state = match own.first() {
        Some(c) if !c.is_running() => "ended well, as it is meant to".to_owned(),
        Some(c) if c.health.is_some() => "running and healthy".to_owned(),
        _ => "running, without a health check".to_owned(),
    };
    let restarted =
        if restarts > 0 { format!(", restarted {restarts} times long ago") } else { String::new() };
    (Verdict::Pass, format!("{state}{restarted}; {} ({})", service.image, short(&wanted)))
}

fn short(id: &str) -> &str {
    let hex = id.strip_prefix("sha256:").unwrap_or(id);
    hex.get(..12).unwrap_or(hex)
}
