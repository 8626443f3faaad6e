//! Where the control socket is.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The installed daemon's socket.
pub const SYSTEM_SOCKET: &str = "/run/guardd/control.sock";

/// Where a client finds the daemon: `GUARDD_SOCKET` (with or without a leading
/// `unix:`); else the user's own daemon if its socket exists; else the installed
/// one. For root the installed one comes first.
#[must_use]
pub fn default_socket() -> PathBuf {
    choose(
        |name| std::env::var_os(name).filter(|v| !v.is_empty()),
        rustix::process::geteuid().is_root(),
        Path::exists,
    )
}

/// The socket of a daemon that a user runs for himself (`guardd run --root`):
/// `$XDG_RUNTIME_DIR/guardd/control.sock`, or without a runtime directory
/// `guardd/run/control.sock` in `$XDG_STATE_HOME` or `~/.local/state`.
/// `None` where none of these variables is set.
#[must_use]
pub fn user_socket() -> Option<PathBuf> {
    own_socket(&|name| std::env::var_os(name).filter(|v| !v.is_empty()))
}

fn own_socket(env: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    // The base directory specification: relative paths are to be ignored.
    let dir = |name| env(name).map(PathBuf::from).filter(|p| p.is_absolute());
    if let Some(runtime) = dir("XDG_RUNTIME_DIR") {
        return Some(runtime.join("guardd/control.sock"));
    }
    let state = dir("XDG_STATE_HOME").or_else(|| dir("HOME").map(|h| h.join(".local/state")))?;
    Some(state.join("guardd/run/control.sock"))
}

fn choose(env: impl Fn(&str) -> Option<OsString>, is_root: bool, exists: impl Fn(&Path) -> bool) -> PathBuf {
    if let Some(named) = env("GUARDD_SOCKET") {
        let bytes = named.as_bytes();
        let plain = bytes.strip_prefix(b"unix:").unwrap_or(bytes);
        return PathBuf::from(OsString::from_vec(plain.to_vec()));
    }
    let system = PathBuf::from(SYSTEM_SOCKET);
    if is_root && exists(&system) {
        return system;
    }
    match own_socket(&env) {
        Some(own) if exists(&own) => own,
        _ => system,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<OsString> + 'a {
        |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v))
    }

    #[test]
    fn the_variable_wins_with_or_without_scheme() {
        for text in ["unix:/x/y", "/x/y"] {
            assert_eq!(choose(env(&[("GUARDD_SOCKET", text)]), true, |_| true), Path::new("/x/y"));
        }
    }

    #[test]
    fn a_users_own_daemon_comes_before_the_installed_one_but_not_for_root() {
        let run = [("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/home/u")];
        let own = Path::new("/run/user/7/guardd/control.sock");
        assert_eq!(choose(env(&run), false, |_| true), own);
        assert_eq!(choose(env(&run), true, |_| true), Path::new(SYSTEM_SOCKET));
        assert_eq!(choose(env(&run), true, |p| p == own), own);
        assert_eq!(choose(env(&run), false, |_| false), Path::new(SYSTEM_SOCKET));
    }

    #[test]
    fn without_a_runtime_directory_it_is_the_state_directory() {
        let home = env(&[("HOME", "/home/u")]);
        assert_eq!(own_socket(&home).unwrap(), Path::new("/home/u/.local/state/guardd/run/control.sock"));
        let state = env(&[("HOME", "/home/u"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "relative")]);
        assert_eq!(own_socket(&state).unwrap(), Path::new("/s/guardd/run/control.sock"));
        assert_eq!(own_socket(&env(&[])), None);
    }
}
