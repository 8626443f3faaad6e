//! What was taken away from a protected tree.
//!
//! `quarantine/ENV/CASE/` holds one operation's things: `contents.jsonl`, a JSON object a line with each entry's path
//! and attributes, and `000001.data` and so on, the content of regular files. What it holds is an intruder's, so it is
//! nothing but data: no name, mode, owner, link or attribute of it is ever given to anything here.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use guard_model::{Digest, Entry, RelPath, Timestamp};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::durable;
use crate::error::StoreError;
use crate::state_dir::{StateDir, checked_name, make_dir};

/// So many bytes of one environment are kept; then nothing is taken away any more, until somebody makes room.
pub const LIMIT: u64 = 1 << 30;
/// What an entry counts at least: its line, its inode.
const EACH: u64 = 1024;
/// Copied at once.
const BUFFER: usize = 128 << 10;

/// What one operation takes away. Its directory is made with the first thing in it.
#[derive(Debug)]
pub struct Case {
    quarantine: PathBuf,
    environment: String,
    id: String,
    at: Timestamp,
    room: u64,
    open: Option<Open>,
    bytes: u64,
}

#[derive(Debug)]
struct Open {
    dir: PathBuf,
    contents: File,
    data: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    path: &'a RelPath,
    taken_at: Timestamp,
    /// The file beside this one that has its content.
    data: Option<String>,
    /// The digest of that content.
    data_sha256: Option<Digest>,
    #[serde(flatten)]
    entry: &'a Entry,
}

impl Case {
    /// A case of `environment` that begins at `at`. Nothing is on the disk yet.
    ///
    /// # Errors
    /// [`StoreError::BadName`]; [`StoreError::Io`] where what is kept already cannot be counted.
    pub fn begin(state: &StateDir, environment: &str, at: Timestamp) -> Result<Self, StoreError> {
        let environment = checked_name(environment)?.to_owned();
        let room = LIMIT.saturating_sub(used(state, &environment)?);
        let id: String = at.to_string().chars().filter(|c| !matches!(c, ':' | '-')).collect();
        Ok(Self { quarantine: state.quarantine(), environment, id, at, room, open: None, bytes: 0 })
    }

    /// Bytes that there is room for.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Bytes that were taken in.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where it is below `quarantine/`; `None` as long as nothing was taken in.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        self.open.as_ref().map(|_| format!("{}/{}", self.environment, self.id))
    }

    /// Takes in one entry. Its content, which may come from a file that grows while it is read, is on the disk when
    /// this returns; its line is after [`Case::durable`].
    ///
    /// # Errors
    /// `StorageFull` where the quarantine or the disk is full; else what the kernel says.
    pub fn keep(&mut self, path: &RelPath, entry: &Entry, content: Option<&mut dyn Read>) -> io::Result<()> {
        let environment = self.environment.clone();
        let full = || {
            let why = format!("the quarantine of {environment} is full ({} MiB)", LIMIT >> 20);
            io::Error::new(io::ErrorKind::StorageFull, why)
        };
        let room = self.room.checked_sub(EACH).ok_or_else(full)?;
        if content.is_some() && entry.size > room {
            return Err(full());
        }
        if self.open.is_none() {
            self.open = Some(self.make().map_err(io::Error::other)?);
        }
        let Some(open) = &mut self.open else { return Err(full()) };
        let mut taken = EACH;
        let (mut data, mut data_sha256) = (None, None);
        if let Some(content) = content {
            open.data += 1;
            let name = format!("{:06}.data", open.data);
            let (bytes, digest) = copy(&open.dir.join(&name), content, room)?;
            taken += bytes;
            self.bytes += bytes;
            (data, data_sha256) = (Some(name), Some(digest));
        }
        let line = Line { path, taken_at: self.at, data, data_sha256, entry };
        let mut text = serde_json::to_vec(&line).map_err(io::Error::other)?;
        text.push(b'\n');
        open.contents.write_all(&text)?;
        self.room = self.room.saturating_sub(taken);
        Ok(())
    }

    /// Waits until everything that was taken in is on the disk.
    ///
    /// # Errors
    /// What fsync(2) says.
    pub fn durable(&mut self) -> io::Result<()> {
        let Some(open) = &self.open else { return Ok(()) };
        open.contents.sync_all()?;
        durable::sync_dir(&open.dir).map_err(io::Error::other)
    }

    fn make(&mut self) -> Result<Open, StoreError> {
        let parent = self.quarantine.join(&self.environment);
        make_dir(&parent, 0o700)?;
        let wanted = self.id.clone();
        let mut tries = 0;
        let dir = loop {
            let dir = parent.join(&self.id);
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => break dir,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && tries < 1000 => {
                    tries += 1;
                    self.id = format!("{wanted}-{tries}");
                }
                Err(e) => return Err(StoreError::io("make", &dir)(e)),
            }
        };
        let contents = durable::create_new(&dir.join("contents.jsonl"), 0o600)?;
        for dir in [&dir, &parent, &self.quarantine] {
            durable::sync_dir(dir)?;
        }
        Ok(Open { dir, contents, data: 0 })
    }
}

/// Bytes that are kept of an environment.
///
/// # Errors
/// [`StoreError::BadName`], [`StoreError::Io`].
pub fn used(state: &StateDir, environment: &str) -> Result<u64, StoreError> {
    let top = state.quarantine().join(checked_name(environment)?);
    let mut sum = 0;
    for case in entries_of(&top)? {
        let case = top.join(case);
        if !std::fs::symlink_metadata(&case).is_ok_and(|m| m.is_dir()) {
            continue;
        }
        for name in entries_of(&case)? {
            // What goes away meanwhile takes no room.
            let size = std::fs::symlink_metadata(case.join(name)).map_or(0, |m| m.size());
            sum += size.saturating_add(EACH);
        }
    }
    Ok(sum)
}

fn entries_of(dir: &Path) -> Result<Vec<std::ffi::OsString>, StoreError> {
    let read = match std::fs::read_dir(dir) {
        Ok(read) => read,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(StoreError::io("list", dir)(e)),
    };
    read.map(|e| e.map(|e| e.file_name()).map_err(StoreError::io("list", dir))).collect()
}

/// Copies at most `room` bytes; what is more is an error, and nothing is left of it.
fn copy(to: &Path, content: &mut dyn Read, room: u64) -> io::Result<(u64, Digest)> {
    let unfinished = durable::Temporary::file(to.to_owned());
    let mut file = durable::create_new(to, 0o600).map_err(io::Error::other)?;
    let (mut bytes, mut hash, mut buffer) = (0u64, Sha256::new(), vec![0; BUFFER]);
    loop {
        let n = match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        bytes += n as u64;
        if bytes > room {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "the quarantine is full"));
        }
        let piece = buffer.get(..n).unwrap_or_default();
        hash.update(piece);
        file.write_all(piece)?;
    }
    file.sync_all()?;
    unfinished.keep();
    Ok((bytes, Digest(hash.finalize().into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_model::{Kind, Stamp};
    use std::os::unix::fs::PermissionsExt as _;

    fn entry(size: u64) -> Entry {
        Entry {
            kind: Kind::File,
            mode: 0o4755,
            uid: 0,
            gid: 0,
            size,
            mtime: Stamp::default(),
            ctime: Stamp::default(),
            dev: 1,
            ino: 2,
            nlink: 1,
            rdev: 0,
            flags: 0,
            target: None,
            xattrs: Vec::new(),
            sha256: None,
        }
    }

    fn rel(text: &str) -> RelPath {
        RelPath::from_text(text).unwrap()
    }

    #[test]
    fn what_is_kept_is_data_with_its_description_beside() {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(&top.path().join("state")).unwrap();
        let mut case = Case::begin(&state, "p", Timestamp(1_000_000)).unwrap();
        assert_eq!(case.place(), None);
        case.durable().unwrap();
        assert!(!state.quarantine().join("p").exists());
        case.keep(&rel("../x".trim_start_matches("../")), &entry(4), Some(&mut &b"evil"[..])).unwrap();
        case.keep(&rel("d"), &Entry { kind: Kind::Directory, ..entry(0) }, None).unwrap();
        case.durable().unwrap();
        let dir = state.quarantine().join(case.place().unwrap());
        let data = dir.join("000001.data");
        assert_eq!(std::fs::read(&data).unwrap(), b"evil");
        for (path, mode) in [(&data, 0o600), (&dir.join("contents.jsonl"), 0o600), (&dir, 0o700)] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o7777, mode);
        }
        let text = std::fs::read_to_string(dir.join("contents.jsonl")).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((&lines[0]["path"], &lines[0]["mode"]), (&"x".into(), &"4755".into()));
        assert_eq!((&lines[0]["data"], &lines[1]["type"]), (&"000001.data".into(), &"directory".into()));
        // The same moment again is another case.
        let mut other = Case::begin(&state, "p", Timestamp(1_000_000)).unwrap();
        other.keep(&rel("x"), &entry(0), Some(&mut &b""[..])).unwrap();
        assert_ne!(other.place(), case.place());
    }

    #[test]
    fn there_is_a_limit() {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(&top.path().join("state")).unwrap();
        let mut case = Case::begin(&state, "p", Timestamp(1)).unwrap();
        let e = case.keep(&rel("x"), &entry(LIMIT), Some(&mut &b"x"[..])).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::StorageFull);
        assert_eq!(case.place(), None);
        // One that grows while it is read.
        case.room = 5000;
        let e = case.keep(&rel("x"), &entry(1), Some(&mut io::repeat(1).take(9000))).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::StorageFull);
        let dir = state.quarantine().join(case.place().unwrap());
        assert!(!dir.join("000001.data").exists());
        // What is there counts the next time.
        case.keep(&rel("x"), &entry(3), Some(&mut &b"xyz"[..])).unwrap();
        case.durable().unwrap();
        assert!(Case::begin(&state, "p", Timestamp(2)).unwrap().room() < LIMIT - 2000);
        assert_eq!(Case::begin(&state, "other", Timestamp(2)).unwrap().room(), LIMIT);
        assert!(Case::begin(&state, "../p", Timestamp(2)).is_err());
    }
}
