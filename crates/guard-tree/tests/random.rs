//! Random trees: a scan agrees with a naive walk by the standard library, entry
//! by entry, whatever is in the tree and however paths are resolved.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use guard_model::{Observed, RelPath};
use guard_tree::{Content, Root, ScanContent};
use proptest::prelude::*;
use rustix::fs::{Mode, XattrFlags};
use support::*;

#[derive(Debug, Clone)]
enum Thing {
    File { content: Vec<u8>, mode: u32, xattr: Option<Vec<u8>> },
    Directory { mode: u32 },
    Symlink(Vec<u8>),
    Fifo,
    Socket,
    HardLinkTo(prop::sample::Index),
}

/// One thing to make: in one of the directories made so far, under this name.
type Step = (prop::sample::Index, Vec<u8>, Thing);

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![4 => b'a'..=b'd', 1 => Just(b'\n'), 1 => 0x80u8..=0xff, 1 => 1u8..=0x7f];
    prop_oneof![
        8 => prop::collection::vec(byte.clone(), 1..6),
        1 => prop::collection::vec(byte, 255..=255),
    ]
    .prop_filter("a name", |n| !n.contains(&b'/') && n != b"." && n != b"..")
}

fn thing() -> impl Strategy<Value = Thing> {
    let target =
        prop_oneof![Just(b".".to_vec()), Just(b"..".to_vec()), Just(b"/etc/passwd".to_vec()), name()];
    prop_oneof![
        6 => (prop::collection::vec(any::<u8>(), 0..300), 0o400u32..=0o7777, prop::option::of(prop::collection::vec(any::<u8>(), 0..40)))
            .prop_map(|(content, mode, xattr)| Thing::File { content, mode: mode | 0o400, xattr }),
        4 => (0u32..=0o7777).prop_map(|mode| Thing::Directory { mode: mode | 0o700 }),
        2 => target.prop_map(Thing::Symlink),
        1 => Just(Thing::Fifo),
        1 => Just(Thing::Socket),
        1 => any::<prop::sample::Index>().prop_map(Thing::HardLinkTo),
    ]
}

/// Makes the tree; steps that collide with earlier ones are left out.
fn build(top: &Path, steps: &[Step]) {
    let mut directories = vec![top.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    for (parent, name, thing) in steps {
        let path = parent.get(&directories).join(OsStr::from_bytes(name));
        if path.symlink_metadata().is_ok() {
            continue;
        }
        match thing {
            Thing::File { content, mode, xattr } => {
                fs::write(&path, content).unwrap();
                if let Some(value) = xattr {
                    // Where the file system has none the naive walk sees none either.
                    rustix::fs::setxattr(&path, "user.test", value, XattrFlags::empty()).ok();
                }
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                files.push(path);
            }
            Thing::Directory { mode } => {
                fs::create_dir(&path).unwrap();
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
                directories.push(path);
            }
            Thing::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            Thing::Fifo => rustix::fs::mkfifoat(rustix::fs::CWD, &path, Mode::RUSR).unwrap(),
            // A socket's address holds a hundred bytes or so.
            Thing::Socket => drop(UnixListener::bind(&path)),
            Thing::HardLinkTo(which) if !files.is_empty() => fs::hard_link(which.get(&files), &path).unwrap(),
            Thing::HardLinkTo(_) => {}
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_scan_agrees_with_a_naive_walk(
        steps in prop::collection::vec((any::<prop::sample::Index>(), name(), thing()), 0..50),
        workers in 1usize..4,
    ) {
        let top = tempfile::tempdir().unwrap();
        build(top.path(), &steps);
        let want = naive(top.path());
        for resolver in resolvers() {
            let root = Root::open_with(top.path(), resolver).unwrap();
            let outcome =
                try_scan(&root, &everything(), &RelPath::root(), ScanContent::All, workers).unwrap();
            prop_assert_eq!(&outcome.entries(), &want);
            prop_assert_eq!(&outcome.report.skipped, &[]);
            for (path, entry) in &want {
                let path = RelPath::from_bytes(path).unwrap();
                let observed = root.observe(&path, Content::Read);
                prop_assert_eq!(observed, Observed::Present(entry.clone()));
                let mut bare = entry.clone();
                bare.sha256 = None;
                prop_assert_eq!(root.observe(&path, Content::IfDiffers(entry)), Observed::Present(bare));
            }
        }
    }

    #[test]
    fn a_scan_by_a_policy_is_the_part_that_the_policy_names(
        steps in prop::collection::vec((any::<prop::sample::Index>(), name(), thing()), 0..50),
        protect in prop::collection::vec("[a-d*]{1,3}/?", 0..3),
        ignore in prop::collection::vec("[a-d*]{1,2}/?", 0..2),
        writable in prop::collection::vec("[a-d]{1,2}/", 0..2),
        sensitive in prop::collection::vec("[a-d]{1,2}", 0..2),
    ) {
        let texts = |list: &[String]| list.to_vec();
        let policy = guard_model::Policy::new(guard_model::policy::PatternText {
            protect: texts(&protect), ignore: texts(&ignore), writable: texts(&writable), sensitive: texts(&sensitive),
            ..Default::default()
        }).unwrap();
        let top = tempfile::tempdir().unwrap();
        build(top.path(), &steps);
        let root = Root::open(top.path()).unwrap();
        let outcome = scan_by(&root, &policy);
        let classes: Vec<_> = naive(top.path())
            .into_iter()
            .map(|(path, entry)| {
                let path = RelPath::from_bytes(&path).unwrap();
                let class = policy.classify(&path, entry.kind == guard_model::Kind::Directory);
                (path, class)
            })
            .collect();
        let protected: Vec<_> = classes.iter().filter(|(_, c)| c.is_protected()).map(|(p, _)| p).collect();
        for (path, class) in &classes {
            let found = outcome.found.get(path.as_bytes());
            if class.is_protected() {
                prop_assert_eq!(found.map(|f| f.class), Some(*class), "{}", path);
            } else if let Some(found) = found {
                // Nothing else is reported but tops of writable paths and ways to what is protected.
                let leads = path.is_root() || protected.iter().any(|p| p.is_within(path));
                prop_assert!(*class == guard_model::Class::WritableTop || leads, "{} {:?}", path, found);
            }
        }
        for path in protected {
            for above in path.ancestors_from_root() {
                prop_assert!(outcome.found.contains_key(above.as_bytes()), "{} above {}", above, path);
            }
        }
    }
}
