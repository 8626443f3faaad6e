//! Root works in a repository as its owner, never as root: what git reads there
//! names programs, and what is written there goes through paths of the owner's.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use guard_api::Exit;

use super::{failed, shown};
use crate::Failure;

/// Does `work` as the owner of `dir`: at once where that is the caller, else in this program started anew as him.
pub(super) fn become_owner(
    dir: &Path,
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
        .gid(gid)
        .uid(uid);
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
