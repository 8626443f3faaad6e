//! Methods about deployments. A deployment runs by itself; whoever follows it reads its log and the ledger, and may come
//! and go.

use std::time::Duration;

use guard_api::method::{
    AttachDeployment, Cancel, CancelReply, Deploy, DeploymentStep, ListDeployments, ListDeploymentsReply,
    Rollback, ShowDeployment, ShowDeploymentReply,
};
use guard_api::wire::{DeploymentLine, DeploymentResult, Finding};
use guard_api::{Known, Time};
use guard_model::deploy::{DeploymentKind, Force, Revision};
use guard_model::deployments::Deployment;
use guard_model::ledger::Event;
use guard_model::path::escape;
use guard_store::{Index, RecordFilter, StoreError};
use guard_sys::peer::Peer;

use super::connection::Out;
use super::methods::{Daemon, Ended, caller};
use super::reading::failed;
use crate::deploying::log::{Line, Reader};
use crate::warden::{Command, DeploymentWish, WardenHandle};
use crate::wire as cross;

/// How often a deployment is looked at for whoever follows it.
const LOOKED_AT_EVERY: Duration = Duration::from_millis(150);
/// Lines of one reply.
const AT_ONCE: usize = 200;
/// Lines of a log that `ShowDeployment` gives.
const LAST_LINES: usize = 200;
/// Results that `ShowDeployment` gives: of each gate and step one.
const RESULTS: u64 = 10_000;
/// Assumed changes that `ShowDeployment` names.
const ASSUMED: usize = 100;
/// Records of changes that are read at once.
const PAGE: u64 = 1000;
/// Longest reason.
const REASON: usize = 1000;

pub(super) async fn deploy(daemon: &Daemon, peer: &Peer, asked: Deploy, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let invalid = |parameter: &str| Known::InvalidParameter { parameter: parameter.to_owned() };
    let revision = asked.revision.as_deref().map(str::parse::<Revision>).transpose();
    let revision = revision.map_err(|_| invalid("revision"))?;
    let force = asked.force.iter().map(|f| f.parse::<Force>()).collect::<Result<Vec<_>, _>>();
    let mut force = force.map_err(|_| invalid("force"))?;
    force.sort_unstable();
    force.dedup();
    let reason = reason_of(asked.reason.as_deref())?;
    if !force.is_empty() && reason.is_empty() {
        return Err(Known::ReasonRequired {}.into());
    }
    let by = caller(peer).to_string();
    if asked.plan == Some(true) {
        let plan = warden.ask(|reply| Command::PlanDeployment { revision, force, reply }).await?;
        let reply = DeploymentStep { plan: Some(plan), ..DeploymentStep::default() };
        return Ok(out.last(&reply).await?);
    }
    let kind = DeploymentKind::Deploy;
    let begun = warden
        .ask(|reply| Command::Deploy(DeploymentWish { kind, by, reason, revision, force, to: None, reply }))
        .await?;
    follow(daemon, &warden, begun.id, out).await
}

pub(super) async fn rollback(
    daemon: &Daemon,
    peer: &Peer,
    asked: Rollback,
    out: &mut Out,
) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let (by, reason) = (caller(peer).to_string(), reason_of(asked.reason.as_deref())?);
    let wish = |reply| DeploymentWish {
        kind: DeploymentKind::Rollback,
        by,
        reason,
        revision: None,
        force: Vec::new(),
        to: asked.to,
        reply,
    };
    let begun = warden.ask(|reply| Command::Deploy(wish(reply))).await?;
    follow(daemon, &warden, begun.id, out).await
}

fn reason_of(text: Option<&str>) -> Result<String, Known> {
    let text = text.unwrap_or_default().trim();
    if text.len() > REASON {
        return Err(Known::InvalidParameter { parameter: "reason".to_owned() });
    }
    Ok(escape(text.as_bytes()))
}

pub(super) async fn attach(daemon: &Daemon, asked: &AttachDeployment, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let all = daemon.house.index().environment_state(&warden.name).map_err(failed)?.deployments;
    let running = all.running.ok_or_else(|| Known::Refused {
        message: format!("no deployment of {} runs", warden.name),
        hint: Some("`guardctl deployments` lists those that ran".to_owned()),
        anyway: false,
    })?;
    follow(daemon, &warden, running.id, out).await
}

pub(super) async fn cancel(daemon: &Daemon, asked: &Cancel, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let id = warden.ask(Command::CancelDeployment).await?;
    Ok(out.last(&CancelReply { id }).await?)
}

/// Tells what a deployment says until it has ended. It goes on when the caller hangs up.
async fn follow(daemon: &Daemon, warden: &WardenHandle, id: u64, out: &mut Out) -> Result<(), Ended> {
    let name = &warden.name;
    let mut reader = Reader::new(&daemon.house.state_dir, name, id).map_err(unreadable)?;
    let of = |deployment: &Deployment| DeploymentStep {
        deployment: Some(cross::deployment(name, deployment)),
        ..DeploymentStep::default()
    };
    let first = known(daemon, name, id)?;
    if out.takes_more() {
        out.more(&of(&first)).await?;
    }
    let mut tick = tokio::time::interval(LOOKED_AT_EVERY);
    loop {
        // Asked before the log is read: what it said last is read after it ended.
        let now = known(daemon, name, id)?;
        while out.takes_more() {
            let lines = tokio::task::block_in_place(|| reader.more(AT_ONCE)).map_err(unreadable)?;
            if lines.is_empty() {
                break;
            }
            let lines = lines.into_iter().map(line).collect();
            out.more(&DeploymentStep { lines, ..DeploymentStep::default() }).await?;
        }
        if now.ended.is_some() {
            return Ok(out.last(&of(&now)).await?);
        }
        tokio::select! {
            _ = tick.tick() => {}
            () = out.gone() => return Err(super::connection::HungUp.into()),
        }
    }
}

fn known(daemon: &Daemon, environment: &str, id: u64) -> Result<Deployment, Known> {
    let state = daemon.house.index().environment_state(environment).map_err(failed)?;
    state.deployments.get(id).cloned().ok_or_else(|| no_such(environment, id))
}

fn no_such(environment: &str, id: u64) -> Known {
    Known::Refused {
        message: format!("{environment} has no deployment {id}, or it was long ago"),
        hint: Some("`guardctl deployments` lists them; `guardctl log` has all there ever were".to_owned()),
        anyway: false,
    }
}

fn unreadable(e: std::io::Error) -> Known {
    Known::Failed { message: format!("the deployment's log cannot be read: {e}"), hint: None }
}

pub(super) async fn list(daemon: &Daemon, asked: &ListDeployments, out: &mut Out) -> Result<(), Ended> {
    let named = daemon.known_environment(asked.environment.as_deref())?;
    let mut deployments = Vec::new();
    for name in named.map_or_else(|| daemon.names(), |n| vec![n]) {
        let all = daemon.house.index().environment_state(&name).map_err(failed)?.deployments;
        deployments.extend(all.past.iter().chain(&all.running).map(|d| cross::deployment(&name, d)));
    }
    deployments.sort_by_key(|d| d.id);
    Ok(out.last(&ListDeploymentsReply { deployments }).await?)
}

pub(super) async fn show(daemon: &Daemon, asked: &ShowDeployment, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let all = daemon.house.index().environment_state(&warden.name).map_err(failed)?.deployments;
    let deployment = all.get(asked.id).cloned().ok_or_else(|| no_such(&warden.name, asked.id))?;
    // One at a time: what lies between its beginning and that of the next is its own.
    let next = all.past.iter().chain(&all.running).map(|d| d.id).find(|id| *id > asked.id);
    let filter = |event: &str| RecordFilter {
        environment: Some(warden.name.clone()),
        events: vec![event.to_owned()],
        after: Some(asked.id),
        before: next,
        ..RecordFilter::default()
    };
    let index = daemon.house.index();
    let read = || index.recent(RESULTS, &filter("deployment_result"));
    let mut records = tokio::task::block_in_place(read).map_err(failed)?;
    records.reverse();
    let read = || assumed(index, filter("window_change"), asked.id);
    let (assumed, assumed_total) = tokio::task::block_in_place(read).map_err(failed)?;
    let results = records.iter().filter_map(|record| match &record.event {
        Event::DeploymentResult { deployment, phase, step, ok, told, duration_ms }
            if *deployment == asked.id =>
        {
            Some(DeploymentResult {
                at: Time(record.at.0),
                phase: phase.to_string(),
                step: step.clone(),
                ok: *ok,
                told: told.clone(),
                duration_ms: *duration_ms,
            })
        }
        _ => None,
    });
    let results = results.collect();
    let read = || -> std::io::Result<Vec<Line>> {
        let mut reader = Reader::new(&daemon.house.state_dir, &warden.name, asked.id)?;
        let mut last = Vec::new();
        loop {
            let more = reader.more(AT_ONCE)?;
            if more.is_empty() {
                return Ok(last);
            }
            last.extend(more);
            let too_many = last.len().saturating_sub(LAST_LINES);
            last.drain(..too_many);
        }
    };
    let lines = tokio::task::block_in_place(read).map_err(unreadable)?.into_iter().map(line).collect();
    let deployment = cross::deployment(&warden.name, &deployment);
    Ok(out.last(&ShowDeploymentReply { deployment, results, lines, assumed, assumed_total }).await?)
}

/// The first changes that are assumed to be a deployment's, and how many there are.
fn assumed(index: &Index, mut filter: RecordFilter, id: u64) -> Result<(Vec<Finding>, u64), StoreError> {
    let (mut first, mut total) = (Vec::new(), 0);
    loop {
        let page = index.recent(PAGE, &filter)?;
        let Some(oldest) = page.last() else { break };
        filter.before = Some(oldest.seq);
        for record in page {
            let Event::WindowChange { deployment: Some(explained), mut findings, .. } = record.event else {
                continue;
            };
            if explained.deployment == id && explained.assumed {
                total += findings.len() as u64;
                findings.append(&mut first);
                findings.truncate(ASSUMED);
                first = findings;
            }
        }
    }
    Ok((first.iter().filter_map(cross::finding).collect(), total))
}

fn line(line: Line) -> DeploymentLine {
    DeploymentLine {
        at: Time(line.at.0),
        phase: line.phase.map(|p| p.to_string()),
        step: line.step,
        source: line.source.word().to_owned(),
        text: line.text,
    }
}
