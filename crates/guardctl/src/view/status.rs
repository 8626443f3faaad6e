//! Is it locked, since when, by whom, why, is it watched, is anything wrong.

use guard_api::method::StatusReply;
use guard_api::wire::{Daemon, Environment, Gap, GapCause, ReadState, State, WatchState};

use super::Look;
use crate::quantity::{absolute, both, bytes, count, counted, len, milliseconds, relative, span};
use crate::safe::{Safe, safe};
use crate::table::{Cell, Table};
use crate::terminal::Tone;

/// How many skipped paths are named.
const SHOWN: usize = 3;

/// All of it.
pub(crate) fn text(look: Look, status: &StatusReply) -> String {
    let mut out = daemon(look, &status.daemon);
    for e in &status.environments {
        out.push('\n');
        out.push_str(&environment(look, e, &status.daemon));
    }
    if status.environments.is_empty() {
        out.push_str("\nno environment is configured\n");
    }
    out
}

/// What to do next.
pub(crate) fn hints(status: &StatusReply) -> Vec<String> {
    let mut out = Vec::new();
    if status.environments.is_empty() {
        out.push("write a configuration: guardctl init DIR; then: guardctl reload".to_owned());
    }
    if status.daemon.alerts_open > 0 || status.environments.iter().any(|e| e.alerts_open > 0) {
        out.push("what changed: guardctl alerts".to_owned());
    }
    for e in &status.environments {
        match (e.state, &e.window, e.generation) {
            (State::Unlocked, Some(_), _) => out.push(format!("end the window: guardctl lock {}", e.name)),
            (State::Unlocked, None, None) => {
                out.push(format!("guard it from now on: guardctl lock {}", e.name))
            }
            (State::NeedsOperator, ..) => {
                out.push("what happened: journalctl -u guardd -n 50; guardctl log".to_owned())
            }
            _ => {}
        }
    }
    out.dedup();
    out
}

fn daemon(look: Look, d: &Daemon) -> String {
    let mut out = format!(
        "guardd {}  pid {}  running since {}\n",
        Safe(&d.version),
        d.pid,
        both(d.started_at, look.now)
    );
    let mut wrong: Vec<String> = d.degraded.iter().map(|w| safe(w)).collect();
    for s in d.sinks.iter().filter(|s| !s.healthy) {
        let why = s.error.as_deref().map(|e| format!(": {}", Safe(e))).unwrap_or_default();
        let behind =
            if s.behind > 0 { format!(", {} waiting", counted(s.behind, "record")) } else { String::new() };
        let said = format!("alerts do not get out by {}{why}{behind}", Safe(&s.name));
        // The daemon may have said so in its own words already.
        if !wrong.iter().any(|w| w.contains(&safe(&s.name))) {
            wrong.push(said);
        }
    }
    for line in wrong {
        out.push_str(&format!("  {}  {line}\n", look.paint.tone(Tone::Bad, "DEGRADED")));
    }
    if d.alerts_open > 0 {
        let open = counted(d.alerts_open, "alert");
        let said = "about guardd itself: its files, its keys or its ledger";
        out.push_str(&format!("  {}  {open} open {said}\n", look.paint.tone(Tone::Bad, "ALERT")));
    }
    out
}

fn environment(look: Look, e: &Environment, daemon: &Daemon) -> String {
    let (tone, state) = state_word(e);
    let mut out = format!(
        "{}  {}  {}",
        look.paint.tone(Tone::Strong, &safe(&e.name)),
        look.paint.tone(tone, &state),
        verdict(look, e, daemon)
    );
    out.truncate(out.trim_end().len());
    out.push('\n');
    let dim = |text: &str| Cell::toned(Tone::Dim, text);
    let mut t = Table::new().indented(2);
    t.row([dim("root"), safe(&e.root).into()]);
    standing(look, e, &mut t);
    if e.generation.is_some() {
        t.row([dim("protects"), protects(e).into()]);
    }
    if let Some(line) = seal(e).filter(|_| e.state != State::Unlocked) {
        t.row([dim("seal"), line]);
    }
    if e.generation.is_some() {
        t.row([dim("watch"), watch(e)]);
        t.row([dim("rehash"), rehash(look, e).into()]);
        if let Some(r) = &e.watch.reads {
            t.row([dim("reads"), reads(r)]);
        }
    }
    for g in &e.watch.gaps {
        t.row([dim("gap"), gap(look, g)]);
    }
    left_out(&e.watch, &mut t);
    for (name, line) in e.backups.iter().flat_map(|b| super::backup::in_status(look, b)) {
        t.row([dim(name), line]);
    }
    t.row([dim("alerts"), alerts(e.alerts_open)]);
    out.push_str(&t.render(look.paint));
    out
}

/// What a glance is for: anything that is not as it should be.
fn verdict(look: Look, e: &Environment, daemon: &Daemon) -> String {
    let mut wrong = Vec::new();
    if e.alerts_open > 0 {
        wrong.push(format!("{} open", counted(e.alerts_open, "alert")));
    }
    if e.window.as_ref().is_some_and(|w| w.until <= look.now) {
        wrong.push("the window is overdue".to_owned());
    }
    if e.generation.is_some() {
        match open_gaps(&e.watch) {
            0 => {}
            n => wrong.push(format!("{} open", counted(n, "gap"))),
        }
        if not_watched(&e.watch) {
            wrong.push("not watched by the kernel".to_owned());
        }
        if !e.watch.skipped.is_empty() {
            wrong.push(format!("{} skipped", counted(len(&e.watch.skipped), "path")));
        }
        if e.seal.as_ref().is_some_and(|s| s.asked != s.done) {
            wrong.push("sealed less than asked for".to_owned());
        }
    }
    if !daemon.degraded.is_empty() {
        wrong.push("guardd is degraded".to_owned());
    }
    if daemon.alerts_open > 0 {
        wrong.push("an alert about guardd itself".to_owned());
    }
    match (wrong.is_empty(), e.state) {
        (false, _) => look.paint.tone(Tone::Bad, &wrong.join(", ")),
        (true, State::Locked) => look.paint.tone(Tone::Good, "nothing wrong"),
        (true, _) => String::new(),
    }
}

fn open_gaps(w: &WatchState) -> u64 {
    w.gaps.iter().filter(|g| g.until.is_none()).fold(0, |n, _| n + 1)
}

fn not_watched(w: &WatchState) -> bool {
    w.backend.is_empty() || w.backend == "none"
}

fn state_word(e: &Environment) -> (Tone, String) {
    match e.state {
        State::Locked => (Tone::Good, "LOCKED".to_owned()),
        State::Unlocked if e.generation.is_none() => (Tone::Warn, "NEVER LOCKED".to_owned()),
        State::Unlocked => (Tone::Warn, "UNLOCKED".to_owned()),
        State::Busy => {
            let what = e.operation.as_deref().map(|o| format!(": {} runs", Safe(o))).unwrap_or_default();
            (Tone::Warn, format!("BUSY{what}"))
        }
        State::NeedsOperator => (Tone::Bad, "NEEDS AN OPERATOR".to_owned()),
        State::Unknown => (Tone::Warn, "IN A STATE THAT THIS guardctl DOES NOT KNOW".to_owned()),
    }
}

/// Since when, by whom, why; or the window.
fn standing(look: Look, e: &Environment, t: &mut Table) {
    let dim = |text: &str| Cell::toned(Tone::Dim, text);
    if let Some(w) = &e.window {
        let until = if w.until <= look.now { Tone::Bad } else { Tone::Warn };
        t.row([dim("until"), Cell::toned(until, both(w.until, look.now))]);
        t.row([dim("since"), format!("{} by {}", both(w.since, look.now), Safe(&w.by)).into()]);
        t.row([dim("maintainer"), safe(&w.maintainer).into()]);
        t.row([dim("reason"), safe(&w.reason).into()]);
        return;
    }
    if let Some(since) = e.since {
        let by = e.by.as_deref().map(|by| format!(" by {}", Safe(by))).unwrap_or_default();
        t.row([dim("since"), format!("{}{by}", both(since, look.now)).into()]);
    }
    if let Some(reason) = e.reason.as_deref().filter(|r| !r.is_empty()) {
        t.row([dim("reason"), safe(reason).into()]);
    }
}

fn protects(e: &Environment) -> String {
    let baseline = e.generation.map(|g| format!("  (baseline {g})")).unwrap_or_default();
    totals(&e.protected) + &baseline
}

/// `12,345 files, 1,203 directories, 1.2 GiB`
pub(crate) fn totals(t: &guard_api::wire::Totals) -> String {
    format!("{}, {}, {}", counted(t.files, "file"), counted(t.directories, "directory"), bytes(t.bytes))
}

fn seal(e: &Environment) -> Option<Cell> {
    let s = e.seal.as_ref()?;
    let mut line = safe(&s.done);
    if s.done != s.asked {
        line.push_str(&format!(", {} was asked for", Safe(&s.asked)));
    }
    if let Some(why) = &s.why {
        line.push_str(&format!(" ({})", Safe(why)));
    }
    if s.unsealed > 0 {
        let noun = if s.unsealed == 1 { "entry" } else { "entries" };
        line.push_str(&format!(", {} {noun} left unsealed", count(s.unsealed)));
    }
    if let Some(every) = s.every_ms {
        line.push_str(&format!(", looked at every {}", milliseconds(every)));
    }
    let tone = if s.done == s.asked { Tone::Plain } else { Tone::Warn };
    Some(Cell::toned(tone, line))
}

fn watch(e: &Environment) -> Cell {
    if not_watched(&e.watch) {
        return Cell::toned(Tone::Warn, "not by the kernel; only the rehash sees changes");
    }
    let backend = safe(&e.watch.backend);
    let on = match e.watch.directories {
        0 => String::new(),
        n => format!(" on {}", counted(n, "directory")),
    };
    let nameless = match (&e.watch.instead, &e.watch.nameless) {
        (Some(why), _) => format!(", which does not tell who made a change ({})", safe(why)),
        (None, Some(why)) => format!("; who ends at once may have no name ({})", safe(why)),
        (None, None) => String::new(),
    };
    match open_gaps(&e.watch) {
        0 => Cell::toned(Tone::Plain, format!("{backend}{on}{nameless}")),
        n => Cell::toned(Tone::Bad, format!("{backend}{on}, with {}", counted(n, "open gap"))),
    }
}

fn rehash(look: Look, e: &Environment) -> String {
    let every = match e.rehash_seconds {
        0 => String::new(),
        s => match e.rehash_overdue_seconds {
            Some(really) => format!("every {}, overdue: really every {}, ", span(s), span(really)),
            None => format!("every {}, ", span(s)),
        },
    };
    let last = match &e.last_rehash {
        Some(r) => format!(
            "last {} ({}, {} in {})",
            relative(r.finished_at, look.now),
            counted(r.files, "file"),
            bytes(r.bytes),
            milliseconds(r.duration_ms)
        ),
        None => "none finished yet".to_owned(),
    };
    let next = match e.next_rehash_at {
        Some(t) if t < look.now => format!(", the next was due {}", relative(t, look.now)),
        Some(t) => format!(", next {}", relative(t, look.now)),
        None => String::new(),
    };
    let deep = match &e.last_deep_rehash {
        Some(r) => format!("; from the disk {}", relative(r.finished_at, look.now)),
        None => String::new(),
    };
    format!("{every}{last}{next}{deep}")
}

/// Why hints may have been lost, in words.
pub(crate) fn cause(c: GapCause) -> &'static str {
    match c {
        GapCause::Down => "guardd was not running",
        GapCause::Overflow => "the kernel's queue overflowed",
        GapCause::Backend => "the watch reported an error",
        GapCause::Deaf => "the watch did not answer",
        GapCause::Root => "the root was gone or replaced",
        GapCause::Unknown => "for a cause that this guardctl does not know",
    }
}

fn gap(look: Look, g: &Gap) -> Cell {
    let detail = g.detail.as_deref().map(|d| format!(" ({})", Safe(d))).unwrap_or_default();
    let why = format!("{}{detail}", cause(g.cause));
    match g.until {
        None => Cell::toned(
            Tone::Bad,
            format!("OPEN since {}: {why}; not yet re-verified", both(g.since, look.now)),
        ),
        Some(until) => {
            let length = u64::try_from(until.0.saturating_sub(g.since.0) / 1000).unwrap_or(0);
            let verified =
                g.verified.as_deref().map(|v| format!("; re-verified: {}", Safe(v))).unwrap_or_default();
            let found = match g.found {
                0 => String::new(),
                n => format!(", {} found", counted(n, "difference")),
            };
            let tone = if g.found > 0 { Tone::Warn } else { Tone::Dim };
            let from = absolute(g.since);
            Cell::toned(tone, format!("closed, {from} for {}: {why}{verified}{found}", milliseconds(length)))
        }
    }
}

/// How it is told who reads sensitive files.
fn reads(r: &ReadState) -> Cell {
    let files = counted(r.files, "sensitive file");
    let said = match (&r.why, r.by.as_str()) {
        (Some(why), "none") => return Cell::toned(Tone::Warn, format!("not told ({})", Safe(why))),
        (Some(why), by) => return Cell::toned(Tone::Warn, format!("{} on {files}; {}", Safe(by), Safe(why))),
        (None, "none") => "no sensitive file to follow".to_owned(),
        (None, by) => format!("{} on {files}", Safe(by)),
    };
    let instead = r.instead.as_ref().map(|why| format!(" ({})", Safe(why))).unwrap_or_default();
    let alerts = if r.expects { "" } else { ", recorded only: no `readers` are configured" };
    Cell::toned(Tone::Plain, format!("{said}{instead}{alerts}"))
}

/// What is not watched and what means nothing.
fn left_out(w: &WatchState, t: &mut Table) {
    for s in w.skipped.iter().take(SHOWN) {
        let line = format!("{}: {}", Safe(&s.path), Safe(&s.why));
        t.row([Cell::toned(Tone::Dim, "skipped"), Cell::toned(Tone::Warn, line)]);
    }
    if w.skipped.len() > SHOWN {
        let line = format!("and {} more: guardctl status --json", w.skipped.len() - SHOWN);
        t.row([Cell::toned(Tone::Dim, "skipped"), Cell::toned(Tone::Warn, line)]);
    }
    for p in &w.unmatched {
        let line = format!("{} matches nothing", Safe(p));
        t.row([Cell::toned(Tone::Dim, "pattern"), Cell::toned(Tone::Warn, line)]);
    }
}

fn alerts(open: u64) -> Cell {
    match open {
        0 => Cell::toned(Tone::Plain, "none open"),
        n => Cell::toned(Tone::Bad, format!("{} open", count(n))),
    }
}
