//! What a restore comes to, and what differs inside files.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Change, Skipped};

/// A path that was put back, or would be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreStep {
    /// Escaped.
    pub path: String,
    /// `adjust`, `replace`, `link` or `remove`.
    pub action: String,
    /// In what it differed.
    pub change: Vec<Change>,
    /// Bytes that were taken away into quarantine, or would be.
    pub quarantined: u64,
}

/// What a restore came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreResult {
    /// The environment's name.
    pub environment: String,
    /// The baseline's number.
    pub generation: u64,
    /// The backup that it took from; `None` for the current baseline.
    pub from: Option<String>,
    /// True where nothing was done: this is what would be.
    pub plan: bool,
    /// What was done; cut short where too many.
    pub steps: Vec<RestoreStep>,
    /// How many there are.
    pub steps_total: u64,
    /// What could not be done. These paths are as they were.
    pub skipped: Vec<Skipped>,
    /// What is to be known of paths that were put back, such as who still has the old one.
    pub remarks: Vec<Skipped>,
    /// The directory below `quarantine/` with what was taken away.
    pub quarantine: Option<String>,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
}

/// How the content of a file differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDiff {
    /// Escaped.
    pub path: String,
    /// What of it can be shown.
    pub kind: FileDiffKind,
    /// Bytes and SHA-256 that should be there; `None` where there should be no file.
    pub before: Option<Content>,
    /// What is there.
    pub after: Option<Content>,
    /// A unified diff, control characters escaped; for `text`.
    pub unified: Option<String>,
    /// Names of settings, escaped, with `added`, `removed` or `changed`, never values; for `keys`.
    pub keys: Option<BTreeMap<String, String>>,
    /// Why no more can be shown, or that it was cut short.
    pub note: Option<String>,
}

/// What of a difference can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileDiffKind {
    /// Its lines.
    Text,
    /// It is sensitive: which settings differ.
    Keys,
    /// Only that it differs.
    Binary,
}

/// A file's content by its size and digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal, where known.
    pub sha256: Option<String>,
}
