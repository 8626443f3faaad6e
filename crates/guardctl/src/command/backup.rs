//! Backups: make, list, prove, take off the host.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use guard_api::Exit;
use guard_api::method::{
    CreateBackup, DrillBackup, ExportBackup, InitBackup, ListBackups, PinBackup, PruneBackups, VerifyBackup,
};
use serde_json::json;

use super::look;
use crate::arguments::Backup;
use crate::ctl::{Ctl, Outcome, Wait};
use crate::failure::Failure;
use crate::safe::Safe;
use crate::view::backup;

pub(crate) fn dispatch(ctl: &mut Ctl, command: Backup) -> Outcome {
    match command {
        Backup::Init { anyway } => init(ctl, anyway),
        Backup::Create { environment, note } => create(ctl, CreateBackup { environment, note }),
        Backup::List { environment } => list(ctl, environment),
        Backup::Verify { environment, id, all } => {
            let (environment, id) = environment_or_id(environment, id);
            verify(ctl, VerifyBackup { environment, id, all: Some(all) })
        }
        Backup::Drill { environment, id } => {
            let (environment, id) = environment_or_id(environment, id);
            drill(ctl, DrillBackup { environment, id })
        }
        Backup::Export { environment, id, to } => {
            let (environment, id) = environment_or_id(environment, id);
            export(ctl, ExportBackup { environment, id }, to)
        }
        Backup::Prune { environment, keep } => prune(ctl, PruneBackups { environment, keep }),
        Backup::Pin { place } => pin(ctl, place, true),
        Backup::Unpin { place } => pin(ctl, place, false),
    }
}

/// A single word that begins with a digit is a backup: environments begin with a letter.
fn environment_or_id(environment: Option<String>, id: Option<String>) -> (Option<String>, Option<String>) {
    match (environment, id) {
        (Some(word), None) if word.starts_with(|c: char| c.is_ascii_digit()) => (None, Some(word)),
        both => both,
    }
}

fn init(ctl: &mut Ctl, anyway: bool) -> Outcome {
    let answer = ctl.call("make a recovery key", &InitBackup { anyway: Some(anyway) })?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
        return Ok(Exit::Done);
    }
    ctl.print(&backup::identity(&answer.value))?;
    ctl.say("this is told once: guardd does not keep it")?;
    let mut hints = vec![
        "keep it off this host: on paper, or on a medium that is locked away".to_owned(),
        "make a backup that it opens: guardctl backup create ENV".to_owned(),
    ];
    if answer.value.replaced.is_some() {
        hints.push("keep the earlier recovery key, too: older backups open with that one only".to_owned());
    }
    ctl.hint(&hints)?;
    Ok(Exit::Done)
}

fn create(ctl: &mut Ctl, method: CreateBackup) -> Outcome {
    let answer = ctl.call_long("back up", &method)?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&backup::created(look(ctl), &answer.value))?;
    }
    Ok(Exit::Done)
}

fn list(ctl: &mut Ctl, environment: Option<String>) -> Outcome {
    let answer = ctl.call("list backups", &ListBackups { environment })?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
        return Ok(Exit::Done);
    }
    ctl.print(&backup::list(look(ctl), &answer.value))?;
    if answer.value.recovery_key.is_none() {
        ctl.hint(&["they open with this host's key only; make a recovery key: guardctl backup init"])?;
    }
    Ok(Exit::Done)
}

fn verify(ctl: &mut Ctl, method: VerifyBackup) -> Outcome {
    let answer = ctl.call_long("verify the backup", &method)?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&backup::proofs(look(ctl), &answer.value, "verified"))?;
    }
    Ok(if answer.value.ok { Exit::Done } else { Exit::Findings })
}

fn drill(ctl: &mut Ctl, method: DrillBackup) -> Outcome {
    let answer = ctl.call_long("restore the backup for a test", &method)?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&backup::proofs(look(ctl), &answer.value, "restored and compared"))?;
    }
    Ok(if answer.value.ok { Exit::Done } else { Exit::Findings })
}

fn prune(ctl: &mut Ctl, method: PruneBackups) -> Outcome {
    let answer = ctl.call("remove backups", &method)?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&backup::pruned(look(ctl), &answer.value))?;
        if answer.value.held_back.is_some() {
            ctl.hint(&[format!("guardctl backup verify {}", Safe(&answer.value.environment))])?;
        }
    }
    Ok(Exit::Done)
}

fn pin(ctl: &mut Ctl, mut place: Vec<String>, pinned: bool) -> Outcome {
    let id = place.pop().unwrap_or_default();
    let answer = ctl.call("pin the backup", &PinBackup { environment: place.pop(), id, pinned })?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&backup::pinned(&answer.value.backup))?;
    }
    Ok(Exit::Done)
}

fn export(ctl: &mut Ctl, method: ExportBackup, to: Option<PathBuf>) -> Outcome {
    let mut file = match &to {
        Some(path) => {
            // Not over what is there, and not through somebody's link.
            let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
            Some((path, opened.map_err(|e| cannot("make", path, &e))?))
        }
        None if ctl.terminal.shows_data || ctl.json => {
            let what = "a backup's export is no text: it goes to a file";
            return Err(Failure::usage(what).hint("guardctl backup export ENV --to FILE"));
        }
        None => None,
    };
    let mut written: u64 = 0;
    let mut id = String::new();
    let exported = ctl.call_stream("export the backup", &method, Wait::Timeout, |ctl, answer| {
        let part = answer.value;
        written = written.saturating_add(part.data.len() as u64);
        id = part.id;
        match &mut file {
            Some((path, file)) => file.write_all(&part.data).map_err(|e| cannot("write", path, &e)),
            None => ctl.print_bytes(&part.data),
        }
    });
    let Some((path, file)) = file else { return exported.map(|()| Exit::Done) };
    if let Err(failure) = exported.and_then(|()| file.sync_all().map_err(|e| cannot("write", path, &e))) {
        // A part of a backup is none.
        std::fs::remove_file(path).ok();
        return Err(failure);
    }
    if ctl.json {
        ctl.print_json(&json!({ "id": id, "file": path.display().to_string(), "bytes": written }))?;
    } else {
        ctl.print(&backup::exported(&id, &path.display().to_string(), written))?;
    }
    Ok(Exit::Done)
}

fn cannot(verb: &str, path: &Path, e: &std::io::Error) -> Failure {
    let failure = Failure::new(Exit::Failed, format!("cannot {verb} {}: {e}", path.display()));
    if e.kind() == std::io::ErrorKind::AlreadyExists { failure.hint("export to a new file") } else { failure }
}
