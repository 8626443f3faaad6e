//! What a source of hints must be able to do.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::WatchError;
use crate::inbox::Inbox;
use crate::keeper::Kept;
use crate::programs::Memory;

/// Why a directory has no watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is not there any more; what holds it has told or will tell.
    Gone,
    /// The kernel's limit on watches.
    Limit,
    /// The backend's thread does not answer any more.
    Ended,
    /// Anything else, in words.
    Other(String),
}

/// Puts up and takes down watches on single directories, from several threads at once; events go to the
/// [`Inbox`] that it was started with. It may have several readers. Each says
/// [`Inbox::started`], and, when it ends for whatever reason, [`Inbox::ended`].
pub(crate) trait Backend: Send + Sync {
    /// Watches one directory. Calling it again for the same path is harmless
    /// and renews a watch whose directory was replaced. `handle` is the directory where it is
    /// open for listing already.
    fn watch(&self, directory: &Path, handle: Option<BorrowedFd<'_>>) -> Result<(), Refusal>;
    /// Watches the attributes of a directory that is itself of interest, but not what is in it;
    /// what holds it is watched.
    fn watch_itself(&self, directory: &Path) -> Result<(), Refusal>;
    /// Forgets one directory; harmless where there is no watch.
    fn unwatch(&self, directory: &Path);
    /// Watches the canaries' directory by every reader, anew if it was replaced.
    fn watch_canaries(&mut self) -> Result<(), Refusal>;
    /// The readers that there are, a bit for each: who must hear a canary.
    fn readers(&self) -> u32;
    /// What it is.
    fn kind(&self) -> Kind;
    /// How those are named who end at once.
    fn memory(&self) -> Memory {
        Memory::default()
    }
    /// All watches stand: what waited for that may be told now.
    fn stands(&mut self) -> Result<(), WatchError> {
        Ok(())
    }
    /// Were its watches there already before this process began?
    fn is_adopted(&self) -> bool {
        false
    }
}

/// Where hints come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// fanotify(7): says who did it.
    Fanotify,
    /// inotify(7), with the reason where fanotify was wanted.
    Inotify { instead: Option<String> },
}

/// Which events' paths are worth a lock: the root, all below, all above, and the canaries.
#[derive(Debug, Clone)]
pub(crate) struct Interest {
    pub(crate) root: PathBuf,
    /// The canaries' directory.
    pub(crate) canaries: PathBuf,
    /// Where what is watched by outlives this process.
    pub(crate) kept: Option<Kept>,
}

impl Interest {
    pub(crate) fn has(&self, path: &Path) -> bool {
        path.starts_with(&self.root) || self.root.starts_with(path) || path.starts_with(&self.canaries)
    }
}

/// Starts a backend of that generation.
pub(crate) type Start = fn(&Arc<Inbox>, u64, Interest) -> Result<Box<dyn Backend>, WatchError>;
