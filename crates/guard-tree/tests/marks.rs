//! Setting modes and flags does exactly what was asked to exactly what was meant, or nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use guard_model::seal::{APPEND, IMMUTABLE, Marks, sealed};
use guard_model::{Entry, Observed, Seal};
use guard_tree::{Content, MarksSet, Root, WhyNoFlags};
use proptest::prelude::*;
use rustix::fs::XattrFlags;
use support::*;

fn entry(root: &Root, path: &str) -> Entry {
    match root.observe(&rel(path), Content::Read) {
        Observed::Present(e) => e,
        other => panic!("{path}: {other:?}"),
    }
}

fn set(root: &Root, path: &str, mode: u32) -> MarksSet {
    let e = entry(root, path);
    root.set_marks(&rel(path), (e.dev, e.ino), plain(mode)).unwrap()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn every_outcome() {
    let top = tempfile::tempdir().unwrap();
    let at = |n: &str| top.path().join(n);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/f"), "x").unwrap();
    symlink("d/f", at("l")).unwrap();
    symlink("d", at("dl")).unwrap();
    fs::set_permissions(at("d/f"), fs::Permissions::from_mode(0o644)).unwrap();
    for resolver in resolvers() {
        let root = Root::open_with(top.path(), resolver).unwrap();
        assert_eq!(set(&root, "d/f", 0o444), MarksSet::Done);
        assert_eq!(mode(&at("d/f")), 0o444);
        assert_eq!(set(&root, "d/f", 0o444), MarksSet::Already);
        assert_eq!(set(&root, "d/f", 0o100_644), MarksSet::Done); // the kind's bits do not count
        assert_eq!(set(&root, "d", 0o555), MarksSet::Done);
        assert_eq!(set(&root, "d", 0o755), MarksSet::Done);
        assert_eq!(set(&root, ".", 0o500), MarksSet::Done);
        assert_eq!(set(&root, ".", 0o700), MarksSet::Done);
        assert_eq!(set(&root, "l", 0o444), MarksSet::Replaced);
        let file = entry(&root, "d/f");
        let identity = (file.dev, file.ino);
        let to = |path: &str| root.set_marks(&rel(path), identity, plain(0)).unwrap();
        assert_eq!(to("d"), MarksSet::Replaced);
        assert_eq!(to("l"), MarksSet::Replaced);
        assert_eq!(to("dl/f"), MarksSet::Vanished);
        assert_eq!(to("none"), MarksSet::Vanished);
        assert_eq!(to("d/f/x"), MarksSet::Vanished);
        assert_eq!(
            root.set_marks(&rel("d/f"), (file.dev + 1, file.ino), plain(0)).unwrap(),
            MarksSet::Replaced
        );
        assert_eq!(mode(&at("d/f")), 0o644);
    }
}

#[test]
fn another_file_at_the_name_is_left_alone() {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir(top.path().join("root")).unwrap();
    let (inside, outside) = (top.path().join("root/f"), top.path().join("outside"));
    fs::write(&inside, "x").unwrap();
    fs::write(&outside, "y").unwrap();
    let before = mode(&outside);
    let root = Root::open(&top.path().join("root")).unwrap();
    let e = entry(&root, "f");
    // A hard link to what the intruder wants to be changed.
    fs::rename(&inside, top.path().join("away")).unwrap();
    fs::hard_link(&outside, &inside).unwrap();
    assert_eq!(root.set_marks(&rel("f"), (e.dev, e.ino), plain(0o777)).unwrap(), MarksSet::Replaced);
    assert_eq!(mode(&outside), before);
}

#[test]
fn what_is_not_permitted_is_said_and_not_half_done() {
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(top.path().join("roots"), "x").unwrap();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    // Owned by the unprivileged user, of a group that it is not in.
    fs::write(top.path().join("setgid"), "x").unwrap();
    std::os::unix::fs::chown(top.path().join("setgid"), Some(65534), Some(0)).unwrap();
    fs::set_permissions(top.path().join("setgid"), fs::Permissions::from_mode(0o2775)).unwrap();
    unprivileged(|| {
        let root = Root::open(top.path()).unwrap();
        assert_eq!(set(&root, "roots", 0o400), MarksSet::NotPermitted);
        assert_eq!(set(&root, "setgid", 0o2555), MarksSet::NotPermitted);
        assert_eq!(mode(&top.path().join("setgid")), 0o2775);
        assert_eq!(set(&root, "setgid", 0o555), MarksSet::Done);
    });
    // Root may.
    let root = Root::open(top.path()).unwrap();
    assert_eq!(set(&root, "setgid", 0o2555), MarksSet::Done);
}

/// Can this test set binding flags where temporary files are? Not without `CAP_LINUX_IMMUTABLE`
/// or on a file system without flags; what needs them is left out then.
fn may_set_flags() -> bool {
    let top = tempfile::tempdir().unwrap();
    fs::write(top.path().join("f"), "x").unwrap();
    let may = flag(&top.path().join("f"), IMMUTABLE);
    flag(&top.path().join("f"), 0);
    may
}

/// Sets the binding flags of a file or directory as chattr(1) does.
fn flag(path: &Path, value: u32) -> bool {
    let file = fs::File::open(path).unwrap();
    guard_sys::flags::set(std::os::fd::AsFd::as_fd(&file), IMMUTABLE | APPEND, value).is_ok()
}

#[test]
fn flags_are_lifted_for_the_mode_and_set_last() {
    if !may_set_flags() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let at = |n: &str| top.path().join(n);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/f"), "x").unwrap();
    let root = Root::open(top.path()).unwrap();
    for name in ["d/f", "d"] {
        let e = entry(&root, name);
        let identity = (e.dev, e.ino);
        let to = |mode, flags| root.set_marks(&rel(name), identity, Marks { mode, flags }).unwrap();
        let now = || {
            let e = entry(&root, name);
            (e.mode, e.flags)
        };
        assert_eq!(to(0o555, IMMUTABLE), MarksSet::Done);
        assert_eq!(now(), (0o555, IMMUTABLE));
        assert_eq!(to(0o555, IMMUTABLE), MarksSet::Already);
        // Only the mode, only the flag, and one flag for another.
        assert_eq!(to(0o500, IMMUTABLE), MarksSet::Done);
        assert_eq!(now(), (0o500, IMMUTABLE));
        assert_eq!(to(0o500, APPEND), MarksSet::Done);
        assert_eq!(now(), (0o500, APPEND));
        assert_eq!(to(0o755, APPEND | IMMUTABLE), MarksSet::Done);
        assert_eq!(now(), (0o755, APPEND | IMMUTABLE));
        assert_eq!(to(0o750, 0), MarksSet::Done);
        assert_eq!(now(), (0o750, 0));
        // No other flag is ever touched.
        assert_eq!(to(0o750, IMMUTABLE | 0x40), MarksSet::Done);
        assert_eq!(now(), (0o750, IMMUTABLE));
        assert_eq!(to(0o700, 0), MarksSet::Done);
    }
    assert!(fs::write(at("d/f"), "y").is_ok());
}

#[test]
fn without_the_capability_the_mode_is_set_and_the_flag_is_said_to_be_missing() {
    let may = may_set_flags();
    let top = tempfile::tempdir().unwrap();
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(top.path().join("f"), "x").unwrap();
    fs::write(top.path().join("bound"), "x").unwrap();
    if may {
        for name in ["f", "bound"] {
            std::os::unix::fs::chown(top.path().join(name), Some(65534), Some(65534)).unwrap();
        }
        assert!(flag(&top.path().join("bound"), IMMUTABLE));
    }
    unprivileged(|| {
        let root = Root::open(top.path()).unwrap();
        let set = |name: &str, mode, flags| {
            let e = entry(&root, name);
            root.set_marks(&rel(name), (e.dev, e.ino), Marks { mode, flags }).unwrap()
        };
        let refused = set("f", 0o444, IMMUTABLE);
        assert!(matches!(refused, MarksSet::NoFlags(_)), "{refused:?}");
        assert!(!may || refused == MarksSet::NoFlags(WhyNoFlags::NotPermitted));
        assert_eq!(mode(&top.path().join("f")), 0o444);
        if may {
            assert_eq!(set("bound", 0o400, IMMUTABLE), MarksSet::NotPermitted);
            assert_eq!(set("bound", 0o400, 0), MarksSet::NotPermitted);
        }
    });
    if may {
        assert!(flag(&top.path().join("bound"), 0));
    }
}

#[test]
fn a_file_system_without_flags_is_told_from_a_missing_right() {
    // proc(5) has none; its root's entries have modes that nobody may set, hence the same one.
    let root = Root::open(Path::new("/proc")).unwrap();
    let e = entry(&root, "sys");
    let marks = Marks { mode: e.mode, flags: IMMUTABLE };
    let set = root.set_marks(&rel("sys"), (e.dev, e.ino), marks).unwrap();
    assert_eq!(set, MarksSet::NoFlags(WhyNoFlags::Unsupported));
}

/// An access ACL as acl(5) has it: owner, a named user, group, perhaps a mask, others.
fn acl(bits: [u16; 5], with_mask: bool) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0];
    let tags = [(1u16, u32::MAX), (2, 12345), (4, u32::MAX), (0x10, u32::MAX), (0x20, u32::MAX)];
    for ((tag, id), perm) in tags.into_iter().zip(bits) {
        if with_mask || !matches!(tag, 2 | 0x10) {
            out.extend(tag.to_le_bytes());
            out.extend(perm.to_le_bytes());
            out.extend(id.to_le_bytes());
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// What guard-model expects of a sealed entry is what the kernel makes of it, and
    /// unsealing gives back the very attributes.
    #[test]
    fn sealing_is_as_expected_and_undone_exactly(
        file_mode in 0u32..=0o7777,
        dir_mode in 0u32..=0o7777,
        bits in prop::array::uniform5(0u16..=7),
        with_acl: bool,
        with_mask: bool,
        immutable: bool,
    ) {
        let seal = if immutable && may_set_flags() { Seal::Immutable } else { Seal::ReadOnly };
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "x").unwrap();
        fs::create_dir(top.path().join("d")).unwrap();
        for (name, mode) in [("f", file_mode), ("d", dir_mode)] {
            let path = top.path().join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            if with_acl {
                let value = acl(bits, with_mask);
                // tmpfs and others may have no ACLs; then there is one thing less to compare.
                rustix::fs::setxattr(&path, "system.posix_acl_access", &value, XattrFlags::empty()).ok();
            }
        }
        let root = Root::open(top.path()).unwrap();
        for name in ["f", "d"] {
            let look = || {
                let path = top.path().join(name);
                let flags = fs::File::open(&path).map_or(0, |f| {
                    guard_sys::flags::get(std::os::fd::AsFd::as_fd(&f)).unwrap_or(0) & (IMMUTABLE | APPEND)
                });
                Entry { ctime: guard_model::Stamp::default(), flags, ..naive_entry(&path) }
            };
            let original = look();
            let identity = (original.dev, original.ino);
            let marks = Marks::of(&original);
            let done = root.set_marks(&rel(name), identity, marks.under(seal)).unwrap();
            let under_seal = look();
            root.set_marks(&rel(name), identity, marks).unwrap();
            prop_assert!(matches!(done, MarksSet::Done | MarksSet::Already));
            prop_assert_eq!(under_seal, sealed(&original, seal));
            prop_assert_eq!(look(), original);
        }
    }
}
