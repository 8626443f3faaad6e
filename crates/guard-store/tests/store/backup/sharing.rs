//! What is stored once, what is stored anew, and what is refused.

use std::io::Read;
use std::sync::Arc;

use guard_store::backup::{BackupError, Remembered, Stored, Unpacking, Which};
use proptest::prelude::*;

use super::stage::{NOW, Stage, back_up, contents, draft, noise};
use crate::support::{digest, record};

#[test]
fn what_goes_in_comes_out() {
    let s = Stage::new();
    let large = noise(1, 5 << 20);
    let files: Vec<(&[u8], &[u8])> =
        vec![(b".env", b"SECRET=1\n"), (b"a\nb\xff", b""), (b"big", &large), (b"same", b"SECRET=1\n")];
    let made = s.back_up(&files);
    let want: Vec<_> = files.iter().map(|(p, c)| (p.to_vec(), c.to_vec())).collect();
    assert!(contents(&s.backups, &Which::Newest).unwrap() == want);
    assert!(contents(&s.again(), &Which::Id(made.manifest.id)).unwrap() == want);
}

#[test]
fn an_unchanged_tree_is_not_written_again() {
    let s = Stage::new();
    let large = noise(2, 1 << 20);
    let files: Vec<(&[u8], &[u8])> = vec![(b"a", &large), (b"b", b"x")];
    let first = s.back_up(&files);
    assert!(first.written > 1 << 20);
    for backups in [&s.backups, &s.again()] {
        let next = back_up(backups, &s.f, NOW, &files).unwrap();
        assert_eq!((next.written, &next.manifest.packs), (0, &first.manifest.packs));
        // Whoever holds a content need not even be handed it.
        let mut writer = backups.begin(draft(NOW)).unwrap();
        assert_eq!(writer.store(&digest(&large), 1 << 20, &mut Fails).unwrap(), Stored::Yes);
    }
    let one_more = s.back_up(&[(b"a", &large), (b"c", b"new")]);
    assert!(one_more.written > 0 && one_more.written < 4096, "{}", one_more.written);
}

struct Fails;

impl Read for Fails {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("it must not be read"))
    }
}

#[test]
fn a_torn_content_is_not_stored() {
    let s = Stage::new();
    let mut writer = s.backups.begin(draft(NOW)).unwrap();
    let large = noise(3, 5 << 20);
    for (said, given) in
        [(&b"one"[..], &b"two"[..]), (b"one", b"one more"), (b"one", b""), (&large, &large[1..])]
    {
        let stored = writer.store(&digest(said), said.len() as u64, &mut &*given).unwrap();
        assert_eq!(stored, Stored::Changed);
        assert!(!writer.holds(&digest(said)));
    }
    let failed = writer.store(&digest(b"one"), 3, &mut Fails).unwrap_err();
    assert!(matches!(failed, BackupError::Source(_)));
    writer.push(&record(b"f", b"one"), Some("it keeps changing".into())).unwrap();
    let made = writer.finish(&s.f.key).unwrap();
    assert_eq!((made.manifest.missing, made.manifest.packs.len()), (1, 0));
    let entry = s.backups.open_backup(&Which::Newest).unwrap().entries().unwrap().next().unwrap().unwrap();
    assert_eq!((entry.pack, entry.missing.as_deref()), (None, Some("it keeps changing")));
    let not_held = s.backups.content(&digest(b"one"), &mut Vec::new()).unwrap_err();
    assert!(matches!(not_held, BackupError::NotHeld { .. }));
}

#[test]
fn an_unfinished_backup_leaves_nothing() {
    let s = Stage::new();
    let before = s.back_up(&[(b"a", b"1")]);
    let files = || {
        let mut all: Vec<_> = walk(s.backups.path());
        all.sort();
        all
    };
    let there = files();
    let large = noise(4, 5 << 20);
    let mut writer = s.backups.begin(draft(NOW)).unwrap();
    writer.store(&digest(&large), large.len() as u64, &mut &*large).unwrap();
    writer.store(&digest(b"2"), 1, &mut &b"2"[..]).unwrap();
    assert!(matches!(s.backups.begin(draft(NOW)), Err(BackupError::Busy)));
    // As kill -9 leaves it: the writer is never dropped.
    std::mem::forget(writer);
    assert_ne!(files(), there);
    let again = s.again();
    assert_eq!(files(), there);
    drop(again.begin(draft(NOW)).unwrap());
    assert_eq!(files(), there);
    // The number of what did not come about is free.
    let next = back_up(&again, &s.f, NOW, &[(b"a", b"1")]).unwrap();
    assert_eq!(next.manifest.id.sequence(), 2);
    assert_eq!(next.manifest.previous.unwrap().id, before.manifest.id);
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(walk(&path));
        }
        all.push(path);
    }
    all
}

#[test]
fn a_pack_that_is_gone_is_written_again() {
    let s = Stage::new();
    let made = s.back_up(&[(b"a", b"1")]);
    let pack = s.backups.path().join(format!("packs/{}.tar.zst.age", made.manifest.packs[0].sha256));
    std::fs::remove_file(pack).unwrap();
    assert!(s.backups.content(&digest(b"1"), &mut Vec::new()).is_err());
    let next = s.back_up(&[(b"a", b"1")]);
    assert_ne!(next.manifest.packs, made.manifest.packs);
    let again = s.again();
    assert_eq!(contents(&again, &Which::Newest).unwrap(), [(b"a".to_vec(), b"1".to_vec())]);
}

#[test]
fn after_a_new_recovery_key_everything_is_encrypted_to_it() {
    let s = Stage::new();
    let first = s.back_up(&[(b"a", b"1")]);
    assert_eq!(first.manifest.recipients.len(), 1);
    let recovery = s.keys.write().unwrap().make_recovery_key(&s.f.state, NOW).unwrap();
    s.backups.forget_held();
    for backups in [&s.backups, &s.again()] {
        let next = back_up(backups, &s.f, NOW, &[(b"a", b"1")]).unwrap();
        assert_ne!(next.manifest.packs, first.manifest.packs);
        assert_eq!(next.manifest.recipients[1], recovery.recipient());
    }
}

#[test]
fn numbers_only_grow() {
    let s = Stage::new();
    let first = s.back_up(&[]);
    let remembered = Remembered { last_number: 41, ..Remembered::default() };
    let next = back_up(&s.remembering(remembered), &s.f, NOW, &[]).unwrap();
    assert_eq!((first.manifest.id.sequence(), next.manifest.id.sequence()), (1, 42));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_trees_round_trip(
        trees in prop::collection::vec(prop::collection::btree_map(
            prop::collection::vec(prop::num::u8::ANY.prop_filter("no path", |b| !matches!(b, 0 | b'/' | b'.')), 1..9),
            prop::collection::vec(any::<u8>(), 0..3000), 0..12), 1..4)) {
        let s = Stage::new();
        let mut made = Vec::new();
        for tree in &trees {
            let files: Vec<(&[u8], &[u8])> = tree.iter().map(|(p, c)| (&p[..], &c[..])).collect();
            made.push(s.back_up(&files).manifest.id);
        }
        let again = s.again();
        for (id, tree) in made.into_iter().zip(trees) {
            let want: Vec<_> = tree.into_iter().collect();
            prop_assert_eq!(contents(&again, &Which::Id(id)).unwrap(), want);
        }
    }
}

/// In any order, twice, and after one that is not there: contents come whole, from packs with many and with one.
#[test]
fn many_contents_come_whole_in_any_order() {
    let s = Stage::new();
    let many: Vec<(Vec<u8>, Vec<u8>)> =
        (0..200).map(|n| (format!("many-{n}").into_bytes(), noise(n, 50_000 + n as usize))).collect();
    let large = noise(500, 5 << 20);
    let mut files: Vec<(&[u8], &[u8])> = many.iter().map(|(p, c)| (p.as_slice(), c.as_slice())).collect();
    files.insert(100, (b"large", &large));
    assert!(s.back_up(&files).manifest.packs.len() >= 3);
    let unpacking = Unpacking::of(Arc::new(s.again()));
    let expect = |content: &[u8]| {
        let mut got = Vec::new();
        unpacking.content(&digest(content), &mut got).unwrap();
        assert!(got == content);
    };
    for step in [1, 7, 199] {
        (0..files.len()).for_each(|n| expect(files[n * step % files.len()].1));
        expect(&large);
        expect(&large);
        let missing = unpacking.content(&digest(b"not there"), &mut Vec::new());
        assert!(matches!(missing, Err(BackupError::NotHeld { .. })), "{missing:?}");
    }
}
