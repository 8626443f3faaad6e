//! A ledger in memory, and sinks that read it.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, in a file of its own")]

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use guard_alert::{Records, SinkConfig, SinkHealth, Sinks, Source};
use guard_model::entry::Digest;
use guard_model::ledger::{Event, Record};
use guard_model::{Change, Finding, Severity, Timestamp};

/// Longer than anything here takes on a busy machine; waiting ends as soon as the condition holds.
pub const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Inner {
    records: Mutex<Vec<Record>>,
    hooks: Mutex<Vec<Box<dyn Fn() + Send>>>,
}

/// What a ledger is to a sink.
#[derive(Clone, Default)]
pub struct Memory(Arc<Inner>);

impl Memory {
    pub fn append(&self, environment: &str, event: Event) -> Record {
        let record = {
            let mut records = self.0.records.lock().unwrap();
            let seq = records.len() as u64 + 1;
            let environment = Some(environment.to_owned());
            let record = Record {
                seq,
                at: Timestamp(1_700_000_000_000_000),
                prev: Digest([0; 32]),
                environment,
                event,
            };
            records.push(record.clone());
            record
        };
        self.0.hooks.lock().unwrap().iter().for_each(|hook| hook());
        record
    }

    /// An alert with so many findings, named after `name`.
    pub fn alert(&self, name: &str, findings: usize) -> Record {
        self.append("production", opened(name, findings))
    }

    pub fn stopped(&self, reason: &str) -> Record {
        self.append("production", Event::DaemonStopped { reason: reason.to_owned() })
    }
}

pub fn opened(name: &str, findings: usize) -> Event {
    let findings = (0..findings).map(|i| finding(&format!("{name}-{i}"))).collect();
    Event::AlertOpened { severity: Severity::High, title: name.to_owned(), findings, sessions: Vec::new() }
}

pub fn finding(path: &str) -> Finding {
    Finding {
        path: path.to_owned(),
        at: Timestamp(1_700_000_000_000_000),
        change: vec![Change::Content],
        before: None,
        after: None,
        actor: None,
        restored: false,
        note: None,
    }
}

impl Source for Memory {
    fn head(&self) -> u64 {
        self.0.records.lock().unwrap().len() as u64
    }

    fn read_from(&self, seq: u64) -> Records {
        let inner = Arc::clone(&self.0);
        let mut next = usize::try_from(seq.max(1)).unwrap() - 1;
        Box::new(std::iter::from_fn(move || {
            let record = inner.records.lock().unwrap().get(next).cloned()?;
            next += 1;
            Some(Ok(record))
        }))
    }

    fn on_commit(&self, hook: Box<dyn Fn() + Send>) {
        self.0.hooks.lock().unwrap().push(hook);
    }
}

pub struct Stage {
    pub dir: tempfile::TempDir,
    pub memory: Memory,
    pub config: SinkConfig,
    pub turns: Arc<Mutex<Vec<SinkHealth>>>,
}

impl Default for Stage {
    fn default() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = SinkConfig::new(&dir.path().join("log"), &dir.path().join("sinks"));
        Self { config, dir, memory: Memory::default(), turns: Arc::default() }
    }
}

impl Stage {
    pub fn start(&self) -> Sinks {
        let turns = Arc::clone(&self.turns);
        Sinks::start(self.memory.clone(), self.config.clone(), move |health| {
            turns.lock().unwrap().push(health)
        })
        .unwrap()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.config.log_dir.join(name)
    }

    pub fn alerts(&self) -> PathBuf {
        self.log("security-alerts.log")
    }

    pub fn turned(&self, name: &str) -> Vec<bool> {
        self.turns.lock().unwrap().iter().filter(|h| h.name == name).map(|h| h.healthy).collect()
    }
}

#[track_caller]
pub fn until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}: not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn lines(path: &Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// Values of a key, in order.
pub fn values(path: &Path, key: &str) -> Vec<String> {
    let key = format!(" {key}=");
    lines(path).iter().filter_map(|l| l.split_once(&key)?.1.split(' ').next().map(str::to_owned)).collect()
}

#[track_caller]
pub fn has_lines(path: &Path, count: usize) {
    until(&format!("{count} lines in {}", path.display()), || lines(path).len() >= count);
    assert_eq!(lines(path).len(), count, "{:#?}", lines(path));
}

pub fn health(sinks: &Sinks, name: &str) -> SinkHealth {
    sinks.health().into_iter().find(|h| h.name == name).unwrap()
}

/// Waits until every sink has everything.
#[track_caller]
pub fn caught_up(sinks: &Sinks) {
    until("all sinks caught up", || sinks.health().iter().all(|h| h.waiting == 0));
}
