//! The directories of one environment that are watched.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use guard_model::RelPath;
use guard_model::policy::{Class, Policy};
use guard_sys::open::{How, Resolver};
use guard_sys::stat;
use rustix::io::Errno;

use crate::backend::{Backend, Interest, Kind, Refusal, Start};
use crate::cover::{Cover, Covered, absolute};
use crate::error::WatchError;
use crate::hint::WatchReport;
use crate::inbox::Inbox;
use crate::keeper::Kept;

/// Where an event's path lies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Below the root, or the root.
    Inside(RelPath),
    /// A directory above the root.
    Above,
    /// The canaries' directory.
    Canaries,
    /// Of no interest.
    Elsewhere,
}

/// What is at the root's path now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RootNow {
    /// The directory that is watched.
    Same,
    /// Another directory.
    Other,
    /// No directory.
    Gone,
}

/// What a [`Tree`] is made of.
pub(crate) struct Ground {
    /// Absolute, without `.` and `..`.
    pub(crate) root: PathBuf,
    pub(crate) policy: Arc<Policy>,
    /// The canaries' directory.
    pub(crate) canaries: PathBuf,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) start: Start,
    /// Where the backend outlives this process, if it can.
    pub(crate) kept: Option<Kept>,
}

/// One environment's watches.
pub(crate) struct Tree {
    ground: Ground,
    backend: Option<Box<dyn Backend>>,
    generation: u64,
    root: Option<Standing>,
    watched: BTreeSet<RelPath>,
    /// Directories of which only the directory itself is of interest.
    alone: BTreeSet<RelPath>,
    failed: BTreeMap<RelPath, String>,
}

impl Tree {
    /// How long a reader thread may take to end before a new one is started beside it.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Nothing is watched until [`Self::raise`].
    pub(crate) fn new(ground: Ground) -> Self {
        Self {
            ground,
            backend: None,
            generation: 0,
            root: None,
            watched: BTreeSet::new(),
            alone: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }

    /// The root's path.
    pub(crate) fn root(&self) -> &Path {
        &self.ground.root
    }

    /// The running backend's number.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Takes everything down and puts it up anew, with a new backend. A root
    /// that is not there is no error: its ancestors are watched for it.
    pub(crate) fn raise(&mut self) -> Result<WatchReport, WatchError> {
        self.lower();
        self.generation += 1;
        let Ground { root, canaries, inbox, start, kept, .. } = &self.ground;
        let interest = Interest { root: root.clone(), canaries: canaries.clone(), kept: kept.clone() };
        self.backend = Some(start(inbox, self.generation, interest)?);
        self.watch_canaries();
        self.watch_above();
        self.root = standing_at(&self.ground.root);
        self.cover(&RelPath::root());
        if let Some(backend) = self.backend.as_mut() {
            backend.stands()?;
        }
        Ok(self.report())
    }

    /// Takes everything down.
    pub(crate) fn lower(&mut self) {
        self.watched.clear();
        self.alone.clear();
        self.failed.clear();
        self.root = None;
        if self.backend.take().is_some() && !self.ground.inbox.wait_for_end(self.generation, Self::PATIENCE) {
            let root = self.ground.root.display();
            tracing::warn!(%root, "a reader of events does not end; going on beside it");
        }
    }

    /// What stands.
    pub(crate) fn report(&self) -> WatchReport {
        let (backend, instead) = match self.backend.as_ref().map(|b| b.kind()) {
            Some(Kind::Fanotify) => ("fanotify", None),
            Some(Kind::Inotify { instead }) => ("inotify", instead),
            None => ("none", None),
        };
        WatchReport {
            backend,
            instead,
            memory: self.backend.as_ref().map(|b| b.memory()).unwrap_or_default(),
            adopted: self.backend.as_ref().is_some_and(|b| b.is_adopted()),
            directories: self.watched.len(),
            failed: self.failed.iter().map(|(p, why)| (p.clone(), why.clone())).collect(),
        }
    }

    /// Directories without a watch.
    pub(crate) fn failures(&self) -> usize {
        self.failed.len()
    }

    /// Watches the canaries' directory, anew if it was replaced.
    pub(crate) fn watch_canaries(&mut self) {
        let Some(backend) = self.backend.as_mut() else { return };
        if let Err(refusal) = backend.watch_canaries() {
            let why = format!("{}: {}", self.ground.canaries.display(), words(&refusal));
            self.note(RelPath::root(), why);
        }
    }

    /// Who must hear a canary, a bit for each reader.
    pub(crate) fn readers(&self) -> u32 {
        self.backend.as_ref().map_or(0, |backend| backend.readers())
    }

    /// Watches every directory above the root. From the top down, so that the
    /// making of a missing one is told by the one that holds it.
    fn watch_above(&mut self) {
        let mut above: Vec<PathBuf> = self.ground.root.ancestors().skip(1).map(Path::to_owned).collect();
        above.reverse();
        for directory in above {
            match self.put_up(&directory) {
                Ok(()) | Err(Refusal::Gone) => {}
                Err(refusal) => {
                    self.note(RelPath::root(), format!("{}: {}", directory.display(), words(&refusal)));
                }
            }
        }
    }

    fn put_up(&self, directory: &Path) -> Result<(), Refusal> {
        self.backend.as_ref().map_or(Err(Refusal::Ended), |backend| backend.watch(directory, None))
    }

    fn note(&mut self, path: RelPath, why: String) {
        match self.failed.entry(path) {
            Entry::Vacant(vacant) => {
                vacant.insert(why);
            }
            Entry::Occupied(mut known) => {
                if !known.get().contains(&why) {
                    known.get_mut().push_str("; ");
                    known.get_mut().push_str(&why);
                }
            }
        }
    }

    /// Is the root what it was when watches were put up?
    pub(crate) fn root_now(&self) -> RootNow {
        let before = self.root.as_ref().map(|root| root.identity);
        match standing_at(&self.ground.root) {
            None => RootNow::Gone,
            Some(now) if Some(now.identity) == before => RootNow::Same,
            Some(_) => RootNow::Other,
        }
    }

    /// Says so where there was no root to put watches up in.
    pub(crate) fn absence(&self) -> Option<String> {
        let absent = self.backend.is_some() && self.root.is_none();
        absent.then(|| format!("{} is not there, or no directory", self.ground.root.display()))
    }

    /// Where `path` lies.
    pub(crate) fn locate(&self, path: &Path) -> Place {
        // They may lie inside the root, and are no news there.
        if let Ok(name) = path.strip_prefix(&self.ground.canaries) {
            return if name.as_os_str().is_empty() { Place::Canaries } else { Place::Elsewhere };
        }
        if let Ok(below) = path.strip_prefix(&self.ground.root) {
            return RelPath::from_bytes(below.as_os_str().as_bytes()).map_or(Place::Elsewhere, Place::Inside);
        }
        if self.ground.root.starts_with(path) { Place::Above } else { Place::Elsewhere }
    }

    /// Could a change of this path matter to anybody?
    pub(crate) fn is_of_interest(&self, path: &RelPath) -> bool {
        let policy = &self.ground.policy;
        let matters = |is_dir| match policy.classify(path, is_dir) {
            Class::Protected { .. } | Class::WritableTop => true,
            Class::Writable => false,
            class @ (Class::Ignored | Class::Unprotected) => is_dir && policy.descends(path, class),
        };
        matters(false) || matters(true)
    }

    /// Did a watch on this directory fail?
    pub(crate) fn has_failed(&self, path: &RelPath) -> bool {
        self.failed.contains_key(path)
    }

    /// Forgets this directory and everything below.
    pub(crate) fn forget(&mut self, path: &RelPath) {
        let gone = [below(&self.watched, path), below(&self.alone, path)];
        for dir in gone.into_iter().flatten() {
            self.watched.remove(&dir);
            self.alone.remove(&dir);
            let absolute = self.absolute(&dir);
            if let Some(backend) = &self.backend {
                backend.unwatch(&absolute);
            }
        }
        self.failed.retain(|failed, _| !failed.is_within(path));
    }

    /// Watches this directory and everything below that the policy descends
    /// into. False where it is no directory, or the policy does not go there.
    pub(crate) fn cover(&mut self, path: &RelPath) -> bool {
        let (Some(standing), Some(backend)) = (&self.root, self.backend.as_deref()) else { return false };
        let Ground { root, policy, .. } = &self.ground;
        let class = policy.classify(path, true);
        if standing.open(root, path).is_err_and(|e| is_gone(&e)) {
            return false;
        }
        if !policy.descends(path, class) {
            if class == Class::WritableTop {
                self.watch_alone(path.clone());
            }
            return false;
        }
        let cover = Cover { root, standing, policy, backend };
        let Covered { watched, alone, failed } = cover.from((path.clone(), class));
        self.watched.extend(watched);
        failed.into_iter().for_each(|(dir, why)| self.note(dir, why));
        alone.into_iter().for_each(|dir| self.watch_alone(dir));
        true
    }

    fn watch_alone(&mut self, dir: RelPath) {
        let absolute = self.absolute(&dir);
        match self.backend.as_ref().map_or(Err(Refusal::Ended), |backend| backend.watch_itself(&absolute)) {
            Ok(()) => {
                self.alone.insert(dir);
            }
            Err(Refusal::Gone) => {}
            Err(refusal) => self.note(dir, words(&refusal)),
        }
    }

    fn absolute(&self, dir: &RelPath) -> PathBuf {
        absolute(&self.ground.root, dir)
    }
}

/// The members of `set` at or below `path`.
fn below(set: &BTreeSet<RelPath>, path: &RelPath) -> Vec<RelPath> {
    // `a-b` sorts between `a` and `a/b`, so the range runs to the last name that
    // begins with the same bytes.
    set.range(path.clone()..)
        .take_while(|p| p.as_bytes().starts_with(path.as_bytes()))
        .filter(|p| p.is_within(path))
        .cloned()
        .collect()
}

/// The directory that watches were put up in.
pub(crate) struct Standing {
    /// Device and inode.
    identity: (u64, u64),
    /// Keeps the inode number from being used again. Not held on a mount point: that
    /// nobody can remove, and a handle would keep it from being unmounted.
    handle: Option<OwnedFd>,
}

impl Standing {
    /// Opens a directory beneath the root, which is at `root`, for listing.
    pub(crate) fn open(&self, root: &Path, dir: &RelPath) -> io::Result<OwnedFd> {
        let open = |handle: &OwnedFd| Resolver::detect().open(handle.as_fd(), dir.as_path(), How::List);
        match &self.handle {
            Some(handle) => open(handle),
            None => open(&guard_sys::open::absolute(root, How::LocateDirectory)?),
        }
    }
}

/// The directory at the root's path; nothing where something else is there, a
/// symbolic link included.
fn standing_at(root: &Path) -> Option<Standing> {
    let handle = guard_sys::open::absolute(root, How::LocateDirectory).ok()?;
    let stat = stat::of(handle.as_fd()).ok()?;
    let name = root.symlink_metadata().ok()?;
    if !name.is_dir() || name.ino() != stat.ino {
        return None;
    }
    let above = root.parent().and_then(|above| stat::absolute(above).ok());
    let is_mount_point = above.is_none_or(|above| above.mount != stat.mount);
    Some(Standing { identity: stat.identity(), handle: (!is_mount_point).then_some(handle) })
}

/// Not there, or not a directory any more.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP))
}

pub(crate) fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Gone => "it is not there".to_owned(),
        Refusal::Limit => {
            "the kernel's limit on watches is reached; raise /proc/sys/fs/inotify/max_user_watches".to_owned()
        }
        Refusal::Ended => "the reader of events has ended".to_owned(),
        Refusal::Other(why) => why.clone(),
    }
}
