//! Files that are on the disk when the call returns, and files that are read
//! without trusting what stands at their name.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Damage, StoreError};

/// What the names of files end with that are not finished yet.
pub(crate) const UNFINISHED: &str = ".new";

/// Makes a new file with exactly these permission bits, whatever the umask.
///
/// Fails where anything, even a dangling link, stands at the name.
pub(crate) fn create_new(path: &Path, mode: u32) -> Result<File, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(bits(OFlags::NOFOLLOW))
        .open(path)
        .map_err(StoreError::io("create", path))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).map_err(StoreError::sys("set the mode of", path))?;
    Ok(file)
}

/// Opens a regular file to read it; never follows a link and never waits for a fifo.
pub(crate) fn open_regular(path: &Path) -> Result<File, StoreError> {
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(bits(OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY))
        .open(path);
    let file = opened.map_err(|e| match e.raw_os_error().map(Errno::from_raw_os_error) {
        // What open(2) says of a symbolic link and of a socket.
        Some(Errno::LOOP | Errno::NXIO) => StoreError::damaged(path, Damage::NotAFile),
        _ => StoreError::io("open", path)(e),
    })?;
    let meta = file.metadata().map_err(StoreError::io("examine", path))?;
    if !meta.is_file() {
        return Err(StoreError::damaged(path, Damage::NotAFile));
    }
    Ok(file)
}

/// Reads a whole regular file of at most `limit` bytes.
pub(crate) fn read_small(path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    read_opened(&open_regular(path)?, path, limit)
}

/// Reads a whole file of at most `limit` bytes from an open handle.
pub(crate) fn read_opened(file: &File, path: &Path, limit: u64) -> Result<Vec<u8>, StoreError> {
    let mut bytes = Vec::new();
    let mut limited = file.take(limit.saturating_add(1));
    limited.read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > limit {
        return Err(StoreError::damaged(path, Damage::TooLarge { limit }));
    }
    Ok(bytes)
}

/// Replaces `dir/name` as a whole: readers see the old or the new content. A
/// directory that somebody put there is moved aside and kept.
pub(crate) fn replace(dir: &Path, name: &str, mode: u32, bytes: &[u8]) -> Result<(), StoreError> {
    let temporary = dir.join(format!(".{name}{UNFINISHED}"));
    let target = dir.join(name);
    for path in [&temporary, &target] {
        move_directory_aside(path)?;
    }
    remove_if_there(&temporary)?;
    let written = Temporary::file(temporary.clone());
    let mut file = create_new(&temporary, mode)?;
    file.write_all(bytes).map_err(StoreError::io("write", &temporary))?;
    file.sync_all().map_err(StoreError::io("fsync", &temporary))?;
    written.rename(&target)?;
    sync_dir(dir)
}

/// rename(2) puts no file in a directory's place.
pub(crate) fn move_directory_aside(path: &Path) -> Result<(), StoreError> {
    if !std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir()) {
        return Ok(());
    }
    let name = |n: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".aside-{n}"));
        PathBuf::from(name)
    };
    let free = (1..).map(name).find(|p| std::fs::symlink_metadata(p).is_err());
    tracing::warn!(path = %path.display(), "a directory stands in a file's place and is moved aside");
    std::fs::rename(path, free.unwrap_or_default()).map_err(StoreError::io("move aside", path))
}

/// Something being written, removed again unless it gets its final name: on a
/// full disk what failed must not keep the space.
pub(crate) struct Temporary {
    path: PathBuf,
    is_dir: bool,
    kept: bool,
}

impl Temporary {
    pub(crate) fn file(path: PathBuf) -> Self {
        Self { path, is_dir: false, kept: false }
    }

    pub(crate) fn dir(path: PathBuf) -> Self {
        Self { path, is_dir: true, kept: false }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// It is whole, and its name is the final one.
    pub(crate) fn keep(mut self) {
        self.kept = true;
    }

    /// Gives it its final name, replacing a file that has it.
    pub(crate) fn rename(mut self, target: &Path) -> Result<(), StoreError> {
        std::fs::rename(&self.path, target).map_err(StoreError::io("replace", target))?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        let removed =
            if self.is_dir { std::fs::remove_dir_all(&self.path) } else { std::fs::remove_file(&self.path) };
        if let Err(error) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove what was not finished");
        }
    }
}

/// Removes a file; that it is not there is no error.
pub(crate) fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(e)),
        _ => Ok(()),
    }
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    let handle = File::open(dir).map_err(StoreError::io("open", dir))?;
    handle.sync_all().map_err(StoreError::io("fsync", dir))
}

fn bits(flags: OFlags) -> i32 {
    flags.bits().cast_signed()
}

/// Reads a file from a position of its own, so that readers of one handle do
/// not disturb each other.
pub(crate) struct ReadAt {
    pub(crate) file: Arc<File>,
    pub(crate) at: u64,
}

impl Read for ReadAt {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read_at(buffer, self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}
