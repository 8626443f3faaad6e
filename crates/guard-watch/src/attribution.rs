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
use guard_sys::identity::{self, Identity};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::readers::By;

/// Ancestors that are named; a chain of shells is not longer in practice.
const PARENTS: usize = 16;
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
}

struct Known {
    at: Instant,
    /// Keeps the number from meaning another process without our seeing it.
    process: OwnedFd,
    by: Arc<By>,
}

impl Attribution {
    /// `None` for this very process, whose deeds are in the ledger, and where the kernel names nobody.
    pub(crate) fn of(&mut self, pid: Option<i32>, process: Option<OwnedFd>) -> Option<Arc<Actor>> {
        self.by(pid, process).map(|by| Arc::clone(&by.actor))
    }

    /// The same with what tells whether it is somebody who is expected.
    pub(crate) fn reader(&mut self, pid: Option<i32>, process: Option<OwnedFd>) -> Option<Arc<By>> {
        self.by(pid, process)
    }

    fn by(&mut self, pid: Option<i32>, process: Option<OwnedFd>) -> Option<Arc<By>> {
        let pid = pid?;
        if u32::try_from(pid) == Ok(std::process::id()) {
            return None;
        }
        let Some(process) = process else { return Some(Arc::new(By::nameless(pid))) };
        let now = Instant::now();
        if let Some(known) = self.recent.get(&pid)
            && now.duration_since(known.at) < FRESH
            && identity::exists(known.process.as_fd())
        {
            return Some(Arc::clone(&known.by));
        }
        let by = Arc::new(resolve(pid, &process));
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
}

impl Attribution {
    /// Who a record of audit is about. What it says counts for what the process was; the rest is asked of the process,
    /// if it is the same one: who has its number now and began before the record was written.
    pub(crate) fn audited(&mut self, call: &SystemCall) -> Option<Arc<By>> {
        let process = Pid::from_raw(call.pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let written = Timestamp(call.at_ms.saturating_add(1).saturating_mul(1000));
        let exe = call.exe.as_deref().map(escape);
        let comm = Some(escape(&call.name));
        let living = process.is_some().then(|| self.by(Some(call.pid), process)).flatten();
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
        Self { actor: Arc::new(nameless(pid)), executable: None, service: None }
    }
}

fn resolve(pid: i32, process: &OwnedFd) -> By {
    let Some(found) = identity::read(pid) else { return By::nameless(pid) };
    let executable = identity::executable(pid);
    let parents = parents_of(&found);
    if !identity::exists(process.as_fd()) {
        // It may have been read of another process with the same number.
        return By::nameless(pid);
    }
    let confidence = if found.exe.is_some() { Confidence::Verified } else { Confidence::Exited };
    let cgroup = found.cgroup.as_deref().map(escape).unwrap_or_default();
    let actor = Actor {
        pid,
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
    };
    By { actor: Arc::new(actor), executable, service: service_of(&cgroup) }
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

/// The chain up to init, as `name (pid)`, nearest first. It ends where a link cannot be true: a parent
/// that started after its child is another process with a used number.
fn parents_of(child: &Identity) -> Vec<String> {
    let mut chain = Vec::new();
    let (mut parent, mut born) = (child.parent, child.started_us);
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

fn started_at(boot_us: u64) -> Timestamp {
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
        let alive = attribution.of(Some(pid), Some(first)).unwrap();
        assert_eq!(alive.confidence, Confidence::Verified);
        assert!(alive.parents.first().is_some_and(|p| p.ends_with(&format!("({})", std::process::id()))));
        child.kill().unwrap();
        child.wait().unwrap();
        // Within the time that it is remembered, too.
        let gone = attribution.of(Some(pid), Some(second)).unwrap();
        assert_eq!((gone.confidence, &gone.exe, &gone.comm), (Confidence::Unknown, &None, &None));
        let without = attribution.of(Some(pid), None).unwrap();
        assert_eq!(without.confidence, Confidence::Unknown);
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
        assert!(Attribution::default().of(Some(own), Some(process)).is_none());
        assert!(Attribution::default().of(None, None).is_none());
    }
}
