//! Ledger records: one line each.

use guard_api::Time;
use guard_api::wire::{Finding, GapCause, Reading, Record, Severity, Totals};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Look, alert, finding, status};
use crate::quantity::{absolute, bytes, counted, len, milliseconds};
use crate::safe::{Safe, line_json, safe};
use crate::terminal::Tone;

/// How many findings of an alert are named.
const SHOWN: usize = 5;

/// `     17  2026-11-21 22:26:40 UTC  production  locked by …`
pub(crate) fn line(look: Look, r: &Record) -> String {
    let (tone, what) = words(r);
    let env = r.environment.as_deref().map_or("-".to_owned(), safe);
    let at = look.paint.tone(Tone::Dim, &absolute(r.at));
    let mut out = format!("{:>7}  {at}  {env}  {}\n", r.seq, look.paint.tone(tone, &what));
    if matches!(r.event.as_str(), "alert_opened" | "alert_grew" | "window_change") {
        let found: Vec<Finding> = field(r, "findings").unwrap_or_default();
        let (shown, rest) = found.split_at(found.len().min(SHOWN));
        for f in shown {
            out.push_str(&format!("         {}: {}\n", safe(&f.path), finding::changes(f)));
        }
        if !rest.is_empty() {
            let id = field(r, "alert").unwrap_or(r.seq);
            let how = if r.event == "window_change" {
                String::new()
            } else {
                format!(": guardctl alerts show {id}")
            };
            out.push_str(&format!("         and {} more{how}\n", rest.len()));
        }
    }
    out
}

fn field<T: DeserializeOwned>(r: &Record, name: &str) -> Option<T> {
    r.fields.get(name).and_then(|v| T::deserialize(v).ok())
}

fn word(r: &Record, name: &str) -> String {
    match r.fields.get(name) {
        Some(Value::String(s)) => safe(s),
        Some(Value::Null) | None => "?".to_owned(),
        Some(other) => line_json(other),
    }
}

fn number(r: &Record, name: &str) -> u64 {
    field(r, name).unwrap_or(0)
}

fn at(r: &Record, name: &str) -> String {
    field::<Time>(r, name).map_or("?".to_owned(), absolute)
}

fn paths(r: &Record) -> String {
    match field::<Vec<String>>(r, "paths").unwrap_or_default().as_slice() {
        [one] => safe(one),
        many => counted(len(many), "path"),
    }
}

/// What happened, in words, and how bad it is.
fn words(r: &Record) -> (Tone, String) {
    let w = |name| word(r, name);
    let n = |name| number(r, name);
    match r.event.as_str() {
        "daemon_started" => {
            let unclean = field(r, "after_clean_stop") == Some(false);
            let after = if unclean { ", the run before did not stop in order" } else { "" };
            let tone = if unclean { Tone::Warn } else { Tone::Plain };
            (tone, format!("guardd {} started, pid {}{after}", w("version"), w("pid")))
        }
        "daemon_stopped" => (Tone::Warn, format!("guardd stopped: {}", w("reason"))),
        "configuration" => configuration(r),
        "call" => call(r),
        "locked" => {
            let t: Totals = field(r, "totals").unwrap_or_default();
            let what = format!("locked by {}: {}", w("by"), w("reason"));
            let holds =
                format!("baseline {}, {}, seal {}", w("generation"), counted(t.files, "file"), w("seal"));
            (Tone::Good, format!("{what} ({holds})"))
        }
        "lock_repaired" => (
            Tone::Warn,
            format!("lock repaired by {}: {} put right", w("by"), counted(n("repaired"), "mode")),
        ),
        "window_opened" => {
            let who = format!("unlocked by {} for {}", w("by"), w("maintainer"));
            (Tone::Warn, format!("{who} until {}: {}", at(r, "until"), w("reason")))
        }
        "window_change" => (Tone::Plain, format!("changed inside maintenance window {}", w("window"))),
        "window_closed" => {
            let how = match w("how").as_str() {
                "lock" => "by lock".to_owned(),
                "timer" => "its time was up".to_owned(),
                "while_down" => "its time was up while guardd was down".to_owned(),
                other => other.to_owned(),
            };
            (
                Tone::Plain,
                format!(
                    "maintenance window {} closed: {how}, {} changed",
                    w("window"),
                    counted(n("changed"), "path")
                ),
            )
        }
        "alert_opened" | "alert_grew" | "alert_acknowledged" | "alert_settled" => about_alert(r),
        "accepted" => {
            let what = format!("{} accepted by {}", paths(r), w("by"));
            (Tone::Warn, format!("{what} as baseline {}: {}", w("generation"), w("reason")))
        }
        "restored" => {
            let paths: Vec<Value> = field(r, "paths").unwrap_or_default();
            let what = match paths.as_slice() {
                [one] => one.get("path").and_then(Value::as_str).map_or("?".to_owned(), safe),
                many => counted(len(many), "path"),
            };
            let from = match r.fields.contains_key("from") {
                true => format!(" from backup {}", w("from")),
                false => String::new(),
            };
            (Tone::Good, format!("{what} put back by {}{from}", w("by")))
        }
        "quarantined" => {
            let what = format!("{} taken away by {}", paths(r), w("by"));
            (Tone::Warn, format!("{what}, {} kept in quarantine/{}", bytes(n("bytes")), w("place")))
        }
        "put_back_stopped" => {
            (Tone::Bad, format!("not put back any more (alert {}): {}", w("alert"), w("why")))
        }
        "accessed" => {
            let readings: Vec<Reading> = field(r, "readings").unwrap_or_default();
            let more = if r.fields.contains_key("missed") {
                format!(", and more: {}", w("missed"))
            } else {
                String::new()
            };
            let what = match readings.as_slice() {
                [one] => {
                    let by = one.actor.as_ref().map_or("a process".to_owned(), finding::program);
                    format!("{} opened by {by}", Safe(&one.path))
                }
                many => format!("sensitive files opened by {}", counted(len(many), "reader")),
            };
            (Tone::Plain, format!("{what}{more}"))
        }
        "gap_opened" => {
            let why = field::<GapCause>(r, "cause").map_or("?", status::cause);
            let detail =
                if r.fields.contains_key("detail") { format!(" ({})", w("detail")) } else { String::new() };
            (Tone::Bad, format!("gap {} opened, since {}: {why}{detail}", r.seq, at(r, "since")))
        }
        "gap_closed" => {
            let found = match n("found") {
                0 => String::new(),
                n => format!(", {} found", counted(n, "difference")),
            };
            (Tone::Plain, format!("gap {} closed{found}; re-verified: {}", w("gap"), w("verified")))
        }
        "rehash_finished" => {
            let read = format!("{}, {}", counted(n("files"), "file"), bytes(n("bytes")));
            let differ = match n("findings") {
                0 => "nothing differs".to_owned(),
                n => counted(n, "difference"),
            };
            (Tone::Dim, format!("rehash: {read} in {}, {differ}", milliseconds(n("duration_ms"))))
        }
        "recovered" => (Tone::Warn, format!("{} was found half-done at start: {}", w("operation"), w("how"))),
        "backup_created" => {
            let note = if r.fields.contains_key("note") { format!(": {}", w("note")) } else { String::new() };
            let written = bytes(n("written"));
            (
                Tone::Plain,
                format!(
                    "backup {} ({}) made by {}, {written} written{note}",
                    w("backup"),
                    w("kind"),
                    w("by")
                ),
            )
        }
        "backup_pruned" => {
            let gone = field::<Vec<String>>(r, "backups").unwrap_or_default();
            let names: Vec<String> = gone.iter().map(|id| safe(id)).collect();
            (Tone::Plain, format!("backups removed by {}: {}", w("by"), names.join(", ")))
        }
        "backup_verified" => {
            let problems: Vec<String> = field(r, "problems").unwrap_or_default();
            let how = if w("how") == "drill" { "restored for a test" } else { "verified" };
            match problems.first() {
                None => (Tone::Good, format!("backup {} {how} by {}: good", w("backup"), w("by"))),
                Some(first) => (
                    Tone::Bad,
                    format!("backup {} {how} by {}: damaged: {}", w("backup"), w("by"), safe(first)),
                ),
            }
        }
        "backup_pinned" => {
            let what = if field(r, "pinned") == Some(true) { "pinned" } else { "unpinned" };
            (Tone::Plain, format!("backup {} {what} by {}", w("backup"), w("by")))
        }
        "backup_key" => {
            (Tone::Warn, format!("backups have a new recovery key by {}: {}", w("by"), w("recipient")))
        }
        "sink" if field(r, "healthy") == Some(true) => {
            (Tone::Plain, format!("alerts get out by {} again", w("sink")))
        }
        "sink" => (Tone::Bad, format!("alerts do not get out by {}: {}", w("sink"), w("error"))),
        "checkpoint" => (Tone::Dim, "checkpoint signed".to_owned()),
        other => (Tone::Plain, format!("{} {}", safe(other), line_json(&r.fields))),
    }
}

fn configuration(r: &Record) -> (Tone, String) {
    if field(r, "accepted") == Some(true) {
        return (Tone::Plain, "configuration applied".to_owned());
    }
    let problems: Vec<String> = field(r, "problems").unwrap_or_default();
    let first = problems.first().map(|p| format!(": {}", safe(p))).unwrap_or_default();
    let more = match problems.len() {
        0 | 1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    (Tone::Bad, format!("configuration refused{first}{more}"))
}

fn call(r: &Record) -> (Tone, String) {
    let peer = r.fields.get("peer").cloned().unwrap_or_default();
    let name = peer.get("name").and_then(Value::as_str).map(|n| format!("{} ", safe(n))).unwrap_or_default();
    let uid = peer.get("uid").map_or("?".to_owned(), line_json);
    let method = word(r, "method");
    let method = method.rsplit('.').next().unwrap_or(&method);
    let error =
        if r.fields.contains_key("error") { format!(": {}", word(r, "error")) } else { String::new() };
    let outcome = word(r, "outcome");
    let tone = if outcome == "done" { Tone::Plain } else { Tone::Warn };
    (tone, format!("{name}(uid {uid}) called {method}: {outcome}{error}"))
}

fn about_alert(r: &Record) -> (Tone, String) {
    let id = field(r, "alert").unwrap_or(r.seq);
    let severity = || field(r, "severity").map_or((Tone::Bad, "unknown"), |s: Severity| alert::severity(s));
    match r.event.as_str() {
        "alert_opened" => {
            let (tone, how_bad) = severity();
            (tone, format!("ALERT {id} {how_bad}: {}", word(r, "title")))
        }
        "alert_grew" => {
            let (tone, how_bad) = severity();
            let more = field::<Vec<Value>>(r, "findings").map_or(0, |f| len(&f));
            (tone, format!("ALERT {id} {how_bad}: {}", counted(more, "more finding")))
        }
        "alert_acknowledged" => {
            (Tone::Plain, format!("alert {id} acknowledged by {}: {}", word(r, "by"), word(r, "note")))
        }
        _ => (Tone::Plain, format!("alert {id}: {} {}", paths(r), word(r, "how"))),
    }
}
