//! Sample trees, and what they look like.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// Files of the sample application, with their modes.
const FILES: [(&str, &str, u32); 8] = [
    (".env.prod", "SECRET=correct-horse\n", 0o640),
    ("compose.yml", "services: {}\n", 0o644),
    ("backend/Dockerfile", "FROM scratch\n", 0o644),
    ("backend/app/main.py", "print('hello')\n", 0o644),
    ("backend/app/orders.py", "def charge(): pass\n", 0o664),
    ("scripts/deploy.sh", "#!/bin/sh\n", 0o755),
    ("logs/access.log", "", 0o644),
    ("media/photo.jpg", "jpeg", 0o644),
];

/// Makes the sample application: eight files, a symlink, a setgid directory.
pub(crate) fn sample(root: &Path) {
    for (name, text, mode) in FILES {
        write(&root.join(name), text);
        chmod(&root.join(name), mode);
    }
    chmod(root, 0o755);
    for dir in ["backend", "backend/app", "scripts", "logs", "media"] {
        chmod(&root.join(dir), 0o755);
    }
    chmod(&root.join("scripts"), 0o2775);
    symlink("backend/app", root.join("current")).unwrap();
}

/// Writes a file, with the directories above it.
pub(crate) fn write(path: &Path, text: impl AsRef<[u8]>) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

/// Sets a mode.
pub(crate) fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .unwrap_or_else(|e| panic!("chmod {}: {e}", path.display()));
}

/// The permission bits of a path, which is not followed.
pub(crate) fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap_or_else(|e| panic!("{}: {e}", path.display())).mode() & 0o7777
}

/// What lock must not lose: of every path below `root`, the root itself among
/// them, its mode, owner, mtime, inode flags and extended attributes, as one line each.
pub(crate) fn picture(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    look(root, root, &mut all);
    all
}

fn look(root: &Path, path: &Path, all: &mut BTreeMap<Vec<u8>, String>) {
    let (line, is_dir) = match describe(path) {
        Ok(described) => described,
        // Something else may be at work in the tree: what goes is not there.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return,
        Err(e) => panic!("{}: {e}", path.display()),
    };
    all.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), line);
    if is_dir {
        // A directory may be unreadable on purpose; it is then a leaf.
        for entry in fs::read_dir(path).into_iter().flatten() {
            look(root, &entry.unwrap().path(), all);
        }
    }
}

/// The line of one path, and whether it is a directory.
fn describe(path: &Path) -> io::Result<(String, bool)> {
    let m = path.symlink_metadata()?;
    let mut xattrs = BTreeMap::new();
    if !m.is_symlink() {
        let mut names = vec![0; 4096];
        let n = rustix::fs::llistxattr(path, &mut names)?;
        for name in names[..n].split(|b| *b == 0).filter(|n| !n.is_empty()) {
            let mut value = vec![0; 4096];
            let n = rustix::fs::lgetxattr(path, name, &mut value)?;
            xattrs.insert(String::from_utf8_lossy(name).into_owned(), value[..n].to_vec());
        }
    }
    let line = format!(
        "{:06o} {}:{} {}.{:09} {} {xattrs:?}",
        m.mode(),
        m.uid(),
        m.gid(),
        m.mtime(),
        m.mtime_nsec(),
        if m.is_file() || m.is_dir() { flags(path) } else { String::new() },
    );
    Ok((line, m.is_dir()))
}

/// Makes a tree removable again, whatever modes and lengths it has.
pub(crate) fn open_up(dir: &Path) {
    if is_root() {
        // Fails where the file system has no flags, and then there is nothing to lift.
        Command::new("chattr").args(["-R", "-f", "-i", "-a"]).arg(dir).output().ok();
    }
    let done = Command::new("chmod").args(["-R", "u+rwX"]).arg(dir).output();
    if let Err(e) = done {
        eprintln!("cannot open up {}: {e}", dir.display());
    }
}

/// Sets or lifts inode flags: `+i`, `-a`.
#[track_caller]
pub(crate) fn chattr(change: &str, path: &Path) {
    let done = Command::new("chattr").arg(change).arg(path).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// The inode flags as lsattr(1) shows them, without those that the file system sets by itself;
/// empty where they cannot be read.
pub(crate) fn flags(path: &Path) -> String {
    use rustix::fs::{IFlags, Mode, OFlags, ioctl_getflags, open};
    let how = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let read = open(path, how, Mode::empty()).and_then(ioctl_getflags);
    let of = |read: IFlags| {
        let letters = [
            (IFlags::IMMUTABLE, 'i'),
            (IFlags::APPEND, 'a'),
            (IFlags::NODUMP, 'd'),
            (IFlags::NOATIME, 'A'),
            (IFlags::SYNC, 'S'),
        ];
        letters.iter().filter(|(flag, _)| read.contains(*flag)).map(|(_, letter)| letter).collect()
    };
    read.map(of).unwrap_or_default()
}

/// Says why a test is left out where binding flags cannot be set; true where they can.
pub(crate) fn flags_for(what: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write(&path, "x");
    let set = |change: &str| {
        Command::new("chattr").arg(change).arg(&path).output().is_ok_and(|o| o.status.success())
    };
    let may = set("+i") && set("-i");
    if !may {
        eprintln!("left out: {what} needs CAP_LINUX_IMMUTABLE and a file system with flags");
    }
    may
}

/// Is this test run by root?
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says why a test is left out where it needs root and is not; true where it has it.
pub(crate) fn root_for(what: &str) -> bool {
    if !is_root() {
        eprintln!("left out: {what} needs root");
    }
    is_root()
}
