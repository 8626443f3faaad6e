//! What was taken away from a protected tree.
//!
//! `quarantine/ENV/CASE/` holds one operation's things: `contents.jsonl`, a JSON object a line with each entry's path
//! and attributes, and `000001.data` and so on, the content of regular files. What it holds is an intruder's, so it is
//! nothing but data: no name, mode, owner, link or attribute of it is ever given to anything here.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use guard_model::{Digest, Entry, RelPath, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::durable;
use crate::error::StoreError;
use crate::state_dir::{StateDir, checked_name, make_dir};

/// So many bytes of one environment are kept; then nothing is taken away any more, until somebody makes room.
pub const LIMIT: u64 = 1 << 30;
/// What an entry counts at least: its line, its inode.
const EACH: u64 = 1024;
/// What the list of a case is called.
const CONTENTS: &str = "contents.jsonl";
/// What the names of contents end with.
const DATA: &str = ".data";
/// Copied at once.
const BUFFER: usize = 128 << 10;

/// What one operation takes away. Its directory is made with the first thing in it, and is named by its moment.
///
/// What could not be kept whole and durably leaves nothing here: a line stands for something that is kept.
#[derive(Debug)]
pub struct Case {
    quarantine: PathBuf,
    environment: String,
    at: Timestamp,
    room: u64,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    dir: PathBuf,
    contents: File,
    /// With everything that was taken in.
    now: Extent,
    /// As far as it is known to be on the disk.
    durable: Extent,
    /// What was taken in, without what is below another of them.
    tops: Vec<RelPath>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Extent {
    /// Length of `contents.jsonl`.
    lines: u64,
    /// Number of the last file beside it.
    data: u64,
    /// Bytes in those files.
    bytes: u64,
    /// Of the entries in `tops`.
    tops: usize,
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

/// As much of a line as an interrupted case is picked up by.
#[derive(Deserialize)]
struct Kept {
    path: RelPath,
    data: Option<String>,
}

impl Case {
    /// A case of `environment` that begins at `at`, or the first moment after it that no other has. Nothing is on the
    /// disk yet.
    ///
    /// # Errors
    /// [`StoreError::BadName`]; [`StoreError::Io`] where what is kept already cannot be counted.
    pub fn begin(state: &StateDir, environment: &str, at: Timestamp) -> Result<Self, StoreError> {
        let mut case = Self::new(state, environment, at)?;
        while std::fs::symlink_metadata(case.dir()).is_ok() {
            case.at = Timestamp(case.at.0.saturating_add(1));
        }
        Ok(case)
    }

    /// Goes on with the case that began at `at` and was cut short: what is not whole in it goes away. Where there is
    /// none it is a new one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn resume(state: &StateDir, environment: &str, at: Timestamp) -> Result<Self, StoreError> {
        let mut case = Self::new(state, environment, at)?;
        let dir = case.dir();
        if !std::fs::symlink_metadata(&dir).is_ok_and(|m| m.is_dir()) {
            return Ok(case);
        }
        let path = dir.join(CONTENTS);
        let text =
            match durable::open_regular(&path).and_then(|file| durable::read_opened(&file, &path, LIMIT)) {
                Ok(text) => text,
                Err(e) if e.is_not_found() => Vec::new(),
                Err(e) => return Err(e),
            };
        let mut extent = Extent::default();
        let mut tops = Vec::new();
        for line in text.split_inclusive(|b| *b == b'\n') {
            let Some(whole) = line.strip_suffix(b"\n") else { break };
            let Ok(kept) = serde_json::from_slice::<Kept>(whole) else { break };
            extent.lines += line.len() as u64;
            if let Some(name) = kept.data {
                extent.data += 1;
                extent.bytes += std::fs::symlink_metadata(dir.join(name)).map_or(0, |m| m.size());
            }
            note(&mut tops, kept.path);
        }
        extent.tops = tops.len();
        if extent.lines == 0 {
            remove_case(&dir)?;
            return Ok(case);
        }
        let contents = OpenOptions::new()
            .write(true)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let mut open = Open { dir, contents, now: extent, durable: extent, tops };
        open.roll_back().map_err(StoreError::io("clear", &path))?;
        case.open = Some(open);
        Ok(case)
    }

    fn new(state: &StateDir, environment: &str, at: Timestamp) -> Result<Self, StoreError> {
        let environment = checked_name(environment)?.to_owned();
        let room = LIMIT.saturating_sub(used(state, &environment)?);
        Ok(Self { quarantine: state.quarantine(), environment, at, room, open: None })
    }

    /// The moment that it is named by.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Bytes that there is room for.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.room
    }

    /// Bytes that were taken in.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, |open| open.now.bytes)
    }

    /// What was taken in, without what is below another of them.
    #[must_use]
    pub fn paths(&self) -> &[RelPath] {
        self.open.as_ref().map_or(&[], |open| &open.tops)
    }

    /// Where it is below `quarantine/`; `None` as long as nothing was taken in.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        self.open.as_ref().map(|_| format!("{}/{}", self.environment, self.id()))
    }

    fn id(&self) -> String {
        self.at.to_string().chars().filter(|c| !matches!(c, ':' | '-')).collect()
    }

    fn dir(&self) -> PathBuf {
        self.quarantine.join(&self.environment).join(self.id())
    }

    /// Takes in one entry. Its content, which may come from a file that grows while it is read, is on the disk when
    /// this returns; its line is after [`Case::durable`].
    ///
    /// # Errors
    /// `StorageFull` where the quarantine or the disk is full; else what the kernel says. Whatever was taken in since
    /// [`Case::durable`] is not kept then, either.
    pub fn keep(&mut self, path: &RelPath, entry: &Entry, content: Option<&mut dyn Read>) -> io::Result<()> {
        let kept = self.take_in(path, entry, content);
        if kept.is_err() {
            self.forget();
        }
        kept
    }

    fn take_in(&mut self, path: &RelPath, entry: &Entry, content: Option<&mut dyn Read>) -> io::Result<()> {
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
            self.open = Some(self.make()?);
        }
        let Some(open) = &mut self.open else { return Err(full()) };
        let mut taken = EACH;
        let (mut data, mut data_sha256) = (None, None);
        if let Some(content) = content {
            open.now.data += 1;
            let name = data_name(open.now.data);
            let (bytes, digest) = copy(&open.dir.join(&name), content, room)?;
            taken += bytes;
            open.now.bytes += bytes;
            (data, data_sha256) = (Some(name), Some(digest));
        }
        let line = Line { path, taken_at: self.at, data, data_sha256, entry };
        let mut text = serde_json::to_vec(&line).map_err(io::Error::other)?;
        text.push(b'\n');
        open.contents.write_all_at(&text, open.now.lines)?;
        open.now.lines += text.len() as u64;
        note(&mut open.tops, path.clone());
        open.now.tops = open.tops.len();
        self.room = self.room.saturating_sub(taken);
        Ok(())
    }

    /// Waits until everything that was taken in is on the disk.
    ///
    /// # Errors
    /// What fsync(2) says; whatever was taken in since the last time is not kept then.
    pub fn durable(&mut self) -> io::Result<()> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let synced = open.contents.sync_all().and_then(|()| durable::sync_dir(&open.dir).map_err(as_io));
        match synced {
            Ok(()) => open.durable = open.now,
            Err(_) => self.forget(),
        }
        synced
    }

    /// Nothing stays of what was taken in since it was durable.
    fn forget(&mut self) {
        let Some(open) = &mut self.open else { return };
        let cleared = match open.durable.lines {
            0 => remove_case(&open.dir).map_err(as_io),
            _ => open.roll_back(),
        };
        if let Err(error) = cleared {
            tracing::warn!(case = %open.dir.display(), %error, "what could not be kept stays until guardd starts again");
        }
        if open.durable.lines == 0 {
            self.open = None;
        }
    }

    fn make(&mut self) -> io::Result<Open> {
        let dir = self.dir();
        let made = self.make_in(&dir);
        if made.is_err()
            && let Err(error) = remove_case(&dir)
        {
            tracing::warn!(case = %dir.display(), %error, "an empty case stays until guardd starts again");
        }
        made.map_err(as_io)
    }

    fn make_in(&self, dir: &Path) -> Result<Open, StoreError> {
        let parent = self.quarantine.join(&self.environment);
        make_dir(&parent, 0o700)?;
        DirBuilder::new().mode(0o700).create(dir).map_err(StoreError::io("make", dir))?;
        let contents = durable::create_new(&dir.join(CONTENTS), 0o600)?;
        for dir in [dir, &parent, &self.quarantine] {
            durable::sync_dir(dir)?;
        }
        let (now, durable) = (Extent::default(), Extent::default());
        Ok(Open { dir: dir.to_owned(), contents, now, durable, tops: Vec::new() })
    }
}

impl Open {
    /// Back to what is durable.
    fn roll_back(&mut self) -> io::Result<()> {
        self.now = self.durable;
        self.tops.truncate(self.durable.tops);
        for name in entries_of(&self.dir).map_err(as_io)? {
            let number = name.to_str().and_then(|n| n.strip_suffix(DATA)).and_then(|n| n.parse::<u64>().ok());
            if number.is_some_and(|n| n > self.durable.data) {
                std::fs::remove_file(self.dir.join(name))?;
            }
        }
        self.contents.set_len(self.durable.lines)
    }
}

/// With the kind that the kernel told: a full disk is one.
fn as_io(error: StoreError) -> io::Error {
    let kind = match &error {
        StoreError::Io { source, .. } => source.kind(),
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Removes a case in which nothing is kept.
fn remove_case(dir: &Path) -> Result<(), StoreError> {
    match std::fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", dir)(e)),
        _ => Ok(()),
    }
}

fn data_name(number: u64) -> String {
    format!("{number:06}{DATA}")
}

/// What is below something that was noted just before is told by that.
fn note(tops: &mut Vec<RelPath>, path: RelPath) {
    if !tops.iter().rev().take(1).any(|top| path.is_within(top)) {
        tops.push(path);
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
    let mut file = durable::create_new(to, 0o600).map_err(as_io)?;
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
        assert_eq!(case.place(), None, "nothing half is left of it");
        assert!(!case.dir().exists());
        // What is there counts the next time.
        case.keep(&rel("x"), &entry(3), Some(&mut &b"xyz"[..])).unwrap();
        case.durable().unwrap();
        assert!(Case::begin(&state, "p", Timestamp(2)).unwrap().room() < LIMIT - 2000);
        assert_eq!(Case::begin(&state, "other", Timestamp(2)).unwrap().room(), LIMIT);
        assert!(Case::begin(&state, "../p", Timestamp(2)).is_err());
    }

    #[test]
    fn what_fails_leaves_nothing_and_takes_nothing_along() {
        struct Failing;
        impl Read for Failing {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
        }
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(&top.path().join("state")).unwrap();
        let mut case = Case::begin(&state, "p", Timestamp(1)).unwrap();
        case.keep(&rel("a"), &entry(1), Some(&mut &b"a"[..])).unwrap();
        case.durable().unwrap();
        case.keep(&rel("d"), &Entry { kind: Kind::Directory, ..entry(0) }, None).unwrap();
        let e = case.keep(&rel("d/b"), &entry(1), Some(&mut Failing)).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::StorageFull);
        assert_eq!(case.paths(), [rel("a")]);
        case.keep(&rel("c"), &entry(1), Some(&mut &b"c"[..])).unwrap();
        case.durable().unwrap();
        assert_eq!(case.paths(), [rel("a"), rel("c")]);
        let names: Vec<_> = entries_of(&case.dir()).unwrap();
        assert_eq!(names.len(), 3, "{names:?}");
        let text = std::fs::read_to_string(case.dir().join("contents.jsonl")).unwrap();
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn an_interrupted_case_is_gone_on_with_as_far_as_it_is_whole() {
        let top = tempfile::tempdir().unwrap();
        let state = StateDir::open(&top.path().join("state")).unwrap();
        let mut case = Case::begin(&state, "p", Timestamp(1)).unwrap();
        case.keep(&rel("a"), &entry(1), Some(&mut &b"a"[..])).unwrap();
        case.keep(&rel("b"), &Entry { kind: Kind::Directory, ..entry(0) }, None).unwrap();
        case.keep(&rel("b/c"), &entry(1), Some(&mut &b"c"[..])).unwrap();
        case.durable().unwrap();
        let dir = case.dir();
        drop(case);
        // A line that was torn, and contents without one.
        let list = dir.join("contents.jsonl");
        let mut text = std::fs::read(&list).unwrap();
        text.extend_from_slice(b"{\"path\":\"x\",\"da");
        std::fs::write(&list, &text).unwrap();
        std::fs::write(dir.join("000003.data"), "x").unwrap();
        let mut case = Case::resume(&state, "p", Timestamp(1)).unwrap();
        assert_eq!((case.paths(), case.bytes()), (&[rel("a"), rel("b")][..], 2));
        case.keep(&rel("e"), &entry(1), Some(&mut &b"e"[..])).unwrap();
        case.durable().unwrap();
        let text = std::fs::read_to_string(&list).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((lines.len(), &lines[3]["data"]), (4, &"000003.data".into()));
        assert_eq!(std::fs::read(dir.join("000003.data")).unwrap(), b"e");
        // Where nothing is whole nothing stays.
        std::fs::write(&list, "{").unwrap();
        assert_eq!(Case::resume(&state, "p", Timestamp(1)).unwrap().place(), None);
        assert!(!dir.exists());
        assert_eq!(Case::resume(&state, "p", Timestamp(7)).unwrap().place(), None);
    }
}
