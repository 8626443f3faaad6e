//! Putting a file in the place of another, all through handles on directories.
//!
//! The new file is made under a name that nobody can guess, and changes places with the old one
//! in a single step (renameat2(2), `RENAME_EXCHANGE`), so that the name leads to one or the other at
//! any moment, and nothing is lost if what stood there was not what was expected.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags, fchmod,
    fchown, fremovexattr, fsetxattr, fstat, fsync, ftruncate, futimens, linkat, openat, renameat_with,
    syncfs, unlinkat,
};
use rustix::io::{Errno, pwrite};

use crate::procfd::FdPath;

/// What the names of [`temporary_name`] begin with.
pub const TEMPORARY: &str = ".guardd-";

/// A name that nobody can guess: [`TEMPORARY`] and 32 hexadecimal digits.
///
/// # Errors
/// What getrandom(2) says.
pub fn temporary_name() -> io::Result<String> {
    let mut random = [0u8; 16];
    let mut filled = 0;
    while let Some(rest) = random.get_mut(filled..).filter(|r| !r.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(format!("{TEMPORARY}{:032x}", u128::from_ne_bytes(random)))
}

pub(crate) fn checked(name: &[u8]) -> io::Result<&[u8]> {
    if name.contains(&b'/') || matches!(name, b"" | b"." | b"..") {
        Err(Errno::XDEV.into())
    } else {
        Ok(name)
    }
}

/// Makes the empty file `name` in `dir`, for its owner only, which is this process.
///
/// # Errors
/// `EEXIST` where there is something, a symbolic link too; else what open(2) says.
pub fn create(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(dir, checked(name)?, flags, Mode::RUSR | Mode::WUSR)?)
}

/// Gives the very file that `file` stands on one more name.
///
/// # Errors
/// `EEXIST`; `EXDEV` where `dir` lies on another mount; else what linkat(2) says.
pub fn link(file: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(linkat(CWD, FdPath::of(file).as_c_str(), dir, checked(name)?, AtFlags::SYMLINK_FOLLOW)?)
}

/// The two names in `dir` change places in one step.
///
/// # Errors
/// `EINVAL` where the file system cannot; else what renameat2(2) says.
pub fn exchange(dir: BorrowedFd<'_>, one: &[u8], other: &[u8]) -> io::Result<()> {
    Ok(renameat_with(dir, checked(one)?, dir, checked(other)?, RenameFlags::EXCHANGE)?)
}

/// Removes a name that is none of a directory.
///
/// # Errors
/// What unlinkat(2) says.
pub fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    Ok(unlinkat(dir, checked(name)?, AtFlags::empty())?)
}

/// Sets the length of a file.
///
/// # Errors
/// What ftruncate(2) says.
pub fn set_length(file: BorrowedFd<'_>, length: u64) -> io::Result<()> {
    Ok(ftruncate(file, length)?)
}

/// Writes all of `bytes` at `offset`.
///
/// # Errors
/// What pwrite(2) says.
pub fn write_at(file: BorrowedFd<'_>, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match pwrite(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                bytes = bytes.get(n..).unwrap_or_default();
                offset += n as u64;
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Sets owner and group. The kernel takes setuid, setgid and capabilities away with it: set those after.
///
/// # Errors
/// What fchown(2) says.
pub fn set_owner(file: BorrowedFd<'_>, uid: u32, gid: u32) -> io::Result<()> {
    Ok(fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

/// Sets the permission bits `mode & 0o7777`.
///
/// # Errors
/// What fchmod(2) says.
pub fn set_mode(file: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    Ok(fchmod(file, Mode::from_raw_mode(mode & 0o7777))?)
}

/// Sets an extended attribute.
///
/// # Errors
/// What fsetxattr(2) says.
pub fn set_xattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> io::Result<()> {
    Ok(fsetxattr(file, name, value, XattrFlags::empty())?)
}

/// Removes an extended attribute.
///
/// # Errors
/// What fremovexattr(2) says.
pub fn remove_xattr(file: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    Ok(fremovexattr(file, name)?)
}

/// Gives `to` the times of last access and last change of content that `from` has.
///
/// # Errors
/// What fstat(2) and futimens(2) say.
pub fn copy_times(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = fstat(from)?;
    let time = |sec, nsec| Timespec { tv_sec: sec, tv_nsec: i64::try_from(nsec).unwrap_or(UTIME_OMIT) as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(futimens(to, &times)?)
}

/// Waits until a file or directory is on the disk.
///
/// # Errors
/// What fsync(2) says.
pub fn to_disk(file: &impl AsFd) -> io::Result<()> {
    Ok(fsync(file)?)
}

/// Waits until everything is on the disk that was changed in the file system that `file` lies in.
///
/// # Errors
/// What syncfs(2) says; since Linux 5.8 also of what could not be written earlier.
pub fn file_system_to_disk(file: &impl AsFd) -> io::Result<()> {
    Ok(syncfs(file)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{How, absolute};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn a_new_file_takes_the_place_of_another() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("f");
        fs::write(&path, "old").unwrap();
        let dir = absolute(top.path(), How::List).unwrap();
        let name = temporary_name().unwrap();
        let file = create(dir.as_fd(), name.as_bytes()).unwrap();
        write_at(file.as_fd(), b"new", 0).unwrap();
        set_length(file.as_fd(), 5).unwrap();
        set_mode(file.as_fd(), 0o640).unwrap();
        copy_times(absolute(&path, How::Read).unwrap().as_fd(), file.as_fd()).unwrap();
        let mtime = |p: &std::path::Path| fs::metadata(p).map(|m| (m.mtime(), m.mtime_nsec())).unwrap();
        assert_eq!(mtime(&top.path().join(&name)), mtime(&path));
        exchange(dir.as_fd(), name.as_bytes(), b"f").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new\0\0");
        assert_eq!(fs::read(top.path().join(&name)).unwrap(), b"old");
        link(file.as_fd(), dir.as_fd(), b"g").unwrap();
        assert_eq!(fs::metadata(top.path().join("g")).unwrap().nlink(), 2);
        remove(dir.as_fd(), name.as_bytes()).unwrap();
        to_disk(&dir).unwrap();
        assert!(!top.path().join(&name).exists());
    }

    #[test]
    fn nothing_that_is_there_is_made_or_left() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("victim"), "x").unwrap();
        symlink("victim", top.path().join("l")).unwrap();
        symlink("nothing", top.path().join("dangling")).unwrap();
        fs::create_dir(top.path().join("d")).unwrap();
        let dir = absolute(top.path(), How::List).unwrap();
        for name in ["victim", "l", "dangling", "d"] {
            let e = create(dir.as_fd(), name.as_bytes()).unwrap_err();
            assert_eq!(Errno::from_io_error(&e), Some(Errno::EXIST), "{name}");
        }
        for name in ["../x", "", ".", "..", "d/x"] {
            let e = create(dir.as_fd(), name.as_bytes()).unwrap_err();
            assert_eq!(Errno::from_io_error(&e), Some(Errno::XDEV), "{name}");
        }
        assert!(remove(dir.as_fd(), b"d").is_err());
        assert_ne!(temporary_name().unwrap(), temporary_name().unwrap());
    }
}
