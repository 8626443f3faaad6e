//! What differs from what is wanted, among the paths that are asked for.

use std::collections::{BTreeMap, HashSet};

use guard_model::baseline::{BaselineRecord, Expect};
use guard_model::{Kind, Observed, RelPath};
use guard_tree::{Content, ScanContent, ScanOptions};

use super::{RestoreTask, Scope, Wanted};
use crate::comparer::{Comparer, Difference};
use crate::operations::{OperationError, lock};

/// A path that differs: what is wanted there, if anything, and what stands there.
pub(super) struct Differing {
    pub(super) difference: Difference,
    pub(super) record: Option<BaselineRecord>,
}

/// Everything that differs, in the order of paths. Directories above a path that are gone are part of it.
pub(super) fn differences(task: &RestoreTask) -> Result<BTreeMap<RelPath, Differing>, OperationError> {
    let mut found = BTreeMap::new();
    known(task)?;
    match &task.scope {
        Scope::Exactly(paths) => {
            for path in paths {
                one(task, path, &mut found)?;
            }
        }
        Scope::Below(paths) => {
            for path in paths {
                match &task.wanted {
                    Wanted::Baseline | Wanted::Exactly { .. } => below(task, path, &mut found)?,
                    Wanted::Backup { records, .. } => {
                        for record in records.values().filter(|r| r.path.is_within(path)) {
                            one(task, &record.path, &mut found)?;
                        }
                    }
                }
            }
        }
    }
    other_names(task, &mut found)?;
    let asked: Vec<RelPath> = found.keys().cloned().collect();
    for path in asked {
        for above in path.ancestors_from_root() {
            let is_dir = |o: &Observed| matches!(o, Observed::Present(e) if e.kind == Kind::Directory);
            if !found.contains_key(&above) && !is_dir(&task.root.observe(&above, Content::Skip)) {
                one(task, &above, &mut found)?;
            }
        }
    }
    Ok(found)
}

/// What somebody asks for by a name that means nothing here is mistyped: "nothing was put back" would be taken for
/// "nothing differs".
fn known(task: &RestoreTask) -> Result<(), OperationError> {
    let Scope::Below(paths) = &task.scope else { return Ok(()) };
    let mut nothing = Vec::new();
    for path in paths {
        let is_known = match &task.wanted {
            Wanted::Baseline | Wanted::Exactly { .. } => {
                task.expectation.knows(&task.root, &task.policy, path)?
            }
            Wanted::Backup { records, .. } => path.is_root() || records.keys().any(|p| p.is_within(path)),
        };
        if !is_known {
            nothing.push(path.clone());
        }
    }
    if nothing.is_empty() { Ok(()) } else { Err(OperationError::NothingKnown(nothing)) }
}

/// Names of one file are put right together: what is done to one of them the others show, too.
fn other_names(task: &RestoreTask, found: &mut BTreeMap<RelPath, Differing>) -> Result<(), OperationError> {
    if let Wanted::Backup { .. } = task.wanted {
        return Ok(());
    }
    let identity = |record: &BaselineRecord| (record.entry.dev, record.entry.ino);
    let files: HashSet<(u64, u64)> = found
        .values()
        .filter_map(|differing| differing.record.as_ref())
        .filter(|record| record.entry.kind == Kind::File && record.entry.nlink > 1)
        .map(identity)
        .collect();
    if files.is_empty() {
        return Ok(());
    }
    for record in task.expectation.iter() {
        let record = record?;
        if files.contains(&identity(&record)) && !found.contains_key(&record.path) {
            one(task, &record.path, found)?;
        }
    }
    Ok(())
}

/// What is wanted at a path.
pub(super) fn record(task: &RestoreTask, path: &RelPath) -> Result<Option<BaselineRecord>, OperationError> {
    Ok(match &task.wanted {
        Wanted::Baseline | Wanted::Exactly { .. } => task.expectation.get(path)?,
        Wanted::Backup { records, .. } => records.get(path).cloned(),
    })
}

fn one(
    task: &RestoreTask,
    path: &RelPath,
    found: &mut BTreeMap<RelPath, Differing>,
) -> Result<(), OperationError> {
    task.work.check_cancelled()?;
    let record = record(task, path)?;
    let difference = match &record {
        Some(record) => {
            // What differs may show on the device alone.
            let (cancel, progress) = (&task.work.cancel, &task.work.progress);
            let observed = task.root.observe_with(path, Content::ReadFromDevice, cancel, progress);
            task.expectation.of_record(record, observed)
        }
        None => {
            let observed = task.root.observe(path, Content::Skip);
            let is_dir = matches!(&observed, Observed::Present(e) if e.kind == Kind::Directory);
            task.expectation.of_unknown(path.clone(), task.policy.classify(path, is_dir), observed)
        }
    };
    task.work.step();
    if let Some(difference) = difference {
        found.insert(path.clone(), Differing { difference, record });
    }
    Ok(())
}

/// The path, and everything recorded or standing below it.
fn below(
    task: &RestoreTask,
    path: &RelPath,
    found: &mut BTreeMap<RelPath, Differing>,
) -> Result<(), OperationError> {
    one(task, path, found)?;
    let is_dir = |o: &Observed| matches!(o, Observed::Present(e) if e.kind == Kind::Directory);
    if is_dir(&task.root.observe(path, Content::Skip)) {
        let options = ScanOptions {
            content: ScanContent::All,
            workers: lock::workers(),
            pace: None,
            cancel: &task.work.cancel,
            progress: &task.work.progress,
        };
        let comparer = Comparer::new(&task.root, task.expectation.clone(), path.clone());
        guard_tree::scan(&task.root, &task.policy, path, &options, &comparer)?;
        let collected = comparer.into_collected();
        if let Some(e) = collected.error {
            return Err(e.into());
        }
        for difference in collected.differences {
            let record = task.expectation.get(&difference.path)?;
            found.insert(difference.path.clone(), Differing { difference, record });
        }
    } else if let Some(record) = task.expectation.get(path)?
        && record.entry.kind == Kind::Directory
    {
        for record in task.expectation.all_below(path)? {
            one(task, &record.path, found)?;
        }
    }
    Ok(())
}

/// What is wanted on the disk for a record.
pub(super) fn wanted_entry(record: &BaselineRecord, expect: Expect) -> guard_model::Entry {
    record.expected(expect)
}
