//! Setting modes does exactly what was asked to exactly what was meant, or nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use guard_model::seal::{sealed, sealed_mode};
use guard_model::{Entry, Observed};
use guard_tree::{Content, ModeSet, Root};
use proptest::prelude::*;
use rustix::fs::XattrFlags;
use support::*;

fn entry(root: &Root, path: &str) -> Entry {
    match root.observe(&rel(path), Content::Read) {
        Observed::Present(e) => e,
        other => panic!("{path}: {other:?}"),
    }
}

fn set(root: &Root, path: &str, mode: u32) -> ModeSet {
    let e = entry(root, path);
    root.set_mode(&rel(path), (e.dev, e.ino), mode).unwrap()
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
        assert_eq!(set(&root, "d/f", 0o444), ModeSet::Done);
        assert_eq!(mode(&at("d/f")), 0o444);
        assert_eq!(set(&root, "d/f", 0o444), ModeSet::Already);
        assert_eq!(set(&root, "d/f", 0o100_644), ModeSet::Done); // the kind's bits do not count
        assert_eq!(set(&root, "d", 0o555), ModeSet::Done);
        assert_eq!(set(&root, "d", 0o755), ModeSet::Done);
        assert_eq!(set(&root, ".", 0o500), ModeSet::Done);
        assert_eq!(set(&root, ".", 0o700), ModeSet::Done);
        assert_eq!(set(&root, "l", 0o444), ModeSet::Replaced);
        let file = entry(&root, "d/f");
        let identity = (file.dev, file.ino);
        let to = |path: &str| root.set_mode(&rel(path), identity, 0).unwrap();
        assert_eq!(to("d"), ModeSet::Replaced);
        assert_eq!(to("l"), ModeSet::Replaced);
        assert_eq!(to("dl/f"), ModeSet::Vanished);
        assert_eq!(to("none"), ModeSet::Vanished);
        assert_eq!(to("d/f/x"), ModeSet::Vanished);
        assert_eq!(root.set_mode(&rel("d/f"), (file.dev + 1, file.ino), 0).unwrap(), ModeSet::Replaced);
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
    assert_eq!(root.set_mode(&rel("f"), (e.dev, e.ino), 0o777).unwrap(), ModeSet::Replaced);
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
        assert_eq!(set(&root, "roots", 0o400), ModeSet::NotPermitted);
        assert_eq!(set(&root, "setgid", 0o2555), ModeSet::NotPermitted);
        assert_eq!(mode(&top.path().join("setgid")), 0o2775);
        assert_eq!(set(&root, "setgid", 0o555), ModeSet::Done);
    });
    // Root may.
    let root = Root::open(top.path()).unwrap();
    assert_eq!(set(&root, "setgid", 0o2555), ModeSet::Done);
}

#[test]
fn an_immutable_file_is_not_permitted() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("f");
    fs::write(&path, "x").unwrap();
    let file = fs::File::open(&path).unwrap();
    let immutable = guard_sys::flags::IMMUTABLE;
    let flag = |value| guard_sys::flags::set(std::os::fd::AsFd::as_fd(&file), immutable, value);
    if flag(immutable).is_err() {
        return; // Unprivileged, or a file system without flags.
    }
    let root = Root::open(top.path()).unwrap();
    let refused = set(&root, "f", 0o400);
    let seen = entry(&root, "f");
    assert!(flag(0).unwrap());
    assert_eq!((refused, seen.flags), (ModeSet::NotPermitted, immutable));
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
    ) {
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
            let look = || naive_entry(&top.path().join(name));
            let timeless = |e: Entry| Entry { ctime: guard_model::Stamp::default(), ..e };
            let original = look();
            let identity = (original.dev, original.ino);
            let done = root.set_mode(&rel(name), identity, sealed_mode(original.mode)).unwrap();
            prop_assert!(matches!(done, ModeSet::Done | ModeSet::Already));
            prop_assert_eq!(timeless(look()), timeless(sealed(&original)));
            root.set_mode(&rel(name), identity, original.mode).unwrap();
            prop_assert_eq!(timeless(look()), timeless(original));
        }
    }
}
