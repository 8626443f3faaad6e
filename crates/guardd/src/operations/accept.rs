//! Accept: named findings become part of a new baseline.

use std::collections::BTreeMap;
use std::sync::Arc;

use guard_model::baseline::{BaselineRecord, Expect, Role};
use guard_model::ledger::{Event, Record};
use guard_model::seal::{Marks, sealed};
use guard_model::{Digest, Entry, Kind, Observed, Policy, RelPath, Seal, Stamp};
use guard_store::{BaselineWriter, ManifestDraft, Plan, PlanHeader, PlanKind, PlanStep};
use guard_tree::{Content, MarksSet, Root};

use super::{OperationError, Phase, Work, lock, now};
use crate::comparer::Expectation;
use crate::ward::Ward;

/// What to accept: the paths with what their findings showed.
pub(crate) struct AcceptTask {
    pub(crate) ward: Ward,
    pub(crate) root: Arc<Root>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) expectation: Expectation,
    pub(crate) baseline_digest: Digest,
    pub(crate) seal: Seal,
    pub(crate) generation: u64,
    /// `None` where the finding is a deletion.
    pub(crate) shown: BTreeMap<RelPath, Option<Entry>>,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) work: Arc<Work>,
}

/// What an acceptance brought.
pub(crate) struct AcceptDone {
    pub(crate) records: Vec<Record>,
    pub(crate) generation: u64,
}

impl AcceptTask {
    /// Accepts all, or nothing where any path differs from what was shown. It is
    /// planned and recovered like a lock of its generation.
    pub(crate) fn run(self) -> Result<AcceptDone, OperationError> {
        self.work.enter(Phase::Hashing, self.shown.len() as u64);
        let accepted = self.observe_as_shown()?;
        let steps = self.steps(&accepted);
        Plan::write(&self.ward.house.state_dir, &self.plan_header(), steps.iter().cloned())?;
        self.seal_and_commit(accepted, &steps)
            .map_err(|cause| lock::failed(cause, &self.ward, &self.root, &steps, self.generation))
    }

    /// The record that each path gets; `None` takes the path out.
    fn observe_as_shown(&self) -> Result<BTreeMap<RelPath, Option<BaselineRecord>>, OperationError> {
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
                    let fresh =
                        BaselineRecord { path: path.clone(), role, sealed: Seal::None, skip: None, entry };
                    let record = match self.expectation.baseline.get(path)? {
                        Some(old) => keep_original(&old, fresh),
                        None => fresh,
                    };
                    accepted.insert(path.clone(), Some(record));
                }
                _ => changed.push(path.clone()),
            }
        }
        if changed.is_empty() { Ok(accepted) } else { Err(OperationError::ChangedSinceShown(changed)) }
    }

    /// What is to be sealed of what is accepted in a locked environment.
    fn steps(&self, accepted: &BTreeMap<RelPath, Option<BaselineRecord>>) -> Vec<PlanStep> {
        if self.seal == Seal::None || self.expectation.expect != Expect::Sealed {
            return Vec::new();
        }
        let sealable = |r: &&BaselineRecord| {
            r.sealed == Seal::None
                && matches!(r.role, Role::Protected | Role::Sensitive)
                && r.entry.kind == Kind::File
                && r.entry.nlink == 1
        };
        accepted
            .values()
            .flatten()
            .filter(sealable)
            .map(|r| {
                let identity = (self.expectation.device.on_disk(r.entry.dev), r.entry.ino);
                let marks = Marks::of(&r.entry);
                PlanStep::new(r.path.clone(), identity, marks, marks.under(Seal::ReadOnly))
            })
            .collect()
    }

    fn seal_and_commit(
        &self,
        mut accepted: BTreeMap<RelPath, Option<BaselineRecord>>,
        steps: &[PlanStep],
    ) -> Result<AcceptDone, OperationError> {
        for step in steps {
            let set = self.root.set_marks(&step.path, step.identity, step.after())?;
            let Some(Some(record)) = accepted.get_mut(&step.path) else { continue };
            if matches!(set, MarksSet::Done | MarksSet::Already) {
                record.sealed = Seal::ReadOnly;
                if let Observed::Present(now) = self.root.observe(&step.path, Content::Skip) {
                    record.entry.ctime = now.ctime;
                }
            }
        }
        self.commit(accepted)
    }

    fn plan_header(&self) -> PlanHeader {
        PlanHeader {
            environment: self.ward.name.clone(),
            kind: PlanKind::Lock,
            generation: self.generation,
            at: now(),
            by: self.by.clone(),
            reason: self.reason.clone(),
            root: self.expectation.baseline.manifest().root.clone(),
            root_identity: self.root.identity(),
        }
    }

    fn commit(
        &self,
        accepted: BTreeMap<RelPath, Option<BaselineRecord>>,
    ) -> Result<AcceptDone, OperationError> {
        self.work.enter(Phase::Committing, 0);
        let old = self.expectation.baseline.manifest();
        let generation = self.generation;
        let paths: Vec<String> = accepted.keys().map(ToString::to_string).collect();
        let mut writer = BaselineWriter::create(&self.ward.house.state_dir, &self.ward.name, generation)?;
        for record in self.expectation.baseline.iter() {
            let record = record?;
            if !accepted.contains_key(&record.path) {
                writer.push(&record)?;
            }
        }
        for record in accepted.into_values().flatten() {
            writer.push(&record)?;
        }
        let draft = ManifestDraft {
            created_at: now(),
            by: self.by.clone(),
            reason: self.reason.clone(),
            root: old.root.clone(),
            root_identity: old.root_identity,
            ancestors: old.ancestors.clone(),
            policy: old.policy.clone(),
            seal: old.seal,
            seal_done: old.seal_done,
            previous: Some(self.baseline_digest),
        };
        let committed = writer.finish(draft, &self.ward.house.key)?;
        let records = self.ward.append(vec![Event::Accepted {
            generation,
            baseline: committed.digest,
            by: self.by.clone(),
            reason: self.reason.clone(),
            paths,
            totals: committed.manifest.totals,
        }])?;
        Ok(AcceptDone { records, generation })
    }
}

/// Where the new content still stands under the old seal, unlock gives back what
/// the old record says, not the sealed mode.
fn keep_original(old: &BaselineRecord, mut fresh: BaselineRecord) -> BaselineRecord {
    fresh.role = old.role;
    let under_seal = sealed(&old.entry, old.sealed);
    if old.sealed.is_some() && fresh.entry.kind == old.entry.kind && fresh.entry.mode == under_seal.mode {
        fresh.sealed = old.sealed;
        fresh.entry.mode = old.entry.mode;
        if fresh.entry.xattrs == under_seal.xattrs {
            fresh.entry.xattrs.clone_from(&old.entry.xattrs);
        }
    }
    fresh
}

/// Is this still what the finding showed? ctime moves without a difference.
fn same(shown: &Entry, now: &Entry) -> bool {
    let plain = |e: &Entry| Entry { ctime: Stamp::default(), ..e.clone() };
    plain(shown) == plain(now)
}
