//! Generations of a baseline, with coreutils, jq and ssh-keygen on the other side.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use guard_model::baseline::BaselineRecord;
use guard_model::{Digest, Kind, RelPath};
use guard_store::baseline::{discard, generations, next_generation, prune, repair};
use guard_store::error::Damage;
use guard_store::{Baseline, BaselineWriter, Committed, StoreError};
use proptest::prelude::*;

use crate::support::{Fixture, bash, digest, draft, file, flip, record};

fn commit(f: &Fixture, generation: u64, records: &[BaselineRecord]) -> Committed {
    let mut writer = BaselineWriter::create(&f.state, "production", generation).unwrap();
    for r in records {
        writer.push(r).unwrap();
    }
    writer.finish(draft(), &f.key).unwrap()
}

fn open(f: &Fixture, c: &Committed) -> Result<Baseline, StoreError> {
    Baseline::open(&c.dir, &c.digest, &f.key.public())
}

fn directory(path: &[u8]) -> BaselineRecord {
    let mut r = record(path, b"");
    r.entry.kind = Kind::Directory;
    r.entry.sha256 = None;
    r.entry.mode = 0o755;
    r
}

/// Names that break naive formats, each a file whose content is its name.
const HOSTILE: [&[u8]; 16] = [
    b"plain",
    b"with space",
    b" leading",
    b"trailing ",
    b"*star",
    b"new\nline",
    b"ends in newline\n",
    b"back\\slash",
    b"\\n looks escaped",
    b"carriage\rreturn",
    b"not utf-8 \xff\xfe",
    b"-",
    b"-rf",
    b"sub/quote'\"$(x)`y`",
    b"sub/tab\there",
    b"sub/\xe2\x80\xaertl",
];

#[test]
fn what_is_pushed_comes_back() {
    let f = Fixture::new();
    let mut records: Vec<BaselineRecord> = HOSTILE.iter().map(|p| record(p, p)).collect();
    records.push(directory(b""));
    records.push(directory(b"sub"));
    let c = commit(&f, 1, &records);
    let b = open(&f, &c).unwrap();
    assert_eq!((b.len(), b.manifest()), (18, &c.manifest));
    assert_eq!((c.manifest.totals.files, c.manifest.totals.directories), (16, 2));
    for r in &records {
        assert_eq!(b.get(&r.path).unwrap().as_ref(), Some(r));
    }
    assert_eq!(b.get(&RelPath::from_text("nothing").unwrap()).unwrap(), None);
    assert_eq!(b.get(&RelPath::from_text("sub/zzz").unwrap()).unwrap(), None);
    assert_eq!(b.children(&RelPath::root()).unwrap().len(), 14);
    let names: Vec<_> =
        b.children(&RelPath::from_text("sub").unwrap()).unwrap().into_iter().map(|r| r.path).collect();
    assert!(names.is_sorted() && names.len() == 3);
    assert!(b.children(&RelPath::from_text("plain").unwrap()).unwrap().is_empty());
    assert_eq!(b.iter().map(Result::unwrap).count(), 18);
    b.verify_open_files().unwrap();
}

#[test]
fn an_empty_baseline_is_one() {
    let f = Fixture::new();
    let b = open(&f, &commit(&f, 1, &[])).unwrap();
    assert!(b.is_empty());
    assert!(b.get(&RelPath::root()).unwrap().is_none());
    assert!(b.children(&RelPath::root()).unwrap().is_empty());
    assert!(b.iter().next().is_none());
}

#[test]
fn the_last_record_of_a_path_counts() {
    let f = Fixture::new();
    let c = commit(&f, 1, &[record(b"a", b"old"), record(b"b", b"b"), record(b"a", b"new")]);
    let b = open(&f, &c).unwrap();
    assert_eq!(b.len(), 2);
    let a = b.get(&RelPath::from_text("a").unwrap()).unwrap().unwrap();
    assert_eq!(a.entry.sha256, Some(digest(b"new")));
}

#[test]
fn many_records_in_any_order() {
    let f = Fixture::new();
    // Enough for several sorted runs, pushed in a scattered order.
    let n = 30_011u64;
    let path = |i: u64| format!("dir{:03}/sub{}/file{i}", i % 500, i % 7).into_bytes();
    let mut writer = BaselineWriter::create(&f.state, "production", 1).unwrap();
    // In the first run; what counts comes in others.
    for i in (0..n).step_by(997) {
        writer.push(&record(&path(i), b"old")).unwrap();
    }
    for i in 0..n {
        let i = i * 7919 % n;
        let mut r = record(&path(i), &i.to_le_bytes());
        r.entry.xattrs = vec![(b"user.note".to_vec(), vec![b'x'; 300])];
        writer.push(&r).unwrap();
    }
    let c = writer.finish(draft(), &f.key).unwrap();
    let b = open(&f, &c).unwrap();
    assert_eq!(b.len(), n);
    let mut by_directory: BTreeMap<RelPath, usize> = BTreeMap::new();
    let mut last: Option<(Vec<u8>, Vec<u8>)> = None;
    for r in &b {
        let r = r.unwrap();
        *by_directory.entry(r.path.parent().unwrap()).or_default() += 1;
        let key = Some((r.path.parent().unwrap().as_bytes().to_vec(), r.path.name().to_vec()));
        assert!(last < key, "{key:?}");
        last = key;
    }
    for (dir, count) in by_directory {
        assert_eq!(b.children(&dir).unwrap().len(), count, "{dir}");
    }
    for i in (0..n).step_by(997) {
        let r = b.get(&RelPath::from_bytes(&path(i)).unwrap()).unwrap().unwrap();
        assert_eq!(r.entry.sha256, Some(digest(&i.to_le_bytes())));
    }
    let names: Vec<_> = std::fs::read_dir(&c.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 5, "leftover runs: {names:?}");
}

#[test]
fn coreutils_check_our_sums() {
    let f = Fixture::new();
    let root = f.temp.path().join("root");
    std::fs::create_dir_all(root.join("sub")).unwrap();
    let mut records = vec![directory(b""), directory(b"sub")];
    for name in HOSTILE {
        std::fs::write(root.join(OsStr::from_bytes(name)), name).unwrap();
        records.push(record(name, name));
    }
    let mut link = record(b"link", b"");
    link.entry.kind = Kind::Symlink;
    link.entry.target = Some(b"plain".to_vec());
    link.entry.sha256 = None;
    records.push(link);
    let c = commit(&f, 1, &records);
    let line = format!("sha256sum -c --quiet --strict {}", c.dir.join("SHA256SUMS").display());
    assert_eq!(bash(&root, &line).unwrap(), "");
    for name in HOSTILE {
        let path = root.join(OsStr::from_bytes(name));
        std::fs::write(&path, b"changed").unwrap();
        bash(&root, &line).unwrap_err();
        std::fs::write(&path, name).unwrap();
    }
}

#[test]
fn jq_and_ssh_keygen_read_the_open_files() {
    let f = Fixture::new();
    let mut r = record(b"a\nb", b"x");
    r.entry.xattrs = vec![(b"user.x".to_vec(), b"\xff\0".to_vec())];
    let c = commit(&f, 1, &[directory(b""), r.clone()]);
    let out = bash(&c.dir, "jq -r 'select(.type == \"file\") | .mode + \" \" + .path' undo.jsonl").unwrap();
    assert_eq!(out, "0644 a\\x0ab\n");
    let text = std::fs::read_to_string(c.dir.join("undo.jsonl")).unwrap();
    assert_eq!(serde_json::from_str::<BaselineRecord>(text.lines().nth(1).unwrap()).unwrap(), r);
    let signers = f.state.public().join("allowed_signers");
    let verify = format!(
        "ssh-keygen -Y verify -f {} -I guardd -n guardd-baseline -s manifest.json.sig < manifest.json",
        signers.display()
    );
    bash(&c.dir, &verify).unwrap();
    let sums = bash(&c.dir, "sha256sum manifest.json SHA256SUMS undo.jsonl records | cut -c1-64").unwrap();
    let d = c.manifest.digests;
    let expected: Vec<String> =
        [c.digest, d.sha256sums, d.undo, d.records].iter().map(Digest::to_string).collect();
    assert_eq!(sums.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn every_changed_bit_of_a_generation_is_found() {
    let f = Fixture::new();
    let records: Vec<_> = (0..40u8).map(|i| record(format!("d{}/f{i}", i % 3).as_bytes(), &[i])).collect();
    let c = commit(&f, 1, &records);
    for name in ["manifest.json", "records"] {
        let path = c.dir.join(name);
        for at in 0..std::fs::metadata(&path).unwrap().len() as usize {
            if name == "manifest.json" && at % 3 != 0 {
                continue;
            }
            let bit = (at % 8) as u8;
            flip(&path, at, bit);
            match open(&f, &c) {
                Err(StoreError::Damaged { .. } | StoreError::BadSignature { .. }) => {}
                other => panic!("{name}, byte {at}: {:?}", other.map(|_| ())),
            }
            flip(&path, at, bit);
        }
    }
    let b = open(&f, &c).unwrap();
    for name in ["SHA256SUMS", "undo.jsonl"] {
        flip(&c.dir.join(name), 3, 0);
        match b.verify_open_files() {
            Err(StoreError::Damaged { path, why: Damage::Digest { .. } }) => assert!(path.ends_with(name)),
            other => panic!("{other:?}"),
        }
        flip(&c.dir.join(name), 3, 0);
    }
}

#[test]
fn a_signature_file_that_is_none_is_refused() {
    let f = Fixture::new();
    let c = commit(&f, 1, &[record(b"a", b"a")]);
    let path = c.dir.join("manifest.json.sig");
    let good = std::fs::read(&path).unwrap();
    for bad in [&b""[..], b"\xff\xff", &good[..good.len() / 2], b"-----BEGIN SSH SIGNATURE-----\n"] {
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(open(&f, &c), Err(StoreError::BadSignature { .. })));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(open(&f, &c).unwrap_err().is_not_found());
}

#[test]
fn another_generation_in_its_place_is_found() {
    let f = Fixture::new();
    let old = commit(&f, 1, &[record(b"a", b"old")]);
    let new = commit(&f, 2, &[record(b"a", b"new")]);
    assert!(matches!(
        Baseline::open(&old.dir, &new.digest, &f.key.public()),
        Err(StoreError::Damaged { why: Damage::Digest { .. }, .. })
    ));
    let other = Fixture::new();
    assert!(matches!(
        Baseline::open(&new.dir, &new.digest, &other.key.public()),
        Err(StoreError::BadSignature { .. })
    ));
}

#[test]
fn records_changed_after_opening_are_found_when_read() {
    let f = Fixture::new();
    let records: Vec<_> = (0..3000u32).map(|i| record(format!("f{i:05}").as_bytes(), &[1])).collect();
    let c = commit(&f, 1, &records);
    let b = open(&f, &c).unwrap();
    let path = c.dir.join("records");
    // In place, as an intruder would: the daemon holds this very file open.
    let bytes = std::fs::read(&path).unwrap();
    let handle = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&handle, &[bytes[20_000] ^ 1], 20_000).unwrap();
    let broken = b.iter().find_map(Result::err).unwrap();
    assert!(matches!(broken, StoreError::Damaged { why: Damage::Block { block: 1, .. }, .. }), "{broken}");
    handle.set_len(30_000).unwrap();
    let last = RelPath::from_text("f02999").unwrap();
    assert!(matches!(b.get(&last), Err(StoreError::Damaged { why: Damage::Short { .. }, .. })));
}

#[test]
fn generations_come_and_go() {
    let f = Fixture::new();
    assert_eq!(next_generation(&f.state, "production").unwrap(), 1);
    for g in 1..=6 {
        commit(&f, g, &[record(b"a", b"a")]);
    }
    assert!(matches!(
        BaselineWriter::create(&f.state, "production", 3),
        Err(StoreError::BaselineExists { generation: 3, .. })
    ));
    assert_eq!(prune(&f.state, "production", 2, 1).unwrap(), [2, 3, 4]);
    assert_eq!(generations(&f.state, "production").unwrap(), [1, 5, 6]);
    assert!(prune(&f.state, "production", 2, 1).unwrap().is_empty());
    assert_eq!(next_generation(&f.state, "production").unwrap(), 7);
    assert!(generations(&f.state, "staging").unwrap().is_empty());
}

#[test]
fn what_a_crash_left_of_a_generation_does_not_count() {
    let f = Fixture::new();
    let mut writer = BaselineWriter::create(&f.state, "production", 1).unwrap();
    writer.push(&record(b"a", b"a")).unwrap();
    drop(writer);
    let dir = f.state.baselines_of("production").unwrap();
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0, "given up, it leaves nothing");
    let mut writer = BaselineWriter::create(&f.state, "production", 1).unwrap();
    writer.push(&record(b"a", b"a")).unwrap();
    std::mem::forget(writer);
    std::fs::create_dir(dir.join("9.old")).unwrap();
    std::fs::write(dir.join("not a number"), b"").unwrap();
    assert!(generations(&f.state, "production").unwrap().is_empty());
    let c = commit(&f, 1, &[record(b"b", b"b")]);
    assert_eq!(open(&f, &c).unwrap().len(), 1);
    let mut names: Vec<_> = std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["1", "not a number"]);
}

#[test]
fn readers_share_a_baseline() {
    let f = Fixture::new();
    let records: Vec<_> =
        (0..5000u32).map(|i| record(format!("d{}/f{i}", i % 50).as_bytes(), &[1])).collect();
    let c = commit(&f, 1, &records);
    let b = open(&f, &c).unwrap();
    std::thread::scope(|s| {
        for t in 0..4u32 {
            let b = &b;
            s.spawn(move || {
                for i in 0..50 {
                    let dir = format!("d{}", (i + t * 13) % 50);
                    assert_eq!(b.children(&RelPath::from_text(&dir).unwrap()).unwrap().len(), 100);
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_names_survive(names in prop::collection::btree_set(any::<Vec<u8>>(), 0..40)) {
        let f = Fixture::new();
        let names: Vec<RelPath> = names.iter().filter_map(|n| RelPath::from_bytes(n).ok()).collect();
        let records: Vec<_> = names.iter().map(|n| record(n.as_bytes(), n.as_bytes())).collect();
        let c = commit(&f, 1, &records);
        let b = open(&f, &c).unwrap();
        for r in &records {
            let found = b.get(&r.path).unwrap();
            prop_assert_eq!(found.as_ref(), Some(r));
        }
    }
}

#[test]
fn a_file_that_could_not_be_read_has_no_sum() {
    let f = Fixture::new();
    let mut r = record(b"unreadable", b"");
    r.entry.sha256 = None;
    let c = commit(&f, 1, &[r]);
    assert_eq!(std::fs::read(c.dir.join("SHA256SUMS")).unwrap(), b"");
    assert_eq!(file(b"").size, 0);
    assert!(Path::new(&c.dir).ends_with("production/1"));
}

#[test]
fn what_is_damaged_is_made_anew_from_what_is_not() {
    let f = Fixture::new();
    let records: Vec<BaselineRecord> =
        HOSTILE.iter().map(|p| record(p, p)).chain([directory(b""), directory(b"sub")]).collect();
    let c = commit(&f, 1, &records);
    let public = f.key.public();
    let run = || repair(&c.dir, &c.digest, &public);
    assert_eq!(run().unwrap(), [""; 0]);
    let good: BTreeMap<&str, Vec<u8>> =
        ["records", "SHA256SUMS"].map(|n| (n, std::fs::read(c.dir.join(n)).unwrap())).into();
    let damages: [fn(&Path); 4] = [
        |p| std::fs::remove_file(p).unwrap(),
        |p| std::fs::write(p, "").unwrap(),
        |p| flip(p, 9, 2),
        |p| {
            std::fs::remove_file(p).unwrap();
            std::fs::create_dir(p).unwrap();
        },
    ];
    for damage in damages {
        for name in ["records", "SHA256SUMS"] {
            damage(&c.dir.join(name));
            assert_eq!(run().unwrap(), [name]);
            assert_eq!(std::fs::read(c.dir.join(name)).unwrap(), good[name]);
        }
        assert_eq!(open(&f, &c).unwrap().iter().count(), records.len());
    }
    assert_eq!(generations(&f.state, "production").unwrap(), [1]);

    // Not from what is damaged itself, and not by another manifest.
    flip(&c.dir.join("undo.jsonl"), 9, 2);
    flip(&c.dir.join("records"), 9, 2);
    assert!(matches!(run(), Err(StoreError::Damaged { path, .. }) if path.ends_with("undo.jsonl")));
    assert!(matches!(repair(&c.dir, &digest(b"another"), &public), Err(StoreError::Damaged { .. })));
}

#[test]
fn what_was_never_committed_is_discarded_and_the_others_stay() {
    let f = Fixture::new();
    for generation in [1, 2] {
        commit(&f, generation, &[record(b"a", b"a")]);
    }
    let parent = f.state.baselines_of("production").unwrap();
    std::fs::create_dir(parent.join("3.tmp")).unwrap();
    std::fs::create_dir(parent.join("1.old")).unwrap();
    discard(&f.state, "production", 2).unwrap();
    assert_eq!(generations(&f.state, "production").unwrap(), [1]);
    assert_eq!(std::fs::read_dir(&parent).unwrap().count(), 1);
    // Nothing there is nothing to do.
    discard(&f.state, "production", 2).unwrap();
    discard(&f.state, "never-locked", 1).unwrap();
}
