//! What can go wrong with a backup.

use std::io;
use std::path::{Path, PathBuf};

use guard_model::{BackupId, Digest};

use crate::error::StoreError;

/// Why a backup could not be made, or cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A file of ours could not be read or written, or is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No backup holds this content.
    #[error("no backup holds the content {digest}")]
    NotHeld {
        /// SHA-256 of the content.
        digest: Digest,
    },
    /// There is no such backup.
    #[error("there is no backup {asked}")]
    NoSuchBackup {
        /// What was asked for, escaped.
        asked: String,
    },
    /// A backup that is not what it claims to be.
    #[error("backup {id} is refused: {why}")]
    Refused {
        /// Which.
        id: BackupId,
        /// Why.
        why: Box<Refusal>,
    },
    /// An encrypted file could not be decrypted.
    #[error("cannot decrypt {}", path.display())]
    Decrypt {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Undecrypted,
    },
    /// What was decrypted is not in the format.
    #[error("{} does not hold what it should: {why}", path.display())]
    Content {
        /// The encrypted file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A key file holds no age key.
    #[error("{} holds no usable age key: {why}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        why: &'static str,
    },
    /// Somebody else could change what lies there.
    #[error("{} has mode {mode:04o}: others may change what is in it", path.display())]
    WritableByOthers {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A link or a file where a directory has to be.
    #[error("{} is not a directory", path.display())]
    NotADirectory {
        /// What was to be one.
        path: PathBuf,
    },
    /// Another backup of the environment is being written or removed.
    #[error("another backup is being written")]
    Busy,
    /// The caller's flag was raised before the end.
    #[error("cancelled")]
    Cancelled,
    /// Encryption could not begin.
    #[error("cannot encrypt")]
    Encrypt(#[source] Unencrypted),
    /// What is read for the backup could not be read.
    #[error("cannot read what is to be backed up")]
    Source(#[source] io::Error),
    /// Whoever asked for content could not take it.
    #[error("cannot hand on what was read from the backup")]
    Sink(#[source] io::Error),
}

/// Why age does not decrypt, in guardd's own words: those of the library come from files that a debug build looks
/// for where it was built, and panics without.
#[derive(Debug, thiserror::Error)]
pub enum Undecrypted {
    /// It was encrypted to other keys.
    #[error("none of the keys fits")]
    NoMatchingKey,
    /// Not an age file, or one of a later version.
    #[error("it is no age file")]
    UnknownFormat,
    /// Header or content is not as it was written.
    #[error("it is not as it was written")]
    Changed,
    /// It could not be read to its header's end.
    #[error("cannot read it")]
    Io(#[source] io::Error),
}

impl From<age::DecryptError> for Undecrypted {
    fn from(e: age::DecryptError) -> Self {
        match e {
            age::DecryptError::NoMatchingKeys => Self::NoMatchingKey,
            age::DecryptError::UnknownFormat => Self::UnknownFormat,
            age::DecryptError::Io(e) => Self::Io(e),
            _ => Self::Changed,
        }
    }
}

/// Why age does not encrypt, likewise.
#[derive(Debug, thiserror::Error)]
pub enum Unencrypted {
    /// The file could not be written.
    #[error("cannot write it")]
    Io(#[source] io::Error),
    /// The recipients do not go together, or there is none.
    #[error("the recipients do not go together")]
    Recipients,
}

impl From<age::EncryptError> for Unencrypted {
    fn from(e: age::EncryptError) -> Self {
        match e {
            age::EncryptError::Io(e) => Self::Io(e),
            _ => Self::Recipients,
        }
    }
}

/// Why a backup that can be read is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The manifest was not signed by the host key.
    #[error("its manifest is not signed by the host key")]
    Signature,
    /// A genuine manifest of another backup stands in its place.
    #[error("its manifest belongs to backup {found}")]
    OtherId {
        /// Which.
        found: BackupId,
    },
    /// It belongs to another environment.
    #[error("it belongs to environment {found:?}")]
    OtherEnvironment {
        /// Which.
        found: String,
    },
    /// It was made on another machine.
    #[error("it was made on another machine ({found})")]
    OtherMachine {
        /// That machine's id.
        found: String,
    },
    /// It is of a format that this version does not know.
    #[error("it has format {found}, which this version does not know")]
    Format {
        /// The format.
        found: u32,
    },
    /// The ledger remembers another one under this id.
    #[error("its manifest has SHA-256 {found}, and the ledger says that it had {expected}")]
    NotAsInLedger {
        /// The ledger's.
        expected: Digest,
        /// On the disk.
        found: Digest,
    },
    /// The chain from backup to backup is broken.
    #[error("it follows a manifest {named}, and backup {before} has {found}")]
    Chain {
        /// The backup before it.
        before: BackupId,
        /// The digest that this one names.
        named: Digest,
        /// The digest of the one before.
        found: Digest,
    },
}

impl BackupError {
    /// True where a file or directory was not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Store(e) if e.is_not_found())
    }

    /// True where the disk or a quota is full, which may pass by itself.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        matches!(self, Self::Store(e) if e.is_out_of_space())
    }

    /// The error and what is behind it, in one line.
    #[must_use]
    pub fn with_causes(&self) -> String {
        guard_model::failure::chain(self)
    }

    pub(super) fn refused(id: &BackupId, why: Refusal) -> Self {
        Self::Refused { id: id.clone(), why: Box::new(why) }
    }

    pub(super) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| StoreError::io(operation, path)(source).into()
    }

    pub(super) fn content(path: &Path, why: impl Into<String>) -> Self {
        Self::Content { path: path.to_owned(), why: why.into() }
    }
}
