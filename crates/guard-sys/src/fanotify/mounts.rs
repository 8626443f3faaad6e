//! Who mounts and unmounts: a fanotify group that is told of every mount of this process's mount namespace
//! (Linux 6.14), and which line of the mount table an event is about.
//!
//! It says who, and when; where is what the mount table says ([`crate::mounts`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{init, records};

/// `linux/fanotify.h`; the libc crate does not know them yet.
const FAN_REPORT_MNT: libc::c_uint = 0x4000;
const FAN_MARK_MNTNS: libc::c_uint = 0x110;
const FAN_MNT_ATTACH: u64 = 0x0100_0000;
const FAN_MNT_DETACH: u64 = 0x0200_0000;
/// `linux/mount.h`, and the numbers of the calls, which are the same everywhere.
const SYS_STATMOUNT: libc::c_long = 457;
const SYS_LISTMOUNT: libc::c_long = 458;
const STATMOUNT_MNT_BASIC: u64 = 2;
const LSMT_ROOT: u64 = u64::MAX;

/// Something was mounted, unmounted or moved.
#[derive(Debug)]
pub struct MountEvent {
    /// The mount's number, which is never used again. Not the one in the mount table: see [`number_in_table`].
    pub mount: u64,
    /// Who did it, as numbered here.
    pub pid: Option<i32>,
    /// That very process, unless it was gone already.
    pub process: Option<OwnedFd>,
    /// The kernel says that it was gone: its number may be another's by now.
    pub is_gone: bool,
}

/// A group that hears of mounts.
#[derive(Debug)]
pub struct MountGroup(OwnedFd);

impl MountGroup {
    /// Hears of this process's mount namespace from now on. Reading it never blocks.
    ///
    /// # Errors
    /// `EINVAL` before Linux 6.14; `EPERM` without `CAP_SYS_ADMIN`; what opening `/proc/self/ns/mnt` brings.
    pub fn open() -> io::Result<Self> {
        let kind = libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        let group = init(kind | FAN_REPORT_MNT | libc::FAN_REPORT_PIDFD)?;
        // SAFETY: the descriptor is open during the call, the path is a terminated string that outlives it, and the
        // kernel writes to no memory of ours.
        let done = unsafe {
            libc::fanotify_mark(
                group.as_raw_fd(),
                libc::FAN_MARK_ADD | FAN_MARK_MNTNS,
                FAN_MNT_ATTACH | FAN_MNT_DETACH,
                libc::AT_FDCWD,
                c"/proc/self/ns/mnt".as_ptr(),
            )
        };
        if done == -1 { Err(io::Error::last_os_error()) } else { Ok(Self(group)) }
    }

    /// What waits; where the queue has overflowed the rest of it. Empty where nothing does.
    ///
    /// # Errors
    /// As [`super::Group::read`].
    pub fn read(&self) -> io::Result<Vec<MountEvent>> {
        let mut buffer = [0; 4096];
        let mut left = super::taken(&self.0, &mut buffer)?;
        let mut events = Vec::new();
        while let Some(raw) = records::next(&mut left).map_err(|_| super::malformed())? {
            // SAFETY: the number comes from the kernel's answer to this read, which opened it for this
            // process alone; each record is seen once, so nobody else owns or closes it.
            let process = (raw.pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(raw.pidfd) });
            if let Some(mount) = raw.mount {
                let is_gone = raw.pidfd == libc::FAN_NOPIDFD;
                events.push(MountEvent { mount, pid: (raw.pid > 0).then_some(raw.pid), process, is_gone });
            }
        }
        Ok(events)
    }
}

impl AsFd for MountGroup {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `struct mnt_id_req`, first version.
#[repr(C)]
struct Request {
    size: u32,
    spare: u32,
    mount: u64,
    parameter: u64,
}

impl Request {
    fn new(mount: u64, parameter: u64) -> Self {
        // The size of a struct of four numbers fits.
        Self { size: 24, spare: 0, mount, parameter }
    }
}

const _: () = assert!(size_of::<Request>() == 24);

/// The number that a mount has in the mount table ([`crate::mounts::Mount::id`]) as long as it is there.
///
/// # Errors
/// `ENOENT` where it is gone; `ENOSYS` before Linux 6.8.
pub fn number_in_table(mount: u64) -> io::Result<u64> {
    /// Where `mnt_id_old` stands in `struct statmount`.
    const AT: usize = 56;
    let mut answer = [0_u8; 1024];
    let request = Request::new(mount, STATMOUNT_MNT_BASIC);
    // SAFETY: both pointers are to memory of ours that outlives the call, of the sizes that are given; the kernel
    // reads the one and writes to the other, and keeps neither.
    let done = unsafe {
        libc::syscall(SYS_STATMOUNT, &raw const request, answer.as_mut_ptr(), answer.len(), 0_usize)
    };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    let number = answer.get(AT..).and_then(<[u8]>::first_chunk).copied().unwrap_or_default();
    Ok(u32::from_ne_bytes(number).into())
}

/// All mounts of this process's namespace, as far as they can be reached, by the numbers that events carry.
///
/// # Errors
/// `ENOSYS` before Linux 6.8.
pub fn all() -> io::Result<Vec<u64>> {
    let (mut found, mut piece) = (Vec::new(), [0_u64; 256]);
    loop {
        let request = Request::new(LSMT_ROOT, found.last().copied().unwrap_or(0));
        // SAFETY: as above; `piece` has room for as many numbers as are asked for.
        let count = unsafe {
            libc::syscall(SYS_LISTMOUNT, &raw const request, piece.as_mut_ptr(), piece.len(), 0_usize)
        };
        let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
        found.extend(piece.iter().take(count));
        if count < piece.len() {
            return Ok(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::Table;

    #[test]
    fn numbers_are_those_of_the_table() {
        let mounts = match all() {
            Ok(mounts) => mounts,
            Err(e) => return eprintln!("skipped: no listmount(2): {e}"),
        };
        let table = Table::open().unwrap().read().unwrap();
        // Other tests may mount and unmount meanwhile.
        let known = mounts.iter().filter_map(|m| number_in_table(*m).ok());
        assert!(known.filter(|n| table.iter().any(|mount| mount.id == *n)).count() > 0);
        assert!(number_in_table(1).is_err());
    }

    #[test]
    fn a_group_is_there_or_says_why_not() {
        match MountGroup::open() {
            Ok(group) => assert!(group.read().is_ok()),
            Err(e) => eprintln!("skipped: no group for mounts: {e}"),
        }
    }
}
