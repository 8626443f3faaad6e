//! From a ledger record to the lines that tell of it.

mod access;
mod backup;
mod deployment;

use std::collections::BTreeMap;
use std::fmt::Display;

use guard_model::alert::title_of;
use guard_model::entry::Kind as EntryKind;
use guard_model::finding::Confidence;
use guard_model::ledger::{Event, Explained, GapCause, Outcome, Record, WindowEnd};
use guard_model::seal::flags_in_words;
use guard_model::{Actor, Change, Entry, Finding};

use crate::kinds;
use crate::notice::{Level, Notice};
use crate::text::free;

/// Lines for one alert, all of its records together.
pub(crate) const LINES_PER_ALERT: usize = 20;
/// Alerts whose line count is remembered.
const ALERTS_REMEMBERED: usize = 256;

/// Makes lines. It remembers how many lines each alert has had, so records must
/// be given in order; [`Renderer::WARM_UP`] records before the first one that
/// matters make it forget that it was ever stopped.
#[derive(Debug, Default)]
pub(crate) struct Renderer {
    shown: BTreeMap<u64, Shown>,
}

/// What was said of an alert's findings.
#[derive(Debug, Default)]
struct Shown {
    /// Each in a line of its own.
    lines: usize,
    /// The others.
    hidden: usize,
    /// How many others there were when that was said last.
    said: usize,
}

type Fields = Vec<(&'static str, String)>;

impl Renderer {
    pub(crate) const WARM_UP: u64 = 1000;

    /// The lines of a record: the same ones for the same records before it.
    pub(crate) fn notices(&mut self, record: &Record) -> Vec<Notice> {
        match &record.event {
            Event::AlertOpened { severity, title, findings, .. } => {
                if findings.is_empty() {
                    let fields = vec![("alert", record.seq.to_string()), ("title", free(title))];
                    let text = format!("alert {}: {title}", record.seq);
                    return one(record, (*severity).into(), fields, text);
                }
                self.findings(record, record.seq, (*severity).into(), findings)
            }
            Event::AlertGrew { alert, severity, findings } => {
                self.findings(record, *alert, (*severity).into(), findings)
            }
            Event::WindowChange { window, deployment, findings } => {
                window_change(record, *window, *deployment, findings)
            }
            Event::AlertSettled { alert, paths, how, .. } => settled(record, *alert, paths, how),
            Event::Accessed { readings, missed } => access::notices(record, readings, missed.as_deref()),
            _ => single(record),
        }
    }

    /// The lines of a record that is not in the ledger yet.
    pub(crate) fn undurable(record: &Record) -> Vec<Notice> {
        let mut notices = Self::default().notices(record);
        notices.iter_mut().for_each(|n| n.undurable = true);
        notices
    }

    fn findings(&mut self, record: &Record, alert: u64, level: Level, findings: &[Finding]) -> Vec<Notice> {
        let shown = self.shown.entry(alert).or_default();
        let room = LINES_PER_ALERT.saturating_sub(shown.lines);
        shown.lines += findings.len().min(room);
        let more = findings.len().saturating_sub(room);
        shown.hidden += more;
        // However small the steps in which an alert grows: said at first, and whenever it is twice as much.
        let says_so = more > 0 && shown.hidden >= shown.said.saturating_mul(2);
        if says_so {
            shown.said = shown.hidden;
        }
        let more = shown.hidden;
        while self.shown.len() > ALERTS_REMEMBERED {
            self.shown.pop_first();
        }
        let mut notices: Vec<Notice> = findings
            .iter()
            .take(room)
            .filter_map(|f| {
                let mut fields = vec![("alert", alert.to_string())];
                fields.extend(finding_fields(f));
                let text = format!("{} (alert {alert})", title_of(f));
                Some(Notice { at: f.at, ..notice(record, level, fields, text)? })
            })
            .collect();
        if says_so {
            let hint = format!("and {more} more: guardctl alerts show {alert}");
            let fields =
                vec![("alert", alert.to_string()), ("more", more.to_string()), ("hint", hint.clone())];
            notices.extend(notice(record, level, fields, hint));
        }
        notices
    }
}

fn notice(record: &Record, level: Level, fields: Fields, message: String) -> Option<Notice> {
    Some(Notice {
        at: record.at,
        level,
        environment: record.environment.clone(),
        kind: kinds::of(&record.event)?,
        fields,
        message,
        record: record.seq,
        previous: record.prev,
        undurable: false,
    })
}

fn one(record: &Record, level: Level, fields: Fields, message: String) -> Vec<Notice> {
    notice(record, level, fields, message).into_iter().collect()
}

fn window_change(
    record: &Record,
    window: u64,
    deployment: Option<Explained>,
    findings: &[Finding],
) -> Vec<Notice> {
    let whose = |fields: &mut Fields| {
        if let Some(by) = deployment {
            fields.push(("deployment", by.deployment.to_string()));
            fields.push(("assumed", yes(by.assumed)));
        }
    };
    let mut notices: Vec<Notice> = findings
        .iter()
        .take(LINES_PER_ALERT)
        .filter_map(|f| {
            let mut fields = vec![("window", window.to_string())];
            whose(&mut fields);
            fields.extend(finding_fields(f));
            let text = format!("{} in window {window}", title_of(f));
            Some(Notice { at: f.at, ..notice(record, Level::Info, fields, text)? })
        })
        .collect();
    if let Some(more) = findings.len().checked_sub(LINES_PER_ALERT).filter(|&n| n > 0) {
        let hint = format!("and {more} more: guardctl log");
        let fields = vec![("window", window.to_string()), ("more", more.to_string()), ("hint", hint.clone())];
        notices.extend(notice(record, Level::Info, fields, hint));
    }
    notices
}

fn settled(record: &Record, alert: u64, paths: &[String], how: &str) -> Vec<Notice> {
    let mut notices: Vec<Notice> = paths
        .iter()
        .take(LINES_PER_ALERT)
        .filter_map(|path| {
            let fields = vec![("alert", alert.to_string()), ("path", path.clone()), ("how", free(how))];
            notice(record, Level::Info, fields, format!("{path}: {how} (alert {alert})"))
        })
        .collect();
    if let Some(more) = paths.len().checked_sub(LINES_PER_ALERT).filter(|&n| n > 0) {
        let hint = format!("and {more} more: guardctl alerts show {alert}");
        let fields = vec![("alert", alert.to_string()), ("more", more.to_string()), ("hint", hint.clone())];
        notices.extend(notice(record, Level::Info, fields, hint));
    }
    notices
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// The records that make a single line.
fn single(record: &Record) -> Vec<Notice> {
    let mut fields: Fields = Vec::new();
    let mut put = |key, value: &dyn Display| fields.push((key, free(&value.to_string())));
    let (level, text) = match &record.event {
        Event::DaemonStarted { version, pid, after_clean_stop, .. } => {
            put("version", version);
            put("pid", pid);
            put("after_clean_stop", &yes(*after_clean_stop));
            let how = if *after_clean_stop { "" } else { ", after a stop that was not in order" };
            let level = if *after_clean_stop { Level::Notice } else { Level::Warning };
            (level, format!("guardd {version} started{how}"))
        }
        Event::DaemonStopped { reason } => {
            put("reason", reason);
            (Level::Notice, format!("guardd stops: {reason}"))
        }
        Event::Configuration { sha256, accepted, problems } => {
            put("accepted", &yes(*accepted));
            put("sha256", sha256);
            if *accepted {
                (Level::Notice, "a new configuration applies".to_owned())
            } else {
                put("problems", &problems.len());
                put("first", &problems.first().map_or("", String::as_str));
                let first = problems.first().map_or("no reason given", String::as_str);
                (Level::Warning, format!("the configuration is refused: {first}"))
            }
        }
        Event::Call { method, peer, outcome, error } => {
            let outcome_word = match outcome {
                Outcome::Done => "done",
                Outcome::Refused => "refused",
                Outcome::Failed => "failed",
            };
            put("method", method);
            put("outcome", &outcome_word);
            put("by", peer);
            put("uid", &peer.uid);
            if let Some(login) = peer.login_uid {
                put("login_uid", &login);
            }
            put("pid", &peer.pid);
            if let Some(error) = error {
                put("error", error);
            }
            let level = if *outcome == Outcome::Done { Level::Info } else { Level::Warning };
            let came_of_it = match error {
                Some(what) if *outcome == Outcome::Done => format!("{outcome_word}, {what}"),
                _ => outcome_word.to_owned(),
            };
            (level, format!("{method} by {peer}: {came_of_it}"))
        }
        Event::Locked { generation, by, reason, seal, totals, unsealed, .. } => {
            put("generation", generation);
            put("by", by);
            put("reason", reason);
            put("seal", seal);
            put("files", &totals.files);
            put("directories", &totals.directories);
            put("bytes", &totals.bytes);
            put("unsealed", unsealed);
            (Level::Notice, format!("locked, generation {generation}, by {by}: {reason}"))
        }
        Event::LockRepaired { by, repaired } => {
            put("by", by);
            put("repaired", repaired);
            (Level::Notice, format!("seal and lock file put right by {by}, {repaired} entries"))
        }
        Event::WindowOpened { by, maintainer, reason, until, .. } => {
            put("window", &record.seq);
            put("by", by);
            put("maintainer", maintainer);
            put("reason", reason);
            put("until", until);
            (Level::Notice, format!("unlocked until {until} by {by} for {maintainer}: {reason}"))
        }
        Event::WindowClosed { window, how, changed } => {
            let how = match how {
                WindowEnd::Lock => "lock",
                WindowEnd::Timer => "timer",
                WindowEnd::WhileDown => "while_down",
                WindowEnd::Deployment => "deployment",
            };
            put("window", window);
            put("how", &how);
            put("changed", changed);
            let level = if matches!(how, "lock" | "deployment") { Level::Notice } else { Level::Warning };
            (level, format!("window {window} closed by {how}, {changed} paths differ"))
        }
        Event::AlertAcknowledged { alert, by, note } => {
            put("alert", alert);
            put("by", by);
            put("note", note);
            (Level::Notice, format!("alert {alert} acknowledged by {by}: {note}"))
        }
        Event::Accepted { generation, by, reason, paths, .. } => {
            put("generation", generation);
            put("by", by);
            put("reason", reason);
            put("paths", &paths.len());
            let count = paths.len();
            (Level::Notice, format!("{count} paths accepted into generation {generation} by {by}: {reason}"))
        }
        Event::Restored { by, from, paths } => {
            put("by", by);
            put("paths", &paths.len());
            if let Some(from) = from {
                put("from", from);
            }
            let first = paths.first().map(|p| p.path.to_string()).unwrap_or_default();
            let text = match paths.len() {
                1 => format!("put back by {by}: {first}"),
                n => format!("{n} paths put back by {by}, the first: {first}"),
            };
            put("first", &first);
            (Level::Notice, text)
        }
        Event::Quarantined { by, place, paths, bytes } => {
            put("by", by);
            put("place", place);
            put("paths", &paths.len());
            put("bytes", bytes);
            let first = paths.first().map_or("", String::as_str);
            put("first", &first);
            let count = paths.len();
            (
                Level::Notice,
                format!("{count} paths taken away into quarantine/{place} by {by}, the first: {first}"),
            )
        }
        Event::PutBackStopped(stop) => {
            put("alert", &stop.alert);
            if let Some(path) = &stop.path {
                put("path", path);
            }
            put("why", &stop.why);
            (Level::Critical, format!("not put back any more (alert {}): {}", stop.alert, stop.why))
        }
        Event::GapOpened { cause, since, detail } => {
            let cause = cause_word(*cause);
            put("gap", &record.seq);
            put("cause", &cause);
            put("since", since);
            if let Some(detail) = detail {
                put("detail", detail);
            }
            let detail = detail.as_deref().map(|d| format!(": {d}")).unwrap_or_default();
            (Level::Warning, format!("changes may have gone unnoticed since {since} ({cause}{detail})"))
        }
        Event::GapClosed { gap, verified, found } => {
            put("gap", gap);
            put("verified", verified);
            put("found", found);
            (Level::Notice, format!("gap {gap} closed: {verified}, {found} findings"))
        }
        Event::RehashFinished { files, bytes, duration_ms, findings, deep } => {
            put("files", files);
            put("bytes", bytes);
            put("duration_ms", duration_ms);
            put("findings", findings);
            let from = if *deep { " from the disk" } else { "" };
            (Level::Info, format!("{files} files read again{from} in {duration_ms} ms, {findings} differ"))
        }
        Event::Recovered { operation, how } => {
            put("operation", operation);
            put("how", how);
            (Level::Warning, format!("{operation} was found half-done: {how}"))
        }
        Event::Sink { sink, healthy, error } => {
            put("sink", sink);
            put("healthy", &yes(*healthy));
            if let Some(error) = error {
                put("error", error);
            }
            match (healthy, error) {
                (true, _) => (Level::Notice, format!("{sink} works again")),
                (false, error) => (
                    Level::Warning,
                    format!("{sink} fails: {}", error.as_deref().unwrap_or("no cause given")),
                ),
            }
        }
        Event::BackupCreated { .. }
        | Event::BackupPruned { .. }
        | Event::BackupVerified { .. }
        | Event::BackupPinned { .. }
        | Event::BackupKey { .. } => match backup::words(&record.event, &mut put) {
            Some(said) => said,
            None => return Vec::new(),
        },
        Event::DeploymentStarted { .. }
        | Event::DeploymentPhase { .. }
        | Event::DeploymentResult { .. }
        | Event::DeploymentSecured { .. }
        | Event::DeploymentEnded { .. } => match deployment::words(record, &mut put) {
            Some(said) => said,
            None => return Vec::new(),
        },
        Event::Checkpoint { .. } => {
            put("seq", &record.seq);
            (Level::Info, format!("the ledger is signed up to record {}", record.seq.saturating_sub(1)))
        }
        Event::AlertOpened { .. }
        | Event::AlertGrew { .. }
        | Event::AlertSettled { .. }
        | Event::WindowChange { .. }
        | Event::Accessed { .. }
        | Event::Unknown => return Vec::new(),
    };
    one(record, level, fields, text)
}

fn cause_word(cause: GapCause) -> &'static str {
    match cause {
        GapCause::Down => "down",
        GapCause::Overflow => "overflow",
        GapCause::Backend => "backend",
        GapCause::Deaf => "deaf",
        GapCause::Root => "root",
    }
}

/// What a finding's line says: path, change, each changed attribute before and
/// after, who. Digests are left out: a log is read by more people than a
/// secret's content should be guessed by, and `guardctl alerts show` has them.
fn finding_fields(finding: &Finding) -> Fields {
    let words: Vec<String> = finding.change.iter().map(ToString::to_string).collect();
    let mut fields = vec![("path", finding.path.clone()), ("change", words.join(","))];
    match (&finding.before, &finding.after) {
        (Some(before), Some(after)) => {
            fields.extend(finding.change.iter().filter_map(|c| changed(*c, before, after)));
        }
        (None, Some(entry)) | (Some(entry), None) => {
            fields.push(("type", kind_word(entry.kind).to_owned()));
            if entry.kind == EntryKind::File {
                fields.push(("size", entry.size.to_string()));
            }
            fields.push(("mode", format!("{:04o}", entry.mode)));
            fields.push(("owner", format!("{}:{}", entry.uid, entry.gid)));
            if let Some(target) = &entry.target {
                fields.push(("target", guard_model::path::escape(target)));
            }
        }
        (None, None) => {}
    }
    if finding.restored {
        fields.push(("restored", yes(true)));
    }
    if let Some(actor) = &finding.actor {
        fields.extend(actor_fields(actor));
    }
    if let Some(note) = &finding.note {
        fields.push(("note", free(note)));
    }
    fields
}

fn changed(change: Change, before: &Entry, after: &Entry) -> Option<(&'static str, String)> {
    let arrow = |a: &dyn Display, b: &dyn Display| format!("{a}->{b}");
    let target = |e: &Entry| e.target.as_deref().map(guard_model::path::escape).unwrap_or_default();
    Some(match change {
        Change::Type => ("type", arrow(&kind_word(before.kind), &kind_word(after.kind))),
        Change::Size => ("size", arrow(&before.size, &after.size)),
        Change::Mode => {
            ("mode", arrow(&format_args!("{:04o}", before.mode), &format_args!("{:04o}", after.mode)))
        }
        Change::Owner => {
            let owner = |e: &Entry| format!("{}:{}", e.uid, e.gid);
            ("owner", arrow(&owner(before), &owner(after)))
        }
        Change::Inode => ("inode", arrow(&before.ino, &after.ino)),
        Change::Links => ("links", arrow(&before.nlink, &after.nlink)),
        Change::Target if before.rdev != after.rdev => {
            ("device", arrow(&device(before.rdev), &device(after.rdev)))
        }
        Change::Target => ("target", arrow(&target(before), &target(after))),
        Change::Flags => ("flags", arrow(&flags_in_words(before.flags), &flags_in_words(after.flags))),
        Change::Mtime => ("mtime", stamp(after)),
        Change::Xattr => ("xattr", xattrs(before, after)),
        Change::Mount => ("device", arrow(&device(before.dev), &device(after.dev))),
        Change::Created
        | Change::Deleted
        | Change::Content
        | Change::Seal
        | Change::LockFile
        | Change::Root
        | Change::Read => return None,
    })
}

fn device(number: u64) -> String {
    format!("{}:{}", number >> 32, number & 0xffff_ffff)
}

/// The time of the change that the file claims, to the microsecond.
fn stamp(entry: &Entry) -> String {
    let micros = entry.mtime.sec.saturating_mul(1_000_000).saturating_add(i64::from(entry.mtime.nsec / 1000));
    guard_model::Timestamp(micros).to_string()
}

/// Names that came (`+`), went (`-`) or have another value (`~`).
fn xattrs(before: &Entry, after: &Entry) -> String {
    let value = |e: &'_ Entry, name: &[u8]| e.xattrs.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let mut names: Vec<&Vec<u8>> = before.xattrs.iter().chain(&after.xattrs).map(|(n, _)| n).collect();
    names.sort();
    names.dedup();
    let changes: Vec<String> = names
        .into_iter()
        .filter_map(|name| {
            let sign = match (value(before, name), value(after, name)) {
                (None, Some(_)) => '+',
                (Some(_), None) => '-',
                (a, b) if a != b => '~',
                _ => return None,
            };
            Some(format!("{sign}{}", guard_model::path::escape(name)))
        })
        .collect();
    changes.join(",")
}

fn kind_word(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharDevice => "char_device",
        EntryKind::BlockDevice => "block_device",
    }
}

fn actor_fields(actor: &Actor) -> Fields {
    let mut fields = vec![("pid", actor.pid.to_string())];
    let mut put = |key, value: Option<String>| fields.extend(value.map(|v| (key, free(&v))));
    // The executable says more, and its name is chosen by nobody.
    put("comm", actor.comm.clone().filter(|_| actor.exe.is_none()));
    put("exe", actor.exe.clone());
    put("uid", actor.uid.map(|u| u.to_string()));
    put("login_uid", actor.login_uid.map(|u| u.to_string()));
    put("unit", actor.unit.clone());
    put("container", actor.container.clone());
    put("cmdline", actor.cmdline.clone());
    put(
        "who",
        match actor.confidence {
            Confidence::Verified => None,
            Confidence::Exited => Some("exited".to_owned()),
            Confidence::Unknown => Some("unknown".to_owned()),
        },
    );
    fields
}

#[cfg(test)]
mod tests;
