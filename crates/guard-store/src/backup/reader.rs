//! One backup that is believed.

use guard_model::backup::{BackupEntry, Manifest};
use guard_model::{BackupId, Digest};
use sha2::{Digest as _, Sha256};

use super::dir::Dir;
use super::entries::Lines;
use super::error::{BackupError, Refusal};
use super::keys::BackupKeys;
use super::{MANIFEST, SIGNATURE};
use crate::error::{Damage, StoreError};
use crate::keys::{NAMESPACE_BACKUP, PublicKey};

/// A hundred thousand packs, far beyond any tree.
const MAX_MANIFEST: u64 = 16 << 20;
const MAX_SIGNATURE: u64 = 16 << 10;

/// One backup: its manifest was verified, and its entries are what the manifest says.
#[derive(Debug)]
pub struct Backup {
    dir: Dir,
    manifest: Manifest,
    digest: Digest,
    keys: BackupKeys,
}

impl Backup {
    pub(super) fn new(
        dir: Dir,
        manifest: Manifest,
        digest: Digest,
        keys: BackupKeys,
    ) -> Result<Self, BackupError> {
        Ok(Self { dir, manifest, digest, keys })
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &BackupId {
        &self.manifest.id
    }

    /// What was signed.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of `manifest.json`, by which the ledger names it.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Every path in it, parents before what is in them. The file of entries is compared with the
    /// manifest before the first is given.
    ///
    /// # Errors
    /// [`BackupError::Store`], [`BackupError::Decrypt`], [`BackupError::Content`].
    pub fn entries(&self) -> Result<Entries, BackupError> {
        Ok(Entries { lines: Lines::open(&self.dir, &self.manifest.entries, &self.keys)?, failed: false })
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }
}

/// The entries of a backup, read one by one.
pub struct Entries {
    lines: Lines,
    failed: bool,
}

impl Iterator for Entries {
    type Item = Result<BackupEntry, BackupError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.lines.next();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// Reads a manifest that the host key signed.
pub(super) fn read_manifest(
    dir: &Dir,
    id: &BackupId,
    public: &PublicKey,
) -> Result<(Manifest, Digest), BackupError> {
    let text = dir.read_small(MANIFEST, MAX_MANIFEST)?;
    let armour = dir.read_small(SIGNATURE, MAX_SIGNATURE)?;
    let refused = || BackupError::refused(id, Refusal::Signature);
    let armour = String::from_utf8(armour).map_err(|_| refused())?;
    // The signature first: what nobody signed is not worth parsing.
    public.verify(NAMESPACE_BACKUP, &text, &armour).map_err(|_| refused())?;
    let manifest: Manifest = serde_json::from_slice(&text).map_err(|e| {
        let why = Damage::Line { line: e.line() as u64, why: e.to_string() };
        StoreError::damaged(&dir.path_of(MANIFEST), why)
    })?;
    Ok((manifest, Digest(Sha256::digest(&text).into())))
}

/// Is this genuine manifest the one that belongs here?
pub(super) fn check_identity(
    manifest: &Manifest,
    id: &BackupId,
    environment: &str,
    machine_id: &str,
) -> Result<(), BackupError> {
    let why = if manifest.format != 1 {
        Refusal::Format { found: manifest.format }
    } else if manifest.environment != environment {
        Refusal::OtherEnvironment { found: manifest.environment.clone() }
    } else if manifest.machine_id != machine_id {
        Refusal::OtherMachine { found: manifest.machine_id.clone() }
    } else if manifest.id != *id {
        Refusal::OtherId { found: manifest.id.clone() }
    } else {
        return Ok(());
    };
    Err(BackupError::refused(id, why))
}

pub(super) fn check_digest(
    id: &BackupId,
    found: Digest,
    expected: Option<Digest>,
) -> Result<(), BackupError> {
    match expected {
        Some(expected) if expected != found => {
            Err(BackupError::refused(id, Refusal::NotAsInLedger { expected, found }))
        }
        _ => Ok(()),
    }
}
