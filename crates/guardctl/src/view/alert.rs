//! Alerts: the list, and one with everything.

use guard_api::Time;
use guard_api::method::ShowAlertReply;
use guard_api::wire::{Alert, AlertStatus, Severity};

use super::{Look, finding, heading, is_plain, shell_word};
use crate::quantity::{absolute, both, count, len, relative};
use crate::safe::{Safe, safe};
use crate::table::{Cell, Table};
use crate::terminal::Tone;

/// The severity's word and colour.
pub(crate) fn severity(s: Severity) -> (Tone, &'static str) {
    match s {
        Severity::Warning => (Tone::Warn, "warning"),
        Severity::High => (Tone::Bad, "high"),
        Severity::Critical => (Tone::Bad, "critical"),
        Severity::Unknown => (Tone::Bad, "unknown"),
    }
}

fn status(s: AlertStatus) -> &'static str {
    match s {
        AlertStatus::Open => "open",
        AlertStatus::Acknowledged => "acknowledged",
        AlertStatus::Resolved => "resolved",
        AlertStatus::Unknown => "unknown",
    }
}

/// The list.
pub(crate) fn list(look: Look, alerts: &[Alert], all: bool) -> String {
    if alerts.is_empty() {
        return if all { "no alerts\n" } else { "no open alerts\n" }.to_owned();
    }
    let mut t = Table::headed(&["ID", "SEVERITY", "STATUS", "ENVIRONMENT", "OPENED", "WHAT"]);
    for a in alerts {
        let (tone, word) = severity(a.severity);
        let total = total(a);
        let more = if total > 1 { format!("  +{} more", count(total - 1)) } else { String::new() };
        t.row([
            a.id.to_string().into(),
            Cell::toned(tone, word),
            status(a.status).into(),
            safe(&a.environment).into(),
            both(a.opened_at, look.now).into(),
            format!("{}{more}", Safe(&a.title)).into(),
        ]);
    }
    t.render(look.paint)
}

/// A daemon that says no total has sent them all.
fn total(a: &Alert) -> u64 {
    a.findings_total.max(len(&a.findings))
}

/// One alert with everything.
pub(crate) fn show(look: Look, reply: &ShowAlertReply) -> String {
    let a = &reply.alert;
    let (tone, word) = severity(a.severity);
    let mut out = format!(
        "alert {}  {}  {}  {}\n{}\n",
        a.id,
        look.paint.tone(tone, word),
        status(a.status),
        Safe(&a.environment),
        look.paint.tone(Tone::Strong, &safe(&a.title))
    );
    out.push_str(&format!("opened {}\n", both(a.opened_at, look.now)));
    out.push_str(&heading(look, &format!("FINDINGS ({})", count(total(a)))));
    out.push_str(&finding::details(look, &a.findings, total(a)));
    if !a.settled.is_empty() {
        out.push_str(&heading(look, "NO DIFFERENCE ANY MORE"));
        for p in &a.settled {
            out.push_str(&format!("{}\n", Safe(p)));
        }
    }
    if !a.notes.is_empty() {
        out.push_str(&heading(look, "SINCE THEN"));
        let mut t = Table::new();
        for n in &a.notes {
            t.row([absolute(n.at).into(), safe(&n.by).into(), safe(&n.text).into()]);
        }
        out.push_str(&t.render(look.paint));
    }
    out.push_str(&heading(look, "LOGGED IN AT THAT MOMENT"));
    out.push_str(&sessions(look, a));
    if !reply.journal.is_empty() {
        out.push_str(&heading(look, "SUDO AND SSH BEFORE IT"));
        for line in &reply.journal {
            out.push_str(&format!("{}\n", Safe(line)));
        }
    }
    out.push_str(&heading(look, "LOOK FURTHER"));
    for line in further(a) {
        out.push_str(&format!("{}\n", Safe(&line)));
    }
    out
}

fn sessions(look: Look, a: &Alert) -> String {
    if a.sessions.is_empty() {
        return "nobody\n".to_owned();
    }
    let mut t = Table::new();
    for s in &a.sessions {
        let from = if s.host.is_empty() { "local".to_owned() } else { format!("from {}", Safe(&s.host)) };
        let since = s.since.map(|t| format!("since {}", both(t, look.now))).unwrap_or_default();
        t.row([safe(&s.user).into(), safe(&s.tty).into(), from.into(), since.into()]);
    }
    t.render(look.paint)
}

/// Under this name stand alerts about guardd itself. No environment may have
/// it, so that nothing can be compared, accepted or put back there.
const GUARDD: &str = "guardd";

/// Commands that tell more.
fn further(a: &Alert) -> Vec<String> {
    const QUARTER: i64 = 15 * 60 * 1_000_000;
    let clock = |t: i64| absolute(Time(a.opened_at.0.saturating_add(t)));
    let (from, to) = (clock(-QUARTER), clock(QUARTER / 3));
    let mut out = if a.environment == GUARDD {
        vec![
            "guardctl check-config".to_owned(),
            "guardctl log -n 50".to_owned(),
            "guardctl log verify".to_owned(),
        ]
    } else {
        let environment = shell_word(&a.environment);
        vec![format!("guardctl diff {environment}"), format!("guardctl log {environment} -n 50")]
    };
    out.push(format!("journalctl --since '{from}' --until '{to}'"));
    out.push("last -F -n 20".to_owned());
    if let Some(path) = a.findings.first().map(|f| &f.path).filter(|p| !p.starts_with('/')) {
        out.insert(1, format!("guardctl who {} {}", shell_word(&a.environment), shell_word(path)));
    }
    let users: std::collections::BTreeSet<&str> =
        a.sessions.iter().map(|s| s.user.as_str()).filter(|u| is_plain(u)).collect();
    out.extend(users.into_iter().take(3).map(|u| format!("last -F {u}")));
    out
}

/// What to do about one alert.
pub(crate) fn hints(a: &Alert) -> Vec<String> {
    if a.status == AlertStatus::Resolved {
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut standing: Vec<&str> =
        a.findings.iter().map(|f| f.path.as_str()).filter(|p| !a.settled.iter().any(|s| s == p)).collect();
    standing.sort_unstable();
    standing.dedup();
    if !standing.is_empty() && a.environment != GUARDD {
        let few = standing.len() <= 3 && total(a) == len(&a.findings);
        let words: Vec<String> = standing.iter().map(|p| shell_word(p)).collect();
        let paths = if few { words.join(" ") } else { "PATH…".to_owned() };
        out.push(format!(
            "was it meant? guardctl accept {} {paths} --reason TEXT",
            shell_word(&a.environment)
        ));
    }
    if !a.reviewed {
        out.push(format!("looked at it? guardctl alerts ack {} --note TEXT", a.id));
    }
    out
}

/// After an acknowledgement.
pub(crate) fn acknowledged(look: Look, a: &Alert) -> String {
    let after = match a.status {
        AlertStatus::Resolved => "nothing differs any more: resolved",
        _ => "the difference still stands",
    };
    let opened = relative(a.opened_at, look.now);
    format!(
        "alert {} of {} ({}, opened {opened}) is acknowledged; {after}\n",
        a.id,
        Safe(&a.environment),
        Safe(&a.title)
    )
}
