//! Before the first step: what must hold, the window, and what would be rolled back to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use guard_api::Known;
use guard_model::deploy::{Force, Gate, Phase, Verdict};
use guard_model::{BackupKind, RelPath, Severity};

use super::desk::{Desk, Fault, failed};
use super::keep::keep;
use super::looks;
use crate::failure::chain;
use crate::gates::Ways;
use crate::operations::Work;
use crate::operations::backup::{Cause, OnNoBackup};
use crate::ward::Ward;
use crate::warden::{Command, UnlockWish};

/// Longer than any deployment: its window ends with it.
const WINDOW: Duration = Duration::from_secs(30 * 86_400);

/// Brings it to where the first step may run. What fails here has changed nothing of the tree.
pub(super) fn prepare(desk: &mut Desk) -> Result<(), Fault> {
    tell_forced(desk)?;
    gates(desk)?;
    open_window(desk)?;
    secure(desk)
}

/// What was skipped is an alert until somebody has looked.
fn tell_forced(desk: &Desk) -> Result<(), Fault> {
    let d = &desk.order.deployment;
    if d.force.is_empty() {
        return Ok(());
    }
    let skipped: Vec<&str> = d.force.iter().map(|f| f.word()).collect();
    let title = format!("deployment {} skips {}: {} ({})", d.id, skipped.join(", "), d.reason, d.by);
    desk.tell(vec![crate::sessions::alert(Severity::High, title, Vec::new())])?;
    Ok(())
}

fn gates(desk: &mut Desk) -> Result<(), Fault> {
    let mut held_up = Vec::new();
    for mut gate in looked_at(desk)? {
        let since = Instant::now();
        if !gate.verdict.lets_pass() && desk.order.deployment.force.contains(&force_of(&gate)) {
            gate.verdict = Verdict::Waived;
        }
        let name = if gate.subject.is_empty() {
            gate.gate.clone()
        } else {
            format!("{} {}", gate.gate, gate.subject)
        };
        let told = format!("{}: {}", verdict_word(gate.verdict), gate.evidence);
        // What is skipped stays recorded as failing: a probe that failed before proves nothing afterwards.
        let outcome = if gate.verdict == Verdict::Pass { Ok(&*told) } else { Err(&*told) };
        desk.end(Phase::Preflight, Some(&name), since, outcome)?;
        if !gate.verdict.lets_pass() {
            held_up.push(format!("{name}: {}", gate.evidence));
        }
    }
    match held_up.split_first() {
        None => Ok(()),
        Some((first, [])) => Err(failed(first.clone())),
        Some((first, more)) => Err(failed(format!("{first}; and {} more (guardctl validate)", more.len()))),
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "holds",
        Verdict::Fail => "does not hold",
        Verdict::Unknown => "could not be told",
        Verdict::Waived => "does not hold, and is skipped",
    }
}

/// Which word of `--force` skips a gate.
fn force_of(gate: &Gate) -> Force {
    match gate.gate.as_str() {
        "lock" => Force::Lock,
        "integrity" => Force::Integrity,
        "probe" => Force::Health,
        _ => Force::Validate,
    }
}

/// Everything that must hold, as it is found now.
fn looked_at(desk: &mut Desk) -> Result<Vec<Gate>, Fault> {
    desk.begin(Phase::Preflight, None)?;
    let subject = desk.ask(Command::Gates)?;
    let stop = Arc::clone(&desk.order.stop);
    let desk = &*desk;
    let ways = Ways {
        check: &mut || {
            let work = Work::shared();
            known(desk.ask(|reply| Command::Check { quick: false, below: RelPath::root(), work, reply }))
        },
        backups: &mut || known(desk.ask(Command::Backups)),
        stop: &stop,
        tell: &mut |_| {},
    };
    let gates = crate::gates::all(&subject, ways);
    if desk.is_cancelled() {
        return Err(failed("it was cancelled"));
    }
    Ok(gates)
}

fn known<T>(asked: Result<T, Fault>) -> Result<T, Known> {
    asked.map_err(|fault| {
        let message = fault.why().unwrap_or_else(|_gone| "guardd stops".to_owned());
        Known::Failed { message, hint: None }
    })
}

/// Unlocks what is locked, for as long as it takes.
pub(super) fn open_window(desk: &mut Desk) -> Result<(), Fault> {
    if !Ward::is_locked(&desk.order.state) {
        return Ok(());
    }
    let since = desk.begin(Phase::Window, None)?;
    let d = &desk.order.deployment;
    let (by, reason) = (d.by.clone(), format!("{} {}: {}", d.kind, d.id, d.reason));
    let work = Work::shared();
    let unlocked = desk.ask(|reply| {
        Command::Unlock(UnlockWish {
            maintainer: by.clone(),
            by,
            reason,
            length: Some(WINDOW),
            longest: WINDOW,
            on_no_backup: OnNoBackup::Refuse,
            work,
            reply,
        })
    })?;
    let told = match unlocked.skipped.len() {
        0 => "unlocked".to_owned(),
        n => format!("unlocked; {n} entries are not as they were locked"),
    };
    desk.end(Phase::Window, None, since, Ok(&told))
}

/// The tree is backed up, and what would be needed to go back is known.
fn secure(desk: &mut Desk) -> Result<(), Fault> {
    if desk.is_cancelled() {
        return Err(failed("it was cancelled"));
    }
    let since = desk.begin(Phase::Backup, None)?;
    let view = desk.ask(Command::Backups)?;
    let root = view.root.clone()?;
    let d = &desk.order.deployment;
    let cause = Cause::new(BackupKind::PreDeployment, &d.by, view.generation);
    let cause = cause.noted(format!("before {} {}", d.kind, d.id));
    let work = Work::shared();
    let made = view
        .store(&root, cause, &work)
        .map_err(|e| failed(format!("no backup could be made: {}", chain(&e))))?;
    let backup = made.made.manifest.id.clone();
    if made.made.manifest.missing > 0 {
        let what = made.warnings().join("; ");
        view.vault.take_back(&backup);
        return Err(failed(format!("the backup would not be whole: {what}")));
    }
    desk.tell(vec![made.event()]).inspect_err(|_| view.vault.take_back(&backup))?;
    let revision = super::release::revision(desk);
    let images = looks::pin_images(desk)?;
    desk.secured(backup.clone(), revision, images)?;
    let files = made.made.manifest.totals.files;
    desk.end(Phase::Backup, None, since, Ok(&format!("{files} files in backup {backup}, read back")))?;
    keep(desk, &backup)
}
