//! Files that are open for writing while a tree is read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use guard_model::baseline::Role;
use guard_model::{Class, Entry, Observed, Policy, RelPath};
use guard_tree::{OpenWriters, Progress, Root, ScanContent, ScanOptions, Visitor, scan};
use support::*;

#[derive(Default)]
struct Heard(Mutex<BTreeMap<String, (u64, OpenWriters)>>);

impl Visitor for Heard {
    type Dir = ();

    fn enter(&self, _dir: &RelPath) {}

    fn expected<'v>(&'v self, _dir: &'v (), _path: &RelPath) -> Option<Cow<'v, Entry>> {
        None
    }

    fn writers(&self, _dir: &mut (), path: &RelPath, identity: (u64, u64), writers: OpenWriters) {
        let before = self.0.lock().unwrap().insert(path.to_string(), (identity.1, writers));
        assert_eq!(before, None, "told twice");
    }

    fn found(&self, _dir: &mut (), _path: RelPath, _class: Class, _role: Role, _observed: Observed) {}

    fn leave(&self, _state: (), _dir: &RelPath) {}
}

fn heard(root: &Root, policy: &Policy, content: ScanContent) -> BTreeMap<String, (u64, OpenWriters)> {
    let heard = Heard::default();
    let (cancel, progress) = (AtomicBool::new(false), Progress::default());
    let options = ScanOptions { content, workers: 2, pace: None, cancel: &cancel, progress: &progress };
    scan(root, policy, &RelPath::root(), &options, &heard).unwrap();
    heard.0.into_inner().unwrap()
}

#[test]
fn only_protected_files_that_can_be_written_are_told() {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir_all(top.path().join("logs")).unwrap();
    fs::create_dir_all(top.path().join("deep/er")).unwrap();
    for name in ["quiet", "read", "deep/er/open", "logs/log", "secret.env", "cache.tmp", "one.db"] {
        fs::write(top.path().join(name), "x").unwrap();
    }
    let policy = policy(&[], &["*.tmp"], &["logs/", "one.db"], &["*.env"]);
    let open = |name: &str| OpenOptions::new().append(true).open(top.path().join(name)).unwrap();
    let _held: Vec<File> =
        ["deep/er/open", "logs/log", "secret.env", "cache.tmp", "one.db"].map(open).into_iter().collect();
    let _reader = File::open(top.path().join("read")).unwrap();
    for resolver in resolvers() {
        let root = Root::open_with(top.path(), resolver).unwrap();
        let told = heard(&root, &policy, ScanContent::AllAndWriters);
        let want: BTreeMap<String, (u64, OpenWriters)> = ["deep/er/open", "secret.env"]
            .map(|n| {
                let ino = fs::metadata(top.path().join(n)).unwrap().ino();
                (n.to_owned(), (ino, OpenWriters::Some))
            })
            .into();
        assert_eq!(told, want);
        assert!(heard(&root, &policy, ScanContent::All).is_empty());
    }
}

/// A file that cannot be read because it is written all the time is not taken for quiet.
#[test]
fn a_file_that_never_rests_is_told_too() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("hot");
    fs::write(&path, "x").unwrap();
    let root = Root::open(top.path()).unwrap();
    let done = AtomicBool::new(false);
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                file.write_all(b"y").unwrap();
            }
        });
        let told = heard(&root, &everything(), ScanContent::AllAndWriters);
        done.store(true, Ordering::Relaxed);
        assert_eq!(told["hot"].1, OpenWriters::Some);
    });
}
