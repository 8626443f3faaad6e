//! Methods that read what is recorded, without asking a warden.

use std::process::Stdio;
use std::time::Duration;

use guard_api::method::{
    ListAlerts, ListAlertsReply, ListBaselines, ListBaselinesReply, Reads, ReadsReply, ShowAlert,
    ShowAlertReply, Step, Who, WhoReply,
};
use guard_api::wire::{self, PathEvent};
use guard_api::{Known, Time};
use guard_model::Alert;
use guard_model::ledger::{Event, Explained, Record};
use guard_model::path::escape;
use guard_store::{Baseline, StoreError};

use super::connection::Out;
use super::methods::{Daemon, Ended, path_of};
use crate::failure::chain;
use crate::warden::Command;
use crate::wire as cross;

/// Findings of one alert in a list; `ShowAlert` has them all.
const IN_LIST: usize = 20;
/// Findings of one alert by itself: what fits a reply.
const IN_ONE: usize = 5_000;
/// Records of one path's history.
const HISTORY: u64 = 1_000;

pub(super) fn failed(e: StoreError) -> Known {
    Known::Failed { message: chain(&e), hint: None }
}

/// An alert, whole.
pub(super) fn alert(daemon: &Daemon, id: u64) -> Result<Alert, Known> {
    let found = tokio::task::block_in_place(|| daemon.house.index().alert(id)).map_err(failed)?;
    found.ok_or(Known::UnknownAlert { id })
}

pub(super) async fn list_alerts(daemon: &Daemon, asked: ListAlerts, out: &mut Out) -> Result<(), Ended> {
    use guard_store::index::AlertScope;
    let environment = asked.environment.as_deref();
    daemon.known_environment(environment)?;
    let scope = if asked.all.unwrap_or(false) { AlertScope::All } else { AlertScope::Open };
    let read = || daemon.house.index().alerts(environment, scope);
    let alerts = tokio::task::block_in_place(read).map_err(failed)?;
    let alerts = alerts.iter().filter_map(|a| cross::alert(a, IN_LIST)).collect();
    Ok(out.last(&ListAlertsReply { alerts }).await?)
}

pub(super) async fn show_alert(daemon: &Daemon, asked: &ShowAlert, out: &mut Out) -> Result<(), Ended> {
    let found = alert(daemon, asked.id)?;
    let journal = journal_before(&found).await;
    let alert = cross::alert(&found, IN_ONE).ok_or(Known::UnknownAlert { id: asked.id })?;
    Ok(out.last(&ShowAlertReply { alert, journal }).await?)
}

/// Lines of sudo, su and ssh from half an hour before an alert to a minute after.
async fn journal_before(alert: &Alert) -> Vec<String> {
    const LINES: usize = 50;
    let at = alert.opened_at.0.div_euclid(1_000_000);
    let mut command = tokio::process::Command::new("journalctl");
    command
        .env_clear()
        .args(["--no-pager", "--quiet", "--utc", "--output=short-iso", "--lines=50"])
        .args([format!("--since=@{}", at - 1800), format!("--until=@{}", at + 60)])
        .args(["_COMM=sudo", "_COMM=su", "_COMM=sshd", "_COMM=sshd-session"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    if std::path::Path::new("/usr/bin/journalctl").exists() {
        command.env("PATH", "/usr/bin:/bin");
    } else {
        return Vec::new();
    }
    // Evidence that cannot be had in time is no reason to hold an alert back.
    match tokio::time::timeout(Duration::from_secs(3), command.output()).await {
        Ok(Ok(done)) => {
            done.stdout.split(|b| *b == b'\n').filter(|l| !l.is_empty()).take(LINES).map(escape).collect()
        }
        _ => Vec::new(),
    }
}

pub(super) async fn list_baselines(
    daemon: &Daemon,
    asked: &ListBaselines,
    out: &mut Out,
) -> Result<(), Ended> {
    let named = daemon.known_environment(asked.environment.as_deref())?;
    let names = named.map_or_else(|| daemon.names(), |n| vec![n]);
    let read = || -> Result<Vec<wire::Baseline>, StoreError> {
        let mut all = Vec::new();
        for name in &names {
            let state = daemon.house.index().environment_state(name)?;
            let current = state.baseline.map(|b| b.generation);
            for generation in guard_store::baseline::generations(&daemon.house.state_dir, name)? {
                let dir = daemon.house.state_dir.generation(name, generation)?;
                let baseline = Baseline::open_signed(&dir, &daemon.house.public)?;
                let (manifest, digest) = (baseline.manifest().clone(), baseline.digest());
                all.push(wire::Baseline {
                    environment: name.clone(),
                    generation: manifest.generation,
                    created_at: Time(manifest.created_at.0),
                    by: manifest.by,
                    reason: manifest.reason,
                    digest: digest.to_string(),
                    protected: cross::totals(&manifest.totals),
                    current: current == Some(manifest.generation),
                });
            }
        }
        Ok(all)
    };
    let baselines = tokio::task::block_in_place(read).map_err(failed)?;
    Ok(out.last(&ListBaselinesReply { baselines }).await?)
}

pub(super) async fn who(daemon: &Daemon, asked: Who, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    // Paths outside the root, such as the lock file, are absolute.
    let path = if asked.path.starts_with('/') {
        asked.path.clone()
    } else {
        path_of(&asked.path, "path")?.to_string()
    };
    let read = || daemon.house.index().path_history(&warden.name, &path, HISTORY);
    let mut records = tokio::task::block_in_place(read).map_err(failed)?;
    records.reverse();
    let expected = match path_of(&path, "path") {
        Ok(relative) => warden.ask(|reply| Command::Expected { path: relative, reply }).await?,
        Err(_) => None,
    };
    let reply = WhoReply {
        environment: warden.name.clone(),
        expected: expected.as_ref().and_then(cross::entry),
        history: records.iter().flat_map(|r| path_events(r, &path)).collect(),
        path,
    };
    Ok(out.last(&reply).await?)
}

pub(super) async fn reads(daemon: &Daemon, asked: Reads, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let path = asked.path.as_deref().map(|path| path_of(path, "path")).transpose()?.map(|p| p.to_string());
    let read = || daemon.house.index().reads(&warden.name, path.as_deref(), HISTORY);
    let records = tokio::task::block_in_place(read).map_err(failed)?;
    let mut reply =
        ReadsReply { environment: warden.name.clone(), path, reads: Vec::new(), missed: Vec::new() };
    for record in records.iter().rev() {
        let Event::Accessed { readings, missed } = &record.event else { continue };
        let wanted = readings.iter().filter(|r| reply.path.as_ref().is_none_or(|path| *path == r.path));
        reply.reads.extend(wanted.filter_map(cross::reading));
        reply.missed.extend(missed.clone());
    }
    Ok(out.last(&reply).await?)
}

fn explained(record: &Record) -> Option<Explained> {
    match &record.event {
        Event::WindowChange { deployment, .. } => *deployment,
        _ => None,
    }
}

fn path_events(record: &Record, path: &str) -> Vec<PathEvent> {
    let event_name = serde_json::to_value(&record.event)
        .ok()
        .and_then(|v| v.get("event").and_then(|e| e.as_str().map(str::to_owned)))
        .unwrap_or_default();
    let bare = |finding, by: Option<String>, reason: Option<String>| PathEvent {
        seq: record.seq,
        at: Time(record.at.0),
        event: event_name.clone(),
        alert: guard_model::state::alert_of(record),
        window: match &record.event {
            Event::WindowChange { window, .. } => Some(*window),
            _ => None,
        },
        deployment: explained(record).map(|by| by.deployment),
        assumed: explained(record).map(|by| by.assumed),
        by,
        reason,
        finding,
    };
    match &record.event {
        Event::AlertOpened { findings, .. }
        | Event::AlertGrew { findings, .. }
        | Event::WindowChange { findings, .. } => {
            findings.iter().filter(|f| f.path == path).map(|f| bare(cross::finding(f), None, None)).collect()
        }
        Event::AlertSettled { how, .. } => vec![bare(None, None, Some(how.clone()))],
        Event::Accepted { by, reason, .. } => vec![bare(None, Some(by.clone()), Some(reason.clone()))],
        _ => vec![bare(None, None, None)],
    }
}

pub(super) async fn verify_log(daemon: &Daemon, out: &mut Out) -> Result<(), Ended> {
    let house = &daemon.house;
    let head = house.ledger.head();
    let verify = || guard_store::verify_files(&house.state_dir.ledger(), &house.key.public(), Some(head));
    let report = tokio::task::block_in_place(verify).map_err(failed)?;
    Ok(out.last(&Step::result(verified(&report))).await?)
}

/// A verification as it goes over the wire.
pub(crate) fn verified(report: &guard_store::VerifyReport) -> wire::VerifyResult {
    let truncated = report.truncated().map(ToString::to_string);
    wire::VerifyResult {
        ok: report.breaks_total == 0,
        records: report.records,
        head: wire::Head { seq: report.head.seq, hash: report.head.hash.to_string() },
        checkpoints: report.checkpoints_good,
        broken: report.first_broken().map(ToString::to_string).filter(|b| truncated.as_ref() != Some(b)),
        truncated,
    }
}
