//! Backups.

use serde::{Deserialize, Serialize};

use super::Totals;
use crate::Time;

/// A backup that was proven good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// Which.
    pub id: String,
    /// When.
    pub at: Time,
    /// Regular files in it.
    pub files: u64,
    /// Bytes that were compared.
    pub bytes: u64,
}

/// How an environment is backed up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupState {
    /// How many there are.
    pub kept: u64,
    /// How many are to be kept.
    pub keep: u64,
    /// The newest one's id.
    pub newest: Option<String>,
    /// Why it was made.
    pub newest_kind: Option<String>,
    /// When.
    pub newest_at: Option<Time>,
    /// The last that was decrypted and compared byte by byte.
    pub last_verified: Option<Proven>,
    /// The last that was restored for a test.
    pub last_drill: Option<Proven>,
    /// The public half of the recovery key; `None` where there is none.
    pub recovery_key: Option<String>,
}

/// What is known of a backup's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupProofState {
    /// All of it was decrypted and compared, and not touched since.
    Verified,
    /// Not looked at since it was written or touched.
    Unverified,
    /// It did not verify.
    Damaged,
    /// Said by a later daemon.
    #[serde(other)]
    Unknown,
}

/// One backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    /// The environment's name.
    pub environment: String,
    /// Its number and when it was made.
    pub id: String,
    /// Why it was made; this and the next are `None` where its manifest cannot be believed.
    pub kind: Option<String>,
    /// When.
    pub at: Option<Time>,
    /// Who asked for it.
    pub by: Option<String>,
    /// What they said.
    pub note: Option<String>,
    /// The baseline that it belongs to.
    pub generation: Option<u64>,
    /// What it holds.
    pub protected: Option<Totals>,
    /// Files whose content is not in it.
    pub missing: u64,
    /// Of its encrypted files, shared ones among them.
    pub bytes: u64,
    /// It is kept until further notice.
    pub pinned: bool,
    /// What is known of its content.
    pub proof: BackupProofState,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// It opens with the recovery key of today.
    pub recovery: bool,
}

/// What making a backup came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupResult {
    /// What was made.
    pub backup: Backup,
    /// Bytes that were written for it.
    pub written: u64,
    /// What is not in it, and anything else that the caller should know.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
}

/// How one backup was proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupProof {
    /// Which.
    pub id: String,
    /// All of it is as it should be.
    pub ok: bool,
    /// Regular files in it.
    pub files: u64,
    /// Bytes that were decrypted and compared.
    pub bytes: u64,
    /// Files whose content it does not hold, as it says itself.
    pub missing: u64,
    /// What is wrong with it.
    #[serde(default)]
    pub problems: Vec<String>,
    /// What could not be compared here.
    #[serde(default)]
    pub notes: Vec<String>,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
}

/// What verifying backups, or a drill, came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupProofs {
    /// The environment's name.
    pub environment: String,
    /// Every one is as it should be.
    pub ok: bool,
    /// One by one.
    pub backups: Vec<BackupProof>,
}
