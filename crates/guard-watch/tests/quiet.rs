//! Whoever reads an environment's events is not woken by what processes do elsewhere. A program of its own, so that its
//! threads are known.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, in a file of its own")]

use std::fs;
use std::process::Command;
use std::sync::Arc;

use guard_model::policy::{PatternText, Policy};
use guard_watch::{EnvId, Source, Watcher};

/// Each as long as it lives beside two others.
const PROCESSES: u64 = 200;

/// How often this process's threads of that name went to sleep.
fn waits(name: &str) -> Vec<u64> {
    let mut all = Vec::new();
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap_or_default();
        let field = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key));
            value.map(str::trim).unwrap_or_default().to_owned()
        };
        if field("Name:") == name {
            all.extend(field("voluntary_ctxt_switches:").parse::<u64>());
        }
    }
    all
}

#[test]
fn processes_elsewhere_wake_one_thread_and_no_reader() {
    let top = tempfile::tempdir().unwrap();
    let top = top.path().canonicalize().unwrap();
    let watcher = Watcher::start(&top.join("canary"), Source::Best, |_| {}).unwrap();
    let policy = Arc::new(Policy::new(PatternText::default()).unwrap());
    for number in 1..=3 {
        let root = top.join(format!("root{number}"));
        fs::create_dir(&root).unwrap();
        let report = watcher.add_environment(EnvId(number), &root, Arc::clone(&policy)).unwrap();
        if report.backend != "fanotify" {
            return eprintln!("skipped: no fanotify: {:?}", report.instead);
        }
        if let Some(why) = report.memory.lacking() {
            return eprintln!("skipped: {why}");
        }
    }
    let heard_before: u64 = waits("processes").iter().sum();
    for _ in 0..PROCESSES {
        assert!(Command::new("true").current_dir("/").status().unwrap().success());
    }
    let (readers, heard) = (waits("fanotify"), waits("processes"));
    assert_eq!((readers.len(), heard.len()), (3, 1), "{readers:?}, {heard:?}");
    // Each waits for the first time, and perhaps for what was made with it.
    assert!(readers.iter().all(|times| *times < PROCESSES / 4), "{readers:?}");
    assert!(heard.iter().sum::<u64>() > heard_before, "{heard:?}");
}
