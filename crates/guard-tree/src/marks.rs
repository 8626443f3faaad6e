//! Changing modes and binding flags, which is how a tree is sealed and unsealed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

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
        // A setgid bit that the kernel dropped could not be given back.
        if found.mode != wanted.mode
            && wanted.mode & SETGID != 0
            && !rights::keeps_setgid(before.gid).map_err(failed("find the rights to change the mode of"))?
        {
            return Ok(MarksSet::NotPermitted);
        }
        let hand = Hand::on(handle, &before, found, wanted).map_err(failed("open"))?;
        if found.mode != wanted.mode {
            if found.flags != 0 {
                match hand.set_flags(0) {
                    Ok(()) => {}
                    Err(FlagsError::Not(_)) => return Ok(MarksSet::NotPermitted),
                    Err(FlagsError::Io(e)) => return Err(failed("lift the flags of")(e)),
                }
            }
            if let Err(e) = hand.set_mode(wanted.mode) {
                if found.flags != 0
                    && let Err(FlagsError::Io(e)) = hand.set_flags(found.flags)
                {
                    return Err(failed("set the flags again of")(e));
                }
                return match Errno::from_io_error(&e) {
                    Some(Errno::PERM | Errno::ACCESS) => Ok(MarksSet::NotPermitted),
                    _ => Err(failed("change the mode of")(e)),
                };
            }
        }
        let flags_now = if found.mode == wanted.mode { found.flags } else { 0 };
        let refused = match (flags_now != wanted.flags).then(|| hand.set_flags(wanted.flags)) {
            None | Some(Ok(())) => None,
            Some(Err(FlagsError::Not(why))) => Some(why),
            Some(Err(FlagsError::Io(e))) => return Err(failed("set the flags of")(e)),
        };
        let after = stat::of(handle).map_err(failed("stat"))?;
        if after.mode != wanted.mode {
            return Err(TreeError::ModeAltered {
                path: self.absolute(path),
                asked: wanted.mode,
                got: after.mode,
            });
        }
        if refused.is_none() && after.flags & BINDING != wanted.flags {
            // Set, but statx(2) does not tell, as on an overlay of an old kernel.
            return match hand.set_flags(found.flags) {
                Ok(()) => Ok(MarksSet::NoFlags(WhyNoFlags::Unsupported)),
                Err(FlagsError::Not(why)) => Ok(MarksSet::NoFlags(why)),
                Err(FlagsError::Io(e)) => Err(failed("set the flags again of")(e)),
            };
        }
        Ok(refused.map_or(MarksSet::Done, MarksSet::NoFlags))
    }
}

/// What marks are changed through: opened where flags are to be changed, which takes it.
struct Hand<'h> {
    handle: BorrowedFd<'h>,
    /// Or why it is not; where no flag is concerned, nobody asks.
    opened: Result<OwnedFd, WhyNoFlags>,
}

impl<'h> Hand<'h> {
    /// # Errors
    /// Where it cannot be opened for another reason than that this process may not, or not now.
    fn on(handle: BorrowedFd<'h>, stat: &Stat, found: Marks, wanted: Marks) -> io::Result<Self> {
        if found.flags | wanted.flags == 0 {
            return Ok(Self { handle, opened: Err(WhyNoFlags::Unsupported) });
        }
        let how = if stat.kind == FileType::Directory { How::List } else { How::Read };
        let opened = match procfd::reopen(handle, how).map_err(FlagsError::of) {
            Ok(file) => Ok(file),
            Err(FlagsError::Not(why)) => Err(why),
            Err(FlagsError::Io(e)) => return Err(e),
        };
        Ok(Self { handle, opened })
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        match &self.opened {
            Ok(file) => procfd::set_mode_of_opened(file.as_fd(), mode),
            Err(_) => procfd::set_mode(self.handle, mode),
        }
    }

    /// Sets the flags of [`BINDING`].
    fn set_flags(&self, wanted: u32) -> Result<(), FlagsError> {
        let file = self.opened.as_ref().map_err(|why| FlagsError::Not(*why))?;
        flags::set(file.as_fd(), BINDING, wanted).map(|_| ()).map_err(FlagsError::of)
    }
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
