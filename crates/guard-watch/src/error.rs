//! What can go wrong for the caller.

use std::path::PathBuf;

use crate::hint::EnvId;

/// Why the watcher could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// A file system operation failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: std::io::Error,
    },
    /// The root is not absolute, so events could not be told apart.
    #[error("{} is not an absolute path", .0.display())]
    Relative(PathBuf),
    /// No inotify instance could be had.
    #[error(
        "cannot start inotify; if too many instances are open, raise /proc/sys/fs/inotify/max_user_instances"
    )]
    Backend(#[source] notify::Error),
    /// No thread could be had.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
    /// The number is in use.
    #[error("environment number {} is watched already", .0.0)]
    Twice(EnvId),
    /// No environment has this number.
    #[error("environment number {} is not watched", .0.0)]
    Unknown(EnvId),
}

impl WatchError {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { operation, path: path.into(), source }
    }
}
