//! Who a process is, as far as `/proc` tells and may be read (proc(5)).
//!
//! A process number is used again once its process has ended, so what is read here by number is only as
//! good as the proof that it was that process all the while: hold a pidfd from before, and ask
//! [`exists`] after.

use std::fs;
use std::io::Read as _;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use rustix::process::{Signal, pidfd_send_signal};

/// Bytes of a command line that are read; the rest is cut off.
const LONGEST_COMMAND: u64 = 4096;

/// What `/proc/PID` tells of a process. A zombie has its name, parent and start time left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its number here.
    pub pid: i32,
    /// `comm`: at most 15 bytes, chosen by itself.
    pub name: Vec<u8>,
    /// Path of its executable, in its own mount namespace; ` (deleted)` is appended by the kernel.
    /// `None` for a zombie, for a kernel thread, or where it may not be read.
    pub exe: Option<Vec<u8>>,
    /// Its arguments, each ended by a zero byte; chosen by itself, at most 4 KiB. `None` as for `exe`.
    pub arguments: Option<Vec<u8>>,
    /// Real user id.
    pub uid: Option<u32>,
    /// The user that logged in, unchanged by `su` and `sudo`; `None` where nobody did.
    pub login_uid: Option<u32>,
    /// When it started, microseconds since boot (`CLOCK_BOOTTIME`), to a hundredth of a second.
    pub started_us: u64,
    /// Its parent; 0 for none.
    pub parent: i32,
    /// Its control group's path: of cgroup v2, else of systemd's own hierarchy.
    pub cgroup: Option<Vec<u8>>,
}

/// Reads what is there. `None` where there is no such process. What is gone first when a
/// process ends is read first.
#[must_use]
pub fn read(pid: i32) -> Option<Identity> {
    let of = |file: &str| PathBuf::from(format!("/proc/{pid}/{file}"));
    let exe = exe(pid);
    let arguments = fs::File::open(of("cmdline")).ok().and_then(|file| {
        let mut bytes = Vec::new();
        file.take(LONGEST_COMMAND).read_to_end(&mut bytes).ok()?;
        (!bytes.is_empty()).then_some(bytes)
    });
    let cgroup = fs::read(of("cgroup")).ok().and_then(|text| cgroup_of(&text));
    let Stat { name, parent, started_us } = stat_of(&fs::read(of("stat")).ok()?)?;
    let uid = fs::read(of("status")).ok().and_then(|text| uid_of(&text));
    let login_uid = u32::try_from(pid).ok().and_then(crate::peer::login_uid);
    Some(Identity { pid, name, exe, arguments, uid, login_uid, started_us, parent, cgroup })
}

/// Path of what a process executes, alone; as [`Identity::exe`].
#[must_use]
pub fn exe(pid: i32) -> Option<Vec<u8>> {
    fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| path.into_os_string().into_vec())
}

/// Device and inode of what a process executes: other than its path, the same in every mount namespace. `None` as
/// for [`Identity::exe`].
#[must_use]
pub fn executable(pid: i32) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(format!("/proc/{pid}/exe")).ok().map(|m| (m.dev(), m.ino()))
}

/// Name, parent and start time alone: for a chain of parents.
#[must_use]
pub fn brief(pid: i32) -> Option<Stat> {
    stat_of(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// Has the process that this pidfd stands for not been reaped yet? As long as it has not, its
/// number is its own.
#[must_use]
pub fn exists(process: BorrowedFd<'_>) -> bool {
    // Signal 0: nothing is sent. Not permitted means that there is somebody to send it to.
    !matches!(test_signal(process), Err(rustix::io::Errno::SRCH))
}

fn test_signal(process: BorrowedFd<'_>) -> rustix::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // A pidfd is readable once its process has ended, reaped or not; a zombie still holds its number.
    let mut asked = [PollFd::new(&process, PollFlags::IN)];
    poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if asked.iter().all(|a| a.revents().is_empty()) {
        return Ok(());
    }
    // SIGCONT does nothing to a process that has ended, and the kernel says whether there is one.
    pidfd_send_signal(process, Signal::CONT)
}

/// What `/proc/PID/stat` tells of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// `comm`.
    pub name: Vec<u8>,
    /// The parent's number; 0 for none.
    pub parent: i32,
    /// Microseconds since boot.
    pub started_us: u64,
}

fn stat_of(text: &[u8]) -> Option<Stat> {
    // The name stands in parentheses and may hold any byte, parentheses and newlines among them.
    let open = text.iter().position(|b| *b == b'(')?;
    let close = text.iter().rposition(|b| *b == b')')?;
    let name = text.get(open + 1..close)?.to_vec();
    let rest = std::str::from_utf8(text.get(close + 1..)?).ok()?;
    // From field 3, the state, on.
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let ticks: u64 = fields.nth(17)?.parse().ok()?;
    let started_us = ticks.checked_mul(1_000_000)?.checked_div(rustix::param::clock_ticks_per_second())?;
    Some(Stat { name, parent, started_us })
}

fn uid_of(status: &[u8]) -> Option<u32> {
    let line = status.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

fn cgroup_of(text: &[u8]) -> Option<Vec<u8>> {
    let lines = || text.split(|b| *b == b'\n');
    let unified = lines().find_map(|line| line.strip_prefix(b"0::"));
    let systemd = || {
        lines().find_map(|line| {
            let at = line.windows(b":name=systemd:".len()).position(|w| w == b":name=systemd:")?;
            line.get(at + b":name=systemd:".len()..)
        })
    };
    // On a host with both, the unified one may be unused, and everything in its root.
    unified.filter(|path| path.len() > 1).or_else(systemd).or(unified).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::process::{Command, Stdio};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn a_running_process_is_known_and_an_ended_one_is_not_taken_for_another() {
        let mut child =
            Command::new("cat").arg("-").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let process = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        // Until it has become cat.
        let known = loop {
            let known = read(pid).unwrap();
            if known.name == b"cat" && known.arguments.is_some() {
                break known;
            }
            std::thread::yield_now();
        };
        assert_eq!(known.arguments.as_deref(), Some(b"cat\0-\0".as_slice()));
        assert!(known.exe.unwrap().ends_with(b"cat"));
        assert!(executable(pid).is_some() && executable(pid) != executable(std::process::id().cast_signed()));
        assert_eq!(known.uid, Some(rustix::process::getuid().as_raw()));
        assert_eq!(known.parent, std::process::id().cast_signed());
        assert!(known.started_us <= crate::clock::boottime_micros());
        assert!(exists(process.as_fd()));

        child.stdin.take();
        rustix::process::waitid(
            rustix::process::WaitId::PidFd(process.as_fd()),
            rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT,
        )
        .unwrap();
        // A zombie: the number is still its own, and its name is left.
        assert!(exists(process.as_fd()));
        let zombie = read(pid).unwrap();
        assert_eq!(executable(pid), None);
        assert_eq!((zombie.name.as_slice(), zombie.exe, zombie.arguments), (b"cat".as_slice(), None, None));
        child.wait().unwrap();
        assert!(!exists(process.as_fd()));
    }

    #[test]
    fn a_name_may_be_anything() {
        let text = b"7 (a) b\n) S 42 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 250 0 0";
        let stat = stat_of(text).unwrap();
        assert_eq!(
            (stat.name.as_slice(), stat.parent, stat.started_us),
            (b"a) b\n".as_slice(), 42, 2_500_000)
        );
        for cut in 0..text.len() {
            // The start time is cut off first, maybe in its middle.
            assert!(stat_of(&text[..cut]).is_none() || cut > 50, "{cut}");
        }
    }

    #[test]
    fn both_versions_of_control_groups() {
        let v2 = b"0::/system.slice/nginx.service\n";
        assert_eq!(cgroup_of(v2).unwrap(), b"/system.slice/nginx.service");
        let v1 = b"12:pids:/x\n1:name=systemd:/user.slice/a.scope\n0::/\n";
        assert_eq!(cgroup_of(v1).unwrap(), b"/user.slice/a.scope");
        assert_eq!(cgroup_of(b"0::/\n").unwrap(), b"/");
        assert_eq!(cgroup_of(b""), None);
        assert_eq!(uid_of(b"Name:\tx\nUid:\t33\t0\t0\t0\n"), Some(33));
    }
}
