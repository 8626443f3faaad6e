//! `guardd git install`: which environment guards the repository, then the hooks.

use std::path::{Path, PathBuf};

use guard_api::Exit;
use guard_git::Standing;
use guard_git::hooks::{self, Layout, Wish};
use guard_git::standing::environments;
use guard_model::path::unescape;
use guard_store::StatePaths;
use std::os::unix::ffi::OsStringExt;

use super::cli::Install;
use super::{failed, shown};
use crate::Failure;

#[expect(clippy::print_stdout, reason = "the answer is the program's output")]
pub(super) fn run(wish: &Install) -> Result<Exit, Failure> {
    let layout = Layout::find(&wish.place.dir).map_err(|e| failed(&e))?;
    let state = StatePaths::new(&wish.state_dir);
    let standing = match wish.checks_only {
        true => None,
        false => Some(guarding(&layout, &state, wish.environment.as_deref())?),
    };
    let program = std::env::current_exe()
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot find this program: {e}")))?;
    let wanted = Wish {
        environment: standing.as_ref().map(|s| s.lock.environment.clone()),
        state_dir: wish.state_dir.clone(),
        branches: standing.as_ref().map(|s| s.lock.branches.clone()).unwrap_or_default(),
        program,
    };
    let done = hooks::install(&layout, &wanted).map_err(|e| failed(&e))?;
    let past = past_the_hooks(&layout, Some(&wish.state_dir), wanted.environment.as_deref());
    if wish.place.json {
        let mut json = serde_json::json!(done);
        if let Some(object) = json.as_object_mut() {
            object.insert("environment".to_owned(), wanted.environment.into());
            object.insert("branches".to_owned(), wanted.branches.into());
            object.insert("past_the_hooks".to_owned(), past.into());
        }
        println!("{json}");
        return Ok(Exit::Done);
    }
    println!("installed in {}: {}", shown(&done.directory), done.hooks.join(", "));
    for name in &done.chained {
        println!("  the {name} that was there is called after ours");
    }
    if let Some(before) = &done.hooks_path_before {
        println!("  core.hooksPath was {}; its hooks are called after ours", shown(Path::new(before)));
    }
    if let Some(standing) = &standing {
        let branches = match wanted.branches.as_slice() {
            [] => "every branch, as environment's `branches` names none".to_owned(),
            some => some.join(", "),
        };
        println!("held while {} is locked: {branches}", standing.lock.environment);
        println!("{past}");
    }
    Ok(Exit::Done)
}

/// The environment that guards the repository, with its genuine lock file.
fn guarding(layout: &Layout, state: &StatePaths, named: Option<&str>) -> Result<Standing, Failure> {
    let name = match named {
        Some(name) => name.to_owned(),
        None => choose(layout, state)?,
    };
    Standing::read(state, &name).map_err(|e| {
        Failure::of(Exit::Refused, &e).hint(format!(
            "the hooks learn from the lock file of {name}, which is written when it is first locked: guardctl lock {name}.\nOn a machine without guardd's daemon: guardctl git install --checks-only"
        ))
    })
}

/// The environment whose root holds the repository, or lies in it; else the only one.
fn choose(layout: &Layout, state: &StatePaths) -> Result<String, Failure> {
    let names = environments(state);
    let place = layout.work_tree.as_deref().unwrap_or(&layout.common);
    let near: Vec<&String> = names
        .iter()
        .filter(|name| {
            root_of(state, name).is_some_and(|root| place.starts_with(&root) || root.starts_with(place))
        })
        .collect();
    match (near.as_slice(), names.as_slice()) {
        ([one], _) => Ok((*one).clone()),
        ([], [one]) => Ok(one.clone()),
        ([], []) => Err(Failure::new(Exit::Refused, "no environment was ever locked here, so that no branch is to be held")
            .hint("guardctl lock ENV first; or, on a machine without guardd's daemon: guardctl git install --checks-only")),
        _ => Err(Failure::new(Exit::Usage, format!("several environments could guard it: {}", names.join(", ")))
            .hint("name one: guardctl git install --environment ENV")),
    }
}

fn root_of(state: &StatePaths, environment: &str) -> Option<PathBuf> {
    let standing = Standing::read(state, environment).ok()?;
    let bytes = unescape(&standing.lock.root)?;
    Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
}

/// What no hook can stop, and who sees it here.
pub(super) fn past_the_hooks(layout: &Layout, state_dir: Option<&Path>, environment: Option<&str>) -> String {
    let (Some(state_dir), Some(environment)) = (state_dir, environment) else {
        return "no branch is held here: nothing to get past".to_owned();
    };
    let root = root_of(&StatePaths::new(state_dir), environment);
    let watched = root.is_some_and(|root| layout.common == root.join(".git"));
    let ways = "no hook sees git -c core.hooksPath=… nor references written by hand";
    match watched {
        true => format!(
            "{ways}: guardd raises an alert for them, as this is environment {environment}'s own repository"
        ),
        false => format!(
            "{ways}; nobody is told of them here, as this is not the repository in environment {environment}'s root"
        ),
    }
}
