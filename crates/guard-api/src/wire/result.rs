//! What operations come to.

use serde::{Deserialize, Serialize};

use super::{FileDiff, Finding, Head, SealState, Totals, Window};
use crate::Time;

/// How far a long operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What it does now, one word.
    pub phase: String,
    /// Entries, or records, dealt with in this phase.
    pub done: u64,
    /// Out of how many, where known.
    pub total: Option<u64>,
}

/// An entry that could not be dealt with, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Escaped.
    pub path: String,
    /// For people.
    pub why: String,
}

/// What a lock came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockResult {
    /// The environment's name.
    pub environment: String,
    /// The baseline's number.
    pub generation: u64,
    /// `None` if a new baseline was made; else how many entries were put right.
    pub repaired: Option<u64>,
    /// Paths that differ from the baseline before.
    pub changed: Option<u64>,
    /// What the baseline holds.
    pub protected: Totals,
    /// The seal.
    pub seal: SealState,
    /// Protected entries that could not be sealed; at most a thousand.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// Literal patterns that match nothing.
    #[serde(default)]
    pub unmatched: Vec<String>,
    /// Anything else that the caller should know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
}

/// What an unlock came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnlockResult {
    /// The environment's name.
    pub environment: String,
    /// The window that it opened.
    pub window: Window,
    /// Entries whose original mode was given back.
    pub restored: u64,
    /// Entries that could not be given back.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// Anything else that the caller should know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
}

/// What a check came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// The environment's name.
    pub environment: String,
    /// The baseline's number.
    #[serde(default)]
    pub generation: u64,
    /// Contents were read only where metadata differ.
    #[serde(default)]
    pub quick: bool,
    /// Nothing differs and everything could be read.
    pub clean: bool,
    /// Files compared.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
    /// Cut short where too many.
    pub findings: Vec<Finding>,
    /// How many there are.
    #[serde(default)]
    pub findings_total: u64,
    /// What could not be checked.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
}

/// What differs from the last baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiffResult {
    /// The environment's name.
    pub environment: String,
    /// The baseline's number.
    pub generation: u64,
    /// Cut short where too many.
    pub findings: Vec<Finding>,
    /// How many there are.
    #[serde(default)]
    pub findings_total: u64,
    /// What could not be compared.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// How the contents of files differ; cut short where too many.
    #[serde(default)]
    pub files: Vec<FileDiff>,
}

/// One generation of an environment's baseline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    /// The environment's name.
    pub environment: String,
    /// Its number.
    pub generation: u64,
    /// When it was committed.
    pub created_at: Time,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// SHA-256 of its `manifest.json`, in hexadecimal.
    pub digest: String,
    /// What it holds.
    pub protected: Totals,
    /// It is the one that holds now.
    pub current: bool,
}

/// What the ledger verification came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyResult {
    /// The chain is whole, all signatures are good, no tail is missing.
    pub ok: bool,
    /// Good records.
    pub records: u64,
    /// The last good record.
    pub head: Head,
    /// Signatures verified.
    pub checkpoints: u64,
    /// Where and how the chain is broken.
    pub broken: Option<String>,
    /// Why the tail is thought to be missing.
    pub truncated: Option<String>,
}

/// The ledger's head, to be kept off the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// The last record's number.
    pub seq: u64,
    /// SHA-256 of its line, in hexadecimal.
    pub hash: String,
    /// When this was signed.
    pub at: Time,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// SSHSIG armour by the host's key, namespace `guardd-ledger`, over `"SEQ HASH\n"`.
    pub signature: String,
}

/// A mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Counted from 1.
    pub line: Option<u64>,
    /// The key, dotted.
    pub key: String,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub fix: String,
}
