//! Verifying: every byte is decrypted and compared with what was signed.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guard_model::backup::{Ciphertext, Manifest};
use guard_model::retention::Proof;
use guard_model::{BackupId, Digest, Kind};

use super::entries::{ENTRIES, Holding, Lines};
use super::error::{BackupError, Refusal};
use super::keys::BackupKeys;
use super::pack::{self, PackReader};
use super::proofs::{Inode, Proofs};
use super::reader::Backup;
use super::store::{Backups, Which};

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everything.
    Everything,
    /// What was not read since it was written, or was touched since.
    Unproven,
}

/// How somebody watches and stops long work.
#[derive(Debug, Clone, Copy)]
pub struct Pulse<'a> {
    /// Raised to stop.
    pub cancel: &'a AtomicBool,
    /// Counts the bytes of content that were read.
    pub bytes: &'a AtomicU64,
}

/// How a backup verified.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verified {
    /// Regular files in it.
    pub files: u64,
    /// Bytes of content that were decrypted and compared, each once however many files have it.
    pub bytes: u64,
    /// Packs that were read.
    pub packs: u64,
    /// Files whose content it does not hold, as it says itself.
    pub missing: u64,
    /// What is wrong with it, for people; empty where it is good.
    pub problems: Vec<String>,
}

impl Backups {
    /// Verifies one backup and remembers the outcome, for [`Backups::proof`] and pruning.
    ///
    /// # Errors
    /// [`BackupError::NoSuchBackup`], [`BackupError::Cancelled`]. Whatever is wrong with the backup
    /// is no error but in [`Verified::problems`].
    pub fn verify(&self, id: &BackupId, scope: Scope, pulse: Pulse<'_>) -> Result<Verified, BackupError> {
        let _reading = self.reading();
        let known = self.proofs();
        let mut learned = Learned::default();
        let mut found = Verified::default();
        let outcome = match self.open_backup(&Which::Id(id.clone())) {
            Ok(backup) => self.verify_opened(&backup, scope, pulse, (&known, &mut learned), &mut found),
            Err(e @ BackupError::NoSuchBackup { .. }) => return Err(e),
            Err(e) => Err(e),
        };
        match outcome {
            Err(BackupError::Cancelled) => return Err(BackupError::Cancelled),
            Err(e) => found.problems.push(e.with_causes()),
            Ok(()) => {}
        }
        self.change_proofs(|proofs| {
            learned.proven.into_iter().for_each(|(file, inode)| proofs.note_proven(&file, inode));
            learned.damaged.iter().for_each(|file| proofs.note_damaged_pack(file));
            proofs.note_backup(id, found.problems.first().cloned());
        })?;
        if !found.problems.is_empty() {
            self.forget_held();
        }
        Ok(found)
    }

    /// What is known of a backup without reading it.
    ///
    /// # Errors
    /// Where its directory cannot be opened.
    pub fn proof(&self, id: &BackupId) -> Result<Proof, BackupError> {
        let dir = self.dir.existing(&id.to_string())?;
        Ok(match self.manifest(&dir, id) {
            Ok((manifest, _)) => self.proofs().of(&manifest, &dir, &self.packs),
            Err(_) => Proof::Damaged,
        })
    }

    /// What the last verification found to be wrong with a backup.
    #[must_use]
    pub fn problem(&self, id: &BackupId) -> Option<String> {
        self.proofs().problem(id)
    }

    fn verify_opened(
        &self,
        backup: &Backup,
        scope: Scope,
        pulse: Pulse<'_>,
        (known, learned): (&Proofs, &mut Learned),
        found: &mut Verified,
    ) -> Result<(), BackupError> {
        let keys = self.keys();
        let manifest = backup.manifest();
        self.check_chain(manifest)?;
        found.missing = manifest.missing;
        let entries = Inode::of(backup.dir(), ENTRIES);
        let wanted = wanted(backup, &keys, found)?;
        if let Some(inode) = entries {
            learned.proven.push((manifest.entries, inode));
        }
        for (file, wanted) in manifest.packs.iter().zip(wanted) {
            let inode = Inode::of(&self.packs, &pack::name_of(&file.sha256));
            if scope == Scope::Unproven && known.is_proven(file, inode) {
                continue;
            }
            match self.verify_pack(file, wanted, &keys, pulse, found) {
                Ok(()) => learned.proven.extend(inode.map(|inode| (*file, inode))),
                Err(BackupError::Cancelled) => return Err(BackupError::Cancelled),
                Err(e) => {
                    learned.damaged.push(*file);
                    found.problems.push(e.with_causes());
                }
            }
        }
        Ok(())
    }

    /// Is the backup before it the one that it followed?
    fn check_chain(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let Some(previous) = &manifest.previous else { return Ok(()) };
        let on_disk = self.dir.existing(&previous.id.to_string());
        let on_disk = on_disk.and_then(|d| super::reader::read_manifest(&d, &previous.id, &self.public));
        let found = match on_disk {
            Ok((_, digest)) => Some(digest),
            // It went by its time, or is damaged, which is its own affair.
            Err(_) => self.remembered().manifests.get(&previous.id).copied(),
        };
        match found {
            Some(found) if found != previous.sha256 => {
                let why = Refusal::Chain { before: previous.id.clone(), named: previous.sha256, found };
                Err(BackupError::refused(&manifest.id, why))
            }
            _ => Ok(()),
        }
    }

    fn verify_pack(
        &self,
        file: &Ciphertext,
        mut wanted: HashMap<Digest, u64>,
        keys: &BackupKeys,
        pulse: Pulse<'_>,
        found: &mut Verified,
    ) -> Result<(), BackupError> {
        let mut reader = PackReader::open(&self.packs, &file.sha256, keys)?;
        while let Some((member, size)) = reader.next()? {
            let mut counted = Counted { pulse };
            match reader.content(&member, &mut counted) {
                Err(BackupError::Sink(_)) => return Err(BackupError::Cancelled),
                done => done?,
            }
            found.bytes += size;
            let path = self.packs.path_of(&pack::name_of(&file.sha256));
            if wanted.remove(&member).is_some_and(|recorded| recorded != size) {
                return Err(BackupError::content(
                    &path,
                    format!("{member} has {size} bytes, not as recorded"),
                ));
            }
        }
        reader.finish(file)?;
        found.packs += 1;
        match wanted.keys().next() {
            Some(lacking) => {
                let path = self.packs.path_of(&pack::name_of(&file.sha256));
                Err(BackupError::content(
                    &path,
                    format!("it lacks {} contents, {lacking} first", wanted.len()),
                ))
            }
            None => Ok(()),
        }
    }

    pub(super) fn proofs(&self) -> Proofs {
        Proofs::load(&self.dir)
    }

    /// The encrypted files that some backup lists.
    pub(super) fn forget_proofs_of_the_gone(&self) -> Result<(), BackupError> {
        let mut files = BTreeSet::new();
        for (manifest, _) in self.list()?.into_iter().filter_map(|b| b.manifest.ok()) {
            files.insert(manifest.entries.sha256.to_string());
            files.extend(manifest.packs.iter().map(|p| p.sha256.to_string()));
        }
        let ids = self.ids()?;
        self.change_proofs(|proofs| proofs.retain(&ids, &files))
    }

    /// Read, changed and written as one: somebody else may have learned something meanwhile.
    fn change_proofs(&self, change: impl FnOnce(&mut Proofs)) -> Result<(), BackupError> {
        let _alone = self.proving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut proofs = self.proofs();
        change(&mut proofs);
        proofs.save(&self.dir)
    }
}

/// What a verification learned of single files.
#[derive(Default)]
struct Learned {
    proven: Vec<(Ciphertext, Inode)>,
    damaged: Vec<Ciphertext>,
}

/// The contents that each pack has to hold, with their lengths.
fn wanted(
    backup: &Backup,
    keys: &BackupKeys,
    found: &mut Verified,
) -> Result<Vec<HashMap<Digest, u64>>, BackupError> {
    let manifest = backup.manifest();
    let mut wanted: Vec<HashMap<Digest, u64>> = manifest.packs.iter().map(|_| HashMap::new()).collect();
    let mut lines = Lines::open(backup.dir(), &manifest.entries, keys)?;
    let bad = |why: &str| BackupError::content(&backup.dir().path_of(ENTRIES), why);
    let (mut entries, mut missing) = (0, 0);
    while let Some(Holding { kind, pack, sha256, size, missing: why }) = lines.next()? {
        entries += 1;
        if kind != Kind::File {
            continue;
        }
        found.files += 1;
        match (pack, sha256, why) {
            (Some(pack), Some(sha256), None) => {
                let place = usize::try_from(pack).ok().and_then(|p| wanted.get_mut(p));
                place.ok_or_else(|| bad("an entry names a pack that is not listed"))?.insert(sha256, size);
            }
            (None, _, Some(_)) => missing += 1,
            _ => return Err(bad("an entry says neither where its content is nor why not")),
        }
    }
    let totals = manifest.totals;
    if (entries, missing) != (totals.files + totals.directories, manifest.missing) {
        return Err(bad("it has not as many entries as the manifest says"));
    }
    Ok(wanted)
}

/// Content goes nowhere, is counted, and can be stopped.
struct Counted<'a> {
    pulse: Pulse<'a>,
}

impl Write for Counted<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.pulse.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        self.pulse.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
