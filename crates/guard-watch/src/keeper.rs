//! Groups that outlive this process, so that nothing happens unseen while it is started anew.

use std::fmt;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Where groups wait while no process of ours runs.
pub trait Keeper: Send + Sync {
    /// The group that an earlier process left under this name.
    fn take(&self, name: &str) -> Option<OwnedFd>;
    /// Keeps a group under this name, in place of any other.
    fn keep(&self, name: &str, group: BorrowedFd<'_>);
}

/// A name at a keeper.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) name: String,
    pub(crate) keeper: Arc<dyn Keeper>,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Kept").field(&self.name).finish()
    }
}
