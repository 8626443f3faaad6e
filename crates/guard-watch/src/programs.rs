//! What processes execute, seen when they begin it: for those that end before they could be asked.
//!
//! One subscription to the kernel's process connector for the whole of guardd, held as long as somebody's events are
//! to be named. Whoever is not told it that way is `None` here, never somebody else: see [`cache`].

mod cache;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use guard_model::finding::Actor;
use guard_sys::clock::monotonic_nanos;
use guard_sys::identity;
use guard_sys::process_events::{Event, Heard, Listener, What};
use rustix::io::Errno;

use cache::{Cache, Look, Program};

/// Events that are taken at once: what ended meanwhile need not be looked at.
const BATCH: usize = 256;
/// Processes looked at in a second; more of them are not named this way.
const LOOKS: u32 = 1000;

/// The one that there is, as long as there is one.
static SHARED: Mutex<Weak<Programs>> = Mutex::new(Weak::new());

/// Hears of processes, and remembers what they execute.
#[derive(Debug)]
pub(crate) struct Programs {
    /// Readable where something waits to be heard.
    waits: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` once it has failed.
    listener: Option<Listener>,
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
        let programs = Arc::new(Self::open().map_err(|e| because(&e))?);
        *shared = Arc::downgrade(&programs);
        Ok(programs)
    }

    fn open() -> io::Result<Self> {
        let listener = Listener::open()?;
        let waits = listener.as_fd().try_clone_to_owned()?;
        let state = State {
            listener: Some(listener),
            cache: Cache::since(monotonic_nanos()),
            looks: Looks::default(),
        };
        Ok(Self { waits, state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears what waits. False where nothing will be heard any more.
    pub(crate) fn hear(&self) -> bool {
        self.state().hear()
    }

    /// Who had this number, of those that were still there at `since_ns` (`CLOCK_MONOTONIC`) and have ended: where it was
    /// one alone, and what it executed is known. For an event from after that moment, of a process that is gone.
    pub(crate) fn ended(&self, pid: i32, since_ns: u64) -> Option<Actor> {
        let mut state = self.state();
        state.hear();
        state.cache.ended(pid, since_ns)
    }

    /// Who has this number, or had it last. Whoever asks has to know that it cannot be another one by now.
    pub(crate) fn last(&self, pid: i32) -> Option<Actor> {
        let mut state = self.state();
        state.hear();
        state.cache.last(pid)
    }
}

impl AsFd for Programs {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.waits.as_fd()
    }
}

impl State {
    /// Until nothing waits: then what was looked at is known to be what it was taken for.
    fn hear(&mut self) -> bool {
        loop {
            let Some(listener) = &mut self.listener else { return false };
            let mut batch = Vec::new();
            let mut is_all = false;
            while batch.len() < BATCH && !is_all {
                match listener.hear() {
                    Ok(Some(Heard::Event(event))) => batch.push(event),
                    Ok(Some(Heard::Lost)) => {
                        batch.clear();
                        self.cache = Cache::since(monotonic_nanos());
                    }
                    Ok(None) => is_all = true,
                    Err(error) => {
                        tracing::warn!(%error, "processes are not heard of any more: who ends at once may have no name");
                        self.listener = None;
                        self.cache = Cache::since(u64::MAX);
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
    use std::process::Command;

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
