//! A handle on an environment's top directory.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use guard_model::{Kind, Observed, RelPath};
use guard_sys::Errno;
use guard_sys::dir::Listing;
use guard_sys::open::{self, How, Resolver};
use guard_sys::place;
use guard_sys::read::CacheUse;
use guard_sys::stat::{self, FileType, Stat};

use crate::observe::{Control, Observer, Sight, is_absence, kind_of};
use crate::{Content, Progress, TreeError};

/// A handle on a root directory. It stays on the very directory that was opened,
/// whatever is renamed or mounted over its path later; [`Root::still_there`] tells.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    fd: OwnedFd,
    stat: Stat,
    resolver: Resolver,
}

/// A name in a directory, and what it names.
pub type Named = (Box<[u8]>, Kind);

/// Does a root's path still lead to it?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootCheck {
    /// It does.
    Same,
    /// It does, but through another mount: something was mounted over it, or over a directory above it.
    Remounted,
    /// Nothing, or no directory, is at the path.
    Gone,
    /// Another directory is: moved there or mounted over.
    Other {
        /// Its device (major << 32 | minor).
        dev: u64,
        /// Its inode.
        ino: u64,
        /// Is it where something is mounted?
        is_mount_point: bool,
    },
}

impl Root {
    /// Opens the directory at `path`, whose symbolic links are resolved once, now.
    ///
    /// # Errors
    /// [`TreeError::Io`] where it cannot be opened, [`TreeError::NotADirectory`].
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        Self::open_with(path, Resolver::detect())
    }

    /// The same with a resolver of the caller's choice: for tests of what happens where
    /// there is no openat2.
    ///
    /// # Errors
    /// As [`Root::open`].
    pub fn open_with(path: &Path, resolver: Resolver) -> Result<Self, TreeError> {
        let failed = |operation| {
            move |source: io::Error| match Errno::from_io_error(&source) {
                Some(Errno::NOTDIR) => TreeError::NotADirectory { path: path.to_owned() },
                _ => TreeError::Io { operation, path: path.to_owned(), source },
            }
        };
        let canonical = path.canonicalize().map_err(failed("resolve"))?;
        let slash = open::absolute(Path::new("/"), How::LocateDirectory).map_err(failed("open"))?;
        let beneath = canonical.strip_prefix("/").unwrap_or(&canonical);
        // Once more without symbolic links: none may have come in since the path was resolved.
        let fd = resolver.open(slash.as_fd(), beneath, How::LocateDirectory).map_err(failed("open"))?;
        let stat = stat::of(fd.as_fd()).map_err(failed("stat"))?;
        Ok(Self { path: canonical, fd, stat, resolver })
    }

    /// The canonical path it was opened at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its device (major << 32 | minor) and inode. The device number is good for this boot only.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        self.stat.identity()
    }

    /// Does the path still lead to this directory?
    ///
    /// # Errors
    /// [`TreeError::Io`] where that cannot be told.
    pub fn still_there(&self) -> Result<RootCheck, TreeError> {
        match stat::absolute(&self.path) {
            Ok(now) if now.kind != FileType::Directory => Ok(RootCheck::Gone),
            Ok(now) if now.identity() != self.identity() => {
                Ok(RootCheck::Other { dev: now.dev, ino: now.ino, is_mount_point: now.is_mount_point })
            }
            Ok(now) if now.mount != self.stat.mount => Ok(RootCheck::Remounted),
            Ok(_) => Ok(RootCheck::Same),
            Err(e) if is_absence(&e) => Ok(RootCheck::Gone),
            Err(source) => Err(TreeError::Io { operation: "stat", path: self.path.clone(), source }),
        }
    }

    /// Waits until what was changed in the root's file system is on the disk, so that the loss of power does
    /// not undo it. Takes as long as it takes to write what others have changed there.
    ///
    /// # Errors
    /// [`TreeError::Io`].
    pub fn to_disk(&self) -> Result<(), TreeError> {
        let failed = |operation| move |source| TreeError::Io { operation, path: self.path.clone(), source };
        let dir = self.open_beneath(&RelPath::root(), How::List).map_err(failed("open"))?;
        place::file_system_to_disk(&dir).map_err(failed("write the file system of"))
    }

    /// Observes one path. Never fails: what could not be read is
    /// [`Observed::Unreadable`] and says why. A path whose parent is not a directory
    /// any more, be it gone, a file or a symbolic link, is absent.
    ///
    /// May take some tens of milliseconds where the entry changed just now (see [`Content`]),
    /// and as long as it takes to read a big file: [`Root::observe_with`] can be stopped.
    #[must_use]
    pub fn observe(&self, path: &RelPath, content: Content<'_>) -> Observed {
        self.sight(path, content, Control::default()).observed
    }

    /// The same; counts the bytes that it reads in `progress`, and once `cancel` is raised a
    /// file that is being read is [`Observed::Unreadable`].
    #[must_use]
    pub fn observe_with(
        &self,
        path: &RelPath,
        content: Content<'_>,
        cancel: &AtomicBool,
        progress: &Progress,
    ) -> Observed {
        let control = Control { cancel: Some(cancel), progress: Some(progress), ..Control::default() };
        self.sight(path, content, control).observed
    }

    /// The same without waiting until the entry has been left alone. Where it then has not
    /// [settled](crate::has_settled), a change that comes right after it need not show: look again.
    #[must_use]
    pub fn observe_at_once(
        &self,
        path: &RelPath,
        content: Content<'_>,
        cancel: &AtomicBool,
        progress: &Progress,
    ) -> Observed {
        let at_once = true;
        let control =
            Control { cancel: Some(cancel), progress: Some(progress), at_once, ..Control::default() };
        self.sight(path, content, control).observed
    }

    pub(crate) fn sight(&self, path: &RelPath, content: Content<'_>, control: Control<'_>) -> Sight {
        let mut observer = Observer::new(CacheUse::Ordinary, control);
        let Some(parent) = path.parent() else {
            return match self.open_beneath(path, How::LocateDirectory) {
                Ok(handle) if stat::of(handle.as_fd()).is_ok_and(|s| s.nlink == 0) => {
                    Sight::seen(Observed::Absent, None)
                }
                Ok(handle) => observer.handle(handle.as_fd(), content),
                Err(e) => Sight::missing("open", &e),
            };
        };
        match self.open_beneath(&parent, How::LocateDirectory) {
            Ok(dir) => observer.child(dir.as_fd(), path.name(), content),
            Err(e) => Sight::missing("open the directory that holds it", &e),
        }
    }

    /// Is something mounted right at this path? False where nothing is there, or it cannot be told.
    #[must_use]
    pub fn is_mount_point(&self, path: &RelPath) -> bool {
        let located = self.open_beneath(path, How::Locate);
        located.and_then(|handle| stat::of(handle.as_fd())).is_ok_and(|stat| stat.is_mount_point)
    }

    /// The names in a directory with their kinds, sorted by bytes.
    ///
    /// # Errors
    /// [`TreeError::Io`] where it cannot be listed, be it absent or no directory.
    pub fn observe_dir(&self, path: &RelPath) -> Result<Vec<Named>, TreeError> {
        let failed = |operation| move |source| TreeError::Io { operation, path: self.absolute(path), source };
        let dir = self.open_beneath(path, How::List).map_err(failed("open"))?;
        let mut listing = Listing::default();
        listing.read(dir.as_fd()).map_err(failed("list"))?;
        let mut found = Vec::with_capacity(listing.len());
        for (name, kind) in listing.iter() {
            let kind = match kind_of(kind) {
                Some(kind) => Some(kind),
                None => match stat::child(dir.as_fd(), name) {
                    Ok(stat) => kind_of(stat.kind),
                    Err(e) if is_absence(&e) => None,
                    Err(e) => return Err(failed("stat what is in")(e)),
                },
            };
            if let Some(kind) = kind {
                found.push((name.into(), kind));
            }
        }
        Ok(found)
    }

    /// A handle on a regular file, which names it and opens nothing.
    ///
    /// # Errors
    /// What openat2(2) says; `InvalidInput` where something else than a regular file is there.
    pub fn locate_file(&self, path: &RelPath) -> io::Result<OwnedFd> {
        let handle = self.open_beneath(path, How::Locate)?;
        match stat::of(handle.as_fd())?.kind {
            stat::FileType::RegularFile => Ok(handle),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }

    /// Opens a path beneath this root; never follows a symbolic link.
    pub(crate) fn open_beneath(&self, path: &RelPath, how: How) -> io::Result<OwnedFd> {
        self.resolver.open(self.fd.as_fd(), path.as_path(), how)
    }

    /// How paths are resolved beneath a directory.
    pub(crate) fn resolver(&self) -> Resolver {
        self.resolver
    }

    /// The mount that it lies on, in the numbers of [`Stat::mount`].
    pub(crate) fn mount(&self) -> u64 {
        self.stat.mount
    }

    /// The path for people; nothing is ever opened by it.
    pub(crate) fn absolute(&self, path: &RelPath) -> PathBuf {
        if path.is_root() { self.path.clone() } else { self.path.join(path.as_path()) }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
