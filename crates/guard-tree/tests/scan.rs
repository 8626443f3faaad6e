//! A scan sees what is there, as it is, and reports what a policy names.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::borrow::Cow;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guard_model::baseline::{Role, Totals};
use guard_model::{Class, Kind, Observed, RelPath};
use guard_tree::{Pace, Progress, Root, ScanContent, ScanOptions, scan};
use rustix::fs::XattrFlags;
use support::*;

fn tree(files: &[&str]) -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    for f in files {
        let path = top.path().join(f);
        if f.ends_with('/') {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, f).unwrap();
        }
    }
    top
}

fn roles(outcome: &Outcome) -> Vec<(String, Role)> {
    outcome.names().into_iter().zip(outcome.found.values().map(|f| f.role)).collect()
}

fn lines(outcome: &Outcome) -> Vec<String> {
    roles(outcome).into_iter().map(|(n, r)| format!("{n} {r:?}").to_lowercase()).collect()
}

#[test]
fn a_web_application() {
    let top = tree(&[
        ".env.prod",
        "backend/app/main.py",
        "backend/app/__pycache__/main.pyc",
        "backend/app/__pycache__/.env.copy",
        "backend/notes",
        "frontend/node_modules/x/index.js",
        "media/upload",
        "scripts/run.sh",
        "unrelated/deep/file",
    ]);
    let root = Root::open(top.path()).unwrap();
    let p = policy(&["backend/app/", "scripts/"], &["__pycache__/"], &["media/"], &[".env*"]);
    for workers in [1, 3] {
        let o = try_scan(&root, &p, &RelPath::root(), ScanContent::All, workers).unwrap();
        assert_eq!(
            lines(&o),
            [
                ". passage",
                ".env.prod sensitive",
                "backend passage",
                "backend/app protected",
                "backend/app/__pycache__ passage",
                "backend/app/__pycache__/.env.copy sensitive",
                "backend/app/main.py protected",
                "media writabletop",
                "scripts protected",
                "scripts/run.sh protected",
            ]
        );
        assert_eq!(o.get("backend/app/__pycache__").class, Class::Ignored);
        assert_eq!(o.report.skipped, []);
        assert_eq!(o.report.totals, Totals { files: 4, directories: 6, bytes: 75 });
        assert_eq!(o.progress.files.load(Ordering::Relaxed), 4);
        assert_eq!(o.progress.directories.load(Ordering::Relaxed), 6);
        assert_eq!(o.progress.bytes.load(Ordering::Relaxed), 75);
    }
}

#[test]
fn a_bare_name_makes_passages_of_what_leads_to_it_only() {
    let top = tree(&["a/b/compose.yml", "a/c/d/other", "e/", "compose.yml", "z/compose.yml/inside"]);
    let root = Root::open(top.path()).unwrap();
    let o = scan_by(&root, &policy(&["compose.yml"], &[], &[], &[]));
    let want = [
        ". passage",
        "a passage",
        "a/b passage",
        "a/b/compose.yml protected",
        "compose.yml protected",
        "z passage",
        "z/compose.yml protected",
        "z/compose.yml/inside protected",
    ];
    assert_eq!(lines(&o), want);
}

#[test]
fn from_any_directory() {
    let top = tree(&["a/b/one", "a/b/c/two", "a/three", "media/x/y", "left/alone"]);
    let root = Root::open(top.path()).unwrap();
    let p = policy(&["a/"], &[], &["media/"], &[]);
    let from = |path: &str| {
        let o = try_scan(&root, &p, &rel(path), ScanContent::All, 2).unwrap();
        assert_eq!(o.report.unmatched, []);
        o
    };
    let b = from("a/b");
    assert_eq!(b.names(), ["a/b", "a/b/c", "a/b/c/two", "a/b/one"]);
    assert_eq!(*b.get("a/b/one").entry(), naive_entry(&top.path().join("a/b/one")));
    assert_eq!(from("a/three").names(), ["a/three"]);
    assert!(from("a/three").get("a/three").entry().sha256.is_some());
    assert_eq!(lines(&from("media")), ["media writabletop"]);
    assert!(from("media/x").found.is_empty());
    assert!(from("left").found.is_empty());
    assert_eq!(from("a/gone").get("a/gone").observed, Observed::Absent);
    assert_eq!(from("a/three/below").get("a/three/below").observed, Observed::Absent);
}

#[test]
fn literals_that_nothing_answers_to() {
    let top = tree(&["a/real", "deep/er/bare", "escaped!", "a_dir/", "ignored/x", ".env"]);
    let root = Root::open(top.path()).unwrap();
    let p = policy(
        &["a/real", "a/none", "/top", "bare", "nowhere", "a/real/", "escaped\\!", "a_dir/", "gl*b", "a_dir"],
        &["never/"],
        &["no/uploads/"],
        &[".env", ".env.prod"],
    );
    let o = scan_by(&root, &p);
    let mut got: Vec<_> = o.report.unmatched.iter().map(|(l, p)| format!("{l} {p}")).collect();
    got.sort();
    let want = [
        "protect /top",
        "protect a/none",
        "protect a/real/",
        "protect nowhere",
        "sensitive .env.prod",
        "writable no/uploads/",
    ];
    assert_eq!(got, want);
}

#[test]
fn only_what_differs_is_read() {
    let top = tree(&["same", "changed", "new", "opened", "tagged", "unhashed"]);
    let root = Root::open(top.path()).unwrap();
    let mut expected = scan_by(&root, &everything()).entries();
    expected.remove(&b"new"[..]);
    expected.get_mut(&b"unhashed"[..]).unwrap().sha256 = None;
    fs::write(top.path().join("changed"), "CHANGED").unwrap();
    let tagged =
        rustix::fs::setxattr(top.path().join("tagged"), "user.tag", b"1", XattrFlags::empty()).is_ok();
    fs::set_permissions(top.path().join("opened"), fs::Permissions::from_mode(0o606)).unwrap();
    let visitor = Collect { expected, ..Collect::default() };
    let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
    let content = ScanContent::WhereDiffers;
    let options = ScanOptions { content, workers: 2, pace: None, cancel: &cancel, progress: &progress };
    scan(&root, &everything(), &RelPath::root(), &options, &visitor).unwrap();
    let found = visitor.found.into_inner().unwrap();
    let read: Vec<_> =
        found.iter().filter(|(_, f)| f.entry().sha256.is_some()).map(|(n, _)| n.as_slice()).collect();
    let mut want: Vec<&[u8]> = vec![b"changed", b"new", b"opened", b"tagged", b"unhashed"];
    want.retain(|name| tagged || *name != b"tagged");
    assert_eq!(read, want);
    // Whatever was not read is as it is on disk all the same.
    for (path, entry) in naive(top.path()) {
        let seen = found[&path].entry().clone();
        assert_eq!(guard_model::Entry { sha256: entry.sha256, ..seen }, entry);
    }
    let none = try_scan(&root, &everything(), &RelPath::root(), ScanContent::None, 2).unwrap();
    assert!(none.found.values().all(|f| f.entry().sha256.is_none()));
    assert_eq!(none.progress.bytes.load(Ordering::Relaxed), 0);
    let glance = try_scan(&root, &everything(), &RelPath::root(), ScanContent::Glance, 2).unwrap();
    assert_eq!(glance.names(), none.names());
    for (path, entry) in naive(top.path()).into_iter().filter(|(path, _)| !path.is_empty()) {
        let glanced = guard_model::Entry { sha256: None, xattrs: Vec::new(), target: None, ..entry };
        assert_eq!(*glance.found[&path].entry(), glanced);
    }
}

#[test]
fn hard_links_that_lead_outside() {
    let top = tree(&["root/both_a", "root/out", "root/to_ignored", "root/alone", "outside/"]);
    let p = top.path();
    fs::hard_link(p.join("root/both_a"), p.join("root/both_b")).unwrap();
    fs::hard_link(p.join("root/out"), p.join("outside/out")).unwrap();
    fs::hard_link(p.join("root/to_ignored"), p.join("root/x.log")).unwrap();
    let root = Root::open(&p.join("root")).unwrap();
    let o = scan_by(&root, &policy(&[], &["*.log"], &[], &[]));
    let outside = |name: &str| {
        let e = o.get(name).entry();
        o.report.links.leads_outside((e.dev, e.ino))
    };
    assert_eq!(
        ["both_a", "both_b", "out", "to_ignored", "alone"].map(outside),
        [false, false, true, true, false]
    );
    assert_eq!(o.report.links.outside(), 2);
}

#[test]
fn a_wish_to_stop_is_heard_within_a_file() {
    let top = tree(&["a/one", "b/two"]);
    // So big that it would be read for a quarter of an hour.
    File::create(top.path().join("huge")).unwrap().set_len(1 << 40).unwrap();
    let root = Root::open(top.path()).unwrap();
    let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
    let options = ScanOptions {
        content: ScanContent::All,
        workers: 2,
        pace: None,
        cancel: &cancel,
        progress: &progress,
    };
    let visitor = Collect::default();
    std::thread::scope(|s| {
        let running = s.spawn(|| scan(&root, &everything(), &RelPath::root(), &options, &visitor));
        while progress.bytes.load(Ordering::Relaxed) < 1 << 20 {
            std::thread::yield_now();
        }
        cancel.store(true, Ordering::Relaxed);
        assert!(matches!(running.join().unwrap(), Err(guard_tree::TreeError::Cancelled)));
    });
    assert!(!visitor.found.lock().unwrap().contains_key(&b"huge"[..]));
}

#[test]
fn big_files_are_found_like_others_whoever_reads_them() {
    let top = tree(&["a/one", "a/two", "b/", "c/"]);
    for (name, over) in [("a/big", 0), ("a/more", 1), ("b/big", 2), ("c/x", 3), ("c/y", 4), ("c/z", 5)] {
        File::create(top.path().join(name)).unwrap().set_len(BIG + over).unwrap();
    }
    let root = Root::open(top.path()).unwrap();
    let by = |workers| {
        let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
        let content = ScanContent::All;
        let options = ScanOptions { content, workers, pace: None, cancel: &cancel, progress: &progress };
        let visitor = Collect::default();
        let report = scan(&root, &everything(), &RelPath::root(), &options, &visitor).unwrap();
        let (entered, left) = (visitor.entered.into_inner().unwrap(), visitor.left.into_inner().unwrap());
        assert_eq!((entered.len(), &entered), (4, &left));
        let found: Vec<_> = visitor.found.into_inner().unwrap().into_iter().collect();
        (found, report.totals, progress.bytes.into_inner())
    };
    let one = by(1);
    assert_eq!(one.0.len(), 12);
    assert!(one.0.iter().all(|(_, f)| f.entry().kind != Kind::File || f.entry().sha256.is_some()));
    (0..4).for_each(|_| assert_eq!(by(3), one));
}

/// Small files are hashed beside others, whatever their sizes and directories.
#[test]
fn every_digest_is_of_its_own_file() {
    let top = tempfile::tempdir().unwrap();
    let content =
        |n: usize, size: usize| (0..size).map(|i| ((i * 7) ^ n ^ (i >> 8)) as u8).collect::<Vec<_>>();
    // More directories than may wait, some with one file and some with none; links among files.
    for n in 0..600 {
        let dir = top.path().join(format!("few/{}/{n}", n % 7));
        fs::create_dir_all(&dir).unwrap();
        if n % 3 == 0 {
            fs::write(dir.join("f"), content(n, n * 37 % 5000)).unwrap();
        }
        symlink("f", dir.join("a")).unwrap();
        symlink("f", dir.join("z")).unwrap();
    }
    let many = top.path().join("many");
    fs::create_dir(&many).unwrap();
    (0..700).for_each(|n| fs::write(many.join(n.to_string()), content(n, n % 300)).unwrap());
    // Around what is hashed beside others and what is read by itself, some with a big one in their directory.
    for (n, size) in [0, 1, 63, 64, 65, 65_535, 65_536, 65_537, 131_072, 700_000].into_iter().enumerate() {
        let dir = top.path().join(format!("sizes/{}", n % 3));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(size.to_string()), content(n, size)).unwrap();
    }
    fs::write(top.path().join("sizes/1/big"), content(1, BIG as usize)).unwrap();
    let root = Root::open(top.path()).unwrap();
    let expected = naive(top.path());
    for workers in [1, 2, 5] {
        let found = try_scan(&root, &everything(), &RelPath::root(), ScanContent::All, workers).unwrap();
        assert_eq!(found.entries(), expected, "{workers} workers");
        assert_eq!(
            found.report.totals.files,
            expected.values().filter(|e| e.kind != Kind::Directory).count() as u64
        );
    }
}

#[test]
fn a_paced_scan_keeps_to_its_pace() {
    let top = tree(&["a", "b", "c/d"]);
    let root = Root::open(top.path()).unwrap();
    let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
    let totals = scan_by(&root, &everything()).report.totals;
    let pace = Some(Pace::spread(&totals, Duration::from_millis(300)));
    let options =
        ScanOptions { content: ScanContent::All, workers: 2, pace, cancel: &cancel, progress: &progress };
    let start = Instant::now();
    let visitor = Collect::default();
    scan(&root, &everything(), &RelPath::root(), &options, &visitor).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
    let paced: Vec<_> = visitor.found.into_inner().unwrap().into_iter().collect();
    assert_eq!(paced, scan_by(&root, &everything()).found.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_panic_of_the_visitor_reaches_the_caller() {
    struct Panics;
    impl guard_tree::Visitor for Panics {
        type Dir = ();
        fn enter(&self, _: &RelPath) {}
        fn expected<'v>(&'v self, (): &'v (), _: &RelPath) -> Option<Cow<'v, guard_model::Entry>> {
            None
        }
        fn found(&self, (): &mut (), path: RelPath, _: Class, _: Role, _: Observed) {
            assert!(path.name() != b"bad", "as the test wants it");
        }
        fn leave(&self, (): (), _: &RelPath) {}
    }
    let top = tree(&["a/x", "b/bad", "c/y"]);
    let root = Root::open(top.path()).unwrap();
    let (progress, cancel) = (Progress::default(), AtomicBool::new(false));
    let options = ScanOptions {
        content: ScanContent::All,
        workers: 3,
        pace: None,
        cancel: &cancel,
        progress: &progress,
    };
    let result = std::panic::catch_unwind(|| {
        scan(&root, &everything(), &RelPath::root(), &options, &Panics).map(|_| ())
    });
    assert!(result.is_err());
}

#[test]
fn roots_that_are_none() {
    let top = tree(&["file", "dir/"]);
    let open = |name: &str| Root::open(&top.path().join(name));
    assert!(matches!(open("file"), Err(guard_tree::TreeError::NotADirectory { .. })));
    assert!(matches!(open("none"), Err(guard_tree::TreeError::Io { .. })));
    symlink("dir", top.path().join("link")).unwrap();
    let through_link = open("link").unwrap();
    assert_eq!(through_link.path(), top.path().canonicalize().unwrap().join("dir"));
    assert_eq!(through_link.identity(), open("dir").unwrap().identity());
    let message = open("none").unwrap_err().to_string();
    assert!(message.starts_with("cannot resolve ") && message.ends_with("/none"), "{message}");
    Root::open(Path::new("/")).unwrap();
}

#[test]
fn entries_are_complete() {
    let top = tree(&["f", "d/"]);
    symlink("../\u{1f980}", top.path().join("l")).unwrap();
    let root = Root::open(top.path()).unwrap();
    let o = scan_by(&root, &everything());
    assert_eq!(o.entries(), naive(top.path()));
    assert_eq!(o.get("l").entry().target.as_deref(), Some("../\u{1f980}".as_bytes()));
    assert_eq!(o.get("d").entry().kind, Kind::Directory);
}
