//! The directory in which something is put back.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use guard_model::{Entry, Kind, RelPath, Stamp};
use guard_sys::Errno;
use guard_sys::open::{self, How};
use guard_sys::stat::{self, FileType, Stat, Time};
use guard_sys::{entries, flags, place, procfd};

use super::attributes::{self, FORBIDDING, Failed};
use super::make::{HalfMade, make};
use super::{Action, ContentOf, Keeper, Placed, PutBack, PutBackError};
use crate::Root;
use crate::observe::{entry_of, is_absence, kind_of};

/// A directory in whose names changes may be made until it is closed.
#[derive(Debug)]
pub struct Desk<'r> {
    pub(super) root: &'r Root,
    path: RelPath,
    pub(super) handle: OwnedFd,
    found: Stat,
    is_closed: bool,
}

/// What a directory is to be left with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Permission bits.
    pub mode: u32,
    /// Of the inode flags, the value of immutable and append-only.
    pub flags: u32,
    /// The time of its last change of content.
    pub mtime: Stamp,
}

/// What became of what an interruption may have left at a planned name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleared {
    /// There was nothing.
    Nothing,
    /// It was an unfinished copy of guardd's own, and is gone.
    Unfinished,
    /// It was what had been taken away, and is in quarantine now.
    Kept,
}

/// What stands at the name.
pub(super) struct Way {
    pub(super) handle: OwnedFd,
    pub(super) stat: Stat,
    kind: Kind,
}

/// What is to stand at the name, and attributes that it could not be given.
struct New {
    handle: OwnedFd,
    short: Vec<String>,
    /// The forbidding flags that it had, and has to have again.
    lifted: Option<(Kind, u32)>,
}

impl Root {
    /// Opens the directory `path` to change names in it: takes the flags from it that forbid that and, where this
    /// process needs it, gives its owner the right. `identity` is which directory (device, inode) it has to be.
    ///
    /// # Errors
    /// [`PutBackError::Changed`] where it is another or none; [`PutBackError::OtherMount`]; [`PutBackError::Io`].
    pub fn desk(&self, path: &RelPath, identity: (u64, u64)) -> Result<Desk<'_>, PutBackError> {
        let io =
            |(operation, source): Failed| PutBackError::Io { operation, path: self.absolute(path), source };
        let changed = || PutBackError::Changed { path: path.clone() };
        let handle = match self.open_beneath(path, How::List) {
            Ok(handle) => handle,
            Err(e) if is_absence(&e) => return Err(changed()),
            Err(e) => return Err(io(("open", e))),
        };
        let found = stat::of(handle.as_fd()).map_err(|e| io(("stat", e)))?;
        if found.mount != self.mount() {
            return Err(PutBackError::OtherMount { path: path.clone() });
        }
        if found.identity() != identity {
            return Err(changed());
        }
        let desk = Desk { root: self, path: path.clone(), handle, found, is_closed: false };
        desk.lift().map_err(io)?;
        Ok(desk)
    }

    /// Gives the attributes of `wanted` to what stands at `path`, if it is the inode `identity`, of the same kind,
    /// and has no more names than the `names` that are the caller's. What it holds is not looked at.
    /// It is idempotent.
    ///
    /// # Errors
    /// [`PutBackError::Changed`], [`PutBackError::OtherNames`], [`PutBackError::OtherMount`], [`PutBackError::Io`].
    pub fn adjust(
        &self,
        path: &RelPath,
        identity: (u64, u64),
        wanted: &Entry,
        names: u32,
    ) -> Result<Placed, PutBackError> {
        let io =
            |(operation, source): Failed| PutBackError::Io { operation, path: self.absolute(path), source };
        let handle = match self.open_beneath(path, How::Locate) {
            Ok(handle) => handle,
            Err(e) if is_absence(&e) => return Err(PutBackError::Changed { path: path.clone() }),
            Err(e) => return Err(io(("open", e))),
        };
        let stat = stat::of(handle.as_fd()).map_err(|e| io(("stat", e)))?;
        if stat.identity() != identity || kind_of(stat.kind) != Some(wanted.kind) {
            return Err(PutBackError::Changed { path: path.clone() });
        }
        if stat.mount != self.mount() {
            return Err(PutBackError::OtherMount { path: path.clone() });
        }
        if has_other_names(&stat, names) {
            return Err(PutBackError::OtherNames { path: path.clone() });
        }
        let mut short = Vec::new();
        attributes::lift(handle.as_fd(), &stat, wanted.kind).map_err(|e| io(("lift the flags of", e)))?;
        let given = attributes::give(handle.as_fd(), wanted, &mut short);
        attributes::forbid(handle.as_fd(), wanted, &mut short);
        given.map_err(io)?;
        if matches!(wanted.kind, Kind::File | Kind::Directory) {
            let how = if wanted.kind == Kind::File { How::Read } else { How::List };
            // What cannot be opened for reading is on the disk when the kernel sees fit.
            if let Ok(opened) = procfd::reopen(handle.as_fd(), how) {
                place::to_disk(&opened).map_err(|e| io(("write", e)))?;
            }
        }
        let now = stat::of(handle.as_fd()).map_err(|e| io(("stat", e)))?;
        Ok(Placed { now: placed(&now, wanted), kept: None, short })
    }
}

/// Inodes of directories have one name only; their link count is about something else.
fn has_other_names(stat: &Stat, names: u32) -> bool {
    stat.kind != FileType::Directory && stat.nlink > names.max(1)
}

/// What stands there now, with what was given to it.
fn placed(stat: &Stat, wanted: &Entry) -> Option<Entry> {
    let now = entry_of(stat)?;
    let (target, xattrs) = (wanted.target.clone(), wanted.xattrs.clone());
    Some(Entry { target, xattrs, sha256: wanted.sha256, ..now })
}

impl Desk<'_> {
    /// Which directory it is: device and inode.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.found.identity()
    }

    /// With what it was found.
    #[must_use]
    pub fn found(&self) -> Marks {
        Marks {
            mode: self.found.mode,
            flags: self.found.flags & FORBIDDING,
            mtime: Stamp { sec: self.found.mtime.sec, nsec: self.found.mtime.nsec },
        }
    }

    fn lift(&self) -> Result<(), Failed> {
        if self.found.flags & FORBIDDING != 0 {
            flags::set(self.handle.as_fd(), FORBIDDING, 0).map_err(|e| ("lift the flags of", e))?;
        }
        if !entries::may_change_names(self.handle.as_fd()) {
            place::set_mode(self.handle.as_fd(), self.found.mode | 0o300)
                .map_err(|e| ("set the mode of", e))?;
        }
        Ok(())
    }

    /// Gives the directory back what was taken from it, or what `marks` say, and waits until it is on the disk.
    ///
    /// # Errors
    /// [`PutBackError::Io`].
    pub fn close(mut self, marks: Option<&Marks>) -> Result<(), PutBackError> {
        self.is_closed = true;
        self.leave(marks).map_err(|(operation, source)| PutBackError::Io {
            operation,
            path: self.root.absolute(&self.path),
            source,
        })
    }

    fn leave(&self, marks: Option<&Marks>) -> Result<(), Failed> {
        let dir = self.handle.as_fd();
        let before = self.found();
        let marks = marks.unwrap_or(&before);
        let now = stat::of(dir).map_err(|e| ("stat", e))?;
        if now.flags & FORBIDDING != 0 {
            flags::set(dir, FORBIDDING, 0).map_err(|e| ("lift the flags of", e))?;
        }
        if now.mode != marks.mode {
            place::set_mode(dir, marks.mode).map_err(|e| ("set the mode of", e))?;
        }
        let mtime = Time { sec: marks.mtime.sec, nsec: marks.mtime.nsec };
        if now.mtime != mtime {
            entries::set_mtime(dir, mtime).map_err(|e| ("set the time of", e))?;
        }
        place::to_disk(&self.handle).map_err(|e| ("write", e))?;
        if marks.flags & FORBIDDING != 0 {
            flags::set(dir, FORBIDDING, marks.flags).map_err(|e| ("set the flags of", e))?;
        }
        Ok(())
    }

    /// Brings one path in this directory to what it should be. `names` is how many names of what stands there are
    /// the caller's. The forbidding flags are not set on what is made: [`Root::adjust`] does, when nothing
    /// more is to be linked to it or made in it.
    ///
    /// # Errors
    /// [`PutBackError`]; then the path leads to what it led to before.
    pub fn put_back(
        &self,
        step: &PutBack,
        names: u32,
        content: ContentOf<'_>,
        keeper: &mut dyn Keeper,
    ) -> Result<Placed, PutBackError> {
        let is_here = |path: &RelPath| path.parent().as_ref() == Some(&self.path);
        if !is_here(&step.path) || !is_here(&step.temporary) {
            return Err(self.changed(step));
        }
        let way = self.way(step, names)?;
        let wanted = match &step.action {
            Action::Make(wanted) | Action::Link { wanted, .. } => wanted,
            Action::Remove => return self.remove(step, way, keeper),
        };
        let mut new = self.made(step, wanted, content)?;
        if let Err(e) = self.place(step, new.as_fd(), way.as_ref()) {
            self.discard(step, new.as_fd());
            return Err(e);
        }
        let kept = match &way {
            None => None,
            Some(way) => match self.empty_out(step, keeper) {
                Ok(kept) => Some(kept),
                Err(e) => {
                    self.undo(step, new.as_fd(), way);
                    return Err(e);
                }
            },
        };
        if let Some(way) = &way {
            way.give_back_flags();
        }
        new.give_back_flags().map_err(|e| self.io(step)(("set the flags of", e)))?;
        let now = stat::of(new.as_fd()).map_err(|e| self.io(step)(("stat", e)))?;
        if self.at(step.path.name()) != Some(now.identity()) {
            return Err(self.changed(step));
        }
        Ok(Placed { now: placed(&now, wanted), kept, short: std::mem::take(&mut new.short) })
    }

    /// What stands at the name, which has to be what was planned with.
    fn way(&self, step: &PutBack, names: u32) -> Result<Option<Way>, PutBackError> {
        let io = self.io(step);
        let handle = match open::child(self.handle.as_fd(), step.path.name(), How::Locate) {
            Ok(handle) => handle,
            Err(e) if is_absence(&e) && step.found.is_none() => return Ok(None),
            Err(e) if is_absence(&e) => return Err(self.changed(step)),
            Err(e) => return Err(io(("open", e))),
        };
        let stat = stat::of(handle.as_fd()).map_err(|e| io(("stat", e)))?;
        if Some(stat.identity()) != step.found {
            return Err(self.changed(step));
        }
        if stat.mount != self.found.mount {
            return Err(PutBackError::OtherMount { path: step.path.clone() });
        }
        let kind = kind_of(stat.kind).ok_or_else(|| self.changed(step))?;
        if stat.flags & FORBIDDING != 0 && has_other_names(&stat, names) {
            return Err(PutBackError::OtherNames { path: step.path.clone() });
        }
        Ok(Some(Way { handle, stat, kind }))
    }

    fn made(&self, step: &PutBack, wanted: &Entry, content: ContentOf<'_>) -> Result<New, PutBackError> {
        let io = self.io(step);
        let temporary = step.temporary.name();
        if let Action::Link { to, identity, .. } = &step.action {
            return self.linked(step, to, *identity);
        }
        match make(self.handle.as_fd(), temporary, wanted, &step.path, content, &io) {
            Ok((handle, short)) => Ok(New { handle, short, lifted: None }),
            Err(HalfMade { made, error }) => {
                if let Some(made) = made {
                    self.discard(step, made.as_fd());
                }
                Err(error)
            }
        }
    }

    /// One more name for a file that is there, at the temporary name.
    fn linked(&self, step: &PutBack, to: &RelPath, identity: (u64, u64)) -> Result<New, PutBackError> {
        let io = self.io(step);
        let other = self.root.open_beneath(to, How::Locate).map_err(|e| io(("find the other name of", e)))?;
        let stat = stat::of(other.as_fd()).map_err(|e| io(("stat", e)))?;
        if stat.identity() != identity || stat.mount != self.found.mount {
            return Err(PutBackError::Changed { path: to.clone() });
        }
        let kind = kind_of(stat.kind).ok_or_else(|| self.changed(step))?;
        // Neither a name nor another name is given to what is immutable: it is lifted until it stands in its place.
        attributes::lift(other.as_fd(), &stat, kind).map_err(|e| io(("lift the flags of", e)))?;
        let lifted = Some((kind, stat.flags & FORBIDDING)).filter(|(_, flags)| *flags != 0);
        let new = New { handle: other, short: Vec::new(), lifted };
        place::link(new.as_fd(), self.handle.as_fd(), step.temporary.name()).map_err(|e| io(("link", e)))?;
        Ok(new)
    }

    /// What is at the temporary name gets the name; what had it gets the temporary one.
    fn place(&self, step: &PutBack, new: BorrowedFd<'_>, way: Option<&Way>) -> Result<(), PutBackError> {
        let io = self.io(step);
        let (dir, name, temporary) = (self.handle.as_fd(), step.path.name(), step.temporary.name());
        let new = stat::of(new).map_err(|e| io(("stat", e)))?.identity();
        if self.at(temporary) != Some(new) {
            return Err(self.changed(step));
        }
        let Some(way) = way else {
            return match entries::rename_new(dir, temporary, name) {
                Err(e) if Errno::from_io_error(&e) == Some(Errno::EXIST) => Err(self.changed(step)),
                Err(e) => Err(io(("name", e))),
                Ok(()) => place::to_disk(&self.handle).map_err(|e| {
                    // Where it is not known to last it is not done: it goes again, from the temporary name.
                    if self.at(name) == Some(new)
                        && let Err(e) = entries::rename_new(dir, name, temporary)
                    {
                        tracing::warn!(error = %e, path = %step.path, "what was made could not be taken back");
                    }
                    io(("write the directory of", e))
                }),
            };
        };
        let old = way.stat.identity();
        way.lift().map_err(|e| io(("lift the flags of", e)))?;
        if self.at(name) != Some(old) {
            way.give_back_flags();
            return Err(self.changed(step));
        }
        if let Err(e) = place::exchange(dir, temporary, name) {
            way.give_back_flags();
            return Err(io(("replace", e)));
        }
        if self.at(name) != Some(new) {
            // Something was put in the place of what was made. It gets no more by it than it had.
            if self.at(temporary) == Some(old)
                && let Err(e) = place::exchange(dir, temporary, name)
            {
                tracing::warn!(error = %e, path = %step.path, "what replaced it could not be put back");
            }
            way.give_back_flags();
            return Err(self.changed(step));
        }
        place::to_disk(&self.handle).map_err(|e| {
            if self.at(name) == Some(new)
                && self.at(temporary) == Some(old)
                && let Err(e) = place::exchange(dir, temporary, name)
            {
                tracing::warn!(error = %e, path = %step.path, "what was replaced could not be put back");
            }
            way.give_back_flags();
            io(("write the directory of", e))
        })
    }

    /// Takes what should not be there away, into quarantine.
    fn remove(
        &self,
        step: &PutBack,
        way: Option<Way>,
        keeper: &mut dyn Keeper,
    ) -> Result<Placed, PutBackError> {
        let io = self.io(step);
        let (dir, name, temporary) = (self.handle.as_fd(), step.path.name(), step.temporary.name());
        let gone = |kept| Placed { now: None, kept, short: Vec::new() };
        let Some(way) = way else { return Ok(gone(None)) };
        way.lift().map_err(|e| io(("lift the flags of", e)))?;
        if let Err(e) = entries::rename_new(dir, name, temporary) {
            way.give_back_flags();
            return Err(io(("take away", e)));
        }
        let taken = if self.at(temporary) == Some(way.stat.identity()) {
            self.empty_out(step, keeper)
        } else {
            Err(self.changed(step))
        };
        match taken {
            Ok(kept) => {
                way.give_back_flags();
                Ok(gone(Some(kept)))
            }
            Err(e) => {
                if let Err(e) = entries::rename_new(dir, temporary, name) {
                    tracing::warn!(error = %e, path = %step.path, "what was taken away could not be put back");
                }
                way.give_back_flags();
                Err(e)
            }
        }
    }

    /// What stood at the name gets it back, and what was made goes.
    fn undo(&self, step: &PutBack, new: BorrowedFd<'_>, way: &Way) {
        let (dir, name, temporary) = (self.handle.as_fd(), step.path.name(), step.temporary.name());
        let made = stat::of(new).ok().map(|s| s.identity());
        if self.at(name) == made
            && self.at(temporary).is_some()
            && let Err(e) = place::exchange(dir, temporary, name)
        {
            tracing::warn!(error = %e, path = %step.path, "what was replaced could not be put back");
        }
        way.give_back_flags();
        self.discard(step, new);
    }

    /// Removes what was made, if it still is at its temporary name.
    fn discard(&self, step: &PutBack, made: BorrowedFd<'_>) {
        let name = step.temporary.name();
        let Ok(stat) = stat::of(made) else { return };
        if self.at(name) != Some(stat.identity()) {
            return;
        }
        if let Err(e) = self.take_name(name, stat.kind) {
            tracing::warn!(error = %e, path = %step.temporary, "a copy could not be removed");
        }
    }

    fn take_name(&self, name: &[u8], kind: FileType) -> io::Result<()> {
        match kind {
            FileType::Directory => entries::remove_directory(self.handle.as_fd(), name),
            _ => place::remove(self.handle.as_fd(), name),
        }
    }

    /// Deals with what an interrupted [`Desk::put_back`] of this step left at its temporary name: what had been taken
    /// away goes to quarantine, an unfinished copy is removed.
    ///
    /// # Errors
    /// [`PutBackError`]; then it is still there.
    pub fn clear(&self, step: &PutBack, keeper: &mut dyn Keeper) -> Result<Cleared, PutBackError> {
        let io = self.io(step);
        let left = match open::child(self.handle.as_fd(), step.temporary.name(), How::Locate) {
            Ok(left) => left,
            Err(e) if is_absence(&e) => return Ok(Cleared::Nothing),
            Err(e) => return Err(io(("open", e))),
        };
        let stat = stat::of(left.as_fd()).map_err(|e| io(("stat", e)))?;
        let kind = kind_of(stat.kind).ok_or_else(|| self.changed(step))?;
        let at_name = self.at(step.path.name());
        // Nothing has changed places yet: then it is what was being made.
        let is_unfinished = Some(stat.identity()) != step.found
            && step.action != Action::Remove
            && (at_name == step.found || step.found.is_none());
        let done = if is_unfinished && self.take_name(step.temporary.name(), stat.kind).is_ok() {
            Cleared::Unfinished
        } else {
            let way = Way { handle: left, stat, kind };
            way.lift().map_err(|e| io(("lift the flags of", e)))?;
            self.empty_out(step, keeper)?;
            way.give_back_flags();
            Cleared::Kept
        };
        place::to_disk(&self.handle).map_err(|e| io(("write the directory of", e)))?;
        Ok(done)
    }

    pub(super) fn at(&self, name: &[u8]) -> Option<(u64, u64)> {
        stat::child(self.handle.as_fd(), name).ok().map(|s| s.identity())
    }

    pub(super) fn mount(&self) -> u64 {
        self.found.mount
    }

    pub(super) fn changed(&self, step: &PutBack) -> PutBackError {
        PutBackError::Changed { path: step.path.clone() }
    }

    pub(super) fn io(&self, step: &PutBack) -> impl Fn(Failed) -> PutBackError + use<> {
        let path = self.root.absolute(&step.path);
        move |(operation, source)| PutBackError::Io { operation, path: path.clone(), source }
    }
}

impl Drop for Desk<'_> {
    fn drop(&mut self) {
        if self.is_closed {
            return;
        }
        if let Err((operation, source)) = self.leave(None) {
            tracing::error!(path = %self.path, operation, error = %source, "a directory is not as it was");
        }
    }
}

impl New {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }

    fn give_back_flags(&mut self) -> io::Result<()> {
        match self.lifted.take() {
            Some((kind, flags)) => attributes::set_flags(self.as_fd(), kind, FORBIDDING, flags),
            None => Ok(()),
        }
    }
}

impl Drop for New {
    fn drop(&mut self) {
        if let Err(e) = self.give_back_flags() {
            tracing::warn!(error = %e, "flags of a file that was to be linked could not be set again");
        }
    }
}

impl Way {
    fn lift(&self) -> io::Result<()> {
        attributes::lift(self.handle.as_fd(), &self.stat, self.kind)
    }

    /// What still has a name is as it was.
    fn give_back_flags(&self) {
        if self.stat.flags & FORBIDDING == 0 || stat::of(self.handle.as_fd()).is_ok_and(|s| s.nlink == 0) {
            return;
        }
        if let Err(e) = attributes::set_flags(self.handle.as_fd(), self.kind, FORBIDDING, self.stat.flags) {
            tracing::warn!(error = %e, "flags of what stood in the way could not be set again");
        }
    }
}
