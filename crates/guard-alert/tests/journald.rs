//! journald: gone, stalled, and back.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, in a file of its own")]

mod support;

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use guard_model::ledger::Event;
use support::{Stage, caught_up, finding, has_lines, health, until};

type Fields = BTreeMap<String, Vec<u8>>;

/// Reads one entry as journald does, or nothing where there is none at present.
fn receive(socket: &UnixDatagram) -> Option<Fields> {
    let mut buffer = vec![0; 1 << 20];
    let n = socket.recv(&mut buffer).ok()?;
    let mut bytes = &buffer[..n];
    let mut fields = Fields::new();
    while !bytes.is_empty() {
        let end = bytes.iter().position(|b| matches!(b, b'\n' | b'=')).unwrap();
        let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let (start, length) = if bytes[end] == b'\n' {
            let length = u64::from_le_bytes(bytes[end + 1..end + 9].try_into().unwrap());
            (end + 9, usize::try_from(length).unwrap())
        } else {
            (end + 1, bytes[end + 1..].iter().position(|&b| b == b'\n').unwrap())
        };
        fields.insert(name, bytes[start..start + length].to_vec());
        assert_eq!(bytes[start + length], b'\n');
        bytes = &bytes[start + length + 1..];
    }
    Some(fields)
}

fn listen(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).unwrap();
    socket.set_read_timeout(Some(support::PATIENCE)).unwrap();
    socket
}

fn stage() -> Stage {
    let mut s = Stage::default();
    s.config.journal = true;
    s.config.journal_socket = s.path("socket");
    s
}

fn text(fields: &Fields, name: &str) -> String {
    String::from_utf8(fields[name].clone()).unwrap()
}

#[test]
fn entries_are_structured_and_paths_raw() {
    let s = stage();
    let socket = listen(&s.config.journal_socket);
    let sinks = s.start();
    let mut f = finding("a\\x0ab \\xff");
    f.change = vec![guard_model::Change::Content, guard_model::Change::Mode];
    let severity = guard_model::Severity::Critical;
    let event = Event::AlertOpened { severity, title: "t".into(), findings: vec![f], sessions: vec![] };
    s.memory.append("production", event);
    let entry = receive(&socket).unwrap();
    assert_eq!(entry["GUARDD_PATH"], b"a\nb \xff");
    for (name, value) in [
        ("MESSAGE", "production: a\\x0ab \\xff changed (content, mode) (alert 1)"),
        ("MESSAGE_ID", "13ae518b98f142b09d5b56aa2babe257"),
        ("PRIORITY", "2"),
        ("SYSLOG_IDENTIFIER", "guardd"),
        ("GUARDD_ENVIRONMENT", "production"),
        ("GUARDD_ALERT", "1"),
        ("GUARDD_CHANGE", "content,mode"),
        ("GUARDD_EVENT", "alert_opened"),
        ("GUARDD_SEVERITY", "critical"),
        ("GUARDD_RECORD", "1"),
    ] {
        assert_eq!(text(&entry, name), value, "{name}");
    }
    assert_eq!(text(&entry, "GUARDD_PREVIOUS").len(), 64);
    // A checkpoint is in no log file, and in the journal as evidence.
    s.memory.append("production", Event::Checkpoint { signature: "s".into() });
    assert_eq!(text(&receive(&socket).unwrap(), "GUARDD_EVENT"), "checkpoint");
    caught_up(&sinks);
}

#[test]
fn a_journald_that_takes_nothing_stalls_nobody_and_gets_everything_once() {
    let s = stage();
    let socket = listen(&s.config.journal_socket);
    let sinks = s.start();
    // More than a datagram queue holds (net.unix.max_dgram_qlen, and the send buffer).
    for i in 0..150 {
        s.memory.alert(&format!("a{i}"), 20);
    }
    has_lines(&s.alerts(), 3000);
    until("the failure", || !health(&sinks, "journald").healthy);
    let stalled = health(&sinks, "journald");
    assert!(stalled.waiting > 0 && stalled.error.unwrap().contains("does not take entries"));
    assert!(sinks.health().iter().filter(|h| h.name != "journald").all(|h| h.healthy));

    let mut records = Vec::new();
    for _ in 0..3000 {
        let entry = receive(&socket).unwrap();
        records.push((text(&entry, "GUARDD_RECORD").parse::<u64>().unwrap(), text(&entry, "GUARDD_PATH")));
    }
    caught_up(&sinks);
    socket.set_nonblocking(true).unwrap();
    assert_eq!(receive(&socket), None, "a duplicate");
    assert!(records.is_sorted_by_key(|(record, _)| *record));
    records.sort();
    records.dedup();
    assert_eq!(records.len(), 3000);
    until("both turns", || s.turned("journald") == [false, true]);
}

#[test]
fn a_journald_that_comes_late_and_goes_between_loses_nothing() {
    let s = stage();
    let sinks = s.start();
    s.memory.alert("before", 1);
    has_lines(&s.alerts(), 1);
    until("the failure", || !health(&sinks, "journald").healthy);
    let socket = listen(&s.config.journal_socket);
    assert_eq!(text(&receive(&socket).unwrap(), "GUARDD_PATH"), "before-0");
    drop(socket);
    std::fs::remove_file(&s.config.journal_socket).unwrap();
    s.memory.alert("between", 1);
    has_lines(&s.alerts(), 2);
    let socket = listen(&s.config.journal_socket);
    assert_eq!(text(&receive(&socket).unwrap(), "GUARDD_PATH"), "between-0");
    caught_up(&sinks);
}

#[test]
fn a_stop_in_the_middle_of_an_alert_goes_on_in_the_middle() {
    let s = stage();
    let socket = listen(&s.config.journal_socket);
    let sinks = s.start();
    for i in 0..150 {
        s.memory.alert(&format!("a{i}"), 20);
    }
    until("the others", || sinks.health().iter().all(|h| h.name == "journald" || h.waiting == 0));
    until("the stall", || health(&sinks, "journald").error.is_some());
    let started = Instant::now();
    let left = sinks.shutdown(Duration::from_millis(200));
    assert!(started.elapsed() < Duration::from_secs(60));
    assert_eq!(left.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["journald"]);
    let mut paths = Vec::new();
    socket.set_nonblocking(true).unwrap();
    while let Some(entry) = receive(&socket) {
        paths.push(text(&entry, "GUARDD_PATH"));
    }
    socket.set_nonblocking(false).unwrap();
    let sinks = s.start();
    while paths.len() < 3000 {
        paths.push(text(&receive(&socket).unwrap(), "GUARDD_PATH"));
    }
    caught_up(&sinks);
    let expected: Vec<String> = (0..150).flat_map(|i| (0..20).map(move |j| format!("a{i}-{j}"))).collect();
    assert_eq!(paths, expected);
}
