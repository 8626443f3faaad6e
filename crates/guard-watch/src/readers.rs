//! Who opens single files: fanotify with a mark on each file's inode.
//!
//! A mark follows the inode, by whichever name, mount or namespace it is opened. A file that takes the place of a
//! marked one has no mark until [`Readers::follow`] is called for it. A reader is asked who it is when the event is
//! read, a moment after it opened the file. guardd itself is never told.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use guard_model::RelPath;
use guard_model::access::Access;
use guard_model::finding::Actor;
use guard_sys::fanotify::{Event, Group, ObjectId, What};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::attribution::Attribution;

/// What is told of one process and one file.
#[derive(Debug, Clone)]
pub struct Accessed {
    /// The path that the file was followed by.
    pub path: RelPath,
    /// What was done, each once.
    pub access: BTreeSet<Access>,
    /// How often at least.
    pub times: u64,
    /// Who did it, where the kernel tells.
    pub by: Option<Arc<By>>,
}

/// A process, with what cannot be feigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// The process.
    pub actor: Arc<Actor>,
    /// Device and inode of what it executes; `None` where it had ended.
    pub executable: Option<(u64, u64)>,
    /// The outermost service or scope that it belongs to: what is inside could be named by itself.
    pub service: Option<String>,
}

/// What [`Readers`] tell.
#[derive(Debug)]
pub enum ReadHint {
    /// Files were opened or read.
    Accessed(Vec<Accessed>),
    /// More than could be told, and why.
    Missed(String),
    /// Nothing will be told any more, and why.
    Ended(String),
}

/// Follows files and tells who opens them, until it is dropped.
#[derive(Debug)]
pub struct Readers {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    group: Group,
    files: Mutex<Files>,
}

#[derive(Debug, Default)]
struct Files {
    paths: HashMap<ObjectId, RelPath>,
    ids: HashMap<RelPath, ObjectId>,
}

impl Shared {
    fn files(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Readers {
    /// Starts with no files. The sink is called from a thread of its own.
    ///
    /// # Errors
    /// Where this process may have no fanotify group, or no thread.
    pub fn start(sink: impl Fn(ReadHint) + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared { group: Group::for_reads()?, files: Mutex::default() });
        let stop = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let reader = Reader {
            shared: Arc::clone(&shared),
            stop: Arc::clone(&stop),
            attribution: Attribution::default(),
            gathered: HashMap::new(),
            missed: false,
            told: Instant::now(),
            sink,
        };
        let thread = std::thread::Builder::new().name("readers".to_owned()).spawn(move || reader.run())?;
        Ok(Self { shared, stop, thread: Some(thread) })
    }

    /// Tells from now on who opens this file, known by `path`; the handle need only be located. Doing it again is
    /// harmless. Another file that was followed by the same path is not told of any more.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENODEV` or `EXDEV` where the file system has no handles that events could carry; `ENOSPC` at
    /// the limit of marks.
    pub fn follow(&self, path: &RelPath, file: BorrowedFd<'_>) -> io::Result<()> {
        let id = ObjectId::of(file)?;
        {
            let mut files = self.shared.files();
            if files.paths.get(&id) == Some(path) {
                return Ok(());
            }
            // Of two names of one file, the first one stands for it.
            files.paths.entry(id.clone()).or_insert_with(|| path.clone());
        }
        if let Err(e) = self.shared.group.mark_reads(file) {
            self.shared.files().paths.remove(&id);
            return Err(e);
        }
        let mut files = self.shared.files();
        if let Some(before) = files.ids.insert(path.clone(), id.clone())
            && before != id
            && files.paths.get(&before) == Some(path)
        {
            files.paths.remove(&before);
        }
        Ok(())
    }

    /// How many files are followed.
    #[must_use]
    pub fn files(&self) -> usize {
        self.shared.files().ids.len()
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        // It fails only where its counter is full, which is a request to stop as well.
        rustix::io::write(&self.stop, &1u64.to_ne_bytes()).ok();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that hears of reads had panicked");
        }
    }
}

/// Bytes taken from the kernel at once: some hundred events, each with a descriptor.
const BUFFER: usize = 8192;
/// What is read in this span is told together.
const LULL: Duration = Duration::from_millis(20);
/// Processes and files told apart in such a span; more is [`ReadHint::Missed`].
const APART: usize = 256;

struct Reader<S> {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    attribution: Attribution,
    gathered: HashMap<(RelPath, Option<i32>), Accessed>,
    missed: bool,
    told: Instant,
    sink: S,
}

impl<S: Fn(ReadHint)> Reader<S> {
    fn run(mut self) {
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut asked =
                [PollFd::new(&self.shared.group, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
            let wait = self.until_told();
            match poll(&mut asked, wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return (self.sink)(ReadHint::Ended(format!("waiting for reads: {e}"))),
            }
            if asked.last().is_some_and(|stop| !stop.revents().is_empty()) {
                return self.tell();
            }
            let shared = Arc::clone(&self.shared);
            match shared.group.read(&mut buffer) {
                Ok(events) => events.into_iter().for_each(|event| self.take(event)),
                Err(e) => return (self.sink)(ReadHint::Ended(format!("reading who reads: {e}"))),
            }
            if self.told.elapsed() >= LULL {
                self.tell();
            }
        }
    }

    /// How long to wait for more before what there is has to be told; `None` for ever.
    fn until_told(&self) -> Option<Timespec> {
        let left = LULL.saturating_sub(self.told.elapsed());
        let waits = self.missed || !self.gathered.is_empty();
        waits.then(|| Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) })
    }

    fn take(&mut self, mut event: Event) {
        if event.is(What::Overflow) {
            self.missed = true;
            return;
        }
        let known = event.place.as_ref().and_then(|id| self.shared.files().paths.get(id).cloned());
        let Some(path) = known else { return };
        // guardd itself reads all of them, again and again.
        if event.pid == Some(std::process::id().cast_signed()) {
            return;
        }
        let key = (path, event.pid);
        if self.gathered.len() >= APART && !self.gathered.contains_key(&key) {
            self.missed = true;
            return;
        }
        let by = self.attribution.reader(event.pid, event.process.take());
        let kinds =
            [(What::Opened, Access::Opened), (What::Read, Access::Read), (What::Executed, Access::Executed)];
        let access = kinds.into_iter().filter(|(what, _)| event.is(*what)).map(|(_, access)| access);
        let path = key.0.clone();
        let told = self.gathered.entry(key).or_insert(Accessed {
            path,
            access: BTreeSet::new(),
            times: 0,
            by: None,
        });
        told.access.extend(access);
        told.times += u64::from(event.is(What::Opened));
        // A program may have become another one, or ended: the fuller answer counts.
        if told.by.as_ref().is_none_or(|known| known.executable.is_none()) {
            told.by = by.or(told.by.take());
        }
    }

    fn tell(&mut self) {
        self.told = Instant::now();
        if !self.gathered.is_empty() {
            (self.sink)(ReadHint::Accessed(self.gathered.drain().map(|(_, told)| told).collect()));
        }
        if std::mem::take(&mut self.missed) {
            (self.sink)(ReadHint::Missed("they came faster than they could be told apart".to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_model::finding::Confidence;
    use guard_sys::open::{self, How};
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::sync::mpsc::{Receiver, channel};

    fn start() -> Option<(Readers, Receiver<ReadHint>)> {
        let (sender, heard) = channel();
        match Readers::start(move |hint| sender.send(hint).unwrap_or_default()) {
            Ok(readers) => Some((readers, heard)),
            Err(e) => {
                eprintln!("skipped: {e}");
                None
            }
        }
    }

    fn follow(readers: &Readers, name: &str, file: &Path) {
        let handle = open::absolute(file, How::Locate).unwrap();
        readers.follow(&RelPath::from_text(name).unwrap(), handle.as_fd()).unwrap();
    }

    fn sum(heard: &Receiver<ReadHint>, enough: impl Fn(&[Accessed]) -> bool) -> Vec<Accessed> {
        let mut all = Vec::new();
        while !enough(&all) {
            if let ReadHint::Accessed(more) = heard.recv_timeout(Duration::from_secs(20)).unwrap() {
                all.extend(more);
            }
        }
        all
    }

    #[test]
    fn a_living_reader_is_named_and_a_replaced_file_is_followed_anew() {
        let Some((readers, heard)) = start() else { return };
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("secret");
        fs::write(&file, "x").unwrap();
        follow(&readers, "secret", &file);
        follow(&readers, "secret", &file);
        // By ourselves: never told.
        fs::read(&file).unwrap();
        let mut tail = Command::new("tail")
            .args(["-f", "--pid", &std::process::id().to_string()])
            .arg(&file)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let told = sum(&heard, |all| all.iter().any(|a| a.access.contains(&Access::Read)));
        let one = told.last().unwrap();
        let by = one.by.clone().unwrap();
        assert_eq!((one.path.to_string().as_str(), by.actor.pid), ("secret", tail.id().cast_signed()));
        assert_eq!(by.actor.confidence, Confidence::Verified);
        assert!(by.executable.is_some());
        tail.kill().unwrap();
        tail.wait().unwrap();

        fs::rename(&file, top.path().join("old")).unwrap();
        fs::write(&file, "y").unwrap();
        follow(&readers, "secret", &file);
        assert_eq!(readers.files(), 1);
        assert!(
            Command::new("cat").args([&file, &top.path().join("old")]).output().unwrap().status.success()
        );
        let told = sum(&heard, |all| all.iter().any(|a| a.access.contains(&Access::Read)));
        assert!(told.iter().all(|a| a.times <= 1), "the file that was replaced is told of: {told:?}");
    }

    #[test]
    fn ten_thousand_opens_are_a_few_messages() {
        let Some((readers, heard)) = start() else { return };
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("secret");
        fs::write(&file, "x").unwrap();
        follow(&readers, "secret", &file);
        let script = format!("i=0; while [ $i -lt 10000 ]; do : < '{}'; i=$((i+1)); done", file.display());
        assert!(Command::new("sh").args(["-c", &script]).status().unwrap().success());
        drop(readers);
        let told: Vec<Accessed> = heard
            .into_iter()
            .flat_map(|hint| match hint {
                ReadHint::Accessed(all) => all,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!((1..1000).contains(&told.len()), "{}", told.len());
        assert!(told.iter().all(|a| a.access.contains(&Access::Opened)));
    }
}
