//! What a refused user reads: who locked it, when, why, and how to go on.

use guard_model::failure::chain;
use guard_model::path::escape;

use crate::standing::{Standing, UnknownState};

/// What is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// A branch and what would become of it; several where one operation moves several.
    pub branches: Vec<(String, String)>,
    /// How to go on from here without the branch.
    pub next: Vec<String>,
}

/// The message while the environment is locked.
#[must_use]
pub fn locked(standing: &Standing, refused: &Refused) -> String {
    let lock = &standing.lock;
    let mut out = String::from("guardd: refused\n");
    for (branch, fate) in &refused.branches {
        out.push_str(&format!(
            "  branch {branch} {fate}, but it is locked with environment {}\n",
            lock.environment
        ));
    }
    let reason = if lock.reason.is_empty() { "no reason given".to_owned() } else { quiet(&lock.reason) };
    let by = if lock.by.is_empty() { "unknown".to_owned() } else { quiet(&lock.by) };
    out.push_str(&format!("  locked by {by} since {}: {reason}\n", lock.since));
    hints(&mut out, &refused.next);
    out.push_str(&format!(
        "  to change it: ask for a maintenance window (guardctl unlock {} --reason TEXT --maintainer NAME)\n",
        lock.environment
    ));
    out
}

/// The message where it cannot be known whether the environment is locked.
#[must_use]
pub fn unknown(environment: &str, error: &UnknownState, refused: &Refused) -> String {
    let mut out = String::from("guardd: refused\n");
    for (branch, fate) in &refused.branches {
        out.push_str(&format!("  branch {branch} {fate}, and whether it is locked cannot be known\n"));
    }
    out.push_str(&format!("  environment {}: {}\n", quiet(environment), quiet(&chain(error))));
    hints(&mut out, &refused.next);
    out.push_str(
        "  whoever administrates guardd on this machine sees more with: guardctl status, guardd verify --offline\n",
    );
    out
}

fn hints(out: &mut String, next: &[String]) {
    for hint in next {
        out.push_str(&format!("  {hint}\n"));
    }
}

/// Text of others on one line, unable to steer a terminal.
fn quiet(text: &str) -> String {
    escape(text.as_bytes())
}
