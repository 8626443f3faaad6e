//! Every method: its right, its parameters, its answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use guard_api::method::{
    Accept, AcknowledgeAlert, AttachDeployment, Cancel, Check, CreateBackup, Deploy, Diff, DrillBackup,
    ExportBackup, ExportBaseline, ExportLog, FindValues, GetInfo, GetInfoReply, GetInterfaceDescription,
    GetInterfaceDescriptionReply, InitBackup, ListAlerts, ListBackups, ListBaselines, ListDeployments, Lock,
    Log, PinBackup, PruneBackups, Reads, Reload, Restore, Rollback, ShowAlert, ShowDeployment, Status,
    StatusReply, Step, Unlock, Validate, VerifyBackup, VerifyLog, Watch, Who,
};
use guard_api::{Call, INTERFACE, INTERFACE_IDL, Known, Method, SERVICE, SERVICE_IDL, wire};
use guard_model::RelPath;
use guard_model::ledger::{self, Event, Outcome, WindowEnd};
use guard_sys::peer::Peer;
use serde_json::Value;
use tokio::sync::Notify;

use super::authorise::{Authority, Right};
use super::connection::{HungUp, Out};
use super::{backups, deployments, reading, streams, validate, values};
use crate::operations::Work;
use crate::operations::backup::OnNoBackup;
use crate::operations::file_diff::Reader;
use crate::operations::lock::{LockOptions, OutsideLinks};
use crate::operations::open_writers::OnOpenWriters;
use crate::ward::House;
use crate::warden::{AcceptWish, Command, LockOrder, RestoreWish, UnlockWish, WardenHandle};

/// What of the configuration the server needs; replaced as a whole by a reload.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) authority: Authority,
    pub(crate) window_max: Duration,
}

/// Reads the configuration again: the reply, or why it is refused.
pub(crate) type Reloader = Box<dyn Fn() -> Result<guard_api::method::ReloadReply, Known> + Send + Sync>;

/// What the daemon says of itself in `status`.
pub(crate) type Describe = Box<dyn Fn() -> wire::Daemon + Send + Sync>;

/// Everything a call may need.
pub(crate) struct Daemon {
    pub(crate) house: Arc<House>,
    pub(crate) rules: RwLock<Rules>,
    pub(crate) wardens: Mutex<BTreeMap<String, WardenHandle>>,
    pub(crate) describe: Describe,
    pub(crate) reload: Reloader,
    /// How much each user may still have compared with sensitive values.
    pub(crate) budgets: values::Budgets,
    /// Told whenever the ledger grew.
    pub(crate) grown: Arc<Notify>,
}

impl Daemon {
    pub(crate) fn authority(&self) -> Authority {
        self.rules().authority
    }

    fn rules(&self) -> Rules {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The socket file was gone: said in the ledger, since somebody did it.
    pub(crate) fn socket_was_lost(&self) {
        tracing::warn!("the control socket's file was removed or replaced; made anew");
        let event = Event::Recovered {
            operation: "control socket".to_owned(),
            how: "its file had been removed or replaced; made anew".to_owned(),
        };
        if let Err(e) = self.house.ledger.append(None, vec![event]) {
            tracing::error!(error = %crate::failure::chain(&e), "the ledger cannot be written");
        }
    }

    pub(super) fn grown(&self) -> Arc<Notify> {
        Arc::clone(&self.grown)
    }

    /// The wardens, by the order of their names.
    pub(crate) fn handles(&self) -> Vec<WardenHandle> {
        self.wardens().into_values().collect()
    }

    /// A reload changed what callers may do.
    pub(crate) fn set_rules(&self, rules: Rules) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = rules;
    }

    /// A reload changed which environments there are.
    pub(crate) fn set_wardens(&self, wardens: BTreeMap<String, WardenHandle>) {
        *self.wardens.lock().unwrap_or_else(PoisonError::into_inner) = wardens;
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.wardens().into_keys().collect()
    }

    fn wardens(&self) -> BTreeMap<String, WardenHandle> {
        self.wardens.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The environment of that name, or the only one.
    pub(crate) fn warden(&self, name: Option<&str>) -> Result<WardenHandle, Known> {
        let all = self.wardens();
        let found = match name {
            Some(name) => all.get(name).cloned(),
            None => all.values().next().filter(|_| all.len() == 1).cloned(),
        };
        found.ok_or_else(|| Known::UnknownEnvironment {
            environment: name.map(str::to_owned),
            known: all.into_keys().collect(),
        })
    }

    /// An optional environment must exist where it is named.
    pub(crate) fn known_environment(&self, name: Option<&str>) -> Result<Option<String>, Known> {
        name.map(|n| self.warden(Some(n)).map(|w| w.name)).transpose()
    }
}

/// The right that a method needs; `None` for one that does not exist.
fn right_of(method: &str) -> Option<Right> {
    Some(match method {
        Lock::NAME => Right::Command("lock"),
        Unlock::NAME => Right::Command("unlock"),
        Accept::NAME => Right::Command("accept"),
        Restore::NAME => Right::Command("restore"),
        AcknowledgeAlert::NAME => Right::Command("ack"),
        Reload::NAME => Right::Command("reload"),
        Deploy::NAME => Right::Command("deploy"),
        Rollback::NAME => Right::Command("rollback"),
        Cancel::NAME => Right::Command("cancel"),
        InitBackup::NAME
        | CreateBackup::NAME
        | VerifyBackup::NAME
        | DrillBackup::NAME
        | PruneBackups::NAME
        | PinBackup::NAME
        | ExportBackup::NAME => Right::Command("backup"),
        ListBackups::NAME => Right::Look("backup"),
        // The digests of every sensitive file are in it. Nobody but the daemon's own user has a right by this name.
        ExportBaseline::NAME => Right::Command("baseline"),
        ListBaselines::NAME => Right::Look("baseline"),
        Status::NAME
        | Check::NAME
        | Diff::NAME
        | Validate::NAME
        | ListAlerts::NAME
        | ShowAlert::NAME
        | Watch::NAME
        | Log::NAME
        | VerifyLog::NAME
        | ExportLog::NAME
        | ListDeployments::NAME
        | ShowDeployment::NAME
        | AttachDeployment::NAME
        | Who::NAME
        | Reads::NAME
        | FindValues::NAME
        | GetInfo::NAME
        | GetInterfaceDescription::NAME => Right::Read,
        _ => return None,
    })
}

/// Answers one call. Mutating and refused ones are in the ledger before the
/// caller hears how they ended.
pub(crate) async fn answer(daemon: &Daemon, peer: &Peer, call: &Call, out: &mut Out) -> Result<(), HungUp> {
    let Some(right) = right_of(&call.method) else {
        let (interface, _) = call.split();
        let known = [INTERFACE, SERVICE].contains(&interface);
        return out
            .error(if known {
                Known::MethodNotFound { method: call.method.clone() }
            } else {
                Known::InterfaceNotFound { interface: interface.to_owned() }
            })
            .await;
    };
    if !daemon.authority().permits(peer, right) {
        note(daemon, peer, &call.method, Outcome::Refused, Some("PermissionDenied".to_owned()));
        return out.error(Known::PermissionDenied {}).await;
    }
    // Whoever makes it: it changes something, or takes something out.
    let recorded = matches!(right, Right::Command(_));
    if recorded {
        out.hold_last();
    }
    let done = dispatch(daemon, peer, call, out).await;
    match done {
        Ok(()) => {
            if recorded {
                note(daemon, peer, &call.method, Outcome::Done, None);
            }
            out.release_last().await
        }
        Err(Ended::HungUp) => Err(HungUp),
        Err(Ended::Refused(known)) => {
            if recorded {
                let outcome = match &known {
                    Known::Failed { .. } | Known::NeedsOperator { .. } => Outcome::Failed,
                    _ => Outcome::Refused,
                };
                note(daemon, peer, &call.method, outcome, Some(in_words(&known)));
            }
            out.error(known).await
        }
    }
}

/// An error as people read it in the ledger and the logs: its name and a sentence.
fn in_words(known: &Known) -> String {
    let named = serde_json::to_value(known).ok();
    let name = named.as_ref().and_then(|v| v.get("error")?.as_str()?.rsplit('.').next()).unwrap_or("error");
    format!("{name}: {}", guard_api::CallError::from(known.clone()))
}

/// How a call ends early.
pub(super) enum Ended {
    HungUp,
    Refused(Known),
}

impl From<HungUp> for Ended {
    fn from(_: HungUp) -> Self {
        Self::HungUp
    }
}

impl From<Known> for Ended {
    fn from(known: Known) -> Self {
        Self::Refused(known)
    }
}

async fn dispatch(daemon: &Daemon, peer: &Peer, call: &Call, out: &mut Out) -> Result<(), Ended> {
    match call.method.as_str() {
        GetInfo::NAME => Ok(out.last(&info()).await?),
        GetInterfaceDescription::NAME => describe(&parameters(call)?, out).await,
        Status::NAME => Ok(out.last(&status(daemon).await).await?),
        Lock::NAME => lock(daemon, peer, parameters(call)?, out).await,
        Unlock::NAME => unlock(daemon, peer, parameters(call)?, out).await,
        Accept::NAME => accept(daemon, peer, parameters(call)?, out).await,
        Restore::NAME => restore(daemon, peer, parameters(call)?, out).await,
        AcknowledgeAlert::NAME => acknowledge(daemon, peer, parameters(call)?, out).await,
        Check::NAME => {
            let asked: Check = parameters(call)?;
            let quick = asked.quick.unwrap_or(false);
            let warden = daemon.warden(asked.environment.as_deref())?;
            let result = check(&warden, quick, RelPath::root(), out).await?;
            Ok(out.last(&Step::result(result)).await?)
        }
        Diff::NAME => {
            let asked: Diff = parameters(call)?;
            let below = path_of(asked.path.as_deref().unwrap_or("."), "path")?;
            let warden = daemon.warden(asked.environment.as_deref())?;
            let reader = if daemon.authority().is_owner(peer) { Reader::Owner } else { Reader::Other };
            let work = Work::shared();
            let own = Arc::clone(&work);
            let wish = warden.ask(|reply| Command::Diff { below, reader, work: own, reply });
            let result = streams::with_progress(wish, &work, OnHangup::Cancel, out).await?;
            Ok(out.last(&Step::result(result)).await?)
        }
        Validate::NAME => validate::validate(daemon, parameters(call)?, out).await,
        Reload::NAME => {
            let reply = tokio::task::block_in_place(|| (daemon.reload)())?;
            Ok(out.last(&reply).await?)
        }
        ListAlerts::NAME => reading::list_alerts(daemon, parameters(call)?, out).await,
        ShowAlert::NAME => reading::show_alert(daemon, &parameters(call)?, out).await,
        ListBaselines::NAME => reading::list_baselines(daemon, &parameters(call)?, out).await,
        InitBackup::NAME => backups::init(daemon, peer, &parameters(call)?, out).await,
        CreateBackup::NAME => backups::create(daemon, peer, parameters(call)?, out).await,
        ListBackups::NAME => backups::list(daemon, &parameters(call)?, out).await,
        VerifyBackup::NAME => backups::verify(daemon, peer, parameters(call)?, out).await,
        DrillBackup::NAME => backups::drill(daemon, peer, parameters(call)?, out).await,
        PruneBackups::NAME => backups::prune(daemon, peer, &parameters(call)?, out).await,
        PinBackup::NAME => backups::pin(daemon, peer, &parameters(call)?, out).await,
        ExportBackup::NAME => backups::export(daemon, &parameters(call)?, out).await,
        Who::NAME => reading::who(daemon, parameters(call)?, out).await,
        Deploy::NAME => deployments::deploy(daemon, peer, parameters(call)?, out).await,
        Rollback::NAME => deployments::rollback(daemon, peer, parameters(call)?, out).await,
        Cancel::NAME => deployments::cancel(daemon, &parameters(call)?, out).await,
        AttachDeployment::NAME => deployments::attach(daemon, &parameters(call)?, out).await,
        ListDeployments::NAME => deployments::list(daemon, &parameters(call)?, out).await,
        ShowDeployment::NAME => deployments::show(daemon, &parameters(call)?, out).await,
        Reads::NAME => reading::reads(daemon, parameters(call)?, out).await,
        FindValues::NAME => values::find(daemon, peer, parameters(call)?, out).await,
        VerifyLog::NAME => reading::verify_log(daemon, out).await,
        Watch::NAME => streams::watch(daemon, &parameters(call)?, out).await,
        Log::NAME => streams::log(daemon, &parameters(call)?, out).await,
        ExportLog::NAME => streams::export_log(daemon, &parameters(call)?, out).await,
        ExportBaseline::NAME => streams::export_baseline(daemon, &parameters(call)?, out).await,
        other => Err(Known::MethodNotImplemented { method: other.to_owned() }.into()),
    }
}

/// The parameters of a call; the error names the one that does not fit.
fn parameters<M: Method>(call: &Call) -> Result<M, Known> {
    serde_path_to_error::deserialize(Value::Object(call.parameters.clone())).map_err(|e| {
        let at = e.path().to_string();
        // A missing field is told by the parser's words alone.
        let missing = e.inner().to_string().split('`').nth(1).map(str::to_owned);
        let parameter = if at == "." { missing.unwrap_or(at) } else { at };
        Known::InvalidParameter { parameter }
    })
}

/// A path as callers write it. The empty text is none: a variable that was not
/// set must not stand for the whole tree, which is `.`.
pub(super) fn path_of(text: &str, parameter: &str) -> Result<RelPath, Known> {
    let invalid = || Known::InvalidParameter { parameter: parameter.to_owned() };
    let trimmed = text.trim_end_matches('/');
    let relative = trimmed.strip_prefix("./").unwrap_or(trimmed);
    if relative.is_empty() {
        return Err(invalid());
    }
    RelPath::from_text(relative).map_err(|_| invalid())
}

fn info() -> GetInfoReply {
    GetInfoReply {
        vendor: "guardd".to_owned(),
        product: "guardd".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        url: "file:///usr/share/doc/guardd".to_owned(),
        interfaces: vec![SERVICE.to_owned(), INTERFACE.to_owned()],
    }
}

async fn describe(asked: &GetInterfaceDescription, out: &mut Out) -> Result<(), Ended> {
    let description = match asked.interface.as_str() {
        INTERFACE => INTERFACE_IDL,
        SERVICE => SERVICE_IDL,
        other => return Err(Known::InterfaceNotFound { interface: other.to_owned() }.into()),
    };
    Ok(out.last(&GetInterfaceDescriptionReply { description: description.to_owned() }).await?)
}

async fn status(daemon: &Daemon) -> StatusReply {
    let mut told = (daemon.describe)();
    let mut environments = Vec::new();
    for warden in daemon.wardens().values() {
        match warden.ask(Command::Status).await {
            Ok((environment, troubles)) => {
                told.degraded.extend(troubles.into_iter().map(|t| format!("{}: {t}", warden.name)));
                environments.push(environment);
            }
            Err(_) => told.degraded.push(format!("{}: is not being guarded any more", warden.name)),
        }
    }
    StatusReply { daemon: told, environments }
}

async fn lock(daemon: &Daemon, peer: &Peer, asked: Lock, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let work = Work::shared();
    let (by, own) = (caller(peer).to_string(), Arc::clone(&work));
    let reason = asked.reason.unwrap_or_default();
    let anyway = asked.anyway == Some(true);
    let options = LockOptions {
        on_writers: if anyway { OnOpenWriters::Warn } else { OnOpenWriters::Refuse },
        on_no_backup: if anyway { OnNoBackup::GoOn } else { OnNoBackup::Refuse },
        outside_links: if asked.break_links == Some(true) {
            OutsideLinks::Break
        } else {
            OutsideLinks::Leave
        },
    };
    let wish = warden.ask(|reply| {
        Command::Lock(LockOrder { by, reason, options, how: WindowEnd::Lock, work: own, reply })
    });
    let result = streams::with_progress(wish, &work, OnHangup::GoOn, out).await?;
    Ok(out.last(&Step::result(result)).await?)
}

async fn unlock(daemon: &Daemon, peer: &Peer, asked: Unlock, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    if asked.reason.trim().is_empty() {
        return Err(Known::ReasonRequired {}.into());
    }
    if asked.maintainer.trim().is_empty() {
        return Err(Known::MaintainerRequired {}.into());
    }
    let longest = daemon.rules().window_max;
    let work = Work::shared();
    let (by, own) = (caller(peer).to_string(), Arc::clone(&work));
    let wish = warden.ask(|reply| {
        Command::Unlock(UnlockWish {
            by,
            maintainer: asked.maintainer,
            reason: asked.reason,
            length: asked.for_seconds.map(Duration::from_secs),
            longest,
            on_no_backup: if asked.anyway == Some(true) { OnNoBackup::GoOn } else { OnNoBackup::Refuse },
            work: own,
            reply,
        })
    });
    let result = streams::with_progress(wish, &work, OnHangup::GoOn, out).await?;
    Ok(out.last(&Step::result(result)).await?)
}

async fn accept(daemon: &Daemon, peer: &Peer, asked: Accept, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    if asked.reason.trim().is_empty() {
        return Err(Known::ReasonRequired {}.into());
    }
    let paths = asked.paths.iter().map(|p| path_of(p, "paths")).collect::<Result<Vec<_>, _>>()?;
    let (by, work) = (caller(peer).to_string(), Work::shared());
    let reply = warden
        .ask(|reply| Command::Accept(AcceptWish { paths, by, reason: asked.reason, work, reply }))
        .await?;
    Ok(out.last(&reply).await?)
}

async fn restore(daemon: &Daemon, peer: &Peer, asked: Restore, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let paths = asked.paths.iter().map(|p| path_of(p, "paths")).collect::<Result<Vec<_>, _>>()?;
    if paths.is_empty() {
        return Err(Known::InvalidParameter { parameter: "paths".to_owned() }.into());
    }
    let plan = asked.plan == Some(true);
    let work = Work::shared();
    let (by, own) = (caller(peer).to_string(), Arc::clone(&work));
    let wish = warden.ask(|reply| {
        Command::Restore(RestoreWish { paths, from: asked.from, exactly: false, plan, by, work: own, reply })
    });
    let on_hangup = if plan { OnHangup::Cancel } else { OnHangup::GoOn };
    let result = streams::with_progress(wish, &work, on_hangup, out).await?;
    Ok(out.last(&Step::result(result)).await?)
}

async fn acknowledge(
    daemon: &Daemon,
    peer: &Peer,
    asked: AcknowledgeAlert,
    out: &mut Out,
) -> Result<(), Ended> {
    if asked.note.trim().is_empty() {
        return Err(Known::InvalidParameter { parameter: "note".to_owned() }.into());
    }
    let by = caller(peer).to_string();
    let alert = reading::alert(daemon, asked.id)?;
    let event = Event::AlertAcknowledged { alert: asked.id, by, note: asked.note };
    let append = || daemon.house.ledger.append(Some(alert.environment.clone()), vec![event]);
    tokio::task::block_in_place(append).map_err(reading::failed)?;
    let now = reading::alert(daemon, asked.id)?;
    let alert = crate::wire::alert(&now, usize::MAX).ok_or(Known::UnknownAlert { id: asked.id })?;
    Ok(out.last(&guard_api::method::AcknowledgeAlertReply { alert }).await?)
}

async fn check(
    warden: &WardenHandle,
    quick: bool,
    below: RelPath,
    out: &mut Out,
) -> Result<wire::CheckResult, Ended> {
    let work = Work::shared();
    let own = Arc::clone(&work);
    let wish = warden.ask(|reply| Command::Check { quick, below, work: own, reply });
    streams::with_progress(wish, &work, OnHangup::Cancel, out).await
}

/// What becomes of an operation whose caller hangs up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnHangup {
    /// It changes things and is finished.
    GoOn,
    /// It only answers a question.
    Cancel,
}

/// The user that this process runs as, as the ledger names callers.
pub(crate) fn own_name() -> String {
    let uid = guard_sys::peer::own_uid();
    let name = guard_sys::peer::user_name(uid).map(|n| guard_model::path::escape(n.as_bytes()));
    ledger::Peer { uid, login_uid: None, pid: 0, name }.to_string()
}

/// The caller as the ledger names it.
pub(super) fn caller(peer: &Peer) -> ledger::Peer {
    let who = peer.login_uid.unwrap_or(peer.uid);
    ledger::Peer {
        uid: peer.uid,
        login_uid: peer.login_uid,
        pid: peer.pid.and_then(|p| i32::try_from(p).ok()).unwrap_or(0),
        name: guard_sys::peer::user_name(who).map(|n| guard_model::path::escape(n.as_bytes())),
    }
}

pub(super) fn note(daemon: &Daemon, peer: &Peer, method: &str, outcome: Outcome, error: Option<String>) {
    let event = Event::Call { method: method.to_owned(), peer: caller(peer), outcome, error };
    if let Err(e) = tokio::task::block_in_place(|| daemon.house.ledger.append(None, vec![event])) {
        tracing::error!(error = %crate::failure::chain(&e), method, "a call could not be recorded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backups_and_baselines_are_roots_and_looking_at_them_is_no_event() {
        for (method, right) in [
            (ListBackups::NAME, Right::Look("backup")),
            (CreateBackup::NAME, Right::Command("backup")),
            (ListBaselines::NAME, Right::Look("baseline")),
            (ExportBaseline::NAME, Right::Command("baseline")),
            (Status::NAME, Right::Read),
        ] {
            assert_eq!(right_of(method), Some(right), "{method}");
        }
        assert_eq!(right_of("org.guardd.Control.Nothing"), None);
    }
}
