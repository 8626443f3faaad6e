//! The real ledger as the source, and a daemon that is killed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, in a file of its own")]

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use guard_alert::{SinkConfig, Sinks};
use guard_model::Timestamp;
use guard_model::ledger::Event;
use guard_store::{HostKey, Ledger, StateDir};
use support::{caught_up, lines, opened, until, values};

struct Running {
    ledger: Ledger,
    sinks: Sinks,
    // Last: it holds the lock on the directory.
    _state: StateDir,
}

fn start(base: &Path) -> Running {
    let state = StateDir::open(&base.join("state")).unwrap();
    let key = HostKey::load_or_create(&state).unwrap();
    let clock = || Timestamp(guard_sys::clock::wall_micros());
    let (ledger, _) = Ledger::open(&state, key, clock).unwrap();
    let config = SinkConfig::new(&base.join("log"), &state.paths().sinks());
    let sinks = Sinks::start(ledger.handle(), config, |_| {}).unwrap();
    Running { ledger, sinks, _state: state }
}

fn alerts(base: &Path) -> PathBuf {
    base.join("log/security-alerts.log")
}

#[test]
fn what_is_durable_is_told_and_the_health_of_sinks_can_go_into_the_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let r = start(dir.path());
    let handle = r.ledger.handle();
    handle
        .append(Some("production".into()), vec![opened("a", 3), Event::DaemonStopped { reason: "x".into() }])
        .unwrap();
    caught_up(&r.sinks);
    assert_eq!(values(&alerts(dir.path()), "path"), ["a-0", "a-1", "a-2"]);
    assert_eq!(lines(&dir.path().join("log/protection.log")).len(), 1);
    assert_eq!(r.sinks.shutdown(Duration::from_secs(10)), []);
    r.ledger.stop().unwrap();
}

const CHILD: &str = "GUARD_ALERT_TEST_CHILD";

/// Appends alerts until it is killed.
fn child(base: &Path) -> ! {
    let r = start(base);
    let first = r.ledger.handle().head().seq;
    for i in 0.. {
        let events = vec![opened(&format!("run{first}.{i}"), 7), Event::DaemonStopped { reason: "x".into() }];
        r.ledger.handle().append(Some("production".into()), events).unwrap();
    }
    unreachable!()
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_killed_daemon_repeats_at_most_one_line_and_loses_none() {
    if let Some(base) = std::env::var_os(CHILD) {
        child(Path::new(&base));
    }
    let dir = tempfile::tempdir().unwrap();
    let kills = 5;
    for _ in 0..kills {
        let before = lines(&alerts(dir.path())).len();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_killed_daemon_repeats_at_most_one_line_and_loses_none"])
            .env(CHILD, dir.path())
            .spawn()
            .unwrap();
        let child = Killed(child);
        until("some lines", || lines(&alerts(dir.path())).len() > before + 40);
        drop(child);
    }
    let r = start(dir.path());
    caught_up(&r.sinks);
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for path in values(&alerts(dir.path()), "path") {
        *told.entry(path).or_default() += 1;
    }
    let mut durable = 0;
    for record in r.ledger.handle().read_from(1) {
        if let Event::AlertOpened { findings, .. } = record.unwrap().event {
            for finding in findings {
                durable += 1;
                assert!(told.contains_key(&finding.path), "{} was never told", finding.path);
            }
        }
    }
    // Everything told was durable before, and doubles are no more than kills.
    assert_eq!(told.len(), durable);
    let doubles: usize = told.values().map(|n| n - 1).sum();
    assert!(doubles <= kills, "{doubles} lines came twice");
    r.sinks.shutdown(Duration::from_secs(10));
}
