//! What a restore came to or would do, and how contents differ.

use guard_api::wire::{FileDiff, FileDiffKind, RestoreResult, Skipped};

use super::{Look, finding};
use crate::quantity::{bytes, count, counted, len, milliseconds};
use crate::safe::{Safe, safe};
use crate::table::{Cell, Table};
use crate::terminal::Tone;

/// After a restore, or its plan.
pub(crate) fn text(look: Look, r: &RestoreResult) -> String {
    let name = Safe(&r.environment);
    let from = match &r.from {
        Some(id) => format!("backup {}", Safe(id)),
        None => format!("baseline {}", r.generation),
    };
    let total = r.steps_total.max(len(&r.steps));
    let paths = counted(total, "path");
    let mut out = match (r.plan, total) {
        (true, 0) => format!("{name}: nothing is to be put back, by {from}\n"),
        (true, _) => format!("{name}: {paths} would be put back as {from} has them; nothing was changed\n"),
        (false, 0) => format!("{name}: nothing was put back\n"),
        (false, _) => {
            let done = look.paint.tone(Tone::Good, "put back");
            format!("{name}: {paths} {done} as {from} has them ({})\n", milliseconds(r.duration_ms))
        }
    };
    let mut t = Table::new().indented(2);
    for step in &r.steps {
        let change = step.change.iter().map(|c| c.word()).collect::<Vec<_>>().join(", ");
        let taken = match step.quarantined {
            0 => String::new(),
            n => format!("{} to quarantine", bytes(n)),
        };
        let tone = if step.action == "remove" { Tone::Bad } else { Tone::Warn };
        t.row([Cell::toned(tone, safe(&step.action)), safe(&step.path).into(), change.into(), taken.into()]);
    }
    out.push_str(&t.render(look.paint));
    if total > len(&r.steps) {
        out.push_str(&format!("  and {} more\n", count(total - len(&r.steps))));
    }
    out.push_str(&finding::skipped(look, &r.skipped, 0, "could not be put back"));
    out.push_str(&remarks(look, &r.remarks));
    if let Some(place) = &r.quarantine {
        out.push_str(&format!(
            "what was taken away is in quarantine/{} of the state directory\n",
            Safe(place)
        ));
    }
    out
}

fn remarks(look: Look, remarks: &[Skipped]) -> String {
    let mut out = String::new();
    for r in remarks {
        let line = format!("note: {}: {}", Safe(&r.path), Safe(&r.why));
        out.push_str(&look.paint.tone(Tone::Warn, &line));
        out.push('\n');
    }
    out
}

/// How the contents of files differ.
pub(crate) fn files(look: Look, all: &[FileDiff]) -> String {
    let mut out = String::new();
    for f in all {
        out.push_str(&format!("\n{}\n", look.paint.tone(Tone::Dim, &format!("--- {}", Safe(&f.path)))));
        match f.kind {
            FileDiffKind::Text => {
                for line in f.unified.as_deref().unwrap_or_default().lines() {
                    let tone = match line.as_bytes().first() {
                        Some(b'+') => Tone::Good,
                        Some(b'-') => Tone::Bad,
                        Some(b'@') => Tone::Dim,
                        _ => Tone::Plain,
                    };
                    out.push_str(&look.paint.tone(tone, &safe(line)));
                    out.push('\n');
                }
            }
            FileDiffKind::Keys => {
                let mut t = Table::new().indented(2);
                for (name, how) in f.keys.iter().flatten() {
                    t.row([Cell::toned(Tone::Warn, safe(how)), safe(name).into()]);
                }
                out.push_str(&t.render(look.paint));
            }
            FileDiffKind::Binary => {
                let mut t = Table::new().indented(2);
                for (when, content) in [("before", &f.before), ("after", &f.after)] {
                    let what = content.as_ref().map_or("nothing".to_owned(), |c| {
                        let digest =
                            c.sha256.as_deref().map_or(String::new(), |d| format!(", sha256 {}", Safe(d)));
                        format!("{}{digest}", bytes(c.size))
                    });
                    t.row([Cell::toned(Tone::Dim, when), what.into()]);
                }
                out.push_str(&t.render(look.paint));
            }
        }
        if let Some(note) = &f.note {
            out.push_str(&look.paint.tone(Tone::Dim, &format!("  ({})", Safe(note))));
            out.push('\n');
        }
    }
    out
}
