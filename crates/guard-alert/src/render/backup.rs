//! What is said of backups.

use std::fmt::Display;

use guard_model::BackupId;
use guard_model::ledger::{Event, Proving};

use super::Level;

/// Level and text of an event about backups, its fields handed to `put`; `None` for any other event.
pub(super) fn words(
    event: &Event,
    put: &mut dyn FnMut(&'static str, &dyn Display),
) -> Option<(Level, String)> {
    Some(match event {
        Event::BackupCreated { backup, kind, by, note, generation, totals, missing, written, .. } => {
            put("backup", backup);
            put("kind", kind);
            put("by", by);
            if let Some(note) = note {
                put("note", note);
            }
            if let Some(generation) = generation {
                put("generation", generation);
            }
            put("files", &totals.files);
            put("bytes", &totals.bytes);
            put("written", written);
            put("missing", missing);
            let level = if *missing == 0 { Level::Notice } else { Level::Warning };
            (level, format!("backup {backup} ({kind}) made by {by}"))
        }
        Event::BackupPruned { backups, packs, bytes, by } => {
            let names = list(backups);
            put("backups", &names);
            put("packs", packs);
            put("bytes", bytes);
            put("by", by);
            (Level::Notice, format!("backups removed by {by}: {names}"))
        }
        Event::BackupVerified { backup, how, files, bytes, problems, duration_ms, by } => {
            let how = match how {
                Proving::Verify => "verify",
                Proving::Drill => "drill",
            };
            put("backup", backup);
            put("how", &how);
            put("files", files);
            put("bytes", bytes);
            put("problems", &problems.len());
            put("duration_ms", duration_ms);
            put("by", by);
            match problems.first() {
                None => (Level::Info, format!("backup {backup} is good ({how})")),
                Some(first) => {
                    put("first", first);
                    (Level::Warning, format!("backup {backup} is damaged ({how}): {first}"))
                }
            }
        }
        Event::BackupPinned { backup, pinned, by } => {
            let what = if *pinned { "pinned" } else { "unpinned" };
            put("backup", backup);
            put("what", &what);
            put("by", by);
            (Level::Notice, format!("backup {backup} {what} by {by}"))
        }
        Event::BackupKey { recipient, replaced, by } => {
            put("recipient", recipient);
            if let Some(replaced) = replaced {
                put("replaced", replaced);
            }
            put("by", by);
            (Level::Warning, format!("backups have a new recovery key {recipient}, made by {by}"))
        }
        _ => return None,
    })
}

fn list(backups: &[BackupId]) -> String {
    backups.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}
