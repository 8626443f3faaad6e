//! Taking what was set aside at a temporary name into quarantine, and then away.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use guard_model::{Entry, Kind, RelPath};
use guard_sys::dir::Listing;
use guard_sys::open::{self, How};
use guard_sys::stat::{self, FileType, Stat};
use guard_sys::xattr::XattrReader;
use guard_sys::{entries, peer, place, procfd};

use super::attributes;
use super::{Desk, Keeper, PutBack, PutBackError};
use crate::observe::{entry_of, kind_of};

/// So often what appears in a directory while it is taken away is taken away, too.
const TRIES: usize = 3;

/// One name that was kept, and may be removed.
struct Kept {
    name: Vec<u8>,
    identity: (u64, u64),
}

/// A directory that was kept, with its names that are none of directories.
struct KeptDirectory {
    below: RelPath,
    names: Vec<Kept>,
}

/// A directory that was closed to others, and what it was before.
struct Closed {
    handle: OwnedFd,
    stat: Stat,
}

/// Directories whose owner and mode are given back where they could not be taken away.
const MOST_CLOSED: usize = 64;

impl Desk<'_> {
    /// What is at the temporary name of `step` is kept, durably, and removed. The entry that it was.
    pub(super) fn empty_out(&self, step: &PutBack, keeper: &mut dyn Keeper) -> Result<Entry, PutBackError> {
        let io = self.io(step);
        let name = step.temporary.name();
        let handle = open::child(self.handle.as_fd(), name, How::Locate).map_err(|e| io(("open", e)))?;
        let top = stat::of(handle.as_fd()).map_err(|e| io(("stat", e)))?;
        let mut last = None;
        for _ in 0..TRIES {
            let entry = self.described(step, handle.as_fd(), &top)?;
            if top.kind != FileType::Directory {
                self.keep(step, &step.path, &entry, handle.as_fd(), keeper)?;
                self.durable(step, keeper)?;
                if self.at(name) == Some(top.identity()) {
                    place::remove(self.handle.as_fd(), name).map_err(|e| io(("remove", e)))?;
                }
                return Ok(entry);
            }
            let mut closed = Vec::new();
            let kept = self
                .keep_tree(step, &handle, &entry, keeper, &mut closed)
                .and_then(|kept| self.durable(step, keeper).map(|()| kept))
                .inspect_err(|_| open_again(&closed))?;
            match self.remove_tree(step, &handle, kept) {
                Ok(()) => return Ok(entry),
                // Something has appeared in it.
                Err(e) => {
                    open_again(&closed);
                    last = Some(e);
                }
            }
        }
        Err(last.unwrap_or_else(|| self.changed(step)))
    }

    fn durable(&self, step: &PutBack, keeper: &mut dyn Keeper) -> Result<(), PutBackError> {
        keeper.durable().map_err(|source| PutBackError::NotKept { path: step.path.clone(), source })
    }

    fn described(&self, step: &PutBack, handle: BorrowedFd<'_>, stat: &Stat) -> Result<Entry, PutBackError> {
        let entry = entry_of(stat).ok_or_else(|| self.changed(step))?;
        if stat.mount != self.mount() {
            return Err(PutBackError::OtherMount { path: step.path.clone() });
        }
        let target = match entry.kind {
            Kind::Symlink => open::link_target(handle).ok().map(std::ffi::CString::into_bytes),
            _ => None,
        };
        // Evidence without them is better than none.
        let xattrs = XattrReader::default().of_located(handle).unwrap_or_default();
        Ok(Entry { target, xattrs, ..entry })
    }

    fn keep(
        &self,
        step: &PutBack,
        path: &RelPath,
        entry: &Entry,
        handle: BorrowedFd<'_>,
        keeper: &mut dyn Keeper,
    ) -> Result<(), PutBackError> {
        let mut file = match entry.kind {
            // What cannot be opened (a lease of its owner) is kept without its content: the tree comes first.
            Kind::File => procfd::reopen(handle, How::Read).ok().map(File::from),
            _ => None,
        };
        let content = file.as_mut().map(|f| f as &mut dyn Read);
        keeper
            .keep(path, entry, content)
            .map_err(|source| PutBackError::NotKept { path: step.path.clone(), source })
    }

    /// Keeps a directory and all below it; the directories come before what is in them. Each is opened anew from the
    /// top: a tree may be deeper than a process has descriptors.
    fn keep_tree(
        &self,
        step: &PutBack,
        top: &OwnedFd,
        entry: &Entry,
        keeper: &mut dyn Keeper,
        closed: &mut Vec<Closed>,
    ) -> Result<Vec<KeptDirectory>, PutBackError> {
        let io = self.io(step);
        let mut all = Vec::new();
        let mut open = vec![RelPath::root()];
        let mut listing = Listing::default();
        while let Some(below) = open.pop() {
            let handle = self.within(top, &below, How::Locate).map_err(|e| io(("open what is in", e)))?;
            let stat = stat::of(handle.as_fd()).map_err(|e| io(("stat what is in", e)))?;
            let described =
                if below.is_root() { entry.clone() } else { self.described(step, handle.as_fd(), &stat)? };
            keeper
                .keep(&joined(&step.path, &below), &described, None)
                .map_err(|source| PutBackError::NotKept { path: step.path.clone(), source })?;
            let opened = self.closed(&handle, stat, closed).map_err(|e| io(("close to others", e)))?;
            // Until it was closed its owner could move it out of the tree, from where it gets back what it
            // had; from now on it cannot leave its directory, nor can what is below it.
            if below.is_root() && self.at(step.temporary.name()) != Some(stat.identity()) {
                return Err(self.changed(step));
            }
            listing.read(opened.as_fd()).map_err(|e| io(("list", e)))?;
            let mut kept = KeptDirectory { below: below.clone(), names: Vec::new() };
            for (name, _) in listing.iter() {
                let Ok(child) = below.join(name) else { continue };
                let Ok(handle) = open::child(opened.as_fd(), name, How::Locate) else { continue };
                let stat = stat::of(handle.as_fd()).map_err(|e| io(("stat what is in", e)))?;
                if stat.kind == FileType::Directory {
                    open.push(child);
                    continue;
                }
                let entry = self.described(step, handle.as_fd(), &stat)?;
                self.keep(step, &joined(&step.path, &child), &entry, handle.as_fd(), keeper)?;
                kept.names.push(Kept { name: name.to_vec(), identity: stat.identity() });
            }
            all.push(kept);
        }
        Ok(all)
    }

    /// Removes what was kept, from the bottom up.
    fn remove_tree(
        &self,
        step: &PutBack,
        top: &OwnedFd,
        mut kept: Vec<KeptDirectory>,
    ) -> Result<(), PutBackError> {
        let io = self.io(step);
        // A directory's name is shorter than those of the directories below it.
        kept.sort_by_key(|k| std::cmp::Reverse(k.below.as_bytes().len()));
        for directory in &kept {
            let dir =
                self.within(top, &directory.below, How::List).map_err(|e| io(("open what is in", e)))?;
            for one in &directory.names {
                remove_kept(dir.as_fd(), one).map_err(|e| io(("remove what is in", e)))?;
            }
            match directory.below.parent() {
                Some(parent) => {
                    let parent =
                        self.within(top, &parent, How::List).map_err(|e| io(("open what is in", e)))?;
                    entries::remove_directory(parent.as_fd(), directory.below.name())
                }
                None => entries::remove_directory(self.handle.as_fd(), step.temporary.name()),
            }
            .map_err(|e| io(("remove", e)))?;
        }
        Ok(())
    }

    /// A directory of what goes away, opened, after it was closed to others.
    fn closed(&self, handle: &OwnedFd, stat: Stat, closed: &mut Vec<Closed>) -> std::io::Result<OwnedFd> {
        close_to_others(handle.as_fd(), &stat)?;
        // So many as a process may well have open; the rest stays closed where it cannot be kept.
        if closed.len() < MOST_CLOSED {
            closed.push(Closed { handle: handle.try_clone()?, stat });
        }
        procfd::reopen(handle.as_fd(), How::List)
    }

    fn within(&self, top: &OwnedFd, below: &RelPath, how: How) -> std::io::Result<OwnedFd> {
        if below.is_root() && how == How::List {
            return procfd::reopen(top.as_fd(), how);
        }
        self.root.resolver().open(top.as_fd(), below.as_path(), how)
    }
}

/// From here on nobody without root's rights adds anything, and this process may remove what is there.
fn close_to_others(handle: BorrowedFd<'_>, stat: &Stat) -> std::io::Result<()> {
    attributes::lift(handle, stat, Kind::Directory)?;
    let us = peer::own_uid();
    if stat.uid != us {
        entries::set_owner(handle, us, stat.gid)?;
    }
    procfd::set_mode(handle, 0o700)
}

/// What could not be kept stays as it was.
fn open_again(closed: &[Closed]) {
    for Closed { handle, stat } in closed {
        let handle = handle.as_fd();
        let given = entries::set_owner(handle, stat.uid, stat.gid)
            .and_then(|()| procfd::set_mode(handle, stat.mode))
            .and_then(|()| match stat.flags & attributes::FORBIDDING {
                0 => Ok(()),
                flags => attributes::set_flags(handle, Kind::Directory, attributes::FORBIDDING, flags),
            });
        if let Err(e) = given {
            tracing::warn!(error = %e, "a directory that could not be taken away stays closed to others");
        }
    }
}

/// Removes a name if it still is what was kept. An inode that has other names is left by this one alone.
fn remove_kept(dir: BorrowedFd<'_>, one: &Kept) -> std::io::Result<()> {
    let handle = open::child(dir, &one.name, How::Locate)?;
    let stat = stat::of(handle.as_fd())?;
    if stat.identity() != one.identity {
        return Ok(());
    }
    let kind = kind_of(stat.kind).unwrap_or(Kind::Fifo);
    attributes::lift(handle.as_fd(), &stat, kind)?;
    place::remove(dir, &one.name)?;
    if stat.flags & attributes::FORBIDDING != 0 && stat.nlink > 1 {
        attributes::set_flags(handle.as_fd(), kind, attributes::FORBIDDING, stat.flags)?;
    }
    Ok(())
}

fn joined(path: &RelPath, below: &RelPath) -> RelPath {
    let mut bytes = path.as_bytes().to_vec();
    if !below.is_root() {
        bytes.push(b'/');
        bytes.extend_from_slice(below.as_bytes());
    }
    RelPath::from_bytes(&bytes).unwrap_or_else(|_| path.clone())
}
