//! What the watcher tells.

use std::sync::Arc;

use guard_model::RelPath;
use guard_model::finding::Actor;
use guard_model::ledger::GapCause;

use crate::programs::Memory;

/// The daemon's number for an environment, given to the watcher with its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EnvId(pub u32);

/// One message of the watcher. Hints may come twice, late by a few
/// milliseconds, or for paths where nothing changed; none is left out without
/// a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// This path may have changed, appeared or gone.
    ///
    /// Where a directory was moved away or deleted, the kernel tells of the
    /// directory alone: everything that the baseline has below it is then to be
    /// looked at too.
    Touch {
        /// The environment.
        env: EnvId,
        /// The path; the root itself where the root or an ancestor's attributes changed.
        path: RelPath,
        /// Who did it last, where the kernel tells. Of several that came together the last one
        /// stands for all.
        actor: Option<Arc<Actor>>,
        /// Whoever wrote it closed it last, or it moved or went: nothing more need be on its way.
        complete: bool,
    },
    /// A directory whose watches newly stand, on it and on everything below.
    /// What happened in it before is not known: walk it and hash what differs.
    Tree {
        /// The environment.
        env: EnvId,
        /// The directory.
        path: RelPath,
    },
    /// Something was mounted over the root or a directory above it, or unmounted there. Comes beside a [`Hint::Gap`]
    /// that says whether the root can still be found.
    Mounted {
        /// The environment.
        env: EnvId,
        /// Who did it, where the kernel tells.
        actor: Option<Arc<Actor>>,
    },
    /// Hints may have been lost. Sent once watches stand again (as far as they
    /// can), so what is verified after this message is covered.
    Gap {
        /// The environment; `None` for all of them.
        env: Option<EnvId>,
        /// Why.
        cause: GapCause,
        /// More for people.
        detail: String,
    },
    /// The answer to [`crate::Watcher::ping`], after the kernel's event for it
    /// came through every environment's whole way.
    Alive {
        /// The number that was given to `ping`.
        nonce: u64,
    },
}

/// What stands after watches were put up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchReport {
    /// Where hints come from: `inotify` or `fanotify`.
    pub backend: &'static str,
    /// Why it is not fanotify, where that was wanted.
    pub instead: Option<String>,
    /// How processes that end at once are named.
    pub memory: Memory,
    /// It was watched already before this process began, and nothing of what happened meanwhile was lost.
    pub adopted: bool,
    /// Directories below and including the root that have a watch.
    pub directories: usize,
    /// Directories without one, each with the reason in words. Nothing below
    /// them is watched either. The root stands for an ancestor of the root,
    /// which the reason then names.
    pub failed: Vec<(RelPath, String)>,
}
