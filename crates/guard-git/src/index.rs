//! A quick look into git's index: could a file of secrets be in it?
//!
//! Git reads a long index in tens of milliseconds, and does so again for every
//! question. One that nearly always has the answer "no" is answered from the
//! file's bytes (gitformat-index(5)): in versions 2 and 3 names stand in it as
//! they are. Wherever that is in doubt the answer is "perhaps", and git is asked.

use std::path::Path;

use crate::check::is_template;

/// Longer than any index of a repository that people commit to.
const LONGEST: u64 = 256 * 1024 * 1024;

/// False only where no file of secrets is in this index.
pub(crate) fn may_hold_env_files(path: &Path) -> bool {
    let reads = std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() <= LONGEST);
    // A split index has most of its entries in another file beside it.
    let beside = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let split = std::fs::read_dir(beside).map_or(true, |names| {
        names.flatten().any(|n| n.file_name().to_string_lossy().starts_with("sharedindex."))
    });
    match std::fs::read(path) {
        Ok(bytes) if reads && !split => may(&bytes),
        _ => true,
    }
}

fn may(index: &[u8]) -> bool {
    let plain = index.get(..8).is_some_and(|head| matches!(head, b"DIRC\0\0\0\x02" | b"DIRC\0\0\0\x03"));
    // A sparse index has whole directories as one entry.
    if !plain || memchr::memmem::find(index, b"sdir").is_some() {
        return true;
    }
    memchr::memchr_iter(b'.', index).any(|at| {
        let name = index.get(at..).unwrap_or_default();
        if !name.get(..4).is_some_and(|n| n.eq_ignore_ascii_case(b".env")) {
            return false;
        }
        let end = memchr::memchr(0, name).unwrap_or(name.len());
        let rest = String::from_utf8_lossy(name.get(..end).unwrap_or_default()).into_owned();
        // `.env.example`, which is meant to be there, and `.environment/`, which is something else.
        let is_part = matches!(rest.as_bytes().get(4), None | Some(b'.' | b'-'));
        is_part && !is_template(&rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn git(dir: &Path, arguments: &[&str]) {
        let done = Command::new("git").args(arguments).current_dir(dir).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// What is said of an index that git makes of files of these names.
    fn said(names: &[&str], more: &[&[&str]]) -> bool {
        let dir = tempfile::tempdir().unwrap();
        git(dir.path(), &["init", "-q"]);
        for name in names {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "A=b\n").unwrap();
        }
        git(dir.path(), &["add", "."]);
        for arguments in more {
            git(dir.path(), arguments);
        }
        may_hold_env_files(&dir.path().join(".git/index"))
    }

    #[test]
    fn no_is_said_only_where_there_is_none() {
        for name in [".env", "a/.env", ".ENV.prod", "x/y/.env-2", "prod.env", "a b/c.Env", ".env.d/.env"] {
            assert!(said(&["other", name], &[]), "{name}");
        }
        assert!(!said(
            &["a", "b/c.py", ".env.example", "x/.env.dist", "b.env.sample", ".environment", "env"],
            &[]
        ));
    }

    #[test]
    fn perhaps_is_said_where_names_are_not_plain() {
        assert!(said(&["a"], &[&["update-index", "--index-version", "4"]]));
        assert!(said(&["a"], &[&["update-index", "--split-index"]]));
        for bytes in [&b""[..], b"DIRC", b"DIRC\0\0\0\x05", b"DIRC\0\0\0\x02 sdir"] {
            assert!(may(bytes));
        }
        assert!(may_hold_env_files(Path::new("/nonexistent/index")));
        assert!(may_hold_env_files(Path::new("/proc/self")));
    }
}
