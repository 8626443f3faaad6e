//! `guardd git hook`: what git calls. Exit code 0 lets git go on, 1 stops it.

use std::io::BufReader;
use std::path::Path;

use guard_api::Exit;
use guard_git::contents::Selection;
use guard_git::hooks::{Called, Hook, Verdict, called};
use guard_git::{Caller, Git};
use guard_store::StatePaths;

use super::{cli, validate};
use crate::Failure;

/// Does this hook read what is staged?
pub(super) fn looks_at_contents(call: &cli::Hook) -> bool {
    matches!(Hook::named(&call.name), Some(Hook::PreCommit | Hook::PreMergeCommit))
}

#[expect(clippy::print_stderr, reason = "git shows a hook's standard error to the user")]
pub(super) fn run(call: cli::Hook) -> Result<Exit, Failure> {
    let Some(hook) = Hook::named(&call.name) else {
        return Err(Failure::new(Exit::Usage, format!("{} is no hook of guardd", call.name)));
    };
    if let Some(environment) = call.environment.clone() {
        let lock = Called {
            hook,
            git_pid: call.git_pid,
            state: StatePaths::new(&call.state_dir),
            environment,
            branches: call.branches,
            line: call.line,
            arguments: call.arguments,
        };
        let stdin = std::io::stdin();
        match called(&lock, &mut BufReader::new(stdin.lock())) {
            Ok(Verdict::Passes) => {}
            Ok(Verdict::Refused(text)) => {
                eprint!("{text}");
                return Ok(Exit::Findings);
            }
            Err(e) => {
                eprintln!("guardd: refused: whether a locked branch would move cannot be known");
                eprintln!("  {}", guard_model::path::escape(crate::failure::chain(&e).as_bytes()));
                return Ok(Exit::Findings);
            }
        }
    }
    match hook {
        Hook::PreCommit | Hook::PreMergeCommit => contents(call.environment.as_deref()),
        _ => Ok(Exit::Done),
    }
}

/// Syntax and secrets of what is staged.
#[expect(clippy::print_stderr, reason = "git shows a hook's standard error to the user")]
fn contents(environment: Option<&str>) -> Result<Exit, Failure> {
    let git = Git::new(Path::new("."), Caller::Hook).map_err(|e| super::failed(&e))?;
    let found = validate::look(&git, &Selection::Staged, environment).map_err(|e| super::failed(&e))?;
    eprint!("{}", guard_git::report::text(&found));
    if !found.stops() {
        return Ok(Exit::Done);
    }
    eprintln!("guardd: refused: {}", validate::summary(&found));
    eprintln!("  known and meant? {} with a reason and an end, see git.md", guard_git::secrets::allow::NAME);
    Ok(Exit::Findings)
}
