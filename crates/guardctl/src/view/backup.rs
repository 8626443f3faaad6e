//! Backups: the list, and what became of making and proving them.

use guard_api::method::{InitBackupReply, ListBackupsReply, PruneBackupsReply};
use guard_api::wire::{Backup, BackupProofState, BackupProofs, BackupResult, BackupState};

use super::Look;
use super::status::totals;
use crate::quantity::{both, bytes, count, counted, len, milliseconds, relative};
use crate::safe::{Safe, safe};
use crate::table::{Cell, Table};
use crate::terminal::Tone;

/// The recovery key: a file for age, as it is.
pub(crate) fn identity(r: &InitBackupReply) -> String {
    r.identity.lines().map(|line| format!("{}\n", Safe(line))).collect()
}

/// After a backup was made.
pub(crate) fn created(look: Look, r: &BackupResult) -> String {
    let b = &r.backup;
    let holds = b.protected.as_ref().map(totals).unwrap_or_default();
    let mut out = format!(
        "{}: backup {} {}, {holds}\n{} written, the rest is shared with earlier ones ({})\n",
        Safe(&b.environment),
        Safe(&b.id),
        look.paint.tone(Tone::Good, "made"),
        bytes(r.written),
        milliseconds(r.duration_ms)
    );
    for w in &r.warnings {
        out.push_str(&look.paint.tone(Tone::Warn, &format!("warning: {}", Safe(w))));
        out.push('\n');
    }
    out
}

/// The list.
pub(crate) fn list(look: Look, r: &ListBackupsReply) -> String {
    if r.backups.is_empty() {
        return "no backups: lock makes one, and so does `guardctl backup create`\n".to_owned();
    }
    let mut t = Table::headed(&["ENVIRONMENT", "ID", "KIND", "MADE", "BY", "FILES", "SIZE", "STATE", "NOTE"]);
    for b in &r.backups {
        let p = b.protected.unwrap_or_default();
        t.row([
            safe(&b.environment).into(),
            safe(&b.id).into(),
            b.kind.as_deref().map(safe).unwrap_or_default().into(),
            b.at.map(|at| relative(at, look.now)).unwrap_or_default().into(),
            b.by.as_deref().map(safe).unwrap_or_default().into(),
            count(p.files).into(),
            bytes(p.bytes).into(),
            state(b, r.recovery_key.is_some()),
            b.note.as_deref().map(safe).unwrap_or_default().into(),
        ]);
    }
    let mut out = t.render(look.paint);
    for b in r.backups.iter().filter(|b| b.problem.is_some()) {
        let why = b.problem.as_deref().map(safe).unwrap_or_default();
        out.push_str(&look.paint.tone(Tone::Bad, &format!("{}: {why}", Safe(&b.id))));
        out.push('\n');
    }
    out
}

fn state(b: &Backup, has_recovery_key: bool) -> Cell {
    let (tone, word) = match b.proof {
        BackupProofState::Verified => (Tone::Good, "verified"),
        BackupProofState::Unverified => (Tone::Plain, "not verified"),
        BackupProofState::Damaged => (Tone::Bad, "damaged"),
        BackupProofState::Unknown => (Tone::Plain, "?"),
    };
    let mut words = vec![word.to_owned()];
    if b.pinned {
        words.push("pinned".to_owned());
    }
    if b.missing > 0 {
        words.push(format!("{} missing", counted(b.missing, "file")));
    }
    if has_recovery_key && !b.recovery && b.problem.is_none() {
        words.push("not by the recovery key".to_owned());
    }
    Cell::toned(tone, words.join(", "))
}

/// After verifying, or a drill.
pub(crate) fn proofs(look: Look, r: &BackupProofs, done: &str) -> String {
    let mut out = String::new();
    for b in &r.backups {
        let verdict =
            if b.ok { look.paint.tone(Tone::Good, "good") } else { look.paint.tone(Tone::Bad, "DAMAGED") };
        out.push_str(&format!(
            "{}: backup {} is {verdict}: {}, {} {done} ({})\n",
            Safe(&r.environment),
            Safe(&b.id),
            counted(b.files, "file"),
            bytes(b.bytes),
            milliseconds(b.duration_ms)
        ));
        for problem in &b.problems {
            out.push_str(&look.paint.tone(Tone::Bad, &format!("  {}", Safe(problem))));
            out.push('\n');
        }
        if b.missing > 0 {
            let line = format!("  it does not hold the content of {}", counted(b.missing, "file"));
            out.push_str(&look.paint.tone(Tone::Warn, &line));
            out.push('\n');
        }
        for note in &b.notes {
            out.push_str(&format!("  note: {}\n", Safe(note)));
        }
    }
    if r.backups.is_empty() {
        out.push_str("no backups\n");
    }
    out
}

/// After pruning.
pub(crate) fn pruned(look: Look, r: &PruneBackupsReply) -> String {
    if let Some(why) = &r.held_back {
        return format!("{}\n", look.paint.tone(Tone::Warn, &format!("nothing removed: {}", Safe(why))));
    }
    let mut out = format!(
        "{}: {} removed, {} free\n",
        Safe(&r.environment),
        counted(len(&r.removed), "backup"),
        bytes(r.bytes)
    );
    for id in &r.removed {
        out.push_str(&format!("  {}\n", Safe(id)));
    }
    out
}

/// After pinning.
pub(crate) fn pinned(b: &Backup) -> String {
    let how = if b.pinned { "stays until it is unpinned" } else { "goes when its time comes" };
    format!("{}: backup {} {how}\n", Safe(&b.environment), Safe(&b.id))
}

/// After an export to a file.
pub(crate) fn exported(id: &str, file: &str, size: u64) -> String {
    format!("backup {} is in {}, {}\n", Safe(id), Safe(file), bytes(size))
}

/// The lines of `status`.
pub(crate) fn in_status(look: Look, b: &BackupState) -> Vec<(&'static str, Cell)> {
    let newest = match (&b.newest, b.newest_at) {
        (Some(id), Some(at)) => {
            let kept = format!("{} of {} kept", count(b.kept), count(b.keep));
            Cell::toned(Tone::Plain, format!("{}, {}; {kept}", Safe(id), relative(at, look.now)))
        }
        _ => Cell::toned(Tone::Warn, "none"),
    };
    let restored = match &b.last_drill {
        Some(p) => Cell::toned(Tone::Plain, format!("{}, {}", both(p.at, look.now), Safe(&p.id))),
        None => Cell::toned(Tone::Warn, "never; prove it: guardctl backup drill"),
    };
    let mut lines = vec![("backup", newest), ("last proven restore", restored)];
    if b.recovery_key.is_none() {
        lines.push(("recovery key", Cell::toned(Tone::Warn, "none; make one: guardctl backup init")));
    }
    lines
}
