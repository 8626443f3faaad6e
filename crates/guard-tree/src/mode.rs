//! Changing modes, which is how a tree is sealed and unsealed.

use std::io;
use std::os::fd::AsFd;

use guard_model::RelPath;
use guard_sys::open::How;
use guard_sys::stat::{self, FileType};
use guard_sys::{Errno, procfd, rights};

use crate::observe::is_absence;
use crate::{Root, TreeError};

/// What became of a change of mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModeSet {
    /// The entry has the mode now.
    Done,
    /// It had it before.
    Already,
    /// Nothing is at the path.
    Vanished,
    /// Something else is: another inode, or neither a file nor a directory. Left alone.
    Replaced,
    /// The kernel refuses it to this process (not the owner, immutable), or would
    /// silently drop the setgid bit (chmod(2): the caller is not in the file's group).
    NotPermitted,
}

const SETGID: u32 = 0o2000;

impl Root {
    /// Gives `path` the permission bits `mode` (`& 0o7777`) if, and only if, it still is
    /// the file or directory with this device and inode. Follows no symbolic link,
    /// and acts on the very inode that was checked. Every name of a hard-linked
    /// file changes with it: ask [`crate::LinkCounts`] first.
    ///
    /// # Errors
    /// [`TreeError::Io`] where the kernel failed otherwise than [`ModeSet`] says, such as
    /// on a read-only file system; [`TreeError::ModeAltered`].
    pub fn set_mode(&self, path: &RelPath, identity: (u64, u64), mode: u32) -> Result<ModeSet, TreeError> {
        let mode = mode & 0o7777;
        let failed = |operation| {
            move |source: io::Error| TreeError::Io { operation, path: self.absolute(path), source }
        };
        let handle = match self.open_beneath(path, How::Locate) {
            Ok(handle) => handle,
            Err(e) if is_absence(&e) => return Ok(ModeSet::Vanished),
            Err(e) => return Err(failed("open")(e)),
        };
        let before = stat::of(handle.as_fd()).map_err(failed("stat"))?;
        if before.identity() != identity
            || !matches!(before.kind, FileType::RegularFile | FileType::Directory)
        {
            return Ok(ModeSet::Replaced);
        }
        if before.mode == mode {
            return Ok(ModeSet::Already);
        }
        // A setgid bit that the kernel dropped could not be given back.
        if mode & SETGID != 0
            && !rights::keeps_setgid(before.gid).map_err(failed("find the rights to change the mode of"))?
        {
            return Ok(ModeSet::NotPermitted);
        }
        match procfd::set_mode(handle.as_fd(), mode) {
            Ok(()) => {}
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::PERM | Errno::ACCESS)) => {
                return Ok(ModeSet::NotPermitted);
            }
            Err(e) => return Err(failed("change the mode of")(e)),
        }
        let after = stat::of(handle.as_fd()).map_err(failed("stat"))?;
        if after.mode == mode {
            Ok(ModeSet::Done)
        } else {
            Err(TreeError::ModeAltered { path: self.absolute(path), asked: mode, got: after.mode })
        }
    }
}
