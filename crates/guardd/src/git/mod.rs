//! `guardd git`: hooks in repositories, and what they do. None of it needs the
//! daemon or a right; all of it runs as the repository's owner.

pub(crate) mod cli;
mod hook;
mod install;
mod owner;
mod validate;
mod values;

use guard_api::Exit;
use guard_git::GitError;
use guard_git::hooks::{self, HookState, Layout};
use guard_model::path::escape;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use self::cli::{Command, Git, Place};
use self::owner::{Asker, become_owner};
use crate::Failure;

pub(crate) fn run(git: Git) -> Result<Exit, Failure> {
    match git.command {
        Command::Install(wish) => become_owner(&wish.place.dir, Asker::User, || install::run(&wish)),
        Command::Uninstall(place) => become_owner(&place.dir, Asker::User, || uninstall(&place)),
        Command::Status(place) => become_owner(&place.dir, Asker::User, || status(&place)),
        Command::Validate(asked) => become_owner(&asked.dir, Asker::User, || validate::run(&asked)),
        // Root commits in somebody's repository: its contents are looked at as that somebody.
        Command::Hook(call) => match hook::looks_at_contents(&call) {
            true => become_owner(Path::new("."), Asker::Git, || hook::run(call)),
            false => hook::run(call),
        },
    }
}

#[expect(clippy::print_stdout, reason = "the answer is the program's output")]
fn uninstall(place: &Place) -> Result<Exit, Failure> {
    let layout = Layout::find(&place.dir).map_err(|e| failed(&e))?;
    let done = hooks::uninstall(&layout).map_err(|e| failed(&e))?;
    if place.json {
        println!("{}", serde_json::json!(done));
    } else {
        println!("removed from {}", shown(&layout.hooks));
        for name in &done.given_back {
            println!("  {name} is what it was before");
        }
        for path in &done.left {
            println!("  {} was changed by somebody else and is left alone", shown(path));
        }
    }
    Ok(if done.left.is_empty() { Exit::Done } else { Exit::Refused })
}

#[expect(clippy::print_stdout, reason = "the answer is the program's output")]
fn status(place: &Place) -> Result<Exit, Failure> {
    let layout = Layout::find(&place.dir).map_err(|e| failed(&e))?;
    let found = hooks::status(&layout).map_err(|e| failed(&e))?;
    let past = install::past_the_hooks(&layout, found.state_dir.as_deref(), found.environment.as_deref());
    if place.json {
        let mut json = serde_json::json!(found);
        if let Some(object) = json.as_object_mut() {
            object.insert("whole".to_owned(), found.is_whole().into());
            object.insert("past_the_hooks".to_owned(), past.into());
        }
        println!("{json}");
        return Ok(if found.is_whole() { Exit::Done } else { Exit::Findings });
    }
    if !found.installed {
        println!("no hooks of guardd in {}", shown(&found.directory));
        return Ok(Exit::Findings);
    }
    match &found.environment {
        Some(environment) => {
            println!("{}: branches held by environment {environment}", shown(&found.directory))
        }
        None => println!("{}: contents are checked, no branch is held", shown(&found.directory)),
    }
    for hook in &found.hooks {
        let state = match hook.state {
            HookState::InPlace => "in place",
            HookState::Altered => "ALTERED since it was installed",
            HookState::Replaced => "REPLACED by a hook of somebody else",
            HookState::NotExecutable => "NOT EXECUTABLE: git does not run it",
            HookState::Missing => "MISSING",
        };
        let chained = if hook.chained { ", then the hook that was there before" } else { "" };
        println!("  {:<22} {state}{chained}", hook.name);
    }
    for weakness in &found.weaknesses {
        println!("  weak: {}", escape(weakness.as_bytes()));
    }
    println!("{past}");
    Ok(if found.is_whole() { Exit::Done } else { Exit::Findings })
}

pub(crate) fn failed(error: &GitError) -> Failure {
    let exit = match error {
        GitError::NotInstalled(_) | GitError::InTheWay(_) => Exit::Refused,
        _ => Exit::Failed,
    };
    Failure::of(exit, error)
}

pub(crate) fn shown(path: &Path) -> String {
    escape(path.as_os_str().as_bytes())
}
