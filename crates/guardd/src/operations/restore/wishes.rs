//! What is to be done about each path that differs.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use guard_model::baseline::{BaselineRecord, Role};
use guard_model::{Change, Class, Entry, Kind, Observed, RelPath};
use guard_tree::{Content, PutBack, ScanContent, ScanOptions, Visitor};

use super::survey::{self, Differing};
use super::{Planned, RestoreTask};
use crate::failure::chain;
use crate::operations::OperationError;

/// One path that is to be put right.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) path: RelPath,
    /// The directory that holds it; the root for the root.
    pub(crate) parent: RelPath,
    /// Beside it, where things may be for a while.
    pub(crate) temporary: RelPath,
    pub(crate) how: How,
    /// What it is to be, with the baseline's device number; `None` where nothing should be.
    pub(crate) wanted: Option<Entry>,
    /// What stands there: device of this boot and inode.
    pub(crate) found: Option<(u64, u64)>,
    /// How many names that has; 0 where nothing stands there.
    pub(crate) found_names: u32,
    /// Bytes of what stands there and goes to quarantine.
    pub(crate) size: u64,
    /// In what it differs.
    pub(crate) change: Vec<Change>,
    /// How many names the found inode may have.
    pub(crate) names: u32,
    /// Another name of the same file.
    pub(crate) link_to: Option<RelPath>,
}

/// How a path is put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// It differs in attributes alone, and keeps its inode.
    Adjust,
    /// Something new takes its place.
    Make,
    /// It becomes one more name of a file that is there.
    Link,
    /// It should not be there, and goes to quarantine.
    Remove,
}

impl How {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Adjust => "adjust",
            Self::Make => "replace",
            Self::Link => "link",
            Self::Remove => "remove",
        }
    }
}

impl Wish {
    /// Bytes that it takes to quarantine.
    pub(super) fn takes_away(&self) -> u64 {
        match self.how {
            How::Adjust => 0,
            _ if self.found.is_none() => 0,
            _ => self.size.max(1),
        }
    }
}

/// Decides about everything that differs.
pub(super) fn decide(
    task: &RestoreTask,
    differing: BTreeMap<RelPath, Differing>,
) -> Result<Planned, OperationError> {
    let mut planned = Planned::default();
    // What goes away, with its place among the wishes.
    let mut tops: HashMap<RelPath, usize> = HashMap::new();
    let names = names(&differing);
    for (path, differing) in differing {
        // What is below something that goes away goes with it.
        let top = path.ancestors_from_root().find_map(|above| tops.get(&above).copied());
        if let (Some(top), None) = (top, &differing.record) {
            if let Some(wish) = planned.wishes.get_mut(top) {
                wish.size = wish.size.saturating_add(size_of(&differing.difference.observed));
            }
            continue;
        }
        match wish(task, &path, differing, &names) {
            Ok(wish) => {
                if let (How::Make | How::Remove, true) = (wish.how, wish.found.is_some()) {
                    tops.insert(path, planned.wishes.len());
                }
                planned.wishes.push(wish);
            }
            Err(why) => planned.left.push((path, why)),
        }
    }
    join_links(task, &mut planned)?;
    Ok(planned)
}

fn size_of(observed: &Observed) -> u64 {
    match observed {
        Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. } => match e.kind {
            Kind::File => e.size.saturating_add(1024),
            _ => 1024,
        },
        _ => 0,
    }
}

/// How many of the differing paths are to be names of a file, by device and inode.
type Names = HashMap<(u64, u64), u32>;

fn names(differing: &BTreeMap<RelPath, Differing>) -> Names {
    let mut names = Names::new();
    for record in differing.values().filter_map(|d| d.record.as_ref()) {
        *names.entry((record.entry.dev, record.entry.ino)).or_default() += 1;
    }
    names
}

/// What is to be done about one path, or why nothing can be.
fn wish(task: &RestoreTask, path: &RelPath, differing: Differing, names: &Names) -> Result<Wish, String> {
    let Differing { difference, record } = differing;
    let now = match difference.observed {
        Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. } => Some(e),
        Observed::Absent => None,
        Observed::Unreadable { entry: None, why } => return Err(format!("could not be looked at: {why}")),
    };
    let device = task.expectation.device;
    let found = now.as_ref().map(|e| (device.on_disk(e.dev), e.ino));
    let mut wish = Wish {
        path: path.clone(),
        parent: path.parent().unwrap_or_else(RelPath::root),
        temporary: match path.is_root() {
            true => RelPath::root(),
            false => PutBack::temporary_beside(path).map_err(|e| chain(&e))?,
        },
        how: How::Remove,
        wanted: None,
        found,
        found_names: now.as_ref().map_or(0, |e| e.nlink),
        size: now.as_ref().map_or(0, |e| if e.kind == Kind::File { e.size } else { 0 }),
        change: difference.change,
        names: 1,
        link_to: None,
    };
    if wish.change.contains(&Change::Mount) && now.is_some() {
        return Err("something is mounted there".to_owned());
    }
    let Some(record) = record else {
        return match now.map(|e| e.kind) {
            Some(Kind::Directory) if holds_writable(task, path) => {
                Err("holds what is writable by the configuration, which is left alone".to_owned())
            }
            _ => Ok(wish),
        };
    };
    let mut wanted = survey::wanted_entry(&record, task.expectation.expect);
    let same_kind = now.as_ref().filter(|e| e.kind == wanted.kind);
    if let (Role::WritableTop | Role::Passage, Some(now)) = (record.role, same_kind) {
        // Only its identity, mode and owner are any of guardd's business.
        wanted = Entry { mode: wanted.mode, uid: wanted.uid, gid: wanted.gid, ..now.clone() };
    }
    let same_inode = same_kind.filter(|now| (now.dev, now.ino) == (record.entry.dev, record.entry.ino));
    if same_inode.is_some() {
        wish.names = record.entry.nlink;
    }
    // The names that it lacks are put back for themselves, if all are names in here; one that it has too many is
    // somebody's way in.
    let known = names.get(&(record.entry.dev, record.entry.ino)).copied().unwrap_or(0);
    let lacks_names =
        same_inode.is_some_and(|now| now.nlink < record.entry.nlink && known >= record.entry.nlink);
    let stays = |change: &Change| is_attribute(*change) || lacks_names && *change == Change::Links;
    wish.how = match same_kind {
        Some(now) if now.kind == Kind::Directory => How::Adjust,
        Some(_) if path.is_root() => How::Adjust,
        Some(_) if wish.change.iter().all(stays) => How::Adjust,
        _ if path.is_root() => return Err("is the root itself".to_owned()),
        _ => How::Make,
    };
    if wish.how == How::Make {
        makeable(task, &wanted)?;
    }
    wish.wanted = Some(wanted);
    Ok(wish)
}

/// Can this be made at all?
fn makeable(task: &RestoreTask, wanted: &Entry) -> Result<(), String> {
    match (wanted.kind, &wanted.sha256) {
        (Kind::Socket, _) => Err("is a socket, which only whoever listens on it can make".to_owned()),
        (Kind::File, None) => Err("its content could not be read when it was locked".to_owned()),
        (Kind::File, Some(digest)) => match task.contents.holds(digest) {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("no backup holds its content (SHA-256 {digest})")),
            Err(e) => Err(format!("the backups cannot be read: {e}")),
        },
        _ => Ok(()),
    }
}

/// Differences that are put right without another inode.
fn is_attribute(change: Change) -> bool {
    matches!(
        change,
        Change::Mode | Change::Owner | Change::Mtime | Change::Xattr | Change::Flags | Change::Seal
    )
}

/// Names of one file are to be one file again: the first is made, the others become names of it, or all
/// become names of one that still is as it should be.
fn join_links(task: &RestoreTask, planned: &mut Planned) -> Result<(), OperationError> {
    let is_linked = |e: &Entry| e.kind == Kind::File && e.nlink > 1;
    let made = |w: &&Wish| w.how == How::Make && w.wanted.as_ref().is_some_and(is_linked);
    let groups: HashSet<(u64, u64)> = planned
        .wishes
        .iter()
        .filter(made)
        .filter_map(|w| w.wanted.as_ref())
        .map(|e| (e.dev, e.ino))
        .collect();
    if groups.is_empty() {
        return Ok(());
    }
    // What gets another inode itself is no name to link to; what only gets its attributes is.
    let differing: HashSet<RelPath> =
        planned.wishes.iter().filter(|w| w.how != How::Adjust).map(|w| w.path.clone()).collect();
    let left: HashSet<RelPath> = planned.left.iter().map(|(p, _)| p.clone()).collect();
    let mut leaders: HashMap<(u64, u64), RelPath> = HashMap::new();
    for record in task.expectation.iter() {
        let record = record?;
        let identity = (record.entry.dev, record.entry.ino);
        if !groups.contains(&identity) || differing.contains(&record.path) || left.contains(&record.path) {
            continue;
        }
        if may_be_linked_to(task, &record) {
            leaders.entry(identity).or_insert(record.path);
        }
    }
    for wish in planned.wishes.iter_mut().filter(|w| w.how == How::Make) {
        let Some(wanted) = wish.wanted.as_ref().filter(|e| is_linked(e)) else { continue };
        match leaders.get(&(wanted.dev, wanted.ino)) {
            Some(leader) => {
                wish.how = How::Link;
                wish.link_to = Some(leader.clone());
            }
            None => {
                leaders.insert((wanted.dev, wanted.ino), wish.path.clone());
            }
        }
    }
    Ok(())
}

/// Does the name still lead to the file that was recorded, with its content? Attributes do not count: they belong to
/// all its names, and are put right by a step of their own. Nor does it lack names: they are what is put back. One that
/// has more than were recorded is somebody else's, too.
fn may_be_linked_to(task: &RestoreTask, record: &BaselineRecord) -> bool {
    let on_disk = task.expectation.on_disk(record);
    let observed = task.root.observe(&record.path, Content::IfDiffers(&on_disk));
    let observed = task.expectation.device.as_recorded(observed);
    let is_too_many = matches!(&observed, Observed::Present(now) if now.nlink > record.entry.nlink.max(1));
    let change = record.differences(&observed, task.expectation.expect);
    !is_too_many && change.iter().all(|c| *c == Change::Links || is_attribute(*c))
}

/// Is there anything below an added directory that the configuration calls writable?
fn holds_writable(task: &RestoreTask, dir: &RelPath) -> bool {
    let never = AtomicBool::new(false);
    let options = ScanOptions {
        content: ScanContent::None,
        workers: 1,
        pace: None,
        cancel: &never,
        progress: &task.work.progress,
    };
    let finder = WritableFinder(AtomicBool::new(false));
    // What cannot be walked may hold some.
    let walked = guard_tree::scan(&task.root, &task.policy, dir, &options, &finder);
    walked.is_err() || finder.0.load(Ordering::Relaxed)
}

struct WritableFinder(AtomicBool);

impl Visitor for WritableFinder {
    type Dir = ();

    fn enter(&self, _dir: &RelPath) {}

    fn expected<'v>(&'v self, (): &'v (), _path: &RelPath) -> Option<Cow<'v, Entry>> {
        None
    }

    fn found(&self, (): &mut (), _path: RelPath, _class: Class, role: Role, _observed: Observed) {
        if role == Role::WritableTop {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn passed_over(&self, (): &mut (), _path: &RelPath, class: Class) {
        if class == Class::Writable {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn leave(&self, (): (), _dir: &RelPath) {}
}
