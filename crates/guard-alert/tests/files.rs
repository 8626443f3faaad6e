//! Log files: what is written, and what happens to them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, in a file of its own")]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use guard_model::ledger::Event;
use support::{Stage, caught_up, finding, has_lines, health, lines, opened, until, values};

const ALERTS: &str = "log:security-alerts";

#[test]
fn each_log_has_its_own_events_with_its_own_mode() {
    let s = Stage::default();
    let sinks = s.start();
    s.memory.alert("a", 2);
    s.memory.stopped("SIGTERM");
    s.memory.append(
        "production",
        Event::WindowChange { window: 1, deployment: None, findings: vec![finding("w")] },
    );
    caught_up(&sinks);
    has_lines(&s.alerts(), 2);
    has_lines(&s.log("protection.log"), 1);
    has_lines(&s.log("maintenance.log"), 1);
    until("an empty deployments.log", || s.log("deployments.log").exists());
    assert_eq!(lines(&s.log("deployments.log")), Vec::<String>::new());
    assert_eq!(values(&s.alerts(), "path"), ["a-0", "a-1"]);
    let mode = fs::metadata(s.alerts()).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o640);
    assert!(sinks.health().iter().all(|h| h.healthy && h.error.is_none()), "{:?}", sinks.health());
    assert_eq!(sinks.shutdown(Duration::from_secs(5)), []);
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let s = Stage::default();
    let sinks = s.start();
    s.memory.alert("first", 3);
    caught_up(&sinks);
    sinks.shutdown(Duration::from_secs(5));
    s.memory.alert("while-down", 2);
    let sinks = s.start();
    s.memory.alert("after", 1);
    caught_up(&sinks);
    let paths = ["first-0", "first-1", "first-2", "while-down-0", "while-down-1", "after-0"];
    assert_eq!(values(&s.alerts(), "path"), paths);
}

#[test]
fn the_cap_of_an_alert_holds_across_a_restart() {
    let s = Stage::default();
    let sinks = s.start();
    let alert = s.memory.alert("a", 15).seq;
    caught_up(&sinks);
    sinks.shutdown(Duration::from_secs(5));
    let sinks = s.start();
    let findings = (0..10).map(|i| finding(&format!("b-{i}"))).collect();
    let severity = guard_model::Severity::High;
    s.memory.append("production", Event::AlertGrew { alert, severity, findings });
    caught_up(&sinks);
    has_lines(&s.alerts(), 21);
    assert!(lines(&s.alerts())[20].contains("and 5 more: guardctl alerts show 1"));
}

#[test]
fn a_new_sink_begins_now_and_a_first_start_at_the_beginning() {
    let mut s = Stage::default();
    s.memory.alert("history", 1);
    let sinks = s.start();
    caught_up(&sinks);
    assert_eq!(values(&s.alerts(), "path"), ["history-0"]);
    sinks.shutdown(Duration::from_secs(5));
    s.config.notify.insert("production".into(), vec!["/bin/false".into()]);
    let sinks = s.start();
    assert_eq!(health(&sinks, "notify:production").waiting, 0);
}

#[test]
fn a_file_that_is_moved_deleted_or_loses_its_directory_is_made_anew() {
    let s = Stage::default();
    let sinks = s.start();
    s.memory.alert("one", 1);
    has_lines(&s.alerts(), 1);
    // logrotate: renamed, then SIGUSR1.
    fs::rename(s.alerts(), s.log("security-alerts.log.1")).unwrap();
    sinks.reopen();
    s.memory.alert("two", 1);
    has_lines(&s.alerts(), 1);
    // Without the signal it is noticed all the same.
    fs::remove_file(s.alerts()).unwrap();
    s.memory.alert("three", 1);
    has_lines(&s.alerts(), 1);
    fs::remove_dir_all(&s.config.log_dir).unwrap();
    s.memory.alert("four", 1);
    has_lines(&s.alerts(), 1);
    assert_eq!(values(&s.alerts(), "path"), ["four-0"]);
    // copytruncate: appending goes on at the new end.
    fs::OpenOptions::new().write(true).truncate(true).open(s.alerts()).unwrap();
    s.memory.alert("five", 1);
    has_lines(&s.alerts(), 1);
    assert!(sinks.health().iter().all(|h| h.healthy));
}

#[test]
fn a_log_directory_that_cannot_be_made_holds_up_nothing_and_loses_nothing() {
    let s = Stage::default();
    // A file where the directory belongs, which stops root too.
    fs::write(&s.config.log_dir, "in the way").unwrap();
    let sinks = s.start();
    for i in 0..100 {
        s.memory.alert(&format!("a{i}"), 1);
    }
    until("the failure", || !health(&sinks, ALERTS).healthy);
    let failing = health(&sinks, ALERTS);
    assert_eq!(failing.waiting, 100);
    assert!(failing.error.unwrap().contains(s.config.log_dir.to_str().unwrap()));
    fs::remove_file(&s.config.log_dir).unwrap();
    sinks.reopen();
    caught_up(&sinks);
    has_lines(&s.alerts(), 100);
    until("the recovery", || health(&sinks, ALERTS).healthy);
    until("both turns", || s.turned(ALERTS) == [false, true]);
}

#[test]
fn what_is_no_regular_file_is_refused_until_it_is_gone() {
    let s = Stage::default();
    fs::create_dir_all(&s.config.log_dir).unwrap();
    let target = s.path("target");
    fs::write(&target, "").unwrap();
    symlink(&target, s.alerts()).unwrap();
    let cwd = rustix::fs::CWD;
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(cwd, s.log("protection.log"), fifo, 0o600.into(), 0).unwrap();
    // A reader, so that opening the fifo to write succeeds.
    let reader = fs::OpenOptions::new().read(true).write(true).open(s.log("protection.log")).unwrap();
    let sinks = s.start();
    s.memory.alert("a", 1);
    s.memory.stopped("x");
    until("the failures", || [ALERTS, "log:protection"].iter().all(|n| !health(&sinks, n).healthy));
    assert!(health(&sinks, "log:protection").error.unwrap().contains("not a regular file"));
    assert_eq!(fs::read(&target).unwrap(), b"");
    drop(reader);
    fs::remove_file(s.alerts()).unwrap();
    fs::remove_file(s.log("protection.log")).unwrap();
    caught_up(&sinks);
    has_lines(&s.alerts(), 1);
    has_lines(&s.log("protection.log"), 1);
}

/// A small file system of its own, unmounted at the end.
struct Mounted(std::path::PathBuf);

impl Mounted {
    fn tmpfs(at: &std::path::Path, size: &str) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let flags = rustix::mount::MountFlags::empty();
        let data = std::ffi::CString::new(format!("size={size}")).unwrap();
        rustix::mount::mount("tmpfs", at, "tmpfs", flags, Some(data.as_c_str())).ok()?;
        Some(Self(at.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn a_full_file_system_delays_lines_and_neither_tears_nor_doubles_them() {
    let s = Stage::default();
    let Some(_mounted) = Mounted::tmpfs(&s.config.log_dir, "1m") else {
        return; // not permitted to mount
    };
    let ballast = s.log("ballast");
    fs::write(&ballast, vec![0; (1 << 20) - (40 << 10)]).unwrap();
    let sinks = s.start();
    for i in 0..60 {
        s.memory.alert(&format!("{}{i}", "n".repeat(100)), 20);
    }
    until("the failure", || !health(&sinks, ALERTS).healthy);
    assert!(health(&sinks, ALERTS).error.unwrap().contains("No space left"));
    assert!(fs::metadata(s.alerts()).unwrap().len() > 0);
    fs::remove_file(&ballast).unwrap();
    sinks.reopen();
    caught_up(&sinks);
    has_lines(&s.alerts(), 60 * 20);
    let mut paths = values(&s.alerts(), "path");
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), 60 * 20);
    assert!(lines(&s.alerts()).iter().all(|l| l.starts_with("20") && l.ends_with(" change=content")));
}

#[test]
fn a_torn_last_line_is_ended_before_the_next() {
    let s = Stage::default();
    fs::create_dir_all(&s.config.log_dir).unwrap();
    fs::write(s.alerts(), "2023-11-14T22:13:20.000000Z high prod").unwrap();
    let sinks = s.start();
    s.memory.alert("a", 2);
    caught_up(&sinks);
    has_lines(&s.alerts(), 3);
    assert_eq!(values(&s.alerts(), "path"), ["a-0", "a-1"]);
}

#[test]
fn a_record_that_could_not_be_made_durable_goes_out_at_once_and_again() {
    let s = Stage::default();
    let sinks = s.start();
    let mut record = s.memory.alert("durable", 1);
    record.event = opened("full-disk", 1);
    sinks.undurable(vec![record]);
    has_lines(&s.alerts(), 2);
    let marked = |l: &String| l.contains("undurable=yes");
    assert_eq!(lines(&s.alerts()).iter().filter(|l| marked(l)).count(), 1);
    s.memory.alert("full-disk", 1);
    has_lines(&s.alerts(), 3);
    let last = lines(&s.alerts()).pop().unwrap();
    assert!(last.contains("path=full-disk-0") && !marked(&last));
}

#[test]
fn places_that_cannot_be_kept_or_read_are_no_reason_to_stop() {
    let s = Stage::default();
    fs::create_dir_all(s.config.cursors.join("log-security-alerts")).unwrap();
    fs::write(s.config.cursors.join("log-protection"), "no place at all").unwrap();
    let sinks = s.start();
    s.memory.alert("a", 1);
    s.memory.stopped("x");
    caught_up(&sinks);
    has_lines(&s.alerts(), 1);
    has_lines(&s.log("protection.log"), 1);
    let complaint = health(&sinks, ALERTS);
    assert!(complaint.healthy && complaint.error.unwrap().contains("its place cannot be kept"));
}

#[test]
fn a_ledger_that_is_shorter_than_a_sinks_place_is_followed_from_its_end() {
    let s = Stage::default();
    let sinks = s.start();
    for i in 0..5 {
        s.memory.alert(&format!("old{i}"), 1);
    }
    caught_up(&sinks);
    sinks.shutdown(Duration::from_secs(5));
    let shorter = Stage { memory: support::Memory::default(), ..s };
    shorter.memory.alert("kept", 1);
    let sinks = shorter.start();
    shorter.memory.alert("new", 1);
    caught_up(&sinks);
    assert_eq!(values(&shorter.alerts(), "path").last().unwrap(), "new-0");
}
