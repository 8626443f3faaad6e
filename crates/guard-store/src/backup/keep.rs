//! What stays and what goes: pins and pruning.

use guard_model::retention::{self, Asked, Kept, Proof, Pruning};
use guard_model::{BackupId, Timestamp};

use std::collections::BTreeMap;
use std::sync::{PoisonError, TryLockError};

use super::error::BackupError;
use super::store::{Backups, Listed};
use super::{PINNED, UNFINISHED};

/// What pruning did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pruned {
    /// The backups that are gone.
    pub removed: Vec<BackupId>,
    /// Packs that nothing needs any more, removed.
    pub packs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Why nothing went though there are more than are to be kept.
    pub held_back: Option<HeldBack>,
}

/// What goes with these backups: packs that the others do not need. None goes while a manifest among those
/// that stay cannot be believed.
fn going(listed: &[Listed], gone: &[u64]) -> Pruned {
    let (go, stay): (Vec<&Listed>, Vec<&Listed>) =
        listed.iter().partition(|b| gone.contains(&b.id.sequence()));
    let packs_of = |backups: &[&Listed]| -> BTreeMap<[u8; 32], u64> {
        let manifests = backups.iter().filter_map(|b| b.manifest.as_ref().ok());
        manifests.flat_map(|(m, _)| m.packs.iter().map(|p| (p.sha256.0, p.bytes))).collect()
    };
    let (mut packs, needed) = (packs_of(&go), packs_of(&stay));
    packs.retain(|pack, _| !needed.contains_key(pack));
    if stay.iter().any(|b| b.manifest.is_err()) {
        packs.clear();
    }
    Pruned {
        removed: go.into_iter().map(|b| b.id.clone()).collect(),
        packs: packs.len() as u64,
        bytes: packs.values().sum(),
        held_back: None,
    }
}

/// Why no backup may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldBack {
    /// The newest has not been verified.
    NewestNotVerified,
    /// The newest says that it is older than another: the clock went back.
    ClockWentBack,
}

impl std::fmt::Display for HeldBack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NewestNotVerified => "the newest backup has not been verified",
            Self::ClockWentBack => "the clock went back: the newest backup is dated before an older one",
        })
    }
}

impl Backups {
    /// Removes the backups that need not be kept: see [`retention::prune`]. `tell` hears what goes before it
    /// goes, for the ledger: a backup that is gone without a word there was removed by somebody else. A crash on
    /// the way leaves whole backups and leftovers that the next start clears.
    ///
    /// # Errors
    /// That of `tell`, after which nothing goes; [`BackupError::Busy`], [`BackupError::Store`].
    pub fn prune<E: From<BackupError>>(
        &self,
        keep: u32,
        asked: Asked,
        tell: impl FnOnce(&Pruned) -> Result<(), E>,
    ) -> Result<Pruned, E> {
        let _writing = self.begin_writing()?;
        // What somebody reads just now stays until the next time; whoever asks by hand waits.
        let _alone = match (asked, self.in_use.try_write()) {
            (_, Ok(alone)) => alone,
            (Asked::ByItself, Err(TryLockError::WouldBlock)) => return Ok(Pruned::default()),
            _ => self.in_use.write().unwrap_or_else(PoisonError::into_inner),
        };
        let proofs = self.proofs();
        let listed = self.list()?;
        let known = |backup: &Listed| {
            let (at, proof) = match &backup.manifest {
                Ok((manifest, _)) => {
                    let dir = self.dir.existing(&backup.id.to_string());
                    let proof = dir.map_or(Proof::Damaged, |d| proofs.of(manifest, &d, &self.packs));
                    (manifest.at, proof)
                }
                Err(_) => (Timestamp(0), Proof::Damaged),
            };
            Kept { sequence: backup.id.sequence(), at, pinned: backup.pinned, proof }
        };
        let kept: Vec<Kept> = listed.iter().map(known).collect();
        let held_back = match retention::prune(&kept, keep, asked) {
            Pruning::Go(gone) if gone.is_empty() => return Ok(Pruned::default()),
            Pruning::Go(gone) => {
                let pruned = going(&listed, &gone);
                tell(&pruned)?;
                self.remove(&pruned.removed)?;
                return Ok(pruned);
            }
            Pruning::NewestNotVerified => HeldBack::NewestNotVerified,
            Pruning::ClockWentBack => HeldBack::ClockWentBack,
        };
        Ok(Pruned { held_back: Some(held_back), ..Pruned::default() })
    }

    /// Takes back a backup that the ledger was not told of.
    ///
    /// # Errors
    /// [`BackupError::Busy`], [`BackupError::Store`]; then the next start tells the ledger of it.
    pub fn take_back(&self, id: &BackupId) -> Result<(), BackupError> {
        let _writing = self.begin_writing()?;
        let _alone = self.in_use.write().unwrap_or_else(PoisonError::into_inner);
        let removed = self.remove(std::slice::from_ref(id));
        if removed.is_err() {
            // On a full disk there may be no room for another name, and there is none needed to remove.
            self.dir.remove_dir(&id.to_string())?;
            self.remove_unlisted_packs()?;
            self.forget_held();
        }
        self.remembered().manifests.remove(id);
        removed
    }

    fn remove(&self, ids: &[BackupId]) -> Result<(), BackupError> {
        for id in ids {
            // Out of the list by one step; what is then left over is known as such by its name.
            let leftover = format!("{id}{UNFINISHED}");
            self.dir.remove_dir(&leftover)?;
            self.dir.rename(&id.to_string(), &leftover)?;
            self.dir.remove_dir(&leftover)?;
        }
        self.remove_unlisted_packs()?;
        self.forget_proofs_of_the_gone()?;
        self.forget_held();
        Ok(())
    }

    /// Keeps a backup whatever pruning would say, or no longer; false where that was so before.
    ///
    /// # Errors
    /// [`BackupError::NoSuchBackup`], [`BackupError::Store`].
    pub fn set_pinned(&self, id: &BackupId, pinned: Pin) -> Result<bool, BackupError> {
        let dir = self.dir.existing(&id.to_string()).map_err(|e| match e {
            e if e.is_not_found() => BackupError::NoSuchBackup { asked: id.to_string() },
            e => e,
        })?;
        if dir.open(PINNED).is_ok() == (pinned == Pin::Keep) {
            return Ok(false);
        }
        match pinned {
            Pin::Keep => dir.write_new(PINNED, b"")?,
            Pin::Free => dir.remove_file(PINNED)?,
        }
        dir.sync()?;
        Ok(true)
    }
}

/// Whether a backup is to stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pin {
    /// Until somebody frees it.
    Keep,
    /// As long as the last ones are kept.
    Free,
}
