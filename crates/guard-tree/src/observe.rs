//! Looking at one entry.
//!
//! An entry is looked at through one handle: located or opened once, and then
//! its attributes, extended attributes and content are read from that handle, so
//! that what is reported belongs together whatever happens to the name meanwhile.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use guard_model::compare::needs_content;
use guard_model::failure::chain;
use guard_model::{Digest, Entry, Kind, Observed, Stamp};
use guard_sys::Errno;
use guard_sys::open::{self, How};
use guard_sys::procfd::reopen;
use guard_sys::read::{CacheUse, read_whole};
use guard_sys::stat::{self, FileType, Stat, Time};
use guard_sys::writers::{self, Writers};
use guard_sys::xattr::XattrReader;
use sha2::{Digest as _, Sha256};

use crate::batch::{self, Batch, Ticket};
use crate::lanes::Lanes;
use crate::pace::Throttle;
use crate::{OpenWriters, Progress};

/// What to do with a regular file's content.
///
/// But for [`Content::Glance`], an entry whose ctime is less than 20 ms old is given
/// time to settle first: within that time the kernel may stamp two changes alike.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// What statx(2) tells; no extended attribute and no link's target. This alone does not wait.
    Glance,
    /// Attributes only; `sha256` is `None`.
    Skip,
    /// Read and hash it.
    Read,
    /// Likewise, but what its device holds, past the page cache.
    ReadFromDevice,
    /// Read it where ctime, mtime, size, inode or device differ from this entry's,
    /// or this entry has no `sha256`; else `sha256` is `None`. A regular file of which
    /// statx(2) tells nothing new has this entry's extended attributes: the kernel
    /// stamps ctime when one is set or removed (inode(7)).
    IfDiffers(&'a Entry),
}

/// The coarse clock that stamps inodes ticks every 1 to 10 ms (`CONFIG_HZ`); twice that.
const SETTLES_IN: Duration = Duration::from_millis(20);
/// What keeps changing is taken as it is after so many waits.
const SETTLE_TRIES: usize = 2;
/// An entry that is replaced or written while it is looked at is looked at again, after so long.
const AGAIN: [Duration; 3] = [Duration::from_millis(1), Duration::from_millis(5), Duration::from_millis(20)];
/// Whoever holds a lease is given this long to give it up, which takes a file server some milliseconds.
const LEASE: Duration = Duration::from_secs(1);
/// The most that is read at once.
const BUFFER: usize = 128 << 10;
/// A multiple of every page size that Linux has on the machines it is run on.
const BUFFER_STEP: usize = 64 << 10;

/// Who is told of progress, and who can stop or slow a read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Control<'a> {
    pub(crate) cancel: Option<&'a AtomicBool>,
    pub(crate) progress: Option<&'a Progress>,
    pub(crate) throttle: Option<&'a Throttle>,
    /// Nobody waits until an entry that changed just now has been left alone: whoever asks looks again.
    pub(crate) at_once: bool,
}

impl Control<'_> {
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancel.is_some_and(|c| c.load(Ordering::Relaxed))
    }
}

/// What was seen at a name.
#[derive(Debug)]
pub(crate) struct Sight {
    pub(crate) observed: Observed,
    /// The mount it lies on, in the numbers of [`Stat::mount`], where something was seen.
    pub(crate) mount: Option<u64>,
    /// Who may write to it all the same, where that was asked.
    pub(crate) writers: Option<OpenWriters>,
    /// It is a file that is to be read later, and this is no word on it.
    pub(crate) is_put_off: bool,
    /// Its content was read and is not hashed yet: what stands for the `sha256` that `observed` lacks.
    pub(crate) ticket: Option<Ticket>,
}

/// What became of a content that was read.
enum Hashed {
    Now(Digest),
    /// The batch's slot begins with all of it, so many bytes.
    Later(usize),
}

/// The entry changed while it was looked at.
struct Again {
    stat: Option<Stat>,
    why: &'static str,
}

impl Again {
    const REPLACED: &'static str = "keeps being replaced while it is opened";
    const CHANGED: &'static str = "keeps changing while it is read";
    const LEASED: &'static str = "another process holds a lease on it";
}

/// Looks at entries, with room that is kept from one to the next.
pub(crate) struct Observer<'a> {
    buffer: Vec<u8>,
    xattrs: XattrReader,
    cache: CacheUse,
    /// The same for the entry that is looked at now.
    reading: CacheUse,
    control: Control<'a>,
    writers: AskWriters,
    put_off_from: Option<u64>,
    /// A moment that has passed, by the clock as it was when the directory was begun or later.
    lately: SystemTime,
    /// What was last heard, kept for a file that cannot be read because it is being written.
    open_writers: Option<OpenWriters>,
    batch: Option<Batch>,
    hashes_later: bool,
}

/// Is a file that is read also asked for open writers?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskWriters {
    Yes,
    No,
}

impl<'a> Observer<'a> {
    pub(crate) fn new(cache: CacheUse, control: Control<'a>) -> Self {
        Self {
            buffer: Vec::new(),
            xattrs: XattrReader::default(),
            cache,
            reading: cache,
            control,
            writers: AskWriters::No,
            put_off_from: None,
            lately: SystemTime::now(),
            open_writers: None,
            batch: Lanes::of_this_processor().map(Batch::new),
            hashes_later: false,
        }
    }

    /// Where the digests are had that tickets stand for.
    pub(crate) fn batch(&mut self) -> Option<&mut Batch> {
        self.batch.as_mut()
    }

    /// From now on, small files are seen with a ticket that stands for their digest, where this processor hashes several at
    /// once; or no file is, as at first.
    pub(crate) fn hash_later(&mut self, later: bool) {
        self.hashes_later = later;
    }

    /// From now on, files that are read are asked for open writers or not.
    pub(crate) fn ask_writers(&mut self, ask: AskWriters) {
        self.writers = ask;
    }

    /// Looks at the child `name` of `dir`.
    pub(crate) fn child(&mut self, dir: BorrowedFd<'_>, name: &[u8], content: Content<'_>) -> Sight {
        self.open_writers = None;
        self.source_of(content);
        let sight = self.persist(|this| this.look(dir, name, content));
        Sight { writers: self.open_writers.take(), ..sight }
    }

    /// What comes next is of another directory. Whatever became of the clock since counts from here on.
    pub(crate) fn begin_directory(&mut self) {
        self.lately = SystemTime::now();
    }

    /// From now on, files that are to be read and have this many bytes or more are put off: [`Observer::child`] says so
    /// and reads nothing.
    pub(crate) fn put_off(&mut self, from: Option<u64>) {
        self.put_off_from = from;
    }

    /// Looks at what `handle` stands on.
    pub(crate) fn handle(&mut self, handle: BorrowedFd<'_>, content: Content<'_>) -> Sight {
        self.source_of(content);
        self.persist(|this| this.located(handle, content))
    }

    fn source_of(&mut self, content: Content<'_>) {
        self.reading = match content {
            Content::ReadFromDevice => CacheUse::FromDevice,
            _ => self.cache,
        };
    }

    fn persist(&mut self, mut look: impl FnMut(&mut Self) -> Result<Sight, Again>) -> Sight {
        let mut last = match look(self) {
            Ok(sight) => return sight,
            Err(again) => again,
        };
        let mut waits = AGAIN.into_iter();
        let start = Instant::now();
        loop {
            if last.why == Again::LEASED && start.elapsed() < LEASE && !self.control.is_cancelled() {
                sleep(LEASE / 50);
                waits = AGAIN.into_iter();
            }
            let Some(wait) = waits.next() else {
                return Sight::unreadable(last.stat.as_ref(), Vec::new(), last.why.to_owned());
            };
            sleep(wait);
            match look(self) {
                Ok(sight) => return sight,
                Err(again) => last = again,
            }
        }
    }

    fn look(&mut self, dir: BorrowedFd<'_>, name: &[u8], content: Content<'_>) -> Result<Sight, Again> {
        if matches!(content, Content::Read | Content::ReadFromDevice) {
            // The short way for what a full scan does a hundred thousand times. The kind is
            // asked for first, so that only what just was a regular file is opened at all.
            let before = match stat::child(dir, name) {
                Ok(stat) => stat,
                Err(e) => return Ok(Sight::missing("stat", &e)),
            };
            if before.kind == FileType::RegularFile {
                if self.put_off_from.is_some_and(|from| before.size >= from) {
                    return Ok(Sight::put_off(&before));
                }
                match open::child(dir, name, How::Read) {
                    Ok(file) => return self.file(file.as_fd(), &before),
                    Err(e) => refusal(&e, &before)?,
                }
            }
        }
        if let Content::Glance = content {
            return Ok(Sight::glance(stat::child(dir, name)));
        }
        if let Content::IfDiffers(expected) = content {
            // The short way for what a sweep does a hundred thousand times.
            match stat::child(dir, name) {
                Ok(stat) if self.is_settled(stat.ctime) => {
                    if let Some(sight) = as_expected(&stat, expected) {
                        return Ok(sight);
                    }
                }
                Ok(_) => {}
                Err(e) => return Ok(Sight::missing("stat", &e)),
            }
        }
        match open::child(dir, name, How::Locate) {
            Ok(handle) => self.located(handle.as_fd(), content),
            Err(e) => Ok(Sight::missing("open", &e)),
        }
    }

    fn located(&mut self, handle: BorrowedFd<'_>, content: Content<'_>) -> Result<Sight, Again> {
        if let Content::Glance = content {
            return Ok(Sight::glance(stat::of(handle)));
        }
        let stat = match self.stat(handle) {
            Ok(stat) => stat,
            Err(e) => return Ok(Sight::unreadable(None, Vec::new(), why("stat", &e))),
        };
        let wanted = match content {
            Content::Glance | Content::Skip => false,
            Content::Read | Content::ReadFromDevice => true,
            Content::IfDiffers(expected) => {
                entry_of(&stat).is_some_and(|e| needs_content(Some(expected), &e))
            }
        };
        if wanted && stat.kind == FileType::RegularFile {
            match reopen(handle, How::Read) {
                Ok(file) => return self.file(file.as_fd(), &stat),
                Err(e) => {
                    refusal(&e, &stat)?;
                    let xattrs = self.xattrs.of_located(handle).unwrap_or_default();
                    return Ok(Sight::unreadable(Some(&stat), xattrs, why("open", &e)));
                }
            }
        }
        let target = match stat.kind {
            FileType::Symlink => match open::link_target(handle) {
                Ok(target) => Some(target.into_bytes()),
                Err(e) => return Ok(Sight::unreadable(Some(&stat), Vec::new(), why("readlink", &e))),
            },
            _ => None,
        };
        let xattrs = match self.xattrs.of_located(handle) {
            Ok(xattrs) => xattrs,
            Err(e) => return Ok(Sight::unreadable(Some(&stat), Vec::new(), chain(&e))),
        };
        if !xattrs.is_empty() && stat::of(handle).is_ok_and(|now| now.ctime != stat.ctime) {
            return Err(Again { stat: Some(stat), why: Again::CHANGED });
        }
        Ok(Sight::present(&stat, target, xattrs, None))
    }

    fn stat(&self, handle: BorrowedFd<'_>) -> io::Result<Stat> {
        if self.control.at_once { stat::of(handle) } else { settled(handle) }
    }

    /// The clock is asked where it has to be: nearly everything was left alone for longer.
    fn is_settled(&mut self, ctime: Time) -> bool {
        if self.control.at_once || since(ctime, self.lately).is_some_and(|past| past > SETTLES_IN) {
            return true;
        }
        self.lately = SystemTime::now();
        since(ctime, self.lately).is_none_or(|past| past > SETTLES_IN)
    }

    /// Reads an opened file that has to be the one that `before` tells of.
    fn file(&mut self, file: BorrowedFd<'_>, before: &Stat) -> Result<Sight, Again> {
        // Before it is read: what somebody writes and closes meanwhile is seen by what is read.
        self.open_writers = match self.writers {
            AskWriters::Yes => writers_of(file),
            AskWriters::No => None,
        };
        // What was left alone for long enough need not be asked again: a change since then shows afterwards.
        let stat = if self.is_settled(before.ctime) { Ok(*before) } else { settled(file) };
        let stat = match stat {
            Ok(stat) => stat,
            Err(e) => return Ok(Sight::unreadable(None, Vec::new(), why("stat", &e))),
        };
        let read = self.read(file, stat.size);
        let xattrs = self.xattrs.of_opened(file);
        let after = match stat::of(file) {
            Ok(after) => after,
            Err(e) => return Ok(Sight::unreadable(Some(&stat), Vec::new(), why("stat", &e))),
        };
        // First: what was read, or could not be, may be of another file.
        if (after.identity(), after.kind) != (before.identity(), before.kind) {
            return Err(Again { stat: Some(*before), why: Again::REPLACED });
        }
        let xattrs = match xattrs {
            Ok(xattrs) => xattrs,
            Err(e) => return Ok(Sight::unreadable(Some(&stat), Vec::new(), chain(&e))),
        };
        let (hashed, bytes) = match read {
            Ok(ControlFlow::Continue(done)) => done,
            Ok(ControlFlow::Break(why)) => return Ok(Sight::unreadable(Some(&stat), xattrs, why.to_owned())),
            Err(e) => return Ok(Sight::unreadable(Some(&stat), xattrs, why("read", &e))),
        };
        if bytes != stat.size || (after.mtime, after.ctime, after.size) != (stat.mtime, stat.ctime, stat.size)
        {
            return Err(Again { stat: Some(after), why: Again::CHANGED });
        }
        let (digest, ticket) = match hashed {
            Hashed::Now(digest) => (Some(digest), None),
            Hashed::Later(length) => (None, self.batch.as_mut().map(|batch| batch.keep(length))),
        };
        Ok(Sight { ticket, ..Sight::present(&stat, None, xattrs, digest) })
    }

    fn read(
        &mut self,
        file: BorrowedFd<'_>,
        size: u64,
    ) -> io::Result<ControlFlow<&'static str, (Hashed, u64)>> {
        let may_wait = self.hashes_later && size <= batch::MOST && self.reading != CacheUse::FromDevice;
        let batch = self.batch.as_mut().filter(|_| may_wait);
        let in_batch = batch.is_some();
        let buffer = match batch {
            Some(batch) => batch.slot(),
            None => room_for(size, &mut self.buffer),
        };
        let control = self.control;
        let (mut sha, mut whole) = (Sha256::new(), None);
        let read = read_whole(file, size, buffer, self.reading, |piece| {
            if control.is_cancelled() {
                return ControlFlow::Break("cancelled while it was read");
            }
            let bytes = piece.len() as u64;
            whole = (in_batch && bytes == size).then_some(piece.len());
            if whole.is_none() {
                sha.update(piece);
            }
            if let Some(progress) = control.progress {
                progress.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            if let Some(throttle) = control.throttle {
                throttle.charge(bytes, control.cancel);
            }
            ControlFlow::Continue(())
        })?;
        Ok(match (read, whole) {
            (ControlFlow::Continue(bytes), Some(length)) => {
                ControlFlow::Continue((Hashed::Later(length), bytes))
            }
            (ControlFlow::Continue(bytes), None) => {
                ControlFlow::Continue((Hashed::Now(Digest(sha.finalize().into())), bytes))
            }
            (ControlFlow::Break(why), _) => ControlFlow::Break(why),
        })
    }
}

fn room_for(size: u64, buffer: &mut Vec<u8>) -> &mut [u8] {
    let room = usize::try_from(size).map_or(BUFFER, |n| n.saturating_add(1).min(BUFFER));
    if buffer.len() < room {
        buffer.resize(room.next_multiple_of(BUFFER_STEP), 0);
    }
    buffer
}

impl Sight {
    fn present(
        stat: &Stat,
        target: Option<Vec<u8>>,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
        sha256: Option<Digest>,
    ) -> Self {
        match entry_of(stat) {
            Some(entry) => {
                let entry = Entry { target, xattrs, sha256, ..entry };
                Self::seen(Observed::Present(entry), Some(stat.mount))
            }
            None => Self::unreadable(Some(stat), xattrs, "unknown kind of file".to_owned()),
        }
    }

    fn glance(stat: io::Result<Stat>) -> Self {
        match stat {
            Ok(stat) => Self::present(&stat, None, Vec::new(), None),
            Err(e) => Self::missing("stat", &e),
        }
    }

    fn unreadable(stat: Option<&Stat>, xattrs: Vec<(Vec<u8>, Vec<u8>)>, why: String) -> Self {
        let entry = stat.and_then(entry_of).map(|e| Entry { xattrs, ..e });
        Self::seen(Observed::Unreadable { entry, why }, stat.map(|s| s.mount))
    }

    pub(crate) fn seen(observed: Observed, mount: Option<u64>) -> Self {
        Self { observed, mount, writers: None, is_put_off: false, ticket: None }
    }

    fn put_off(stat: &Stat) -> Self {
        let observed = Observed::Unreadable { entry: entry_of(stat), why: "not read yet".to_owned() };
        Self { is_put_off: true, ..Self::seen(observed, Some(stat.mount)) }
    }

    /// Nothing could be seen: because nothing is there, or because of `e`.
    pub(crate) fn missing(step: &str, e: &io::Error) -> Self {
        let observed = if is_absence(e) {
            Observed::Absent
        } else {
            Observed::Unreadable { entry: None, why: why(step, e) }
        };
        Self::seen(observed, None)
    }
}

/// The path names nothing beneath the root: no such name, none possible, or a directory on
/// the way to it is none (any more), which a symbolic link is not either.
pub(crate) fn is_absence(e: &io::Error) -> bool {
    let errno = Errno::from_io_error(e);
    matches!(errno, Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG))
}

/// What is seen of a regular file that is in nothing but its content known to be `expected`,
/// if that content need not be read either.
fn as_expected(stat: &Stat, expected: &Entry) -> Option<Sight> {
    let now = entry_of(stat).filter(|now| now.kind == Kind::File)?;
    let now = Entry { xattrs: expected.xattrs.clone(), ..now };
    let known = Entry { sha256: now.sha256, ..expected.clone() };
    let unchanged = now == known && !needs_content(Some(expected), &now);
    unchanged.then(|| Sight::seen(Observed::Present(now), Some(stat.mount)))
}

fn writers_of(file: BorrowedFd<'_>) -> Option<OpenWriters> {
    match writers::test(file) {
        Ok(Writers::None) => None,
        Ok(Writers::Some) => Some(OpenWriters::Some),
        Err(e) => Some(OpenWriters::Unknown(e.to_string())),
    }
}

/// Is a refusal to open what was a regular file a reason to look again?
fn refusal(e: &io::Error, stat: &Stat) -> Result<(), Again> {
    let why = match Errno::from_io_error(e) {
        // Gone, or now a symbolic link, a socket or a device without a driver.
        Some(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::NODEV) => Again::REPLACED,
        // The holder of a write lease has been told to give it up (fcntl(2), F_SETLEASE).
        Some(Errno::AGAIN) => Again::LEASED,
        _ => return Ok(()),
    };
    Err(Again { stat: Some(*stat), why })
}

/// The attributes, read when the entry has been left alone for long enough.
pub(crate) fn settled(fd: BorrowedFd<'_>) -> io::Result<Stat> {
    let mut stat = stat::of(fd)?;
    for _ in 0..SETTLE_TRIES {
        let Some(wait) = unsettled_for(stat.ctime) else { break };
        sleep(wait);
        stat = stat::of(fd)?;
    }
    Ok(stat)
}

/// Did this entry's last change happen long enough ago that a later one shows? What was observed at once and has not
/// settled is to be observed again.
#[must_use]
pub fn has_settled(entry: &Entry) -> bool {
    unsettled_for(Time { sec: entry.ctime.sec, nsec: entry.ctime.nsec }).is_none()
}

/// How long until a change at `ctime` has settled, if it has not. A time in the future is
/// not waited for: the clock was set back.
pub(crate) fn unsettled_for(ctime: Time) -> Option<Duration> {
    SETTLES_IN.checked_sub(since(ctime, SystemTime::now())?)
}

/// How long before `now` that was; `None` where it is in the future.
fn since(ctime: Time, now: SystemTime) -> Option<Duration> {
    let then = Duration::new(u64::try_from(ctime.sec).ok()?, ctime.nsec);
    now.duration_since(UNIX_EPOCH).ok()?.checked_sub(then)
}

/// The recorded form of an inode's attributes; `None` for a kind that there is no word for.
pub(crate) fn entry_of(stat: &Stat) -> Option<Entry> {
    let kind = kind_of(stat.kind)?;
    let is_dir = kind == Kind::Directory;
    Some(Entry {
        kind,
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        size: if is_dir { 0 } else { stat.size },
        mtime: stamp(stat.mtime),
        ctime: stamp(stat.ctime),
        dev: stat.dev,
        ino: stat.ino,
        nlink: if is_dir { 0 } else { stat.nlink },
        rdev: stat.rdev,
        flags: stat.flags,
        target: None,
        xattrs: Vec::new(),
        sha256: None,
    })
}

pub(crate) fn kind_of(kind: FileType) -> Option<Kind> {
    Some(match kind {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Unknown => return None,
    })
}

fn stamp(time: Time) -> Stamp {
    Stamp { sec: time.sec, nsec: time.nsec }
}

/// A failed step for people.
pub(crate) fn why(step: &str, e: &io::Error) -> String {
    format!("{step}: {e}")
}
