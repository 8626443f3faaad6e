//! A restore that was cut short: each path leads to what stood there or to what was put back whole. What is left at a
//! temporary name is dealt with, seals and times are set again, and what did come back is written down.

use std::collections::BTreeMap;

use guard_model::ledger::Event;
use guard_model::put_back::Standing;
use guard_model::{Entry, Observed, RelPath};
use guard_store::{Case, PlanHeader, PlanStep, RestoreStep};
use guard_tree::put_back::{Action, Cleared, Marks};
use guard_tree::{Content, PutBack, PutBackError, Root};

use super::{InQuarantine, lacks_names, quarantined, restored};
use crate::comparer::DeviceMap;
use crate::operations::OperationError;
use crate::ward::Ward;

/// Puts right what the plan of `header` left: the events that say so, and in words how.
pub(crate) fn recover(
    ward: &Ward,
    root: &Root,
    device: DeviceMap,
    header: &PlanHeader,
    steps: &[PlanStep],
) -> Result<(Vec<Event>, String), OperationError> {
    // What was taken away by then is in it.
    let case = Case::resume(&ward.house.state_dir, &ward.name, header.at)?;
    let by = header.by.as_str();
    let mut left = Left { root, device, case, cleared: 0 };
    left.clear(steps)?;
    let (standing, as_they_were) = left.finish(steps);
    left.leave_directories(steps);
    let how = format!(
        "finished: {} paths are back, {as_they_were} are as they were, {} temporary names cleared",
        standing.len(),
        left.cleared
    );
    let mut events = restored(by, None, &standing);
    if let Some(place) = left.case.place() {
        events.extend(quarantined(by, &place, &left.case));
    }
    Ok((events, how))
}

struct Left<'a> {
    root: &'a Root,
    device: DeviceMap,
    case: Case,
    cleared: u64,
}

impl Left<'_> {
    /// What is at temporary names goes away, into quarantine where it is not guardd's own.
    fn clear(&mut self, steps: &[PlanStep]) -> Result<(), OperationError> {
        let mut by_directory: BTreeMap<RelPath, Vec<PutBack>> = BTreeMap::new();
        for step in steps {
            if let (Some(put_back), Some(dir)) = (as_put_back(step), step.path.parent()) {
                by_directory.entry(dir).or_default().push(put_back);
            }
        }
        for (dir, all) in by_directory {
            let desk = match standing_at(self.root, &dir).map(|identity| self.root.desk(&dir, identity)) {
                Some(Ok(desk)) => desk,
                // It is not there (any more): nor is what was in it.
                None | Some(Err(PutBackError::Changed { .. } | PutBackError::OtherMount { .. })) => continue,
                Some(Err(e)) => return Err(e.into()),
            };
            for one in &all {
                match desk.clear(one, &mut InQuarantine(&mut self.case))? {
                    Cleared::Nothing => continue,
                    Cleared::Unfinished | Cleared::Kept => self.cleared += 1,
                }
            }
            let marks = steps
                .iter()
                .find_map(|s| within(s).filter(|_| s.path == dir && s.identity == desk.identity()));
            desk.close(marks.as_ref())?;
        }
        Ok(())
    }

    /// Attributes that were begun to be given are given whole; what did come back, and how many paths did not.
    fn finish(&self, steps: &[PlanStep]) -> (Vec<Standing>, usize) {
        let (mut standing, mut as_they_were) = (Vec::new(), 0);
        for step in steps {
            let (wanted, identity) = match step.restore.as_deref() {
                Some(RestoreStep::Adjust { wanted }) => (wanted, Some(step.identity)),
                Some(RestoreStep::Make { wanted, found, .. }) => {
                    (wanted, self.made(&step.path, wanted, *found))
                }
                Some(RestoreStep::Remove { .. }) if standing_at(self.root, &step.path).is_some() => {
                    as_they_were += 1;
                    continue;
                }
                _ => continue,
            };
            let adjusted = identity.and_then(|identity| {
                self.root.adjust(&step.path, identity, wanted, wanted.nlink.max(1)).ok()
            });
            let observed = self.device.as_recorded(self.root.observe(&step.path, Content::Read));
            match (adjusted, observed) {
                // Its inode is the one that is expected, and it is looked at again when it has its names.
                (Some(_), Observed::Present(now))
                    if lacks_names(wanted, &now) && identity == Some(step.identity) => {}
                (Some(_), Observed::Present(now)) if is_same(wanted, &now) => {
                    standing.push(Standing::of(step.path.clone(), &now));
                }
                _ => as_they_were += 1,
            }
        }
        (standing, as_they_were)
    }

    /// Which inode stands there, if it is what was made and not what had been found.
    fn made(&self, path: &RelPath, wanted: &Entry, found: Option<(u64, u64)>) -> Option<(u64, u64)> {
        let Observed::Present(now) = self.root.observe(path, Content::Read) else { return None };
        let identity = (now.dev, now.ino);
        (is_same(wanted, &now) && Some(identity) != found).then_some(identity)
    }

    /// Directories get back what was lifted from them. One that is another by now is left alone.
    fn leave_directories(&self, steps: &[PlanStep]) {
        for step in steps.iter().rev() {
            let Some(marks) = within(step) else { continue };
            let left = self.root.desk(&step.path, step.identity).and_then(|desk| desk.close(Some(&marks)));
            if let Err(e) = left {
                tracing::warn!(path = %step.path, error = %crate::failure::chain(&e), "a directory is left as it is");
            }
        }
    }
}

/// The same kind with the same content.
fn is_same(wanted: &Entry, now: &Entry) -> bool {
    let content = |e: &Entry| (e.kind, e.sha256, e.target.clone(), e.rdev);
    content(wanted) == content(now)
}

fn standing_at(root: &Root, path: &RelPath) -> Option<(u64, u64)> {
    match root.observe(path, Content::Skip) {
        Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. } => Some((e.dev, e.ino)),
        _ => None,
    }
}

fn within(step: &PlanStep) -> Option<Marks> {
    match step.restore.as_deref() {
        Some(RestoreStep::Within { mtime }) => {
            Some(Marks { mode: step.mode_after, flags: step.flags_after, mtime: *mtime })
        }
        _ => None,
    }
}

fn as_put_back(step: &PlanStep) -> Option<PutBack> {
    let (temporary, found, action) = match step.restore.as_deref()? {
        RestoreStep::Make { wanted, temporary, found } => (temporary, *found, Action::Make(wanted.clone())),
        RestoreStep::Remove { temporary } => (temporary, Some(step.identity), Action::Remove),
        RestoreStep::Within { .. } | RestoreStep::Adjust { .. } => return None,
    };
    Some(PutBack { path: step.path.clone(), temporary: temporary.clone(), found, action })
}
