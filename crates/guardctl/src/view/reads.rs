//! Who opened or read sensitive files.

use guard_api::method::ReadsReply;
use guard_api::wire::{Actor, Reading};

use super::{Look, finding};
use crate::quantity::{both, counted};
use crate::safe::{Safe, safe};
use crate::table::{Cell, Table};
use crate::terminal::Tone;

/// All of it, oldest first.
pub(crate) fn text(look: Look, r: &ReadsReply) -> String {
    let what = r.path.as_deref().map_or("sensitive files".to_owned(), safe);
    let mut out = format!("{}  {}\n", look.paint.tone(Tone::Strong, &what), Safe(&r.environment));
    if r.reads.is_empty() {
        out.push_str("nobody is recorded to have opened it\n");
    }
    for reading in &r.reads {
        out.push_str(&one(look, reading, r.path.is_none()));
    }
    for why in &r.missed {
        let line = format!("there were more, of whom nothing is known: {}", Safe(why));
        out.push_str(&(look.paint.tone(Tone::Warn, &line) + "\n"));
    }
    out
}

fn one(look: Look, r: &Reading, with_path: bool) -> String {
    let path = if with_path { format!("  {}", Safe(&r.path)) } else { String::new() };
    let access: Vec<&str> = r.access.iter().map(|a| a.word()).collect();
    let standing = match r.expected {
        Some(false) => look.paint.tone(Tone::Bad, "  not expected"),
        Some(true) => "  expected".to_owned(),
        None => String::new(),
    };
    let times = if r.times > 1 { format!(", {}", counted(r.times, "time")) } else { String::new() };
    let mut out = format!("{}{path}  {}{times}{standing}\n", both(r.last, look.now), access.join(", "));
    let mut t = Table::new().indented(4);
    let dim = |text: &str| Cell::toned(Tone::Dim, text);
    t.row([dim("by"), who(r.actor.as_ref()).into()]);
    if let Some(unit) = r.actor.as_ref().and_then(|a| a.unit.as_ref()) {
        t.row([dim("unit"), safe(unit).into()]);
    }
    if let Some(container) = r.actor.as_ref().and_then(|a| a.container.as_ref()) {
        t.row([dim("container"), safe(container).into()]);
    }
    if r.times > 1 {
        t.row([dim("since"), both(r.first, look.now).into()]);
    }
    out.push_str(&t.render(look.paint));
    out
}

fn who(actor: Option<&Actor>) -> String {
    actor.map_or_else(|| "a process that the kernel does not name".to_owned(), finding::by)
}
