//! A scan of a tree against its baseline.
//!
//! What a scan finds is a suspicion: the tree goes on changing while it runs.
//! The warden observes every suspect once more before it becomes a finding;
//! `check`, which is a question and not an alarm, shows the scan's own word.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use guard_model::baseline::{BaselineRecord, Expect, Manifest, Role};
use guard_model::put_back::Overlay;
use guard_model::{Change, Class, Entry, Kind, Observed, Policy, RelPath};
use guard_store::{Baseline, StoreError};
use guard_tree::{Content, Root, Visitor};

/// A path that differs, with everything a finding needs.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    pub(crate) path: RelPath,
    pub(crate) change: Vec<Change>,
    pub(crate) before: Option<Entry>,
    pub(crate) observed: Observed,
    pub(crate) sensitive: bool,
}

/// What is expected of one environment's tree.
#[derive(Clone)]
pub(crate) struct Expectation {
    pub(crate) records: Records,
    /// What was put back since, and stands in other inodes.
    pub(crate) overlay: Arc<Overlay>,
    pub(crate) expect: Expect,
    /// The root's device number at lock and now: a reboot may renumber devices,
    /// which is no change of the tree.
    pub(crate) device: DeviceMap,
    pub(crate) mounts: MountsAtLock,
}

/// Where something was mounted when the baseline was taken.
#[derive(Debug, Clone, Default)]
pub(crate) struct MountsAtLock(Option<Arc<BTreeSet<RelPath>>>);

impl MountsAtLock {
    /// What a manifest says of it.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self(manifest.mounts.as_ref().map(|paths| Arc::new(paths.iter().cloned().collect())))
    }

    /// Is this another answer than at lock to the question whether `path` is where something is mounted?
    fn differs(&self, path: &RelPath, is_mount_point: bool) -> bool {
        self.0.as_ref().is_some_and(|mounts| mounts.contains(path) != is_mount_point)
    }

    /// Where something was mounted or unmounted since, going by where something is mounted now.
    pub(crate) fn changed_to(&self, now: &[RelPath]) -> Vec<RelPath> {
        let Some(before) = &self.0 else { return Vec::new() };
        let now: BTreeSet<RelPath> = now.iter().cloned().collect();
        before.symmetric_difference(&now).cloned().collect()
    }
}

/// What says what should be there.
#[derive(Clone)]
pub(crate) enum Records {
    /// A baseline, read as it is needed.
    Baseline(Arc<Baseline>),
    /// Everything that a backup holds.
    Backup(Arc<BackupRecords>),
}

/// The records of a backup, by the directory that holds each.
#[derive(Debug, Default)]
pub(crate) struct BackupRecords {
    root: Option<BaselineRecord>,
    by_directory: HashMap<RelPath, Vec<BaselineRecord>>,
}

impl BackupRecords {
    pub(crate) fn of(records: impl IntoIterator<Item = BaselineRecord>) -> Self {
        let mut all = Self::default();
        for record in records {
            match record.path.parent() {
                Some(directory) => all.by_directory.entry(directory).or_default().push(record),
                None => all.root = Some(record),
            }
        }
        all
    }

    /// The device that the root lay on, as the records have it.
    pub(crate) fn device(&self) -> Option<u64> {
        self.root.as_ref().map(|root| root.entry.dev)
    }

    fn get(&self, path: &RelPath) -> Option<BaselineRecord> {
        match path.parent() {
            Some(directory) => self.by_directory.get(&directory)?.iter().find(|r| r.path == *path).cloned(),
            None => self.root.clone(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = BaselineRecord> + '_ {
        self.root.iter().chain(self.by_directory.values().flatten()).cloned()
    }
}

impl Records {
    fn get(&self, path: &RelPath) -> Result<Option<BaselineRecord>, StoreError> {
        match self {
            Self::Baseline(baseline) => baseline.get(path),
            Self::Backup(records) => Ok(records.get(path)),
        }
    }

    fn children(&self, dir: &RelPath) -> Result<Vec<BaselineRecord>, StoreError> {
        match self {
            Self::Baseline(baseline) => baseline.children(dir),
            Self::Backup(records) => Ok(records.by_directory.get(dir).cloned().unwrap_or_default()),
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = Result<BaselineRecord, StoreError>> + '_> {
        match self {
            Self::Baseline(baseline) => Box::new(baseline.iter()),
            Self::Backup(records) => Box::new(records.iter().map(Ok)),
        }
    }
}

/// Device numbers are compared as "the root's device" or "another one".
#[derive(Debug, Clone, Copy)]
pub(crate) struct DeviceMap {
    pub(crate) at_lock: u64,
    pub(crate) now: u64,
}

impl DeviceMap {
    /// For what was recorded just now.
    pub(crate) fn same(root: &Root) -> Self {
        Self { at_lock: root.identity().0, now: root.identity().0 }
    }

    pub(crate) fn as_recorded(self, mut observed: Observed) -> Observed {
        let entry = match &mut observed {
            Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. } => e,
            _ => return observed,
        };
        if entry.dev == self.now {
            entry.dev = self.at_lock;
        }
        observed
    }

    /// A recorded device number as this boot has it.
    pub(crate) fn on_disk(self, dev: u64) -> u64 {
        if dev == self.at_lock { self.now } else { dev }
    }

    fn as_on_disk(self, mut entry: Entry) -> Entry {
        entry.dev = self.on_disk(entry.dev);
        entry
    }
}

impl Expectation {
    /// What should stand at a path.
    pub(crate) fn get(&self, path: &RelPath) -> Result<Option<BaselineRecord>, StoreError> {
        Ok(self.records.get(path)?.map(|record| self.overlay.over(record)))
    }

    /// What should stand in a directory.
    pub(crate) fn children(&self, dir: &RelPath) -> Result<Vec<BaselineRecord>, StoreError> {
        let records = self.records.children(dir)?;
        Ok(records.into_iter().map(|record| self.overlay.over(record)).collect())
    }

    /// Everything that should be there, in the baseline's order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Result<BaselineRecord, StoreError>> + '_ {
        self.records.iter().map(|record| record.map(|record| self.overlay.over(record)))
    }

    /// What should be read from disk for `record`, to decide by metadata whether to hash.
    pub(crate) fn on_disk(&self, record: &BaselineRecord) -> Entry {
        self.device.as_on_disk(record.expected(self.expect))
    }

    /// The difference at a path that the baseline knows.
    pub(crate) fn of_record(&self, record: &BaselineRecord, observed: Observed) -> Option<Difference> {
        let observed = self.device.as_recorded(observed);
        let change = record.differences(&observed, self.expect);
        (!change.is_empty()).then(|| Difference {
            path: record.path.clone(),
            change,
            before: Some(record.expected(self.expect)),
            observed,
            sensitive: record.role == Role::Sensitive,
        })
    }

    /// The same, with what is mounted there: a bind mount may show nothing but another inode, or not even that.
    pub(crate) fn of_record_on(
        &self,
        root: &Root,
        record: &BaselineRecord,
        observed: Observed,
    ) -> Option<Difference> {
        // The root's own mount is looked at where the root's whereabouts are.
        let is_asked = !record.path.is_root() && !matches!(observed, Observed::Absent);
        let remounted = is_asked && self.mounts.differs(&record.path, root.is_mount_point(&record.path));
        let mut found = self.of_record(record, observed.clone());
        if !remounted {
            return found;
        }
        let difference = found.get_or_insert_with(|| Difference {
            path: record.path.clone(),
            change: Vec::new(),
            before: Some(record.expected(self.expect)),
            observed: self.device.as_recorded(observed),
            sensitive: record.role == Role::Sensitive,
        });
        if !difference.change.contains(&Change::Mount) {
            difference.change.push(Change::Mount);
        }
        found
    }

    /// The difference at a path that the baseline does not know.
    pub(crate) fn of_unknown(&self, path: RelPath, class: Class, observed: Observed) -> Option<Difference> {
        if matches!(observed, Observed::Absent) || !class.is_protected() {
            return None;
        }
        let observed = self.device.as_recorded(observed);
        Some(Difference {
            path,
            change: vec![Change::Created],
            before: None,
            observed,
            sensitive: class.is_sensitive(),
        })
    }

    /// Is there anything to say of `path`: is it in the baseline, or does something protected stand there? Of what
    /// is neither, nothing was compared, and that is not to be taken for "nothing differs".
    pub(crate) fn knows(&self, root: &Root, policy: &Policy, path: &RelPath) -> Result<bool, StoreError> {
        if path.is_root() || self.get(path)?.is_some() {
            return Ok(true);
        }
        let observed = root.observe(path, Content::Skip);
        let is_dir = matches!(&observed, Observed::Present(e) if e.kind == Kind::Directory);
        Ok(self.of_unknown(path.clone(), policy.classify(path, is_dir), observed).is_some())
    }

    /// Adds to what a scan found where something is mounted that was not, and no longer mounted that was.
    pub(crate) fn add_mounts(&self, root: &Root, now: &[RelPath], found: &mut Collected) {
        for path in self.mounts.changed_to(now) {
            let record = match self.get(&path) {
                Ok(Some(record)) => record,
                // Something new, which is found as such.
                Ok(None) => continue,
                Err(e) => {
                    found.error = Some(e);
                    continue;
                }
            };
            let on_disk = self.on_disk(&record);
            let observed = root.observe(&path, Content::IfDiffers(&on_disk));
            let Some(difference) = self.of_record_on(root, &record, observed) else { continue };
            match found.differences.binary_search_by(|known| known.path.cmp(&path)) {
                Ok(at) => {
                    if let Some(known) = found.differences.get_mut(at) {
                        *known = difference;
                    }
                }
                Err(at) => found.differences.insert(at, difference),
            }
        }
    }

    /// Everything recorded below `dir`, which is gone.
    pub(crate) fn all_below(&self, dir: &RelPath) -> Result<Vec<BaselineRecord>, StoreError> {
        let mut found = Vec::new();
        let mut open = vec![dir.clone()];
        while let Some(dir) = open.pop() {
            for record in self.children(&dir)? {
                if record.entry.kind == Kind::Directory {
                    open.push(record.path.clone());
                }
                found.push(record);
            }
        }
        Ok(found)
    }
}

/// A [`Visitor`] that collects differences.
pub(crate) struct Comparer<'a> {
    root: &'a Root,
    expectation: Expectation,
    /// Where the scan starts: reported within itself, not within its parent.
    from: RelPath,
    found: Mutex<Collected>,
}

/// What a comparison brought.
#[derive(Default)]
pub(crate) struct Collected {
    pub(crate) differences: Vec<Difference>,
    /// The baseline itself could not be read: nothing may be called clean.
    pub(crate) error: Option<guard_store::StoreError>,
}

impl<'a> Comparer<'a> {
    /// Compares what a scan from `from` finds.
    pub(crate) fn new(root: &'a Root, expectation: Expectation, from: RelPath) -> Self {
        Self { root, expectation, from, found: Mutex::default() }
    }

    pub(crate) fn into_collected(self) -> Collected {
        let mut all = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.differences.sort_by(|a, b| a.path.cmp(&b.path));
        all.differences.dedup_by(|a, b| a.path == b.path);
        all
    }

    fn collected(&self) -> std::sync::MutexGuard<'_, Collected> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A record that the scan did not meet, and everything below it.
    fn gone(&self, record: &BaselineRecord) {
        let mut lost = vec![record.clone()];
        if record.entry.kind == Kind::Directory {
            match self.expectation.all_below(&record.path) {
                Ok(below) => lost.extend(below),
                Err(e) => self.collected().error = Some(e),
            }
        }
        // A name that was renamed while its directory was listed may have been
        // missed, and a passage to nothing is not reported: each is looked at by itself.
        let differences: Vec<Difference> = lost
            .iter()
            .filter_map(|r| {
                let on_disk = self.expectation.on_disk(r);
                self.expectation.of_record(r, self.root.observe(&r.path, Content::IfDiffers(&on_disk)))
            })
            .collect();
        self.collected().differences.extend(differences);
    }
}

/// The records of one directory, in the order of their names, in which a scan mostly meets them.
pub(crate) struct Awaited {
    records: Vec<Awaiting>,
    /// Where the next one probably is.
    next: usize,
}

/// A record that is waited for.
struct Awaiting {
    record: BaselineRecord,
    /// As it should be read from disk.
    on_disk: Entry,
    is_met: bool,
}

impl Awaited {
    fn position(&self, path: &RelPath) -> Option<usize> {
        if self.records.get(self.next).is_some_and(|a| a.record.path == *path) {
            return Some(self.next);
        }
        self.records.binary_search_by(|a| a.record.path.cmp(path)).ok()
    }

    fn meet(&mut self, path: &RelPath) -> Option<&Awaiting> {
        let at = self.position(path)?;
        self.next = at + 1;
        let awaiting = self.records.get_mut(at)?;
        awaiting.is_met = true;
        Some(awaiting)
    }
}

/// Is everything as it should be, in the plainest of all cases? False says nothing.
fn is_as_expected(on_disk: &Entry, observed: &Observed) -> bool {
    let Observed::Present(now) = observed else { return false };
    let content = now.sha256 == on_disk.sha256 || (now.sha256.is_none() && on_disk.sha256.is_some());
    content
        && now.ctime == on_disk.ctime
        && (now.kind, now.mode, now.uid, now.gid, now.size, now.mtime)
            == (on_disk.kind, on_disk.mode, on_disk.uid, on_disk.gid, on_disk.size, on_disk.mtime)
        && (now.dev, now.ino, now.nlink, now.rdev, now.flags)
            == (on_disk.dev, on_disk.ino, on_disk.nlink, on_disk.rdev, on_disk.flags)
        && now.target == on_disk.target
        && now.xattrs == on_disk.xattrs
}

impl Visitor for Comparer<'_> {
    type Dir = Awaited;

    fn enter(&self, dir: &RelPath) -> Awaited {
        let read = self.expectation.children(dir).and_then(|mut records| {
            // A baseline gives them in this order; a backup need not.
            records.sort_by(|a, b| a.path.cmp(&b.path));
            if *dir == self.from {
                // A directory's path stands before those of its children.
                records.splice(..0, self.expectation.get(dir)?);
            }
            Ok(records)
        });
        let records = read.unwrap_or_else(|e| {
            self.collected().error = Some(e);
            Vec::new()
        });
        let awaiting = |record: BaselineRecord| {
            let on_disk = self.expectation.on_disk(&record);
            Awaiting { record, on_disk, is_met: false }
        };
        Awaited { records: records.into_iter().map(awaiting).collect(), next: 0 }
    }

    fn expected<'v>(&'v self, dir: &'v Awaited, path: &RelPath) -> Option<Cow<'v, Entry>> {
        dir.records.get(dir.position(path)?).map(|a| Cow::Borrowed(&a.on_disk))
    }

    fn found(&self, dir: &mut Awaited, path: RelPath, class: Class, _role: Role, observed: Observed) {
        let difference = match dir.meet(&path) {
            Some(a) if is_as_expected(&a.on_disk, &observed) => None,
            Some(Awaiting { record, .. }) => {
                let now_dir = matches!(&observed, Observed::Present(e) if e.kind == Kind::Directory);
                if record.entry.kind == Kind::Directory && !now_dir {
                    match self.expectation.all_below(&record.path) {
                        Ok(below) => below.iter().for_each(|r| self.gone(r)),
                        Err(e) => self.collected().error = Some(e),
                    }
                }
                self.expectation.of_record(record, observed)
            }
            None => self.expectation.of_unknown(path, class, observed),
        };
        if let Some(d) = difference {
            self.collected().differences.push(d);
        }
    }

    fn leave(&self, dir: Awaited, _path: &RelPath) {
        dir.records.iter().filter(|a| !a.is_met).for_each(|a| self.gone(&a.record));
    }
}
