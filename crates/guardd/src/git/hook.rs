//! `guardd git hook`: what git calls. Exit code 0 lets git go on, 1 stops it.

use std::io::BufReader;
use std::path::Path;

use guard_api::Exit;
use guard_git::check::Report;
use guard_git::contents::Selection;
use guard_git::hooks::{Called, Hook, Verdict, called};
use guard_git::{Caller, Git};
use guard_store::StatePaths;

use super::{cli, validate};
use crate::Failure;

/// Does this hook read what is staged?
pub(super) fn looks_at_contents(call: &cli::Hook) -> bool {
    Hook::named(&call.name).is_some_and(Hook::looks_at_contents)
}

#[expect(clippy::print_stderr, reason = "git shows a hook's standard error to the user")]
pub(super) fn run(call: cli::Hook) -> Result<Exit, Failure> {
    let Some(hook) = Hook::named(&call.name) else {
        return Err(Failure::new(Exit::Usage, format!("{} is no hook of guardd", call.name)));
    };
    let environment = call.environment.clone();
    // In a long index it takes a while to find what is staged, and meanwhile the lock is judged. Who is
    // refused does not wait for it.
    let looking = hook.looks_at_contents().then(|| std::thread::spawn(move || look(environment.as_deref())));
    if let Some(refusal) = judge(hook, call) {
        eprint!("{refusal}");
        return Ok(Exit::Findings);
    }
    match looking.map(std::thread::JoinHandle::join) {
        None => Ok(Exit::Done),
        Some(Ok(found)) => found.map(|found| tell(&found)),
        Some(Err(_)) => Err(Failure::new(Exit::Failed, "the look at what is staged broke off")),
    }
}

/// What the lock says against it, for people; `None` where nothing.
fn judge(hook: Hook, call: cli::Hook) -> Option<String> {
    let lock = Called {
        hook,
        git_pid: call.git_pid,
        state: StatePaths::new(&call.state_dir),
        environment: call.environment?,
        branches: call.branches,
        line: call.line,
        arguments: call.arguments,
    };
    let stdin = std::io::stdin();
    match called(&lock, &mut BufReader::new(stdin.lock())) {
        Ok(Verdict::Passes) => None,
        Ok(Verdict::Refused(text)) => Some(text),
        Err(e) => {
            let why = guard_model::path::escape(crate::failure::chain(&e).as_bytes());
            Some(format!("guardd: refused: whether a locked branch would move cannot be known\n  {why}\n"))
        }
    }
}

/// Syntax and secrets of what is staged.
fn look(environment: Option<&str>) -> Result<Report, Failure> {
    let git = Git::new(Path::new("."), Caller::Hook).map_err(|e| super::failed(&e))?;
    validate::look(&git, &Selection::Staged, environment).map_err(|e| super::failed(&e))
}

#[expect(clippy::print_stderr, reason = "git shows a hook's standard error to the user")]
fn tell(found: &Report) -> Exit {
    eprint!("{}", guard_git::report::text(found));
    if !found.stops() {
        return Exit::Done;
    }
    eprintln!("guardd: refused: {}", validate::summary(found));
    eprintln!("  known and meant? {} with a reason and an end, see git.md", guard_git::secrets::allow::NAME);
    Exit::Findings
}
