//! The workers of a scan.
//!
//! Directories wait on one stack. A worker takes the newest, opens it beneath the
//! root (or beneath the directory that it had before, if that is its parent), lists
//! it and looks at its entries relative to its handle. At no time does a worker hold more
//! than two directories open, however deep a tree is; and those whose big files are being read.
//!
//! Big files come before directories, each as work of its own: see [`crate::big`].

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use guard_model::baseline::Role;
use guard_model::{Class, Entry, Kind, Observed, Policy, RelPath};
use guard_sys::dir::Listing;
use guard_sys::open::{self, How};
use guard_sys::priority::set_disk_idle;
use guard_sys::read::CacheUse;
use guard_sys::stat::{self, FileType};

use crate::big::{BIG, BigFile, Waiting};
use crate::literals::Literals;
use crate::observe::{AskWriters, Control, Observer, Sight, is_absence, why};
use crate::pace::{Pace, Throttle};
use crate::passage::Search;
use crate::readers;
use crate::stack::Stack;
use crate::telling::{Found, Shared, Teller};
use crate::{Content, Root, ScanContent, ScanOptions, ScanReport, TreeError, Visitor};

/// Longer paths are skipped, which is said. The kernel takes 4096 bytes at once; nobody
/// but somebody who wants to wear a scanner out goes to sixteen times as much.
const LONGEST_PATH: usize = 64 << 10;

/// The passages of the unprotected part that a directory lies in.
pub(crate) type Passages = Arc<HashSet<RelPath>>;

/// What one thread does at a time.
enum Job<D> {
    Directory(Task),
    Big(BigFile<D>),
}

/// A directory to be looked at.
struct Task {
    path: RelPath,
    class: Class,
    /// `None` in the protected part.
    passages: Option<Passages>,
    /// The mount it lies on.
    mount: Option<u64>,
    /// For the directory that the scan starts from: how it is to be reported itself.
    start: Option<Box<(Role, Observed)>>,
}

/// What all workers of a scan have in common.
struct Scan<'a, V: Visitor> {
    root: &'a Root,
    policy: &'a Policy,
    content: ScanContent,
    visitor: &'a V,
    literals: Literals,
    control: Control<'a>,
    stack: Stack<Job<V::Dir>>,
    puts_off: bool,
    failed: Mutex<Option<TreeError>>,
    report: Mutex<ScanReport>,
}

pub(crate) fn walk<V: Visitor>(
    root: &Root,
    policy: &Policy,
    from: &RelPath,
    options: &ScanOptions<'_>,
    visitor: &V,
) -> Result<ScanReport, TreeError> {
    let throttle = options.pace.map(Throttle::new);
    let scan = Scan {
        root,
        policy,
        content: options.content,
        visitor,
        literals: if from.is_root() { Literals::of(policy) } else { Literals::default() },
        control: Control {
            at_once: false,
            cancel: Some(options.cancel),
            progress: Some(options.progress),
            throttle: throttle.as_ref(),
        },
        stack: Stack::default(),
        puts_off: options.workers > 1,
        failed: Mutex::default(),
        report: Mutex::default(),
    };
    if scan.begin(from)? {
        scan.work(options.workers.max(1), options.pace.is_some())?;
    }
    let mut report = scan.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    report.mounts.sort();
    report.skipped.sort();
    report.skipped.dedup();
    report.unmatched = scan.literals.unmatched(root);
    Ok(report)
}

impl<V: Visitor> Scan<'_, V> {
    /// Puts `from` on the stack, or reports it at once where it is no directory. False where
    /// there is nothing more to do.
    fn begin(&self, from: &RelPath) -> Result<bool, TreeError> {
        let sight = self.root.sight(from, Content::Skip, self.control);
        let is_dir = match &sight.observed {
            Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. } => e.kind == Kind::Directory,
            // What is not there was a directory, or nobody would scan from it.
            Observed::Absent | Observed::Unreadable { entry: None, .. } => true,
        };
        let class =
            if from.is_root() { self.policy.root_class() } else { self.policy.classify(from, is_dir) };
        let mut worker = Worker::new(self, CacheUse::Ordinary);
        let mut passages = None;
        let role = match role_of(class) {
            Some(role) => role,
            None if is_dir && matches!(class, Class::Unprotected | Class::Ignored) => {
                let found = worker.search(from, class)?;
                if !from.is_root() && !found.contains(from) {
                    return Ok(false);
                }
                passages = Some(found);
                Role::Passage
            }
            None => return Ok(false),
        };
        if is_dir && matches!(sight.observed, Observed::Present(_)) && role != Role::WritableTop {
            let start = Some(Box::new((role, sight.observed)));
            let task = Task { path: from.clone(), class, passages, mount: sight.mount, start };
            self.stack.push(Job::Directory(task));
            worker.hand_in();
            return Ok(true);
        }
        worker.teller.enter(from);
        let observed = match sight.observed {
            Observed::Present(e) if e.kind == Kind::File => {
                let expected = self.expected(&worker.teller, None, from, FileType::RegularFile);
                let content = self.content(FileType::RegularFile, expected.as_deref());
                self.root.sight(from, content, self.control).observed
            }
            other => other,
        };
        worker.teller.found(None, Found { path: from.clone(), class, role, observed, writers: None });
        worker.teller.leave();
        worker.hand_in();
        Ok(false)
    }

    /// What should be at a path, where that decides whether it is read.
    fn expected<'t>(
        &self,
        teller: &'t Teller<'_, V>,
        shared: Shared<'_, V::Dir>,
        path: &RelPath,
        listed: FileType,
    ) -> Option<Cow<'t, Entry>> {
        let asked = self.content == ScanContent::WhereDiffers && listed == FileType::RegularFile;
        if asked { teller.expected(shared, path) } else { None }
    }

    fn content<'e>(&self, listed: FileType, expected: Option<&'e Entry>) -> Content<'e> {
        match (self.content, expected) {
            (ScanContent::Glance, _) => Content::Glance,
            _ if listed != FileType::RegularFile => Content::Skip,
            (ScanContent::None, _) => Content::Skip,
            (ScanContent::AllFromDevice, _) => Content::ReadFromDevice,
            (ScanContent::WhereDiffers, Some(expected)) => Content::IfDiffers(expected),
            (ScanContent::WhereDiffers, None) | (ScanContent::All | ScanContent::AllAndWriters, _) => {
                Content::Read
            }
        }
    }

    fn work(&self, workers: usize, paced: bool) -> Result<(), TreeError> {
        let run = || self.run(paced);
        thread::scope(|scope| {
            let start = |n: usize| {
                let named = thread::Builder::new().name(format!("scan-{n}"));
                named.spawn_scoped(scope, run).map(|_| ())
            };
            for n in 0..workers {
                match start(n) {
                    Ok(()) => {}
                    // Fewer do it too.
                    Err(e) if n > 0 => {
                        tracing::warn!(error = %e, workers = n, "fewer threads for a scan");
                        return Ok(());
                    }
                    Err(source) => {
                        let path = self.root.path().to_owned();
                        return Err(TreeError::Io { operation: "start a thread to scan", path, source });
                    }
                }
            }
            if workers > 1 && !paced {
                readers::add(workers, |so_long| self.stack.watch(so_long), start);
            }
            Ok(())
        })?;
        lock(&self.failed).take().map_or(Ok(()), Err)
    }

    /// What each thread does.
    fn run(&self, paced: bool) {
        let cache = if paced {
            // A wish: without it the pace still holds.
            if let Err(e) = set_disk_idle() {
                tracing::debug!(error = %e, "no idle disk priority for a scan");
            }
            CacheUse::LeaveAsFound
        } else {
            CacheUse::Ordinary
        };
        let mut worker = Worker::new(self, cache);
        // What was taken last counts as being worked on until all that was seen of it is told.
        let mut last = None;
        loop {
            let next = self.stack.take_now().or_else(|| {
                // Others may need long until there is something to do.
                if !self.is_given_up() {
                    worker.tell_all();
                }
                last = None;
                self.stack.take()
            });
            let Some((job, busy)) = next else { break };
            last = Some(busy);
            let done = match job {
                Job::Directory(task) => worker.directory(task),
                Job::Big(file) => worker.big(file),
            };
            if let Err(e) = done {
                lock(&self.failed).get_or_insert(e);
                self.stack.stop();
            }
        }
        if !self.is_given_up() && !worker.teller.is_done() {
            // Rather no scan than one that passes over a file in silence.
            lock(&self.failed).get_or_insert(TreeError::Untold);
        }
        worker.hand_in();
    }

    /// Nobody wants to hear more of it.
    fn is_given_up(&self) -> bool {
        self.control.is_cancelled() || lock(&self.failed).is_some()
    }
}

/// One thread's part in a scan.
struct Worker<'s, 'a, V: Visitor> {
    scan: &'s Scan<'a, V>,
    observer: Observer<'a>,
    listing: Listing,
    /// For the search for passages, which happens while `listing` is gone through.
    second: Listing,
    /// The directory that was looked at last.
    last: Option<(RelPath, OwnedFd)>,
    teller: Teller<'s, V>,
    /// Names of big files in the directory that is gone through.
    put_off: Vec<Box<[u8]>>,
}

impl<'s, 'a, V: Visitor> Worker<'s, 'a, V> {
    fn new(scan: &'s Scan<'a, V>, cache: CacheUse) -> Self {
        Self {
            scan,
            observer: Observer::new(cache, scan.control),
            listing: Listing::default(),
            second: Listing::default(),
            last: None,
            teller: Teller::new(scan.visitor, scan.control.progress),
            put_off: Vec::new(),
        }
    }

    fn directory(&mut self, task: Task) -> Result<(), TreeError> {
        self.make_room();
        let Task { path, class, passages, mount, start } = task;
        let fd = match self.open(&path).and_then(|fd| self.listing.read(fd.as_fd()).map(|()| fd)) {
            Ok(fd) => fd,
            Err(e) if is_absence(&e) => {
                // It went away since it was found: with all its children.
                self.teller.enter(&path);
                if let Some((role, _)) = start.map(|s| *s) {
                    let observed = Observed::Absent;
                    self.teller.found(None, Found { path, class, role, observed, writers: None });
                }
                self.teller.leave();
                return Ok(());
            }
            Err(source) if start.is_some() => {
                return Err(TreeError::Io {
                    operation: "list",
                    path: self.scan.root.absolute(&path),
                    source,
                });
            }
            Err(e) => {
                self.teller.tally.skip(path, why("list", &e));
                return Ok(());
            }
        };
        self.teller.enter(&path);
        if let Some((role, observed)) = start.map(|s| *s) {
            self.teller.found(None, Found { path: path.clone(), class, role, observed, writers: None });
        }
        let listing = std::mem::take(&mut self.listing);
        let here = Here { path: &path, fd: fd.as_fd(), class, passages: passages.as_ref(), mount };
        self.observer.begin_directory();
        self.observer.put_off(self.scan.puts_off.then_some(BIG));
        // Of a scan that reads little, a file would wait long, and with it all that is seen after it.
        let reads_all = matches!(self.scan.content, ScanContent::All | ScanContent::AllAndWriters);
        self.observer.hash_later(reads_all);
        let done = listing.iter().try_for_each(|(name, kind)| self.entry(None, &here, name, kind));
        self.listing = listing;
        done?;
        if self.put_off.is_empty() {
            self.teller.leave();
            self.last = Some((path, fd));
            return Ok(());
        }
        self.tell_all();
        let Some(dir) = self.teller.hand_over() else { return Ok(()) };
        let of = Arc::new(Waiting { path, fd, class, passages, mount, dir: Mutex::new(dir) });
        for name in self.put_off.drain(..) {
            self.scan.stack.push_first(Job::Big(BigFile { of: Arc::clone(&of), name }));
        }
        self.leave_if_last(of);
        Ok(())
    }

    /// Reads one big file. Whatever stands at its name by now, it is looked at as when its directory was gone through.
    fn big(&mut self, BigFile { of, name }: BigFile<V::Dir>) -> Result<(), TreeError> {
        let Waiting { path, fd, class, passages, mount, dir } = &*of;
        let here = Here { path, fd: fd.as_fd(), class: *class, passages: passages.as_ref(), mount: *mount };
        self.observer.put_off(None);
        self.observer.hash_later(false);
        self.entry(Some(dir), &here, &name, FileType::RegularFile)?;
        self.leave_if_last(of);
        Ok(())
    }

    fn leave_if_last(&self, of: Arc<Waiting<V::Dir>>) {
        if let Some(Waiting { path, dir, .. }) = Arc::into_inner(of) {
            self.scan.visitor.leave(dir.into_inner().unwrap_or_else(PoisonError::into_inner), &path);
        }
    }

    fn open(&mut self, path: &RelPath) -> io::Result<OwnedFd> {
        match self.last.take() {
            Some((last, fd)) if path.parent().is_some_and(|p| p == last) => {
                open::child(fd.as_fd(), path.name(), How::List)
            }
            _ => self.scan.root.open_beneath(path, How::List),
        }
    }

    fn entry(
        &mut self,
        shared: Shared<'_, V::Dir>,
        here: &Here<'_>,
        name: &[u8],
        listed: FileType,
    ) -> Result<(), TreeError> {
        let control = self.scan.control;
        if control.is_cancelled() {
            return Err(TreeError::Cancelled);
        }
        // No name in a directory has a slash or a NUL in it.
        let Ok(path) = here.path.join(name) else { return Ok(()) };
        if path.as_bytes().len() > LONGEST_PATH {
            self.teller
                .tally
                .skip(here.path.clone(), format!("holds paths of more than {LONGEST_PATH} bytes"));
            return Ok(());
        }
        let listed = match listed {
            FileType::Unknown => match stat::child(here.fd, name) {
                Ok(stat) => stat.kind,
                Err(_) => FileType::Unknown,
            },
            kind => kind,
        };
        let mut is_dir = listed == FileType::Directory;
        self.scan.literals.note(name, is_dir);
        let Some(mut place) = self.place(here, &path, is_dir)? else {
            let class = self.scan.policy.child(here.class, &path, is_dir);
            self.teller.passed_over(shared, &path, class);
            return Ok(());
        };
        if let Some(throttle) = control.throttle {
            throttle.charge(Pace::ENTRY_COST, control.cancel);
        }
        let expected = self.scan.expected(&self.teller, shared, &path, listed);
        self.observer.ask_writers(self.ask_writers(place.role));
        let content = self.scan.content(listed, expected.as_deref());
        let mut sight = self.observer.child(here.fd, name, content);
        drop(expected);
        if sight.is_put_off {
            self.put_off.push(name.into());
            return Ok(());
        }
        if let Some(kind) = sight.kind() {
            // Replaced by another kind since it was listed?
            if (kind == Kind::Directory) != is_dir {
                is_dir = !is_dir;
                let Some(now) = self.place(here, &path, is_dir)? else { return Ok(()) };
                place = now;
                self.observer.ask_writers(self.ask_writers(place.role));
            }
            if kind == Kind::File && listed != FileType::RegularFile {
                let expected = self.scan.expected(&self.teller, shared, &path, FileType::RegularFile);
                let content = self.scan.content(FileType::RegularFile, expected.as_deref());
                self.observer.put_off(None);
                sight = self.observer.child(here.fd, name, content);
                self.observer.put_off(self.scan.puts_off.then_some(BIG));
            }
        }
        if matches!(sight.observed, Observed::Absent) {
            return Ok(()); // Gone since it was listed, like what was never there.
        }
        if control.is_cancelled() {
            return Err(TreeError::Cancelled); // Perhaps while it was read.
        }
        if sight.mount.is_some_and(|m| here.mount.is_some_and(|h| h != m)) {
            self.teller.tally.mounts.push(path.clone());
        }
        let descend =
            is_dir && place.role != Role::WritableTop && matches!(sight.observed, Observed::Present(_));
        let task = descend.then(|| Task {
            path: path.clone(),
            class: place.class,
            passages: place.passages,
            mount: sight.mount,
            start: None,
        });
        let Sight { observed, writers, ticket, .. } = sight;
        let found = Found { path, class: place.class, role: place.role, observed, writers };
        match ticket {
            Some(ticket) => {
                self.teller.found_later(found, ticket);
                self.settle();
                self.make_room();
            }
            None => self.teller.found(shared, found),
        }
        task.into_iter().for_each(|task| self.scan.stack.push(Job::Directory(task)));
        Ok(())
    }

    /// Tells what was hashed meanwhile.
    fn settle(&mut self) {
        if let Some(batch) = self.observer.batch() {
            self.teller.settle(batch);
        }
    }

    fn make_room(&mut self) {
        if self.teller.keeps_much() {
            self.tell_all();
        }
    }

    /// Tells all that waits, hashing what is not hashed yet.
    fn tell_all(&mut self) {
        if let Some(batch) = self.observer.batch() {
            batch.hash();
        }
        self.settle();
    }

    /// How a path is to be reported; `None` for not at all.
    fn place(&mut self, here: &Here<'_>, path: &RelPath, is_dir: bool) -> Result<Option<Place>, TreeError> {
        let class = self.scan.policy.child(here.class, path, is_dir);
        if let Some(role) = role_of(class) {
            return Ok(Some(Place { class, role, passages: None }));
        }
        if !is_dir || class == Class::Writable {
            return Ok(None);
        }
        let passages = match here.passages {
            Some(passages) => Arc::clone(passages),
            None => self.search(path, class)?,
        };
        let leads = passages.contains(path);
        Ok(leads.then_some(Place { class, role: Role::Passage, passages: Some(passages) }))
    }

    fn search(&mut self, top: &RelPath, class: Class) -> Result<Passages, TreeError> {
        let scan = self.scan;
        let search =
            Search { root: scan.root, policy: scan.policy, literals: &scan.literals, control: scan.control };
        search.below(top, class, &mut self.second, &mut self.teller.tally.skipped).map(Arc::new)
    }

    fn ask_writers(&self, role: Role) -> AskWriters {
        let protected = matches!(role, Role::Protected | Role::Sensitive);
        if protected && self.scan.content == ScanContent::AllAndWriters {
            AskWriters::Yes
        } else {
            AskWriters::No
        }
    }

    /// Adds what this worker counted to the report.
    fn hand_in(self) {
        self.teller.tally.add_to(&mut lock(&self.scan.report));
    }
}

/// The directory whose entries are being looked at.
struct Here<'d> {
    path: &'d RelPath,
    fd: BorrowedFd<'d>,
    class: Class,
    passages: Option<&'d Passages>,
    mount: Option<u64>,
}

/// How an entry is reported.
struct Place {
    class: Class,
    role: Role,
    passages: Option<Passages>,
}

fn role_of(class: Class) -> Option<Role> {
    match class {
        Class::Protected { sensitive: true } => Some(Role::Sensitive),
        Class::Protected { sensitive: false } => Some(Role::Protected),
        Class::WritableTop => Some(Role::WritableTop),
        Class::Writable | Class::Ignored | Class::Unprotected => None,
    }
}

impl Sight {
    fn kind(&self) -> Option<Kind> {
        match &self.observed {
            Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. } => Some(e.kind),
            Observed::Absent | Observed::Unreadable { entry: None, .. } => None,
        }
    }
}

/// A worker that panicked leaves nothing half-done behind these locks.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
