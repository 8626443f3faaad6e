//! Lock and unlock of random trees give back every mode, owner, flag, extended attribute and time.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{lchown, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rustix::fs::{IFlags, Mode, OFlags, XattrFlags, ioctl_getflags, ioctl_setflags, lsetxattr, open};

use crate::stage::Stage;
use crate::tree::{chmod, flags_for, is_root, open_up, picture};

const SECTION: &str = "seal = \"immutable\"\nrehash = \"1h\"\n";

/// Cases: each locks and unlocks once, which takes a tenth of a second.
const CASES: u32 = 24;

#[derive(Debug, Clone)]
enum Kind {
    File(Vec<u8>),
    Directory,
    Symlink(Vec<u8>),
    HardLink(prop::sample::Index),
}

#[derive(Debug, Clone)]
struct Looks {
    mode: u32,
    owner: (u32, u32),
    access: Option<[u16; 5]>,
    default: Option<[u16; 5]>,
    note: Option<Vec<u8>>,
    capability: bool,
    flags: u32,
}

type Thing = (prop::sample::Index, Vec<u8>, Kind, Looks);

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'd', 1 => Just(b'\n'), 1 => Just(b' '), 1 => Just(b'\\'), 1 => 0x80u8..=0xff];
    prop_oneof![9 => prop::collection::vec(byte.clone(), 1..5), 1 => prop::collection::vec(byte, 255..=255)]
}

fn looks() -> impl Strategy<Value = Looks> {
    let owner = prop::sample::select(vec![(0, 0), (1, 1), (65534, 65534), (0, 65534), (1000, 4)]);
    let acl = || prop::option::weighted(0.3, prop::array::uniform5(0u16..=7));
    // Immutable, append-only, nodump, noatime, synchronous.
    let flag = prop::sample::select(vec![0, 0, 0, 0x10, 0x20, 0x30, 0x40, 0x80, 0x08, 0xd0]);
    let note = prop::option::of(prop::collection::vec(any::<u8>(), 0..40));
    (0u32..=0o7777, owner, acl(), acl(), note, any::<bool>(), flag).prop_map(
        |(mode, owner, access, default, note, capability, flags)| Looks {
            mode,
            owner,
            access,
            default,
            note,
            capability,
            flags,
        },
    )
}

fn thing() -> impl Strategy<Value = Thing> {
    let kind = prop_oneof![
        5 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Kind::File),
        3 => Just(Kind::Directory),
        1 => name().prop_map(Kind::Symlink),
        1 => any::<prop::sample::Index>().prop_map(Kind::HardLink),
    ];
    (any::<prop::sample::Index>(), name(), kind, looks())
}

/// A `posix_acl_xattr` value: owner, a named user, group, mask, others.
fn acl(bits: [u16; 5]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0];
    let tags = [(1u16, u32::MAX), (2, 12345), (4, u32::MAX), (0x10, u32::MAX), (0x20, u32::MAX)];
    for ((tag, id), perm) in tags.into_iter().zip(bits) {
        out.extend(tag.to_le_bytes());
        out.extend(perm.to_le_bytes());
        out.extend(id.to_le_bytes());
    }
    out
}

/// Makes the tree. What collides with something earlier is left out, and what this user may not give too.
fn build(top: &Path, things: &[Thing]) {
    let (mut directories, mut files) = (vec![top.to_owned()], Vec::<PathBuf>::new());
    let mut made = Vec::new();
    for (at, name, kind, looks) in things {
        let path = at.get(&directories).join(OsStr::from_bytes(name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match kind {
            Kind::File(content) => {
                fs::write(&path, content).unwrap();
                files.push(path.clone());
            }
            Kind::Directory => {
                fs::create_dir(&path).unwrap();
                directories.push(path.clone());
            }
            Kind::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            Kind::HardLink(_) if files.is_empty() => continue,
            Kind::HardLink(to) => fs::hard_link(to.get(&files), &path).unwrap(),
        }
        if matches!(kind, Kind::File(_) | Kind::Directory) {
            made.push((path, looks));
        }
    }
    // The deepest first: a directory's own mode may shut out its unprivileged owner.
    for (path, looks) in made.iter().rev() {
        dress(path, looks);
    }
}

fn dress(path: &Path, looks: &Looks) {
    let is_dir = path.is_dir();
    // A user without rights has to be able to read what he guards.
    let least = if is_root() {
        0
    } else if is_dir {
        0o700
    } else {
        0o400
    };
    if is_root() {
        lchown(path, Some(looks.owner.0), Some(looks.owner.1)).unwrap();
    }
    chmod(path, looks.mode | least);
    let set = |name: &str, value: &[u8]| lsetxattr(path, name, value, XattrFlags::empty()).is_ok();
    if let Some(bits) = looks.access {
        let owner = bits[0] | (least >> 6) as u16;
        set("system.posix_acl_access", &acl([owner, bits[1], bits[2], bits[3], bits[4]]));
    }
    if let Some(bits) = looks.default.filter(|_| is_dir) {
        set("system.posix_acl_default", &acl(bits));
    }
    if let Some(note) = &looks.note {
        set("user.note", note);
    }
    if looks.capability && !is_dir {
        // cap_net_bind_service=ep, which only root may give.
        let words = [0x0200_0001u32, 1 << 10, 0, 0, 0].map(u32::to_le_bytes);
        set("security.capability", &words.concat());
    }
    let how = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    if let Ok(file) = open(path, how, Mode::empty())
        && let Ok(found) = ioctl_getflags(&file)
    {
        // Binding ones only where this process may set them, others where the file system has them.
        ioctl_setflags(&file, found | IFlags::from_bits_retain(looks.flags)).ok();
    }
}

#[test]
fn lock_and_unlock_of_random_trees_give_everything_back() {
    let with_flags = flags_for("the immutable flag in random trees");
    let mut stage = Stage::empty(SECTION);
    stage.start();
    let cases = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let things = prop::collection::vec(thing(), 0..40);
    let done = TestRunner::new(cases).run(&things, |things| {
        let app = stage.app();
        open_up(&app);
        for entry in fs::read_dir(&app).unwrap() {
            let path = entry.unwrap().path();
            let is_dir = path.symlink_metadata().unwrap().is_dir();
            if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
        }
        build(&app, &things);
        let original = picture(&app);
        let locked = stage.lock();
        prop_assert_eq!(locked.seal.done == "immutable", with_flags);
        let found = stage.check();
        prop_assert!(found.clean, "under the seal: {:?}", found.findings);
        let sealed = picture(&app);
        let unlocked = stage.unlock();
        let skipped = unlocked.skipped;
        prop_assert!(skipped.is_empty(), "{:?}", skipped);
        prop_assert_eq!(picture(&app), original);
        let found = stage.check();
        prop_assert!(found.clean, "after it: {:?}", found.findings);
        // Sealed is what no one may write: without write bits, and immutable where there are flags.
        for (path, line) in &sealed {
            let mode = u32::from_str_radix(&line[..6], 8).unwrap();
            let is_link = mode & 0o170_000 == 0o120_000;
            prop_assert!(is_link || mode & 0o222 == 0, "{:?}: {}", String::from_utf8_lossy(path), line);
        }
        Ok(())
    });
    done.unwrap();
}
