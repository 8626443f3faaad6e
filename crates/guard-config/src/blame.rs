//! Says what stands in the way of a file, for whom, and which command clears it.

use std::path::Path;

use guard_sys::peer;
use rustix::fs::{FileType, Stat};
use rustix::io::Errno;

use crate::problem::{Problem, show};

fn problem(path: &Path, what: impl Into<String>, fix: impl Into<String>) -> Problem {
    Problem { file: path.to_owned(), line: None, key: String::new(), what: what.into(), fix: fix.into() }
}

/// Others may write here, or somebody else owns it and may let them.
pub(crate) fn open_to_others(own: u32, path: &Path, stat: &Stat, writable: bool) -> Problem {
    let believed = if own == 0 { "root".to_owned() } else { format!("root and {}", user(own)) };
    let stranger = stat.st_uid != 0 && stat.st_uid != own;
    let link = if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink { "-h " } else { "" };
    let chown = format!("chown {link}{} {}", user(own), shell(path));
    let chmod = format!("chmod go-w {}", shell(path));
    let commands = match (stranger, writable) {
        (true, true) => format!("{chown} && {chmod}"),
        (true, false) => chown,
        (false, _) => chmod,
    };
    problem(path, format!("others than {believed} can change this ({})", rights(stat)), commands)
}

/// A directory on the way does not let this user through.
pub(crate) fn no_way_through(own: u32, asked: &Path, dir: &Path, stat: &Stat) -> Problem {
    let what = format!("{} does not let {} through ({})", show(dir), user(own), rights(stat));
    problem(asked, what, format!("run this as {}, or: chmod o+x {}", user(stat.st_uid), shell(dir)))
}

/// The entry itself cannot be opened for reading.
pub(crate) fn unopened(own: u32, path: &Path, stat: &Stat, e: Errno) -> Problem {
    if e != Errno::ACCESS && e != Errno::PERM {
        return failed(path, "open", e);
    }
    let what = format!("{} may not read this ({})", user(own), rights(stat));
    problem(path, what, format!("run this as {}, or: chmod o+r {}", user(stat.st_uid), shell(path)))
}

/// There is no file to take a configuration from.
pub(crate) fn no_file() -> Problem {
    problem(Path::new("guardd.toml"), "no configuration file was given", "name one")
}

/// Something on the way does not exist.
pub(crate) fn missing(asked: &Path, here: &Path) -> Problem {
    let what = if asked == here {
        "there is no such file".to_owned()
    } else {
        format!("{} does not exist", show(here))
    };
    let fix = "create it with `guardctl init DIR`, or name another with GUARDD_CONFIG";
    problem(asked, what, fix)
}

pub(crate) fn not_a_file(path: &Path, kind: &str) -> Problem {
    problem(path, format!("this is {kind}, not a file"), "put a regular file there")
}

pub(crate) fn not_a_directory(path: &Path, kind: &str) -> Problem {
    problem(path, format!("this is {kind}, not a directory"), "put a directory there, or name another path")
}

pub(crate) fn not_a_program(path: &Path, stat: &Stat) -> Problem {
    let what = format!("this is not a program that can be run ({})", rights(stat));
    problem(path, what, format!("name an executable file, or: chmod +x {}", shell(path)))
}

pub(crate) fn loops(path: &Path) -> Problem {
    problem(path, "too many symbolic links lead there, perhaps in a circle", "put the file itself there")
}

pub(crate) fn swapped(path: &Path) -> Problem {
    problem(path, "another file was put there while it was being opened", "try again")
}

pub(crate) fn too_large(path: &Path, most: u64) -> Problem {
    let what = format!("the file is larger than {} KiB", most / 1024);
    problem(path, what, "split it into files in environments.d, or check that it is the right file")
}

/// The file stops being text after `valid`.
pub(crate) fn not_text(path: &Path, valid: &[u8]) -> Problem {
    let lines = valid.iter().filter(|&&b| b == b'\n').count();
    Problem {
        line: Some(u32::try_from(lines).unwrap_or(u32::MAX).saturating_add(1)),
        ..problem(path, "this line holds bytes that are not UTF-8", "save the file as UTF-8")
    }
}

/// Whatever else the kernel says.
pub(crate) fn failed(path: &Path, operation: &str, e: Errno) -> Problem {
    let why = std::io::Error::from(e);
    problem(
        path,
        format!("cannot {operation} it: {why}"),
        "see that the path is right and its file system well",
    )
}

/// Mode, owner and group, as they decide about access.
fn rights(stat: &Stat) -> String {
    let group = peer::group_name(stat.st_gid).unwrap_or_else(|| stat.st_gid.to_string());
    format!("mode {:04o}, owner {}, group {group}", stat.st_mode & 0o7777, user(stat.st_uid))
}

fn user(uid: u32) -> String {
    peer::user_name(uid).unwrap_or_else(|| uid.to_string())
}

/// A path to put into a command line; escaped like any other where no shell
/// could be given it as it is.
fn shell(path: &Path) -> String {
    let shown = show(path);
    match path.to_str() {
        Some(text) if text == shown => match shlex::try_quote(text) {
            Ok(quoted) => quoted.into_owned(),
            Err(_) => shown,
        },
        _ => shown,
    }
}
