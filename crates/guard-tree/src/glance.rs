//! What a seal consists of, read from many entries in a row as cheaply as it can be.

use std::os::fd::{AsFd, OwnedFd};

use guard_model::{Entry, Kind, RelPath, Stamp};
use guard_sys::open::How;
use guard_sys::stat::{self, Stat};

use crate::Root;
use crate::observe::kind_of;

/// Which inode stands at a path, whose it is, and what keeps it from being changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Glance {
    /// File, directory and so on.
    pub kind: Kind,
    /// Permission bits (`& 0o7777`).
    pub mode: u32,
    /// Owning user and group.
    pub owner: (u32, u32),
    /// Device and inode.
    pub identity: (u64, u64),
    /// Inode flags.
    pub flags: u32,
}

impl Glance {
    /// What a glance at an entry that is like this one shows.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        Self {
            kind: entry.kind,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            identity: (entry.dev, entry.ino),
            flags: entry.flags,
        }
    }

    fn seen(stat: &Stat) -> Option<Self> {
        Some(Self {
            kind: kind_of(stat.kind)?,
            mode: stat.mode,
            owner: (stat.uid, stat.gid),
            identity: stat.identity(),
            flags: stat.flags,
        })
    }
}

/// How many names an inode has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Links {
    /// Device and inode.
    pub identity: (u64, u64),
    /// Hard links.
    pub count: u32,
    /// When it changed last: making, moving and removing a name is a change.
    pub ctime: Stamp,
}

/// Glances at one path after the other. Fast where those of one directory come together:
/// it keeps a handle on the last one's directory, and on no other.
#[derive(Debug)]
pub struct Glancer<'a> {
    root: &'a Root,
    dir: Option<(RelPath, OwnedFd)>,
}

impl<'a> Glancer<'a> {
    /// For paths beneath `root`.
    #[must_use]
    pub fn new(root: &'a Root) -> Self {
        Self { root, dir: None }
    }

    /// What stands at a path; `None` where nothing does, or where it cannot be told.
    /// Nothing is opened but the directory, and no link is followed.
    pub fn glance(&mut self, path: &RelPath) -> Option<Glance> {
        Glance::seen(&self.stat(path)?)
    }

    /// How many names the inode at a path has; `None` as [`Glancer::glance`].
    pub fn links(&mut self, path: &RelPath) -> Option<Links> {
        let stat = self.stat(path)?;
        let ctime = Stamp { sec: stat.ctime.sec, nsec: stat.ctime.nsec };
        Some(Links { identity: stat.identity(), count: stat.nlink, ctime })
    }

    fn stat(&mut self, path: &RelPath) -> Option<Stat> {
        let Some(parent) = path.parent() else {
            return stat::of(self.root.as_fd()).ok();
        };
        if self.dir.as_ref().is_none_or(|(at, _)| *at != parent) {
            self.dir = None;
            let opened = self.root.open_beneath(&parent, How::LocateDirectory).ok()?;
            self.dir = Some((parent, opened));
        }
        let (_, dir) = self.dir.as_ref()?;
        stat::child(dir.as_fd(), path.name()).ok()
    }

    /// Lets the handle go. Whoever pauses does: the directory may be renamed meanwhile.
    pub fn pause(&mut self) {
        self.dir = None;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use guard_model::Observed;

    use super::*;
    use crate::Content;

    #[test]
    fn a_glance_sees_what_an_observation_sees() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("d/e")).unwrap();
        for name in ["d/f", "d/e/g"] {
            fs::write(top.path().join(name), "x").unwrap();
        }
        symlink("f", top.path().join("d/l")).unwrap();
        let root = Root::open(top.path()).unwrap();
        let mut glancer = Glancer::new(&root);
        let path = |text: &str| RelPath::from_bytes(text.as_bytes()).unwrap();
        for name in ["", "d", "d/e", "d/f", "d/l", "d/e/g"] {
            let Observed::Present(entry) = root.observe(&path(name), Content::Skip) else {
                panic!("{name} is not there")
            };
            assert_eq!(glancer.glance(&path(name)), Some(Glance::of(&entry)), "{name}");
        }
        for name in ["none", "d/none", "d/l/x", "none/x"] {
            assert_eq!(glancer.glance(&path(name)), None, "{name}");
        }
        let before = glancer.glance(&path("d/f")).unwrap();
        fs::set_permissions(top.path().join("d/f"), fs::Permissions::from_mode(0o4711)).unwrap();
        assert_eq!(glancer.glance(&path("d/f")), Some(Glance { mode: 0o4711, ..before }));
    }

    #[test]
    fn no_link_leads_it_out() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("root/d")).unwrap();
        fs::create_dir(top.path().join("outside")).unwrap();
        fs::write(top.path().join("outside/f"), "x").unwrap();
        let root = Root::open(&top.path().join("root")).unwrap();
        let mut glancer = Glancer::new(&root);
        let f = RelPath::from_bytes(b"d/f").unwrap();
        assert_eq!(glancer.glance(&f), None);
        fs::remove_dir(top.path().join("root/d")).unwrap();
        symlink("../outside", top.path().join("root/d")).unwrap();
        assert_eq!(glancer.glance(&f), None);
        glancer.pause();
        assert_eq!(glancer.glance(&f), None);
    }
}
