//! Somebody swaps directories and files for symbolic links that lead outside while
//! a tree is looked at and sealed: an operation may fail, and nothing outside may
//! be reported or changed.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guard_model::{Digest, Entry, Kind, Observed, RelPath};
use guard_sys::open::Resolver;
use guard_tree::{Content, MarksSet, Root, ScanContent};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use sha2::{Digest as _, Sha256};
use support::*;

const SECRET: &str = "not for the likes of you";
/// What is not to be found inside.
const OUTSIDE_MODE: u32 = 0o604;

/// `root/d` (a directory) and `root/e` (a file) are swapped with links to the like outside.
fn build(top: &Path) {
    for (base, text, mode) in [("root", "inside", 0o640), ("outside", SECRET, OUTSIDE_MODE)] {
        fs::create_dir_all(top.join(base).join("d/sub")).unwrap();
        for f in ["e", "d/f", "d/sub/g"] {
            let path = top.join(base).join(f);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        for d in ["d", "d/sub"] {
            let mode = if base == "root" { 0o750 } else { 0o705 };
            fs::set_permissions(top.join(base).join(d), fs::Permissions::from_mode(mode)).unwrap();
        }
    }
    fs::write(top.join("outside/d/only_outside"), SECRET).unwrap();
    symlink("../outside/d", top.join("root/d.link")).unwrap();
    symlink(top.join("outside/e"), top.join("root/e.link")).unwrap();
}

fn outside_state(top: &Path) -> Vec<(u32, i64, i64)> {
    ["d", "e", "d/f", "d/sub", "d/sub/g"]
        .map(|n| fs::metadata(top.join("outside").join(n)).unwrap())
        .map(|m| (m.mode(), m.ctime(), m.ctime_nsec()))
        .to_vec()
}

struct Check {
    secret: Digest,
    outside: Vec<u64>,
}

impl Check {
    fn entry(&self, path: &str, entry: &Entry) {
        assert_ne!(entry.sha256, Some(self.secret), "{path} was read outside");
        assert!(!self.outside.contains(&entry.ino), "{path} is {entry:?}, which is outside");
    }

    fn observed(&self, path: &str, observed: &Observed) {
        match observed {
            Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. } => self.entry(path, e),
            Observed::Absent | Observed::Unreadable { entry: None, .. } => {}
        }
    }
}

fn race(resolver: Resolver, attack: impl Fn(&Root, &Check) + Sync) {
    let top = tempfile::tempdir().unwrap();
    build(top.path());
    let inodes = ["d", "e", "d/f", "d/sub", "d/sub/g", "d/only_outside"];
    let check = Check {
        secret: Digest(Sha256::digest(SECRET).into()),
        outside: inodes.map(|n| fs::metadata(top.path().join("outside").join(n)).unwrap().ino()).to_vec(),
    };
    let before = outside_state(top.path());
    let root = Root::open_with(&top.path().join("root"), resolver).unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let at = |n: &str| top.path().join("root").join(n);
            while !stop.load(Ordering::Relaxed) {
                for (a, b) in [("d", "d.link"), ("e", "e.link")] {
                    renameat_with(CWD, at(a), CWD, at(b), RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        let start = Instant::now();
        let finished = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            while start.elapsed() < Duration::from_millis(400) {
                attack(&root, &check);
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(panic) = finished {
            std::panic::resume_unwind(panic);
        }
    });
    assert_eq!(outside_state(top.path()), before);
}

#[test]
fn scans_stay_inside() {
    for resolver in resolvers() {
        race(resolver, |root, check| {
            for content in [ScanContent::All, ScanContent::None, ScanContent::Glance] {
                let o = try_scan(root, &everything(), &RelPath::root(), content, 2).unwrap();
                for (name, found) in o.names().iter().zip(o.found.values()) {
                    assert!(!name.ends_with("only_outside"));
                    check.observed(name, &found.observed);
                }
            }
        });
    }
}

#[test]
fn observations_stay_inside() {
    for resolver in resolvers() {
        race(resolver, |root, check| {
            for path in ["d", "e", "d/f", "d/sub", "d/sub/g", "d.link/f", "e.link"] {
                for content in [Content::Read, Content::Skip] {
                    check.observed(path, &root.observe(&rel(path), content));
                }
            }
            assert_eq!(root.observe(&rel("d/only_outside"), Content::Read), Observed::Absent);
            for names in [root.observe_dir(&rel("d")), root.observe_dir(&rel("d.link"))].into_iter().flatten()
            {
                assert!(names.iter().all(|(n, _)| &**n != b"only_outside"), "{names:?}");
            }
        });
    }
}

#[test]
fn modes_outside_stay() {
    for resolver in resolvers() {
        race(resolver, |root, check| {
            for path in ["d", "e", "d/f", "d/sub", "d/sub/g", "d.link", "e.link"] {
                let Observed::Present(now) = root.observe(&rel(path), Content::Skip) else { continue };
                check.entry(path, &now);
                let mode = now.mode ^ 0o020;
                let set = root.set_marks(&rel(path), (now.dev, now.ino), plain(mode)).unwrap();
                if now.kind == Kind::Symlink {
                    // Perhaps the link's inode is at the other name now; a link is never changed.
                    assert!(matches!(set, MarksSet::Replaced | MarksSet::Vanished), "{path} {set:?}");
                }
                // Even somebody who is told the identity of what is outside does not reach it.
                for ino in &check.outside {
                    let set = root.set_marks(&rel(path), (now.dev, *ino), plain(0o777)).unwrap();
                    assert!(matches!(set, MarksSet::Replaced | MarksSet::Vanished), "{path} {set:?}");
                }
            }
        });
    }
}
