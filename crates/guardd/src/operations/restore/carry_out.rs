//! The plan's steps, and carrying them out: from the top down, one directory at a time.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::error::Error;
use std::io::Write;

use guard_model::seal::{BINDING, Marks};
use guard_model::{Digest, Entry, Kind, Observed, RelPath, Stamp};
use guard_store::{Case, PlanStep, RestoreStep};
use guard_tree::put_back::{Action, Marks as DirectoryMarks};
use guard_tree::{Content, Desk, Placed, PutBack, PutBackError};

use super::{How, InQuarantine, RestoreDone, RestoreTask, Wanted, Wish, survey};
use crate::failure::{chain, is_out_of_space};

type Identity = (u64, u64);

/// The steps of a plan for these wishes. What is to become of the directories that hold them comes first.
pub(super) fn steps(task: &RestoreTask, wishes: &[Wish]) -> Vec<PlanStep> {
    let mut steps = Vec::new();
    for ((_, dir), _) in by_directory(wishes) {
        let Observed::Present(now) = task.root.observe(dir, Content::Skip) else { continue };
        // One that is adjusted itself is left with what it is to have.
        let adjusted = wishes.iter().find(|w| w.path == *dir && w.how == How::Adjust);
        let wanted = adjusted.and_then(|w| w.wanted.as_ref());
        let marks = wanted.map_or_else(|| Marks::of(&now), Marks::of);
        let how = RestoreStep::Within { mtime: mtime_of(task, dir).unwrap_or(now.mtime) };
        steps.push(PlanStep::restoring(dir.clone(), (now.dev, now.ino), marks, how));
    }
    steps.extend(linked_to(task, wishes));
    for wish in wishes {
        let marks = wish.wanted.as_ref().map_or(Marks { mode: 0o600, flags: 0 }, Marks::of);
        let how = match (wish.how, &wish.wanted) {
            (How::Adjust, Some(wanted)) => RestoreStep::Adjust { wanted: wanted.clone() },
            (How::Make | How::Link, Some(wanted)) => RestoreStep::Make {
                wanted: wanted.clone(),
                temporary: wish.temporary.clone(),
                found: wish.found,
            },
            _ => RestoreStep::Remove { temporary: wish.temporary.clone() },
        };
        steps.push(PlanStep::restoring(wish.path.clone(), wish.found.unwrap_or_default(), marks, how));
    }
    steps
}

/// A file that gets another name has its seal lifted for a moment, whether it differs itself or not.
fn linked_to(task: &RestoreTask, wishes: &[Wish]) -> Vec<PlanStep> {
    let is_planned = |path: &RelPath| wishes.iter().any(|w| w.path == *path);
    let leaders: BTreeSet<&RelPath> =
        wishes.iter().filter_map(|w| w.link_to.as_ref()).filter(|path| !is_planned(path)).collect();
    let step = |path: &RelPath| {
        let record = survey::record(task, path).ok().flatten()?;
        let Observed::Present(now) = task.root.observe(path, Content::Skip) else { return None };
        let wanted = survey::wanted_entry(&record, task.expectation.expect);
        let (identity, marks) = ((now.dev, now.ino), Marks::of(&wanted));
        Some(PlanStep::restoring(path.clone(), identity, marks, RestoreStep::Adjust { wanted }))
    };
    leaders.into_iter().filter_map(step).collect()
}

/// A directory is dealt with before what is in it.
fn by_directory(wishes: &[Wish]) -> BTreeMap<(usize, &RelPath), Vec<&Wish>> {
    let mut groups: BTreeMap<(usize, &RelPath), Vec<&Wish>> = BTreeMap::new();
    for wish in wishes {
        let depth = wish.parent.as_bytes().iter().filter(|b| **b == b'/').count();
        let depth = if wish.parent.is_root() { 0 } else { depth + 1 };
        groups.entry((depth, &wish.parent)).or_default().push(wish);
    }
    groups
}

/// The time that a directory is to have where a lock recorded it.
fn mtime_of(task: &RestoreTask, dir: &RelPath) -> Option<Stamp> {
    use guard_model::baseline::{Expect, Role};
    let record = task.expectation.get(dir).ok().flatten()?;
    let is_exact = matches!(task.wanted, Wanted::Exactly { .. });
    let is_kept = matches!(record.role, Role::Protected | Role::Sensitive)
        && (task.expectation.expect == Expect::Sealed || is_exact)
        && record.entry.kind == Kind::Directory;
    is_kept.then_some(record.entry.mtime)
}

/// What was made so far, by path: which inode it is.
struct Progress<'a> {
    task: &'a RestoreTask,
    made: HashMap<RelPath, Identity>,
    /// What gets its forbidding flags when nothing more is made in it or linked to it.
    unfinished: Vec<(RelPath, Identity, Entry)>,
}

pub(super) fn carry_out(task: &RestoreTask, wishes: &[Wish], case: &mut Case, done: &mut RestoreDone) {
    let mut progress = Progress { task, made: HashMap::new(), unfinished: Vec::new() };
    for ((_, dir), group) in by_directory(wishes) {
        if task.work.check_cancelled().is_err() {
            let why = "guardd is stopping".to_owned();
            done.left.extend(group.iter().map(|w| (w.path.clone(), why.clone())));
            continue;
        }
        progress.directory(dir, &group, case, done);
    }
    for (path, identity, wanted) in std::mem::take(&mut progress.unfinished).into_iter().rev() {
        match task.root.adjust(&path, identity, &wanted, wanted.nlink.max(1)) {
            Ok(placed) => remark(done, &path, placed.short),
            Err(e) => done.remarks.push((path, chain(&e))),
        }
    }
}

fn remark(done: &mut RestoreDone, path: &RelPath, short: Vec<String>) {
    done.remarks.extend(short.into_iter().map(|why| (path.clone(), format!("lacks {why}"))));
}

impl Progress<'_> {
    fn directory(&mut self, dir: &RelPath, group: &[&Wish], case: &mut Case, done: &mut RestoreDone) {
        let (adjusted, placed): (Vec<&Wish>, Vec<&Wish>) = group.iter().partition(|w| w.how == How::Adjust);
        for wish in adjusted {
            let outcome = self.adjust(wish);
            self.note(wish, outcome, done);
        }
        if placed.is_empty() {
            return;
        }
        let Some(identity) = self.identity_of(dir) else {
            let why = "the directory that holds it is not there".to_owned();
            done.left.extend(placed.iter().map(|w| (w.path.clone(), why.clone())));
            return;
        };
        let desk = match self.task.root.desk(dir, identity) {
            Ok(desk) => desk,
            Err(e) => {
                for wish in placed {
                    self.failed(wish, &e, done);
                }
                return;
            }
        };
        for wish in placed {
            let outcome = self.place(&desk, wish, case);
            self.note(wish, outcome, done);
        }
        // As it was found, with the time that was recorded.
        let marks = mtime_of(self.task, dir).map(|mtime| DirectoryMarks { mtime, ..desk.found() });
        if let Err(e) = desk.close(marks.as_ref()) {
            done.remarks.push((dir.clone(), chain(&e)));
        }
    }

    /// Which directory it is: the one just made, or the one that stands there.
    fn identity_of(&self, dir: &RelPath) -> Option<Identity> {
        self.made.get(dir).copied().or_else(|| match self.task.root.observe(dir, Content::Skip) {
            Observed::Present(e) if e.kind == Kind::Directory => Some((e.dev, e.ino)),
            _ => None,
        })
    }

    fn adjust(&mut self, wish: &Wish) -> Result<Placed, PutBackError> {
        let changed = || PutBackError::Changed { path: wish.path.clone() };
        let (Some(found), Some(wanted)) = (wish.found, &wish.wanted) else { return Err(changed()) };
        self.task.root.adjust(&wish.path, found, wanted, wish.names)
    }

    fn place(&mut self, desk: &Desk<'_>, wish: &Wish, case: &mut Case) -> Result<Placed, PutBackError> {
        let action = match (wish.how, &wish.wanted, &wish.link_to) {
            (How::Remove, ..) => Action::Remove,
            (How::Link, Some(wanted), Some(to)) => {
                let identity = self.identity_of_file(to);
                let identity = identity.ok_or_else(|| PutBackError::Changed { path: to.clone() })?;
                Action::Link { wanted: wanted.clone(), to: to.clone(), identity }
            }
            (_, Some(wanted), _) => Action::Make(wanted.clone()),
            (_, None, _) => return Err(PutBackError::Changed { path: wish.path.clone() }),
        };
        let step =
            PutBack { path: wish.path.clone(), temporary: wish.temporary.clone(), found: wish.found, action };
        let contents = &self.task.contents;
        let content = |digest: &Digest, out: &mut dyn Write| -> Result<(), Box<dyn Error + Send + Sync>> {
            contents.write(digest, out)
        };
        let mut placed = desk.put_back(&step, wish.names, &content, &mut InQuarantine(case))?;
        let (Some(now), Some(wanted)) = (&placed.now, &wish.wanted) else { return Ok(placed) };
        let identity = (now.dev, now.ino);
        self.made.insert(wish.path.clone(), identity);
        let is_shared = wanted.kind == Kind::File && wanted.nlink > 1;
        if wanted.kind == Kind::Directory || is_shared {
            if wish.how == How::Make {
                self.unfinished.push((wish.path.clone(), identity, wanted.clone()));
            }
        } else if wanted.flags & BINDING != 0 {
            // It stands there all the same.
            match self.task.root.adjust(&wish.path, identity, wanted, 1) {
                Ok(finished) => {
                    placed.short.extend(finished.short);
                    placed.now = finished.now;
                }
                Err(e) => placed.short.push(format!("inode flags: {}", chain(&e))),
            }
        }
        Ok(placed)
    }

    fn identity_of_file(&self, path: &RelPath) -> Option<Identity> {
        self.made.get(path).copied().or_else(|| match self.task.root.observe(path, Content::Skip) {
            Observed::Present(e) => Some((e.dev, e.ino)),
            _ => None,
        })
    }

    fn note(&self, wish: &Wish, outcome: Result<Placed, PutBackError>, done: &mut RestoreDone) {
        self.task.work.step();
        match outcome {
            Ok(placed) => {
                remark(done, &wish.path, placed.short);
                done.done.push((wish.path.clone(), wish.how));
            }
            Err(e) => self.failed(wish, &e, done),
        }
    }

    fn failed(&self, wish: &Wish, error: &PutBackError, done: &mut RestoreDone) {
        if error.is_race() {
            done.raced.push(wish.path.clone());
        }
        if is_out_of_space(error) {
            done.starved.push(wish.path.clone());
        }
        let is_full = |e: &std::io::Error| e.kind() == std::io::ErrorKind::StorageFull;
        if matches!(error, PutBackError::NotKept { source, .. } if is_full(source)) {
            done.quarantine_full = true;
        }
        done.left.push((wish.path.clone(), chain(error)));
    }
}
