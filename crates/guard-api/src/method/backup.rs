//! Methods about backups.

use serde::{Deserialize, Serialize};

use super::{Method, Step, base64};
use crate::wire::{Backup, BackupProofs, BackupResult};

/// Makes the recovery key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitBackup {
    /// Although there is one already.
    pub anyway: Option<bool>,
}
/// The reply to [`InitBackup`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitBackupReply {
    /// A file in the format of age-keygen. Told once, and kept nowhere.
    pub identity: String,
    /// Its public half.
    pub recipient: String,
    /// The public half of the key that it replaces.
    pub replaced: Option<String>,
}
method!(InitBackup, "org.guardd.Control.InitBackup", InitBackupReply);

impl std::fmt::Debug for InitBackupReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The identity is a secret: it is in no message.
        f.debug_struct("InitBackupReply").field("recipient", &self.recipient).finish_non_exhaustive()
    }
}

/// Backs up the tree as it stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateBackup {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// What it is for.
    pub note: Option<String>,
}
method!(CreateBackup, "org.guardd.Control.CreateBackup", Step<BackupResult>);

/// The backups that are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListBackups {
    /// All environments where left out.
    pub environment: Option<String>,
}
/// The reply to [`ListBackups`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListBackupsReply {
    /// Oldest first.
    pub backups: Vec<Backup>,
    /// The public half of the recovery key.
    pub recovery_key: Option<String>,
}
method!(ListBackups, "org.guardd.Control.ListBackups", ListBackupsReply);

/// Decrypts backups and compares every byte.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyBackup {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// This one, or its number; the newest where left out.
    pub id: Option<String>,
    /// Every one.
    pub all: Option<bool>,
}
method!(VerifyBackup, "org.guardd.Control.VerifyBackup", Step<BackupProofs>);

/// Restores a backup for a test.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrillBackup {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// This one, or its number; the newest where left out.
    pub id: Option<String>,
}
method!(DrillBackup, "org.guardd.Control.DrillBackup", Step<BackupProofs>);

/// Removes old backups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneBackups {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// How many stay; what is configured where left out.
    pub keep: Option<u64>,
}
/// The reply to [`PruneBackups`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PruneBackupsReply {
    /// The environment's name.
    pub environment: String,
    /// The ids of those that went.
    pub removed: Vec<String>,
    /// Bytes that are free now.
    pub bytes: u64,
    /// Why none went although there are more.
    pub held_back: Option<String>,
}
method!(PruneBackups, "org.guardd.Control.PruneBackups", PruneBackupsReply);

/// Keeps a backup until further notice, or no longer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinBackup {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// This one, or its number.
    pub id: String,
    /// Whether it is to stay.
    pub pinned: bool,
}
/// The reply to [`PinBackup`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinBackupReply {
    /// As it stands now.
    pub backup: Backup,
}
method!(PinBackup, "org.guardd.Control.PinBackup", PinBackupReply);

/// One backup as a tar archive; needs `more`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportBackup {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// This one, or its number; the newest where left out.
    pub id: Option<String>,
}
/// One reply to [`ExportBackup`]: a part of the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportBackupReply {
    /// The environment's name.
    pub environment: String,
    /// The backup's id.
    pub id: String,
    /// The next part.
    #[serde(with = "base64")]
    pub data: Vec<u8>,
}
method!(ExportBackup, "org.guardd.Control.ExportBackup", ExportBackupReply);
