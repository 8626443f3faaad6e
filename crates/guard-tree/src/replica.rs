//! A tree made anew in an empty directory of our own: what a backup holds, restored for a test.
//!
//! Nobody else has rights there, so that there is nothing to change places with and nothing to keep. The
//! flags that would forbid removing it again are not set, and a daemon that is not root gives nothing away.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use guard_model::{Entry, Kind, RelPath};
use guard_sys::open::How;
use guard_sys::stat::FileType;
use guard_sys::{entries, peer, place};

use crate::put_back::attributes;
use crate::{Root, TreeError};

/// A directory that a tree is made in.
#[derive(Debug)]
pub struct Replica {
    root: Root,
}

/// What became of an entry.
#[derive(Debug)]
pub enum Made {
    /// It is there.
    Yes,
    /// Nothing can make it here; why.
    No(&'static str),
}

impl Replica {
    /// Begins in an empty directory of ours.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn begin(dir: &Path) -> Result<Self, TreeError> {
        Ok(Self { root: Root::open(dir)? })
    }

    /// The tree, to be looked at.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Makes what `entry` is at `path`, in a directory that was made before, without its attributes. For a
    /// file that is [`Replica::make_file`].
    ///
    /// # Errors
    /// [`TreeError::Io`].
    pub fn make(&self, path: &RelPath, entry: &Entry) -> Result<Made, TreeError> {
        if path.is_root() {
            return Ok(Made::Yes);
        }
        let failed = |operation| {
            move |source: io::Error| TreeError::Io { operation, path: self.root.absolute(path), source }
        };
        let dir = self.parent(path).map_err(failed("open the directory of"))?;
        let (dir, name) = (dir.as_fd(), path.name());
        let made = match entry.kind {
            Kind::File => return Ok(Made::No("a file has content")),
            Kind::Directory => entries::make_directory(dir, name),
            Kind::Symlink => entries::make_symlink(dir, name, entry.target.as_deref().unwrap_or_default()),
            Kind::Fifo => entries::make_node(dir, name, FileType::Fifo, 0),
            Kind::CharDevice => entries::make_node(dir, name, FileType::CharacterDevice, entry.rdev),
            Kind::BlockDevice => entries::make_node(dir, name, FileType::BlockDevice, entry.rdev),
            Kind::Socket => return Ok(Made::No("a socket is made by whoever listens on it")),
        };
        match made {
            Ok(_) => Ok(Made::Yes),
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                Ok(Made::No("this daemon may not make device nodes"))
            }
            Err(e) => Err(failed("make")(e)),
        }
    }

    /// Makes an empty file, to be filled.
    ///
    /// # Errors
    /// [`TreeError::Io`].
    pub fn make_file(&self, path: &RelPath) -> Result<File, TreeError> {
        let failed = |source| TreeError::Io { operation: "make", path: self.root.absolute(path), source };
        let dir = self.parent(path).map_err(failed)?;
        place::create(dir.as_fd(), path.name()).map(File::from).map_err(failed)
    }

    /// Gives the file at `other` the further name `path`.
    ///
    /// # Errors
    /// [`TreeError::Io`].
    pub fn link(&self, other: &RelPath, path: &RelPath) -> Result<(), TreeError> {
        let failed = |source| TreeError::Io { operation: "link", path: self.root.absolute(path), source };
        let file = self.root.open_beneath(other, How::Locate).map_err(failed)?;
        let dir = self.parent(path).map_err(failed)?;
        place::link(file.as_fd(), dir.as_fd(), path.name()).map_err(failed)
    }

    /// Gives what was made at `path` the attributes of `entry`: those of a directory after what is in it.
    /// Says in words what could not be given.
    ///
    /// # Errors
    /// [`TreeError::Io`].
    pub fn give_attributes(&self, path: &RelPath, entry: &Entry) -> Result<Vec<String>, TreeError> {
        let failed = |operation| {
            move |source: io::Error| TreeError::Io { operation, path: self.root.absolute(path), source }
        };
        let handle = self.root.open_beneath(path, How::Locate).map_err(failed("open"))?;
        let mut short = Vec::new();
        attributes::give(handle.as_fd(), &wanted(entry), &mut short)
            .map_err(|(operation, e)| failed(operation)(e))?;
        Ok(short)
    }

    /// Removes a replica, whatever its directories' modes are; that nothing is there is no error.
    ///
    /// # Errors
    /// [`TreeError::Io`].
    pub fn remove(dir: &Path) -> Result<(), TreeError> {
        let failed =
            |operation| move |source: io::Error| TreeError::Io { operation, path: dir.to_owned(), source };
        match Root::open(dir) {
            Ok(root) => open_up(&root, &RelPath::root()).map_err(failed("open up"))?,
            Err(TreeError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        }
        std::fs::remove_dir_all(dir).map_err(failed("remove"))
    }

    fn parent(&self, path: &RelPath) -> io::Result<OwnedFd> {
        self.root.open_beneath(&path.parent().unwrap_or_default(), How::LocateDirectory)
    }
}

/// What is to be given here, and expected: without the flags that forbid changes, and by a daemon
/// that is not root with that daemon's own ids.
#[must_use]
pub fn wanted(entry: &Entry) -> Entry {
    let mut wanted = entry.clone();
    wanted.flags &= !attributes::FORBIDDING;
    let uid = peer::own_uid();
    if uid != 0 {
        (wanted.uid, wanted.gid) = (uid, peer::own_gid());
    }
    wanted
}

/// Lets the owner into every directory again, so that it can be emptied.
fn open_up(root: &Root, dir: &RelPath) -> io::Result<()> {
    let handle = root.open_beneath(dir, How::LocateDirectory)?;
    guard_sys::procfd::set_mode(handle.as_fd(), 0o700)?;
    for (name, kind) in root.observe_dir(dir).map_err(io::Error::other)? {
        if kind == Kind::Directory
            && let Ok(child) = dir.join(&name)
        {
            open_up(root, &child)?;
        }
    }
    Ok(())
}
