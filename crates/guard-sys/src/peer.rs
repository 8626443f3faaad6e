//! Who is at the other end of a Unix socket, and what users and groups are called.
//!
//! Credentials are those that the kernel recorded at `connect(2)`; nothing that
//! the client sends is believed. Names come from the system's own user database
//! (NSS, so directory services count), which may block: look names up when a
//! configuration is loaded or an alert is shown, and compare numbers elsewhere.
#![expect(unsafe_code, reason = "SO_PEERGROUPS and SO_PEERPIDFD have no safe wrapper")]

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The value in `/proc/PID/loginuid` where nobody has logged in
/// (`AUDIT_UID_UNSET`, linux/audit.h).
const LOGIN_UID_UNSET: u32 = u32::MAX;

/// More supplementary groups than Linux allows (`NGROUPS_MAX`, limits.h).
const MOST_GROUPS: usize = 65_536;

/// The other end of a connected Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Process id of the process that connected, as seen from here; `None`
    /// where it lives outside this process's PID namespace. It may have ended,
    /// and it may have handed the socket on.
    pub pid: Option<u32>,
    /// Effective user id when it connected.
    pub uid: u32,
    /// Effective group id when it connected.
    pub gid: u32,
    /// Supplementary groups when it connected; `gid` is not necessarily among them.
    pub groups: Vec<u32>,
    /// The user that logged in, unchanged by `su` and `sudo`; `None` where nobody
    /// did (services), where the kernel keeps none, or where the process has ended.
    pub login_uid: Option<u32>,
}

impl Peer {
    /// Was the peer in this group when it connected?
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.contains(&gid)
    }
}

/// The kernel would not say who the peer is.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask the kernel for the peer's {what}")]
pub struct PeerError {
    /// What was asked for.
    what: &'static str,
    /// What the kernel said.
    #[source]
    source: io::Error,
}

/// Asks the kernel who connected this Unix stream socket (unix(7)).
///
/// # Errors
/// [`PeerError`] where it is no connected Unix socket.
pub fn of(socket: impl AsFd) -> Result<Peer, PeerError> {
    let socket = socket.as_fd();
    let (pid, uid, gid) =
        credentials(socket).map_err(|source| PeerError { what: "credentials (SO_PEERCRED)", source })?;
    let groups =
        supplementary(socket).map_err(|source| PeerError { what: "groups (SO_PEERGROUPS)", source })?;
    let login_uid = pid.and_then(|pid| {
        let found = login_uid(pid)?;
        // The number may meanwhile name another process. As long as the peer
        // itself has not been reaped, it cannot. Kernels before 6.5 cannot tell.
        match process_handle(socket) {
            Ok(handle) => still_runs(&handle).then_some(found),
            Err(_) => Some(found),
        }
    });
    Ok(Peer { pid, uid, gid, groups, login_uid })
}

/// Is nobody at the other end of this connected socket any more? Not so where
/// the peer has only ended its own side and still reads (`POLLHUP` of poll(2)).
#[must_use]
pub fn has_hung_up(socket: impl AsFd) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let socket = socket.as_fd();
    let mut asked = [PollFd::new(&socket, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Interrupted or short of memory: asked again at the next occasion.
    let told = poll(&mut asked, Some(&now)).is_ok();
    told && asked.iter().any(|a| a.revents().intersects(PollFlags::HUP | PollFlags::ERR))
}

/// This process's effective user id.
#[must_use]
pub fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The effective group id of this process.
#[must_use]
pub fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}

/// The login uid of a running process, which `su` and `sudo` leave as it is
/// (`/proc/PID/loginuid`, proc(5)). `None` where it is unset, where the kernel
/// has no audit support, or where there is no such process.
#[must_use]
pub fn login_uid(pid: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/loginuid")).ok()?;
    parse_login_uid(&text)
}

fn parse_login_uid(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|&uid| uid != LOGIN_UID_UNSET)
}

/// The name of a user; `None` where there is none or the database cannot be asked.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    nix::unistd::User::from_uid(uid.into()).ok().flatten().map(|u| u.name)
}

/// The id of a user; `None` where there is none or the database cannot be asked.
#[must_use]
pub fn user_id(name: &str) -> Option<u32> {
    nix::unistd::User::from_name(name).ok().flatten().map(|u| u.uid.as_raw())
}

/// The name of a group; `None` where there is none or the database cannot be asked.
#[must_use]
pub fn group_name(gid: u32) -> Option<String> {
    nix::unistd::Group::from_gid(gid.into()).ok().flatten().map(|g| g.name)
}

/// The id of a group; `None` where there is none or the database cannot be asked.
#[must_use]
pub fn group_id(name: &str) -> Option<u32> {
    nix::unistd::Group::from_name(name).ok().flatten().map(|g| g.gid.as_raw())
}

/// Process id (0 where it is in no namespace of ours), user and group of the peer.
fn credentials(socket: BorrowedFd<'_>) -> io::Result<(Option<u32>, u32, u32)> {
    // Not rustix's wrapper: its process id cannot hold the 0 that the kernel
    // writes for a peer outside this PID namespace.
    let mut cred = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    let size = mem::size_of::<libc::ucred>();
    // SAFETY: `cred` is a plain C struct of `size` bytes, valid for any bit
    // pattern, and outlives the call.
    let got = unsafe { peer_option(socket, libc::SO_PEERCRED, (&raw mut cred).cast(), size) }?;
    // A socket that was never connected answers with nobody: uid -1 (unix(7)).
    if got != size || cred.uid == u32::MAX {
        return Err(io::ErrorKind::NotConnected.into());
    }
    Ok((u32::try_from(cred.pid).ok().filter(|&pid| pid != 0), cred.uid, cred.gid))
}

fn supplementary(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut room = 64_usize;
    loop {
        let mut groups = vec![0_u32; room];
        let size = room * mem::size_of::<libc::gid_t>();
        // SAFETY: `groups` holds `room` gid_t, which is u32 on Linux, that is
        // `size` bytes of plain integers, and outlives the call.
        let answer = unsafe { peer_option(socket, libc::SO_PEERGROUPS, groups.as_mut_ptr().cast(), size) };
        match answer {
            Ok(bytes) => {
                groups.truncate(bytes / mem::size_of::<libc::gid_t>());
                return Ok(groups);
            }
            Err(e) if e.raw_os_error() == Some(libc::ERANGE) && room < MOST_GROUPS => room *= 4,
            Err(e) => return Err(e),
        }
    }
}

/// A handle on the very process that connected (pidfd; Linux 6.5).
fn process_handle(socket: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let size = mem::size_of::<libc::c_int>();
    // SAFETY: `fd` is one plain integer of `size` bytes and outlives the call.
    let got = unsafe { peer_option(socket, libc::SO_PEERPIDFD, (&raw mut fd).cast(), size) }?;
    if got != size || fd < 0 {
        return Err(io::ErrorKind::NotConnected.into());
    }
    // SAFETY: the kernel has just made this descriptor for us; nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// True until the process has been reaped and its number is free for another.
fn still_runs(handle: &OwnedFd) -> bool {
    match fs::read_to_string(format!("/proc/self/fdinfo/{}", handle.as_raw_fd())) {
        // pidfd_open(2): the Pid line reads -1 once the process has been reaped.
        Ok(info) => info.lines().any(|l| l.strip_prefix("Pid:").is_some_and(|p| p.trim() != "-1")),
        Err(_) => false,
    }
}

/// Reads a `SOL_SOCKET` option into `size` bytes at `out`; how many were written.
///
/// # Safety
/// `out` must be valid for writes of `size` bytes, and every bit pattern must
/// be valid there.
unsafe fn peer_option(
    socket: BorrowedFd<'_>,
    option: libc::c_int,
    out: *mut libc::c_void,
    size: usize,
) -> io::Result<usize> {
    let mut len = libc::socklen_t::try_from(size).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the descriptor is borrowed and so open; the caller vouches for
    // `out` and `size`; `len` outlives the call. getsockopt(2) writes no more
    // than `len` bytes and leaves in it how many it wrote.
    let status = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, out, &raw mut len) };
    if status == 0 { Ok(len as usize) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn hanging_up_is_told_from_ending_one_side() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!has_hung_up(&ours));
        theirs.shutdown(std::net::Shutdown::Write).unwrap();
        assert!(!has_hung_up(&ours));
        drop(theirs);
        assert!(has_hung_up(&ours));
    }

    #[test]
    fn both_ends_of_a_pair_are_this_process() {
        let (a, b) = UnixStream::pair().unwrap();
        for end in [&a, &b] {
            let peer = of(end).unwrap();
            assert_eq!(peer.pid, Some(std::process::id()));
            assert_eq!(peer.uid, own_uid());
            assert_eq!(peer.gid, rustix::process::getegid().as_raw());
            assert!(peer.in_group(peer.gid));
            let mut groups: Vec<u32> =
                rustix::process::getgroups().unwrap().iter().map(|g| g.as_raw()).collect();
            let mut theirs = peer.groups.clone();
            groups.sort_unstable();
            theirs.sort_unstable();
            assert_eq!(theirs, groups);
            assert_eq!(peer.login_uid, login_uid(std::process::id()));
        }
    }

    #[test]
    fn nobody_is_at_the_other_end_of_a_listener_of_another_family() {
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(of(&udp).is_err());
    }

    #[test]
    fn a_socket_that_never_connected_has_no_peer() {
        let dir = tempfile::tempdir().unwrap();
        let lone = std::os::unix::net::UnixDatagram::bind(dir.path().join("s")).unwrap();
        assert!(of(&lone).is_err());
    }

    #[test]
    fn a_peer_that_ended_is_still_known_by_its_uid() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let mut child = std::process::Command::new("python3")
            .args(["-c", "import socket,sys;s=socket.socket(socket.AF_UNIX);s.connect(sys.argv[1])"])
            .arg(&path)
            .spawn();
        let Ok(child) = &mut child else { return }; // no python3 on this machine
        child.wait().unwrap();
        let (socket, _) = listener.accept().unwrap();
        let peer = of(&socket).unwrap();
        assert_eq!((peer.pid, peer.uid, peer.login_uid), (Some(child.id()), own_uid(), None));
    }

    #[test]
    fn login_uid_knows_unset() {
        assert_eq!(parse_login_uid("1000\n"), Some(1000));
        assert_eq!(parse_login_uid("0"), Some(0));
        for none in ["4294967295", "", "x", "-1", "4294967296"] {
            assert_eq!(parse_login_uid(none), None, "{none}");
        }
        assert_eq!(login_uid(u32::MAX), None);
    }

    #[test]
    fn names_both_ways() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_id("root"), Some(0));
        assert_eq!(group_name(0).as_deref(), Some("root"));
        assert_eq!(group_id("root"), Some(0));
        for odd in ["", "no such name", "a\0b", "../x"] {
            assert_eq!(user_id(odd), None, "{odd:?}");
            assert_eq!(group_id(odd), None, "{odd:?}");
        }
        assert_eq!(user_name(u32::MAX - 7), None);
    }
}
