//! Files wait to be hashed beside others, but nothing is kept for that without a bound, and nobody is told after a panic.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::borrow::Cow;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::Duration;

use guard_model::baseline::Role;
use guard_model::{Class, Entry, Observed, RelPath};
use guard_tree::{Progress, Root, ScanContent, ScanOptions, Visitor, scan};
use support::everything;

/// Directories that one thread may have entered and not left.
const MOST: usize = 40;

/// Counts the directories that are entered and not left.
#[derive(Default)]
struct Open {
    /// Whose other directories are removed when the first is entered.
    removes_in: Option<PathBuf>,
    now: AtomicUsize,
    most: AtomicUsize,
    left: AtomicUsize,
}

impl Visitor for Open {
    type Dir = ();

    fn enter(&self, dir: &RelPath) {
        let now = self.now.fetch_add(1, Ordering::Relaxed) + 1;
        self.most.fetch_max(now, Ordering::Relaxed);
        if let (Some(top), false) = (&self.removes_in, dir.is_root()) {
            let others = fs::read_dir(top).unwrap().map(|e| e.unwrap().path());
            others.filter(|path| *path != top.join(dir.as_path())).for_each(|path| {
                fs::remove_dir_all(path).unwrap();
            });
        }
    }

    fn expected<'v>(&'v self, (): &'v (), _: &RelPath) -> Option<Cow<'v, Entry>> {
        None
    }

    fn found(&self, (): &mut (), _: RelPath, _: Class, _: Role, _: Observed) {}

    fn leave(&self, (): (), _: &RelPath) {
        self.left.fetch_add(1, Ordering::Relaxed);
        self.now.fetch_sub(1, Ordering::Relaxed);
    }
}

fn run(top: &Path, visitor: &impl Visitor, workers: usize) {
    let root = Root::open(top).unwrap();
    let (cancel, progress) = (AtomicBool::new(false), Progress::default());
    let options =
        ScanOptions { content: ScanContent::All, workers, pace: None, cancel: &cancel, progress: &progress };
    scan(&root, &everything(), &RelPath::root(), &options, visitor).unwrap();
}

fn directories(count: usize, files: &[(&str, usize)]) -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    for n in 0..count {
        let dir = top.path().join(n.to_string());
        fs::create_dir(&dir).unwrap();
        files.iter().for_each(|(name, size)| fs::write(dir.join(name), vec![7; *size]).unwrap());
    }
    top
}

#[test]
fn few_directories_wait_to_be_left() {
    for files in [&[("small", 1)][..], &[("medium", 70_000)], &[]] {
        let top = directories(300, files);
        fs::write(top.path().join("0/first"), "x").unwrap();
        let open = Open::default();
        run(top.path(), &open, 1);
        assert_eq!((open.now.into_inner(), open.left.into_inner()), (0, 301));
        assert!(open.most.into_inner() < MOST, "{files:?}");
    }
}

#[test]
fn directories_that_go_do_not_wait_either() {
    let top = directories(300, &[("small", 1)]);
    let open = Open { removes_in: Some(top.path().to_owned()), ..Open::default() };
    run(top.path(), &open, 1);
    assert_eq!((open.now.into_inner(), open.left.into_inner()), (0, 301));
    assert!(open.most.into_inner() < MOST);
}

/// Panics at the file `bad`, and goes slowly through directories, more so after that.
#[derive(Default)]
struct Panics {
    has: AtomicBool,
    entered_after: AtomicUsize,
}

impl Visitor for Panics {
    type Dir = ();

    fn enter(&self, _: &RelPath) {
        let has = self.has.load(Ordering::SeqCst);
        self.entered_after.fetch_add(usize::from(has), Ordering::SeqCst);
        sleep(Duration::from_millis(if has { 20 } else { 1 }));
    }

    fn expected<'v>(&'v self, (): &'v (), _: &RelPath) -> Option<Cow<'v, Entry>> {
        None
    }

    fn found(&self, (): &mut (), path: RelPath, _: Class, _: Role, _: Observed) {
        if path.name() == b"bad" {
            self.has.store(true, Ordering::SeqCst);
            panic!("as the test wants it");
        }
    }

    fn leave(&self, (): (), _: &RelPath) {}
}

/// Also where it comes when a thread has nothing else to do.
#[test]
fn a_panic_stops_the_others() {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir(top.path().join("a")).unwrap();
    fs::write(top.path().join("a/bad"), "x").unwrap();
    fs::create_dir_all(top.path().join("b/".repeat(400))).unwrap();
    let panics = Panics::default();
    let ended = catch_unwind(AssertUnwindSafe(|| run(top.path(), &panics, 2)));
    assert!(ended.is_err());
    let after = panics.entered_after.into_inner();
    // It takes its time to say what happened.
    assert!(after < 300, "{after} directories were entered after it");
}
