//! Files that somebody has open for writing while lock seals them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use guard_api::method::Lock;
use guard_api::wire::{LockResult, Severity, State};
use guard_api::{Exit, Known};

use crate::stage::{PLAIN, SEALED, Stage, text_of};
use crate::tree::{mode, picture};

/// A process that holds something open until this is dropped.
pub(crate) struct Holder(Child);

impl Holder {
    /// Runs a program that says `ready` once it holds what it is to hold, and ends with its input.
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::or_not(command).unwrap()
    }

    /// As [`Holder::of`]; nothing where it ended without holding anything.
    pub(crate) fn or_not(command: &mut Command) -> Option<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let holder = Self(child);
        (line == "ready\n").then_some(holder)
    }

    /// A shell that can append to a file of the application.
    pub(crate) fn appends(stage: &Stage, path: &str) -> Self {
        let script = "exec 3>>\"$0\"; echo ready; read -r _";
        Self::of(Command::new("sh").arg("-c").arg(script).arg(stage.at(path)))
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn anyway() -> Lock {
    Lock { anyway: Some(true), ..Lock::default() }
}

#[track_caller]
fn lock_anyway(stage: &Stage) -> LockResult {
    stage.call(&anyway()).result.unwrap()
}

#[track_caller]
fn refused(stage: &Stage) -> String {
    match stage.refused(&Lock::default()) {
        Known::Refused { message, hint: Some(hint), anyway: true } => {
            assert!(hint.contains("writable"), "{hint}");
            message
        }
        other => panic!("{other:?}"),
    }
}

fn warned(result: &LockResult) -> Option<&String> {
    result.warnings.iter().find(|w| w.contains("open writers"))
}

#[test]
fn an_open_writer_is_named_and_everything_undone() {
    let mut stage = Stage::new(SEALED);
    let before = picture(&stage.app());
    stage.start();
    let holder = Holder::appends(&stage, "backend/app/main.py");
    let message = refused(&stage);
    let by = format!("backend/app/main.py by sh (pid {})", holder.pid());
    assert!(message.contains(&by), "{message}");
    assert_eq!(picture(&stage.app()), before);
    assert_eq!((stage.site().state, stage.site().generation), (State::Unlocked, None));
    // A person hears the same, and how to go on.
    let said = stage.guardctl(["lock"]);
    let text = text_of(&said);
    assert_eq!(said.status.code(), Some(i32::from(Exit::Refused.code())), "{text}");
    assert!(text.contains(&by) && text.contains("--anyway"), "{text}");
    assert_eq!(picture(&stage.app()), before);
    drop(holder);
    assert_eq!(warned(&stage.lock()), None);
    assert_eq!(mode(&stage.at("backend/app/main.py")), 0o444);
}

#[test]
fn anyway_locks_and_warns() {
    let mut stage = Stage::new(SEALED);
    stage.start();
    let holder = Holder::appends(&stage, "compose.yml");
    let locked = lock_anyway(&stage);
    let by = format!("compose.yml by sh (pid {})", holder.pid());
    assert!(warned(&locked).is_some_and(|w| w.contains(&by)), "{:?}", locked.warnings);
    assert_eq!(stage.site().state, State::Locked);
    assert_eq!(mode(&stage.at("compose.yml")), 0o444);
    // It was said to whoever asked.
    assert!(stage.all_alerts().is_empty());
}

#[test]
fn several_are_counted() {
    let mut stage = Stage::new(SEALED);
    for n in 0..8 {
        std::fs::write(stage.at(format!("many-{n}")), "x").unwrap();
    }
    stage.start();
    let _holders: Vec<Holder> = (0..8).map(|n| Holder::appends(&stage, &format!("many-{n}"))).collect();
    let message = refused(&stage);
    assert!(message.contains("many-0 by sh") && message.contains("many-4 by sh"), "{message}");
    assert!(!message.contains("many-5") && message.ends_with("and 3 more"), "{message}");
}

#[test]
fn a_mapping_without_a_descriptor_is_found() {
    let mut stage = Stage::new(SEALED);
    stage.start();
    let script = "\
import ctypes, os, sys
c = ctypes.CDLL(None, use_errno=True)
c.mmap.restype = ctypes.c_void_p
c.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
fd = os.open(sys.argv[1], os.O_RDWR)
assert c.mmap(None, 4096, 3, 1, fd, 0) not in (None, 2**64 - 1)
os.close(fd)
print('ready', flush=True)
sys.stdin.read()
";
    let mut python = Command::new("python3");
    if !python.arg("--version").output().is_ok_and(|o| o.status.success()) {
        eprintln!("left out: python3, which maps a file, is not here");
        return;
    }
    let holder =
        Holder::of(Command::new("python3").arg("-c").arg(script).arg(stage.at("backend/app/orders.py")));
    let message = refused(&stage);
    let by = format!("backend/app/orders.py by python3 (pid {})", holder.pid());
    assert!(message.contains(&by), "{message}");
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o664);
    drop(holder);
    stage.lock();
}

#[test]
fn writable_and_ignored_paths_are_not_asked() {
    let mut stage = Stage::new(SEALED);
    std::fs::write(stage.at("backend/x.pyc"), "x").unwrap();
    stage.start();
    let _holders =
        ["logs/access.log", "media/photo.jpg", "backend/x.pyc"].map(|p| Holder::appends(&stage, p));
    assert_eq!(warned(&stage.lock()), None);
}

#[test]
fn a_lock_by_timer_locks_and_alerts() {
    let stage = Stage::locked(SEALED);
    stage.unlock_for(Some(1));
    let holder = Holder::appends(&stage, "scripts/deploy.sh");
    stage.wait_for_state(State::Locked);
    let alert = crate::wait::until("an alert", || {
        stage.open_alerts().into_iter().find(|a| a.title.contains("open writers"))
    });
    let by = format!("scripts/deploy.sh by sh (pid {})", holder.pid());
    assert!(alert.title.contains(&by), "{}", alert.title);
    assert_eq!(alert.severity, Severity::Warning);
    assert_eq!(mode(&stage.at("scripts/deploy.sh")), 0o555);
    stage.log_line("security-alerts.log", |l| l.contains("locked with open writers"));
    drop(holder);
    // It stands until somebody looks, also after the next lock.
    stage.unlock();
    stage.lock();
    assert!(stage.open_alerts().iter().any(|a| a.id == alert.id));
    stage.acknowledge(alert.id);
    assert!(stage.open_alerts().iter().all(|a| a.id != alert.id));
}

#[test]
fn what_is_only_watched_is_locked_with_a_warning() {
    let mut stage = Stage::new(PLAIN);
    stage.start();
    let _holder = Holder::appends(&stage, "compose.yml");
    let locked = stage.lock();
    assert!(warned(&locked).is_some(), "{:?}", locked.warnings);
}

/// A file of somebody else cannot be asked without CAP_LEASE, which is said.
#[test]
fn what_cannot_be_asked_is_said() {
    if !crate::tree::root_for("a daemon without its capabilities") {
        return;
    }
    let mut stage = Stage::new(PLAIN);
    std::os::unix::fs::chown(stage.at("compose.yml"), Some(12345), Some(12345)).unwrap();
    let mut command = Command::new("setpriv");
    command.arg("--bounding-set=-lease").arg("--inh-caps=-lease").arg("--");
    let daemon = stage.command();
    command.arg(daemon.get_program()).args(daemon.get_args()).env("NO_COLOR", "1");
    for (name, value) in daemon.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    stage.start_as(command);
    stage.wait_for_answer();
    let locked = stage.lock();
    let said = locked.warnings.iter().find(|w| w.contains("CAP_LEASE"));
    assert!(said.is_some_and(|w| w.contains("of 1 files") && w.contains("compose.yml")), "{locked:?}");
}
