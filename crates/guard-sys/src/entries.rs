//! Making, moving and removing entries of every kind in a directory, and giving an inode that is
//! merely located its attributes.
//!
//! Names are single components beside a directory's handle; attributes go to the very inode that
//! a handle stands on, through its own link in proc(5), whatever its name leads to by now.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::fs::{
    Access, AtFlags, CWD, Gid, Mode, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
    accessat, chownat, makedev, mkdirat, mknodat, removexattr, renameat_with, setxattr, symlinkat, unlinkat,
    utimensat,
};
use rustix::io::Errno;

use crate::open::{How, child};
use crate::place::checked;
use crate::procfd::FdPath;
use crate::stat::{FileType, Time};

/// Makes the empty directory `name` in `dir`, for its owner only, which is this process.
///
/// # Errors
/// `EEXIST`; else what mkdirat(2) says.
pub fn make_directory(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    mkdirat(dir, checked(name)?, Mode::RWXU)?;
    child(dir, name, How::Locate)
}

/// Makes the symbolic link `name` in `dir`.
///
/// # Errors
/// `EEXIST`; else what symlinkat(2) says.
pub fn make_symlink(dir: BorrowedFd<'_>, name: &[u8], target: &[u8]) -> io::Result<OwnedFd> {
    let target = CString::new(target).map_err(io::Error::from)?;
    symlinkat(target.as_c_str(), dir, checked(name)?)?;
    child(dir, name, How::Locate)
}

/// Makes a fifo, or the node of the device `device` (major << 32 | minor), for its owner only.
///
/// # Errors
/// `EPERM` for a device without `CAP_MKNOD`; `EEXIST`; else what mknodat(2) says. `EINVAL` for
/// what is neither.
pub fn make_node(dir: BorrowedFd<'_>, name: &[u8], kind: FileType, device: u64) -> io::Result<OwnedFd> {
    if !matches!(kind, FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(Errno::INVAL.into());
    }
    let part = |n: u64| u32::try_from(n & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    let device = if kind == FileType::Fifo { 0 } else { makedev(part(device >> 32), part(device)) };
    mknodat(dir, checked(name)?, kind, Mode::RUSR | Mode::WUSR, device)?;
    child(dir, name, How::Locate)
}

/// Renames within `dir`, unless something has the new name.
///
/// # Errors
/// `EEXIST`; `EINVAL` where the file system cannot promise it; `EBUSY` for a mount point; else
/// what renameat2(2) says.
pub fn rename_new(dir: BorrowedFd<'_>, from: &[u8], to: &[u8]) -> io::Result<()> {
    Ok(renameat_with(dir, checked(from)?, dir, checked(to)?, RenameFlags::NOREPLACE)?)
}

/// Removes the empty directory `name`.
///
/// # Errors
/// `ENOTEMPTY`; else what rmdir(2) says.
pub fn remove_directory(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(unlinkat(dir, checked(name)?, AtFlags::REMOVEDIR)?)
}

/// May this process make and remove names in the directory that `handle` stands on, by its mode and
/// ACL? The immutable flag is not asked.
#[must_use]
pub fn may_change_names(handle: BorrowedFd<'_>) -> bool {
    let wanted = Access::WRITE_OK | Access::EXEC_OK;
    accessat(CWD, FdPath::of(handle).as_c_str(), wanted, AtFlags::EACCESS).is_ok()
}

/// Sets owner and group of what `handle` stands on, a symbolic link itself included. The kernel takes
/// setuid, setgid and capabilities away with it: set those after.
///
/// # Errors
/// What chown(2) says.
pub fn set_owner(handle: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    Ok(chownat(CWD, FdPath::of(handle).as_c_str(), uid, gid, AtFlags::empty())?)
}

/// Sets the time of the last change of content of what `handle` stands on, likewise; that of the
/// last access stays.
///
/// # Errors
/// What utimensat(2) says.
pub fn set_mtime(handle: BorrowedFd<'_>, mtime: Time) -> io::Result<()> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
        last_modification: Timespec { tv_sec: mtime.sec, tv_nsec: i64::from(mtime.nsec) as _ },
    };
    Ok(utimensat(CWD, FdPath::of(handle).as_c_str(), &times, AtFlags::empty())?)
}

/// Sets an extended attribute of what `handle` stands on, likewise.
///
/// # Errors
/// What setxattr(2) says.
pub fn set_xattr(handle: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    Ok(setxattr(FdPath::of(handle).as_c_str(), name, value, XattrFlags::empty())?)
}

/// Removes an extended attribute of what `handle` stands on, likewise.
///
/// # Errors
/// What removexattr(2) says.
pub fn remove_xattr(handle: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    Ok(removexattr(FdPath::of(handle).as_c_str(), name)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{open, stat};
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn every_kind_is_made_beside_a_handle_and_nothing_is_overwritten() {
        let top = tempfile::tempdir().unwrap();
        let dir = open::absolute(top.path(), How::List).unwrap();
        let kind = |h: OwnedFd| stat::of(h.as_fd()).unwrap().kind;
        assert_eq!(kind(make_directory(dir.as_fd(), b"d").unwrap()), FileType::Directory);
        assert_eq!(kind(make_symlink(dir.as_fd(), b"l", b"../\xff").unwrap()), FileType::Symlink);
        assert_eq!(kind(make_node(dir.as_fd(), b"p", FileType::Fifo, 0).unwrap()), FileType::Fifo);
        for name in [&b"d"[..], b"l", b"p"] {
            let made = [
                make_directory(dir.as_fd(), name),
                make_symlink(dir.as_fd(), name, b"x"),
                make_node(dir.as_fd(), name, FileType::Fifo, 0),
            ];
            for e in made.into_iter().map(Result::unwrap_err) {
                assert_eq!(Errno::from_io_error(&e), Some(Errno::EXIST));
            }
        }
        assert!(make_directory(dir.as_fd(), b"../out").is_err());
        assert!(make_node(dir.as_fd(), b"f", FileType::RegularFile, 0).is_err());
        rename_new(dir.as_fd(), b"l", b"m").unwrap();
        assert!(rename_new(dir.as_fd(), b"m", b"p").is_err());
        remove_directory(dir.as_fd(), b"d").unwrap();
        assert!(may_change_names(dir.as_fd()));
    }

    #[test]
    fn a_links_attributes_are_its_own() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "x").unwrap();
        let before = fs::metadata(top.path().join("f")).unwrap();
        let dir = open::absolute(top.path(), How::List).unwrap();
        let link = make_symlink(dir.as_fd(), b"l", b"f").unwrap();
        set_mtime(link.as_fd(), Time { sec: 5, nsec: 6 }).unwrap();
        let (uid, gid) = (before.uid(), before.gid());
        set_owner(link.as_fd(), uid, gid).unwrap();
        let now = stat::of(link.as_fd()).unwrap();
        assert_eq!((now.kind, now.mtime), (FileType::Symlink, Time { sec: 5, nsec: 6 }));
        let after = fs::metadata(top.path().join("f")).unwrap();
        assert_eq!((before.mtime(), before.mtime_nsec()), (after.mtime(), after.mtime_nsec()));
    }
}
