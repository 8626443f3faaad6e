//! What can go wrong with stored state.

use std::io;
use std::path::{Path, PathBuf};

use crate::ledger::LedgerBreak;

/// Why something could not be stored, or what was stored cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb: `open`, `write`, `fsync`.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Another daemon works on this state directory.
    #[error("{} is in use by {}", path.display(), holder(*pid))]
    InUse {
        /// The state directory.
        path: PathBuf,
        /// The other daemon's process id, where it left one.
        pid: Option<u32>,
    },
    /// A directory of ours belongs to somebody else.
    #[error("{} belongs to uid {owner}, not to uid {us}: whoever owns it can replace what is in it", path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The uid we run as.
        us: u32,
    },
    /// A name that cannot be used in a file name.
    #[error(
        "{name:?} cannot name an environment: use 1 to 64 letters, digits, `.`, `_` and `-`, starting with a letter, a digit or `_`"
    )]
    BadName {
        /// The name.
        name: String,
    },
    /// A file does not hold what it should.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        why: Damage,
    },
    /// A key file or a signature is not in OpenSSH's format.
    #[error("{} holds no usable Ed25519 key in OpenSSH's format", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The parser's words.
        #[source]
        source: ssh_key::Error,
    },
    /// A signature does not verify.
    #[error("the signature over {what} does not verify with the host key {fingerprint}")]
    BadSignature {
        /// What should have been signed.
        what: String,
        /// The key's fingerprint, `SHA256:…`.
        fingerprint: String,
        /// Why not.
        #[source]
        source: ssh_key::Error,
    },
    /// Signing failed.
    #[error("cannot sign {what}")]
    Sign {
        /// What should have been signed.
        what: &'static str,
        /// Why not.
        #[source]
        source: ssh_key::Error,
    },
    /// A value could not be written as JSON.
    #[error("cannot write {what} as JSON")]
    Json {
        /// Which kind of value.
        what: &'static str,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// The ledger on disk is not the one that was written.
    #[error("the ledger is broken: {0}")]
    LedgerBroken(Box<LedgerBreak>),
    /// The records are not on the disk; hand them in again, the cause may pass.
    #[error("the ledger could not be written durably")]
    NotDurable {
        /// Why not.
        #[source]
        source: Box<StoreError>,
    },
    /// An event would make a longer line than the ledger takes; handing it in
    /// again does not help.
    #[error("the event `{event}` is too long for the ledger: {bytes} bytes")]
    RecordTooLarge {
        /// The event's name.
        event: &'static str,
        /// Of its line.
        bytes: usize,
    },
    /// The ledger's thread has ended.
    #[error("the ledger is closed")]
    LedgerClosed,
    /// A thread could not be started.
    #[error("cannot start the ledger's thread")]
    Thread(#[source] io::Error),
    /// The index failed; it can be rebuilt from the ledger.
    #[error("the index {} failed", path.display())]
    Index {
        /// `guardd.db`.
        path: PathBuf,
        /// SQLite's words.
        #[source]
        source: rusqlite::Error,
    },
    /// A generation is there already, and generations are never rewritten.
    #[error("{environment} has a baseline {generation} already")]
    BaselineExists {
        /// The environment's name.
        environment: String,
        /// Its number.
        generation: u64,
    },
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Not a regular file.
    #[error("it is not a regular file")]
    NotAFile,
    /// Larger than it may be.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The limit, bytes.
        limit: u64,
    },
    /// The SHA-256 differs from the recorded one.
    #[error("its SHA-256 is {found}, recorded is {expected}")]
    Digest {
        /// As signed.
        expected: guard_model::Digest,
        /// As found.
        found: guard_model::Digest,
    },
    /// A block of a file differs from the recorded one.
    #[error("block {block} at byte {offset} differs from its recorded digest")]
    Block {
        /// Counts from 0.
        block: usize,
        /// Where it starts.
        offset: u64,
    },
    /// Ends too early.
    #[error("it ends before byte {at}")]
    Short {
        /// What should be there.
        at: u64,
    },
    /// The bytes are not in the format.
    #[error("{what} at byte {at}")]
    Format {
        /// What is not as it should be.
        what: &'static str,
        /// Where.
        at: u64,
    },
    /// The text is not in the format.
    #[error("line {line}: {why}")]
    Line {
        /// Counts from 1.
        line: u64,
        /// The parser's words.
        why: String,
    },
    /// Made for something else.
    #[error("it is about {found}, not about {expected}")]
    About {
        /// What was asked for.
        expected: String,
        /// What it says.
        found: String,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another guardd".to_owned(), |pid| format!("another guardd (pid {pid})"))
}

impl StoreError {
    pub(crate) fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source }
    }

    /// The same for rustix's error type.
    pub(crate) fn sys(operation: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |source| Self::Io { operation, path: path.to_owned(), source: source.into() }
    }

    pub(crate) fn damaged(path: &Path, why: Damage) -> Self {
        Self::Damaged { path: path.to_owned(), why }
    }

    /// The error and what is behind it, in one line.
    #[must_use]
    pub fn with_causes(&self) -> String {
        guard_model::failure::chain(self)
    }

    /// True where the disk or a quota is full, which may pass by itself.
    #[must_use]
    pub fn is_out_of_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => {
                matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            }
            Self::NotDurable { source } => source.is_out_of_space(),
            Self::Index { source, .. } => source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull),
            _ => false,
        }
    }

    /// True where a file or directory was not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}
