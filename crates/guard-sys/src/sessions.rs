//! Who is logged in: utmp(5) where it is kept, else systemd-logind's session
//! files (Debian 13 keeps no utmp).
//!
//! Both are written by others, and utmp holds host names that a remote party
//! chose. Everything here comes back as raw bytes; whoever shows it escapes it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where utmp(5) is.
pub const UTMP: &str = "/run/utmp";
/// Where systemd-logind keeps a file per session.
pub const SESSIONS: &str = "/run/systemd/sessions";

/// Somebody who is logged in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Session {
    /// Login name.
    pub user: Vec<u8>,
    /// Terminal, such as `pts/0`; may be empty.
    pub tty: Vec<u8>,
    /// Remote host; empty for a local login.
    pub host: Vec<u8>,
    /// Login time, microseconds since 1970 by the wall clock of then.
    pub since_micros: Option<i64>,
    /// The process that holds the session, where known.
    pub pid: Option<i32>,
}

/// Why it is not known who is logged in.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}", path.display())]
pub struct SessionsError {
    /// The file or directory.
    pub path: PathBuf,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// At most this many sessions are told.
const SESSIONS_MAX: usize = 256;
/// At most this much of a file is read.
const BYTES_MAX: u64 = 1 << 20;

/// Who is logged in now, the longest session first.
///
/// # Errors
/// Where neither source could be read. A source that is not there is empty.
pub fn logged_in() -> Result<Vec<Session>, SessionsError> {
    logged_in_by(Path::new(UTMP), Path::new(SESSIONS))
}

/// [`logged_in`] by other files.
///
/// # Errors
/// As [`logged_in`].
pub fn logged_in_by(utmp: &Path, sessions: &Path) -> Result<Vec<Session>, SessionsError> {
    let mut found = match read(utmp) {
        Ok(bytes) => parse_utmp(&bytes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(SessionsError { path: utmp.to_owned(), source }),
    };
    // A session that ended badly leaves its record behind.
    found.retain(|s| s.pid.is_none_or(is_alive));
    if found.is_empty() {
        found = from_logind(sessions)?;
        found.retain(|s| s.pid.is_none_or(is_alive));
    }
    found.sort_by_key(|s| s.since_micros.unwrap_or(i64::MAX));
    Ok(found)
}

fn is_alive(pid: i32) -> bool {
    use rustix::io::Errno;
    use rustix::process::{Pid, test_kill_process};
    Pid::from_raw(pid).is_none_or(|pid| test_kill_process(pid) != Err(Errno::SRCH))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // logind keeps fifos beside its files: never wait for one.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file: File = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The layout of glibc's `struct utmp` (bits/utmp.h): where times are 32 bits
/// wide for compatibility with 32-bit programs, and where they are not.
struct Layout {
    size: usize,
    seconds: usize,
    wide: bool,
}

const LAYOUT: Layout =
    if cfg!(any(target_arch = "aarch64", target_arch = "riscv64", target_arch = "loongarch64")) {
        Layout { size: 400, seconds: 344, wide: true }
    } else {
        Layout { size: 384, seconds: 340, wide: false }
    };

const USER_PROCESS: i16 = 7;

/// The logged-in users of a utmp file's bytes. Records of other types, without
/// a name, and a torn last one are passed over.
#[must_use]
pub fn parse_utmp(bytes: &[u8]) -> Vec<Session> {
    bytes.chunks_exact(LAYOUT.size).filter_map(record).take(SESSIONS_MAX).collect()
}

fn record(record: &[u8]) -> Option<Session> {
    let bytes = |at: usize, length: usize| record.get(at..at.checked_add(length)?);
    let text =
        |at, length| bytes(at, length).map(|b| b.split(|&c| c == 0).next().unwrap_or_default().to_vec());
    let number = |at| bytes(at, 4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    let long = |at| bytes(at, 8).and_then(|b| b.try_into().ok()).map(i64::from_ne_bytes);

    let kind = i16::from_ne_bytes(bytes(0, 2)?.try_into().ok()?);
    let user = text(44, 32)?;
    if kind != USER_PROCESS || user.is_empty() {
        return None;
    }
    let (seconds, micros) = if LAYOUT.wide {
        (long(LAYOUT.seconds)?, long(LAYOUT.seconds + 8)?)
    } else {
        // Unsigned, as glibc has come to see it: good until 2106.
        (i64::from(number(LAYOUT.seconds)?.cast_unsigned()), i64::from(number(LAYOUT.seconds + 4)?))
    };
    let since = seconds.checked_mul(1_000_000).and_then(|us| us.checked_add(micros.clamp(0, 999_999)));
    Some(Session {
        user,
        tty: text(8, 32)?,
        host: text(76, 256)?,
        since_micros: since.filter(|&us| us > 0),
        pid: number(4).filter(|&pid| pid > 0),
    })
}

fn from_logind(directory: &Path) -> Result<Vec<Session>, SessionsError> {
    let failed = |source| SessionsError { path: directory.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        // A session may end while we look, and `ID.ref` are fifos.
        let Ok(bytes) = read(&entry.path()) else { continue };
        found.extend(parse_logind(&bytes));
        if found.len() >= SESSIONS_MAX {
            break;
        }
    }
    Ok(found)
}

/// The session of a file in [`SESSIONS`], where it is a person's and not ending.
/// The file's keys are systemd's own and may change; what is missing is empty.
#[must_use]
pub fn parse_logind(bytes: &[u8]) -> Option<Session> {
    let value = |key: &str| {
        bytes
            .split(|&b| b == b'\n')
            .find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b"="))
            .map(unquote)
    };
    let number = |key| value(key).and_then(|v| String::from_utf8(v).ok()?.parse::<i64>().ok());
    let class = value("CLASS").unwrap_or_else(|| b"user".to_vec());
    if !class.starts_with(b"user") || value("STATE").is_some_and(|s| s == b"closing") {
        return None;
    }
    let user = value("USER").filter(|u| !u.is_empty())?;
    Some(Session {
        user,
        tty: value("TTY").unwrap_or_default(),
        host: value("REMOTE_HOST").unwrap_or_default(),
        since_micros: number("REALTIME").filter(|&us| us > 0),
        pid: number("LEADER").and_then(|pid| i32::try_from(pid).ok()).filter(|&pid| pid > 0),
    })
}

/// A value of an environment file as systemd writes it: bare, or in double
/// quotes with backslashes before what a shell would take.
fn unquote(value: &[u8]) -> Vec<u8> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")) else {
        return value.to_vec();
    };
    let mut out = Vec::with_capacity(inner.len());
    let mut escaped = false;
    for &b in inner {
        if b == b'\\' && !escaped {
            escaped = true;
        } else {
            out.push(b);
            escaped = false;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utmp(kind: i16, user: &[u8], tty: &[u8], host: &[u8], seconds: i64, pid: i32) -> Vec<u8> {
        let mut r = vec![0; LAYOUT.size];
        r[0..2].copy_from_slice(&kind.to_ne_bytes());
        r[4..8].copy_from_slice(&pid.to_ne_bytes());
        r[8..8 + tty.len()].copy_from_slice(tty);
        r[44..44 + user.len()].copy_from_slice(user);
        r[76..76 + host.len()].copy_from_slice(host);
        let at = LAYOUT.seconds;
        if LAYOUT.wide {
            r[at..at + 8].copy_from_slice(&seconds.to_ne_bytes());
        } else {
            let narrow = u32::try_from(seconds).unwrap();
            r[at..at + 4].copy_from_slice(&narrow.to_ne_bytes());
        }
        r
    }

    fn me() -> i32 {
        i32::try_from(std::process::id()).unwrap()
    }

    #[test]
    fn users_are_told_and_everything_else_is_not() {
        let mut bytes = utmp(2, b"reboot", b"~", b"6.1", 1, 0);
        bytes.extend(utmp(7, b"alice", b"pts/0", b"192.0.2.1", 1_700_000_000, 12));
        bytes.extend(utmp(8, b"", b"pts/1", b"", 1_700_000_000, 13));
        bytes.extend(utmp(7, b"", b"pts/1", b"", 1_700_000_000, 13));
        bytes.extend([7; 100]);
        let expected = Session {
            user: b"alice".to_vec(),
            tty: b"pts/0".to_vec(),
            host: b"192.0.2.1".to_vec(),
            since_micros: Some(1_700_000_000_000_000),
            pid: Some(12),
        };
        assert_eq!(parse_utmp(&bytes), [expected]);
    }

    #[test]
    fn fields_without_an_end_stay_within_their_field() {
        let full = utmp(7, &[b'u'; 32], &[b't'; 32], &[b'h'; 256], 5, 1);
        let [s] = parse_utmp(&full).try_into().unwrap();
        assert_eq!((s.user.len(), s.tty.len(), s.host.len()), (32, 32, 256));
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut state = 1u64;
        for length in 0..3 * LAYOUT.size {
            let bytes: Vec<u8> = (0..length)
                .map(|i| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // Enough records begin as a user's for the rest to be read.
                    match i % LAYOUT.size {
                        0 => 7,
                        1 => 0,
                        _ => state.to_be_bytes()[0],
                    }
                })
                .collect();
            assert!(parse_utmp(&bytes).len() <= length / LAYOUT.size);
            assert!(parse_logind(&bytes).is_none_or(|s| !s.user.is_empty()));
        }
    }

    #[test]
    fn no_more_than_so_many() {
        let one = utmp(7, b"a", b"", b"", 1, 1);
        assert_eq!(parse_utmp(&one.repeat(SESSIONS_MAX + 5)).len(), SESSIONS_MAX);
    }

    const LOGIND: &str = "# This is private data. Do not parse.\nUID=1000\nUSER=bob\nACTIVE=1\nSTATE=active\n\
        REMOTE=1\nTYPE=tty\nCLASS=user\nREMOTE_HOST=\"2001:db8::1\"\nTTY=pts/3\nREALTIME=1700000000123456\n";

    #[test]
    fn logind_files() {
        let bob = parse_logind(LOGIND.as_bytes()).unwrap();
        assert_eq!(bob.user, b"bob");
        assert_eq!(bob.tty, b"pts/3");
        assert_eq!(bob.host, b"2001:db8::1");
        assert_eq!(bob.since_micros, Some(1_700_000_000_123_456));
        for other in ["CLASS=manager", "CLASS=greeter", "CLASS=background"] {
            assert_eq!(parse_logind(LOGIND.replace("CLASS=user", other).as_bytes()), None);
        }
        assert_eq!(parse_logind(LOGIND.replace("STATE=active", "STATE=closing").as_bytes()), None);
        assert_eq!(unquote(br#""a\"b\\c""#), br#"a"b\c"#);
    }

    #[test]
    fn logind_is_asked_where_utmp_knows_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let sessions = dir.path().join("sessions");
        std::fs::create_dir(&sessions).unwrap();
        std::fs::write(sessions.join("3"), LOGIND).unwrap();
        std::fs::write(sessions.join("4"), [0xff; 10]).unwrap();
        let fifo = sessions.join("3.ref");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let utmp_path = dir.path().join("utmp");
        let users = |utmp: Option<Vec<u8>>| {
            match utmp {
                Some(bytes) => std::fs::write(&utmp_path, bytes).unwrap(),
                None => drop(std::fs::remove_file(&utmp_path)),
            }
            let found = logged_in_by(&utmp_path, &sessions).unwrap();
            found.into_iter().map(|s| String::from_utf8(s.user).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(users(None), ["bob"]);
        assert_eq!(users(Some(utmp(2, b"reboot", b"~", b"", 1, 0))), ["bob"]);
        assert_eq!(users(Some(utmp(7, b"stale", b"", b"", 1, i32::MAX))), ["bob"]);
        assert_eq!(users(Some(utmp(7, b"alice", b"", b"", 1, me()))), ["alice"]);
        let none = logged_in_by(Path::new("/nonexistent/utmp"), Path::new("/nonexistent/sessions"));
        assert_eq!(none.unwrap(), []);
    }
}
