//! Giving a hard-linked file an inode of its own.
//!
//! A copy with every attribute is made beside the file under a name that nobody can guess, and
//! changes places with it in one step; then the old name is removed. At any moment the file's name
//! leads to the old inode or to the whole new one, and whatever comes out of the exchange that
//! was not expected is put back. Everything happens in the directory that was opened
//! beneath the root: somebody who renames or replaces names and directories meanwhile
//! can make it fail, and nothing else.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use guard_model::RelPath;
use guard_sys::open::{self, How};
use guard_sys::read::{CacheUse, read_whole};
use guard_sys::stat::{self, FileType, Stat};
use guard_sys::writers::{self, Writers};
use guard_sys::xattr::XattrReader;
use guard_sys::{flags, place, procfd};

use crate::observe::{is_absence, settled, unsettled_for};
use crate::{Progress, Root, TreeError};

/// What is read at once.
const BUFFER: usize = 128 << 10;

/// A name of a hard-linked file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkedName {
    /// Where it is.
    pub path: RelPath,
    /// Where its copy may be for a while: in the same directory, see [`LinkedName::new`].
    pub temporary: RelPath,
}

impl LinkedName {
    /// With a temporary name that nobody can guess.
    ///
    /// # Errors
    /// [`TreeError::Io`] where there are no random numbers, or for the root itself.
    pub fn new(path: RelPath) -> Result<Self, TreeError> {
        let failed =
            |source| TreeError::Io { operation: "name a copy of", path: path.as_path().into(), source };
        let name = place::temporary_name().map_err(failed)?;
        let temporary = path.parent().and_then(|dir| dir.join(name.as_bytes()).ok());
        let temporary = temporary.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
        Ok(Self { path, temporary })
    }
}

/// What became of a temporary name that an interruption may have left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leftover {
    /// There is none.
    None,
    /// It was removed: the file's own name leads to its old or to its new inode.
    Removed,
    /// It is neither the old inode nor beside it: somebody else's doing. Left alone.
    Left,
}

impl Root {
    /// Gives these `names` of the regular file `identity` (device, inode) one new inode
    /// that has no other name, with the same content, owner, mode, extended attributes,
    /// flags and times. Other names of the old one stay with it, untouched. Gives back the
    /// names for which it could not be done, with why; they lead to the old inode as before.
    ///
    /// A file that is open for writing, that changes meanwhile, or that is immutable or append-only is left.
    /// It takes a file system that can exchange two names in one step (renameat2(2)).
    #[must_use]
    pub fn give_own_inode(
        &self,
        identity: (u64, u64),
        names: &[LinkedName],
        cancel: &AtomicBool,
        progress: &Progress,
    ) -> Vec<(RelPath, TreeError)> {
        let mut failed = Vec::new();
        let mut copy: Option<OwnedFd> = None;
        for name in names {
            let place = Place { root: self, name, identity };
            let done = match &copy {
                Some(file) => place.link(file.as_fd()),
                None => place.copy(cancel, progress).map(|file| copy = Some(file)),
            };
            failed.extend(done.err().map(|e| (name.path.clone(), e)));
        }
        failed
    }

    /// Removes what an interrupted [`Root::give_own_inode`] left at the temporary name.
    ///
    /// # Errors
    /// [`TreeError::Io`].
    pub fn clear_leftover(&self, name: &LinkedName, identity: (u64, u64)) -> Result<Leftover, TreeError> {
        let place = Place { root: self, name, identity };
        let dir = match self.open_beneath(&place.parent(), How::List) {
            Ok(dir) => dir,
            Err(e) if is_absence(&e) => return Ok(Leftover::None),
            Err(e) => return Err(place.io("open the directory of")(e)),
        };
        let at = |name: &RelPath| match stat::child(dir.as_fd(), name.name()) {
            Ok(stat) => Ok(Some(stat)),
            Err(e) if is_absence(&e) => Ok(None),
            Err(e) => Err(place.io("stat")(e)),
        };
        let Some(left) = at(&name.temporary)? else { return Ok(Leftover::None) };
        let is_old = left.identity() == identity;
        let is_copy = at(&name.path)?.is_some_and(|s| s.identity() == identity) && !is_old;
        if left.kind != FileType::RegularFile || !(is_old || is_copy) {
            return Ok(Leftover::Left);
        }
        place::remove(dir.as_fd(), name.temporary.name()).map_err(place.io("remove the copy of"))?;
        place::to_disk(&dir).map_err(place.io("write the directory of"))?;
        Ok(Leftover::Removed)
    }

    /// Has anybody the regular file `identity` at `path` open for writing? `None` where that
    /// cannot be told, or another or no file is there.
    #[must_use]
    pub fn writers(&self, path: &RelPath, identity: (u64, u64)) -> Option<Writers> {
        let handle = self.open_beneath(path, How::Locate).ok()?;
        let stat = stat::of(handle.as_fd()).ok()?;
        if stat.identity() != identity || stat.kind != FileType::RegularFile {
            return None;
        }
        let file = procfd::reopen(handle.as_fd(), How::Read).ok()?;
        writers::test(file.as_fd()).ok()
    }
}

/// One name that is to lead to another inode than `identity`.
struct Place<'a> {
    root: &'a Root,
    name: &'a LinkedName,
    identity: (u64, u64),
}

impl Place<'_> {
    fn parent(&self) -> RelPath {
        self.name.path.parent().unwrap_or_else(RelPath::root)
    }

    fn io(&self, operation: &'static str) -> impl FnOnce(io::Error) -> TreeError + use<'_> {
        move |source| TreeError::Io { operation, path: self.root.absolute(&self.name.path), source }
    }

    fn altered(&self, what: &'static str) -> TreeError {
        TreeError::NotCopied { path: self.root.absolute(&self.name.path), why: what }
    }

    /// Puts a copy in the place of the file, and gives it back opened.
    fn copy(&self, cancel: &AtomicBool, progress: &Progress) -> Result<OwnedFd, TreeError> {
        let dir = self.directory()?;
        let handle = open::child(dir.as_fd(), self.name.path.name(), How::Locate).map_err(self.io("open"))?;
        let stat = stat::of(handle.as_fd()).map_err(self.io("stat"))?;
        if stat.identity() != self.identity || stat.kind != FileType::RegularFile {
            return Err(self.altered("it is another file than before"));
        }
        if stat.flags & (flags::IMMUTABLE | flags::APPEND) != 0 {
            return Err(self.altered("it is immutable or append-only"));
        }
        let source = procfd::reopen(handle.as_fd(), How::Read).map_err(self.io("open"))?;
        let stat = settled(source.as_fd()).map_err(self.io("stat"))?;
        if unsettled_for(stat.ctime).is_some() {
            return Err(self.altered("it keeps changing"));
        }
        self.no_writers(source.as_fd())?;
        let copy = place::create(dir.as_fd(), self.name.temporary.name()).map_err(self.io("copy"))?;
        let done = self
            .fill(source.as_fd(), &stat, copy.as_fd(), cancel, progress)
            .and_then(|()| self.exchange(dir.as_fd(), copy.as_fd()));
        match done {
            Ok(()) => Ok(copy),
            Err(e) => Err(self.discarded(dir.as_fd(), copy.as_fd(), e)),
        }
    }

    /// Puts one more name of `copy` in the place of this one.
    fn link(&self, copy: BorrowedFd<'_>) -> Result<(), TreeError> {
        let dir = self.directory()?;
        place::link(copy, dir.as_fd(), self.name.temporary.name()).map_err(self.io("link the copy of"))?;
        self.exchange(dir.as_fd(), copy).map_err(|e| self.discarded(dir.as_fd(), copy, e))
    }

    fn directory(&self) -> Result<OwnedFd, TreeError> {
        self.root.open_beneath(&self.parent(), How::List).map_err(self.io("open the directory of"))
    }

    /// Where leases are not to be had, what was written is still seen by the times.
    fn no_writers(&self, source: BorrowedFd<'_>) -> Result<(), TreeError> {
        match writers::test(source) {
            Ok(Writers::Some) => Err(self.altered("somebody has it open for writing")),
            Ok(Writers::None) | Err(_) => Ok(()),
        }
    }

    fn fill(
        &self,
        source: BorrowedFd<'_>,
        stat: &Stat,
        copy: BorrowedFd<'_>,
        cancel: &AtomicBool,
        progress: &Progress,
    ) -> Result<(), TreeError> {
        self.content(source, stat, copy, cancel, progress)?;
        // In this order: a new owner takes capabilities, setuid and setgid away.
        place::set_owner(copy, stat.uid, stat.gid).map_err(self.io("set the owner of the copy of"))?;
        self.xattrs(source, copy)?;
        place::set_mode(copy, stat.mode).map_err(self.io("set the mode of the copy of"))?;
        let wanted = stat.flags & flags::VISIBLE;
        if stat::of(copy).map_err(self.io("stat the copy of"))?.flags & flags::VISIBLE != wanted {
            flags::set(copy, flags::VISIBLE, wanted).map_err(self.io("set the flags of the copy of"))?;
        }
        place::copy_times(source, copy).map_err(self.io("set the times of the copy of"))?;
        place::to_disk(&copy).map_err(self.io("write the copy of"))?;

        let made = stat::of(copy).map_err(self.io("stat the copy of"))?;
        let kept = |s: &Stat| (s.kind, s.mode, s.uid, s.gid, s.size, s.mtime, s.flags);
        if kept(&made) != kept(stat) {
            return Err(self.altered("its attributes cannot be given to a copy"));
        }
        let now = stat::of(source).map_err(self.io("stat"))?;
        if (now.mtime, now.ctime, now.size) != (stat.mtime, stat.ctime, stat.size) {
            return Err(self.altered("it changed while it was copied"));
        }
        self.no_writers(source)
    }

    fn content(
        &self,
        source: BorrowedFd<'_>,
        stat: &Stat,
        copy: BorrowedFd<'_>,
        cancel: &AtomicBool,
        progress: &Progress,
    ) -> Result<(), TreeError> {
        // What is not written stays a hole, as most of the zeros will have been.
        place::set_length(copy, stat.size).map_err(self.io("copy"))?;
        let mut at = 0u64;
        let read = read_whole(source, stat.size, &mut vec![0; BUFFER], CacheUse::Ordinary, |piece| {
            let written = match piece.iter().all(|&b| b == 0) {
                true => Ok(()),
                false => place::write_at(copy, piece, at),
            };
            at += piece.len() as u64;
            progress.bytes.fetch_add(piece.len() as u64, Ordering::Relaxed);
            match written {
                Err(e) => std::ops::ControlFlow::Break(self.io("copy")(e)),
                Ok(()) if cancel.load(Ordering::Relaxed) => {
                    std::ops::ControlFlow::Break(TreeError::Cancelled)
                }
                Ok(()) => std::ops::ControlFlow::Continue(()),
            }
        });
        match read.map_err(self.io("read"))? {
            std::ops::ControlFlow::Break(e) => Err(e),
            std::ops::ControlFlow::Continue(bytes) if bytes == stat.size => Ok(()),
            std::ops::ControlFlow::Continue(_) => Err(self.altered("it changed while it was copied")),
        }
    }

    /// Gives the copy exactly the source's extended attributes; a directory's default ACL gives a
    /// new file others.
    fn xattrs(&self, source: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> Result<(), TreeError> {
        let mut reader = XattrReader::default();
        let mut read =
            |file| reader.of_opened(file).map_err(|e| self.io("read the attributes of")(io::Error::other(e)));
        let (wanted, made) = (read(source)?, read(copy)?);
        let c_name = |name: &[u8]| CString::new(name).map_err(|e| self.io("name an attribute of")(e.into()));
        for (name, _) in made.iter().filter(|(n, _)| wanted.iter().all(|(w, _)| w != n)) {
            let name = c_name(name)?;
            place::remove_xattr(copy, &name).map_err(self.io("set the attributes of the copy of"))?;
        }
        // An ACL last: it may forbid the others to the owner (xattr(7)).
        let (acls, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|(n, _)| n.starts_with(b"system."));
        for pair in others.into_iter().chain(acls).filter(|pair| !made.contains(pair)) {
            let name = c_name(&pair.0)?;
            place::set_xattr(copy, &name, &pair.1).map_err(self.io("set the attributes of the copy of"))?;
        }
        if read(copy)? == wanted {
            Ok(())
        } else {
            Err(self.altered("its attributes cannot be given to a copy"))
        }
    }

    /// The copy, which is at the temporary name, and the file change places; then the old name goes.
    fn exchange(&self, dir: BorrowedFd<'_>, copy: BorrowedFd<'_>) -> Result<(), TreeError> {
        let (name, temporary) = (self.name.path.name(), self.name.temporary.name());
        let new = stat::of(copy).map_err(self.io("stat the copy of"))?.identity();
        if self.at(dir, name) != Some(self.identity) || self.at(dir, temporary) != Some(new) {
            return Err(self.altered("it was replaced while it was copied"));
        }
        self.swap(dir, new)
    }

    /// What was seen a moment ago may be another file by now.
    fn swap(&self, dir: BorrowedFd<'_>, new: (u64, u64)) -> Result<(), TreeError> {
        let (name, temporary) = (self.name.path.name(), self.name.temporary.name());
        place::exchange(dir, temporary, name).map_err(self.io("replace"))?;
        if self.at(dir, temporary) == Some(self.identity) && self.at(dir, name) == Some(new) {
            place::remove(dir, temporary).map_err(self.io("remove the old link of"))?;
            return place::to_disk(&dir.as_fd()).map_err(self.io("write the directory of"));
        }
        // Something else came between. It gets its name back, if that is still for us to give.
        if self.at(dir, name) == Some(new) {
            place::exchange(dir, temporary, name).map_err(self.io("put back what replaced"))?;
        }
        Err(self.altered("it was replaced while it was copied"))
    }

    fn at(&self, dir: BorrowedFd<'_>, name: &[u8]) -> Option<(u64, u64)> {
        stat::child(dir, name).ok().map(|s| s.identity())
    }

    /// Takes the copy away again, if it still is at its temporary name.
    fn discarded(&self, dir: BorrowedFd<'_>, copy: BorrowedFd<'_>, cause: TreeError) -> TreeError {
        let temporary = self.name.temporary.name();
        let new = stat::of(copy).ok().map(|s| s.identity());
        if new.is_some()
            && self.at(dir, temporary) == new
            && let Err(e) = place::remove(dir, temporary)
        {
            tracing::warn!(error = %e, path = %self.name.temporary, "a copy could not be removed");
        }
        cause
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// The moment between the last look and the exchange, which no race hits for certain.
    #[test]
    fn what_came_between_gets_its_name_back() {
        let top = tempfile::tempdir().unwrap();
        let root = Root::open(top.path()).unwrap();
        let at = |name: &str| top.path().join(name);
        fs::write(at("f"), "victim").unwrap();
        fs::write(at("gone"), "old").unwrap();
        let name = LinkedName::new(RelPath::from_bytes(b"f").unwrap()).unwrap();
        let dir = root.open_beneath(&RelPath::root(), How::List).unwrap();
        let copy = place::create(dir.as_fd(), name.temporary.name()).unwrap();
        let identity = |name: &[u8]| stat::child(dir.as_fd(), name).unwrap().identity();
        let (old, victim, new) = (identity(b"gone"), identity(b"f"), identity(name.temporary.name()));
        let place = Place { root: &root, name: &name, identity: old };
        let refused = place.exchange(dir.as_fd(), copy.as_fd()).unwrap_err();
        assert!(matches!(refused, TreeError::NotCopied { .. }), "{refused}");
        let cause = place.swap(dir.as_fd(), new).unwrap_err();
        assert_eq!((identity(b"f"), identity(name.temporary.name())), (victim, new));
        place.discarded(dir.as_fd(), copy.as_fd(), cause);
        assert!(!at(name.temporary.as_path().to_str().unwrap()).exists());
        assert_eq!(fs::read(at("f")).unwrap(), b"victim");

        // A link to elsewhere at the temporary name goes nowhere either, and is not removed as ours.
        std::os::unix::fs::symlink(at("gone"), at(name.temporary.as_path().to_str().unwrap())).unwrap();
        let cause = place.exchange(dir.as_fd(), copy.as_fd()).unwrap_err();
        place.discarded(dir.as_fd(), copy.as_fd(), cause);
        assert_eq!(fs::read(at("gone")).unwrap(), b"old");
        assert_eq!(identity(b"f"), victim);
    }
}
