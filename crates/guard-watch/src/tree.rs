//! The directories of one environment that are watched.
//!
//! Rule of order: a directory is watched first and listed after, so that what
//! was made before is listed and what is made later is told.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use guard_model::RelPath;
use guard_model::policy::{Class, Policy};

use crate::backend::{Backend, Refusal, Start};
use crate::error::WatchError;
use crate::hint::WatchReport;
use crate::inbox::Inbox;

/// Where an event's path lies.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Below the root, or the root.
    Inside(RelPath),
    /// A directory above the root.
    Ancestor,
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

/// One environment's watches.
pub(crate) struct Tree {
    root: PathBuf,
    policy: Arc<Policy>,
    canary: PathBuf,
    inbox: Arc<Inbox>,
    start: Start,
    backend: Option<Box<dyn Backend>>,
    generation: u64,
    identity: Option<(u64, u64)>,
    watched: BTreeSet<RelPath>,
    failed: BTreeMap<RelPath, String>,
}

impl Tree {
    /// How long a reader thread may take to end before a new one is started beside it.
    const PATIENCE: Duration = Duration::from_secs(2);

    /// Nothing is watched until [`Self::raise`].
    pub(crate) fn new(
        root: PathBuf,
        policy: Arc<Policy>,
        canary: PathBuf,
        inbox: Arc<Inbox>,
        start: Start,
    ) -> Self {
        Self {
            root,
            policy,
            canary,
            inbox,
            start,
            backend: None,
            generation: 0,
            identity: None,
            watched: BTreeSet::new(),
            failed: BTreeMap::new(),
        }
    }

    /// The root's path.
    pub(crate) fn root(&self) -> &Path {
        &self.root
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
        let mut backend = (self.start)(&self.inbox, self.generation)?;
        if let Err(refusal) = backend.watch(&self.canary) {
            self.note(RelPath::root(), format!("{}: {}", self.canary.display(), words(&refusal)));
        }
        self.backend = Some(backend);
        self.watch_ancestors();
        self.identity = identity_of(&self.root);
        if self.identity.is_some() {
            self.cover(&RelPath::root());
        }
        Ok(self.report())
    }

    /// Takes everything down.
    pub(crate) fn lower(&mut self) {
        self.watched.clear();
        self.failed.clear();
        if self.backend.take().is_some() && !self.inbox.wait_for_end(self.generation, Self::PATIENCE) {
            tracing::warn!(root = %self.root.display(), "a reader of inotify does not end; going on beside it");
        }
    }

    /// What stands.
    pub(crate) fn report(&self) -> WatchReport {
        WatchReport {
            directories: self.watched.len(),
            failed: self.failed.iter().map(|(p, why)| (p.clone(), why.clone())).collect(),
        }
    }

    /// Renews the watches on every directory above the root.
    pub(crate) fn watch_ancestors(&mut self) {
        let Some(backend) = self.backend.as_mut() else { return };
        let mut refused = Vec::new();
        for above in self.root.ancestors().skip(1) {
            match backend.watch(above) {
                Ok(()) | Err(Refusal::Gone) => {}
                Err(refusal) => refused.push(format!("{}: {}", above.display(), words(&refusal))),
            }
        }
        for why in refused {
            self.note(RelPath::root(), why);
        }
    }

    fn note(&mut self, path: RelPath, why: String) {
        match self.failed.entry(path) {
            std::collections::btree_map::Entry::Vacant(v) => {
                v.insert(why);
            }
            std::collections::btree_map::Entry::Occupied(mut o) if !o.get().contains(&why) => {
                o.get_mut().push_str("; ");
                o.get_mut().push_str(&why);
            }
            std::collections::btree_map::Entry::Occupied(_) => {}
        }
    }

    /// Is the root what it was when watches were put up?
    pub(crate) fn root_now(&self) -> RootNow {
        match identity_of(&self.root) {
            None => RootNow::Gone,
            now if now == self.identity => RootNow::Same,
            Some(_) => RootNow::Other,
        }
    }

    /// Where `path` lies.
    pub(crate) fn locate(&self, path: &Path) -> Place {
        if let Ok(below) = path.strip_prefix(&self.root) {
            return RelPath::from_bytes(below.as_os_str().as_bytes()).map_or(Place::Elsewhere, Place::Inside);
        }
        if self.root.starts_with(path) { Place::Ancestor } else { Place::Elsewhere }
    }

    /// Could a change of this path matter to anybody?
    pub(crate) fn is_of_interest(&self, path: &RelPath) -> bool {
        let matters = |is_dir| match self.policy.classify(path, is_dir) {
            Class::Protected { .. } | Class::WritableTop => true,
            Class::Writable => false,
            class @ (Class::Ignored | Class::Unprotected) => is_dir && self.policy.descends(path, class),
        };
        matters(false) || matters(true)
    }

    /// Did a watch on this directory fail?
    pub(crate) fn has_failed(&self, path: &RelPath) -> bool {
        self.failed.contains_key(path)
    }

    /// Forgets this directory and everything below.
    pub(crate) fn drop_below(&mut self, path: &RelPath) {
        let gone = below(&self.watched, path);
        for dir in gone {
            self.watched.remove(&dir);
            if let Some(backend) = self.backend.as_mut() {
                backend.unwatch(&self.root.join(dir.as_path()));
            }
        }
        self.failed.retain(|failed, _| !failed.is_within(path) || failed.is_root());
    }

    /// Watches this directory and everything below that the policy descends
    /// into. False where it is no directory, or the policy does not go there.
    pub(crate) fn cover(&mut self, path: &RelPath) -> bool {
        let class = self.policy.classify(path, true);
        if !self.policy.descends(path, class) || !is_directory(&self.root.join(path.as_path())) {
            return false;
        }
        let mut left = vec![(path.clone(), class)];
        while let Some((dir, class)) = left.pop() {
            if !self.watch(&dir) {
                continue;
            }
            match subdirectories(&self.root.join(dir.as_path())) {
                Ok(names) => {
                    for name in names {
                        let Ok(child) = dir.join(&name) else { continue };
                        let class = self.policy.child(class, &child, true);
                        if self.policy.descends(&child, class) {
                            left.push((child, class));
                        }
                    }
                }
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => self.note(dir, format!("cannot list it: {e}")),
            }
        }
        true
    }

    fn watch(&mut self, dir: &RelPath) -> bool {
        let Some(backend) = self.backend.as_mut() else { return false };
        let path = if dir.is_root() { self.root.clone() } else { self.root.join(dir.as_path()) };
        match backend.watch(&path) {
            Ok(()) => {
                self.watched.insert(dir.clone());
                true
            }
            Err(Refusal::Gone) => false,
            Err(refusal) => {
                self.note(dir.clone(), words(&refusal));
                false
            }
        }
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

fn identity_of(root: &Path) -> Option<(u64, u64)> {
    root.symlink_metadata().ok().filter(std::fs::Metadata::is_dir).map(|m| (m.dev(), m.ino()))
}

fn is_directory(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|m| m.is_dir())
}

fn subdirectories(path: &Path) -> std::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in path.read_dir()? {
        let entry = entry?;
        if entry.file_type().is_ok_and(|t| t.is_dir()) {
            names.push(entry.file_name().as_bytes().to_vec());
        }
    }
    Ok(names)
}

fn words(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Gone => "it is not there".to_owned(),
        Refusal::Limit => {
            "the kernel's limit on watches is reached; raise /proc/sys/fs/inotify/max_user_watches".to_owned()
        }
        Refusal::Ended => "the inotify thread has ended".to_owned(),
        Refusal::Other(why) => why.clone(),
    }
}
