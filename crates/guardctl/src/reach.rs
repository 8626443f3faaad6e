//! Why guardd cannot be reached, in words that lead to the cause.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use guard_api::{ClientError, Exit, SYSTEM_SOCKET, user_socket};

use crate::failure::Failure;
use crate::{quantity, users};

/// No connection came about.
pub(crate) fn explain(socket: &Path, e: &ClientError) -> Failure {
    let at = socket.display();
    let unreachable =
        |why: String| Failure::new(Exit::Unreachable, format!("guardd is not reachable at {at}: {why}"));
    let source = match e {
        ClientError::Connect { source, .. } => source,
        ClientError::TimedOut { after, .. } => {
            return unreachable(format!(
                "it accepts no connection, waited {}",
                quantity::span(after.as_secs())
            ))
            .detail(process_line())
            .hint("it may be overloaded or stopped: systemctl status guardd; journalctl -u guardd -n 50");
        }
        other => return unreachable(other.to_string()),
    };
    match source.kind() {
        ErrorKind::NotFound => {
            hint_start(unreachable("there is no such socket".to_owned()).detail(process_line()), socket)
        }
        ErrorKind::ConnectionRefused if is_socket(socket) => {
            let stale = "nobody listens there; the socket is left over from a guardd that has ended";
            hint_start(unreachable(stale.to_owned()).detail(process_line()), socket)
        }
        ErrorKind::ConnectionRefused => unreachable("it is not a socket".to_owned())
            .hint("name the right one with --socket or GUARDD_SOCKET"),
        ErrorKind::PermissionDenied => denied(socket, unreachable),
        _ => unreachable(source.to_string()).hint("name another socket with --socket or GUARDD_SOCKET"),
    }
}

/// A connection came about, and then there was no answer, or none that can be read.
pub(crate) fn explain_broken(doing: &str, method: &str, e: &ClientError, version: Option<&str>) -> Failure {
    let failure = Failure::new(Exit::Unreachable, format!("cannot {doing}: {e}"));
    let own = env!("CARGO_PKG_VERSION");
    match (e, version) {
        (ClientError::Unexpected { .. }, Some(theirs)) if theirs != own => failure
            .detail(format!("guardd there is version {theirs}, this guardctl is {own}"))
            .hint("install the same version of both, then: systemctl restart guardd"),
        (ClientError::Unexpected { .. } | ClientError::Frame { .. }, _) => failure
            .detail("what listens there does not answer as guardd does")
            .hint("is it the right socket? name another with --socket or GUARDD_SOCKET"),
        _ => {
            let failure = failure.detail(process_line());
            if changes_something(method) {
                failure.hint("whether it was carried out is not known: guardctl status, guardctl log")
            } else {
                failure.hint("see how it is: systemctl status guardd; journalctl -u guardd -n 50")
            }
        }
    }
}

fn changes_something(method: &str) -> bool {
    let name = method.rsplit('.').next().unwrap_or_default();
    matches!(name, "Lock" | "Unlock" | "Accept" | "AcknowledgeAlert" | "Reload")
}

fn hint_start(failure: Failure, socket: &Path) -> Failure {
    let failure = if socket == Path::new(SYSTEM_SOCKET) {
        failure.hint("start it: systemctl enable --now guardd; why it ended: journalctl -u guardd -n 50")
    } else {
        failure.hint("start it: guardd run --root DIR for a daemon of your own, systemctl start guardd for the installed one")
    };
    let other = [Some(PathBuf::from(SYSTEM_SOCKET)), user_socket()].into_iter().flatten();
    match other.filter(|p| p != socket).find(|p| p.exists()) {
        Some(found) => failure.hint(format!("there is one at {}: guardctl --socket {0}", found.display())),
        None => failure.hint("another socket is named with --socket or GUARDD_SOCKET"),
    }
}

/// Who may connect, and why we may not.
fn denied(socket: &Path, unreachable: impl Fn(String) -> Failure) -> Failure {
    let me = Me::look();
    let failure = unreachable(format!("permission denied for {}", users::user(me.uid)));
    let Ok(meta) = fs::metadata(socket) else {
        return failure
            .detail("a directory above the socket may not be entered")
            .hint("ask the administrator, or run it as root: sudo guardctl …");
    };
    let group = users::group(meta.gid());
    let failure =
        failure.detail(format!("the socket is for {} and the group {group}", users::user(meta.uid())));
    if me.groups.contains(&meta.gid()) {
        return failure.hint("run it as root: sudo guardctl …");
    }
    let name = users::login_name(me.uid).unwrap_or_else(|| me.uid.to_string());
    if users::is_listed(meta.gid(), &name) {
        failure
            .detail(format!("{name} is a member of {group}, but this session is older than that"))
            .hint(format!("log in again, or: newgrp {group}"))
    } else {
        failure
            .detail(format!("{name} is not a member of {group}"))
            .hint(format!("become one: sudo usermod --append --groups {group} {name}; then log in again"))
            .hint("or run it as root: sudo guardctl …")
    }
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

/// Who this process is by `/proc/self/status` (proc_pid_status(5)).
struct Me {
    uid: u32,
    groups: Vec<u32>,
}

impl Me {
    fn look() -> Self {
        let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let numbers = |key: &str| -> Vec<u32> {
            let line = text.lines().find_map(|l| l.strip_prefix(key)).unwrap_or_default();
            line.split_whitespace().filter_map(|n| n.parse().ok()).collect()
        };
        // Four ids each: real, effective, saved, file system.
        let effective = |key| numbers(key).get(1).copied();
        let mut groups = numbers("Groups:");
        groups.extend(effective("Gid:"));
        Self { uid: effective("Uid:").unwrap_or(u32::MAX), groups }
    }
}

/// Does a process of that name run?
fn process_line() -> String {
    match running() {
        Some(pid) => format!("a process named guardd runs, pid {pid}"),
        None => "no process named guardd is to be seen".to_owned(),
    }
}

fn running() -> Option<u32> {
    let processes = fs::read_dir("/proc").ok()?;
    processes.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        (name.trim_end() == "guardd").then_some(pid)
    })
}
