//! Files with names outside the root get inodes of their own, whoever meddles meanwhile.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, OpenOptions, Permissions};
use std::io::{Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guard_model::RelPath;
use guard_tree::{Leftover, LinkedName, Progress, Root, TreeError};
use rustix::fs::{AtFlags, CWD, RenameFlags, XattrFlags, renameat_with, setxattr};
use support::*;

/// A directory with the tree `root` and the directory `outside`.
fn stage() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let top = tempfile::tempdir().unwrap();
    let (inside, outside) = (top.path().join("root"), top.path().join("outside"));
    fs::create_dir_all(inside.join("d/sub")).unwrap();
    fs::create_dir_all(outside.join("d/sub")).unwrap();
    (top, inside, outside)
}

fn identity(root: &Root, path: &Path) -> (u64, u64) {
    // The numbers are compared on one file system only.
    (root.identity().0, fs::symlink_metadata(path).unwrap().ino())
}

fn name(path: &str) -> LinkedName {
    LinkedName::new(rel(path)).unwrap()
}

fn relink(root: &Root, identity: (u64, u64), names: &[LinkedName]) -> Vec<(RelPath, TreeError)> {
    root.give_own_inode(identity, names, &AtomicBool::new(false), &Progress::default())
}

/// Every name below `dir`, sorted.
fn names(dir: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            all.extend(names(&path));
        }
        all.push(path);
    }
    all.sort();
    all
}

#[track_caller]
fn no_temporary(dir: &Path) {
    let left: Vec<PathBuf> = names(dir)
        .into_iter()
        .filter(|p| p.file_name().unwrap().to_string_lossy().starts_with(".guardd"))
        .collect();
    assert_eq!(left, Vec::<PathBuf>::new());
}

/// What must be the same of the copy.
fn told(path: &Path) -> (String, Vec<u8>) {
    let m = fs::metadata(path).unwrap();
    let mut names = vec![0; 4096];
    let n = rustix::fs::listxattr(path, &mut names).unwrap_or(0);
    let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = names[..n]
        .split(|b| *b == 0)
        .filter(|n| !n.is_empty())
        .map(|n| {
            let mut value = vec![0; 4096];
            let len = rustix::fs::getxattr(path, n, &mut value).unwrap();
            (n.to_vec(), value[..len].to_vec())
        })
        .collect();
    xattrs.sort();
    let attributes = (m.mode(), m.uid(), m.gid(), m.size(), m.mtime(), m.mtime_nsec(), xattrs);
    (format!("{attributes:?}"), fs::read(path).unwrap())
}

#[test]
fn everything_is_kept_but_the_inode() {
    for resolver in resolvers() {
        let (_top, inside, outside) = stage();
        let root = Root::open_with(&inside, resolver).unwrap();
        for mode in [0o644, 0o4755, 0o2711, 0o400, 0o000, 0o7777] {
            let (original, link) = (outside.join(format!("f{mode:o}")), inside.join(format!("d/f{mode:o}")));
            let mut file = fs::File::create(&original).unwrap();
            file.write_all(b"begin").unwrap();
            file.seek(SeekFrom::Start(700_000)).unwrap();
            file.write_all(b"end").unwrap();
            drop(file);
            // Not where there are none.
            setxattr(&original, "user.kept", b"\0value", XattrFlags::empty()).ok();
            std::process::Command::new("setfacl").args(["-m", "u:1:rw,m::rx"]).arg(&original).output().ok();
            if rustix::process::geteuid().is_root() {
                std::os::unix::fs::chown(&original, Some(1234), Some(2345)).unwrap();
            }
            fs::set_permissions(&original, Permissions::from_mode(mode)).unwrap();
            fs::hard_link(&original, &link).unwrap();
            if fs::read(&link).is_err() {
                continue; // Not ours to read, so that there is nothing to copy.
            }
            let before = told(&link);
            let old = fs::metadata(&original).unwrap();
            assert_eq!(relink(&root, identity(&root, &link), &[name(&format!("d/f{mode:o}"))]).len(), 0);
            assert_eq!(told(&link), before, "{mode:o}");
            assert_eq!(told(&original), before, "{mode:o}");
            let (now, then) = (fs::metadata(&link).unwrap(), fs::metadata(&original).unwrap());
            assert_eq!((now.nlink(), then.nlink(), then.ino()), (1, 1, old.ino()));
            assert_ne!(now.ino(), old.ino());
        }
        no_temporary(&inside);
    }
}

#[test]
fn a_default_acl_gives_the_copy_nothing() {
    let (_top, inside, outside) = stage();
    let done = std::process::Command::new("setfacl")
        .args(["-m", "d:u:1:rwx,d:g::rwx"])
        .arg(inside.join("d"))
        .output();
    if !done.is_ok_and(|o| o.status.success()) {
        return; // No setfacl, or no ACLs here.
    }
    fs::write(outside.join("f"), "x").unwrap();
    fs::hard_link(outside.join("f"), inside.join("d/f")).unwrap();
    let before = told(&inside.join("d/f"));
    let root = Root::open(&inside).unwrap();
    assert_eq!(relink(&root, identity(&root, &inside.join("d/f")), &[name("d/f")]).len(), 0);
    assert_eq!(told(&inside.join("d/f")), before);
}

#[test]
fn names_inside_stay_one_file() {
    let (_top, inside, outside) = stage();
    fs::write(outside.join("f"), "shared").unwrap();
    let inside_names = ["a", "d/b", "d/sub/c"];
    for n in inside_names {
        fs::hard_link(outside.join("f"), inside.join(n)).unwrap();
    }
    let root = Root::open(&inside).unwrap();
    let old = identity(&root, &outside.join("f"));
    assert_eq!(relink(&root, old, &inside_names.map(name)).len(), 0);
    let inodes = inside_names.map(|n| fs::metadata(inside.join(n)).unwrap()).map(|m| (m.ino(), m.nlink()));
    assert_eq!(inodes, [(inodes[0].0, 3); 3]);
    assert_ne!(inodes[0].0, old.1);
    assert_eq!(fs::metadata(outside.join("f")).unwrap().nlink(), 1);
    no_temporary(&inside);
}

#[test]
fn what_cannot_be_copied_safely_is_left() {
    let (_top, inside, outside) = stage();
    fs::write(outside.join("f"), "x").unwrap();
    fs::hard_link(outside.join("f"), inside.join("f")).unwrap();
    symlink("f", inside.join("l")).unwrap();
    let root = Root::open(&inside).unwrap();
    let id = identity(&root, &inside.join("f"));
    let why =
        |failed: Vec<(RelPath, TreeError)>| failed.into_iter().map(|f| f.1.to_string()).collect::<String>();

    let writer = OpenOptions::new().append(true).open(outside.join("f")).unwrap();
    assert!(why(relink(&root, id, &[name("f")])).contains("open for writing"));
    drop(writer);
    // A child that another test has just forked holds it until it executes its program.
    let file = fs::File::open(inside.join("f")).unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    while !matches!(guard_sys::writers::test(file.as_fd()), Ok(guard_sys::writers::Writers::None)) {
        assert!(Instant::now() < end, "somebody has it open for writing");
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(file);
    assert!(why(relink(&root, (id.0, id.1 + 1), &[name("f")])).contains("another file"));
    assert!(why(relink(&root, id, &[name("l")])).contains("another file"));
    assert!(!why(relink(&root, id, &[name("gone")])).is_empty());
    assert!(!why(relink(&root, id, &[name("no/where")])).is_empty());
    let stop = root.give_own_inode(id, &[name("f")], &AtomicBool::new(true), &Progress::default());
    assert!(matches!(stop.as_slice(), [(_, TreeError::Cancelled)]), "{stop:?}");
    assert_eq!(fs::metadata(inside.join("f")).unwrap().nlink(), 2);
    no_temporary(&inside);
    // One name that fails does not keep the others.
    assert_eq!(relink(&root, id, &[name("gone"), name("f")]).len(), 1);
    assert_eq!(fs::metadata(inside.join("f")).unwrap().nlink(), 1);
}

#[test]
fn an_immutable_file_is_left() {
    let (_top, inside, outside) = stage();
    fs::write(outside.join("f"), "x").unwrap();
    fs::hard_link(outside.join("f"), inside.join("f")).unwrap();
    let chattr = |how: &str| std::process::Command::new("chattr").arg(how).arg(outside.join("f")).output();
    if !chattr("+i").is_ok_and(|o| o.status.success()) {
        return; // Not permitted, or not known here.
    }
    let root = Root::open(&inside).unwrap();
    let failed = relink(&root, identity(&root, &inside.join("f")), &[name("f")]);
    chattr("-i").unwrap();
    assert_eq!(failed.len(), 1);
    assert_eq!(fs::metadata(inside.join("f")).unwrap().nlink(), 2);
    no_temporary(&inside);
}

#[test]
fn what_an_interruption_left_is_removed() {
    let (_top, inside, outside) = stage();
    let root = Root::open(&inside).unwrap();
    fs::write(outside.join("f"), "x").unwrap();
    fs::hard_link(outside.join("f"), inside.join("d/f")).unwrap();
    let id = identity(&root, &inside.join("d/f"));
    let at = name("d/f");
    let temporary = inside.join(at.temporary.as_path());
    assert_eq!(root.clear_leftover(&at, id).unwrap(), Leftover::None);
    // Before the exchange: a copy, half written.
    fs::write(&temporary, "").unwrap();
    assert_eq!(root.clear_leftover(&at, id).unwrap(), Leftover::Removed);
    assert_eq!(fs::read(inside.join("d/f")).unwrap(), b"x");
    // After it: the old inode.
    fs::rename(inside.join("d/f"), &temporary).unwrap();
    fs::write(inside.join("d/f"), "x").unwrap();
    assert_eq!(root.clear_leftover(&at, id).unwrap(), Leftover::Removed);
    assert_eq!(fs::read(inside.join("d/f")).unwrap(), b"x");
    assert_eq!(fs::metadata(outside.join("f")).unwrap().nlink(), 1);
    // Something else altogether, on both sides.
    fs::write(&temporary, "precious").unwrap();
    assert_eq!(root.clear_leftover(&at, id).unwrap(), Leftover::Left);
    fs::remove_file(&temporary).unwrap();
    fs::create_dir(&temporary).unwrap();
    assert_eq!(root.clear_leftover(&at, id).unwrap(), Leftover::Left);
    symlink(outside.join("f"), inside.join("l")).unwrap();
    fs::rename(inside.join("d"), inside.join("e")).unwrap();
    symlink(&outside, inside.join("d")).unwrap();
    assert_eq!(root.clear_leftover(&at, id).unwrap(), Leftover::None);
}

/// Breaks links for a while, and until that many could be, while `attack` is repeated on another thread.
fn under_attack(inside: &Path, spare: &Path, least: u32, attack: impl Fn() + Sync) -> u32 {
    let root = Root::open(inside).unwrap();
    let done = AtomicBool::new(false);
    let mut broken = 0;
    let dir = fs::File::open(inside.join("d")).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                attack();
            }
        });
        let until = Instant::now() + Duration::from_millis(1500);
        let patience = until + Duration::from_secs(20);
        while Instant::now() < until || (broken < least && Instant::now() < patience) {
            let id = identity(&root, spare);
            broken += u32::from(relink(&root, id, &[name("d/f")]).is_empty());
            // The next round's file has a name outside again: of the very directory, wherever it is.
            fs::remove_file(spare).ok();
            rustix::fs::linkat(&dir, "f", CWD, spare, AtFlags::empty()).ok();
            // What stands there for a moment is not what the next round is about.
            if fs::read(spare).is_ok_and(|text| text != b"inside") {
                fs::remove_file(spare).unwrap();
            }
            if !spare.exists() {
                fs::write(spare, "inside").unwrap();
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    broken
}

#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    let (top, inside, outside) = stage();
    let spare = top.path().join("spare");
    fs::write(inside.join("d/f"), "inside").unwrap();
    fs::hard_link(inside.join("d/f"), &spare).unwrap();
    fs::write(outside.join("d/f"), "outside").unwrap();
    // Also with another name outside, so that only its identity tells it apart.
    fs::hard_link(outside.join("d/f"), outside.join("g")).unwrap();
    symlink("../outside/d", inside.join("d.other")).unwrap();
    let before = (names(&outside), told(&outside.join("d/f")), fs::metadata(outside.join("d/f")).unwrap());
    let broken = under_attack(&inside, &spare, 1, || {
        renameat_with(CWD, inside.join("d"), CWD, inside.join("d.other"), RenameFlags::EXCHANGE).unwrap();
    });
    let after = (names(&outside), told(&outside.join("d/f")), fs::metadata(outside.join("d/f")).unwrap());
    assert_eq!((after.0, after.1), (before.0, before.1));
    let inode = |m: &fs::Metadata| (m.ino(), m.ctime(), m.ctime_nsec(), m.nlink());
    assert_eq!(inode(&after.2), inode(&before.2));
    no_temporary(&inside);
    assert!(broken > 0, "nothing was tried");
}

#[test]
fn a_file_put_in_between_is_not_lost() {
    let (top, inside, outside) = stage();
    let spare = top.path().join("spare");
    fs::write(inside.join("d/f"), "inside").unwrap();
    fs::hard_link(inside.join("d/f"), &spare).unwrap();
    fs::write(inside.join("d/victim"), "victim").unwrap();
    fs::write(outside.join("target"), "target").unwrap();
    let victim = fs::metadata(inside.join("d/victim")).unwrap().ino();
    let target = told(&outside.join("target"));
    let d = inside.join("d");
    let broken = under_attack(&inside, &spare, 0, || {
        // Once a copy is being made, the file and another change places for a moment.
        std::thread::sleep(Duration::from_micros(200));
        let copying = |e: fs::DirEntry| e.file_name().to_string_lossy().starts_with(".guardd");
        if !fs::read_dir(&d).unwrap().flatten().any(copying) {
            return;
        }
        renameat_with(CWD, d.join("f"), CWD, d.join("victim"), RenameFlags::EXCHANGE).ok();
        std::thread::sleep(Duration::from_micros(50));
        renameat_with(CWD, d.join("f"), CWD, d.join("victim"), RenameFlags::EXCHANGE).ok();
        // And what looks like a copy becomes a link to elsewhere.
        for entry in fs::read_dir(&d).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with(".guardd")
                && entry.metadata().is_ok_and(|m| m.ino() % 3 == 0)
            {
                fs::remove_file(entry.path()).ok();
                symlink(outside.join("target"), entry.path()).ok();
            }
        }
    });
    assert_eq!(told(&outside.join("target")), target);
    let kept = names(&d).into_iter().any(|p| fs::symlink_metadata(&p).is_ok_and(|m| m.ino() == victim));
    assert!(kept, "the victim's inode has no name any more, after {broken} links broken");
}
