//! Why a path could not be put back. It is then as it was.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use guard_model::{Digest, RelPath};

/// Why a path could not be put back.
#[derive(Debug, thiserror::Error)]
pub enum PutBackError {
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
    /// Something else stands there, or is in the way.
    #[error("{path} is not what it was when this was planned")]
    Changed {
        /// Where.
        path: RelPath,
    },
    /// Something is mounted there.
    #[error("{path} lies on another mount")]
    OtherMount {
        /// Where.
        path: RelPath,
    },
    /// Its inode has names that are none of the caller's business.
    #[error("{path} has other names, which would change with it")]
    OtherNames {
        /// Where.
        path: RelPath,
    },
    /// Sockets are made by whoever listens on them, and a file that could not be read has no content.
    #[error("{path} cannot be made: {why}")]
    NotMakeable {
        /// What.
        path: RelPath,
        /// Why.
        why: &'static str,
    },
    /// The content is not to be had.
    #[error("the content of {path} cannot be had")]
    Content {
        /// Of what.
        path: RelPath,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// Other bytes came than were asked for.
    #[error("the content of {path} is not the one with the SHA-256 {wanted}")]
    OtherContent {
        /// Of what.
        path: RelPath,
        /// What was asked for.
        wanted: Digest,
    },
    /// What stands in the way cannot be kept, so it is not removed.
    #[error("what stands at {path} cannot be kept in quarantine")]
    NotKept {
        /// Where.
        path: RelPath,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl PutBackError {
    /// True where it was tried at a bad moment: looking again and planning anew may help.
    #[must_use]
    pub fn is_race(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }
}
