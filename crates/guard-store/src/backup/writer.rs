//! Making a backup: new content into packs, entries, a signed manifest, one rename.

use std::collections::HashMap;
use std::io::Read;

use guard_model::backup::{BackupEntry, Ciphertext, Manifest, Previous};
use guard_model::baseline::{BaselineRecord, Totals};
use guard_model::{BackupId, BackupKind, Digest, Kind, Timestamp};
use sha2::{Digest as _, Sha256};

use super::dir::Dir;
use super::entries::EntriesWriter;
use super::error::BackupError;
use super::keys::BackupKeys;
use super::pack::{self, PackWriter};
use super::store::{Backups, Writing};
use super::{MANIFEST, NEW_PACK, SIGNATURE, UNFINISHED};
use crate::error::StoreError;
use crate::keys::{HostKey, NAMESPACE_BACKUP};

/// What a backup is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupDraft {
    /// Why it is made.
    pub kind: BackupKind,
    /// When.
    pub at: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// What they say.
    pub note: Option<String>,
    /// The canonical root, escaped.
    pub root: String,
    /// The baseline that it belongs to.
    pub generation: Option<u64>,
}

/// A backup that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What was signed.
    pub manifest: Manifest,
    /// SHA-256 of `manifest.json`.
    pub digest: Digest,
    /// Bytes of packs that were written for it; what it shares with others is not counted.
    pub written: u64,
}

/// What became of a content that was handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It is in a pack.
    Yes,
    /// What was read is not what the digest says: it changed meanwhile. Nothing was kept.
    Changed,
}

/// Takes a backup. Dropped without [`BackupWriter::finish`] it leaves nothing.
pub struct BackupWriter<'a> {
    backups: &'a Backups,
    keys: BackupKeys,
    id: BackupId,
    draft: BackupDraft,
    previous: Option<Previous>,
    temporary: String,
    dir: Dir,
    entries: Option<EntriesWriter>,
    /// The packs in the order of the manifest; one that is being written has no name yet.
    packs: Vec<Slot>,
    /// Where packs of earlier backups stand among `packs`; `None`: it is not there any more.
    shared: HashMap<u32, Option<u32>>,
    fresh: HashMap<Digest, u32>,
    open: Option<(u32, PackWriter)>,
    totals: Totals,
    missing: u64,
    finished: bool,
    _writing: Writing<'a>,
}

#[derive(Clone, Copy)]
enum Slot {
    Shared(Ciphertext),
    Writing,
    Written(Ciphertext),
}

impl Backups {
    /// Begins a backup. What the newest one holds is shared with it.
    ///
    /// # Errors
    /// [`BackupError::Busy`] while another is being written; [`BackupError::Store`].
    pub fn begin(&self, draft: BackupDraft) -> Result<BackupWriter<'_>, BackupError> {
        let writing = self.begin_writing()?;
        let keys = self.keys();
        let ids = self.ids()?;
        let last = ids.last().map_or(0, BackupId::sequence).max(self.remembered().last_number);
        let id = BackupId::new(last.saturating_add(1), draft.at);
        let mut previous = None;
        for newest in ids.iter().rev() {
            let found = self.dir.existing(&newest.to_string()).and_then(|d| self.manifest(&d, newest));
            if let Ok((_, sha256)) = found {
                previous = Some(Previous { id: newest.clone(), sha256 });
                // One whose entries are damaged shares nothing: everything is written anew.
                if let Err(e) = self.load_held(newest) {
                    tracing::warn!(backup = %newest, error = %e, "a backup shares nothing with the next one");
                }
                break;
            }
        }
        let temporary = format!("{id}{UNFINISHED}");
        self.dir.remove_dir(&temporary)?;
        let dir = self.dir.child(&temporary).inspect_err(|_| {
            // It was made, and could not be forced to the disk.
            if let Err(error) = self.dir.remove_dir(&temporary) {
                tracing::warn!(%error, "an unfinished backup stays until the next start");
            }
        })?;
        let mut writer = BackupWriter {
            backups: self,
            keys,
            id,
            draft,
            previous,
            temporary,
            dir,
            entries: None,
            packs: Vec::new(),
            shared: HashMap::new(),
            fresh: HashMap::new(),
            open: None,
            totals: Totals::default(),
            missing: 0,
            finished: false,
            _writing: writing,
        };
        writer.entries = Some(EntriesWriter::create(&writer.dir, &writer.keys)?);
        Ok(writer)
    }
}

impl BackupWriter<'_> {
    /// The id that it will have.
    #[must_use]
    pub fn id(&self) -> &BackupId {
        &self.id
    }

    /// True where the content is held already, here or by an earlier backup whose pack is still
    /// there: then it need not be read.
    pub fn holds(&mut self, digest: &Digest) -> bool {
        self.pack_of(digest).is_some()
    }

    /// Takes a content of `size` bytes from `from`, which is read to its end: what it gives has to
    /// be what `digest` says. Costs nothing where the content is held already.
    ///
    /// # Errors
    /// [`BackupError::Source`] where `from` fails, after which the backup can go on without it;
    /// [`BackupError::Store`] where the disk does, after which it cannot.
    pub fn store(&mut self, digest: &Digest, size: u64, from: &mut dyn Read) -> Result<Stored, BackupError> {
        if self.holds(digest) {
            return Ok(Stored::Yes);
        }
        if size >= pack::FULL {
            self.store_large(digest, size, from)
        } else {
            self.store_small(digest, size, from)
        }
    }

    /// Notes an entry, after its parent and after its content; `missing` says why a regular file's
    /// content could not be stored.
    ///
    /// # Errors
    /// [`BackupError::Store`].
    pub fn push(&mut self, record: &BaselineRecord, missing: Option<String>) -> Result<(), BackupError> {
        let digest = record.entry.sha256.filter(|_| record.entry.kind == Kind::File);
        let pack = digest.and_then(|d| self.pack_of(&d));
        let missing = match (record.entry.kind, pack) {
            (Kind::File, None) => Some(missing.unwrap_or_else(|| "its content was not read".to_owned())),
            _ => None,
        };
        self.missing += u64::from(missing.is_some());
        self.totals.add(&record.entry);
        let entry = BackupEntry { pack, missing, record: record.clone() };
        match &mut self.entries {
            Some(entries) => entries.push(&entry),
            None => Ok(()),
        }
    }

    /// Ends and signs it. The ledger is to be told the digest that comes back.
    ///
    /// # Errors
    /// [`BackupError::Store`]; then nothing was made.
    pub fn finish(mut self, key: &HostKey) -> Result<Made, BackupError> {
        self.close_pack()?;
        let entries = match self.entries.take() {
            Some(entries) => entries.finish()?,
            None => return Err(BackupError::Busy),
        };
        let mut packs = Vec::with_capacity(self.packs.len());
        let mut written = 0;
        for slot in &self.packs {
            match slot {
                Slot::Shared(file) => packs.push(*file),
                Slot::Written(file) => {
                    written += file.bytes;
                    packs.push(*file);
                }
                Slot::Writing => {}
            }
        }
        let manifest = Manifest {
            format: 1,
            environment: self.backups.environment.clone(),
            id: self.id.clone(),
            kind: self.draft.kind,
            machine_id: self.backups.machine_id.clone(),
            at: self.draft.at,
            by: self.draft.by.clone(),
            note: self.draft.note.clone(),
            root: self.draft.root.clone(),
            generation: self.draft.generation,
            totals: self.totals,
            missing: self.missing,
            entries,
            packs,
            recipients: self.keys.recipients(),
            previous: self.previous.clone(),
        };
        let digest = self.commit(&manifest, key)?;
        self.finished = true;
        self.take_over(&manifest);
        Ok(Made { manifest, digest, written })
    }

    fn commit(&self, manifest: &Manifest, key: &HostKey) -> Result<Digest, BackupError> {
        let mut text = serde_json::to_vec_pretty(manifest)
            .map_err(|source| StoreError::Json { what: "a backup's manifest", source })?;
        text.push(b'\n');
        let armour = key.sign(NAMESPACE_BACKUP, &text)?;
        self.dir.write_new(MANIFEST, &text)?;
        self.dir.write_new(SIGNATURE, armour.as_bytes())?;
        self.dir.sync()?;
        let name = self.id.to_string();
        if let Err(e) = self.backups.dir.rename(&self.temporary, &name) {
            // It may have its name, and not be known to keep it: it is taken back, and goes with the rest.
            if self.backups.dir.existing(&name).is_ok()
                && let Err(error) = self.backups.dir.rename(&name, &self.temporary)
            {
                tracing::warn!(backup = %self.id, %error, "a backup that failed could not be taken back");
            }
            return Err(e);
        }
        let digest = Digest(Sha256::digest(&text).into());
        let mut remembered = self.backups.remembered();
        remembered.manifests.insert(self.id.clone(), digest);
        remembered.last_number = remembered.last_number.max(self.id.sequence());
        Ok(digest)
    }

    /// What was written is held from now on, without reading it again.
    fn take_over(&mut self, manifest: &Manifest) {
        let mut held = self.backups.held();
        let numbers: Vec<u32> = manifest.packs.iter().map(|file| held.pack(*file, true)).collect();
        for (content, slot) in self.fresh.drain() {
            let number = usize::try_from(slot).ok().and_then(|n| numbers.get(n));
            number.into_iter().for_each(|n| held.note(content, *n));
        }
        held.note_loaded(self.id.clone());
    }

    fn pack_of(&mut self, digest: &Digest) -> Option<u32> {
        if let Some(&slot) = self.fresh.get(digest) {
            return Some(slot);
        }
        let (number, pack) = self.backups.held().find(digest)?;
        if !pack.shareable {
            return None;
        }
        if let Some(&known) = self.shared.get(&number) {
            return known;
        }
        // Gone or cut off, it is no use; whether each byte is right is what verifying is for.
        let there = self
            .backups
            .packs
            .open(&pack::name_of(&pack.file.sha256))
            .and_then(|f| f.metadata().map_err(BackupError::io("examine", self.backups.packs.path())));
        let slot =
            there.is_ok_and(|m| m.len() == pack.file.bytes).then(|| self.slot(Slot::Shared(pack.file)));
        self.shared.insert(number, slot);
        slot
    }

    fn slot(&mut self, slot: Slot) -> u32 {
        self.packs.push(slot);
        u32::try_from(self.packs.len() - 1).unwrap_or(u32::MAX)
    }

    /// Read whole before a byte of it goes into a pack: what turns out to be torn leaves no trace.
    fn store_small(
        &mut self,
        digest: &Digest,
        size: u64,
        from: &mut dyn Read,
    ) -> Result<Stored, BackupError> {
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        from.take(size.saturating_add(1)).read_to_end(&mut content).map_err(BackupError::Source)?;
        if content.len() as u64 != size || Digest(Sha256::digest(&content).into()) != *digest {
            return Ok(Stored::Changed);
        }
        let (slot, pack) = match &mut self.open {
            Some((slot, pack)) => (*slot, pack),
            None => {
                let slot = self.slot(Slot::Writing);
                let name = format!("{NEW_PACK}{slot}");
                let (_, pack) =
                    self.open.insert((slot, PackWriter::create(&self.backups.packs, &name, &self.keys)?));
                (slot, pack)
            }
        };
        pack.begin(digest, size)?;
        pack.write(&content)?;
        pack.end(size)?;
        let full = pack.is_full();
        self.fresh.insert(*digest, slot);
        if full { self.close_pack().map(|()| Stored::Yes) } else { Ok(Stored::Yes) }
    }

    /// A pack of its own, thrown away where the content turns out to be another.
    fn store_large(
        &mut self,
        digest: &Digest,
        size: u64,
        from: &mut dyn Read,
    ) -> Result<Stored, BackupError> {
        let packs = &self.backups.packs;
        let name = format!("{NEW_PACK}large");
        let written = write_alone(packs, &name, &self.keys, digest, size, from);
        match written {
            Ok(Some(pack)) => {
                let file = pack.finish(packs)?;
                let slot = self.slot(Slot::Written(file));
                self.fresh.insert(*digest, slot);
                Ok(Stored::Yes)
            }
            Ok(None) => packs.remove_file(&name).map(|()| Stored::Changed),
            Err(e) => packs.remove_file(&name).and(Err(e)),
        }
    }

    fn close_pack(&mut self) -> Result<(), BackupError> {
        if let Some((slot, pack)) = self.open.take() {
            let file = pack.finish(&self.backups.packs)?;
            if let Some(place) = usize::try_from(slot).ok().and_then(|s| self.packs.get_mut(s)) {
                *place = Slot::Written(file);
            }
        }
        Ok(())
    }
}

fn write_alone(
    packs: &Dir,
    name: &str,
    keys: &BackupKeys,
    digest: &Digest,
    size: u64,
    from: &mut dyn Read,
) -> Result<Option<PackWriter>, BackupError> {
    let mut pack = PackWriter::create(packs, name, keys)?;
    pack.begin(digest, size)?;
    let mut hash = Sha256::new();
    let mut left = size;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let n = match from.read(&mut buffer) {
            Ok(n) => n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(BackupError::Source(e)),
        };
        let piece = buffer.get(..n).unwrap_or_default();
        if n == 0 {
            break;
        }
        if n as u64 > left {
            return Ok(None);
        }
        left -= n as u64;
        hash.update(piece);
        pack.write(piece)?;
    }
    if left > 0 || Digest(hash.finalize().into()) != *digest {
        return Ok(None);
    }
    pack.end(size)?;
    Ok(Some(pack))
}

impl Drop for BackupWriter<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        let packs = &self.backups.packs;
        let mut names: Vec<String> = vec![format!("{NEW_PACK}large")];
        for (number, slot) in self.packs.iter().enumerate() {
            match slot {
                Slot::Written(file) => names.push(pack::name_of(&file.sha256)),
                Slot::Writing => names.push(format!("{NEW_PACK}{number}")),
                Slot::Shared(_) => {}
            }
        }
        // On a full disk what failed must not keep the space. What cannot be removed now is at the next start.
        let removed = names.iter().try_for_each(|name| packs.remove_file(name));
        if let Err(error) = removed.and_then(|()| self.backups.dir.remove_dir(&self.temporary)) {
            tracing::warn!(backup = %self.id, %error, "cannot remove an unfinished backup");
        }
    }
}
