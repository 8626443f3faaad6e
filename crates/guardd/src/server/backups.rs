//! Methods about backups. They run beside the warden, whose guard goes on
//! meanwhile: making, verifying and drilling read the tree or the backups, and
//! change neither.

use std::io::{self, Write};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use guard_api::Known;
use guard_api::method::{
    CreateBackup, DrillBackup, ExportBackup, ExportBackupReply, InitBackup, InitBackupReply, ListBackups,
    ListBackupsReply, PinBackup, PinBackupReply, PruneBackups, PruneBackupsReply, Step, VerifyBackup,
};
use guard_api::wire::{self, BackupProof, BackupProofs, BackupResult};
use guard_model::ledger::{Event, Proving};
use guard_model::path::escape;
use guard_model::retention::Asked;
use guard_model::{BackupId, BackupKind, Severity};
use guard_store::backup::{BackupError, Backups, Pin, Pruned, Pulse, Scope, Which};
use guard_sys::peer::Peer;

use super::connection::Out;
use super::methods::{Daemon, Ended, OnHangup, caller};
use super::streams;
use crate::failure::chain;
use crate::operations::backup::{Cause, pruned_event};
use crate::operations::{OperationError, Phase, Work, drill, millis, now};
use crate::sessions::alert;
use crate::ward::Ward;
use crate::warden::{BackupView, Command, Message, WardenHandle};
use crate::wire as cross;

/// Bytes of an export in one reply; base64 makes four thirds of it.
const PART: usize = 1024 * 1024;
/// Longest note.
const NOTE: usize = 1000;

pub(super) async fn init(
    daemon: &Daemon,
    peer: &Peer,
    asked: &InitBackup,
    out: &mut Out,
) -> Result<(), Ended> {
    let house = &daemon.house;
    let keys = house.backup_keys.as_ref().map_err(|why| failed_with(why.clone()))?;
    let by = caller(peer).to_string();
    let make = || -> Result<InitBackupReply, Known> {
        let mut keys = keys.write().unwrap_or_else(PoisonError::into_inner);
        let replaced = keys.recovery();
        if let (Some(recipient), false) = (&replaced, asked.anyway == Some(true)) {
            return Err(Known::Refused {
                message: format!("there is a recovery key already: {recipient}"),
                hint: Some("another one opens only what is backed up from then on".to_owned()),
                anyway: true,
            });
        }
        let made = keys.make_recovery_key(&house.state_dir, now()).map_err(|e| failed(&e))?;
        let recipient = made.recipient();
        let event = Event::BackupKey { recipient: recipient.clone(), replaced: replaced.clone(), by };
        house.ledger.append(None, vec![event]).map_err(super::reading::failed)?;
        Ok(InitBackupReply { identity: made.identity_file(), recipient, replaced })
    };
    let reply = tokio::task::block_in_place(make)?;
    for warden in daemon.handles() {
        // What is held is not encrypted to the new key: the next backup writes everything anew.
        if let Ok(view) = view(&warden).await {
            view.vault.backups.forget_held();
        }
    }
    Ok(out.last(&reply).await?)
}

pub(super) async fn create(
    daemon: &Daemon,
    peer: &Peer,
    asked: CreateBackup,
    out: &mut Out,
) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    if asked.note.as_ref().is_some_and(|n| n.len() > NOTE) {
        return Err(Known::InvalidParameter { parameter: "note".to_owned() }.into());
    }
    let view = view(&warden).await?;
    let root = view.root.clone()?;
    let work = Work::shared();
    let (own, by) = (Arc::clone(&work), caller(peer).to_string());
    let notify = warden.clone();
    let result = beside(&warden.name, "backup", move || {
        let began = Instant::now();
        let cause = Cause::new(BackupKind::Manual, &by, view.generation)
            .noted(asked.note.map(|n| escape(n.as_bytes())).filter(|n| !n.is_empty()));
        let done = view.store(&root, cause, &own).map_err(|e| operation_failed(&view.ward, &e))?;
        tell(&view.ward, &notify, vec![done.event()])
            .inspect_err(|_| view.vault.take_back(&done.made.manifest.id))?;
        notify.send(Message::Recorded(view.vault.prune(&view.ward)));
        let mut warnings = done.warnings();
        warnings.extend(no_recovery_key(&view.vault.backups));
        Ok(BackupResult {
            backup: described(&view.ward.name, &view.vault.backups, &done.made.manifest.id)?,
            written: done.made.written,
            warnings,
            duration_ms: millis(began.elapsed()),
        })
    });
    let result = streams::with_progress(result, &work, OnHangup::GoOn, out).await?;
    Ok(out.last(&Step::result(result)).await?)
}

pub(super) async fn list(daemon: &Daemon, asked: &ListBackups, out: &mut Out) -> Result<(), Ended> {
    let named = daemon.known_environment(asked.environment.as_deref())?;
    let names = named.map_or_else(|| daemon.names(), |n| vec![n]);
    let mut backups = Vec::new();
    for name in &names {
        let view = view(&daemon.warden(Some(name))?).await?;
        backups.extend(tokio::task::block_in_place(|| all_described(name, &view.vault.backups))?);
    }
    let keys = daemon.house.backup_keys.as_ref().ok();
    let recovery_key = keys.and_then(|k| k.read().unwrap_or_else(PoisonError::into_inner).recovery());
    Ok(out.last(&ListBackupsReply { backups, recovery_key }).await?)
}

pub(super) async fn verify(
    daemon: &Daemon,
    peer: &Peer,
    asked: VerifyBackup,
    out: &mut Out,
) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let view = view(&warden).await?;
    let ids = match (asked.all.unwrap_or(false), asked.id.as_deref()) {
        (true, Some(_)) => return Err(Known::InvalidParameter { parameter: "all".to_owned() }.into()),
        (true, None) => view.vault.backups.ids().map_err(|e| failed(&e))?,
        (false, id) => vec![find(&warden.name, &view.vault.backups, id)?],
    };
    let work = Work::shared();
    let (own, by, notify) = (Arc::clone(&work), caller(peer).to_string(), warden.clone());
    let result = beside(&warden.name, "verify", move || {
        let mut proofs = Vec::new();
        for id in &ids {
            own.enter(Phase::Verifying, 0);
            let began = Instant::now();
            let pulse = Pulse { cancel: &own.cancel, bytes: &own.progress.bytes };
            let found = match view.vault.backups.verify(id, Scope::Everything, pulse) {
                Ok(found) => found,
                // Retention was quicker.
                Err(BackupError::NoSuchBackup { .. }) if ids.len() > 1 => continue,
                Err(e) => return Err(failed(&e)),
            };
            let proof = BackupProof {
                id: id.to_string(),
                ok: found.problems.is_empty(),
                files: found.files,
                bytes: found.bytes,
                missing: found.missing,
                problems: found.problems,
                notes: Vec::new(),
                duration_ms: millis(began.elapsed()),
            };
            record(&view.ward, &notify, Proving::Verify, id, &proof, &by)?;
            proofs.push(proof);
        }
        Ok(proven(&view.ward, proofs))
    });
    let result = streams::with_progress(result, &work, OnHangup::Cancel, out).await?;
    Ok(out.last(&Step::result(result)).await?)
}

pub(super) async fn drill(
    daemon: &Daemon,
    peer: &Peer,
    asked: DrillBackup,
    out: &mut Out,
) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let view = view(&warden).await?;
    let id = find(&warden.name, &view.vault.backups, asked.id.as_deref())?;
    let work = Work::shared();
    let (own, by, notify) = (Arc::clone(&work), caller(peer).to_string(), warden.clone());
    let result = beside(&warden.name, "drill", move || {
        let began = Instant::now();
        let backups = &view.vault.backups;
        let drilled = match backups.open_backup(&Which::Id(id.clone())) {
            Ok(backup) => drill::drill(&view.ward.house.state_dir, backups, &backup, &own)
                .map_err(|e| operation_failed(&view.ward, &e))?,
            Err(e) => drill::Drilled { problems: vec![e.with_causes()], ..drill::Drilled::default() },
        };
        let proof = BackupProof {
            id: id.to_string(),
            ok: drilled.problems.is_empty(),
            files: drilled.files,
            bytes: drilled.bytes,
            missing: drilled.missing,
            problems: drilled.problems,
            notes: drilled.notes,
            duration_ms: millis(began.elapsed()),
        };
        record(&view.ward, &notify, Proving::Drill, &id, &proof, &by)?;
        Ok(proven(&view.ward, vec![proof]))
    });
    let result = streams::with_progress(result, &work, OnHangup::Cancel, out).await?;
    Ok(out.last(&Step::result(result)).await?)
}

pub(super) async fn prune(
    daemon: &Daemon,
    peer: &Peer,
    asked: &PruneBackups,
    out: &mut Out,
) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let view = view(&warden).await?;
    let keep = match asked.keep.map(u32::try_from) {
        None => view.vault.keep,
        Some(Ok(keep)) if keep > 0 => keep,
        Some(_) => return Err(Known::InvalidParameter { parameter: "keep".to_owned() }.into()),
    };
    let (by, notify) = (caller(peer).to_string(), warden.clone());
    let reply = beside(&warden.name, "prune", move || {
        let told = |going: &Pruned| {
            notify.send(Message::Recorded(view.ward.append(vec![pruned_event(going, &by)])?));
            Ok::<(), OperationError>(())
        };
        let pruned = view
            .vault
            .backups
            .prune(keep, Asked::ByHand, told)
            .map_err(|e| operation_failed(&view.ward, &e))?;
        Ok(PruneBackupsReply {
            environment: view.ward.name.clone(),
            removed: pruned.removed.iter().map(ToString::to_string).collect(),
            bytes: pruned.bytes,
            held_back: pruned.held_back.map(|why| why.to_string()),
        })
    })
    .await?;
    Ok(out.last(&reply).await?)
}

pub(super) async fn pin(daemon: &Daemon, peer: &Peer, asked: &PinBackup, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let view = view(&warden).await?;
    let backups = &view.vault.backups;
    let id = find(&warden.name, backups, Some(&asked.id))?;
    let pin = if asked.pinned { Pin::Keep } else { Pin::Free };
    let by = caller(peer).to_string();
    let done = tokio::task::block_in_place(|| -> Result<wire::Backup, Known> {
        if backups.set_pinned(&id, pin).map_err(|e| failed(&e))? {
            let event = Event::BackupPinned { backup: id.clone(), pinned: asked.pinned, by };
            tell(&view.ward, &warden, vec![event])?;
        }
        described(&warden.name, backups, &id)
    })?;
    Ok(out.last(&PinBackupReply { backup: done }).await?)
}

pub(super) async fn export(daemon: &Daemon, asked: &ExportBackup, out: &mut Out) -> Result<(), Ended> {
    let warden = daemon.warden(asked.environment.as_deref())?;
    let view = view(&warden).await?;
    let id = find(&warden.name, &view.vault.backups, asked.id.as_deref())?;
    if !out.takes_more() {
        return Err(Known::ExpectedMore {}.into());
    }
    // A part is made when the one before went out: a slow reader costs no memory.
    let (sender, mut parts) = tokio::sync::mpsc::channel::<Vec<u8>>(1);
    let name = warden.name.clone();
    let (own, backups) = (id.clone(), Arc::clone(&view.vault.backups));
    let exported = beside(&warden.name, "export", move || {
        let mut pipe = Pipe { sender, part: Vec::new() };
        backups.export(&own, &mut pipe).map_err(|e| failed(&e))?;
        pipe.flush().map_err(|e| failed_with(e.to_string()))
    });
    tokio::pin!(exported);
    let reply = |data| ExportBackupReply { environment: name.clone(), id: id.to_string(), data };
    let mut ended = None;
    loop {
        tokio::select! {
            part = parts.recv() => match part {
                Some(data) => out.more(&reply(data)).await?,
                None => break,
            },
            result = &mut exported, if ended.is_none() => ended = Some(result),
        }
    }
    match ended {
        Some(result) => result?,
        None => exported.await?,
    }
    Ok(out.last(&reply(Vec::new())).await?)
}

/// Hands parts to whoever sends them.
struct Pipe {
    sender: tokio::sync::mpsc::Sender<Vec<u8>>,
    part: Vec<u8>,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.part.extend_from_slice(bytes);
        if self.part.len() >= PART {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.part.is_empty() {
            return Ok(());
        }
        let part = std::mem::take(&mut self.part);
        self.sender.blocking_send(part).map_err(|_| io::Error::other("nobody takes the export any more"))
    }
}

/// What a warden knows that is needed for its backups.
async fn view(warden: &WardenHandle) -> Result<BackupView, Known> {
    warden.ask(Command::Backups).await
}

/// Runs long work on a thread of its own.
pub(super) async fn beside<T: Send + 'static>(
    environment: &str,
    what: &'static str,
    work: impl FnOnce() -> Result<T, Known> + Send + 'static,
) -> Result<T, Known> {
    let (done, answer) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name(format!("{what} {environment}"))
        // Nobody may be waiting any more.
        .spawn(move || done.send(work()).ok())
        .map_err(|e| failed_with(format!("cannot start a thread: {e}")))?;
    answer.await.unwrap_or_else(|_| Err(failed_with(format!("the {what} ended without an answer"))))
}

/// Writes events of the environment, which its warden takes in.
fn tell(ward: &Ward, warden: &WardenHandle, events: Vec<Event>) -> Result<(), Known> {
    let records = ward.append(events).map_err(super::reading::failed)?;
    // A warden that has ended reads them from the ledger when it is taken up again.
    warden.send(Message::Recorded(records));
    Ok(())
}

fn record(
    ward: &Ward,
    warden: &WardenHandle,
    how: Proving,
    id: &BackupId,
    proof: &BackupProof,
    by: &str,
) -> Result<(), Known> {
    let mut events = vec![Event::BackupVerified {
        backup: id.clone(),
        how,
        files: proof.files,
        bytes: proof.bytes,
        problems: proof.problems.iter().take(20).cloned().collect(),
        duration_ms: proof.duration_ms,
        by: by.to_owned(),
    }];
    if let Some(first) = proof.problems.first() {
        events.push(alert(Severity::High, format!("backup {id} is damaged: {first}"), Vec::new()));
    }
    tell(ward, warden, events)
}

fn proven(ward: &Ward, backups: Vec<BackupProof>) -> BackupProofs {
    BackupProofs { environment: ward.name.clone(), ok: backups.iter().all(|b| b.ok), backups }
}

fn find(environment: &str, backups: &Backups, asked: Option<&str>) -> Result<BackupId, Known> {
    let unknown = |id| Known::UnknownBackup { environment: environment.to_owned(), id };
    match asked {
        Some(text) => backups.find(text).map_err(|e| match e {
            BackupError::NoSuchBackup { asked } => unknown(Some(asked)),
            e => failed(&e),
        }),
        None => backups.ids().map_err(|e| failed(&e))?.pop().ok_or_else(|| unknown(None)),
    }
}

fn described(environment: &str, backups: &Backups, id: &BackupId) -> Result<wire::Backup, Known> {
    let all = all_described(environment, backups)?;
    let found = all.into_iter().find(|b| b.id == id.to_string());
    found
        .ok_or_else(|| Known::UnknownBackup { environment: environment.to_owned(), id: Some(id.to_string()) })
}

fn all_described(environment: &str, backups: &Backups) -> Result<Vec<wire::Backup>, Known> {
    let recovery = backups.keys().recovery();
    let listed = backups.list().map_err(|e| failed(&e))?;
    Ok(listed.into_iter().map(|b| cross::backup(environment, backups, recovery.as_deref(), b)).collect())
}

fn no_recovery_key(backups: &Backups) -> Option<String> {
    let none = backups.keys().recovery().is_none();
    none.then(|| {
        "it opens with this host's key only: make a recovery key with `guardctl backup init`".to_owned()
    })
}

fn failed(e: &BackupError) -> Known {
    failed_with(e.with_causes())
}

fn failed_with(message: String) -> Known {
    Known::Failed { message, hint: None }
}

fn busy_or_failed(ward: &Ward, e: &BackupError) -> Known {
    match e {
        BackupError::Busy => Known::Busy { environment: ward.name.clone(), operation: "backup".to_owned() },
        e => failed(e),
    }
}

fn operation_failed(ward: &Ward, e: &OperationError) -> Known {
    match e {
        OperationError::Backup(e) => busy_or_failed(ward, e),
        e => failed_with(chain(e)),
    }
}
