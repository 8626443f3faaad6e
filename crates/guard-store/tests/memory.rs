//! What a large baseline costs in memory. Alone in its process, because it
//! looks at the process's own figures.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use guard_model::baseline::{BaselineRecord, Role};
use guard_model::policy::PatternText;
use guard_model::{Digest, Entry, Kind, RelPath, Seal, Stamp, Timestamp};
use guard_store::{Baseline, BaselineWriter, HostKey, ManifestDraft, StateDir};

/// A figure of `/proc/self/status`, KiB.
fn figure(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Makes `VmHWM` start again from the present size (proc(5), `clear_refs`).
fn reset_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

fn record(i: u64) -> BaselineRecord {
    let path = format!("node_modules/package-{}/lib/some/deeper/directory/file-{i}.js", i % 2000);
    BaselineRecord {
        path: RelPath::from_bytes(path.as_bytes()).unwrap(),
        role: Role::Protected,
        sealed: Seal::ReadOnly,
        skip: None,
        entry: Entry {
            kind: Kind::File,
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            size: i,
            mtime: Stamp { sec: 1_700_000_000, nsec: 123_456_789 },
            ctime: Stamp { sec: 1_700_000_000, nsec: 987_654_321 },
            dev: 0xfd00,
            ino: i,
            nlink: 1,
            rdev: 0,
            flags: 0,
            target: None,
            xattrs: vec![],
            sha256: Some(Digest([(i % 251) as u8; 32])),
        },
    }
}

#[test]
fn a_hundred_thousand_records_are_cheap() {
    let temp = tempfile::tempdir().unwrap();
    let state = StateDir::open(temp.path()).unwrap();
    let key = HostKey::load_or_create(&state).unwrap();
    reset_peak();
    let before = figure("VmRSS");
    let mut writer = BaselineWriter::create(&state, "production", 1).unwrap();
    for i in 0..100_000 {
        writer.push(&record(i * 7919 % 100_000)).unwrap();
    }
    let draft = ManifestDraft {
        created_at: Timestamp(0),
        by: String::new(),
        reason: String::new(),
        root: "/srv/app".into(),
        root_identity: (1, 2),
        ancestors: vec![],
        mounts: None,
        policy: PatternText::default(),
        seal: Seal::None,
        seal_done: Seal::None,
        previous: None,
    };
    let committed = writer.finish(draft, &key).unwrap();
    let writing = figure("VmHWM").saturating_sub(before);
    println!("writing 100,000 records took {writing} KiB");
    assert!(writing < 40 * 1024, "{writing} KiB");

    reset_peak();
    let before = figure("VmRSS");
    let baseline = Baseline::open(&committed.dir, &committed.digest, &key.public()).unwrap();
    for i in (0..100_000).step_by(101) {
        assert_eq!(baseline.get(&record(i).path).unwrap().unwrap(), record(i));
    }
    let reading = figure("VmHWM").saturating_sub(before);
    println!("an open baseline of 100,000 records takes {reading} KiB");
    assert!(reading < 6 * 1024, "{reading} KiB");
}
