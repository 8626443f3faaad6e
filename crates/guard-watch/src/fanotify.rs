//! fanotify with a mark on each directory, which tells who did it.
//!
//! Marks on directories rather than on the file system: they cost nothing for what happens elsewhere on
//! it (a busy database, say), and work in containers and on overlayfs. What they do not see, no
//! inotify watch does either: writing through a name outside the tree, and stores through a mapping
//! until it goes. The rehash finds those.
//!
//! An event names its directory by file handle; the path belongs to the handle from before its mark stands
//! until the directory is forgotten. An event of a directory that is not known any more is nobody's business.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guard_model::finding::Actor;
use guard_sys::clock::monotonic_nanos;
use guard_sys::fanotify::{Event, Group, Interest as Listen, ObjectId, What};
use guard_sys::open::{self, How, Resolver};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::attribution::{Attribution, Named};
use crate::backend::{Backend, Interest, Kind, Refusal};
use crate::canary;
use crate::error::WatchError;
use crate::inbox::{By, Inbox, News};
use crate::inotify;
use crate::keeper::Kept;
use crate::programs::Memory;

/// Bytes taken from the kernel at once: some hundred events, each with a descriptor.
const BUFFER: usize = 8192;

/// Buffers taken one after the other before it is looked whether to end.
const PARTS: usize = 16;

/// How long nothing is read after what this very process did, and nobody else, once nothing more waited. A lock changes a
/// hundred thousand entries, twice: one by one their events would cost more than the changes. Who else does something
/// meanwhile may be gone by then; he is named from memory, where there is one.
const REST: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };

/// The directories that have marks.
#[derive(Default)]
struct Directories {
    paths: HashMap<ObjectId, PathBuf>,
    /// Which handle a path was given, to forget it by.
    handles: HashMap<PathBuf, ObjectId>,
}

impl Directories {
    fn learn(&mut self, id: ObjectId, path: &Path) {
        self.paths.insert(id.clone(), path.to_owned());
        if let Some(before) = self.handles.insert(path.to_owned(), id.clone())
            && before != id
        {
            self.drop_handle(&before, path);
        }
    }

    fn forget(&mut self, path: &Path) {
        if let Some(id) = self.handles.remove(path) {
            self.drop_handle(&id, path);
        }
    }

    /// Unless it is known by another path meanwhile: it was moved there. The mark itself stays on the
    /// inode, wherever that is now; its events mean nothing any more.
    fn drop_handle(&mut self, id: &ObjectId, path: &Path) {
        if self.paths.get(id).is_some_and(|known| known == path) {
            self.paths.remove(id);
        }
    }
}

struct Shared {
    group: Group,
    directories: Mutex<Directories>,
}

impl Shared {
    fn directories(&self) -> MutexGuard<'_, Directories> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The marks of one environment, with the thread that reads what they bring.
struct Fanotify {
    shared: Arc<Shared>,
    interest: Interest,
    slash: OwnedFd,
    stop: Arc<OwnedFd>,
    hears: bool,
    /// Of a group that was there before: what it held, and its reader, until all directories are known again.
    waiting: Option<(Vec<Taken>, Reader)>,
    is_adopted: bool,
    memory: Memory,
}

/// An event with who did it.
type Taken = (Event, Option<Arc<Actor>>);

/// A group with what it held already, a moment when nothing waited there, and how its events are named.
type Ready = (Group, Option<Vec<Taken>>, u64, Memory, Attribution);

/// A [`crate::backend::Start`]: fanotify, or inotify where the kernel, this process's rights
/// or the file system do not allow it.
pub(crate) fn start(
    inbox: &Arc<Inbox>,
    generation: u64,
    interest: Interest,
) -> Result<Box<dyn Backend>, WatchError> {
    match Fanotify::start(inbox, generation, &interest) {
        Ok(backend) => Ok(Box::new(backend)),
        Err(why) => inotify::start_instead(inbox, generation, interest, Some(why)),
    }
}

impl Fanotify {
    /// Fails, in words, where it would not do for the root or the canaries.
    fn start(inbox: &Arc<Inbox>, generation: u64, interest: &Interest) -> Result<Self, String> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |e: std::io::Error| format!("{what}: {e}")
        };
        // Later ones of this process are made because something was lost.
        let before = interest.kept.as_ref().filter(|_| generation == 1).and_then(adopt);
        let (group, held, quiet_ns, memory, attribution) = match before {
            Some(before) => before,
            None => {
                let group = Group::for_changes().map_err(failed("no fanotify group"))?;
                // Before there can be an event: nothing is marked.
                let (memory, programs) = Memory::for_events(group.names_processes());
                (group, None, monotonic_nanos(), memory, Attribution::with(programs))
            }
        };
        let shared = Arc::new(Shared { group, directories: Mutex::default() });
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| failed("no event descriptor")(e.into()))?;
        let stop = Arc::new(stop);
        let slash = open::absolute(Path::new("/"), How::LocateDirectory).map_err(failed("open /"))?;
        let mut backend = Self {
            shared: Arc::clone(&shared),
            interest: interest.clone(),
            slash,
            stop: Arc::clone(&stop),
            hears: false,
            waiting: None,
            is_adopted: held.is_some(),
            memory,
        };
        let cannot = |directory: &Path, refusal: Refusal| match refusal {
            Refusal::Other(why) => format!("fanotify cannot watch {}: {why}", directory.display()),
            other => format!("fanotify cannot watch {}: {other:?}", directory.display()),
        };
        let canaries = interest.canaries.clone();
        backend.watch_canaries().map_err(|refusal| cannot(&canaries, refusal))?;
        match backend.watch(&interest.root, None) {
            // It is waited for.
            Ok(()) | Err(Refusal::Gone) => {}
            Err(refusal) => return Err(cannot(&interest.root, refusal)),
        }
        let runs = Arc::new(AtomicBool::new(false));
        let reader = Reader {
            shared,
            stop,
            inbox: Arc::clone(inbox),
            generation,
            interest: interest.clone(),
            attribution,
            quiet_ns,
            runs: Arc::clone(&runs),
        };
        match held {
            Some(held) => backend.waiting = Some((held, reader)),
            None => reader.begin().map_err(failed("no thread"))?,
        }
        Ok(backend)
    }

    fn mark(&self, path: &Path, listen: Listen) -> std::io::Result<()> {
        let beneath = path.strip_prefix("/").unwrap_or(path);
        // Without symbolic links all the way, so that the mark is on what the path says.
        let directory = if beneath.as_os_str().is_empty() {
            open::absolute(path, How::List)?
        } else {
            Resolver::detect().open(self.slash.as_fd(), beneath, How::List)?
        };
        self.mark_opened(path, directory.as_fd(), listen)
    }

    fn mark_opened(&self, path: &Path, directory: BorrowedFd<'_>, listen: Listen) -> std::io::Result<()> {
        let id = ObjectId::of(directory)?;
        // Known before there can be an event.
        self.shared.directories().learn(id, path);
        self.shared.group.mark(directory, listen).inspect_err(|_| self.shared.directories().forget(path))
    }
}

impl Backend for Fanotify {
    fn watch(&self, directory: &Path, handle: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
        let is_above = directory != self.interest.root && self.interest.root.starts_with(directory);
        let listen = if is_above { Listen::Names } else { Listen::Entries };
        let marked = match handle {
            Some(handle) => self.mark_opened(directory, handle, listen),
            None => self.mark(directory, listen),
        };
        marked.map_err(|e| refusal(&e))
    }

    fn watch_itself(&self, directory: &Path) -> Result<(), Refusal> {
        self.mark(directory, Listen::Itself).map_err(|e| refusal(&e))
    }

    fn unwatch(&self, directory: &Path) {
        self.shared.directories().forget(directory);
    }

    fn watch_canaries(&mut self) -> Result<(), Refusal> {
        let canaries = self.interest.canaries.clone();
        let watched = self.mark(&canaries, Listen::Entries);
        self.hears |= watched.is_ok();
        watched.map_err(|e| refusal(&e))
    }

    fn readers(&self) -> u32 {
        u32::from(self.hears)
    }

    fn kind(&self) -> Kind {
        Kind::Fanotify
    }

    fn stands(&mut self) -> Result<(), WatchError> {
        if let Some((held, reader)) = self.waiting.take() {
            for (event, by) in held {
                if let Some(path) = reader.concern(&event) {
                    reader.tell(path, &event, by);
                }
            }
            reader.begin().map_err(WatchError::Thread)?;
        } else if let (false, Some(kept)) = (self.is_adopted, &self.interest.kept) {
            kept.keeper.keep(&kept.name, self.shared.group.as_fd());
        }
        Ok(())
    }

    fn is_adopted(&self) -> bool {
        self.is_adopted
    }

    fn memory(&self) -> Memory {
        self.memory.clone()
    }
}

fn refusal(error: &std::io::Error) -> Refusal {
    match Errno::from_io_error(error) {
        Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Refusal::Gone,
        Some(Errno::OPNOTSUPP | Errno::NODEV | Errno::XDEV) => {
            Refusal::Other(format!("its file system cannot name directories in events ({error})"))
        }
        _ => Refusal::Other(error.to_string()),
    }
}

impl Drop for Fanotify {
    fn drop(&mut self) {
        // It fails only where its counter is full, which is a request to stop as well.
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).ok();
    }
}

/// The thread that takes events off the group and enqueues them. It observes nothing and waits
/// for nobody (but see [`REST`]), so that whoever did it is still there to be asked who he is.
struct Reader {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    inbox: Arc<Inbox>,
    generation: u64,
    interest: Interest,
    attribution: Attribution,
    /// Nothing was waiting at this moment (`CLOCK_MONOTONIC`), and all of what had is named.
    quiet_ns: u64,
    /// False until its thread runs: what never began cannot end.
    runs: Arc<AtomicBool>,
}

/// Who did what was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doers {
    OnlyUs,
    Others,
}

/// The group that an earlier process left, with what it holds by now, read at once: whoever did it may still be
/// there to be asked. `None` where there is none that will do, or it lost something.
fn adopt(kept: &Kept) -> Option<Ready> {
    let descriptor = kept.keeper.take(&kept.name)?;
    let refused = |why: &dyn std::fmt::Display| {
        tracing::warn!(name = kept.name, %why, "a group that was kept cannot be used");
    };
    let group = Group::adopt(descriptor).map_err(|e| refused(&e)).ok()?;
    // Before what it goes on to tell.
    let (memory, programs) = Memory::for_events(group.names_processes());
    let mut attribution = Attribution::with(programs);
    let mut buffer = vec![0; BUFFER];
    let mut held = Vec::new();
    loop {
        let quiet_ns = monotonic_nanos();
        let events = group.read(&mut buffer).map_err(|e| refused(&e)).ok()?;
        if events.is_empty() {
            return Some((group, Some(held), quiet_ns, memory, attribution));
        }
        for mut event in events {
            if event.is(What::Overflow) || held.len() >= Inbox::PATHS {
                refused(&"its queue overflowed");
                return None;
            }
            // It happened before this process was there.
            let by = attribution.of(Named::some_time(event.pid, event.process.take()));
            held.push((event, by));
        }
    }
}

impl Reader {
    fn begin(self) -> std::io::Result<()> {
        self.inbox.started(self.generation);
        self.runs.store(true, Ordering::Release);
        std::thread::Builder::new().name("fanotify".to_owned()).spawn(move || self.run()).map(drop)
    }

    fn run(mut self) {
        // Who did it may be gone in a moment. Where it is not permitted, it is as quick as it can be.
        guard_sys::priority::go_first().ok();
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.wait() {
                Ok(true) => {}
                Ok(false) => return,
                Err(e) => return self.inbox.error(format!("waiting for events: {e}")),
            }
            match self.empty(&mut buffer) {
                Ok(Doers::Others) => {}
                Ok(Doers::OnlyUs) => self.rest(),
                Err(e) => return self.inbox.error(format!("reading events: {e}")),
            }
        }
    }

    /// Until there is an event. False where it is to end.
    fn wait(&self) -> rustix::io::Result<bool> {
        let mut asked =
            [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(&self.shared.group, PollFlags::IN)];
        match poll(&mut asked, None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(e),
        }
        Ok(asked.first().is_none_or(|stop| stop.revents().is_empty()))
    }

    /// For [`REST`], or until it is to end.
    fn rest(&self) {
        // Whatever it says, the group is asked next.
        poll(&mut [PollFd::new(&self.stop, PollFlags::IN)], Some(&REST)).ok();
    }

    /// Takes what waits; a storm in parts.
    fn empty(&mut self, buffer: &mut [u8]) -> std::io::Result<Doers> {
        let (mut ours, mut others) = (false, false);
        for _ in 0..PARTS {
            let now_ns = monotonic_nanos();
            let shared = Arc::clone(&self.shared);
            let events = shared.group.read(buffer)?;
            if events.is_empty() {
                self.quiet_ns = now_ns;
                return Ok(if ours && !others { Doers::OnlyUs } else { Doers::Others });
            }
            ours |= events.iter().any(|event| event.is_ours);
            others |= events.iter().any(|event| !event.is_ours);
            events.into_iter().for_each(|event| self.take(event));
        }
        // More waits.
        Ok(Doers::Others)
    }

    fn take(&mut self, mut event: Event) {
        if event.is(What::Overflow) {
            self.inbox.overflow();
            return;
        }
        // First of all: he may be gone in a moment.
        let named = Named::by(&mut event, self.quiet_ns);
        if let Some(path) = self.concern(&event) {
            let by = self.attribution.of(named);
            self.tell(path, &event, by);
        }
    }

    /// The path of an event that means something to somebody. Canaries are told here.
    fn concern(&self, event: &Event) -> Option<PathBuf> {
        let path = self.path_of(event)?;
        if let Some(canary) = canary::number_of(&path, &self.interest.canaries) {
            self.inbox.canary(canary, 0);
            return None;
        }
        self.interest.has(&path).then_some(path)
    }

    fn tell(&self, path: PathBuf, event: &Event, by: Option<Arc<Actor>>) {
        let news = match (event.is(What::Named) || event.is(What::SelfMoved), event.is(What::Directory)) {
            (true, true) => News::Structure,
            (true, false) => News::File,
            (false, _) => News::Changed,
        };
        let closed_only = event.is(What::ClosedOnly);
        let by = by.map(|actor| By { actor, closed_only });
        match event.is(What::Completed) {
            true => self.inbox.complete(path, news, by),
            false => self.inbox.path(path, news, by),
        }
    }

    fn path_of(&self, event: &Event) -> Option<PathBuf> {
        let directories = self.shared.directories();
        let directory = directories.paths.get(event.place.as_ref()?)?;
        Some(if event.name == b"." {
            directory.clone()
        } else {
            directory.join(OsStr::from_bytes(&event.name))
        })
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.runs.load(Ordering::Acquire) {
            self.inbox.ended(self.generation);
        }
    }
}
