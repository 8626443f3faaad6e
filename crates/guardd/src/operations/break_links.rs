//! What `lock --break-links` does before it seals: files that have names outside the
//! root get an inode of their own, since sealing theirs would change what lies outside.
//!
//! The plan names each file and the name beside it where its copy is made, so that recovery
//! finds what an interruption left. There is nothing to undo: at any moment a
//! file's name leads to its old inode or to a whole copy of it.

use std::sync::atomic::Ordering;

use guard_store::{Plan, PlanKind, PlanStep};
use guard_sys::writers::Writers;
use guard_tree::{Leftover, LinkedName, Root};

use super::lock::LockTask;
use super::open_writers::{OnOpenWriters, OpenFiles};
use super::survey::Survey;
use super::{OperationError, Phase};
use crate::failure::chain;

/// Files that a warning names; the rest are counted.
const NAMED: usize = 5;

impl LockTask {
    /// Breaks the links that `survey` found; what to say of it. Empty: there were none, and
    /// the survey still holds.
    pub(super) fn break_links(&self, survey: &Survey) -> Result<Vec<String>, OperationError> {
        let linked = survey.linked_outside();
        if linked.is_empty() {
            return Ok(Vec::new());
        }
        if self.refuses_writers() {
            // Before anything is changed: a writer would go on in the old inode, out of sight.
            let open = linked.iter().filter_map(|(identity, paths)| {
                let path = paths.first()?;
                (self.root.writers(path, *identity) == Some(Writers::Some)).then(|| (path.clone(), *identity))
            });
            if let Some(open) = OpenFiles::of(open.collect()) {
                return Err(OperationError::OpenForWriting(open));
            }
        }
        let mut files = Vec::new();
        let mut steps = Vec::new();
        for (identity, paths) in linked {
            let Some(marks) = paths.first().and_then(|p| survey.originals.get(p)).map(|o| o.marks) else {
                continue;
            };
            let mut names = Vec::new();
            for path in paths {
                let name = LinkedName::new(path)?;
                steps.extend(
                    [&name.path, &name.temporary]
                        .map(|path| PlanStep::new(path.clone(), identity, marks, marks)),
                );
                names.push(name);
            }
            files.push((identity, names));
        }
        let header = self.plan_header(PlanKind::BreakLinks);
        self.work.enter(Phase::Copying, files.len() as u64);
        Plan::write(&self.ward.house.state_dir, &header, steps)?;
        let mut broken = 0;
        let mut failed = Vec::new();
        for (identity, names) in &files {
            if self.work.cancel.load(Ordering::Relaxed) {
                break;
            }
            let left = self.root.give_own_inode(*identity, names, &self.work.cancel, &self.work.progress);
            if left.len() < names.len() {
                broken += 1;
            }
            failed.extend(left);
            self.work.step();
        }
        Plan::clear(&self.ward.house.state_dir, &self.ward.name)?;
        tracing::info!(environment = self.ward.name, broken, failed = failed.len(), "links broken");
        self.work.check_cancelled()?;

        let mut said = Vec::new();
        if broken > 0 {
            said.push(format!(
                "{broken} files with links to outside the root were given inodes of their own"
            ));
        }
        said.extend(
            failed
                .iter()
                .take(NAMED)
                .map(|(path, e)| format!("{path} keeps its link to outside the root: {}", chain(e))),
        );
        if failed.len() > NAMED {
            said.push(format!("{} more keep their links to outside the root", failed.len() - NAMED));
        }
        Ok(said)
    }

    pub(super) fn refuses_writers(&self) -> bool {
        // Where nothing is sealed, writing is what is watched for and not what is prevented.
        self.seal != guard_model::Seal::None && self.options.on_writers == OnOpenWriters::Refuse
    }
}

/// Removes what an interruption left; how, for the ledger.
pub(super) fn recover(root: &Root, steps: &[PlanStep]) -> Result<String, OperationError> {
    let (mut removed, mut left) = (0, Vec::new());
    for pair in steps.chunks_exact(2) {
        let [file, copy] = pair else { continue };
        let name = LinkedName { path: file.path.clone(), temporary: copy.path.clone() };
        match root.clear_leftover(&name, file.identity)? {
            Leftover::None => {}
            Leftover::Removed => removed += 1,
            Leftover::Left => left.push(name.temporary.to_string()),
        }
    }
    let mut how = format!("links are broken or as they were, each file whole: {removed} copies removed");
    if !left.is_empty() {
        how = format!("{how}; not guardd's any more, and left: {}", left.join(", "));
    }
    Ok(how)
}
