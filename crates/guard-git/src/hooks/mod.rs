//! The hooks: what they are, how they come into a repository and out of it
//! again, and what they do when git calls them.
//!
//! Two ways in. Where git looks in the repository's own `hooks` directory, our
//! hook takes the name and the previous one waits beside it. Where
//! `core.hooksPath` leads elsewhere (husky's directory in the work tree, one
//! that several repositories share), nothing there is touched: git is pointed at
//! a directory of ours, whose hooks call those in the old place.

mod install;
mod layout;
mod note;
mod run;
mod script;
mod status;
mod uninstall;

pub use install::{Installed, Wish, install};
pub use layout::Layout;
pub use run::{Called, Verdict, called};
pub use status::{HookState, HookStatus, Status, guarded_by, status};
pub use uninstall::{Removed, uninstall};

/// A hook of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    /// Before a commit: the lock's message, and the checks of what is staged.
    PreCommit,
    /// The same before a merge commit.
    PreMergeCommit,
    /// Before a rebase begins, so that it need not be refused half-way.
    PreRebase,
    /// Every update of a reference: the lock itself.
    ReferenceTransaction,
    /// Before a push to another repository.
    PrePush,
    /// A push from another repository.
    PreReceive,
}

impl Hook {
    /// All of them, in the order in which they are listed.
    pub const ALL: [Self; 6] = [
        Self::PreCommit,
        Self::PreMergeCommit,
        Self::PreRebase,
        Self::ReferenceTransaction,
        Self::PrePush,
        Self::PreReceive,
    ];

    /// Git's name for it (githooks(5)).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PreCommit => "pre-commit",
            Self::PreMergeCommit => "pre-merge-commit",
            Self::PreRebase => "pre-rebase",
            Self::ReferenceTransaction => "reference-transaction",
            Self::PrePush => "pre-push",
            Self::PreReceive => "pre-receive",
        }
    }

    /// The hook of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|h| h.name() == name)
    }

    /// True where it reads what is about to be committed.
    #[must_use]
    pub fn looks_at_contents(self) -> bool {
        matches!(self, Self::PreCommit | Self::PreMergeCommit)
    }

    /// True where git gives it lines of references on standard input.
    #[must_use]
    pub fn reads_references(self) -> bool {
        matches!(self, Self::ReferenceTransaction | Self::PrePush | Self::PreReceive)
    }
}
