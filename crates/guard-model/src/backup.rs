//! What a backup says of itself: its id, its signed manifest, and one line for
//! each entry it holds. Which backups may go is [`crate::retention`]'s business.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::baseline::{BaselineRecord, Totals};
use crate::entry::Digest;
use crate::time::Timestamp;

/// A backup's name: its number in the environment, which only grows, and when it was made, as in
/// `000012-20261122T015512Z`. The number orders backups; the time is for people, since clocks go back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId {
    sequence: u64,
    /// `20261122T015512Z`.
    second: String,
}

/// The text is no backup's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a backup's id, which looks like 000012-20261122T015512Z")]
pub struct NotABackupId;

impl BackupId {
    /// The id of backup number `sequence`, made at `at`.
    #[must_use]
    pub fn new(sequence: u64, at: Timestamp) -> Self {
        let plain = jiff::Timestamp::from_second(at.0.div_euclid(1_000_000))
            .map_or_else(|_| "00000101T000000Z".to_owned(), |t| t.to_string());
        let second: String = plain.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        // Years beyond 9999 and before 0 would break the form.
        let second = if is_second(&second) { second } else { "00000101T000000Z".to_owned() };
        Self { sequence, second }
    }

    /// Its number, from 1.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

fn is_second(text: &str) -> bool {
    text.len() == 16
        && text.bytes().enumerate().all(|(at, b)| match at {
            8 => b == b'T',
            15 => b == b'Z',
            _ => b.is_ascii_digit(),
        })
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}-{}", self.sequence, self.second)
    }
}

impl FromStr for BackupId {
    type Err = NotABackupId;

    fn from_str(text: &str) -> Result<Self, NotABackupId> {
        let (number, second) = text.split_once('-').ok_or(NotABackupId)?;
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) || !is_second(second) {
            return Err(NotABackupId);
        }
        let id = Self { sequence: number.parse().map_err(|_| NotABackupId)?, second: second.to_owned() };
        // One backup, one name.
        if id.sequence == 0 || id.to_string() != text { Err(NotABackupId) } else { Ok(id) }
    }
}

impl Serialize for BackupId {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for BackupId {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a backup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackupKind {
    /// Before a baseline is committed by lock or accept.
    PreLock,
    /// Before unlock or a rollback changes anything.
    Emergency,
    /// Of what a restore is about to overwrite.
    Restore,
    /// Somebody asked for it.
    Manual,
    /// Before the first step of a deployment.
    PreDeployment,
    /// By another version of guardd.
    #[serde(other)]
    Other,
}

impl fmt::Display for BackupKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PreLock => "pre-lock",
            Self::Emergency => "emergency",
            Self::Restore => "restore",
            Self::Manual => "manual",
            Self::PreDeployment => "pre-deployment",
            Self::Other => "other",
        })
    }
}

/// An encrypted file by the SHA-256 of what lies on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ciphertext {
    /// SHA-256 of the encrypted file.
    pub sha256: Digest,
    /// Its length.
    pub bytes: u64,
}

/// `manifest.json`: the small signed file. It holds nothing secret: neither a path nor the digest
/// of anything but encrypted files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// The environment's name.
    pub environment: String,
    /// This backup.
    pub id: BackupId,
    /// Why it was made.
    pub kind: BackupKind,
    /// `/etc/machine-id` of the host that made it.
    pub machine_id: String,
    /// When.
    pub at: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// What they say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// The canonical root, escaped.
    pub root: String,
    /// The baseline that it belongs to, or that was the newest when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// What it holds.
    pub totals: Totals,
    /// Regular files whose content is not in it: they could not be read, or kept changing.
    pub missing: u64,
    /// `entries.jsonl.zst.age`.
    pub entries: Ciphertext,
    /// `packs/SHA256.tar.zst.age`, in the order that the entries count them in.
    pub packs: Vec<Ciphertext>,
    /// Whom it is encrypted to, as age writes recipients.
    pub recipients: Vec<String>,
    /// The newest backup that was there before it.
    pub previous: Option<Previous>,
}

/// The backup before another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// Which.
    pub id: BackupId,
    /// SHA-256 of its `manifest.json`.
    pub sha256: Digest,
}

/// One line of `entries.jsonl`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupEntry {
    /// The pack that holds the content, counted from 0 in [`Manifest::packs`]; `None` where there
    /// is no content to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pack: Option<u32>,
    /// Why the content of a regular file is not held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
    /// Path, role and attributes.
    #[serde(flatten)]
    pub record: BaselineRecord,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_number_and_time() {
        let id = BackupId::new(12, Timestamp(1_795_312_512_000_000));
        assert_eq!(id.to_string(), "000012-20261122T015512Z");
        assert_eq!(id.to_string().parse::<BackupId>().unwrap(), id);
        for bad in [
            "",
            "12",
            "12-20261122T015512Z",
            "000000-20261122T015512Z",
            "000012-20261122T015512",
            "../..",
            "000012-2026112\u{661}T01551Z",
        ] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn every_id_has_one_text(sequence in 1u64.., at: i64) {
            let id = BackupId::new(sequence, Timestamp(at));
            prop_assert_eq!(id.to_string().parse::<BackupId>(), Ok(id));
        }

        #[test]
        fn hostile_ids_are_refused(text: String) {
            if let Ok(id) = text.parse::<BackupId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }

        #[test]
        fn ids_sort_by_number(a in 1u64..1_000_000_000, b in 1u64..1_000_000_000, s: i32, t: i32) {
            let id = |n, s: i32| BackupId::new(n, Timestamp(i64::from(s) * 1_000_000));
            prop_assume!(a != b);
            prop_assert_eq!(id(a, s) < id(b, t), a < b);
        }
    }

    #[test]
    fn kinds_of_other_versions_are_read() {
        assert_eq!(serde_json::from_str::<BackupKind>("\"pre-lock\"").unwrap(), BackupKind::PreLock);
        assert_eq!(serde_json::from_str::<BackupKind>("\"weekly\"").unwrap(), BackupKind::Other);
    }
}
