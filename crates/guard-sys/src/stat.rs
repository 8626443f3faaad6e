//! The attributes of an inode, by statx(2).

use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Statx, StatxAttributes, StatxFlags, StatxTimestamp, statx};

use crate::flags;

/// What kind of inode; `Unknown` only where a directory listing does not tell.
pub use rustix::fs::FileType;

/// A time as the file system keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Seconds since the epoch.
    pub sec: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nsec: u32,
}

/// The attributes of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// File, directory and so on.
    pub kind: FileType,
    /// Permission bits with setuid, setgid and sticky (`& 0o7777`).
    pub mode: u32,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Length in bytes.
    pub size: u64,
    /// Number of hard links.
    pub nlink: u32,
    /// Inode number.
    pub ino: u64,
    /// Device of the file system, major << 32 | minor.
    pub dev: u64,
    /// Device that a device node names, likewise; else 0.
    pub rdev: u64,
    /// Last change of content.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Inode flags that statx tells, in the numbers of `FS_IOC_GETFLAGS`: see [`flags::VISIBLE`].
    pub flags: u32,
    /// Tells mounts apart: the mount's id (Linux 5.8), else the device. Good for comparison
    /// with another `Stat` of this process only.
    pub mount: u64,
    /// Is it where something is mounted (Linux 5.8)?
    pub is_mount_point: bool,
}

impl Stat {
    /// Device and inode: which inode it is.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }
}

/// The attributes of what `fd` stands on, be it opened or merely located.
///
/// # Errors
/// What statx(2) says.
pub fn of(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    ask(fd, b"", AtFlags::EMPTY_PATH)
}

/// The attributes of the child `name` of `dir`; of a symbolic link itself.
///
/// # Errors
/// What statx(2) says; `ENOENT` where there is none.
pub fn child(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    ask(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// The attributes of what `path` leads to, symbolic links followed: for paths that an
/// administrator wrote, never for one inside a protected tree.
///
/// # Errors
/// What statx(2) says; `ENOENT` where there is nothing.
pub fn absolute(path: &Path) -> io::Result<Stat> {
    Ok(Stat::from(&statx(CWD, path, AtFlags::NO_AUTOMOUNT, wanted())?))
}

fn wanted() -> StatxFlags {
    (StatxFlags::BASIC_STATS - StatxFlags::ATIME) | StatxFlags::MNT_ID
}

fn ask(dir: BorrowedFd<'_>, name: &[u8], how: AtFlags) -> io::Result<Stat> {
    Ok(Stat::from(&statx(dir, name, how | AtFlags::NO_AUTOMOUNT, wanted())?))
}

impl From<&Statx> for Stat {
    fn from(s: &Statx) -> Self {
        let kind = FileType::from_raw_mode(s.stx_mode.into());
        let device = matches!(kind, FileType::BlockDevice | FileType::CharacterDevice);
        let dev = join(s.stx_dev_major, s.stx_dev_minor);
        let has_mount = s.stx_mask & StatxFlags::MNT_ID.bits() != 0;
        Self {
            kind,
            mode: u32::from(s.stx_mode) & 0o7777,
            uid: s.stx_uid,
            gid: s.stx_gid,
            size: s.stx_size,
            nlink: s.stx_nlink,
            ino: s.stx_ino,
            dev,
            rdev: if device { join(s.stx_rdev_major, s.stx_rdev_minor) } else { 0 },
            mtime: Time::from(&s.stx_mtime),
            ctime: Time::from(&s.stx_ctime),
            flags: flags::from_attributes(s.stx_attributes),
            mount: if has_mount { s.stx_mnt_id } else { dev },
            is_mount_point: s.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        }
    }
}

impl From<&StatxTimestamp> for Time {
    fn from(t: &StatxTimestamp) -> Self {
        Self { sec: t.tv_sec, nsec: t.tv_nsec }
    }
}

fn join(major: u32, minor: u32) -> u64 {
    u64::from(major) << 32 | u64::from(minor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{self, How};
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn agrees_with_stat() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "four").unwrap();
        symlink("f", top.path().join("l")).unwrap();
        let dir = open::absolute(top.path(), How::LocateDirectory).unwrap();
        for name in ["f", "l"] {
            let ours = child(dir.as_fd(), name.as_bytes()).unwrap();
            let std = fs::symlink_metadata(top.path().join(name)).unwrap();
            let dev = join(rustix::fs::major(std.dev()), rustix::fs::minor(std.dev()));
            assert_eq!(ours.identity(), (dev, std.ino()));
            assert_eq!(ours.mode, std.mode() & 0o7777);
            assert_eq!((ours.uid, ours.gid, ours.size), (std.uid(), std.gid(), std.size()));
            assert_eq!((ours.mtime.sec, i64::from(ours.mtime.nsec)), (std.mtime(), std.mtime_nsec()));
            assert_eq!((ours.ctime.sec, i64::from(ours.ctime.nsec)), (std.ctime(), std.ctime_nsec()));
            assert_eq!(u64::from(ours.nlink), std.nlink());
            let handle = open::child(dir.as_fd(), name.as_bytes(), How::Locate).unwrap();
            assert_eq!(of(handle.as_fd()).unwrap(), ours);
        }
        assert_eq!(child(dir.as_fd(), b"l").unwrap().kind, FileType::Symlink);
        assert_eq!(absolute(&top.path().join("l")).unwrap().kind, FileType::RegularFile);
    }

    #[test]
    fn device_nodes_name_a_device() {
        let null = absolute(Path::new("/dev/null")).unwrap();
        assert_eq!((null.kind, null.rdev), (FileType::CharacterDevice, 1 << 32 | 3));
    }

    #[test]
    fn mounts_are_told_apart() {
        let root = absolute(Path::new("/")).unwrap();
        let proc = absolute(Path::new("/proc")).unwrap();
        assert_ne!(root.mount, proc.mount);
        assert!(proc.is_mount_point && !absolute(Path::new("/proc/self")).unwrap().is_mount_point);
    }
}
