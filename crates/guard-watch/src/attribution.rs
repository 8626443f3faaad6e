//! From the process that an event names to an actor.
//!
//! A wrong name is worse than none: what `/proc` told counts only if the pidfd that came with the event
//! says afterwards that the process had not been reaped, so that its number was its own all the while.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guard_model::Timestamp;
use guard_model::finding::{Actor, Confidence};
use guard_model::path::escape;
use guard_sys::audit::records::SystemCall;
use guard_sys::fanotify::Event;
use guard_sys::identity::{self, Identity};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::programs::Programs;
use crate::readers::By;

/// Ancestors that are named; a chain of shells is not longer in practice.
pub(crate) const PARENTS: usize = 16;
/// Characters of a command line that are kept.
const COMMAND: usize = 1024;
/// A process that did several things within this time is asked once: it could become another program
/// (execve(2)) meanwhile, so not for longer.
const FRESH: Duration = Duration::from_millis(20);
/// Processes remembered that long.
const REMEMBERED: usize = 64;

/// Names who did it; remembers the last few for the length of a burst.
#[derive(Default)]
pub(crate) struct Attribution {
    recent: HashMap<i32, Known>,
    /// Where the kernel tells what processes execute: names those that are gone.
    programs: Option<Arc<Programs>>,
}

struct Known {
    at: Instant,
    /// Keeps the number from meaning another process without our seeing it.
    process: OwnedFd,
    by: Arc<By>,
}

/// Whom an event names.
pub(crate) struct Named {
    /// Its number; `None` where the kernel names nobody.
    pub(crate) pid: Option<i32>,
    /// That very process, unless it was gone when the event was read.
    pub(crate) process: Option<OwnedFd>,
    /// Whoever it was had not ended at this moment (`CLOCK_MONOTONIC`, nanoseconds), and has if there is no handle on it.
    /// `None` where that is not known.
    pub(crate) since_ns: Option<u64>,
}

impl Named {
    /// Of an event that came after `since_ns`.
    pub(crate) fn by(event: &mut Event, since_ns: u64) -> Self {
        Self::after(since_ns, event.pid, event.process.take(), event.is_gone)
    }

    /// The same of its parts. `is_gone` says why there is no handle: it may be for want of descriptors.
    pub(crate) fn after(since_ns: u64, pid: Option<i32>, process: Option<OwnedFd>, is_gone: bool) -> Self {
        let is_known = process.is_some() || is_gone;
        Self { pid, process, since_ns: is_known.then_some(since_ns) }
    }

    /// Of what may have been done at any time.
    pub(crate) fn some_time(pid: Option<i32>, process: Option<OwnedFd>) -> Self {
        Self { pid, process, since_ns: None }
    }
}

impl Attribution {
    /// Also names whoever is gone, as far as these know it.
    pub(crate) fn with(programs: Option<Arc<Programs>>) -> Self {
        Self { programs, ..Self::default() }
    }

    /// From now on names whoever is gone as far as these know it, or does not.
    pub(crate) fn ask(&mut self, programs: Option<Arc<Programs>>) {
        self.programs = programs;
    }

    /// `None` for this very process, whose deeds are in the ledger, and where the kernel names nobody.
    pub(crate) fn of(&mut self, named: Named) -> Option<Arc<Actor>> {
        self.by(named).map(|by| Arc::clone(&by.actor))
    }

    /// The same with what tells whether it is somebody who is expected.
    pub(crate) fn by(&mut self, named: Named) -> Option<Arc<By>> {
        let pid = named.pid?;
        if u32::try_from(pid) == Ok(std::process::id()) {
            return None;
        }
        let gone = || self.gone(pid, named.since_ns);
        let Some(process) = named.process else { return Some(Arc::new(gone())) };
        let now = Instant::now();
        if let Some(known) = self.recent.get(&pid)
            && now.duration_since(known.at) < FRESH
            && identity::exists(known.process.as_fd())
        {
            return Some(Arc::clone(&known.by));
        }
        let by = match resolve(pid, &process) {
            Some(by) if by.actor.confidence == Confidence::Verified => by,
            Some(by) => self.ending(by, &process),
            None if identity::exists(process.as_fd()) => By::nameless(pid),
            None => gone(),
        };
        let by = Arc::new(by);
        if by.actor.confidence == Confidence::Verified {
            if self.recent.len() >= REMEMBERED {
                self.recent.retain(|_, known| now.duration_since(known.at) < FRESH);
            }
            if self.recent.len() < REMEMBERED {
                self.recent.insert(pid, Known { at: now, process, by: Arc::clone(&by) });
            }
        } else {
            self.recent.remove(&pid);
        }
        Some(by)
    }

    /// Somebody who is gone, and whose number may be another's.
    fn gone(&self, pid: i32, since_ns: Option<u64>) -> By {
        let known = self.programs.as_ref().zip(since_ns).and_then(|(p, since_ns)| p.ended(pid, since_ns));
        known.map_or_else(|| By::nameless(pid), By::ended)
    }

    /// Somebody who has ended, with what it executed, if that is known. Its number is its own as long as it exists.
    fn ending(&self, by: By, process: &OwnedFd) -> By {
        let known = self.programs.as_ref().and_then(|programs| programs.last(by.actor.pid));
        match known.filter(|_| identity::exists(process.as_fd())) {
            // The control group is still told, and so is the user.
            Some(known) => {
                let Actor { exe, cmdline, .. } = known;
                let parents =
                    if by.actor.parents.is_empty() { known.parents } else { by.actor.parents.clone() };
                By { actor: Arc::new(Actor { exe, cmdline, parents, ..by.actor.as_ref().clone() }), ..by }
            }
            None => by,
        }
    }
}

impl Attribution {
    /// Who a record of audit is about. What it says counts for what the process was; the rest is asked of the process,
    /// if it is the same one: who has its number now and began before the record was written.
    pub(crate) fn audited(&mut self, call: &SystemCall) -> Option<Arc<By>> {
        let process = Pid::from_raw(call.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let written = Timestamp(call.at_ms.saturating_add(1).saturating_mul(1000));
        let exe = call.exe.as_deref().map(escape);
        let comm = Some(escape(&call.name));
        let living = process.is_some().then(|| self.by(Named::some_time(Some(call.pid), process))).flatten();
        let same = living.filter(|by| by.actor.started_at.is_some_and(|at| at <= written));
        let (actor, executable, service) = match same {
            Some(by) => {
                // It may have become another program since.
                let executable = by.executable.filter(|_| by.actor.exe == exe);
                (by.actor.as_ref().clone(), executable, by.service.clone())
            }
            None => {
                let (uid, login_uid) = (Some(call.uid), call.login_uid);
                let confidence = Confidence::Exited;
                (Actor { uid, login_uid, confidence, ..nameless(call.pid) }, None, None)
            }
        };
        Some(Arc::new(By { actor: Arc::new(Actor { exe, comm, ..actor }), executable, service }))
    }
}

impl By {
    fn nameless(pid: i32) -> Self {
        Self::ended(nameless(pid))
    }

    fn ended(actor: Actor) -> Self {
        Self { actor: Arc::new(actor), executable: None, service: None }
    }
}

/// `None` where it may have been read of another process with the same number.
fn resolve(pid: i32, process: &OwnedFd) -> Option<By> {
    let found = identity::read(pid)?;
    let executable = identity::executable(pid);
    if !identity::exists(process.as_fd()) {
        return None;
    }
    let actor = actor(&found, parents_from(found.parent, found.started_us));
    let service = found.cgroup.as_deref().and_then(|cgroup| service_of(&escape(cgroup)));
    Some(By { actor: Arc::new(actor), executable, service })
}

/// What was read of a process, in words.
pub(crate) fn actor(found: &Identity, parents: Vec<String>) -> Actor {
    let confidence = if found.exe.is_some() { Confidence::Verified } else { Confidence::Exited };
    let cgroup = found.cgroup.as_deref().map(escape).unwrap_or_default();
    Actor {
        pid: found.pid,
        comm: Some(escape(&found.name)),
        exe: found.exe.as_deref().map(escape),
        cmdline: found.arguments.as_deref().map(command_line),
        uid: found.uid,
        login_uid: found.login_uid,
        started_at: Some(started_at(found.started_us)),
        parents,
        unit: unit_of(&cgroup),
        container: container_of(&cgroup),
        confidence,
    }
}

fn nameless(pid: i32) -> Actor {
    Actor {
        pid,
        comm: None,
        exe: None,
        cmdline: None,
        uid: None,
        login_uid: None,
        started_at: None,
        parents: Vec::new(),
        unit: None,
        container: None,
        confidence: Confidence::Unknown,
    }
}

/// The chain up to init from a parent of somebody who began then (microseconds since boot), as `name (pid)`, nearest
/// first. It ends where a link cannot be true: a parent that started after its child is another process with a used
/// number.
pub(crate) fn parents_from(mut parent: i32, mut born: u64) -> Vec<String> {
    let mut chain = Vec::new();
    while parent > 0 && chain.len() < PARENTS {
        let Some(stat) = identity::brief(parent) else { break };
        if stat.started_us > born {
            break;
        }
        chain.push(format!("{} ({parent})", escape(&stat.name)));
        (parent, born) = (stat.parent, stat.started_us);
    }
    chain
}

/// Arguments with spaces between, escaped, cut at [`COMMAND`] characters.
fn command_line(arguments: &[u8]) -> String {
    let words: Vec<u8> = arguments
        .strip_suffix(b"\0")
        .unwrap_or(arguments)
        .iter()
        .map(|b| if *b == 0 { b' ' } else { *b })
        .collect();
    let text = escape(&words);
    match text.char_indices().nth(COMMAND) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A moment of `CLOCK_BOOTTIME` by the wall clock.
pub(crate) fn started_at(boot_us: u64) -> Timestamp {
    let age = guard_sys::clock::boottime_micros().saturating_sub(boot_us);
    Timestamp(guard_sys::clock::wall_micros().saturating_sub(i64::try_from(age).unwrap_or(i64::MAX)))
}

/// The service, else the scope, that a control group belongs to.
fn unit_of(cgroup: &str) -> Option<String> {
    let last = |suffix: &str| cgroup.rsplit('/').find(|part| part.ends_with(suffix));
    last(".service").or_else(|| last(".scope")).map(str::to_owned)
}

/// The outermost service or scope: a control group's owner may make others inside and call them as it likes.
fn service_of(cgroup: &str) -> Option<String> {
    cgroup.split('/').find(|part| part.ends_with(".service") || part.ends_with(".scope")).map(str::to_owned)
}

/// The container that a control group belongs to: 64 hexadecimal digits, as Docker, containerd, CRI-O and
/// Podman name them, with a prefix (`docker-`, `libpod-`, `crio-`) or without.
fn container_of(cgroup: &str) -> Option<String> {
    cgroup.rsplit('/').find_map(|part| {
        let part = part.strip_suffix(".scope").unwrap_or(part);
        let id = part.rsplit('-').next()?;
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_sys::fanotify::Group;
    use std::process::{Command, Stdio};

    #[test]
    fn units_and_containers() {
        let id = "c".repeat(64);
        let docker = format!("/system.slice/docker-{id}.scope");
        assert_eq!(unit_of(&docker), Some(format!("docker-{id}.scope")));
        assert_eq!(container_of(&docker), Some(id.clone()));
        assert_eq!(container_of(&format!("/docker/{id}")), Some(id));
        let session = "/user.slice/user-1000.slice/session-3.scope";
        assert_eq!((unit_of(session), container_of(session)), (Some("session-3.scope".to_owned()), None));
        let inner = "/user.slice/user@1000.service/app.slice/run-1.scope";
        assert_eq!(unit_of(inner).as_deref(), Some("user@1000.service"));
        assert_eq!((unit_of("/"), container_of("/")), (None, None));
        // Whoever has a service manager of his own calls his units as he likes.
        let own = "/user.slice/user-1000.slice/user@1000.service/app.slice/docker.service";
        assert_eq!(service_of(own).as_deref(), Some("user@1000.service"));
        assert_eq!(service_of("/system.slice/docker.service/x.service").as_deref(), Some("docker.service"));
    }

    #[test]
    fn command_lines_are_safe_and_short() {
        assert_eq!(command_line(b"sh\0-c\0echo \x1b[2J\n\0"), r"sh -c echo \x1b[2J\x0a");
        assert_eq!(command_line(&[b'x'; 5000]).chars().count(), COMMAND + 1);
    }

    #[test]
    fn a_process_that_is_gone_is_nobody() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let open = || pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
        let (first, second) = (open(), open());
        let mut attribution = Attribution::default();
        let alive = attribution.of(Named::some_time(Some(pid), Some(first))).unwrap();
        assert_eq!(alive.confidence, Confidence::Verified);
        assert!(alive.parents.first().is_some_and(|p| p.ends_with(&format!("({})", std::process::id()))));
        child.kill().unwrap();
        child.wait().unwrap();
        // Within the time that it is remembered, too.
        let gone = attribution.of(Named::some_time(Some(pid), Some(second))).unwrap();
        assert_eq!((gone.confidence, &gone.exe, &gone.comm), (Confidence::Unknown, &None, &None));
        let without = attribution.of(Named::some_time(Some(pid), None)).unwrap();
        assert_eq!(without.confidence, Confidence::Unknown);
    }

    /// A shell that does as it is told once it is let, and what it was told to.
    fn shell(script: &str, file: &std::path::Path) -> std::process::Child {
        let script = format!("read go; {script}");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script, "sh"]).arg(file).stdin(Stdio::piped()).spawn().unwrap()
    }

    /// A shell that is known, as it is unless too much else happens on the machine.
    fn known_shell(
        programs: &Programs,
        script: &str,
        file: &std::path::Path,
    ) -> Option<(std::process::Child, Actor)> {
        for _ in 0..20 {
            let mut child = shell(script, file);
            let until = Instant::now() + Duration::from_secs(2);
            while Instant::now() < until {
                let known = programs.last(child.id().cast_signed());
                if let Some(known) = known.filter(|known| known.comm.as_deref() == Some("sh")) {
                    return Some((child, known));
                }
                std::thread::yield_now();
            }
            child.kill().unwrap();
            child.wait().unwrap();
        }
        eprintln!("skipped: more happens here than is heard");
        None
    }

    /// The next event that is there.
    fn next_event(group: &Group) -> Event {
        let mut buffer = [0; 4096];
        group.read(&mut buffer).unwrap().into_iter().next_back().unwrap()
    }

    fn programs_and_group(directory: &std::path::Path) -> Option<(Arc<Programs>, Group)> {
        let programs = Programs::shared().inspect_err(|why| eprintln!("skipped: {why}")).ok()?;
        let group = Group::for_changes().inspect_err(|why| eprintln!("skipped: no group: {why}")).ok()?;
        let handle = guard_sys::open::absolute(directory, guard_sys::open::How::List).unwrap();
        if let Err(e) = group.mark(handle.as_fd(), guard_sys::fanotify::Interest::Entries) {
            eprintln!("skipped: no mark: {e}");
            return None;
        }
        group.names_processes().then_some((programs, group))
    }

    #[test]
    fn whoever_ended_before_anybody_looked_is_named_by_what_it_executed() {
        let top = tempfile::tempdir().unwrap();
        let Some((programs, group)) = programs_and_group(top.path()) else { return };
        let mut attribution = Attribution::with(Some(Arc::clone(&programs)));
        let file = top.path().join("file");
        let quiet_ns = guard_sys::clock::monotonic_nanos();
        let Some((mut child, known)) = known_shell(&programs, "echo >> $1", &file) else { return };
        let pid = child.id().cast_signed();
        drop(child.stdin.take());
        child.wait().unwrap();
        let mut event = next_event(&group);
        assert_eq!((event.pid, event.is_gone), (Some(pid), true));
        let since_ns = guard_sys::clock::monotonic_nanos();
        let named = attribution.of(Named::by(&mut event, quiet_ns)).unwrap();
        if programs.ended(pid, quiet_ns).is_none() {
            return eprintln!("skipped: more happens here than is heard");
        }
        assert_eq!((named.pid, named.confidence), (pid, Confidence::Exited));
        assert_eq!((&named.comm, &named.exe, &named.cmdline), (&known.comm, &known.exe, &known.cmdline));
        assert!(named.exe.as_deref().is_some_and(|exe| exe.starts_with('/')), "{named:?}");
        assert!(named.cmdline.as_deref().is_some_and(|words| words.contains("echo >> $1")), "{named:?}");
        assert!(named.parents.first().is_some_and(|p| p.ends_with(&format!("({})", std::process::id()))));
        assert!(named.uid.is_some());
        // It cannot have done what had not been done when it had ended.
        let later = attribution.of(Named::by(&mut event, since_ns)).unwrap();
        assert_eq!((later.confidence, &later.comm), (Confidence::Unknown, &None));
        // Nor is anybody named by number where the kernel gives no handle on anybody.
        event.is_gone = false;
        let unsure = attribution.of(Named::by(&mut event, quiet_ns)).unwrap();
        assert_eq!((unsure.confidence, &unsure.comm), (Confidence::Unknown, &None));
    }

    #[test]
    fn a_number_that_another_one_got_names_nobody_else() {
        const NEXT: &str = "/proc/sys/kernel/ns_last_pid";
        let top = tempfile::tempdir().unwrap();
        let Some((programs, group)) = programs_and_group(top.path()) else { return };
        let mut attribution = Attribution::with(Some(Arc::clone(&programs)));
        for attempt in 0..300 {
            let quiet_ns = guard_sys::clock::monotonic_nanos();
            let mut child = shell("echo >> $1", &top.path().join(format!("file{attempt}")));
            let pid = child.id().cast_signed();
            drop(child.stdin.take());
            child.wait().unwrap();
            if let Err(e) = std::fs::write(NEXT, (pid - 1).to_string()) {
                return eprintln!("skipped: {NEXT}: {e}");
            }
            let mut innocent =
                Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
            let is_again = innocent.id().cast_signed() == pid;
            let mut event = next_event(&group);
            let while_it_lives = attribution.of(Named::by(&mut event, quiet_ns)).unwrap();
            drop(innocent.stdin.take());
            innocent.wait().unwrap();
            let after = attribution.of(Named::by(&mut event, quiet_ns)).unwrap();
            for actor in [while_it_lives, Arc::clone(&after)] {
                assert_eq!(actor.pid, pid);
                assert_ne!(actor.comm.as_deref(), Some("cat"));
                assert!(actor.exe.as_deref().is_none_or(|exe| !exe.ends_with("/cat")), "{actor:?}");
            }
            if is_again {
                assert_eq!((after.confidence, &after.comm), (Confidence::Unknown, &None));
                return;
            }
        }
        eprintln!("skipped: the number was always somebody else's");
    }

    #[test]
    fn a_record_names_who_is_gone_and_never_another_with_its_number() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let call = |at_ms| SystemCall {
            at_ms,
            key: Vec::new(),
            success: true,
            executed: false,
            pid,
            parent: 1,
            uid: 12,
            login_uid: Some(13),
            name: b"ca\nt".to_vec(),
            exe: Some(b"/opt/cat".to_vec()),
        };
        let now_ms = guard_sys::clock::wall_micros() / 1000;
        let mut attribution = Attribution::default();
        let same = attribution.audited(&call(now_ms)).unwrap();
        assert!(!same.actor.parents.is_empty(), "{same:?}");
        // It is another program by now, so which file it executes proves nothing.
        assert_eq!((same.actor.exe.as_deref(), same.executable), (Some("/opt/cat"), None));
        // Who has the number began after the record was written.
        let other = attribution.audited(&call(now_ms - 60_000)).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let gone = attribution.audited(&call(now_ms)).unwrap();
        for by in [other, gone] {
            let actor = &by.actor;
            assert_eq!(
                (actor.comm.as_deref(), actor.uid, actor.login_uid),
                (Some(r"ca\x0at"), Some(12), Some(13))
            );
            assert_eq!((actor.confidence, actor.parents.len()), (Confidence::Exited, 0));
            assert_eq!(by.service, None);
        }
    }

    #[test]
    fn guardd_itself_is_no_actor() {
        let own = std::process::id().cast_signed();
        let process = pidfd_open(Pid::from_raw(own).unwrap(), PidfdFlags::empty()).unwrap();
        assert!(Attribution::default().of(Named::some_time(Some(own), Some(process))).is_none());
        assert!(Attribution::default().of(Named::some_time(None, None)).is_none());
    }
}
