//! What changes a tree or makes a baseline: lock, unlock, accept, and the
//! recovery of one that was cut short.
//!
//! Each writes its plan before the first change, and its ledger record is the
//! commit point. Recovery looks at the ledger and at the tree, never at a step
//! counter: see [`recover`].

pub(crate) mod accept;
pub(crate) mod ancestors;
pub(crate) mod backup;
pub(crate) mod baseline_diff;
mod break_links;
pub(crate) mod drill;
pub(crate) mod file_diff;
pub(crate) mod lock;
pub(crate) mod open_writers;
mod originals;
mod recorder;
pub(crate) mod recover;
pub(crate) mod repair;
pub(crate) mod restore;
mod sealing;
mod survey;
pub(crate) mod unlock;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use guard_model::{BackupId, RelPath, Timestamp};
use guard_store::{BackupError, StoreError};
use guard_tree::{PutBackError, TreeError};

/// Why an operation did not happen. Whatever it had begun is undone.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    #[error(transparent)]
    Tree(#[from] TreeError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{} of the paths changed since they were shown: {}", .0.len(), list(.0))]
    ChangedSinceShown(Vec<RelPath>),
    #[error("nothing protected is there, nor in the baseline: {}", list(.0))]
    NothingKnown(Vec<RelPath>),
    #[error("open for writing, which sealing does not end: {0}")]
    OpenForWriting(open_writers::OpenFiles),
    #[error("the directory at {} is not the one that it was about: put that one back", path.display())]
    OtherRoot { path: std::path::PathBuf },
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("backup {backup} was written and cannot be read back: {problem}")]
    NotReadBack { backup: BackupId, problem: String },
    #[error("no backup can be made: {why}")]
    NoBackup { why: String },
    #[error(transparent)]
    PutBack(#[from] PutBackError),
    #[error("{needed} bytes would have to be kept in quarantine, and there is room for {room}")]
    QuarantineFull { needed: u64, room: u64 },
    #[error("cancelled because guardd is stopping")]
    Cancelled,
    #[error("failed ({cause}), and undoing it failed too: {undo}")]
    NotUndone {
        #[source]
        cause: Box<OperationError>,
        undo: Box<OperationError>,
    },
}

fn list(paths: &[RelPath]) -> String {
    let mut text: Vec<String> = paths.iter().take(5).map(ToString::to_string).collect();
    if paths.len() > text.len() {
        text.push(format!("and {} more", paths.len() - text.len()));
    }
    text.join(", ")
}

/// How far an operation has come; read by whoever shows progress.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) cancel: AtomicBool,
    pub(crate) progress: guard_tree::Progress,
    steps: AtomicU64,
    phase: AtomicU64,
    total: AtomicU64,
    /// Entries that earlier phases had counted.
    before: AtomicU64,
}

/// What an operation is doing right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Walking,
    Copying,
    Sealing,
    Hashing,
    BackingUp,
    Committing,
    Unsealing,
    Verifying,
    Restoring,
}

impl Phase {
    const ALL: [Self; 9] = [
        Self::Walking,
        Self::Copying,
        Self::Sealing,
        Self::Hashing,
        Self::BackingUp,
        Self::Committing,
        Self::Unsealing,
        Self::Verifying,
        Self::Restoring,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Walking => "walking",
            Self::Copying => "copying",
            Self::Sealing => "sealing",
            Self::Hashing => "hashing",
            Self::BackingUp => "backing up",
            Self::Committing => "committing",
            Self::Unsealing => "unsealing",
            Self::Verifying => "verifying",
            Self::Restoring => "restoring",
        }
    }
}

impl Work {
    pub(crate) fn shared() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// Begins a phase of `total` entries (0: not known).
    pub(crate) fn enter(&self, phase: Phase, total: u64) {
        let index = Phase::ALL.iter().position(|p| *p == phase).unwrap_or(0);
        self.phase.store(index as u64, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.before.store(self.counted(), Ordering::Relaxed);
    }

    /// One more entry is done.
    pub(crate) fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn counted(&self) -> u64 {
        let (steps, scan) = (&self.steps, &self.progress);
        [steps, &scan.files, &scan.directories].iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }

    /// The phase, entries done in it, and entries in all where known (else 0).
    pub(crate) fn now(&self) -> (Phase, u64, u64) {
        let index = usize::try_from(self.phase.load(Ordering::Relaxed)).unwrap_or(0);
        let phase = Phase::ALL.get(index).copied().unwrap_or(Phase::Walking);
        let done = self.counted().saturating_sub(self.before.load(Ordering::Relaxed));
        (phase, done, self.total.load(Ordering::Relaxed))
    }

    /// A number that moves as long as there is progress, also within one long file.
    pub(crate) fn pulse(&self) -> u64 {
        self.counted().wrapping_add(self.progress.bytes.load(Ordering::Relaxed))
    }

    pub(crate) fn check_cancelled(&self) -> Result<(), OperationError> {
        if self.cancel.load(Ordering::Relaxed) { Err(OperationError::Cancelled) } else { Ok(()) }
    }
}

/// The wall clock's time now.
pub(crate) fn now() -> Timestamp {
    Timestamp(guard_sys::clock::wall_micros())
}

/// A span in whole milliseconds, as records and replies tell it.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
