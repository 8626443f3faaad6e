//! A watched directory, and the hints that came.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, in a file of its own")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use guard_model::RelPath;
use guard_model::ledger::GapCause;
use guard_model::policy::{PatternText, Policy};
use guard_watch::{EnvId, Hint, WatchReport, Watcher};

/// Longer than anything here takes on a busy machine; waiting ends as soon as the condition holds.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub const ENV: EnvId = EnvId(7);

#[derive(Default)]
pub struct Heard {
    hints: Mutex<Vec<Hint>>,
    more: Condvar,
}

impl Heard {
    pub fn push(&self, hint: Hint) {
        // Whether something more is on its way depends on who was quicker.
        let hint = match hint {
            Hint::Touch { env, path, actor, .. } => Hint::Touch { env, path, actor, complete: false },
            other => other,
        };
        self.hints.lock().unwrap().push(hint);
        self.more.notify_all();
    }

    /// Waits until `enough` says yes of all hints so far.
    #[track_caller]
    pub fn until(&self, what: &str, enough: impl Fn(&[Hint]) -> bool) -> Vec<Hint> {
        let end = Instant::now() + PATIENCE;
        let mut hints = self.hints.lock().unwrap();
        while !enough(&hints) {
            let left = end.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{what} did not come; there were {hints:#?}");
            hints = self.more.wait_timeout(hints, left).unwrap().0;
        }
        hints.clone()
    }

    #[track_caller]
    pub fn one(&self, wanted: &Hint) -> Vec<Hint> {
        self.until(&format!("{wanted:?}"), |hints| hints.contains(wanted))
    }

    pub fn clear(&self) {
        self.hints.lock().unwrap().clear();
    }

    pub fn all(&self) -> Vec<Hint> {
        self.hints.lock().unwrap().clone()
    }
}

pub struct Ground {
    pub dir: tempfile::TempDir,
    pub root: PathBuf,
    pub heard: Arc<Heard>,
    pub watcher: Watcher,
    pub report: WatchReport,
    nonce: std::cell::Cell<u64>,
}

pub fn rel(text: &str) -> RelPath {
    RelPath::from_text(text).unwrap()
}

pub fn touch(path: &str) -> Hint {
    Hint::Touch { env: ENV, path: rel(path), actor: None, complete: false }
}

pub fn tree(path: &str) -> Hint {
    Hint::Tree { env: ENV, path: rel(path) }
}

pub fn is_gap(hint: &Hint, wanted: GapCause) -> bool {
    matches!(hint, Hint::Gap { cause, .. } if *cause == wanted)
}

pub fn policy(protect: &[&str], ignore: &[&str], writable: &[&str]) -> Arc<Policy> {
    let own = |l: &[&str]| l.iter().map(|&s| s.to_owned()).collect();
    let text = PatternText {
        protect: own(protect),
        ignore: own(ignore),
        writable: own(writable),
        sensitive: Vec::new(),
        ..PatternText::default()
    };
    Arc::new(Policy::new(text).unwrap())
}

impl Ground {
    /// A root with `directories` in it, watched.
    pub fn new(directories: &[&str], policy: Arc<Policy>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("above").join("root");
        std::fs::create_dir_all(&root).unwrap();
        for d in directories {
            std::fs::create_dir_all(root.join(d)).unwrap();
        }
        Self::at(dir, root, policy)
    }

    pub fn at(dir: tempfile::TempDir, root: PathBuf, policy: Arc<Policy>) -> Self {
        let heard = Arc::new(Heard::default());
        let sink = Arc::clone(&heard);
        let canary = dir.path().join("canary");
        let watcher = Watcher::start(&canary, crate::SOURCE, move |hint| sink.push(hint)).unwrap();
        let report = watcher.add_environment(ENV, &root, policy).unwrap();
        Self { dir, root, heard, watcher, report, nonce: std::cell::Cell::new(1000) }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    pub fn write(&self, path: &str) {
        std::fs::write(self.path(path), path).unwrap();
    }

    /// Waits until every hint for what was done before has come.
    #[track_caller]
    pub fn settle(&self) -> Vec<Hint> {
        let nonce = self.nonce.get();
        self.nonce.set(nonce + 1);
        self.watcher.ping(nonce).unwrap();
        self.heard.one(&Hint::Alive { nonce })
    }

    /// The paths of touches, after everything has come.
    #[track_caller]
    pub fn touched(&self) -> Vec<String> {
        let mut paths: Vec<String> = self
            .settle()
            .into_iter()
            .filter_map(|h| match h {
                Hint::Touch { path, .. } => Some(path.to_string()),
                _ => None,
            })
            .collect();
        paths.sort();
        paths.dedup();
        paths
    }

    /// Is this directory watched now? Proved by a file made in it.
    #[track_caller]
    pub fn assert_watched(&self, dir: &str) {
        let probe = Path::new(dir).join("probe");
        let probe = probe.to_str().unwrap();
        std::fs::write(self.path(probe), "x").unwrap();
        self.heard.one(&touch(probe));
        std::fs::remove_file(self.path(probe)).unwrap();
    }
}
