//! Appending to the ledger and reading it.

use std::sync::mpsc::{RecvTimeoutError, TryRecvError};
use std::time::Duration;

use guard_model::ledger::{Event, Head, Record, line_hash};
use guard_model::{Severity, Timestamp};
use guard_store::ledger::{CHECKPOINT_EVERY, Verified};
use guard_store::{StoreError, verify_files};

use crate::support::{Fixture, bash, finding, locked, opened_alert, stopped};

const SOON: Duration = Duration::from_secs(120);

#[test]
fn records_are_chained_and_durable_when_append_returns() {
    let f = Fixture::new();
    let (ledger, opened) = f.open().unwrap();
    assert_eq!((opened.head, opened.torn_tail), (Head::default(), None));
    let h = ledger.handle();
    let first = h.append(None, vec![stopped(1)]).unwrap();
    let more = h.append(Some("production".into()), vec![locked(1), opened_alert(&["a", "b"])]).unwrap();
    assert_eq!(first.iter().chain(&more).map(|r| r.seq).collect::<Vec<_>>(), [1, 2, 3]);
    let [file] = &f.ledger_files()[..] else { panic!() };
    assert!(file.ends_with("0000000001.jsonl"));
    let text = std::fs::read_to_string(file).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(serde_json::from_str::<Record>(lines[2]).unwrap(), more[1]);
    assert_eq!(h.head(), Head { seq: 3, hash: line_hash(lines[2].as_bytes()) });
    assert_eq!(more[1].prev, line_hash(lines[1].as_bytes()));
    assert!(more[1].at > more[0].at);
    let head = ledger.stop().unwrap();
    assert_eq!(head.seq, 4, "a checkpoint ends it");
    let report = verify_files(&f.state.ledger(), &f.key.public(), Some(head)).unwrap();
    assert_eq!((report.verdict(), report.records, report.checkpoints_good), (Verified::Whole, 4, 1));
    assert_eq!(report.signed_up_to, 4);
}

#[test]
fn it_goes_on_after_a_restart() {
    let f = Fixture::new();
    let head = f.ledger_of(3);
    let (ledger, opened) = f.open().unwrap();
    assert_eq!((opened.head, opened.checked, opened.index.replayed), (head, 4, 0));
    assert_eq!(opened.index.rebuilt, None);
    let r = ledger.handle().append(None, vec![stopped(9)]).unwrap();
    assert_eq!((r[0].seq, r[0].prev), (5, head.hash));
    ledger.stop().unwrap();
    assert_eq!(f.ledger_files().len(), 1);
}

#[test]
fn nothing_is_written_without_need() {
    let f = Fixture::new();
    let head = f.ledger_of(1);
    let (ledger, _) = f.open().unwrap();
    assert!(ledger.handle().append(None, vec![]).unwrap().is_empty());
    assert_eq!(ledger.stop().unwrap(), head, "no second checkpoint over the same records");
}

#[test]
fn a_closed_ledger_says_so() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    ledger.stop().unwrap();
    assert!(matches!(h.append(None, vec![stopped(1)]), Err(StoreError::LedgerClosed)));
}

#[test]
fn a_checkpoint_stands_every_thousand_records() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    for _ in 0..25 {
        ledger.handle().append(None, (0..100).map(stopped).collect()).unwrap();
    }
    let head = ledger.stop().unwrap();
    assert_eq!(head.seq, 2503);
    let report = verify_files(&f.state.ledger(), &f.key.public(), Some(head)).unwrap();
    assert_eq!((report.verdict(), report.checkpoints_good), (Verified::Whole, 3));
    let seqs = bash(&f.state.ledger(), "jq -r 'select(.event == \"checkpoint\").seq' *.jsonl").unwrap();
    assert_eq!(seqs, "1000\n2000\n2503\n");
    assert_eq!(CHECKPOINT_EVERY, 1000);
}

#[test]
fn checkpoints_stand_as_often_across_restarts() {
    let f = Fixture::new();
    for _ in 0..3 {
        let (ledger, _) = f.open().unwrap();
        ledger.handle().append(None, (0..700).map(stopped).collect()).unwrap();
        // As after `kill -9`: no checkpoint at the end.
        std::mem::forget(ledger);
    }
    let report = verify_files(&f.state.ledger(), &f.key.public(), None).unwrap();
    assert_eq!((report.verdict(), report.checkpoints_good), (Verified::Whole, 2));
}

#[test]
fn wakes_collapse_and_readers_pull() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    let wake = h.subscribe();
    let (heads, seen) = std::sync::mpsc::channel();
    h.on_commit(move |head| heads.send(head).unwrap());
    let mut reader = h.read_from(1);
    assert!(reader.next().is_none());
    assert!(matches!(wake.try_recv(), Err(TryRecvError::Empty)));
    for i in 0..5 {
        h.append(None, vec![stopped(i)]).unwrap();
    }
    wake.recv_timeout(SOON).unwrap();
    assert!(matches!(wake.try_recv(), Err(TryRecvError::Empty)));
    assert_eq!(reader.by_ref().map(|r| r.unwrap().seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    // Not fused: it goes on where it was.
    h.append(None, vec![stopped(9)]).unwrap();
    assert_eq!(reader.next().unwrap().unwrap().seq, 6);
    assert!(reader.next().is_none());
    assert_eq!(h.read_from(4).map(|r| r.unwrap().seq).collect::<Vec<_>>(), [4, 5, 6]);
    assert!(h.read_from(99).next().is_none());
    assert_eq!(seen.try_iter().map(|h| h.seq).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    // A subscriber that has gone is forgotten.
    drop(wake);
    h.append(None, vec![stopped(9)]).unwrap();
    ledger.stop().unwrap();
}

#[test]
fn an_append_can_be_handed_over() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let (send, receive) = std::sync::mpsc::channel();
    for i in 0..50 {
        let send = send.clone();
        ledger.handle().append_then(None, vec![stopped(i)], move |r| send.send(r.unwrap()[0].seq).unwrap());
    }
    let seqs: Vec<u64> = (0..50).map(|_| receive.recv_timeout(SOON).unwrap()).collect();
    assert_eq!(seqs, (1..=50).collect::<Vec<_>>());
    assert!(matches!(receive.recv_timeout(Duration::ZERO), Err(RecvTimeoutError::Timeout)));
    ledger.stop().unwrap();
}

#[test]
fn a_mass_change_is_split_and_nothing_of_it_is_lost() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    let findings: Vec<_> = (0..5000).map(|i| finding(&format!("node_modules/p{i}/index.js"))).collect();
    let opened = Event::AlertOpened {
        severity: Severity::High,
        title: "a mass change".into(),
        findings: findings.clone(),
        sessions: vec![],
    };
    let answer = h.append(Some("production".into()), vec![opened, stopped(1)]).unwrap();
    assert_eq!((answer.len(), answer[0].seq), (2, 1));
    assert!(matches!(answer[1].event, Event::DaemonStopped { .. }));
    assert!(answer[1].seq > 2, "further findings stand between");
    let all: Vec<Record> = h.read_from(1).map(Result::unwrap).collect();
    let longest = all.iter().map(|r| serde_json::to_vec(r).unwrap().len()).max().unwrap();
    assert!(longest < 1_200_000, "{longest}");
    assert_eq!(h.index().alert(1).unwrap().unwrap().findings, findings);
    let settled = Event::AlertSettled {
        alert: 1,
        paths: (0..200_000).map(|i| format!("some/rather/long/path/{i}")).collect(),
        how: "as before".into(),
        reviewed: false,
    };
    let window = Event::WindowChange { window: 7, deployment: None, findings };
    h.append(Some("production".into()), vec![settled, window]).unwrap();
    let head = ledger.stop().unwrap();
    let report = verify_files(&f.state.ledger(), &f.key.public(), Some(head)).unwrap();
    assert_eq!(report.verdict(), Verified::Whole);
}

#[test]
fn a_monstrous_finding_is_shortened_and_says_so() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let mut monster = finding("a");
    let xattrs = (0..400u32).map(|i| (format!("user.{i:04}").into_bytes(), vec![b'\xff'; 3000])).collect();
    monster.after.as_mut().unwrap().xattrs = xattrs;
    let event = Event::AlertOpened {
        severity: Severity::High,
        title: "t".into(),
        findings: vec![finding("before"), monster, finding("behind")],
        sessions: vec![],
    };
    let h = ledger.handle();
    h.append(Some("production".into()), vec![event]).unwrap();
    let alert = h.index().alert(1).unwrap().unwrap();
    assert_eq!(alert.findings.len(), 3);
    assert!(alert.findings[1].note.as_ref().unwrap().contains("too large to record"));
    let kept = &alert.findings[1].after.as_ref().unwrap().xattrs;
    assert!(kept.is_sorted() && kept.iter().any(|(name, _)| name == b"guardd.all-attributes"));
    assert!(kept.iter().all(|(_, value)| value.starts_with(b"sha256:") && value.len() == 7 + 64));
    assert!(alert.findings[2].note.is_none());
    let endless = Event::DaemonStopped { reason: "x".repeat(17 * 1024 * 1024) };
    assert!(matches!(h.append(None, vec![endless]), Err(StoreError::RecordTooLarge { .. })));
    h.append(None, vec![stopped(1)]).unwrap();
    ledger.stop().unwrap();
}

#[test]
fn files_are_rotated_and_read_on() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    let mut reader = h.read_from(1);
    let large = "x".repeat(8 * 1024 * 1024);
    let mut read = Vec::new();
    for i in 0..11 {
        h.append(None, vec![Event::DaemonStopped { reason: large.clone() }]).unwrap();
        if i % 3 == 0 {
            // Behind by some records, also across the end of a file.
            read.push(reader.next().unwrap().unwrap().seq);
        }
    }
    let names: Vec<String> =
        f.ledger_files().iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, ["0000000001.jsonl", "0000000009.jsonl"]);
    read.extend(reader.by_ref().map(|r| r.unwrap().seq));
    assert_eq!(read, (1..=11).collect::<Vec<_>>());
    assert_eq!(h.read_from(8).map(|r| r.unwrap().seq).collect::<Vec<_>>(), (8..=11).collect::<Vec<_>>());
    assert_eq!(h.index().recent(3, &Default::default()).unwrap().len(), 3);
    let head = ledger.stop().unwrap();
    let report = verify_files(&f.state.ledger(), &f.key.public(), Some(head)).unwrap();
    assert_eq!((report.verdict(), report.files, report.records), (Verified::Whole, 2, 12));
    let (ledger, opened) = f.open().unwrap();
    assert_eq!((opened.head, opened.checked), (head, 4));
    // A single file can be verified by itself.
    let last = verify_files(&f.ledger_files()[1], &f.key.public(), None).unwrap();
    assert_eq!((last.verdict(), last.records), (Verified::Whole, 4));
    ledger.stop().unwrap();
}

#[test]
fn a_finished_file_gives_its_reserve_back() {
    use std::os::unix::fs::MetadataExt as _;
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    ledger.handle().append(None, vec![stopped(1)]).unwrap();
    let reserve = ledger.handle().health().reserve;
    if let Some(error) = reserve.error {
        println!("skipped: this file system cannot allocate ahead ({error})");
        return;
    }
    assert!(reserve.bytes >= 16 * 1024 * 1024);
    let path = &f.ledger_files()[0];
    assert!(path.metadata().unwrap().blocks() * 512 >= 16 * 1024 * 1024);
    assert!(path.metadata().unwrap().len() < 4096);
    ledger.stop().unwrap();
    assert!(path.metadata().unwrap().blocks() * 512 < 1024 * 1024);
}

#[test]
fn a_clock_that_goes_back_breaks_nothing() {
    let f = Fixture::new();
    let clock = crate::support::clock();
    let back = move || Timestamp(3_000_000_000_000_000 - clock().0);
    let (ledger, _) = guard_store::Ledger::open(&f.state, f.key.clone(), back).unwrap();
    for i in 0..3 {
        ledger.handle().append(None, vec![stopped(i)]).unwrap();
    }
    let head = ledger.stop().unwrap();
    let report = verify_files(&f.state.ledger(), &f.key.public(), Some(head)).unwrap();
    assert_eq!(report.verdict(), Verified::Whole);
    assert_eq!(f.open().unwrap().1.head, head);
}
