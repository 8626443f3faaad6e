//! What guard-model writes as JSON is what the wire types read and write: the
//! daemon may convert by way of JSON, and `jq` sees one shape everywhere.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test says where")]

use guard_api::wire;
use guard_model::alert::{Note, Session};
use guard_model::entry::{Digest, Entry, Kind, Stamp};
use guard_model::finding::{Actor, Confidence, Finding};
use guard_model::ledger::{Event, GapCause, Record};
use guard_model::state::{Gap, LastRehash};
use guard_model::{Alert, AlertStatus, Change, Severity, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

const NOW: Timestamp = Timestamp(1_795_300_000_000_001);

/// Every field of the model's JSON is in the wire type's JSON, with the same value.
fn mirrors<W: Serialize + DeserializeOwned>(model: &impl Serialize) {
    let json = serde_json::to_value(model).unwrap();
    let wire: W = serde_json::from_value(json.clone()).unwrap_or_else(|e| panic!("{e}: {json}"));
    contains(&serde_json::to_value(&wire).unwrap(), &json);
}

fn contains(wire: &Value, model: &Value) {
    match (wire, model) {
        (Value::Object(w), Value::Object(m)) => {
            for (key, value) in m {
                contains(w.get(key).unwrap_or_else(|| panic!("{key} is lost")), value);
            }
        }
        (Value::Array(w), Value::Array(m)) => {
            assert_eq!(w.len(), m.len());
            w.iter().zip(m).for_each(|(w, m)| contains(w, m));
        }
        _ => assert_eq!(wire, model),
    }
}

fn entry(kind: Kind) -> Entry {
    Entry {
        kind,
        mode: 0o4755,
        uid: 1000,
        gid: 1000,
        size: 3,
        mtime: Stamp { sec: -1, nsec: 5 },
        ctime: Stamp { sec: i64::MAX, nsec: 6 },
        dev: u64::MAX,
        ino: u64::MAX,
        nlink: 1,
        rdev: 5,
        flags: 16,
        target: Some(b"\xff".to_vec()),
        xattrs: vec![(b"user.x".to_vec(), b"\xff\0".to_vec())],
        sha256: Some(Digest([7; 32])),
    }
}

fn finding(change: Vec<Change>) -> Finding {
    Finding {
        path: "a\\x0a".into(),
        at: NOW,
        change,
        before: Some(entry(Kind::File)),
        after: None,
        actor: Some(Actor {
            pid: 1,
            comm: Some("sh".into()),
            exe: Some("/bin/sh".into()),
            cmdline: None,
            uid: Some(0),
            login_uid: None,
            started_at: Some(NOW),
            parents: vec!["sshd".into()],
            unit: None,
            container: None,
            confidence: Confidence::Exited,
        }),
        restored: true,
        note: Some("unreadable".into()),
    }
}

#[test]
fn entries_of_every_kind() {
    for kind in [
        Kind::File,
        Kind::Directory,
        Kind::Symlink,
        Kind::Fifo,
        Kind::Socket,
        Kind::CharDevice,
        Kind::BlockDevice,
    ] {
        mirrors::<wire::Entry>(&entry(kind));
    }
}

#[test]
fn findings_with_every_change() {
    use Change::*;
    let all = vec![
        Created, Deleted, Type, Content, Size, Mode, Owner, Mtime, Inode, Links, Target, Xattr, Flags, Mount,
        Seal, LockFile, Root,
    ];
    let words: Vec<String> = all.iter().map(ToString::to_string).collect();
    let f = finding(all);
    mirrors::<wire::Finding>(&f);
    let wire: wire::Finding = serde_json::from_value(serde_json::to_value(&f).unwrap()).unwrap();
    assert_eq!(wire.change.iter().map(|c| c.word()).collect::<Vec<_>>(), words);
}

#[test]
fn alerts_gaps_and_records() {
    for severity in [Severity::Warning, Severity::High, Severity::Critical] {
        for status in [AlertStatus::Open, AlertStatus::Acknowledged, AlertStatus::Resolved] {
            mirrors::<wire::Alert>(&Alert {
                id: 7,
                environment: "production".into(),
                severity,
                status,
                opened_at: NOW,
                title: "t".into(),
                findings: vec![finding(vec![Change::Content])],
                sessions: vec![Session { user: "u".into(), tty: "t".into(), host: "h".into(), since: None }],
                notes: vec![Note { at: NOW, by: "b".into(), text: "t".into() }],
                settled: vec!["a".into()],
                reviewed: true,
            });
        }
    }
    for cause in [GapCause::Down, GapCause::Overflow, GapCause::Backend, GapCause::Deaf, GapCause::Root] {
        mirrors::<wire::Gap>(&Gap {
            id: 1,
            cause,
            since: NOW,
            until: Some(NOW),
            detail: None,
            verified: None,
            found: 2,
        });
    }
    mirrors::<wire::Rehash>(&LastRehash { finished_at: NOW, files: 1, bytes: 2, duration_ms: 3 });
    mirrors::<wire::Record>(&Record {
        seq: 9,
        at: NOW,
        prev: Digest([1; 32]),
        environment: Some("production".into()),
        event: Event::GapClosed { gap: 8, verified: "all".into(), found: 0 },
    });
}

#[test]
fn times_beyond_the_calendar() {
    for t in [i64::MIN, -1, 0, i64::MAX] {
        mirrors::<guard_api::Time>(&Timestamp(t));
    }
}

#[test]
fn gates_mirror() {
    use guard_model::deploy::{Gate, Verdict};
    for verdict in [Verdict::Pass, Verdict::Fail, Verdict::Unknown, Verdict::Waived] {
        let gate = Gate {
            gate: "port".into(),
            subject: "8080".into(),
            verdict,
            evidence: "it is free".into(),
            by_hand: "ss".into(),
        };
        mirrors::<wire::Gate>(&gate);
    }
}
