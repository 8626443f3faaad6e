//! `/proc/self/fd/N`: the one magic link that guardd follows.
//!
//! A handle from [`crate::open::How::Locate`] names an inode that was checked; what can only
//! be done by path is done through the handle's own link in proc(5), which leads to
//! that very inode whatever has been renamed meanwhile.

use std::ffi::CStr;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags, chmod, fchmod, openat};

use crate::open::How;

/// The path of a descriptor's own link, without an allocation.
#[derive(Debug, Clone, Copy)]
pub struct FdPath {
    /// `/proc/self/fd/` is 14 bytes, an `i32` at most 11, and a NUL.
    bytes: [u8; 32],
}

impl FdPath {
    /// The path that names `fd`, good as long as `fd` is open.
    #[must_use]
    pub fn of(fd: BorrowedFd<'_>) -> Self {
        let mut bytes = [0; 32];
        // Cannot fail: 14 + 11 bytes fit into 31, which leaves the NUL.
        let written = write!(&mut bytes[..31], "/proc/self/fd/{}", fd.as_raw_fd());
        debug_assert!(written.is_ok());
        Self { bytes }
    }

    /// As the system calls take it.
    #[must_use]
    pub fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

/// Opens anew what `handle` stands on. A symbolic link is not followed further: `ELOOP`.
///
/// # Errors
/// What open(2) says; `ENOENT` also where `/proc` is not mounted.
pub fn reopen(handle: BorrowedFd<'_>, how: How) -> io::Result<OwnedFd> {
    let path = FdPath::of(handle);
    how.attempt(|flags| openat(CWD, path.as_c_str(), flags - OFlags::NOFOLLOW, Mode::empty()))
}

/// Gives what `handle` stands on the permission bits `mode & 0o7777`. Not for symbolic links,
/// which the kernel refuses or, on some file systems, changes.
///
/// # Errors
/// What chmod(2) says; `ENOENT` also where `/proc` is not mounted.
pub fn set_mode(handle: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(chmod(FdPath::of(handle).as_c_str(), Mode::from_raw_mode(mode & 0o7777))?)
}

/// The same for what is opened: cheaper, and without `/proc`.
///
/// # Errors
/// What fchmod(2) says.
pub fn set_mode_of_opened(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(fchmod(file, Mode::from_raw_mode(mode & 0o7777))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{absolute, child};
    use crate::stat;
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    #[test]
    fn stays_on_the_inode() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "first").unwrap();
        let dir = absolute(top.path(), How::LocateDirectory).unwrap();
        let handle = child(dir.as_fd(), b"f", How::Locate).unwrap();
        fs::rename(top.path().join("f"), top.path().join("g")).unwrap();
        fs::write(top.path().join("f"), "second").unwrap();
        let file = reopen(handle.as_fd(), How::Read).unwrap();
        let mut text = [0; 16];
        let n = rustix::io::read(&file, &mut text).unwrap();
        assert_eq!(&text[..n], b"first");
        set_mode(handle.as_fd(), 0o400).unwrap();
        assert_eq!(stat::child(dir.as_fd(), b"g").unwrap().mode, 0o400);
        set_mode_of_opened(file.as_fd(), 0o440).unwrap();
        assert_eq!(stat::child(dir.as_fd(), b"g").unwrap().mode, 0o440);
        assert_ne!(stat::child(dir.as_fd(), b"f").unwrap().mode, 0o400);
    }

    #[test]
    fn a_symbolic_link_is_not_followed_from_its_handle() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "x").unwrap();
        symlink("f", top.path().join("l")).unwrap();
        let dir = absolute(top.path(), How::LocateDirectory).unwrap();
        let handle = child(dir.as_fd(), b"l", How::Locate).unwrap();
        assert!(reopen(handle.as_fd(), How::Read).is_err());
    }
}
