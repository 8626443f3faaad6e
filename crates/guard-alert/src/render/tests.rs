use super::*;
use guard_model::entry::{Digest, Stamp};
use guard_model::ledger::{Peer, Proving};
use guard_model::{BackupId, BackupKind, Confidence, Seal, Severity, Timestamp};

const AT: Timestamp = Timestamp(1_795_300_000_000_001);

fn record(seq: u64, event: Event) -> Record {
    Record { seq, at: AT, prev: Digest([7; 32]), environment: Some("production".into()), event }
}

fn entry() -> Entry {
    Entry {
        kind: EntryKind::File,
        mode: 0o440,
        uid: 0,
        gid: 33,
        size: 812,
        mtime: Stamp { sec: 1_795_200_000, nsec: 5_000 },
        ctime: Stamp::default(),
        dev: (8 << 32) | 1,
        ino: 100,
        nlink: 1,
        rdev: 0,
        flags: 0x10,
        target: None,
        xattrs: vec![(b"user.a".to_vec(), vec![1]), (b"user.b".to_vec(), vec![1])],
        sha256: Some(Digest([9; 32])),
    }
}

fn finding(path: &str, change: Vec<Change>, before: Option<Entry>, after: Option<Entry>) -> Finding {
    Finding { path: path.into(), at: AT, change, before, after, actor: None, restored: false, note: None }
}

fn edited(path: &str) -> Finding {
    let after = Entry { size: 840, mode: 0o640, ..entry() };
    finding(path, vec![Change::Content, Change::Size, Change::Mode, Change::Seal], Some(entry()), Some(after))
}

fn opened(findings: Vec<Finding>) -> Event {
    let title = findings.first().map(title_of).unwrap_or_default();
    Event::AlertOpened { severity: Severity::Critical, title, findings, sessions: Vec::new() }
}

fn lines(record: &Record) -> Vec<String> {
    Renderer::default().notices(record).iter().map(Notice::line).collect()
}

fn line(record: &Record) -> String {
    let [line] = lines(record).try_into().unwrap();
    line
}

/// The examples that the documentation shows.
#[test]
fn documented_lines_are_what_is_written() {
    let mut deleted = finding("scripts/deploy.sh", vec![Change::Deleted], Some(entry()), None);
    deleted.actor = Some(Actor {
        pid: 4711,
        comm: Some("rm".into()),
        exe: Some("/usr/bin/rm".into()),
        cmdline: Some("rm -f scripts/deploy.sh".into()),
        uid: Some(0),
        login_uid: Some(1000),
        started_at: None,
        parents: vec!["bash".into()],
        unit: Some("ssh.service".into()),
        container: None,
        confidence: Confidence::Verified,
    });
    let link = Entry {
        kind: EntryKind::Symlink,
        mode: 0o777,
        uid: 1000,
        gid: 1000,
        target: Some(b"/tmp/x y".to_vec()),
        ..entry()
    };
    let created = finding("backend/new file", vec![Change::Created], None, Some(link));
    let many = (0..500).map(|i| edited(&format!("frontend/src/{i}.tsx"))).collect();
    let peer = Peer { uid: 0, login_uid: Some(1000), pid: 4000, name: Some("alice".into()) };
    let examples = [
        line(&record(17, opened(vec![edited(".env.prod")]))),
        line(&record(
            18,
            Event::AlertGrew { alert: 17, severity: Severity::Critical, findings: vec![deleted] },
        )),
        line(&record(
            19,
            Event::AlertGrew { alert: 17, severity: Severity::Critical, findings: vec![created] },
        )),
        lines(&record(20, opened(many))).pop().unwrap(),
        line(&record(
            21,
            Event::WindowOpened {
                by: peer.to_string(),
                maintainer: "Alice Example".into(),
                reason: "hotfix #12".into(),
                until: AT.plus_seconds(1800),
                until_boot_us: 0,
                boot_id: String::new(),
            },
        )),
        line(&record(
            22,
            Event::GapOpened {
                cause: GapCause::Overflow,
                since: AT,
                detail: Some("the queue of events overflowed".into()),
            },
        )),
        line(&record(
            23,
            Event::Sink {
                sink: "journald".into(),
                healthy: false,
                error: Some("journald is not listening".into()),
            },
        )),
    ];
    let page = include_str!("../../../../docs/alerts.md");
    for example in examples {
        assert!(page.lines().any(|l| l == example), "not in docs/alerts.md:\n{example}");
    }
}

#[test]
fn an_alert_has_twenty_lines_however_it_grows() {
    let mut renderer = Renderer::default();
    let batch = |n: usize| (0..n).map(|i| edited(&format!("f{i}"))).collect::<Vec<_>>();
    let grew =
        |seq, n| record(seq, Event::AlertGrew { alert: 5, severity: Severity::High, findings: batch(n) });
    let count = |notices: &[Notice]| notices.len();
    assert_eq!(count(&renderer.notices(&record(5, opened(batch(1))))), 1);
    assert_eq!(count(&renderer.notices(&grew(6, 10))), 10);
    let over = renderer.notices(&grew(7, 10));
    assert_eq!(count(&over), 10);
    assert!(over[9].line().ends_with(r#"alert=5 more=1 hint="and 1 more: guardctl alerts show 5""#));
    let further = renderer.notices(&grew(8, 480));
    assert_eq!(count(&further), 1);
    assert!(further[0].line().contains("and 481 more"));
    // Another alert is another matter.
    assert_eq!(count(&renderer.notices(&record(9, opened(batch(20))))), 20);
    // One that was seen from its beginning goes on alike, whatever came between.
    assert_eq!(count(&renderer.notices(&grew(10, 3))), 0);
    // However small the steps: said again when it is twice as much.
    assert_eq!((11..500).map(|seq| count(&renderer.notices(&grew(seq, 1)))).sum::<usize>(), 1);
}

#[test]
fn every_way_to_differ_is_shown_with_before_and_after() {
    let after = Entry {
        kind: EntryKind::CharDevice,
        uid: 1000,
        gid: 1000,
        size: 1,
        mode: 0o4755,
        dev: (8 << 32) | 2,
        ino: 200,
        nlink: 2,
        rdev: (1 << 32) | 3,
        flags: 0,
        xattrs: vec![(b"user.b".to_vec(), vec![2]), (b"user.c d".to_vec(), vec![1])],
        ..entry()
    };
    let all = vec![
        Change::Type,
        Change::Content,
        Change::Size,
        Change::Mode,
        Change::Owner,
        Change::Mtime,
        Change::Inode,
        Change::Links,
        Change::Target,
        Change::Xattr,
        Change::Flags,
        Change::Mount,
    ];
    let text = line(&record(1, opened(vec![finding("p", all, Some(entry()), Some(after))])));
    for pair in [
        "change=type,content,size,mode,owner,mtime,inode,links,target,xattr,flags,mount",
        "type=file->char_device",
        "size=812->1",
        "mode=0440->4755",
        "owner=0:33->1000:1000",
        "mtime=2026-11-20T18:40:00.000005Z",
        "inode=100->200",
        "links=1->2",
        "device=0:0->1:3",
        "xattr=\"-user.a,~user.b,+user.c d\"",
        "flags=immutable->none",
        "device=8:1->8:2",
    ] {
        assert!(text.contains(&format!(" {pair}")), "{pair} in {text}");
    }
    assert!(!text.contains("0909"), "a digest in {text}");
}

#[test]
fn hostile_text_stays_on_its_line() {
    let hostile = "a\nb\r\u{1b}[2J\u{202e}\" x=1 \\";
    let mut f = edited("a\\x0ab");
    f.note = Some(hostile.into());
    let mut records = vec![
        record(1, opened(vec![f])),
        record(2, Event::AlertAcknowledged { alert: 1, by: hostile.into(), note: hostile.into() }),
        record(3, Event::Recovered { operation: hostile.into(), how: hostile.into() }),
        record(4, opened(Vec::new())),
    ];
    if let Event::AlertOpened { title, .. } = &mut records[3].event {
        *title = hostile.into();
    }
    for r in &records {
        for notice in Renderer::default().notices(r) {
            let line = notice.line();
            assert!(!line.chars().any(|c| c.is_control() || c == '\u{202e}'), "{line:?}");
            assert_eq!(line.matches('"').count() % 2, 0, "{line}");
        }
    }
    assert!(line(&records[0]).contains("path=a\\x0ab "));
}

#[test]
fn every_event_but_the_unknown_one_is_told() {
    let totals = guard_model::baseline::Totals::default();
    let digest = Digest([1; 32]);
    let peer = Peer { uid: 1, login_uid: None, pid: 2, name: None };
    let word = || "word".to_owned();
    let events = vec![
        Event::DaemonStarted { version: word(), pid: 1, boot_id: word(), after_clean_stop: false },
        Event::DaemonStopped { reason: word() },
        Event::Configuration { sha256: digest, accepted: false, problems: vec![word()] },
        Event::Call { method: word(), peer, outcome: Outcome::Refused, error: Some(word()) },
        Event::Locked {
            generation: 1,
            baseline: digest,
            by: word(),
            reason: word(),
            seal: Seal::ReadOnly,
            totals,
            unsealed: 0,
        },
        Event::LockRepaired { by: word(), repaired: 1 },
        Event::WindowChange { window: 1, deployment: None, findings: vec![edited("a")] },
        Event::WindowClosed { window: 1, how: WindowEnd::Timer, changed: 1 },
        Event::AlertSettled { alert: 1, paths: vec![word()], how: word(), reviewed: true },
        Event::Accepted {
            generation: 2,
            baseline: digest,
            by: word(),
            reason: word(),
            paths: vec![word()],
            totals,
        },
        Event::GapClosed { gap: 1, verified: word(), found: 0 },
        Event::RehashFinished { files: 1, bytes: 1, duration_ms: 1, findings: 0, deep: false },
        Event::BackupCreated {
            backup: BackupId::new(1, Timestamp(0)),
            manifest: digest,
            kind: BackupKind::Manual,
            by: word(),
            note: Some(word()),
            generation: Some(1),
            totals,
            missing: 1,
            written: 1,
        },
        Event::BackupPruned { backups: vec![BackupId::new(1, Timestamp(0))], packs: 1, bytes: 1, by: word() },
        Event::BackupVerified {
            backup: BackupId::new(1, Timestamp(0)),
            how: Proving::Drill,
            files: 1,
            bytes: 1,
            problems: vec![word()],
            duration_ms: 1,
            by: word(),
        },
        Event::BackupPinned { backup: BackupId::new(1, Timestamp(0)), pinned: true, by: word() },
        Event::BackupKey { recipient: word(), replaced: Some(word()), by: word() },
        Event::Checkpoint { signature: word() },
    ];
    for event in events {
        let r = record(1, event);
        let notices = Renderer::default().notices(&r);
        assert_eq!(notices.len(), 1, "{r:?}");
        assert!(!notices[0].message.is_empty());
    }
    assert_eq!(lines(&record(1, Event::Unknown)), Vec::<String>::new());
}
