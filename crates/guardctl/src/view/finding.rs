//! Findings: in one line, or attribute by attribute.

use guard_api::wire::{Actor, Change, Confidence, Entry, Finding, Skipped};

use super::Look;
use crate::quantity::{both, bytes, count, counted, len};
use crate::safe::{Safe, safe};
use crate::table::{Cell, Table};
use crate::terminal::Tone;
use crate::users;

/// `content, size`
pub(crate) fn changes(f: &Finding) -> String {
    f.change.iter().map(|c| c.word()).collect::<Vec<_>>().join(", ")
}

fn verb(f: &Finding) -> (Tone, &'static str) {
    match f.change.as_slice() {
        [Change::Created, ..] => (Tone::Warn, "created"),
        [Change::Deleted, ..] => (Tone::Bad, "deleted"),
        [Change::Read] => (Tone::Bad, "read"),
        _ => (Tone::Warn, "changed"),
    }
}

/// One line for each finding, and one for those that were not sent.
pub(crate) fn list(look: Look, findings: &[Finding], total: u64) -> String {
    let mut t = Table::new().indented(2);
    for f in findings {
        let (tone, verb) = verb(f);
        let what = match verb {
            "changed" => changes(f),
            "read" => match &f.actor {
                Some(a) => format!("by {}", program(a)),
                None => String::new(),
            },
            _ => kind(f).to_owned(),
        };
        let restored = if f.restored { " (put back)" } else { "" };
        let note = f.note.as_deref().map(|n| format!(": {}", Safe(n))).unwrap_or_default();
        t.row([Cell::toned(tone, verb), safe(&f.path).into(), format!("{what}{restored}{note}").into()]);
    }
    t.render(look.paint) + &more(findings, total)
}

fn more(findings: &[Finding], total: u64) -> String {
    match total.saturating_sub(len(findings)) {
        0 => String::new(),
        n => format!("  and {} more that were not sent\n", count(n)),
    }
}

/// Every attribute that differs, before and after.
pub(crate) fn details(look: Look, findings: &[Finding], total: u64) -> String {
    let mut out = String::new();
    for f in findings {
        let (tone, verb) = verb(f);
        out.push_str(&format!("{}  {}\n", look.paint.tone(tone, verb), Safe(&f.path)));
        let mut t = Table::new().indented(4);
        attributes(f, &mut t);
        let dim = |text: &str| Cell::toned(Tone::Dim, text);
        t.row([dim("seen"), both(f.at, look.now).into()]);
        if let Some(a) = &f.actor {
            actor(a, &mut t);
        }
        if f.restored {
            t.row([dim("restored"), "the original was put back".into()]);
        }
        if let Some(note) = &f.note {
            t.row([dim("note"), safe(note).into()]);
        }
        out.push_str(&t.render(look.paint));
    }
    out + &more(findings, total)
}

/// What stands, or stood, at the path.
fn kind(f: &Finding) -> &'static str {
    use guard_api::wire::Kind::*;
    match f.after.as_ref().or(f.before.as_ref()).map(|e| e.kind) {
        Some(File) => "file",
        Some(Directory) => "directory",
        Some(Symlink) => "symbolic link",
        Some(Fifo) => "named pipe",
        Some(Socket) => "socket",
        Some(CharDevice) => "character device",
        Some(BlockDevice) => "block device",
        Some(Unknown) | None => "",
    }
}

fn attributes(f: &Finding, t: &mut Table) {
    let dim = |text: &str| Cell::toned(Tone::Dim, text);
    match (&f.before, &f.after) {
        (Some(b), Some(a)) => {
            for change in &f.change {
                t.row([dim(change.word()), difference(*change, b, a).into()]);
            }
        }
        (None, Some(e)) => t.row([dim("now"), short_entry(e).into()]),
        (Some(e), None) => {
            if f.change.as_slice() != [Change::Deleted] {
                t.row([dim("differs"), changes(f).into()]);
            }
            t.row([dim("was"), short_entry(e).into()]);
        }
        // By whom follows.
        (None, None) if f.change.as_slice() == [Change::Read] => {}
        (None, None) => t.row([dim("differs"), changes(f).into()]),
    }
}

/// An entry in one line: `file 0644 anna (uid 1000), group anna, 512 bytes, sha256 …`
pub(crate) fn entry(e: &Entry) -> String {
    line(e, |h| format!("sha256 {}", Safe(h)))
}

/// The same with enough of the digest to see that it is another.
fn short_entry(e: &Entry) -> String {
    line(e, short_hash)
}

fn short_hash(hash: &str) -> String {
    let start: String = hash.chars().take(16).collect();
    format!("sha256 {}…", Safe(&start))
}

fn line(e: &Entry, digest: impl Fn(&str) -> String) -> String {
    let kind = match serde_json::to_value(e.kind) {
        Ok(serde_json::Value::String(word)) => word.replace('_', " "),
        _ => String::new(),
    };
    let target = e.target.as_deref().map(|t| format!(" -> {}", Safe(t))).unwrap_or_default();
    let hash = e.sha256.as_deref().map(|h| format!(", {}", digest(h))).unwrap_or_default();
    let size = if e.sha256.is_some() { format!(", {}", bytes(e.size)) } else { String::new() };
    format!("{kind} {} {}{target}{size}{hash}", Safe(&e.mode), owner(e))
}

fn owner(e: &Entry) -> String {
    format!("{}, group {}", users::user(e.uid), users::group(e.gid))
}

fn difference(change: Change, b: &Entry, a: &Entry) -> String {
    let arrow = |b: String, a: String| format!("{b} -> {a}");
    let hash = |e: &Entry| e.sha256.as_deref().map_or("not readable".to_owned(), short_hash);
    match change {
        Change::Content => arrow(hash(b), hash(a)),
        Change::Size => format!("{} -> {} bytes", count(b.size), count(a.size)),
        Change::Mode => arrow(safe(&b.mode), safe(&a.mode)),
        Change::Seal if b.mode != a.mode => format!("weakened, mode {} -> {}", Safe(&b.mode), Safe(&a.mode)),
        Change::Seal => format!("weakened, {} -> {}", flags(b), flags(a)),
        Change::Owner => arrow(owner(b), owner(a)),
        Change::Mtime => arrow(safe(&b.mtime), safe(&a.mtime)),
        Change::Inode => arrow(b.ino.to_string(), a.ino.to_string()),
        Change::Links => arrow(b.nlink.to_string(), a.nlink.to_string()),
        Change::Flags => arrow(flags(b), flags(a)),
        Change::Mount => format!("device {} -> {}", device(b.dev), device(a.dev)),
        Change::Target => arrow(target(b), target(a)),
        Change::Xattr => xattrs(b, a),
        Change::Type => arrow(short_entry(b), short_entry(a)),
        Change::Created
        | Change::Deleted
        | Change::LockFile
        | Change::Root
        | Change::Read
        | Change::Unknown => arrow(short_entry(b), short_entry(a)),
    }
}

/// Inode flags as people call them: `immutable`, `append-only`, what else there is in hexadecimal.
fn flags(e: &Entry) -> String {
    const NAMED: [(u32, &str); 2] = [(0x10, "immutable"), (0x20, "append-only")];
    let all = e.flags.unwrap_or(0);
    let mut words: Vec<String> =
        NAMED.iter().filter(|(flag, _)| all & flag != 0).map(|(_, word)| (*word).to_owned()).collect();
    let others = NAMED.iter().fold(all, |left, (flag, _)| left & !flag);
    if others != 0 {
        words.push(format!("{others:#x}"));
    }
    if words.is_empty() { "none".to_owned() } else { words.join("+") }
}

/// `8:1`, as `lsblk` writes device numbers; on the wire they are major << 32 | minor.
fn device(dev: u64) -> String {
    format!("{}:{}", dev >> 32, dev & 0xffff_ffff)
}

fn target(e: &Entry) -> String {
    match (&e.target, e.rdev) {
        (Some(t), _) => safe(t),
        (None, Some(rdev)) => format!("device {}", device(rdev)),
        (None, None) => "none".to_owned(),
    }
}

/// Which attributes came, went or changed. Their values may be long: names tell.
fn xattrs(b: &Entry, a: &Entry) -> String {
    let empty = std::collections::BTreeMap::new();
    let (before, after) = (b.xattrs.as_ref().unwrap_or(&empty), a.xattrs.as_ref().unwrap_or(&empty));
    let mut words = Vec::new();
    for (name, value) in before {
        match after.get(name) {
            None => words.push(format!("{} removed", Safe(name))),
            Some(now) if now != value => words.push(format!("{} changed", Safe(name))),
            Some(_) => {}
        }
    }
    words.extend(after.keys().filter(|n| !before.contains_key(*n)).map(|n| format!("{} added", Safe(n))));
    words.join(", ")
}

/// What is best known of what ran.
pub(crate) fn program(a: &Actor) -> String {
    let known = [&a.cmdline, &a.exe, &a.comm].into_iter().flatten().next();
    known.map_or("a process".to_owned(), |text| safe(text))
}

/// The process that did it, in a line.
pub(crate) fn by(a: &Actor) -> String {
    let user = a.uid.map(|u| format!(", {}", users::user(u))).unwrap_or_default();
    let login = match a.login_uid {
        Some(l) if Some(l) != a.uid => format!(", logged in as {}", users::user(l)),
        _ => String::new(),
    };
    let doubt = match a.confidence {
        Confidence::Verified => "",
        Confidence::Exited => " (it had ended when it was looked at)",
        Confidence::Unknown => " (it had ended before it could be asked who it is)",
    };
    format!("{}, pid {}{user}{login}{doubt}", program(a), a.pid)
}

fn actor(a: &Actor, t: &mut Table) {
    let dim = |text: &str| Cell::toned(Tone::Dim, text);
    t.row([dim("by"), by(a).into()]);
    if let (Some(exe), Some(_)) = (&a.exe, &a.cmdline) {
        t.row([dim("program"), safe(exe).into()]);
    }
    if !a.parents.is_empty() {
        let chain: Vec<String> = a.parents.iter().map(|p| safe(p)).collect();
        t.row([dim("started by"), chain.join(" < ").into()]);
    }
    if let Some(unit) = &a.unit {
        t.row([dim("unit"), safe(unit).into()]);
    }
    if let Some(container) = &a.container {
        t.row([dim("container"), safe(container).into()]);
    }
}

/// What could not be dealt with, the same reason once.
pub(crate) fn skipped(look: Look, list: &[Skipped], total: u64, what: &str) -> String {
    const PATHS: usize = 5;
    if total == 0 && list.is_empty() {
        return String::new();
    }
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for s in list {
        match reasons.iter_mut().find(|(why, _)| *why == s.why) {
            Some((_, paths)) => paths.push(&s.path),
            None => reasons.push((&s.why, vec![&s.path])),
        }
    }
    let total = total.max(len(list));
    let mut out = look.paint.tone(Tone::Warn, &format!("{} {what}", counted(total, "path"))) + "\n";
    for (why, paths) in reasons {
        out.push_str(&format!("  {}: {}\n", Safe(why), count(len(&paths))));
        for p in paths.iter().take(PATHS) {
            out.push_str(&format!("    {}\n", Safe(p)));
        }
        if paths.len() > PATHS {
            out.push_str(&format!("    and {} more\n", count(len(&paths) - 5)));
        }
    }
    if total > len(list) {
        out.push_str(&format!("  and {} more that were not sent\n", count(total - len(list))));
    }
    out
}
