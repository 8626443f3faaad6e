//! Notification groups of fanotify(7) that tell what happened where, and who did it.
//!
//! Marks of a group for changes are on single directories and cover what lies directly in them, as an inotify
//! watch does; those of a group for reads are on single files. What is marked is known by its file handle, which
//! is asked for when it is marked and stands in every event: nothing is opened by handle, so no capability is
//! needed for that.
#![expect(
    unsafe_code,
    reason = "fanotify_init(2), fanotify_mark(2) and name_to_handle_at(2) have no safe wrapper that fits"
)]

pub mod mounts;
mod records;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::fstatfs;
use rustix::io::Errno;

use crate::procfd::FdPath;

/// What a mark listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Everything that changes the directory or an entry in it. Of a directory in it only names
    /// are told; its attributes only to who knows that directory's own [`ObjectId`].
    Entries,
    /// The directory itself, and names that come, go and move in it: for directories above a
    /// protected one, whose files are nobody's business.
    Names,
    /// The directory's own attributes and whereabouts.
    Itself,
}

impl Interest {
    fn mask(self) -> u64 {
        let itself = libc::FAN_ATTRIB | libc::FAN_DELETE_SELF | libc::FAN_MOVE_SELF | libc::FAN_ONDIR;
        let names = itself | libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;
        match self {
            Self::Itself => itself,
            Self::Names => names,
            Self::Entries => names | libc::FAN_MODIFY | libc::FAN_CLOSE_WRITE | libc::FAN_EVENT_ON_CHILD,
        }
    }
}

/// A directory or file as events name it: its file system's id and its file handle. Never used
/// again for another one, other than an inode number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(Box<[u8]>);

impl ObjectId {
    fn new(fsid: &[u8], kind: i32, handle: &[u8]) -> Self {
        Self([fsid, &kind.to_ne_bytes(), handle].concat().into())
    }

    /// Asks for the handle of what is opened, if only located.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the file system has no handles that events could carry.
    pub fn of(object: BorrowedFd<'_>) -> io::Result<Self> {
        let fsid = fstatfs(object)?.f_fsid;
        // SAFETY: `__kernel_fsid_t` is two ints (asm-generic/posix_types.h), plain data without padding;
        // the compiler checks that the sizes agree.
        let fsid: [u8; 8] = unsafe { std::mem::transmute(fsid) };
        // Since 6.5, and also for file systems whose handles cannot be opened (overlayfs).
        match handle_of(object, libc::AT_HANDLE_FID) {
            Err(Errno::INVAL) => handle_of(object, 0),
            other => other,
        }
        .map(|(kind, handle)| Self::new(&fsid, kind, &handle))
        .map_err(io::Error::from)
    }
}

fn handle_of(object: BorrowedFd<'_>, flags: libc::c_int) -> Result<(i32, Vec<u8>), Errno> {
    /// `struct file_handle` with room for the longest handle.
    #[repr(C)]
    struct Handle {
        bytes: libc::c_uint,
        kind: libc::c_int,
        handle: [u8; libc::MAX_HANDLE_SZ as usize],
    }
    let room = [0; libc::MAX_HANDLE_SZ as usize];
    let mut handle = Handle { bytes: libc::MAX_HANDLE_SZ.cast_unsigned(), kind: 0, handle: room };
    let mut mount = 0;
    // SAFETY: the descriptor is borrowed, hence open during the call; the path is a terminated
    // empty string; `handle` is laid out as the kernel's struct file_handle and says how much room
    // it has; `mount` takes the id. The kernel writes to nothing else and keeps none of it.
    let done = unsafe {
        libc::name_to_handle_at(
            object.as_raw_fd(),
            c"".as_ptr(),
            (&raw mut handle).cast(),
            &raw mut mount,
            flags | libc::AT_EMPTY_PATH,
        )
    };
    if done == -1 {
        return Err(last_error());
    }
    let length = usize::try_from(handle.bytes).unwrap_or(0);
    Ok((handle.kind, handle.handle.get(..length).unwrap_or_default().to_vec()))
}

fn last_error() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// One event.
#[derive(Debug)]
pub struct Event {
    /// `FAN_*` bits; ask by [`Event::is`].
    mask: u64,
    /// The process that caused it, as numbered here; `None` where the kernel does not tell.
    pub pid: Option<i32>,
    /// This very process did.
    pub is_ours: bool,
    /// That very process: it stays its own even when the number is used again. `None` where it was gone
    /// already when the event was read, or where the kernel (before 5.15) gives none.
    pub process: Option<OwnedFd>,
    /// The kernel says that it was gone: its number may be another's by now.
    pub is_gone: bool,
    /// The directory it happened in; of a group for reads the file itself.
    pub place: Option<ObjectId>,
    /// The name in it; `.` where it is about the place itself.
    pub name: Vec<u8>,
}

/// What an event is about. One event may be several of them: the kernel merges what one process
/// did to one name while nobody was reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Content or attributes changed, whatever was opened for writing was closed.
    Changed,
    /// Nothing but the closing of what was opened for writing: whoever wrote may be another.
    ClosedOnly,
    /// What was opened for writing was closed, or a name went or moved: nothing more need be on its way.
    Completed,
    /// A name came, went or moved.
    Named,
    /// The marked directory itself was deleted or moved.
    SelfMoved,
    /// It is, or was, a directory.
    Directory,
    /// It was opened.
    Opened,
    /// It was read from.
    Read,
    /// It was opened to be executed.
    Executed,
    /// Events were lost before this one.
    Overflow,
}

impl Event {
    /// Is it this, among others?
    #[must_use]
    pub fn is(&self, what: What) -> bool {
        let any = |bits| self.mask & bits != 0;
        match what {
            What::Changed => any(libc::FAN_MODIFY | libc::FAN_ATTRIB | libc::FAN_CLOSE_WRITE),
            What::ClosedOnly => self.mask & !libc::FAN_ONDIR == libc::FAN_CLOSE_WRITE,
            What::Completed => {
                any(libc::FAN_CLOSE_WRITE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO)
            }
            What::Named => {
                any(libc::FAN_CREATE | libc::FAN_DELETE | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO)
            }
            What::SelfMoved => any(libc::FAN_DELETE_SELF | libc::FAN_MOVE_SELF),
            What::Directory => any(libc::FAN_ONDIR),
            What::Opened => any(libc::FAN_OPEN),
            What::Read => any(libc::FAN_ACCESS),
            What::Executed => any(libc::FAN_OPEN_EXEC),
            What::Overflow => any(libc::FAN_Q_OVERFLOW),
        }
    }
}

/// A notification group.
#[derive(Debug)]
pub struct Group {
    descriptor: OwnedFd,
    names_processes: bool,
}

impl Group {
    /// A group whose queue the kernel bounds (`/proc/sys/fs/fanotify/max_queued_events`): what is beyond
    /// becomes one [`What::Overflow`]. Reading it never blocks.
    ///
    /// # Errors
    /// `EPERM` without `CAP_SYS_ADMIN`, or under a filter that knows no fanotify; `EINVAL` before 5.9;
    /// `EMFILE` beyond 128 groups of a user; `ENOSYS`.
    pub fn for_changes() -> io::Result<Self> {
        Self::that_reports(libc::FAN_REPORT_DFID_NAME)
    }

    /// Takes over a group that an earlier process had made by [`Group::for_changes`], with its marks and its queue.
    ///
    /// # Errors
    /// `InvalidInput` where it is no such group; what reading `/proc` brings.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Self> {
        let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd()))?;
        // The flags of fanotify_init(2), in hexadecimal (proc(5)).
        let flags = about.lines().find_map(|line| line.strip_prefix("fanotify flags:"));
        let flags = flags.and_then(|f| u32::from_str_radix(f.split(' ').next()?, 16).ok()).unwrap_or(0);
        let kinds = libc::FAN_CLASS_CONTENT
            | libc::FAN_CLASS_PRE_CONTENT
            | libc::FAN_REPORT_DFID_NAME
            | libc::FAN_REPORT_FID;
        if flags & kinds != libc::FAN_REPORT_DFID_NAME {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a fanotify group for changes"));
        }
        let status = rustix::fs::fcntl_getfl(&descriptor)?;
        rustix::fs::fcntl_setfl(&descriptor, status | rustix::fs::OFlags::NONBLOCK)?;
        Ok(Self { descriptor, names_processes: flags & libc::FAN_REPORT_PIDFD != 0 })
    }

    /// A group for reads: its events name the file alone, by whichever of its names it was opened.
    ///
    /// # Errors
    /// As [`Group::for_changes`].
    pub fn for_reads() -> io::Result<Self> {
        Self::that_reports(libc::FAN_REPORT_FID)
    }

    fn that_reports(places: libc::c_uint) -> io::Result<Self> {
        let flags = libc::FAN_CLASS_NOTIF
            | libc::FAN_CLOEXEC
            | libc::FAN_NONBLOCK
            | libc::FAN_UNLIMITED_MARKS
            | places;
        match init(flags | libc::FAN_REPORT_PIDFD) {
            Ok(descriptor) => Ok(Self { descriptor, names_processes: true }),
            // Before 5.15.
            Err(Errno::INVAL) => Ok(Self { descriptor: init(flags)?, names_processes: false }),
            Err(e) => Err(e.into()),
        }
    }

    /// Do events carry [`Event::process`]?
    #[must_use]
    pub fn names_processes(&self) -> bool {
        self.names_processes
    }

    /// Listens to a directory that is open for reading (not merely located). Doing it again is harmless.
    /// The mark goes with the directory's inode. Ask for its [`ObjectId`] first: events may come at once.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENODEV` or `EXDEV` where the file system has no handles, or no id, that events could
    /// carry; `ENOSPC` at the limit of marks; `ENOMEM`.
    pub fn mark(&self, directory: BorrowedFd<'_>, interest: Interest) -> io::Result<()> {
        // SAFETY: both descriptors are borrowed, hence open during the call; without a path the
        // mark is for the descriptor itself, and no memory of ours is read or written.
        let done = unsafe {
            libc::fanotify_mark(
                self.descriptor.as_raw_fd(),
                libc::FAN_MARK_ADD | libc::FAN_MARK_ONLYDIR,
                interest.mask(),
                directory.as_raw_fd(),
                std::ptr::null(),
            )
        };
        if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Listens to who opens, reads and executes a file, whose handle need only be located. In a group for reads.
    /// Doing it again is harmless. The mark goes with the inode, whatever it is called.
    ///
    /// # Errors
    /// As [`Group::mark`]; `ENOENT` also where `/proc` is not mounted.
    pub fn mark_reads(&self, file: BorrowedFd<'_>) -> io::Result<()> {
        let path = FdPath::of(file);
        let mask = libc::FAN_OPEN | libc::FAN_ACCESS | libc::FAN_OPEN_EXEC;
        // SAFETY: the descriptors are borrowed, hence open during the call, and the path is a terminated string that
        // outlives it; the kernel reads nothing else and keeps none of it.
        let done = unsafe {
            libc::fanotify_mark(
                self.descriptor.as_raw_fd(),
                libc::FAN_MARK_ADD,
                mask,
                libc::AT_FDCWD,
                path.as_c_str().as_ptr(),
            )
        };
        if done == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes the events that fit `buffer` (at least 4 KiB; each may bring a descriptor with it, some 80 bytes
    /// an event). Empty where there are none now.
    ///
    /// # Errors
    /// Those of read(2) but for `EAGAIN` and `EINTR`; `InvalidData` where the bytes are not
    /// what fanotify(7) says.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Vec<Event>> {
        let mut left = taken(&self.descriptor, buffer)?;
        let own = std::process::id().cast_signed();
        let mut events = Vec::new();
        while let Some(raw) = records::next(&mut left).map_err(|_| malformed())? {
            // SAFETY: the number comes from the kernel's answer to this read, which opened it for this
            // process alone; each record is seen once, so nobody else owns or closes it.
            let process = (raw.pidfd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(raw.pidfd) });
            events.push(Event {
                mask: raw.mask,
                pid: (raw.pid > 0).then_some(raw.pid),
                is_ours: raw.pid == own,
                process,
                is_gone: self.names_processes && raw.pidfd == libc::FAN_NOPIDFD,
                place: raw.place.map(|p| ObjectId::new(p.fsid, p.kind, p.handle)),
                name: raw.place.map(|p| p.name.to_vec()).unwrap_or_default(),
            });
        }
        Ok(events)
    }
}

/// The bytes that wait, as far as they fit; empty where there are none.
fn taken<'b>(group: &OwnedFd, buffer: &'b mut [u8]) -> io::Result<&'b [u8]> {
    let length = match rustix::io::read(group, &mut *buffer) {
        Ok(length) => length,
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(e) => return Err(e.into()),
    };
    Ok(buffer.get(..length).unwrap_or_default())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an event of fanotify")
}

fn init(flags: libc::c_uint) -> Result<OwnedFd, Errno> {
    let event_flags = libc::O_RDONLY | libc::O_CLOEXEC | libc::O_LARGEFILE;
    // SAFETY: takes two numbers and touches no memory of ours.
    let descriptor = unsafe { libc::fanotify_init(flags, event_flags.cast_unsigned()) };
    if descriptor == -1 {
        return Err(last_error());
    }
    // SAFETY: the kernel just made it for this process, and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{self, How};
    use rustix::event::{PollFd, PollFlags, poll};
    use std::fs;
    use std::path::Path;

    /// `None`, said, where this process may not have a group.
    fn group() -> Option<Group> {
        match Group::for_changes() {
            Ok(group) => Some(group),
            Err(e) => {
                eprintln!("skipped: no fanotify group: {e}");
                None
            }
        }
    }

    fn mark(group: &Group, path: &Path) -> ObjectId {
        let directory = open::absolute(path, How::List).unwrap();
        group.mark(directory.as_fd(), Interest::Entries).unwrap();
        group.mark(directory.as_fd(), Interest::Entries).unwrap();
        ObjectId::of(directory.as_fd()).unwrap()
    }

    fn wait_for(group: &Group, wanted: impl Fn(&Event) -> bool) -> Event {
        let mut buffer = [0; 4096];
        loop {
            poll(&mut [PollFd::new(group, PollFlags::IN)], None).unwrap();
            if let Some(event) = group.read(&mut buffer).unwrap().into_iter().find(&wanted) {
                return event;
            }
        }
    }

    #[test]
    fn a_change_names_directory_name_and_process() {
        let Some(group) = group() else { return };
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("inner");
        fs::create_dir(&inner).unwrap();
        let (outer_id, inner_id) = (mark(&group, top.path()), mark(&group, &inner));
        assert_ne!(outer_id, inner_id);

        fs::write(inner.join("f"), "x").unwrap();
        let event = wait_for(&group, |e| e.name == b"f" && e.is(What::Changed));
        assert_eq!(event.place, Some(inner_id));
        assert_eq!(event.pid, Some(std::process::id().cast_signed()));
        assert_eq!(event.process.is_some(), group.names_processes());
        assert!(!event.is(What::Directory) && event.is_ours);
        let other = std::process::Command::new("touch").arg(inner.join("g")).status().unwrap();
        assert!(other.success() && !wait_for(&group, |e| e.name == b"g").is_ours);

        fs::rename(&inner, top.path().join("other")).unwrap();
        let event = wait_for(&group, |e| e.name == b"other");
        assert_eq!(event.place, Some(outer_id));
        assert!(event.is(What::Named) && event.is(What::Directory));
    }

    #[test]
    fn a_directory_names_itself_even_to_a_mark_on_its_parent() {
        use std::os::unix::fs::PermissionsExt as _;
        let Some(group) = group() else { return };
        let top = tempfile::tempdir().unwrap();
        let inner = top.path().join("inner");
        fs::create_dir(&inner).unwrap();
        mark(&group, top.path());
        fs::set_permissions(&inner, fs::Permissions::from_mode(0o700)).unwrap();
        let event = wait_for(&group, |e| e.is(What::Changed));
        let itself = ObjectId::of(open::absolute(&inner, How::List).unwrap().as_fd()).unwrap();
        assert_eq!((event.place, event.name.as_slice()), (Some(itself), b".".as_slice()));
    }

    #[test]
    fn a_group_that_is_taken_over_has_its_marks_and_its_queue() {
        let Some(group) = group() else { return };
        let top = tempfile::tempdir().unwrap();
        let id = mark(&group, top.path());
        fs::write(top.path().join("f"), "x").unwrap();
        let passed = group.as_fd().try_clone_to_owned().unwrap();
        drop(group);
        let group = Group::adopt(passed).unwrap();
        let event = wait_for(&group, |e| e.name == b"f");
        assert_eq!(event.place, Some(id));
        while !group.read(&mut [0; 4096]).unwrap().is_empty() {}

        let other = fs::File::open(top.path()).unwrap();
        assert_eq!(Group::adopt(other.into()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        let reads = Group::for_reads().unwrap().descriptor;
        assert_eq!(Group::adopt(reads).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn reading_is_no_event() {
        let Some(group) = group() else { return };
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "x").unwrap();
        mark(&group, top.path());
        fs::read(top.path().join("f")).unwrap();
        fs::read_dir(top.path()).unwrap().for_each(drop);
        fs::write(top.path().join("last"), "x").unwrap();
        let first = wait_for(&group, |_| true);
        assert_eq!(first.name, b"last");
    }

    #[test]
    fn who_reads_a_file_is_told_whatever_name_was_used() {
        let Ok(group) = Group::for_reads() else { return eprintln!("skipped: no fanotify group") };
        let top = tempfile::tempdir().unwrap();
        let (file, other) = (top.path().join("f"), top.path().join("other-name"));
        fs::write(&file, "x").unwrap();
        fs::hard_link(&file, &other).unwrap();
        let handle = open::absolute(&file, How::Locate).unwrap();
        let id = ObjectId::of(handle.as_fd()).unwrap();
        group.mark_reads(handle.as_fd()).unwrap();
        group.mark_reads(handle.as_fd()).unwrap();

        // Not an event: looking at it.
        fs::metadata(&file).unwrap();
        fs::read(&other).unwrap();
        let event = wait_for(&group, |e| e.is(What::Read));
        assert!(event.is(What::Opened) && !event.is(What::Executed));
        assert_eq!((event.place, event.pid), (Some(id), Some(std::process::id().cast_signed())));
    }
}
