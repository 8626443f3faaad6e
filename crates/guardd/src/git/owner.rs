//! Root works in a repository as its owner, never as root: what git reads there
//! names programs, and what is written there goes through paths of the owner's.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use guard_api::Exit;

use super::{failed, shown};
use crate::Failure;

/// Who asks for the work, which decides what of the environment the owner's process gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    /// A user at a prompt.
    User,
    /// Git, which says by variables which repository and which index it is about.
    Git,
}

/// Does `work` as the owner of `dir`: at once where that is the caller, else in this program started anew as him.
pub(super) fn become_owner(
    dir: &Path,
    asker: Asker,
    work: impl FnOnce() -> Result<Exit, Failure>,
) -> Result<Exit, Failure> {
    let Some((uid, gid)) = guard_git::other_owner(dir).map_err(|e| failed(&e))? else { return work() };
    let cannot = |what: &str, e: std::io::Error| {
        Failure::new(Exit::Failed, format!("cannot {what} as the owner of {} (uid {uid}): {e}", shown(dir)))
    };
    let program = std::env::current_exe().map_err(|e| cannot("find this program", e))?;
    let mut command = Command::new(program);
    command
        .args(std::env::args_os().skip(1))
        .env_clear()
        .env("PATH", guard_git::SAFE_PATH)
        .env("LC_ALL", "C.UTF-8")
        .env("HOME", "/nonexistent")
        // The standard library drops supplementary groups along with root.
        .gid(gid)
        .uid(uid);
    if asker == Asker::Git {
        command.envs(guard_git::REPOSITORY_VARIABLES.iter().filter_map(|&n| Some((n, std::env::var_os(n)?))));
    }
    let status = command.status().map_err(|e| cannot("run", e))?;
    // Ended by a signal: it said nothing itself.
    let code = status.code().ok_or_else(|| cannot("run", std::io::Error::other(status.to_string())))?;
    Ok(match code {
        0 => Exit::Done,
        1 => Exit::Findings,
        2 => Exit::Usage,
        3 => Exit::Refused,
        4 => Exit::Unreachable,
        6 => Exit::NeedsOperator,
        _ => Exit::Failed,
    })
}
