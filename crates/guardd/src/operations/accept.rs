//! Accept: named findings become part of a new baseline.

use std::collections::BTreeMap;
use std::sync::Arc;

use guard_model::baseline::{BaselineRecord, Expect, Role};
use guard_model::ledger::{Event, Record};
use guard_model::seal::{IMMUTABLE, Marks, Skip, sealed};
use guard_model::{BackupKind, Class, Digest, Entry, Kind, Observed, Policy, RelPath, Seal, Stamp};
use guard_store::{Baseline, BaselineWriter, Committed, ManifestDraft, Plan, PlanKind, PlanStep};
use guard_tree::{Content, MarksSet, Root, WhyNoFlags};

use super::backup::{Cause, Safety, Secured};
use super::{OperationError, Phase, Work, lock, now};
use crate::comparer::Expectation;
use crate::ward::Ward;

/// What to accept: the paths with what their findings showed.
pub(crate) struct AcceptTask {
    pub(crate) ward: Ward,
    pub(crate) root: Arc<Root>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) expectation: Expectation,
    /// The baseline that it goes beyond.
    pub(crate) baseline: Arc<Baseline>,
    pub(crate) baseline_digest: Digest,
    pub(crate) seal: Seal,
    pub(crate) generation: u64,
    /// `None` where the finding is a deletion.
    pub(crate) shown: BTreeMap<RelPath, Option<Entry>>,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) safety: Safety,
    pub(crate) work: Arc<Work>,
}

/// What a path gets, or `None` where it is taken out.
type Accepted = BTreeMap<RelPath, Option<Fresh>>;

/// A record in the making.
struct Fresh {
    record: BaselineRecord,
    /// The one that it replaces.
    old: Option<BaselineRecord>,
    /// What the entry has now.
    on_disk: Marks,
}

/// What an acceptance brought.
pub(crate) struct AcceptDone {
    pub(crate) records: Vec<Record>,
    pub(crate) generation: u64,
    /// What is to be said of the backup.
    pub(crate) warnings: Vec<String>,
}

impl AcceptTask {
    /// Accepts all, or nothing where any path differs from what was shown. It is
    /// planned and recovered like a lock of its generation.
    pub(crate) fn run(self) -> Result<AcceptDone, OperationError> {
        self.work.enter(Phase::Hashing, self.shown.len() as u64);
        let mut accepted = self.observe_as_shown()?;
        let steps = self.steps(&mut accepted)?;
        let header =
            self.ward.plan_header(PlanKind::Lock, self.generation, &self.root, &self.by, &self.reason);
        Plan::write(&self.ward.house.state_dir, &header, steps.iter().cloned())?;
        self.seal_and_commit(accepted, &steps).map_err(|cause| {
            lock::failed(cause, &self.ward, &self.root, steps.iter().cloned(), self.generation)
        })
    }

    /// What each path gets; `None` takes it out.
    fn observe_as_shown(&self) -> Result<Accepted, OperationError> {
        let mut changed = Vec::new();
        let mut accepted = BTreeMap::new();
        for (path, shown) in &self.shown {
            let observed = self.expectation.device.as_recorded(self.root.observe(path, Content::Read));
            self.work.step();
            match (shown, observed) {
                (None, Observed::Absent) => {
                    accepted.insert(path.clone(), None);
                }
                (Some(shown), Observed::Present(entry)) if same(shown, &entry) => {
                    let class = self.policy.classify(path, entry.kind == Kind::Directory);
                    let role = if class.is_sensitive() { Role::Sensitive } else { Role::Protected };
                    let on_disk = Marks::of(&entry);
                    let fresh =
                        BaselineRecord { path: path.clone(), role, sealed: Seal::None, skip: None, entry };
                    let old = self.expectation.get(path)?;
                    let record = match &old {
                        Some(old) => keep_original(old, fresh),
                        None => fresh,
                    };
                    accepted.insert(path.clone(), Some(Fresh { record, old, on_disk }));
                }
                _ => changed.push(path.clone()),
            }
        }
        if changed.is_empty() { Ok(accepted) } else { Err(OperationError::ChangedSinceShown(changed)) }
    }

    /// What is to be sealed of what is accepted in a locked environment.
    fn steps(&self, accepted: &mut Accepted) -> Result<Vec<PlanStep>, OperationError> {
        let mut steps = Vec::new();
        if self.seal == Seal::None || self.expectation.expect != Expect::Sealed {
            return Ok(steps);
        }
        for fresh in accepted.values_mut().flatten() {
            let record = &mut fresh.record;
            if !matches!(record.role, Role::Protected | Role::Sensitive) {
                continue;
            }
            record.skip = self.skip(record, fresh.old.as_ref())?;
            if record.skip.is_some() {
                continue;
            }
            let sealed = Marks::of(&record.entry).under(self.seal);
            record.sealed = self.seal;
            if sealed != fresh.on_disk {
                let identity = (self.expectation.device.on_disk(record.entry.dev), record.entry.ino);
                steps.push(PlanStep::new(record.path.clone(), identity, fresh.on_disk, sealed));
            }
        }
        Ok(steps)
    }

    /// Why it cannot be sealed, by the same rules as at a lock.
    fn skip(
        &self,
        record: &BaselineRecord,
        old: Option<&BaselineRecord>,
    ) -> Result<Option<Skip>, OperationError> {
        let entry = &record.entry;
        let was_sealed = old
            .is_some_and(|o| o.sealed.is_some() && (o.entry.ino, o.entry.nlink) == (entry.ino, entry.nlink));
        Ok(match entry.kind {
            Kind::Symlink => Some(Skip::Symlink),
            // Its other names may lie outside, unless the lock saw them all inside.
            Kind::File => (entry.nlink > 1 && !was_sealed).then_some(Skip::HardLinkOutside),
            Kind::Directory => {
                let dir = &record.path;
                let unsealable = |(name, kind): guard_tree::Named| {
                    dir.join(&name).is_ok_and(|path| {
                        let class = self.policy.classify(&path, kind == Kind::Directory);
                        matches!(class, Class::Ignored | Class::Writable)
                    })
                };
                let held = self.root.observe_dir(dir)?.into_iter().any(unsealable);
                held.then_some(Skip::HoldsWritable)
            }
            _ => Some(Skip::Special),
        })
    }

    fn seal_and_commit(
        &self,
        mut accepted: Accepted,
        steps: &[PlanStep],
    ) -> Result<AcceptDone, OperationError> {
        for step in steps {
            let set = self.root.set_marks(&step.path, step.identity, step.after())?;
            let Some(Some(Fresh { record, .. })) = accepted.get_mut(&step.path) else { continue };
            (record.sealed, record.skip) = match set {
                MarksSet::Done | MarksSet::Already => (self.seal, None),
                MarksSet::NoFlags(WhyNoFlags::Unsupported) => (Seal::ReadOnly, Some(Skip::NoFlag)),
                MarksSet::NoFlags(WhyNoFlags::NotPermitted) => (Seal::ReadOnly, Some(Skip::FlagNotPermitted)),
                MarksSet::NotPermitted => (Seal::None, Some(Skip::NotPermitted)),
                MarksSet::Vanished | MarksSet::Replaced => (Seal::None, None),
            };
            if let Observed::Present(now) = self.root.observe(&step.path, Content::Skip) {
                record.entry.ctime = now.ctime;
            }
        }
        self.commit(accepted)
    }

    fn commit(&self, accepted: Accepted) -> Result<AcceptDone, OperationError> {
        self.work.enter(Phase::Committing, 0);
        let old = self.baseline.manifest();
        let generation = self.generation;
        let paths: Vec<String> = accepted.keys().map(ToString::to_string).collect();
        // What is mounted at a path that is accepted is accepted with it.
        let mounts = old.mounts.as_ref().map(|before| {
            let kept = before.iter().filter(|path| !accepted.contains_key(*path)).cloned();
            kept.chain(accepted.keys().filter(|path| self.root.is_mount_point(path)).cloned()).collect()
        });
        let mut writer = BaselineWriter::create(&self.ward.house.state_dir, &self.ward.name, generation)?;
        for record in self.expectation.iter() {
            let record = record?;
            if !accepted.contains_key(&record.path) {
                writer.push(&record)?;
            }
        }
        for fresh in accepted.into_values().flatten() {
            writer.push(&fresh.record)?;
        }
        let draft = ManifestDraft {
            created_at: now(),
            by: self.by.clone(),
            reason: self.reason.clone(),
            root: old.root.clone(),
            root_identity: old.root_identity,
            ancestors: old.ancestors.clone(),
            mounts,
            policy: old.policy.clone(),
            seal: old.seal,
            seal_done: old.seal_done,
            previous: Some(self.baseline_digest),
        };
        let committed = writer.finish(draft, &self.ward.house.key)?;
        let secured = self.secure(&committed)?;
        self.root.to_disk()?;
        let accepted = Event::Accepted {
            generation,
            baseline: committed.digest,
            by: self.by.clone(),
            reason: self.reason.clone(),
            paths,
            totals: committed.manifest.totals,
        };
        let mut records = self.ward.append(secured.event.into_iter().chain([accepted]).collect())?;
        records.extend(self.safety.prune(&self.ward));
        Ok(AcceptDone { records, generation, warnings: secured.warnings })
    }

    /// The content of a generation is stored before the generation counts.
    fn secure(&self, committed: &Committed) -> Result<Secured, OperationError> {
        let baseline = self.ward.house.baseline(&self.ward.name, self.generation, &committed.digest)?;
        let cause = Cause::new(BackupKind::PreLock, &self.by, self.generation);
        let device = self.expectation.device;
        self.safety.secure(|vault| {
            vault.store_baseline(&self.ward, &self.root, &baseline, device, cause, &self.work)
        })
    }
}

/// Where the new content still stands under the old seal, unlock gives back what
/// the old record says, not what the seal made of it.
fn keep_original(old: &BaselineRecord, mut fresh: BaselineRecord) -> BaselineRecord {
    fresh.role = old.role;
    if !old.sealed.is_some() || fresh.entry.kind != old.entry.kind {
        return fresh;
    }
    let under_seal = sealed(&old.entry, old.sealed);
    if fresh.entry.mode == under_seal.mode {
        fresh.entry.mode = old.entry.mode;
        if fresh.entry.xattrs == under_seal.xattrs {
            fresh.entry.xattrs.clone_from(&old.entry.xattrs);
        }
    }
    if old.sealed == Seal::Immutable {
        // Lifted for the change or not, it is the seal's and not the file's.
        fresh.entry.flags = fresh.entry.flags & !IMMUTABLE | old.entry.flags & IMMUTABLE;
    }
    fresh
}

/// Is this still what the finding showed? ctime moves without a difference; of a directory size, times and link count
/// follow what is in it, which has findings of its own.
fn same(shown: &Entry, now: &Entry) -> bool {
    let plain = |e: &Entry| match e.kind {
        Kind::Directory => {
            Entry { ctime: Stamp::default(), mtime: Stamp::default(), size: 0, nlink: 0, ..e.clone() }
        }
        _ => Entry { ctime: Stamp::default(), ..e.clone() },
    };
    plain(shown) == plain(now)
}
