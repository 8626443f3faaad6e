//! All backups of one environment.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

use guard_model::backup::{Ciphertext, Manifest};
use guard_model::{BackupId, Digest};

use super::dir::Dir;
use super::entries::{Holding, Lines};
use super::error::BackupError;
use super::held::Held;
use super::keys::BackupKeys;
use super::pack::{self, PackReader};
use super::reader::{self, Backup};
use super::{NEW_PACK, PACKS, PINNED, UNFINISHED};
use crate::durable;
use crate::keys::PublicKey;
use crate::state_dir::{StateDir, checked_name};

/// The backups of an environment. Safe to use from several threads; there is one writer at a time.
#[derive(Debug)]
pub struct Backups {
    pub(super) environment: String,
    pub(super) machine_id: String,
    pub(super) dir: Dir,
    pub(super) packs: Dir,
    keys: Arc<RwLock<BackupKeys>>,
    pub(super) public: PublicKey,
    pub(super) held: Mutex<Held>,
    remembered: Mutex<Remembered>,
    pub(super) writing: AtomicBool,
    /// Held for reading by whoever goes through packs, for writing by whoever removes some.
    pub(super) in_use: RwLock<()>,
    /// Held while what is proven is being noted.
    pub(super) proving: Mutex<()>,
}

/// What the ledger says of an environment's backups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The SHA-256 of each one's manifest.
    pub manifests: BTreeMap<BackupId, Digest>,
    /// The greatest number there ever was.
    pub last_number: u64,
}

/// Which backup is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// The newest that can be believed.
    Newest,
    /// This one.
    Id(BackupId),
}

/// One backup in a list.
#[derive(Debug)]
pub struct Listed {
    /// Which.
    pub id: BackupId,
    /// Its manifest and the SHA-256 of `manifest.json`, or why it cannot be believed.
    pub manifest: Result<(Manifest, Digest), BackupError>,
    /// Somebody wants it to stay.
    pub pinned: bool,
}

impl Backups {
    /// Opens the backups of an environment in `elsewhere`, or else below the state directory, making
    /// the directories that are missing and clearing what an interrupted backup left. `remembered`
    /// is what the ledger says.
    ///
    /// # Errors
    /// [`BackupError::WritableByOthers`], [`BackupError::NotADirectory`], [`BackupError::Store`].
    pub fn open(
        state: &StateDir,
        elsewhere: Option<&Path>,
        environment: &str,
        machine_id: &str,
        keys: Arc<RwLock<BackupKeys>>,
        public: PublicKey,
        remembered: Remembered,
    ) -> Result<Self, BackupError> {
        let name = checked_name(environment)?;
        let dir = match elsewhere {
            Some(path) => Dir::at(path)?.child(name)?,
            None => Dir::known(&state.backups())?.child(name)?,
        };
        let packs = dir.child(PACKS)?;
        let opened = Self {
            environment: environment.to_owned(),
            machine_id: machine_id.to_owned(),
            dir,
            packs,
            keys,
            public,
            held: Mutex::default(),
            remembered: Mutex::new(remembered),
            writing: AtomicBool::new(false),
            in_use: RwLock::new(()),
            proving: Mutex::new(()),
        };
        opened.clear_leftovers()?;
        Ok(opened)
    }

    /// Where they lie, for people.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Every backup, oldest first, with what its manifest says.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, BackupError> {
        let describe = |id: BackupId| {
            let dir = self.dir.existing(&id.to_string());
            let pinned = dir.as_ref().is_ok_and(|d| d.open(PINNED).is_ok());
            Listed { manifest: dir.and_then(|d| self.manifest(&d, &id)), id, pinned }
        };
        Ok(self.ids()?.into_iter().map(describe).collect())
    }

    /// Opens one backup: its manifest is believed, and its entries are what it says.
    ///
    /// # Errors
    /// [`BackupError::NoSuchBackup`], [`BackupError::Refused`], [`BackupError::Store`].
    pub fn open_backup(&self, which: &Which) -> Result<Backup, BackupError> {
        let keys = self.keys();
        match which {
            Which::Id(id) => self.open_id(id, &keys),
            Which::Newest => {
                let mut refused = None;
                for id in self.ids()?.into_iter().rev() {
                    match self.open_id(&id, &keys) {
                        Ok(backup) => return Ok(backup),
                        Err(e) => refused = refused.or(Some(e)),
                    }
                }
                Err(refused.unwrap_or_else(|| BackupError::NoSuchBackup { asked: "at all".to_owned() }))
            }
        }
    }

    /// The backup that a person means by an id or its number alone.
    ///
    /// # Errors
    /// [`BackupError::NoSuchBackup`].
    pub fn find(&self, asked: &str) -> Result<BackupId, BackupError> {
        let number = asked.parse::<u64>().ok();
        let is_meant = |id: &BackupId| id.to_string() == asked || number == Some(id.sequence());
        let found = self.ids()?.into_iter().find(is_meant);
        found.ok_or_else(|| BackupError::NoSuchBackup { asked: guard_model::path::escape(asked.as_bytes()) })
    }

    /// Writes the content with this digest to `out`, from whichever backup has it. Where it fails,
    /// `out` may have got the beginning of something else: what it got is to be thrown away.
    ///
    /// # Errors
    /// [`BackupError::NotHeld`]; [`BackupError::Content`] and others where what holds it is damaged.
    pub fn content(&self, digest: &Digest, out: &mut dyn Write) -> Result<(), BackupError> {
        let _reading = self.reading();
        let pack = self.pack_of(digest)?;
        let mut reader = PackReader::open(&self.packs, &pack, &self.keys())?;
        while let Some((member, _)) = reader.next()? {
            if member == *digest {
                return reader.content(digest, out);
            }
        }
        Err(BackupError::content(&self.packs.path_of(&pack::name_of(&pack)), format!("it lacks {digest}")))
    }

    /// Hands every content of a backup to `each`, pack by pack, with its digest and length. What is handed
    /// on is compared with its digest as it goes: where `each` gets an error of the reader, it is damaged.
    ///
    /// # Errors
    /// The first of `each`, or of the backup.
    pub fn each_content<E: From<BackupError>>(
        &self,
        backup: &Backup,
        mut each: impl FnMut(
            &Digest,
            u64,
            &mut dyn FnMut(&mut dyn Write) -> Result<(), BackupError>,
        ) -> Result<(), E>,
    ) -> Result<(), E> {
        let _reading = self.reading();
        let keys = self.keys();
        for file in &backup.manifest().packs {
            let mut reader = PackReader::open(&self.packs, &file.sha256, &keys)?;
            while let Some((member, size)) = reader.next()? {
                each(&member, size, &mut |out| reader.content(&member, out))?;
            }
            reader.finish(file)?;
        }
        Ok(())
    }

    /// True where some backup holds the content with this digest.
    ///
    /// # Errors
    /// As [`Backups::content`], where that cannot be told.
    pub fn holds(&self, digest: &Digest) -> Result<bool, BackupError> {
        match self.pack_of(digest) {
            Ok(_) => Ok(true),
            Err(BackupError::NotHeld { .. }) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The ids that are there, oldest first, damaged ones among them.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn ids(&self) -> Result<Vec<BackupId>, BackupError> {
        let mut ids: Vec<BackupId> = self.dir.names()?.iter().filter_map(|n| n.parse().ok()).collect();
        ids.sort();
        Ok(ids)
    }

    /// The keys as they are now.
    #[must_use]
    pub fn keys(&self) -> BackupKeys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is said of backups by the ledger, where it says anything.
    pub(super) fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The table of what is held where.
    pub(super) fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the manifest in `dir` and checks everything that is said of it elsewhere.
    pub(super) fn manifest(&self, dir: &Dir, id: &BackupId) -> Result<(Manifest, Digest), BackupError> {
        let (manifest, digest) = reader::read_manifest(dir, id, &self.public)?;
        let expected = self.remembered().manifests.get(id).copied();
        reader::check_identity(&manifest, id, &self.environment, &self.machine_id)?;
        reader::check_digest(id, digest, expected)?;
        Ok((manifest, digest))
    }

    fn open_id(&self, id: &BackupId, keys: &BackupKeys) -> Result<Backup, BackupError> {
        let dir = match self.dir.existing(&id.to_string()) {
            Err(e) if e.is_not_found() => return Err(BackupError::NoSuchBackup { asked: id.to_string() }),
            dir => dir?,
        };
        let (manifest, digest) = self.manifest(&dir, id)?;
        Backup::new(dir, manifest, digest, keys.clone())
    }

    pub(super) fn pack_of(&self, digest: &Digest) -> Result<Digest, BackupError> {
        let found = |held: &Held| held.find(digest).map(|(_, pack)| pack.file.sha256);
        if let Some(pack) = found(&self.held()) {
            return Ok(pack);
        }
        for id in self.ids()?.into_iter().rev() {
            if let Err(e) = self.load_held(&id) {
                tracing::warn!(backup = %id, error = %e, "a backup cannot be searched");
            }
            if let Some(pack) = found(&self.held()) {
                return Ok(pack);
            }
        }
        Err(BackupError::NotHeld { digest: *digest })
    }

    /// Takes what a backup holds into the table, once.
    pub(super) fn load_held(&self, id: &BackupId) -> Result<(), BackupError> {
        if self.held().is_loaded(id) {
            return Ok(());
        }
        let keys = self.keys();
        let backup = self.open_id(id, &keys)?;
        let shareable = backup.manifest().recipients == keys.recipients();
        let mut lines = Lines::open(backup.dir(), &backup.manifest().entries, &keys)?;
        let mut found = Vec::new();
        while let Some(Holding { pack, sha256, .. }) = lines.next()? {
            if let (Some(pack), Some(sha256)) = (pack, sha256) {
                found.push((sha256, pack));
            }
        }
        let proofs = self.proofs();
        let mut held = self.held();
        // Of what is known to be damaged nothing is taken: another backup may have it whole.
        let sound = |file: &&Ciphertext| !proofs.is_damaged_pack(file);
        let numbers: Vec<Option<u32>> = backup
            .manifest()
            .packs
            .iter()
            .map(|file| Some(file).filter(sound).map(|file| held.pack(*file, shareable)))
            .collect();
        for (content, pack) in found {
            let number = usize::try_from(pack).ok().and_then(|p| numbers.get(p));
            number.into_iter().flatten().for_each(|n| held.note(content, *n));
        }
        held.note_loaded(id.clone());
        Ok(())
    }

    /// Forgets what is held where: packs went, or recipients changed.
    pub fn forget_held(&self) {
        *self.held() = Held::default();
    }

    /// Removes what a backup that was cut short left: unfinished directories and packs, and packs
    /// that no backup lists.
    fn clear_leftovers(&self) -> Result<(), BackupError> {
        for name in self.dir.names()? {
            if name.strip_suffix(UNFINISHED).is_some_and(|id| id.parse::<BackupId>().is_ok()) {
                self.dir.remove_dir(&name)?;
            } else if name.starts_with('.') && name.ends_with(durable::UNFINISHED) {
                self.dir.remove_file(&name)?;
            }
        }
        self.remove_unlisted_packs()
    }

    /// Removes the packs that no backup lists, and unfinished ones. Where
    /// a single manifest cannot be believed nothing is removed: nobody knows what it would have listed.
    pub(super) fn remove_unlisted_packs(&self) -> Result<(), BackupError> {
        let mut listed = BTreeSet::new();
        let mut all_known = true;
        for backup in self.list()? {
            match backup.manifest {
                Ok((manifest, _)) => listed.extend(manifest.packs.iter().map(|p| p.sha256.0)),
                Err(e) => {
                    all_known = false;
                    tracing::warn!(backup = %backup.id, error = %e, "a backup cannot be believed: no pack is removed");
                }
            }
        }
        for name in self.packs.names()? {
            let unlisted = pack::digest_of(&name).is_some_and(|d| all_known && !listed.contains(&d.0));
            if unlisted || name.starts_with(NEW_PACK) {
                self.packs.remove_file(&name)?;
            }
        }
        self.packs.sync()
    }

    /// True while a backup is being written, or old ones are removed.
    #[must_use]
    pub fn is_being_written(&self) -> bool {
        self.writing.load(Ordering::Acquire)
    }

    /// Nothing is removed while this is held.
    pub(super) fn reading(&self) -> RwLockReadGuard<'_, ()> {
        self.in_use.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of the one writer.
    pub(super) fn begin_writing(&self) -> Result<Writing<'_>, BackupError> {
        if self.writing.swap(true, Ordering::AcqRel) {
            Err(BackupError::Busy)
        } else {
            Ok(Writing(&self.writing))
        }
    }
}

/// The place of the one writer, free again when dropped.
pub(super) struct Writing<'a>(&'a AtomicBool);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}
