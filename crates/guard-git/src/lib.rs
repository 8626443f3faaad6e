//! Git repositories under guard: hooks that keep a locked environment's
//! branches where they are, and checks of what is about to be committed.
//!
//! Architecture invariant: nothing here runs a repository's own code. Git is
//! only asked by [`Git`], as the repository's owner, with an environment and
//! settings of ours; languages' parsers parse and never execute. Whether an
//! environment is locked is read from its signed lock file, by anybody, with or
//! without a daemon; what cannot be known counts as locked.

#![forbid(unsafe_code)]

pub mod check;
pub mod contents;
mod conversation;
mod error;
mod git;
pub mod hooks;
mod index;
pub mod message;
pub mod report;
pub mod secrets;
pub mod standing;
pub mod transaction;
pub mod values;

pub use error::GitError;
pub use git::{Caller, Git, REPOSITORY_VARIABLES, SAFE_PATH, hardened, other_owner};
pub use standing::{Standing, UnknownState};
