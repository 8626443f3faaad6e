//! What processes execute, seen when they begin it: for those that end before they could be asked.
//!
//! One subscription to the kernel's process connector for the whole of guardd, with one thread that hears it, held as
//! long as somebody's events are to be named. Whoever has an event asks here, and only for those who are gone. Who is not
//! told this way is `None` here, never somebody else: see [`cache`].

mod cache;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use guard_model::finding::Actor;
use guard_sys::clock::monotonic_nanos;
use guard_sys::identity;
use guard_sys::process_events::{Event, Heard, Listener, What};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::listening::Listening;
use cache::{Cache, Look, Program};

/// Events that are taken at once: what ended meanwhile need not be looked at.
const BATCH: usize = 256;
/// Processes looked at in a second; more of them are not named this way.
const LOOKS: u32 = 1000;
/// A subscription that has failed is tried again this often.
const AGAIN: Duration = Duration::from_secs(60);

/// The one that there is, as long as there is one.
static SHARED: Mutex<Weak<Programs>> = Mutex::new(Weak::new());

/// Who tells of processes.
trait Source: AsFd + Send {
    /// The next of what waits; `None` where nothing does.
    fn hear(&mut self) -> io::Result<Option<Heard>>;
}

impl Source for Listener {
    fn hear(&mut self) -> io::Result<Option<Heard>> {
        Self::hear(self)
    }
}

/// Subscribes.
type Subscribe = Box<dyn Fn() -> io::Result<Box<dyn Source>> + Send>;

/// Remembers what processes execute, for whoever asks.
pub(crate) struct Programs {
    state: Arc<Mutex<State>>,
    /// The thread that hears.
    _listening: Listening,
}

struct State {
    /// Why there is none, once it has failed.
    source: Result<Box<dyn Source>, String>,
    cache: Cache,
    looks: Looks,
}

impl Programs {
    /// The subscription that there is, or a new one; else why not, in words.
    pub(crate) fn shared() -> Result<Arc<Self>, String> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(programs) = shared.upgrade() {
            return Ok(programs);
        }
        let listener = || Ok(Box::new(Listener::open()?) as Box<dyn Source>);
        let programs = Arc::new(Self::open(Box::new(listener), AGAIN)?);
        *shared = Arc::downgrade(&programs);
        Ok(programs)
    }

    /// The subscription that there is on somebody else's account.
    pub(crate) fn there_is() -> Option<Arc<Self>> {
        SHARED.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }

    fn open(subscribe: Subscribe, again: Duration) -> Result<Self, String> {
        let source = subscribe().map_err(|e| because(&e))?;
        let cache = Cache::since(monotonic_nanos());
        let state = Arc::new(Mutex::new(State { source: Ok(source), cache, looks: Looks::default() }));
        let own = Arc::clone(&state);
        let listening = Listening::start("processes", move |stop| listen(&own, &subscribe, again, &stop))
            .map_err(|e| format!("processes are not heard of: no thread: {e}"))?;
        Ok(Self { state, _listening: listening })
    }

    /// Who had this number, of those that were still there at `since_ns` (`CLOCK_MONOTONIC`) and have ended: where it was
    /// one alone, and what it executed is known. For an event from after that moment, of a process that is gone.
    pub(crate) fn ended(&self, pid: i32, since_ns: u64) -> Option<Actor> {
        let mut state = lock(&self.state);
        state.hear();
        state.cache.ended(pid, since_ns)
    }

    /// Who has this number, or had it last. Whoever asks has to know that it cannot be another one by now.
    pub(crate) fn last(&self, pid: i32) -> Option<Actor> {
        let mut state = lock(&self.state);
        state.hear();
        state.cache.last(pid)
    }

    /// Why nobody is remembered at the moment.
    fn trouble(&self) -> Option<String> {
        lock(&self.state).source.as_ref().err().cloned()
    }
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Programs").field("trouble", &self.trouble()).finish_non_exhaustive()
    }
}

/// How those are named who are gone before they could be asked. That may change, so it is asked when it matters.
#[derive(Debug, Clone, Default)]
pub struct Memory(Means);

#[derive(Debug, Clone, Default)]
enum Means {
    /// Nobody's events are to be named.
    #[default]
    None,
    Lacking(String),
    Heard(Weak<Programs>),
}

impl Memory {
    /// For events that name processes, or do not, with the memory that there is of those.
    pub(crate) fn for_events(name_processes: bool) -> (Self, Option<Arc<Programs>>) {
        if !name_processes {
            let why = "nor has anybody else: the kernel gives no handles on processes before Linux 5.15";
            return (Self(Means::Lacking(why.to_owned())), None);
        }
        match Programs::shared() {
            Ok(programs) => (Self(Means::Heard(Arc::downgrade(&programs))), Some(programs)),
            Err(why) => (Self(Means::Lacking(why)), None),
        }
    }

    /// Why those who are gone at once have no name now; `None` where they have, and where nobody's is asked for.
    #[must_use]
    pub fn lacking(&self) -> Option<String> {
        match &self.0 {
            Means::None => None,
            Means::Lacking(why) => Some(why.clone()),
            Means::Heard(programs) => programs.upgrade()?.trouble(),
        }
    }
}

impl PartialEq for Memory {
    /// They lack the same.
    fn eq(&self, other: &Self) -> bool {
        self.lacking() == other.lacking()
    }
}

impl Eq for Memory {}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears until told to stop. What has failed is tried anew now and then.
fn listen(state: &Mutex<State>, subscribe: &Subscribe, again: Duration, stop: &OwnedFd) {
    // Who began may be gone in a moment. Where it is not permitted, it is as quick as it can be.
    guard_sys::priority::go_first().ok();
    let mut waits = lock(state).waits();
    let mut failed: Option<Instant> = None;
    loop {
        match wait(waits.as_ref(), stop, again) {
            Ok(true) => {}
            Ok(false) => return,
            Err(e) => lock(state).fail(&e),
        }
        if lock(state).hear() {
            failed = None;
        } else if failed.get_or_insert_with(Instant::now).elapsed() < again {
            waits = None;
        } else {
            failed = None;
            let source = subscribe();
            let mut state = lock(state);
            state.renew(source);
            waits = state.waits();
        }
    }
}

/// Until something waits to be heard, or for so long. False where it is to end.
fn wait(source: Option<&OwnedFd>, stop: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
    let mut asked = vec![PollFd::new(stop, PollFlags::IN)];
    asked.extend(source.map(|source| PollFd::new(source, PollFlags::IN)));
    match poll(&mut asked, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(e.into()),
    }
    Ok(asked.first().is_none_or(|stop| stop.revents().is_empty()))
}

impl State {
    /// What to wait for: a descriptor of its own, since whoever hears may find that it has failed, and close it.
    fn waits(&mut self) -> Option<OwnedFd> {
        let waits = self.source.as_ref().ok()?.as_fd().try_clone_to_owned();
        waits.inspect_err(|e| self.fail(e)).ok()
    }

    /// Until nothing waits: then what was looked at is known to be what it was taken for. False where nothing is heard
    /// any more.
    fn hear(&mut self) -> bool {
        loop {
            let Ok(source) = &mut self.source else { return false };
            let mut batch = Vec::new();
            let mut is_all = false;
            while batch.len() < BATCH && !is_all {
                match source.hear() {
                    Ok(Some(Heard::Event(event))) => batch.push(event),
                    Ok(Some(Heard::Lost)) => {
                        batch.clear();
                        self.cache = Cache::since(monotonic_nanos());
                    }
                    Ok(None) => is_all = true,
                    Err(error) => {
                        self.fail(&error);
                        return false;
                    }
                }
            }
            for (at, event) in batch.iter().enumerate() {
                let later = batch.get(at + 1..).unwrap_or_default();
                let is_over = has_gone_on(event, later);
                let mut proc = Proc { looks: if is_over { None } else { Some(&mut self.looks) } };
                self.cache.hear(event, &mut proc);
            }
            if is_all {
                return true;
            }
        }
    }

    fn fail(&mut self, error: &io::Error) {
        tracing::warn!(%error, "processes are not heard of any more: who ends at once may have no name");
        self.source = Err(format!("processes are not heard of any more: {error}"));
        self.cache = Cache::since(u64::MAX);
    }

    fn renew(&mut self, source: io::Result<Box<dyn Source>>) {
        match source {
            Ok(source) => {
                tracing::info!("processes are heard of again");
                self.source = Ok(source);
                self.cache = Cache::since(monotonic_nanos());
            }
            Err(error) => self.source = Err(because(&error)),
        }
    }
}

/// It has ended or become something else meanwhile: nothing is left to be looked at.
fn has_gone_on(event: &Event, later: &[Event]) -> bool {
    let (What::Began { process: pid, .. } | What::Executed { process: pid }) = event.what else {
        return false;
    };
    later.iter().any(|event| match event.what {
        What::Executed { process } | What::Ended { process } => process == pid,
        _ => false,
    })
}

/// How often may still be looked.
#[derive(Debug)]
struct Looks {
    left: u32,
    filled_ns: u64,
}

impl Default for Looks {
    fn default() -> Self {
        Self { left: LOOKS, filled_ns: monotonic_nanos() }
    }
}

impl Looks {
    fn take(&mut self) -> bool {
        let now = monotonic_nanos();
        let more = now.saturating_sub(self.filled_ns) / (1_000_000_000 / u64::from(LOOKS));
        if more > 0 {
            self.left = LOOKS.min(self.left.saturating_add(u32::try_from(more).unwrap_or(LOOKS)));
            self.filled_ns = now;
        }
        let is_allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_allowed
    }
}

/// `/proc`, while there are looks left.
struct Proc<'l> {
    looks: Option<&'l mut Looks>,
}

impl Proc<'_> {
    fn may(&mut self) -> bool {
        self.looks.as_mut().is_some_and(|looks| looks.take())
    }
}

impl Look for Proc<'_> {
    fn program(&mut self, pid: i32) -> Option<Program> {
        let found = if self.may() { identity::read(pid)? } else { return None };
        Program::of(found, monotonic_nanos())
    }

    fn exe(&mut self, pid: i32) -> Option<(Vec<u8>, u64)> {
        let exe = if self.may() { identity::exe(pid)? } else { return None };
        Some((exe, monotonic_nanos()))
    }
}

fn because(error: &io::Error) -> String {
    let why = match Errno::from_io_error(error) {
        Some(Errno::PERM) => "it needs CAP_NET_ADMIN before Linux 6.6",
        Some(Errno::CONNREFUSED) => "only in the host's network namespace",
        Some(Errno::PROTONOSUPPORT) => "this kernel has no process connector",
        _ if error.kind() == io::ErrorKind::Unsupported => {
            "only in the host's process and user namespaces, and where the kernel has a process connector"
        }
        _ => return format!("the kernel does not tell of processes: {error}"),
    };
    format!("the kernel does not tell of processes: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::io::{Read, Write};
    use std::os::fd::BorrowedFd;
    use std::os::unix::net::UnixStream;
    use std::process::Command;
    use std::sync::mpsc::channel;

    const NAMESPACE: &str = "GUARDD_TEST_NAMESPACE";

    /// This test by itself, in a namespace of another kind.
    fn in_namespace(flag: &str) {
        let own = std::env::current_exe().unwrap();
        let test = "programs::tests::in_another_namespace_it_is_said_and_nobody_is_named";
        let mut command = Command::new("unshare");
        command.args([flag, "--fork"]).arg(own).args(["--exact", test, "--nocapture"]).env(NAMESPACE, flag);
        let output = command.output().unwrap();
        let said =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if said.contains("unshare: ") {
            return eprintln!("skipped: {said}");
        }
        assert!(output.status.success() && said.contains("1 passed"), "{said}");
    }

    #[test]
    fn in_another_namespace_it_is_said_and_nobody_is_named() {
        match std::env::var(NAMESPACE).as_deref() {
            Ok("--net") => assert!(Programs::shared().unwrap_err().contains("network namespace")),
            Ok(_) => assert!(Programs::shared().unwrap_err().contains("process and user namespaces")),
            Err(_) => {
                // The kernel tells processes of other namespaces what it tells somebody else, with the host's numbers.
                let _others = Programs::shared();
                in_namespace("--net");
                in_namespace("--pid");
            }
        }
    }

    /// Tells what it is told to.
    struct Puppet {
        told: Arc<Mutex<VecDeque<io::Result<Heard>>>>,
        bell: UnixStream,
    }

    impl Source for Puppet {
        fn hear(&mut self) -> io::Result<Option<Heard>> {
            let mut told = self.told.lock().unwrap();
            match told.pop_front() {
                Some(next) => {
                    self.bell.read_exact(&mut [0]).unwrap();
                    next.map(Some)
                }
                None => Ok(None),
            }
        }
    }

    impl AsFd for Puppet {
        fn as_fd(&self) -> BorrowedFd<'_> {
            self.bell.as_fd()
        }
    }

    /// Who makes it tell.
    struct Strings {
        told: Arc<Mutex<VecDeque<io::Result<Heard>>>>,
        bell: UnixStream,
    }

    impl Strings {
        fn new() -> (Self, Box<dyn Source>) {
            let (ours, theirs) = UnixStream::pair().unwrap();
            let told: Arc<Mutex<VecDeque<io::Result<Heard>>>> = Arc::default();
            (Self { told: Arc::clone(&told), bell: ours }, Box::new(Puppet { told, bell: theirs }))
        }

        fn tell(&mut self, next: io::Result<Heard>) {
            let mut told = self.told.lock().unwrap();
            told.push_back(next);
            self.bell.write_all(&[0]).unwrap();
        }

        /// That this process executes what it executes.
        fn tell_of_us(&mut self) {
            let what = What::Executed { process: own() };
            self.tell(Ok(Heard::Event(Event { at_ns: monotonic_nanos(), what })));
        }
    }

    fn own() -> i32 {
        std::process::id().cast_signed()
    }

    fn wait_until(what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(120);
        while !is_so() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_source_that_fails_is_said_names_nobody_and_is_tried_again() {
        let (mut first, source) = Strings::new();
        let (next, outcomes) = channel();
        next.send(Ok(source)).unwrap();
        let subscribe = move || outcomes.recv().unwrap_or_else(|_| Err(io::ErrorKind::NotFound.into()));
        let programs = Programs::open(Box::new(subscribe), Duration::from_millis(1)).unwrap();
        let programs = Arc::new(programs);
        let memory = Memory(Means::Heard(Arc::downgrade(&programs)));
        assert_eq!(memory.lacking(), None);
        first.tell_of_us();
        // Nobody has asked.
        wait_until("it is heard of", || first.told.lock().unwrap().is_empty());
        assert!(programs.last(own()).is_some_and(|actor| actor.exe.is_some()));

        first.tell(Err(Errno::NOMEM.into()));
        wait_until("it has failed", || memory.lacking().is_some());
        let why = memory.lacking().unwrap();
        assert!(why.contains("not heard of any more"), "{why}");
        assert_eq!((programs.last(own()), programs.ended(own(), monotonic_nanos())), (None, None));

        next.send(Err(Errno::PERM.into())).unwrap();
        wait_until("it is refused", || memory.lacking().is_some_and(|why| why.contains("CAP_NET_ADMIN")));
        let (mut second, source) = Strings::new();
        next.send(Ok(source)).unwrap();
        wait_until("it is heard again", || memory.lacking().is_none());
        assert_eq!(programs.last(own()), None, "what was known before may be untrue by now");
        second.tell_of_us();
        wait_until("it is heard of again", || programs.last(own()).is_some());

        // Somebody who asks finds the failure first.
        second.told.lock().unwrap().push_back(Err(Errno::NOMEM.into()));
        second.bell.write_all(&[0]).unwrap();
        programs.last(own());
        wait_until("it has failed again", || memory.lacking().is_some());
        drop((next, programs));
        assert_eq!(memory.lacking(), None, "nobody's name is asked for any more");
    }

    #[test]
    fn there_is_one_for_all_and_none_where_events_name_nobody() {
        let (memory, programs) = Memory::for_events(false);
        assert!(programs.is_none() && memory.lacking().is_some_and(|why| why.contains("before Linux 5.15")));
        match (Memory::for_events(true), Memory::for_events(true)) {
            ((one, Some(programs)), (_, Some(again))) => {
                assert!(Arc::ptr_eq(&programs, &again));
                assert_eq!(one.lacking(), None);
            }
            ((one, None), _) => assert!(one.lacking().is_some()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn looks_are_bounded_and_come_again() {
        let mut looks = Looks::default();
        let began = monotonic_nanos();
        let mut taken = 0_u64;
        for _ in 0..100_000 {
            taken += u64::from(looks.take());
        }
        let most = u64::from(LOOKS) + (monotonic_nanos() - began) * u64::from(LOOKS) / 1_000_000_000 + 1;
        assert!((u64::from(LOOKS)..=most).contains(&taken), "{taken} of {most}");
    }
}
