//! What was decrypted and compared, and has not been touched since: so that a
//! newer backup's proof costs what is new in it. Only a cache, and not signed;
//! whoever can forge it can remove the backups themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;

use guard_model::BackupId;
use guard_model::backup::{Ciphertext, Manifest};
use guard_model::retention::Proof;
use serde::{Deserialize, Serialize};

use super::dir::Dir;
use super::entries::ENTRIES;
use super::error::BackupError;
use super::pack;

const FILE: &str = "proofs.json";
const MAX_BYTES: u64 = 64 << 20;

/// What is known of the files of an environment's backups.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Proofs {
    /// By the SHA-256 of an encrypted file: the inode that was compared.
    #[serde(default)]
    proven: BTreeMap<String, Inode>,
    /// Packs that turned out to be damaged: nothing is shared with them any more.
    #[serde(default)]
    damaged_packs: BTreeSet<String>,
    /// Backups that did not verify, and why.
    #[serde(default)]
    damaged: BTreeMap<BackupId, String>,
}

/// An inode as it was when it was compared. Writing moves its ctime, whatever is done to its mtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inode {
    ino: u64,
    size: u64,
    ctime: i64,
    ctime_nsec: i64,
}

impl Proofs {
    /// Reads them; where they are lost or damaged nothing is proven.
    pub(super) fn load(dir: &Dir) -> Self {
        let read = dir.read_small(FILE, MAX_BYTES);
        read.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    pub(super) fn save(&self, dir: &Dir) -> Result<(), BackupError> {
        let text = serde_json::to_vec(self)
            .map_err(|source| crate::StoreError::Json { what: "proofs of backups", source })?;
        dir.replace(FILE, &text)
    }

    pub(super) fn is_proven(&self, file: &Ciphertext, now: Option<Inode>) -> bool {
        let known = self.proven.get(&file.sha256.to_string());
        known.is_some() && known == now.as_ref()
    }

    pub(super) fn note_proven(&mut self, file: &Ciphertext, inode: Inode) {
        self.damaged_packs.remove(&file.sha256.to_string());
        self.proven.insert(file.sha256.to_string(), inode);
    }

    pub(super) fn note_damaged_pack(&mut self, file: &Ciphertext) {
        self.proven.remove(&file.sha256.to_string());
        self.damaged_packs.insert(file.sha256.to_string());
    }

    pub(super) fn is_damaged_pack(&self, file: &Ciphertext) -> bool {
        self.damaged_packs.contains(&file.sha256.to_string())
    }

    pub(super) fn problem(&self, id: &BackupId) -> Option<String> {
        self.damaged.get(id).cloned()
    }

    /// Notes how a whole backup verified.
    pub(super) fn note_backup(&mut self, id: &BackupId, problem: Option<String>) {
        match problem {
            Some(why) => self.damaged.insert(id.clone(), why),
            None => self.damaged.remove(id),
        };
    }

    /// Forgets what is not there any more.
    pub(super) fn retain(&mut self, ids: &[BackupId], files: &BTreeSet<String>) {
        self.proven.retain(|file, _| files.contains(file));
        self.damaged_packs.retain(|file| files.contains(file));
        self.damaged.retain(|id, _| ids.contains(id));
    }

    /// What is known of a backup by its files' metadata.
    pub(super) fn of(&self, manifest: &Manifest, dir: &Dir, packs: &Dir) -> Proof {
        let is_bad = |file: &Ciphertext| self.is_damaged_pack(file);
        if self.damaged.contains_key(&manifest.id) || manifest.packs.iter().any(is_bad) {
            return Proof::Damaged;
        }
        let proven = |file, dir: &Dir, name: &str| self.is_proven(file, Inode::of(dir, name));
        let all = proven(&manifest.entries, dir, ENTRIES)
            && manifest.packs.iter().all(|p| proven(p, packs, &pack::name_of(&p.sha256)));
        if all { Proof::Verified } else { Proof::Unverified }
    }
}

impl Inode {
    pub(super) fn of(dir: &Dir, name: &str) -> Option<Self> {
        let meta = dir.open(name).ok()?.metadata().ok()?;
        Some(Self { ino: meta.ino(), size: meta.len(), ctime: meta.ctime(), ctime_nsec: meta.ctime_nsec() })
    }
}
