//! Everything that must hold before a deployment, for `guardctl validate` and for a deployment's own first part.
//!
//! What needs the daemon's knowledge (lock, integrity, seal, backups) is looked at here; what looks at the application is
//! looked at by a child as the environment's user ([`child`]), and what looks into the git repository by one as the
//! repository's owner. A gate of which nothing was heard is unknown.

mod backups;
mod child;
mod git;
mod own;

use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use guard_api::Known;
use guard_api::wire::{CheckResult, SealState};
use guard_config::Environment;
use guard_deploy::worker::{Line, Look};
use guard_model::deploy::{Gate, Probe, Verdict};
use guard_model::state::EnvironmentState;

use crate::ward::Ward;
use crate::warden::BackupView;

/// What is looked at.
pub(crate) struct Subject {
    pub(crate) ward: Ward,
    pub(crate) config: Environment,
    pub(crate) state: EnvironmentState,
    pub(crate) root: PathBuf,
    /// Why there is no root to look at: it is gone, or something else stands there.
    pub(crate) rootless: Option<String>,
    pub(crate) seal: Option<SealState>,
    /// The commit that the last deployment left, where one did.
    pub(crate) recorded: Option<String>,
}

/// What only the warden can do.
pub(crate) struct Ways<'a> {
    /// Compares every byte with the baseline.
    pub(crate) check: &'a mut dyn FnMut() -> Result<CheckResult, Known>,
    /// Where the backups are.
    pub(crate) backups: &'a mut dyn FnMut() -> Result<BackupView, Known>,
    /// Set when nobody wants to know any more.
    pub(crate) stop: &'a AtomicBool,
    /// Hears each gate as soon as it is known.
    pub(crate) tell: &'a mut dyn FnMut(&Gate),
}

/// Looks at all gates.
pub(crate) fn all(subject: &Subject, ways: Ways<'_>) -> Vec<Gate> {
    let Ways { check, backups, stop, tell } = ways;
    let mut found = Vec::new();
    let mut add = |gate: Gate| {
        tell(&gate);
        found.push(gate);
    };
    let is_locked = Ward::is_locked(&subject.state);
    add(own::lock(subject));
    let checked = is_locked.then(&mut *check);
    add(own::integrity(subject, checked.as_ref()));
    add(own::seal(subject, checked.as_ref()));
    for gate in backups::all(subject, backups()) {
        add(gate);
    }
    if let Some(gate) = git::work_tree(subject, stop) {
        add(gate);
    }
    application(subject, stop, &mut add);
    found
}

/// The user as whom the application is looked at: who deploys it, or else who owns its root.
fn user(subject: &Subject) -> Result<String, String> {
    if let Some(deploy) = &subject.config.deploy {
        return Ok(deploy.run_as.clone());
    }
    crate::work_tree::owner(&subject.root)
}

/// Gates of a kind that the daemon itself looks at: a child has no say in them.
const OURS: [&str; 6] = ["lock", "integrity", "seal", "backup", "disk", "git"];

fn application(subject: &Subject, stop: &AtomicBool, add: &mut dyn FnMut(Gate)) {
    let config = &subject.config;
    let health: Vec<Probe> = config.deploy.as_ref().map(|d| d.health.clone()).unwrap_or_default();
    let is_nothing = config.compose.is_none() && config.validation.is_none() && health.is_empty();
    if is_nothing {
        return;
    }
    let look = Look::Gates {
        validation: config.validation.clone().unwrap_or_default(),
        compose: config.compose.clone(),
        health,
    };
    let mut is_done = false;
    let run = user(subject).and_then(|user| {
        child::run(subject, &user, look, stop, &mut |line| match line {
            Line::Gate(gate) if !OURS.contains(&gate.gate.as_str()) => add(gate),
            Line::Done => is_done = true,
            _ => {}
        })
    });
    let why = match run {
        Ok(()) if is_done => return,
        Ok(()) => "whoever looked ended before everything was looked at".to_owned(),
        Err(why) => why,
    };
    let by_hand = format!("guardctl validate {}", subject.ward.name);
    add(gate("application", "", Verdict::Unknown, why, by_hand));
}

/// An error in words.
pub(crate) fn told(known: &Known) -> String {
    guard_api::CallError::from(known.clone()).to_string()
}

fn gate(gate: &str, subject: &str, verdict: Verdict, evidence: String, by_hand: String) -> Gate {
    Gate { gate: gate.to_owned(), subject: subject.to_owned(), verdict, evidence, by_hand }
}
