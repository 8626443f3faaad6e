//! What can go wrong with a tree as a whole. What goes wrong with one entry is
//! an observation (`Observed::Unreadable`), not an error.

use std::io;
use std::path::PathBuf;

/// Why an operation on a tree could not be done.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// The kernel refused a step.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was being done, in words that fit after "cannot".
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A root has to be a directory.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// What was named as a root.
        path: PathBuf,
    },
    /// The kernel gave an entry another mode than it was asked for.
    #[error("{} has mode {got:04o} after it was set to {asked:04o}", path.display())]
    ModeAltered {
        /// Whose mode.
        path: PathBuf,
        /// What was asked for.
        asked: u32,
        /// What it is now.
        got: u32,
    },
    /// A file was not replaced by a copy of it.
    #[error("{} cannot be replaced by a copy: {why}", path.display())]
    NotCopied {
        /// Which file.
        path: PathBuf,
        /// What stood against it.
        why: &'static str,
    },
    /// Something else stands where a file was to be read.
    #[error("{} is not the file that it was", path.display())]
    NotThisFile {
        /// Where.
        path: PathBuf,
    },
    /// A scan's thread ended before it had told all that it had seen: a mistake of guardd's.
    #[error("not everything that was seen could be told")]
    Untold,
    /// The caller's flag was raised before the end.
    #[error("cancelled")]
    Cancelled,
}
