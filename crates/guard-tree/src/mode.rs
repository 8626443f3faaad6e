//! Changing modes, which is how a tree is sealed and unsealed.

use guard_model::RelPath;

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
        let _ = (path, identity, mode);
        todo!()
    }
}
