//! fanotify with a mark on each file's inode.
//!
//! A mark follows the inode, by whichever name, mount or namespace it is opened. A file that takes the place of a
//! marked one has no mark until [`Marks::follow`] is called for it. A reader is asked who it is when the event is
//! read, a moment after it opened the file.

use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guard_model::RelPath;
use guard_model::access::Access;
use guard_sys::clock::monotonic_nanos;
use guard_sys::fanotify::{Event, Group, ObjectId, What};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

#[cfg(test)]
use super::ReadHint;
use super::Sink;
use super::gather::Gathered;
use crate::attribution::{Attribution, Named};
use crate::listening::Listening;
use crate::programs::Memory;

/// What it does not see.
pub(super) const BLIND: [&str; 2] = [
    "who had a file open, or mapped, before it was followed",
    "reads of a file that took the place of another one, until that is noticed",
];

/// The marked files, and the thread that hears of them.
#[derive(Debug)]
pub(super) struct Marks {
    shared: Arc<Shared>,
    memory: Memory,
    /// While this is there.
    _listening: Listening,
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

impl Marks {
    pub(super) fn start(sink: Sink) -> io::Result<Self> {
        let group = Group::for_reads()?;
        // Before there can be an event: no file is followed.
        let (memory, programs) = Memory::for_events(group.names_processes());
        let quiet_ns = monotonic_nanos();
        let shared = Arc::new(Shared { group, files: Mutex::default() });
        let (heard, gathered) = (Arc::clone(&shared), Gathered::new(sink));
        let listening = Listening::start("readers", move |stop| {
            Reader { shared: heard, stop, attribution: Attribution::with(programs), gathered, quiet_ns }
                .run();
        })?;
        Ok(Self { shared, memory, _listening: listening })
    }

    pub(super) fn blind(&self) -> Vec<String> {
        let name = match self.memory.lacking() {
            Some(why) => format!("the name of a reader that ended within moments ({why})"),
            None => "the name of a reader that ended within moments, where another may have had its number"
                .to_owned(),
        };
        BLIND.map(str::to_owned).into_iter().chain([name]).collect()
    }

    pub(super) fn follow(&self, path: &RelPath, file: BorrowedFd<'_>) -> io::Result<()> {
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

    pub(super) fn files(&self) -> usize {
        self.shared.files().ids.len()
    }
}

/// Bytes taken from the kernel at once: some hundred events, each with a descriptor.
const BUFFER: usize = 8192;

/// Buffers taken one after the other before it is looked whether to end.
const PARTS: usize = 4;

struct Reader {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    attribution: Attribution,
    gathered: Gathered,
    /// Nothing was waiting at this moment (`CLOCK_MONOTONIC`).
    quiet_ns: u64,
}

impl Reader {
    fn run(mut self) {
        // Who did it may be gone in a moment. Where it is not permitted, it is as quick as it can be.
        guard_sys::priority::go_first().ok();
        let mut buffer = vec![0; BUFFER];
        loop {
            let mut asked =
                [PollFd::new(&self.shared.group, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
            let wait = self.gathered.until_told();
            match poll(&mut asked, wait.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return self.gathered.end(format!("waiting for reads: {e}")),
            }
            if asked.last().is_some_and(|stop| !stop.revents().is_empty()) {
                return self.gathered.tell();
            }
            if let Err(e) = self.empty(&mut buffer) {
                return self.gathered.end(format!("reading who reads: {e}"));
            }
            self.gathered.tell_in_time();
        }
    }

    /// Takes what waits; a storm in parts.
    fn empty(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        for _ in 0..PARTS {
            let now_ns = monotonic_nanos();
            let shared = Arc::clone(&self.shared);
            let events = shared.group.read(buffer)?;
            if events.is_empty() {
                self.quiet_ns = now_ns;
                return Ok(());
            }
            events.into_iter().for_each(|event| self.take(event));
            self.gathered.tell_in_time();
        }
        Ok(())
    }

    fn take(&mut self, mut event: Event) {
        if event.is(What::Overflow) {
            self.gathered.miss("they came faster than they could be told apart");
            return;
        }
        let known = event.place.as_ref().and_then(|id| self.shared.files().paths.get(id).cloned());
        let Some(path) = known else { return };
        // guardd itself reads all of them, again and again.
        if event.is_ours {
            return;
        }
        let kinds =
            [(What::Opened, Access::Opened), (What::Read, Access::Read), (What::Executed, Access::Executed)];
        let access: Vec<Access> =
            kinds.into_iter().filter(|(what, _)| event.is(*what)).map(|(_, access)| access).collect();
        let times = u64::from(event.is(What::Opened));
        let (attribution, pid) = (&mut self.attribution, event.pid);
        let named = Named::by(&mut event, self.quiet_ns);
        self.gathered.add(path, pid, access, times, || attribution.by(named));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Accessed;
    use super::*;
    use guard_model::finding::Confidence;
    use guard_sys::open::{self, How};
    use std::fs;
    use std::os::fd::AsFd as _;
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    fn start() -> Option<(Marks, Receiver<ReadHint>)> {
        let (sender, heard) = channel();
        match Marks::start(Arc::new(move |hint| sender.send(hint).unwrap_or_default())) {
            Ok(readers) => Some((readers, heard)),
            Err(e) => {
                eprintln!("skipped: {e}");
                None
            }
        }
    }

    fn follow(readers: &Marks, name: &str, file: &Path) {
        let handle = open::absolute(file, How::Locate).unwrap();
        readers.follow(&RelPath::from_text(name).unwrap(), handle.as_fd()).unwrap();
    }

    fn sum(heard: &Receiver<ReadHint>, enough: impl Fn(&[Accessed]) -> bool) -> Vec<Accessed> {
        let mut all = Vec::new();
        while !enough(&all) {
            if let ReadHint::Accessed(more) = heard.recv_timeout(Duration::from_secs(120)).unwrap() {
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
    fn a_reader_that_has_ended_is_named_by_what_it_executed_or_not_at_all() {
        let Some((readers, heard)) = start() else { return };
        let top = tempfile::tempdir().unwrap();
        let file = top.path().join("secret");
        fs::write(&file, "x").unwrap();
        follow(&readers, "secret", &file);
        let lacking = readers.memory.lacking();
        let said = readers.blind();
        let ended = said.iter().find(|words| words.contains("ended within moments")).unwrap();
        assert_eq!(lacking.as_ref().is_some_and(|why| ended.contains(why)), lacking.is_some(), "{ended}");
        let mut whole = 0;
        for _ in 0..100 {
            let mut cat = Command::new("cat").arg(&file).stdout(Stdio::null()).spawn().unwrap();
            let pid = cat.id().cast_signed();
            cat.wait().unwrap();
            let told =
                sum(&heard, |all| all.iter().any(|a| a.by.as_ref().is_some_and(|by| by.actor.pid == pid)));
            for by in told.into_iter().filter_map(|a| a.by).filter(|by| by.actor.pid == pid) {
                let actor = &by.actor;
                if actor.confidence != Confidence::Verified {
                    assert_eq!(by.executable, None, "it proves nothing to anybody: {by:?}");
                }
                assert!(actor.comm.as_deref().is_none_or(|name| name == "cat"), "{by:?}");
                assert!(actor.exe.as_deref().is_none_or(|exe| !exe.contains("guard_watch")), "{by:?}");
                whole += u32::from(actor.confidence == Confidence::Exited && actor.exe.is_some());
            }
        }
        if whole == 0 {
            eprintln!("skipped: nobody had ended before he was asked, or more happens here than is heard");
        }
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
