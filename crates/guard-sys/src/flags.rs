//! Inode flags, those that chattr(1) shows.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{IFlags, StatxAttributes, ioctl_getflags, ioctl_setflags};

/// `FS_IMMUTABLE_FL`: nothing may change (`chattr +i`).
pub const IMMUTABLE: u32 = IFlags::IMMUTABLE.bits();
/// `FS_APPEND_FL`: may only grow (`chattr +a`).
pub const APPEND: u32 = IFlags::APPEND.bits();
/// `FS_NODUMP_FL`: left out by dump(8) (`chattr +d`).
pub const NODUMP: u32 = IFlags::NODUMP.bits();
/// `FS_COMPR_FL`: kept compressed (`chattr +c`).
pub const COMPRESSED: u32 = IFlags::COMPRESSED.bits();

/// The flags that statx(2) tells and chattr(1) sets. They are told for every kind of inode
/// and without opening it, hence the ones that an observation holds.
pub const VISIBLE: u32 = IMMUTABLE | APPEND | NODUMP | COMPRESSED;

/// statx's attributes in the numbers of `FS_IOC_GETFLAGS`.
#[must_use]
pub(crate) fn from_attributes(attributes: StatxAttributes) -> u32 {
    [
        (StatxAttributes::IMMUTABLE, IMMUTABLE),
        (StatxAttributes::APPEND, APPEND),
        (StatxAttributes::NODUMP, NODUMP),
        (StatxAttributes::COMPRESSED, COMPRESSED),
    ]
    .into_iter()
    .filter(|(attribute, _)| attributes.contains(*attribute))
    .fold(0, |all, (_, flag)| all | flag)
}

/// All inode flags of an opened file or directory (`FS_IOC_GETFLAGS`).
///
/// # Errors
/// `ENOTTY` or `EOPNOTSUPP` where the file system has none; `EBADF` for a handle that is
/// merely located.
pub fn get(file: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(ioctl_getflags(file)?.bits())
}

/// Sets those of `mask` to what they are in `value` and leaves the others as they are.
/// True where something had to be changed.
///
/// # Errors
/// As [`get`]; `EPERM` without `CAP_LINUX_IMMUTABLE`, or for another's file; `EROFS`.
pub fn set(file: BorrowedFd<'_>, mask: u32, value: u32) -> io::Result<bool> {
    let before = get(file)?;
    let after = (before & !mask) | (value & mask);
    if after == before {
        return Ok(false);
    }
    ioctl_setflags(file, IFlags::from_bits_retain(after))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{self, How};
    use crate::stat;
    use std::fs;
    use std::os::fd::AsFd;

    #[test]
    fn statx_and_ioctl_agree() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "x").unwrap();
        let file = open::absolute(&top.path().join("f"), How::Read).unwrap();
        // The owner may set this one, and every file system that has flags has it.
        match set(file.as_fd(), NODUMP, NODUMP) {
            Ok(changed) => assert!(changed),
            Err(e) => {
                assert!(matches!(e.raw_os_error(), Some(libc::ENOTTY | libc::EOPNOTSUPP)), "{e}");
                return;
            }
        }
        assert_eq!(stat::of(file.as_fd()).unwrap().flags, NODUMP);
        assert!(!set(file.as_fd(), NODUMP, NODUMP).unwrap());
        assert!(set(file.as_fd(), VISIBLE, 0).unwrap());
        assert_eq!(stat::of(file.as_fd()).unwrap().flags, 0);
    }

    #[test]
    fn immutable_needs_the_capability() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "x").unwrap();
        let file = open::absolute(&top.path().join("f"), How::Read).unwrap();
        match set(file.as_fd(), IMMUTABLE, IMMUTABLE) {
            Ok(_) => {
                assert!(fs::write(top.path().join("f"), "y").is_err());
                assert_eq!(stat::of(file.as_fd()).unwrap().flags & IMMUTABLE, IMMUTABLE);
                assert!(set(file.as_fd(), IMMUTABLE, 0).unwrap());
            }
            Err(e) => {
                let known = [libc::EPERM, libc::ENOTTY, libc::EOPNOTSUPP];
                assert!(e.raw_os_error().is_some_and(|n| known.contains(&n)), "{e}");
            }
        }
        fs::write(top.path().join("f"), "y").unwrap();
    }
}
