//! Where and how a ledger on disk is not the one that was written.

use std::fmt;
use std::path::PathBuf;

use guard_model::ledger::{Broken, Head};

/// Where a ledger is broken and what that means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerBreak {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1; 0 where it is about the file as a whole.
    pub line: u64,
    /// Where the line starts, bytes.
    pub offset: u64,
    /// How.
    pub cause: BreakCause,
    /// The number after which a new chain can start without using one twice.
    pub resume_after: u64,
}

/// How a ledger is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BreakCause {
    /// The chain does not hold.
    Chain(Broken),
    /// A line has no end, or is longer than any that is written.
    Unended {
        /// The last good record.
        after: u64,
    },
    /// No regular file stands at the name.
    NotAFile,
    /// A whole file is gone.
    MissingFile {
        /// The first record that is gone.
        from: u64,
    },
    /// The end is gone: somebody remembers more records.
    Truncated {
        /// What is remembered.
        remembered: Head,
        /// By whom: `guardd.db`, `lock file of production`.
        by: String,
        /// What is there.
        found: Head,
    },
    /// A record is not the one that somebody remembers.
    Rewritten {
        /// What is remembered.
        remembered: Head,
        /// By whom.
        by: String,
    },
    /// A checkpoint's signature does not verify.
    Checkpoint {
        /// The checkpoint.
        seq: u64,
        /// Why not.
        why: String,
    },
    /// More than the usual number of records without a checkpoint.
    NoCheckpoint {
        /// The last record that a checkpoint covers.
        after: u64,
    },
    /// A new chain starts here, because what stands before was found broken.
    Restart {
        /// The new chain's first record.
        seq: u64,
    },
    /// The file was changed under a running daemon.
    Disturbed {
        /// What happened to it.
        how: &'static str,
        /// The last record that was written to it.
        after: u64,
    },
}

impl fmt::Display for LedgerBreak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        write!(f, ": {}", self.cause)
    }
}

impl fmt::Display for BreakCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chain(broken) => broken.fmt(f),
            Self::Unended { after } => write!(f, "after record {after}: the line has no end"),
            Self::NotAFile => f.write_str("it is not a regular file"),
            Self::MissingFile { from } => write!(f, "the records from {from} on are gone with their file"),
            Self::Truncated { remembered, by, found } => write!(
                f,
                "it ends at record {}, but {by} remembers record {}: the end was cut off",
                found.seq, remembered.seq
            ),
            Self::Rewritten { remembered, by } => {
                write!(f, "record {} is not the one that {by} remembers", remembered.seq)
            }
            Self::Checkpoint { seq, why } => write!(f, "the signature of checkpoint {seq} is bad: {why}"),
            Self::NoCheckpoint { after } => {
                write!(f, "no checkpoint covers the records after {after}: one was removed")
            }
            Self::Restart { seq } => {
                write!(f, "a new chain starts at record {seq}, what stands before was found broken")
            }
            Self::Disturbed { how, after } => {
                write!(f, "the file was {how} while guardd wrote to it, after record {after}")
            }
        }
    }
}
