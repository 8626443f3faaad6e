//! What the tests of this crate share: a visitor that writes everything down and
//! insists on the protocol, and a naive walk to compare with.

#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use guard_model::baseline::Role;
use guard_model::policy::PatternText;
use guard_model::seal::Marks;
use guard_model::{Class, Digest, Entry, Kind, Observed, Policy, RelPath, Stamp};
use guard_sys::open::Resolver;
use guard_tree::{Progress, Root, ScanContent, ScanOptions, ScanReport, TreeError, Visitor, scan};
use sha2::{Digest as _, Sha256};

/// Files from this size on come after the others of their directory.
pub(crate) const BIG: u64 = 4 << 20;

pub(crate) type Bytes = Vec<u8>;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Found {
    pub(crate) class: Class,
    pub(crate) role: Role,
    pub(crate) observed: Observed,
}

impl Found {
    pub(crate) fn entry(&self) -> &Entry {
        match &self.observed {
            Observed::Present(e) => e,
            other => panic!("not present: {other:?}"),
        }
    }
}

/// Writes everything down.
#[derive(Default)]
pub(crate) struct Collect {
    pub(crate) expected: BTreeMap<Bytes, Entry>,
    pub(crate) found: Mutex<BTreeMap<Bytes, Found>>,
    pub(crate) entered: Mutex<BTreeSet<Bytes>>,
    pub(crate) left: Mutex<BTreeSet<Bytes>>,
}

pub(crate) struct Dir {
    path: RelPath,
    /// Of what is no regular file.
    last: Option<RelPath>,
}

impl Visitor for Collect {
    type Dir = Dir;

    fn enter(&self, dir: &RelPath) -> Dir {
        assert!(self.entered.lock().unwrap().insert(dir.as_bytes().to_vec()), "{dir} entered twice");
        Dir { path: dir.clone(), last: None }
    }

    fn expected<'v>(&'v self, dir: &'v Dir, path: &RelPath) -> Option<Cow<'v, Entry>> {
        assert!(path.parent().as_ref() == Some(&dir.path) || *path == dir.path);
        self.expected.get(path.as_bytes()).map(Cow::Borrowed)
    }

    fn found(&self, dir: &mut Dir, path: RelPath, class: Class, role: Role, observed: Observed) {
        let itself = path == dir.path;
        assert!(itself || path.parent().as_ref() == Some(&dir.path), "{path} in {}", dir.path);
        let is = |kind| matches!(&observed, Observed::Present(e) if e.kind == kind);
        let (is_file, is_dir) = (is(Kind::File), is(Kind::Directory));
        let key = path.as_bytes().to_vec();
        if !is_file {
            assert!(dir.last.as_ref().is_none_or(|last| *last < path), "{path} after {:?}", dir.last);
            dir.last = Some(path.clone());
        }
        if is_dir && !itself {
            let entered = self.entered.lock().unwrap();
            assert!(!entered.contains(path.as_bytes()), "{path} was entered before it was found");
        }
        let before = self.found.lock().unwrap().insert(key, Found { class, role, observed });
        assert_eq!(before, None, "found twice");
    }

    fn leave(&self, state: Dir, dir: &RelPath) {
        assert_eq!(state.path, *dir);
        assert!(self.left.lock().unwrap().insert(dir.as_bytes().to_vec()));
    }
}

/// Everything of one scan.
pub(crate) struct Outcome {
    pub(crate) found: BTreeMap<Bytes, Found>,
    pub(crate) report: ScanReport,
    pub(crate) progress: Progress,
}

impl Outcome {
    pub(crate) fn names(&self) -> Vec<String> {
        self.found.keys().map(|k| RelPath::from_bytes(k).unwrap().to_string()).collect()
    }

    pub(crate) fn get(&self, path: &str) -> &Found {
        self.found.get(path.as_bytes()).unwrap_or_else(|| panic!("{path} not in {:?}", self.names()))
    }

    pub(crate) fn entries(&self) -> BTreeMap<Bytes, Entry> {
        self.found.iter().map(|(k, f)| (k.clone(), f.entry().clone())).collect()
    }
}

pub(crate) fn rel(text: &str) -> RelPath {
    RelPath::from_bytes(text.as_bytes()).unwrap()
}

/// A mode without flags.
pub(crate) fn plain(mode: u32) -> Marks {
    Marks { mode, flags: 0 }
}

pub(crate) fn policy(protect: &[&str], ignore: &[&str], writable: &[&str], sensitive: &[&str]) -> Policy {
    let own = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
    Policy::new(PatternText {
        protect: own(protect),
        ignore: own(ignore),
        writable: own(writable),
        sensitive: own(sensitive),
        ..PatternText::default()
    })
    .unwrap()
}

pub(crate) fn everything() -> Policy {
    policy(&[], &[], &[], &[])
}

pub(crate) fn resolvers() -> [Resolver; 2] {
    [Resolver::detect(), Resolver::by_component()]
}

pub(crate) fn try_scan(
    root: &Root,
    policy: &Policy,
    from: &RelPath,
    content: ScanContent,
    workers: usize,
) -> Result<Outcome, TreeError> {
    let visitor = Collect::default();
    let progress = Progress::default();
    let cancel = AtomicBool::new(false);
    let options = ScanOptions { content, workers, pace: None, cancel: &cancel, progress: &progress };
    let report = scan(root, policy, from, &options, &visitor)?;
    assert_eq!(*visitor.entered.lock().unwrap(), *visitor.left.lock().unwrap());
    Ok(Outcome { found: visitor.found.into_inner().unwrap(), report, progress })
}

pub(crate) fn scan_by(root: &Root, policy: &Policy) -> Outcome {
    try_scan(root, policy, &RelPath::root(), ScanContent::All, 2).unwrap()
}

/// The same tree by the standard library, one path after the other.
pub(crate) fn naive(root: &Path) -> BTreeMap<Bytes, Entry> {
    let mut all = BTreeMap::new();
    let mut left = vec![(root.to_owned(), RelPath::root())];
    while let Some((path, rel)) = left.pop() {
        let entry = naive_entry(&path);
        if entry.kind == Kind::Directory {
            for child in fs::read_dir(&path).unwrap() {
                let name = child.unwrap().file_name();
                left.push((path.join(&name), rel.join(name.as_bytes()).unwrap()));
            }
        }
        all.insert(rel.as_bytes().to_vec(), entry);
    }
    all
}

pub(crate) fn naive_entry(path: &Path) -> Entry {
    let m = fs::symlink_metadata(path).unwrap();
    let t = m.file_type();
    let kind = if t.is_dir() {
        Kind::Directory
    } else if t.is_symlink() {
        Kind::Symlink
    } else if t.is_fifo() {
        Kind::Fifo
    } else if t.is_socket() {
        Kind::Socket
    } else if t.is_char_device() {
        Kind::CharDevice
    } else if t.is_block_device() {
        Kind::BlockDevice
    } else {
        Kind::File
    };
    let dev = |d: u64| u64::from(rustix::fs::major(d)) << 32 | u64::from(rustix::fs::minor(d));
    let is_dir = kind == Kind::Directory;
    let stamp = |sec, nsec| Stamp { sec, nsec: u32::try_from(nsec).unwrap() };
    Entry {
        kind,
        mode: m.mode() & 0o7777,
        uid: m.uid(),
        gid: m.gid(),
        size: if is_dir { 0 } else { m.size() },
        mtime: stamp(m.mtime(), m.mtime_nsec()),
        ctime: stamp(m.ctime(), m.ctime_nsec()),
        dev: dev(m.dev()),
        ino: m.ino(),
        nlink: if is_dir { 0 } else { u32::try_from(m.nlink()).unwrap() },
        rdev: dev(m.rdev()),
        flags: 0,
        target: (kind == Kind::Symlink).then(|| fs::read_link(path).unwrap().into_os_string().into_vec()),
        xattrs: naive_xattrs(path),
        sha256: match kind {
            // A test that runs unprivileged may not read what it made.
            Kind::File => fs::read(path).ok().map(|content| Digest(Sha256::digest(content).into())),
            _ => None,
        },
    }
}

fn naive_xattrs(path: &Path) -> Vec<(Bytes, Bytes)> {
    let mut room = vec![0; 65536];
    let n = rustix::fs::llistxattr(path, &mut room[..]).unwrap_or(0);
    let names: Vec<Bytes> =
        room[..n].split(|&b| b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect();
    let mut all = Vec::new();
    for name in names {
        let n = rustix::fs::lgetxattr(path, name.as_slice(), &mut room[..]).unwrap();
        all.push((name, room[..n].to_vec()));
    }
    all.sort();
    all
}

/// Runs `work` as an unprivileged user: in a thread of its own that gives its rights up, if
/// this process is root.
pub(crate) fn unprivileged<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    const NOBODY: u32 = 65534;
    if !rustix::process::geteuid().is_root() {
        return work();
    }
    std::thread::scope(|s| {
        s.spawn(|| {
            let (user, group) = (rustix::fs::Uid::from_raw(NOBODY), rustix::fs::Gid::from_raw(NOBODY));
            rustix::thread::set_thread_groups(&[]).unwrap();
            rustix::thread::set_thread_res_gid(group, group, group).unwrap();
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            work()
        })
        .join()
        .unwrap()
    })
}

/// Makes everything in `dir` belong to whoever [`unprivileged`] becomes.
pub(crate) fn give_away(dir: &Path) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        std::os::unix::fs::lchown(&path, Some(65534), Some(65534)).unwrap();
        if fs::symlink_metadata(&path).unwrap().is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
}
