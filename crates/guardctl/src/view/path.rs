//! What is recorded of a path and what happened to it.

use guard_api::method::WhoReply;
use guard_api::wire::PathEvent;

use super::{Look, finding, heading};
use crate::quantity::both;
use crate::safe::{Safe, safe};
use crate::table::{Cell, Table};
use crate::terminal::Tone;
use crate::users;

/// All of it.
pub(crate) fn text(look: Look, r: &WhoReply) -> String {
    let mut out = format!("{}  {}\n", look.paint.tone(Tone::Strong, &safe(&r.path)), Safe(&r.environment));
    match &r.expected {
        Some(e) => out.push_str(&format!("baseline: {}\n", finding::entry(e))),
        None => out.push_str("the baseline has no such path\n"),
    }
    out.push_str(&heading(look, "HISTORY"));
    if r.history.is_empty() {
        out.push_str("nothing is recorded of this path\n");
    }
    for e in &r.history {
        out.push_str(&event(look, e));
    }
    out
}

fn event(look: Look, e: &PathEvent) -> String {
    let what = e.finding.as_ref().map(finding::changes).unwrap_or_default();
    let belongs = match (e.alert, e.window) {
        (Some(a), _) => format!("  alert {a}"),
        (None, Some(_)) if e.deployment.is_some() => {
            let during = if e.assumed == Some(true) { "during" } else { "by" };
            format!("  {during} deployment {}", e.deployment.unwrap_or_default())
        }
        (None, Some(w)) => format!("  in maintenance window {w}"),
        (None, None) => format!("  {}", Safe(&e.event)),
    };
    let mut out = format!("{}{belongs}  {what}\n", both(e.at, look.now)).replace("  \n", "\n");
    let mut t = Table::new().indented(4);
    let dim = |text: &str| Cell::toned(Tone::Dim, text);
    if let Some(a) = e.finding.as_ref().and_then(|f| f.actor.as_ref()) {
        let what = finding::program(a);
        let user = a.login_uid.or(a.uid).map(|u| format!(", {}", users::user(u))).unwrap_or_default();
        t.row([dim("by"), format!("{what}, pid {}{user}", a.pid).into()]);
    }
    if let Some(by) = &e.by {
        t.row([dim("responsible"), safe(by).into()]);
    }
    if let Some(reason) = e.reason.as_deref().filter(|r| !r.is_empty()) {
        t.row([dim("reason"), safe(reason).into()]);
    }
    if let Some(now) = e.finding.as_ref().and_then(|f| f.after.as_ref()) {
        t.row([dim("then"), finding::entry(now).into()]);
    }
    out.push_str(&t.render(look.paint));
    out
}
