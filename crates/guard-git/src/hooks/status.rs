//! How the hooks of a repository stand, and what could get past them.

use std::path::{Path, PathBuf};

use rustix::fs::StatVfsMountFlags;
use serde::Serialize;

use super::Hook;
use super::install::{is_executable, is_ours, same};
use super::layout::Layout;
use super::note::{Note, digest_of, previous_name};
use crate::error::GitError;

/// The first git that calls `reference-transaction`.
const FIRST_WITH_TRANSACTIONS: (u32, u32) = (2, 28);

/// One hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HookState {
    /// As it was installed.
    InPlace,
    /// Written by guardd, but not what was installed.
    Altered,
    /// Somebody else's hook has the name.
    Replaced,
    /// Git would not run it.
    NotExecutable,
    /// Nothing is there.
    Missing,
}

/// One hook and what follows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HookStatus {
    /// Git's name for it.
    pub name: String,
    /// How it stands.
    pub state: HookState,
    /// True where a previous hook is called after it.
    pub chained: bool,
}

/// All of a repository's hooks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Were they installed at all?
    pub installed: bool,
    /// The environment that guards the repository.
    pub environment: Option<String>,
    /// Where guardd keeps the lock files, as the hooks know it.
    pub state_dir: Option<PathBuf>,
    /// Where git looks for hooks.
    pub directory: PathBuf,
    /// Every hook of ours.
    pub hooks: Vec<HookStatus>,
    /// What makes them useless, or could get past them here.
    pub weaknesses: Vec<String>,
}

impl Status {
    /// True where every hook is in place and git calls it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.installed
            && self.weaknesses.is_empty()
            && self.hooks.iter().all(|h| h.state == HookState::InPlace)
    }
}

/// Looks at the hooks.
///
/// # Errors
/// [`GitError`].
pub fn status(layout: &Layout) -> Result<Status, GitError> {
    let note = Note::read(layout)?;
    let checks_only = note.as_ref().is_some_and(|n| n.environment.is_none());
    let mut hooks = Vec::new();
    for hook in Hook::ALL {
        if checks_only && !hook.looks_at_contents() {
            continue;
        }
        hooks.push(one(layout, note.as_ref(), hook.name())?);
    }
    let mut weaknesses = Vec::new();
    if let Some(note) = &note {
        if !same(&layout.hooks, &note.directory) {
            weaknesses.push(format!(
                "git looks for hooks in {}: core.hooksPath was changed after the installation",
                layout.hooks.display()
            ));
        }
        if !is_executable(&note.program) {
            weaknesses.push(format!(
                "{} cannot be run: protected branches do not move at all",
                note.program.display()
            ));
        }
    }
    if is_noexec(&layout.hooks) {
        weaknesses
            .push(format!("{} is on a file system mounted noexec: git runs no hook", layout.hooks.display()));
    }
    if let Some(found) = version(layout)?.filter(|v| *v < FIRST_WITH_TRANSACTIONS) {
        weaknesses.push(format!(
            "git {}.{} does not call reference-transaction: merge, rebase, reset and --no-verify pass",
            found.0, found.1
        ));
    }
    Ok(Status {
        installed: note.is_some(),
        environment: note.as_ref().and_then(|n| n.environment.clone()),
        state_dir: note.map(|n| n.state_dir),
        directory: layout.hooks.clone(),
        hooks,
        weaknesses,
    })
}

/// The environment that the hooks of `dir`'s repository were installed for; `None` without hooks of ours.
#[must_use]
pub fn guarded_by(dir: &Path) -> Option<String> {
    let note = Note::read(&Layout::find(dir).ok()?).ok()??;
    note.environment
}

fn one(layout: &Layout, note: Option<&Note>, name: &str) -> Result<HookStatus, GitError> {
    let path = layout.hooks.join(name);
    let kept = note.and_then(|n| n.hook(name));
    let state = match digest_of(&path)? {
        None => HookState::Missing,
        Some(found) if kept.is_some_and(|k| k.sha256 == found) => {
            if is_executable(&path) {
                HookState::InPlace
            } else {
                HookState::NotExecutable
            }
        }
        Some(_) if std::fs::read(&path).is_ok_and(|text| is_ours(&text)) => HookState::Altered,
        Some(_) => HookState::Replaced,
    };
    let waits = layout.hooks.join(previous_name(name)).symlink_metadata().is_ok();
    let chained = kept.is_some_and(|k| k.previous) && (waits || note.is_some_and(|n| n.config.is_some()));
    Ok(HookStatus { name: name.to_owned(), state, chained })
}

fn is_noexec(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// Git's version as two numbers; `None` where it names none.
fn version(layout: &Layout) -> Result<Option<(u32, u32)>, GitError> {
    let text = layout.git.line(&["version"])?.unwrap_or_default();
    let text = text.to_string_lossy().into_owned();
    let mut numbers = text.split_whitespace().nth(2).unwrap_or_default().split('.').map(|n| n.parse().ok());
    Ok(match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => Some((major, minor)),
        _ => None,
    })
}
