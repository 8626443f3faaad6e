//! Backups of a tree: of a baseline that is about to be committed, or of the
//! tree as it stands now.
//!
//! What is held already is not read: for an unchanged tree a backup costs a look
//! at its metadata. What is read is compared with the digest that it goes under,
//! so that a file that changes meanwhile is left out and said, never stored torn.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use guard_model::baseline::{BaselineRecord, Expect, Role};
use guard_model::ledger::{Event, Record};
use guard_model::path::escape;
use guard_model::retention::Asked;
use guard_model::seal::sealed;
use guard_model::{BackupId, BackupKind, Class, Entry, Kind, Observed, Policy, RelPath, Seal};
use guard_store::Baseline;
use guard_store::backup::{
    BackupDraft, BackupError, BackupWriter, Backups, Made, Pruned, Pulse, Scope, Stored,
};
use guard_tree::{Progress, Root, ScanContent, ScanOptions, Visitor};

use super::lock::workers;
use super::{OperationError, Phase, Work, now};
use crate::comparer::{DeviceMap, Expectation};
use crate::ward::Ward;

/// Where the backups of an environment go, and how many stay.
#[derive(Clone)]
pub(crate) struct Vault {
    pub(crate) backups: Arc<Backups>,
    pub(crate) keep: u32,
}

/// What becomes of an operation of which no backup can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OnNoBackup {
    /// It is refused, and said why.
    #[default]
    Refuse,
    /// It goes on, and says so.
    GoOn,
}

/// The backup that an operation makes before it changes anything.
pub(crate) struct Safety {
    /// Or why there is none.
    pub(crate) vault: Result<Vault, String>,
    pub(crate) on_no_backup: OnNoBackup,
}

/// What became of that backup.
pub(crate) struct Secured {
    /// For the ledger, where one was made.
    pub(crate) event: Option<Event>,
    /// For whoever asked.
    pub(crate) warnings: Vec<String>,
    /// Why there is none.
    pub(crate) why_none: Option<String>,
}

impl Safety {
    /// Makes the backup; where that fails the operation fails, or goes on without one.
    pub(crate) fn secure(
        &self,
        make: impl FnOnce(&Vault) -> Result<BackedUp, OperationError>,
    ) -> Result<Secured, OperationError> {
        let why = match self.vault.as_ref().map(make) {
            Ok(Ok(done)) => {
                let (event, warnings) = (Some(done.event()), done.warnings());
                return Ok(Secured { event, warnings, why_none: None });
            }
            // Neither is a reason to go on without one: the other is over soon.
            Ok(Err(e @ (OperationError::Cancelled | OperationError::Backup(BackupError::Busy)))) => {
                return Err(e);
            }
            Ok(Err(e)) => crate::failure::chain(&e),
            Err(why) => why.clone(),
        };
        if self.on_no_backup == OnNoBackup::Refuse {
            return Err(OperationError::NoBackup { why });
        }
        let warnings = vec![format!("no backup was made: {why}")];
        Ok(Secured { event: None, warnings, why_none: Some(why) })
    }

    /// Removes old backups after the operation was committed.
    pub(crate) fn prune(&self, ward: &Ward) -> Vec<Record> {
        self.vault.as_ref().map(|vault| vault.prune(ward)).unwrap_or_default()
    }
}

/// What a backup is made for.
#[derive(Debug, Clone)]
pub(crate) struct Cause {
    pub(crate) kind: BackupKind,
    pub(crate) by: String,
    pub(crate) note: Option<String>,
    pub(crate) generation: Option<u64>,
}

impl Cause {
    /// For whoever asked, of a tree that stands under this generation.
    pub(crate) fn new(kind: BackupKind, by: &str, generation: impl Into<Option<u64>>) -> Self {
        Self { kind, by: by.to_owned(), note: None, generation: generation.into() }
    }

    /// With a note for people.
    pub(crate) fn noted(self, note: impl Into<Option<String>>) -> Self {
        Self { note: note.into(), ..self }
    }
}

/// A backup that was made and read back.
pub(crate) struct BackedUp {
    pub(crate) made: Made,
    /// Files whose content is not in it, the first few, with why.
    pub(crate) missing: Vec<(RelPath, String)>,
}

/// Missing contents named one by one; the rest are counted.
const NAMED: usize = 20;

impl Vault {
    /// Stores what a baseline holds that is on the disk and not yet committed.
    pub(crate) fn store_baseline(
        &self,
        ward: &Ward,
        root: &Root,
        baseline: &Baseline,
        device: DeviceMap,
        cause: Cause,
        work: &Work,
    ) -> Result<BackedUp, OperationError> {
        work.enter(Phase::BackingUp, baseline.len());
        let writer = self.backups.begin(draft(root, cause))?;
        let mut taking = Taking::new(root, device, writer, work);
        for record in baseline.iter() {
            work.check_cancelled()?;
            taking.take(&record?)?;
            work.step();
        }
        self.finish(ward, taking, work)
    }

    /// Stores the tree as it stands. What is as `expectation` says is not read.
    pub(crate) fn store_tree(
        &self,
        ward: &Ward,
        root: &Root,
        policy: &Policy,
        expectation: Option<&Expectation>,
        cause: Cause,
        work: &Work,
    ) -> Result<BackedUp, OperationError> {
        work.enter(Phase::BackingUp, 0);
        let device = expectation.map_or_else(|| DeviceMap::same(root), |e| e.device);
        let writer = self.backups.begin(draft(root, cause))?;
        let taker =
            Taker { expectation, taking: Mutex::new((Taking::new(root, device, writer, work), None)) };
        let content = if expectation.is_some() { ScanContent::WhereDiffers } else { ScanContent::All };
        let options = ScanOptions {
            content,
            workers: workers(),
            pace: None,
            cancel: &work.cancel,
            progress: &work.progress,
        };
        let scanned = guard_tree::scan(root, policy, &RelPath::root(), &options, &taker);
        let (taking, error) = taker.taking.into_inner().unwrap_or_else(PoisonError::into_inner);
        // What went wrong with the backup stopped the scan, too.
        if let Some(error) = error {
            return Err(error);
        }
        scanned?;
        work.check_cancelled()?;
        self.finish(ward, taking, work)
    }

    /// Signs it, and reads back what was written before anybody relies on it.
    fn finish(&self, ward: &Ward, taking: Taking<'_>, work: &Work) -> Result<BackedUp, OperationError> {
        let Taking { writer, missing, .. } = taking;
        let made = writer.finish(&ward.house.key)?;
        let pulse = Pulse { cancel: &work.cancel, bytes: &work.progress.bytes };
        let id = &made.manifest.id;
        let failed = match self.backups.verify(id, Scope::Unproven, pulse) {
            Ok(found) if found.problems.is_empty() => return Ok(BackedUp { made, missing }),
            Ok(found) => {
                let problem = found.problems.into_iter().next().unwrap_or_default();
                OperationError::NotReadBack { backup: id.clone(), problem }
            }
            Err(BackupError::Cancelled) => OperationError::Cancelled,
            Err(e) => e.into(),
        };
        self.take_back(id);
        Err(failed)
    }

    /// A backup that failed after it was whole goes again. Where that cannot be done the next start tells the ledger
    /// of it.
    pub(crate) fn take_back(&self, id: &BackupId) {
        if let Err(error) = self.backups.take_back(id) {
            tracing::warn!(backup = %id, error = %error.with_causes(), "a backup that failed is still there");
        }
    }

    /// Removes what need not be kept any more, after the ledger was told. A failure is logged: the next
    /// backup tries again.
    pub(crate) fn prune(&self, ward: &Ward) -> Vec<Record> {
        let mut records = Vec::new();
        let tell = |going: &Pruned| {
            records = ward.append(vec![pruned_event(going, "guardd")])?;
            Ok::<(), OperationError>(())
        };
        match self.backups.prune(self.keep, Asked::ByItself, tell) {
            Ok(pruned) => {
                if let Some(why) = pruned.held_back {
                    tracing::warn!(%why, "no old backup is removed");
                }
            }
            Err(error) => {
                tracing::warn!(error = %crate::failure::chain(&error), "old backups could not be removed");
            }
        }
        records
    }
}

/// What the ledger is told of backups that are about to go.
pub(crate) fn pruned_event(going: &Pruned, by: &str) -> Event {
    Event::BackupPruned {
        backups: going.removed.clone(),
        packs: going.packs,
        bytes: going.bytes,
        by: by.to_owned(),
    }
}

impl BackedUp {
    /// What the ledger is told.
    pub(crate) fn event(&self) -> Event {
        let m = &self.made.manifest;
        Event::BackupCreated {
            backup: m.id.clone(),
            manifest: self.made.digest,
            kind: m.kind,
            by: m.by.clone(),
            note: m.note.clone(),
            generation: m.generation,
            totals: m.totals,
            missing: m.missing,
            written: self.made.written,
        }
    }

    /// What whoever asked for it should know.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let Some((path, why)) = self.missing.first() else { return Vec::new() };
        let more = match self.made.manifest.missing {
            0 | 1 => String::new(),
            n => format!(" and {} more", n - 1),
        };
        vec![format!("not in the backup: {path} ({why}){more}")]
    }
}

fn draft(root: &Root, cause: Cause) -> BackupDraft {
    BackupDraft {
        kind: cause.kind,
        at: now(),
        by: cause.by,
        note: cause.note,
        root: escape(root.path().as_os_str().as_bytes()),
        generation: cause.generation,
    }
}

/// Puts records and their content into a backup.
struct Taking<'a> {
    root: &'a Root,
    device: DeviceMap,
    writer: BackupWriter<'a>,
    missing: Vec<(RelPath, String)>,
    work: &'a Work,
}

impl<'a> Taking<'a> {
    fn new(root: &'a Root, device: DeviceMap, writer: BackupWriter<'a>, work: &'a Work) -> Self {
        Self { root, device, writer, missing: Vec::new(), work }
    }

    fn take(&mut self, record: &BaselineRecord) -> Result<(), OperationError> {
        self.take_with(record, None)
    }

    /// `unread` says why the content of a regular file is not known.
    fn take_with(&mut self, record: &BaselineRecord, unread: Option<String>) -> Result<(), OperationError> {
        let missing = match (record.entry.kind, record.entry.sha256) {
            (Kind::File, Some(digest)) if !self.writer.holds(&digest) => self.store(record)?,
            (Kind::File, None) => Some(unread.unwrap_or_else(|| "it could not be read".to_owned())),
            _ => None,
        };
        if let Some(why) = &missing
            && self.missing.len() < NAMED
        {
            self.missing.push((record.path.clone(), why.clone()));
        }
        Ok(self.writer.push(record, missing)?)
    }

    /// Stores the content of a file; why not, where that is the file's affair.
    fn store(&mut self, record: &BaselineRecord) -> Result<Option<String>, OperationError> {
        let Some(digest) = record.entry.sha256 else { return Ok(None) };
        let identity = (self.device.on_disk(record.entry.dev), record.entry.ino);
        let file = match self.root.open_file(&record.path, identity) {
            Ok(file) => file,
            Err(e) => return Ok(Some(crate::failure::chain(&e))),
        };
        let mut counted = Counted { file, cancel: &self.work.cancel, progress: &self.work.progress };
        match self.writer.store(&digest, record.entry.size, &mut counted) {
            Ok(Stored::Yes) => Ok(None),
            Ok(Stored::Changed) => Ok(Some("it changed since it was hashed".to_owned())),
            Err(BackupError::Source(_)) if self.work.cancel.load(Ordering::Relaxed) => {
                Err(OperationError::Cancelled)
            }
            Err(BackupError::Source(e)) => Ok(Some(format!("it could not be read: {e}"))),
            Err(e) => Err(e.into()),
        }
    }
}

/// A file whose bytes count as progress, and that can be given up.
struct Counted<'a> {
    file: std::fs::File,
    cancel: &'a AtomicBool,
    progress: &'a Progress,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let n = self.file.read(buffer)?;
        self.progress.bytes.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

/// A [`Visitor`] that puts what a scan finds into a backup.
struct Taker<'a> {
    expectation: Option<&'a Expectation>,
    taking: Mutex<(Taking<'a>, Option<OperationError>)>,
}

impl Taker<'_> {
    /// The record of what stands at a path now.
    fn record(&self, known: Option<BaselineRecord>, path: RelPath, role: Role, now: Entry) -> BaselineRecord {
        let fresh =
            |now| BaselineRecord { path: path.clone(), role, sealed: Seal::None, skip: None, entry: now };
        let (Some(known), Some(expectation)) = (known, self.expectation) else { return fresh(now) };
        let Observed::Present(mut now) = expectation.device.as_recorded(Observed::Present(now)) else {
            return fresh(known.entry);
        };
        if now.kind != known.entry.kind {
            return fresh(now);
        }
        // Not read because nothing says that it changed.
        now.sha256 = now.sha256.or(known.entry.sha256);
        if expectation.expect == Expect::Sealed {
            give_back(&known, &mut now);
        }
        BaselineRecord { entry: now, ..known }
    }
}

/// Where the seal is as it was set, what it changed is given back: a backup holds what unlock would leave.
fn give_back(known: &BaselineRecord, now: &mut Entry) {
    let under_seal = sealed(&known.entry, known.sealed);
    if now.mode == under_seal.mode {
        now.mode = known.entry.mode;
    }
    if now.flags == under_seal.flags {
        now.flags = known.entry.flags;
    }
    if now.xattrs == under_seal.xattrs {
        now.xattrs.clone_from(&known.entry.xattrs);
    }
}

impl Visitor for Taker<'_> {
    type Dir = HashMap<RelPath, BaselineRecord>;

    fn enter(&self, dir: &RelPath) -> Self::Dir {
        let Some(expectation) = self.expectation else { return HashMap::new() };
        let read = expectation.children(dir).and_then(|mut records| {
            if dir.is_root() {
                records.extend(expectation.get(dir)?);
            }
            Ok(records)
        });
        match read {
            Ok(records) => records.into_iter().map(|r| (r.path.clone(), r)).collect(),
            // Without the record a file is read and its seal taken for its own mode, which is no loss.
            Err(error) => {
                tracing::warn!(%dir, error = %error.with_causes(), "the baseline cannot be read for a backup");
                HashMap::new()
            }
        }
    }

    fn expected<'v>(&'v self, dir: &'v Self::Dir, path: &RelPath) -> Option<Cow<'v, Entry>> {
        Some(Cow::Owned(self.expectation?.on_disk(dir.get(path)?)))
    }

    fn found(&self, dir: &mut Self::Dir, path: RelPath, _class: Class, role: Role, observed: Observed) {
        let known = dir.remove(&path);
        let (entry, unread) = match observed {
            Observed::Present(entry) => (entry, None),
            Observed::Unreadable { entry: Some(entry), why } => (entry, Some(why)),
            // Nothing is known of it but its name.
            Observed::Unreadable { entry: None, .. } | Observed::Absent => return,
        };
        let mut record = self.record(known, path, role, entry);
        if unread.is_some() {
            record.entry.sha256 = None;
        }
        let mut taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let (taking, error) = &mut *taking;
        if error.is_none() {
            *error = taking.take_with(&record, unread).err();
            if error.is_some() {
                taking.work.cancel.store(true, Ordering::Relaxed);
            }
        }
    }

    fn leave(&self, _dir: Self::Dir, _path: &RelPath) {}
}
