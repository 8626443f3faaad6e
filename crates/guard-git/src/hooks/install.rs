//! Puts the hooks in front of whatever is there.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::layout::Layout;
use super::note::{ConfigChange, Kept, Note, digest, digest_of, previous_name, replace};
use super::script::{self, MARK, Previous, Setting};
use super::{Hook, uninstall};
use crate::error::GitError;

/// Client hooks that are passed on to the old directory though they are not ours, so that one
/// which comes there later is called too. Hooks whose mere presence changes what git does are
/// passed on only where they are there now.
const PASSED_ON: [&str; 10] = [
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "post-checkout",
    "post-merge",
    "post-rewrite",
    "pre-auto-gc",
];

/// Everything that git may call by name (githooks(5)).
const EVERY_NAME: [&str; 27] = [
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "pre-rebase",
    "post-checkout",
    "post-merge",
    "pre-push",
    "pre-receive",
    "update",
    "proc-receive",
    "post-receive",
    "post-update",
    "reference-transaction",
    "push-to-checkout",
    "pre-auto-gc",
    "post-rewrite",
    "sendemail-validate",
    "p4-changelist",
    "p4-prepare-changelist",
    "p4-post-changelist",
    "p4-pre-submit",
    "post-index-change",
];

/// What to install.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The environment that guards the repository; `None`: contents are checked, nothing is locked.
    pub environment: Option<String>,
    /// Where guardd keeps the lock files.
    pub state_dir: PathBuf,
    /// The branches that it protects now, to go by where its lock file cannot be read.
    pub branches: Vec<String>,
    /// The program that the hooks call, absolute.
    pub program: PathBuf,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Installed {
    /// Where the hooks are.
    pub directory: PathBuf,
    /// Their names.
    pub hooks: Vec<String>,
    /// The hooks that were there and are called after ours.
    pub chained: Vec<String>,
    /// The directory that `core.hooksPath` named before it was pointed at ours.
    pub hooks_path_before: Option<String>,
}

/// Installs the hooks, or renews ours where they are already there.
///
/// # Errors
/// [`GitError`]; what had been done by then is undone.
pub fn install(layout: &Layout, wish: &Wish) -> Result<Installed, GitError> {
    let before = Note::read(layout)?;
    let own = layout.own();
    if before.is_none() {
        std::fs::create_dir_all(&own).map_err(GitError::io("make", &own))?;
    }
    let done = match before {
        Some(note) => renew(layout, wish, note),
        None => first(layout, wish),
    };
    let found = Layout::find(layout.git.dir())?;
    match done {
        Ok(installed) if same(&found.hooks, &installed.directory) => Ok(installed),
        Ok(installed) => {
            uninstall(layout)?;
            Err(GitError::Elsewhere { found: found.hooks, wanted: installed.directory })
        }
        Err(e) => {
            // What cannot be undone either is said by `status`.
            uninstall(layout).ok();
            Err(e)
        }
    }
}

fn first(layout: &Layout, wish: &Wish) -> Result<Installed, GitError> {
    let mut note = Note {
        format: 1,
        environment: wish.environment.clone(),
        state_dir: wish.state_dir.clone(),
        branches: wish.branches.clone(),
        program: wish.program.clone(),
        directory: layout.hooks.clone(),
        made_directory: false,
        hooks: Vec::new(),
        config: None,
    };
    match &layout.hooks_path {
        None => {
            note.made_directory = !layout.hooks.exists();
            std::fs::create_dir_all(&layout.hooks).map_err(GitError::io("make", &layout.hooks))?;
            for hook in wanted(wish) {
                put_in_front(layout, wish, &mut note, hook)?;
            }
        }
        Some(old) => {
            note.directory = layout.own_hooks();
            note.made_directory = true;
            std::fs::create_dir_all(&note.directory).map_err(GitError::io("make", &note.directory))?;
            put_beside(layout, wish, &mut note, old)?;
            note.write(layout)?;
            point_at_ours(layout, &mut note)?;
        }
    }
    note.write(layout)?;
    Ok(told(&note))
}

/// Ours are there already: written anew, and what was there before them stays known.
fn renew(layout: &Layout, wish: &Wish, mut note: Note) -> Result<Installed, GitError> {
    note.environment.clone_from(&wish.environment);
    note.state_dir.clone_from(&wish.state_dir);
    note.branches.clone_from(&wish.branches);
    note.program.clone_from(&wish.program);
    if let Some(change) = &note.config {
        let still_ours = same(&layout.hooks, &note.directory);
        let moved_to = layout.hooks_path.clone().filter(|_| !still_ours);
        let old = moved_to.unwrap_or_else(|| change.called.clone().into());
        note.hooks.clear();
        put_beside(layout, wish, &mut note, &old)?;
        if !still_ours {
            point_at_ours(layout, &mut note)?;
        }
    } else {
        for hook in wanted(wish) {
            put_in_front(layout, wish, &mut note, hook)?;
        }
    }
    note.write(layout)?;
    Ok(told(&note))
}

fn told(note: &Note) -> Installed {
    let ours = |name: &str| Hook::named(name).is_some();
    Installed {
        directory: note.directory.clone(),
        hooks: note.hooks.iter().map(|h| h.name.clone()).filter(|n| ours(n)).collect(),
        chained: note.hooks.iter().filter(|h| h.previous).map(|h| h.name.clone()).collect(),
        hooks_path_before: note.config.as_ref().map(|c| c.called.clone()),
    }
}

fn wanted(wish: &Wish) -> impl Iterator<Item = Hook> + '_ {
    let checks_only = wish.environment.is_none();
    Hook::ALL.into_iter().filter(move |h| !checks_only || h.looks_at_contents())
}

fn setting(wish: &Wish) -> Setting<'_> {
    Setting {
        program: &wish.program,
        state_dir: &wish.state_dir,
        environment: wish.environment.as_deref(),
        branches: &wish.branches,
    }
}

/// Our hook takes the name, the previous one waits beside it.
fn put_in_front(layout: &Layout, wish: &Wish, note: &mut Note, hook: Hook) -> Result<(), GitError> {
    let path = note.directory.join(hook.name());
    let waiting = note.directory.join(previous_name(hook.name()));
    let known = note.hook(hook.name()).cloned();
    let there = path.symlink_metadata().is_ok();
    let ours = std::fs::read(&path).is_ok_and(|text| is_ours(&text));
    let mut previous = known.as_ref().is_some_and(|k| k.previous);
    if there && !ours {
        if waiting.symlink_metadata().is_ok() {
            return Err(GitError::InTheWay(waiting));
        }
        // Noted before it is done: an interrupted installation can still be undone.
        remember(note, hook.name(), String::new(), true);
        note.write(layout)?;
        std::fs::rename(&path, &waiting).map_err(GitError::io("move away", &path))?;
        previous = true;
    }
    let shell = if previous { shell_of(&waiting) } else { None };
    let how = match (previous && is_executable(&waiting), &shell) {
        (false, _) => Previous::Nothing,
        (true, Some(shell)) => Previous::BesideForShell(shell),
        (true, None) => Previous::Beside,
    };
    let text = script::hook(hook, setting(wish), how);
    remember(note, hook.name(), digest(text.as_bytes()), previous);
    note.write(layout)?;
    replace(&path, text.as_bytes(), 0o755)
}

/// A directory of ours whose hooks call those in the old one.
fn put_beside(layout: &Layout, wish: &Wish, note: &mut Note, old: &OsStr) -> Result<(), GitError> {
    let was = layout.work_tree.as_deref().unwrap_or(&layout.common).join(old);
    for hook in wanted(wish) {
        let text = script::hook(hook, setting(wish), Previous::In(old));
        remember(note, hook.name(), digest(text.as_bytes()), was.join(hook.name()).exists());
        replace(&note.directory.join(hook.name()), text.as_bytes(), 0o755)?;
    }
    for name in EVERY_NAME {
        let ours = wanted(wish).any(|h| h.name() == name);
        let there = was.join(name).exists();
        if ours || !(there || PASSED_ON.contains(&name)) {
            continue;
        }
        let text = script::passed_on(name, old);
        remember(note, name, digest(text.as_bytes()), there);
        replace(&note.directory.join(name), text.as_bytes(), 0o755)?;
    }
    Ok(())
}

/// Points `core.hooksPath` of the repository's own configuration at our directory.
fn point_at_ours(layout: &Layout, note: &mut Note) -> Result<(), GitError> {
    let config = layout.common.join("config");
    let bytes = std::fs::read(&config).map_err(GitError::io("read", &config))?;
    // It may hold passwords in the addresses of remotes: for the owner alone.
    replace(&Note::config_before(layout), &bytes, 0o600)?;
    let file = config.as_os_str();
    let value = layout.git.line(&[
        OsStr::new("config"),
        OsStr::new("--file"),
        file,
        OsStr::new("--get"),
        OsStr::new("core.hooksPath"),
    ])?;
    note.config = Some(ConfigChange {
        value_before: value.map(|v| v.to_string_lossy().into_owned()),
        called: layout.hooks_path.as_deref().unwrap_or_default().to_string_lossy().into_owned(),
        sha256_after: String::new(),
    });
    note.write(layout)?;
    layout.git.output(&[
        OsStr::new("config"),
        OsStr::new("--file"),
        file,
        OsStr::new("--replace-all"),
        OsStr::new("core.hooksPath"),
        note.directory.as_os_str(),
    ])?;
    if let (Some(change), Some(after)) = (&mut note.config, digest_of(&config)?) {
        change.sha256_after = after;
    }
    Ok(())
}

fn remember(note: &mut Note, name: &str, sha256: String, previous: bool) {
    note.hooks.retain(|h| h.name != name);
    note.hooks.push(Kept { name: name.to_owned(), sha256, previous });
}

/// A hook that guardd wrote, whatever version of it.
pub(super) fn is_ours(text: &[u8]) -> bool {
    text.split(|&b| b == b'\n').nth(1).is_some_and(|line| line.starts_with(MARK.as_bytes()))
}

pub(super) fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The shell of a script whose first line names one, and nothing else.
fn shell_of(path: &Path) -> Option<String> {
    let text = std::fs::read(path).ok()?;
    let line = text.split(|&b| b == b'\n').next()?.strip_prefix(b"#!")?.trim_ascii();
    let known: [&[u8]; 8] = [
        b"/bin/sh",
        b"/usr/bin/sh",
        b"/usr/bin/env sh",
        b"/bin/bash",
        b"/usr/bin/bash",
        b"/usr/bin/env bash",
        b"/bin/dash",
        b"/usr/bin/dash",
    ];
    known.contains(&line).then(|| String::from_utf8_lossy(line).into_owned())
}

/// The same directory, be it by another name.
pub(super) fn same(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => a.as_os_str().as_bytes() == b.as_os_str().as_bytes(),
    }
}
