//! What can go wrong with a repository.

use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be done with a repository.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// A file of the repository or of ours.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Git could not be started, or talked to.
    #[error("cannot run git {command}")]
    Run {
        /// The subcommand.
        command: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Git said no.
    #[error("git {command} failed: {said}")]
    Failed {
        /// The subcommand.
        command: String,
        /// Its standard error, escaped and cut.
        said: String,
    },
    /// Git answered what it should not.
    #[error("git {command} answered what cannot be understood: {what}")]
    Answer {
        /// The subcommand.
        command: &'static str,
        /// What is wrong with the answer.
        what: &'static str,
    },
    /// Our own note of an installation cannot be read.
    #[error("{} is damaged", path.display())]
    Note {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        #[source]
        source: serde_json::Error,
    },
    /// There is nothing of ours to take away.
    #[error("no hooks of guardd are installed in {}", .0.display())]
    NotInstalled(PathBuf),
    /// The hooks were written, but git would call others.
    #[error("git looks for hooks in {}, not in {}", found.display(), wanted.display())]
    Elsewhere {
        /// Where git looks.
        found: PathBuf,
        /// Where ours are.
        wanted: PathBuf,
    },
    /// A hook of somebody else stands where the previous one is kept.
    #[error("{} is in the way: it is not clear which hook was there first", .0.display())]
    InTheWay(PathBuf),
}

impl GitError {
    /// Wraps an I/O error with what was tried on which path.
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { operation, path, source }
    }
}
