//! Putting up the watches on a directory and on everything below it.
//!
//! Rule of order: a directory is watched first and listed after, so that what
//! was made before is listed and what is made later is told.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use guard_model::RelPath;
use guard_model::policy::{Class, Policy};
use guard_sys::dir::{Listing, is_leaf};
use guard_sys::stat::{self, FileType};

use crate::backend::{Backend, Refusal};
use crate::tree::{Standing, is_gone, words};

/// From so many directories on, side by side, several threads list them.
const WORTH_THREADS: usize = 256;
const THREADS: usize = 4;

/// What watches are put up with.
pub(crate) struct Cover<'t> {
    pub(crate) root: &'t Path,
    pub(crate) standing: &'t Standing,
    pub(crate) policy: &'t Policy,
    pub(crate) backend: &'t dyn Backend,
}

/// What came of it.
#[derive(Default)]
pub(crate) struct Covered {
    pub(crate) watched: Vec<RelPath>,
    /// Directories of which only the directory itself is of interest; not watched yet.
    pub(crate) alone: Vec<RelPath>,
    pub(crate) failed: Vec<(RelPath, String)>,
}

/// A directory to watch.
type Top = (RelPath, Class);

/// What was found in some directories of one depth.
#[derive(Default)]
struct Found {
    covered: Covered,
    below: Vec<Top>,
}

impl Cover<'_> {
    /// Watches this directory and everything below that the policy descends into.
    pub(crate) fn from(&self, top: Top) -> Covered {
        let mut covered = Covered::default();
        let mut level = vec![top];
        while !level.is_empty() {
            let found = self.level(&level);
            level.clear();
            for mut part in found {
                covered.watched.append(&mut part.covered.watched);
                covered.alone.append(&mut part.covered.alone);
                covered.failed.append(&mut part.covered.failed);
                level.append(&mut part.below);
            }
        }
        covered
    }

    fn level(&self, level: &[Top]) -> Vec<Found> {
        let threads = match level.len() {
            ..WORTH_THREADS => 1,
            _ => thread::available_parallelism().map_or(1, |n| n.get().min(THREADS)),
        };
        if threads == 1 {
            return vec![self.part(level)];
        }
        thread::scope(|scope| {
            let begun: Vec<_> = level
                .chunks(level.len().div_ceil(threads))
                .map(|part| {
                    let named = thread::Builder::new().name("cover".to_owned());
                    (part, named.spawn_scoped(scope, || self.part(part)))
                })
                .collect();
            let ended = begun.into_iter().map(|(part, thread)| match thread {
                Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                // Without a thread it is done here.
                Err(_) => self.part(part),
            });
            ended.collect()
        })
    }

    fn part(&self, part: &[Top]) -> Found {
        let mut found = Found::default();
        let mut listing = Listing::default();
        part.iter().for_each(|(dir, class)| self.directory(dir, *class, &mut listing, &mut found));
        found
    }

    fn directory(&self, dir: &RelPath, class: Class, listing: &mut Listing, found: &mut Found) {
        let failed = |found: &mut Found, why| found.covered.failed.push((dir.clone(), why));
        let absolute = absolute(self.root, dir);
        let handle = match self.standing.open(self.root, dir) {
            Ok(handle) => handle,
            Err(e) if is_gone(&e) => return,
            Err(e) => {
                failed(found, format!("cannot open it: {e}"));
                // inotify may watch it all the same.
                if self.backend.watch(&absolute, None).is_ok() {
                    found.covered.watched.push(dir.clone());
                }
                return;
            }
        };
        match self.backend.watch(&absolute, Some(handle.as_fd())) {
            Ok(()) => {}
            Err(Refusal::Gone) => return,
            Err(refusal) => return failed(found, words(&refusal)),
        }
        if is_leaf(handle.as_fd()).unwrap_or(false) {
            return found.covered.watched.push(dir.clone());
        }
        match listing.read(handle.as_fd()) {
            Ok(()) => {
                self.below(dir, class, &handle, listing, found);
                found.covered.watched.push(dir.clone());
            }
            Err(e) if is_gone(&e) => self.backend.unwatch(&absolute),
            Err(e) => {
                failed(found, format!("cannot list it: {e}"));
                found.covered.watched.push(dir.clone());
            }
        }
    }

    fn below(&self, dir: &RelPath, class: Class, handle: &OwnedFd, listing: &Listing, found: &mut Found) {
        let is_directory = |name: &[u8], kind| match kind {
            FileType::Directory => true,
            FileType::Unknown => {
                stat::child(handle.as_fd(), name).is_ok_and(|s| s.kind == FileType::Directory)
            }
            _ => false,
        };
        for (name, _) in listing.iter().filter(|(name, kind)| is_directory(name, *kind)) {
            let Ok(child) = dir.join(name) else { continue };
            let class = self.policy.child(class, &child, true);
            if self.policy.descends(&child, class) {
                found.below.push((child, class));
            } else if class == Class::WritableTop {
                found.covered.alone.push(child);
            }
        }
    }
}

/// The absolute path of a path beneath the root.
pub(crate) fn absolute(root: &Path, path: &RelPath) -> PathBuf {
    if path.is_root() { root.to_owned() } else { root.join(path.as_path()) }
}
