//! Changing modes and binding flags, which is how a tree is sealed and unsealed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use guard_model::RelPath;
use guard_model::seal::{BINDING, Marks};
use guard_sys::open::How;
use guard_sys::stat::{self, FileType, Stat};
use guard_sys::{Errno, flags, procfd, rights};

use crate::observe::is_absence;
use crate::{Root, TreeError};

/// What became of a change of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarksSet {
    /// The entry has them now.
    Done,
    /// It had them before.
    Already,
    /// Nothing is at the path.
    Vanished,
    /// Something else is: another inode, or neither a file nor a directory. Left alone.
    Replaced,
    /// The kernel refuses the mode to this process (not the owner; a flag stands in the way that
    /// it may not lift), or would silently drop the setgid bit (chmod(2): the caller is not in
    /// the file's group). Nothing was changed.
    NotPermitted,
    /// It has the mode, and its flags are as they were.
    NoFlags(WhyNoFlags),
}

/// Why flags could not be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WhyNoFlags {
    /// The file system has none, or does not tell them, so that nobody could watch them.
    Unsupported,
    /// This process may not (`CAP_LINUX_IMMUTABLE`), or cannot open the entry at the moment.
    NotPermitted,
}

/// Why the flags of one entry are not as asked for.
enum FlagsError {
    Not(WhyNoFlags),
    Io(io::Error),
}

const SETGID: u32 = 0o2000;

impl Root {
    /// Gives `path` the permission bits `marks.mode` (`& 0o7777`) and, of the flags in
    /// [`BINDING`], exactly `marks.flags`, if, and only if, it still is the file or directory
    /// with this device and inode. Other inode flags stay. A flag that stands in the way of
    /// the mode is lifted first and set again last. May be repeated after an interruption.
    ///
    /// Follows no symbolic link, and acts on the very inode that was checked. Every name of a
    /// hard-linked file changes with it: ask [`crate::LinkCounts`] first.
    ///
    /// # Errors
    /// [`TreeError::Io`] where the kernel failed otherwise than [`MarksSet`] says, such as
    /// on a read-only file system; [`TreeError::ModeAltered`].
    pub fn set_marks(
        &self,
        path: &RelPath,
        identity: (u64, u64),
        marks: Marks,
    ) -> Result<MarksSet, TreeError> {
        let wanted = Marks { mode: marks.mode & 0o7777, flags: marks.flags & BINDING };
        let failed = |operation| {
            move |source: io::Error| TreeError::Io { operation, path: self.absolute(path), source }
        };
        let handle = match self.open_beneath(path, How::Locate) {
            Ok(handle) => handle,
            Err(e) if is_absence(&e) => return Ok(MarksSet::Vanished),
            Err(e) => return Err(failed("open")(e)),
        };
        let handle = handle.as_fd();
        let before = stat::of(handle).map_err(failed("stat"))?;
        if before.identity() != identity
            || !matches!(before.kind, FileType::RegularFile | FileType::Directory)
        {
            return Ok(MarksSet::Replaced);
        }
        let found = Marks { mode: before.mode, flags: before.flags & BINDING };
        if found == wanted {
            return Ok(MarksSet::Already);
        }
        let mut flags_now = found.flags;
        if found.mode != wanted.mode {
            // A setgid bit that the kernel dropped could not be given back.
            if wanted.mode & SETGID != 0
                && !rights::keeps_setgid(before.gid)
                    .map_err(failed("find the rights to change the mode of"))?
            {
                return Ok(MarksSet::NotPermitted);
            }
            if flags_now != 0 {
                match set_flags(handle, &before, 0) {
                    Ok(()) => flags_now = 0,
                    Err(FlagsError::Not(_)) => return Ok(MarksSet::NotPermitted),
                    Err(FlagsError::Io(e)) => return Err(failed("lift the flags of")(e)),
                }
            }
            if let Err(e) = procfd::set_mode(handle, wanted.mode) {
                if flags_now != found.flags
                    && let Err(FlagsError::Io(e)) = set_flags(handle, &before, found.flags)
                {
                    return Err(failed("set the flags again of")(e));
                }
                return match Errno::from_io_error(&e) {
                    Some(Errno::PERM | Errno::ACCESS) => Ok(MarksSet::NotPermitted),
                    _ => Err(failed("change the mode of")(e)),
                };
            }
            let got = stat::of(handle).map_err(failed("stat"))?.mode;
            if got != wanted.mode {
                return Err(TreeError::ModeAltered { path: self.absolute(path), asked: wanted.mode, got });
            }
        }
        if flags_now == wanted.flags {
            return Ok(MarksSet::Done);
        }
        match set_flags(handle, &before, wanted.flags) {
            Ok(()) => Ok(MarksSet::Done),
            Err(FlagsError::Not(why)) => Ok(MarksSet::NoFlags(why)),
            Err(FlagsError::Io(e)) => Err(failed("set the flags of")(e)),
        }
    }
}

/// Sets the flags of [`BINDING`] to `wanted` on the file or directory that `handle` locates.
fn set_flags(handle: BorrowedFd<'_>, found: &Stat, wanted: u32) -> Result<(), FlagsError> {
    let how = if found.kind == FileType::Directory { How::List } else { How::Read };
    let file = procfd::reopen(handle, how).map_err(FlagsError::of)?;
    flags::set(file.as_fd(), BINDING, wanted).map_err(FlagsError::of)?;
    let told = stat::of(handle).map_err(FlagsError::Io)?.flags & BINDING;
    if told == wanted {
        return Ok(());
    }
    // Set, but statx(2) does not tell, as on an overlay of an old kernel.
    flags::set(file.as_fd(), BINDING, found.flags & BINDING).map_err(FlagsError::of)?;
    Err(FlagsError::Not(WhyNoFlags::Unsupported))
}

impl FlagsError {
    fn of(e: io::Error) -> Self {
        match Errno::from_io_error(&e) {
            Some(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                Self::Not(WhyNoFlags::Unsupported)
            }
            // EAGAIN: another process holds a lease that opening it would break.
            Some(Errno::PERM | Errno::ACCESS | Errno::AGAIN) => Self::Not(WhyNoFlags::NotPermitted),
            _ => Self::Io(e),
        }
    }
}
