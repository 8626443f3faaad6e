//! A directory of backups, worked on through its handle: `backup.dir` may lie
//! where other people have rights on the way, and a name that leads elsewhere
//! by now must not take a backup with it.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::error::BackupError;
use crate::error::{Damage, StoreError};

/// An open directory that is ours alone. Names are single components.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    /// For people; nothing is opened by it.
    path: PathBuf,
}

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Dir {
    /// Opens a directory by an absolute path without a symbolic link on the way, making the last
    /// component (0700) where it is missing. Every directory on the way has to be one that nobody
    /// but its owner (root or us) may rename things in.
    pub(super) fn at(path: &Path) -> Result<Self, BackupError> {
        let mut here = Self {
            fd: rustix::fs::open("/", OPEN, Mode::empty())
                .map_err(StoreError::sys("open", Path::new("/")))?,
            path: PathBuf::from("/"),
        };
        let mut names = path.components().filter_map(|c| match c {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let mut next = names.next();
        while let Some(name) = next {
            next = names.next();
            here.check_passage()?;
            here = match (here.open_os(name), next) {
                (Err(e), None) if e.is_not_found() => {
                    here.make(name)?;
                    here.open_os(name)?
                }
                (opened, _) => opened?,
            };
        }
        here.check_passage()?;
        Ok(here)
    }

    /// Opens a directory whose way is known to be ours.
    pub(super) fn known(path: &Path) -> Result<Self, BackupError> {
        let fd = rustix::fs::open(path, OPEN, Mode::empty()).map_err(StoreError::sys("open", path))?;
        let opened = Self { fd, path: path.to_owned() };
        opened.check_ours()?;
        Ok(opened)
    }

    /// Opens a child directory, making it (0700) where it is missing, and checks that it is ours alone.
    pub(super) fn child(&self, name: &str) -> Result<Self, BackupError> {
        let opened = match self.open_os(name.as_ref()) {
            Err(e) if e.is_not_found() => {
                self.make(name.as_ref())?;
                self.open_os(name.as_ref())?
            }
            opened => opened?,
        };
        opened.check_ours()?;
        Ok(opened)
    }

    /// Opens a child directory that has to be there.
    pub(super) fn existing(&self, name: &str) -> Result<Self, BackupError> {
        let opened = self.open_os(name.as_ref())?;
        opened.check_ours()?;
        Ok(opened)
    }

    /// Where a name lies, for people.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn open_os(&self, name: &std::ffi::OsStr) -> Result<Self, BackupError> {
        let path = self.path.join(name);
        let fd = rustix::fs::openat(&self.fd, name, OPEN, Mode::empty()).map_err(|e| match e {
            Errno::NOTDIR | Errno::LOOP => BackupError::NotADirectory { path: path.clone() },
            e => StoreError::sys("open", &path)(e).into(),
        })?;
        Ok(Self { fd, path })
    }

    fn make(&self, name: &std::ffi::OsStr) -> Result<(), BackupError> {
        let path = self.path.join(name);
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o700)) {
            Ok(()) | Err(Errno::EXIST) => self.sync(),
            Err(e) => Err(StoreError::sys("make", &path)(e).into()),
        }
    }

    /// Ours, and closed to everybody else; a mode that was widened is put right.
    fn check_ours(&self) -> Result<(), BackupError> {
        let meta = self.metadata()?;
        let us = rustix::process::geteuid().as_raw();
        if meta.uid() != us {
            let path = self.path.clone();
            return Err(StoreError::NotOurs { path, owner: meta.uid(), us }.into());
        }
        if meta.mode() & 0o022 != 0 {
            return Err(BackupError::WritableByOthers {
                path: self.path.clone(),
                mode: meta.mode() & 0o7777,
            });
        }
        if meta.mode() & 0o7777 != 0o700 {
            rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(0o700))
                .map_err(StoreError::sys("set the mode of", &self.path))?;
        }
        Ok(())
    }

    /// Nobody but root and us may rename what we go on to.
    fn check_passage(&self) -> Result<(), BackupError> {
        let meta = self.metadata()?;
        let us = rustix::process::geteuid().as_raw();
        // In a sticky directory others cannot rename what is not theirs.
        let open_to_others = meta.mode() & 0o022 != 0 && meta.mode() & 0o1000 == 0;
        if (meta.uid() != us && meta.uid() != 0) || open_to_others {
            return Err(BackupError::WritableByOthers {
                path: self.path.clone(),
                mode: meta.mode() & 0o7777,
            });
        }
        Ok(())
    }

    fn metadata(&self) -> Result<std::fs::Metadata, BackupError> {
        let handle = self.fd.try_clone().map_err(StoreError::io("examine", &self.path))?;
        Ok(File::from(handle).metadata().map_err(StoreError::io("examine", &self.path))?)
    }

    /// Makes a new file (0600).
    pub(super) fn create(&self, name: &str) -> Result<File, BackupError> {
        let path = self.path_of(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        let fd = rustix::fs::openat(&self.fd, name, flags, mode).map_err(StoreError::sys("create", &path))?;
        rustix::fs::fchmod(&fd, mode).map_err(StoreError::sys("set the mode of", &path))?;
        Ok(fd.into())
    }

    /// Opens a regular file to read it; follows no link and waits for no fifo.
    pub(super) fn open(&self, name: &str) -> Result<File, BackupError> {
        let path = self.path_of(name);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).map_err(|e| match e {
            Errno::LOOP | Errno::NXIO => StoreError::damaged(&path, Damage::NotAFile),
            e => StoreError::sys("open", &path)(e),
        })?;
        let file = File::from(fd);
        if !file.metadata().map_err(StoreError::io("examine", &path))?.is_file() {
            return Err(StoreError::damaged(&path, Damage::NotAFile).into());
        }
        Ok(file)
    }

    /// Reads a whole file of at most `limit` bytes.
    pub(super) fn read_small(&self, name: &str, limit: u64) -> Result<Vec<u8>, BackupError> {
        Ok(crate::durable::read_opened(&self.open(name)?, &self.path_of(name), limit)?)
    }

    /// Writes a whole new file; it is on the disk when this returns.
    pub(super) fn write_new(&self, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let path = self.path_of(name);
        let mut file = self.create(name)?;
        std::io::Write::write_all(&mut file, bytes).map_err(StoreError::io("write", &path))?;
        Ok(file.sync_all().map_err(StoreError::io("fsync", &path))?)
    }

    /// Replaces a file as a whole.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let temporary = format!(".{name}{}", crate::durable::UNFINISHED);
        self.remove_file(&temporary)?;
        let written = self.write_new(&temporary, bytes).and_then(|()| self.rename(&temporary, name));
        if written.is_err() {
            self.remove_file(&temporary)?;
        }
        written
    }

    /// Renames within this directory, replacing a file; durable when it returns.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<(), BackupError> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)
            .map_err(StoreError::sys("replace", &self.path_of(to)))?;
        self.sync()
    }

    /// Removes a file; that it is not there is no error.
    pub(super) fn remove_file(&self, name: &str) -> Result<(), BackupError> {
        self.unlink(name, AtFlags::empty())
    }

    /// Removes a child directory of ours with the files directly in it.
    pub(super) fn remove_dir(&self, name: &str) -> Result<(), BackupError> {
        match self.open_os(name.as_ref()) {
            Ok(child) => {
                for inside in child.names()? {
                    child.remove_file(&inside)?;
                }
            }
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e),
        }
        self.unlink(name, AtFlags::REMOVEDIR)?;
        self.sync()
    }

    fn unlink(&self, name: &str, flags: AtFlags) -> Result<(), BackupError> {
        match rustix::fs::unlinkat(&self.fd, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(StoreError::sys("remove", &self.path_of(name))(e).into()),
        }
    }

    /// The names in it that are UTF-8, sorted; others are nothing of ours.
    pub(super) fn names(&self) -> Result<Vec<String>, BackupError> {
        let failed = || StoreError::sys("list", &self.path);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(self.fd.as_fd()).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
            if let Some(name) = name.to_str().filter(|n| !matches!(*n, "." | "..")) {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Makes the names in it durable.
    pub(super) fn sync(&self) -> Result<(), BackupError> {
        Ok(rustix::fs::fsync(&self.fd).map_err(StoreError::sys("fsync", &self.path))?)
    }
}
