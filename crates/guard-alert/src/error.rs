//! What can go wrong on the way out.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guard_sys::journal::{NotAName, SendError};

/// Why the sinks could not be started.
#[derive(Debug, thiserror::Error)]
pub enum AlertError {
    /// The directory of the sinks' places in the ledger cannot be used.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// No thread could be had.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// journald's socket has no usable address.
    #[error(transparent)]
    Journal(#[from] SendError),
}

/// Why a sink did not take something.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// A file system operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// What stands at a log file's path is no regular file.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// journald did not take it.
    #[error(transparent)]
    Journal(#[from] SendError),
    /// An entry could not be framed for journald.
    #[error(transparent)]
    Field(#[from] NotAName),
    /// An alert could not be written as JSON.
    #[error("cannot write the alert as JSON")]
    Json(#[source] serde_json::Error),
    /// The command could not be started.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// The command did not end in time and was killed with its process group.
    #[error("{program} did not end within {} s and was killed{}", after.as_secs_f32(), said(stderr))]
    TimedOut {
        /// The program.
        program: String,
        /// The deadline.
        after: Duration,
        /// The beginning of what it wrote to stderr.
        stderr: String,
    },
    /// The command failed.
    #[error("{program} failed with {status}{}", said(stderr))]
    Failed {
        /// The program.
        program: String,
        /// Its exit status, in words.
        status: String,
        /// The beginning of what it wrote to stderr.
        stderr: String,
    },
    /// guardd stops; the alert is delivered after the next start.
    #[error("guardd is stopping")]
    Stopping,
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

impl OutletError {
    pub(crate) fn io(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { operation, path: path.to_owned(), source }
    }

    /// The whole chain of causes in one line.
    pub(crate) fn in_words(&self) -> String {
        guard_model::failure::chain(self)
    }
}
