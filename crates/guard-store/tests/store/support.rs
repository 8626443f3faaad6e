//! What several tests need.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use guard_model::baseline::{BaselineRecord, LockFile, LockState, Role, Totals};
use guard_model::compare::Change;
use guard_model::ledger::{Event, Head};
use guard_model::policy::PatternText;
use guard_model::{Digest, Entry, Finding, Kind, RelPath, Seal, Severity, Stamp, Timestamp};
use guard_store::{HostKey, Ledger, ManifestDraft, Opened, StateDir, StoreError};
use sha2::{Digest as _, Sha256};

/// A state directory in a directory of its own.
pub(crate) struct Fixture {
    pub(crate) temp: tempfile::TempDir,
    pub(crate) state: StateDir,
    pub(crate) key: HostKey,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let state = StateDir::open(&temp.path().join("state")).unwrap();
        let key = HostKey::load_or_create(&state).unwrap();
        Self { temp, state, key }
    }

    pub(crate) fn open(&self) -> Result<(Ledger, Opened), StoreError> {
        Ledger::open(&self.state, self.key.clone(), clock())
    }

    /// A ledger of `n` records in one environment, closed, and its head.
    pub(crate) fn ledger_of(&self, n: u64) -> Head {
        let (ledger, _) = self.open().unwrap();
        for i in 0..n {
            ledger.handle().append(Some("production".into()), vec![stopped(i)]).unwrap();
        }
        ledger.stop().unwrap()
    }

    pub(crate) fn ledger_files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(self.state.ledger()).unwrap().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    pub(crate) fn remove_index(&self) {
        for suffix in ["", "-wal", "-shm"] {
            let path = format!("{}{suffix}", self.state.index().display());
            if Path::new(&path).exists() {
                std::fs::remove_file(path).unwrap();
            }
        }
    }
}

/// A clock that goes on a second at each look.
pub(crate) fn clock() -> impl Fn() -> Timestamp + Send + 'static {
    let now = Arc::new(AtomicI64::new(1_795_300_000_000_000));
    move || Timestamp(now.fetch_add(1_000_000, Ordering::Relaxed))
}

pub(crate) fn stopped(i: u64) -> Event {
    Event::DaemonStopped { reason: format!("SIGTERM {i}") }
}

pub(crate) fn finding(path: &str) -> Finding {
    Finding {
        path: path.into(),
        at: Timestamp(1_795_300_000_000_000),
        change: vec![Change::Content],
        before: Some(file(b"before")),
        after: Some(file(b"after")),
        actor: None,
        restored: false,
        note: None,
    }
}

pub(crate) fn opened_alert(paths: &[&str]) -> Event {
    Event::AlertOpened {
        severity: Severity::High,
        title: format!("{} changed", paths[0]),
        findings: paths.iter().map(|p| finding(p)).collect(),
        sessions: vec![],
    }
}

pub(crate) fn locked(generation: u64) -> Event {
    Event::Locked {
        generation,
        baseline: digest(&[7]),
        by: "root (uid 0)".into(),
        reason: "release 1.2".into(),
        seal: Seal::ReadOnly,
        totals: Totals { files: 3, directories: 1, bytes: 12 },
        unsealed: 0,
    }
}

pub(crate) fn digest(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

pub(crate) fn file(content: &[u8]) -> Entry {
    Entry {
        kind: Kind::File,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        size: content.len() as u64,
        mtime: Stamp { sec: 1_700_000_000, nsec: 5 },
        ctime: Stamp { sec: 1_700_000_001, nsec: 6 },
        dev: 0xfd00,
        ino: 4711,
        nlink: 1,
        rdev: 0,
        flags: 0,
        target: None,
        xattrs: vec![],
        sha256: Some(digest(content)),
    }
}

pub(crate) fn record(path: &[u8], content: &[u8]) -> BaselineRecord {
    BaselineRecord {
        path: RelPath::from_bytes(path).unwrap(),
        role: Role::Protected,
        sealed: Seal::ReadOnly,
        skip: None,
        entry: file(content),
    }
}

pub(crate) fn draft() -> ManifestDraft {
    ManifestDraft {
        created_at: Timestamp(1_795_300_000_000_000),
        by: "root (uid 0)".into(),
        reason: "release 1.2".into(),
        root: "/srv/app".into(),
        root_identity: (64768, 2),
        ancestors: vec![],
        mounts: None,
        policy: PatternText::default(),
        seal: Seal::ReadOnly,
        seal_done: Seal::ReadOnly,
        previous: None,
    }
}

pub(crate) fn lock_content(environment: &str, ledger: Head) -> LockFile {
    LockFile {
        environment: environment.into(),
        state: LockState::Locked,
        generation: 3,
        baseline: digest(b"manifest"),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        since: Timestamp(1_795_300_000_000_000),
        by: "root (uid 0)".into(),
        reason: "release 1.2".into(),
        root: "/srv/app".into(),
        branches: vec!["main".into()],
        ledger,
    }
}

/// Runs a bash command line in a directory; its standard output where it succeeds.
pub(crate) fn bash(dir: &Path, line: &str) -> Result<String, String> {
    run(Command::new("bash").arg("-euo").arg("pipefail").arg("-c").arg(line).current_dir(dir), b"")
}

pub(crate) fn run(command: &mut Command, input: &[u8]) -> Result<String, String> {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing closes its end early.
    let _ignored = child.stdin.take().unwrap().write_all(input).is_ok();
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        Ok(out)
    } else {
        Err(format!("{}: {out}{}", output.status, String::from_utf8_lossy(&output.stderr)))
    }
}

/// Flips one bit of a file.
pub(crate) fn flip(path: &Path, at: usize, bit: u8) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1 << bit;
    std::fs::write(path, bytes).unwrap();
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
