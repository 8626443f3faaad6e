//! A handle on an environment's top directory.

use std::path::{Path, PathBuf};

use guard_model::{Kind, Observed, RelPath};

use crate::{Content, TreeError};

/// A handle on a root directory. It stays on the very directory that was opened,
/// whatever is renamed or mounted over its path later; [`Root::still_there`] tells.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    identity: (u64, u64),
}

/// Does a root's path still lead to it?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootCheck {
    /// It does.
    Same,
    /// Nothing, or no directory, is at the path.
    Gone,
    /// Another directory is: moved there or mounted over.
    Other {
        /// Its device (major << 32 | minor).
        dev: u64,
        /// Its inode.
        ino: u64,
    },
}

impl Root {
    /// Opens the directory at `path`, whose symbolic links are resolved once, now.
    ///
    /// # Errors
    /// [`TreeError::Io`] where it cannot be opened, [`TreeError::NotADirectory`].
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        let _ = path;
        todo!()
    }

    /// The canonical path it was opened at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its device (major << 32 | minor) and inode. The device number is good for this boot only.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.identity
    }

    /// Does the path still lead to this directory?
    ///
    /// # Errors
    /// [`TreeError::Io`] where that cannot be told.
    pub fn still_there(&self) -> Result<RootCheck, TreeError> {
        todo!()
    }

    /// Observes one path. Never fails: what could not be read is
    /// [`Observed::Unreadable`] and says why. A path whose parent is not a directory
    /// any more, be it gone, a file or a symbolic link, is absent.
    ///
    /// May take some tens of milliseconds where the entry changed just now (see [`Content`]).
    #[must_use]
    pub fn observe(&self, path: &RelPath, content: Content<'_>) -> Observed {
        let _ = (path, content);
        todo!()
    }

    /// The names in a directory with their kinds, sorted.
    ///
    /// # Errors
    /// [`TreeError::Io`] where it cannot be listed, be it absent or no directory.
    pub fn observe_dir(&self, path: &RelPath) -> Result<Vec<(Box<[u8]>, Kind)>, TreeError> {
        let _ = path;
        todo!()
    }
}
