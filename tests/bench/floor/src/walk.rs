//! The walk itself.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::mem::{MaybeUninit, take};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{
    AtFlags, FileType, IFlags, Mode, OFlags, RawDir, Statx, StatxFlags, fchmod, fgetxattr, flistxattr,
    ioctl_getflags, ioctl_setflags, lgetxattr, llistxattr, openat, readlinkat, statx,
};
use rustix::io::{Errno, read};
use sha2::{Digest as _, Sha256};

use crate::Failure;
use crate::records::{Chunk, Reader, Writer};
use crate::stack::{Next, Stack};

/// Files from this size on are hashed by whichever thread is free.
const BIG: u64 = 4 << 20;
const BUFFER: usize = 128 << 10;
const DIGEST: usize = 32;

/// What is done with what is seen.
pub(crate) enum Work {
    Record(Writer),
    Check(Reader),
    Sweep(Reader),
    Stat,
    Marks { sealed: bool },
}

/// What was seen.
pub(crate) struct Done {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) differing: u64,
}

/// A directory to be gone through, and the one that it lies in.
struct Directory {
    path: Vec<u8>,
    parent: Option<Arc<OwnedFd>>,
}

/// A directory that was gone through but for its big files.
struct Waiting {
    path: Vec<u8>,
    fd: Arc<OwnedFd>,
    chunk: Mutex<Chunk>,
    left: AtomicUsize,
}

/// A big file: in which directory, its name, and which of its digests is this one's.
struct Big(Arc<Waiting>, CString, usize);

pub(crate) struct Floor {
    work: Work,
    stack: Stack<Big, Directory>,
    entries: AtomicU64,
    bytes: AtomicU64,
    differing: AtomicU64,
}

/// One thread's room, used for entry after entry.
struct Room {
    raw: Vec<MaybeUninit<u8>>,
    buffer: Vec<u8>,
    names: Vec<(CString, FileType)>,
    xattrs: Vec<u8>,
    value: Vec<u8>,
    path: Vec<u8>,
    expected: Chunk,
}

impl Floor {
    pub(crate) fn run(tree: &Path, work: Work, threads: usize) -> Result<Done, Failure> {
        let top: OwnedFd = File::open(tree)?.into();
        let top = Directory { path: Vec::new(), parent: Some(Arc::new(top)) };
        let floor = Self {
            work,
            stack: Stack::new(top),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            differing: AtomicU64::new(0),
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(|| floor.thread())).collect();
            threads.into_iter().try_for_each(|t| t.join().map_err(|_| "a thread panicked")?)
        })?;
        if let Work::Record(writer) = floor.work {
            writer.finish()?;
        }
        Ok(Done {
            entries: floor.entries.into_inner(),
            bytes: floor.bytes.into_inner(),
            differing: floor.differing.into_inner(),
        })
    }

    fn thread(&self) -> Result<(), Failure> {
        let mut room = Room {
            raw: vec![MaybeUninit::uninit(); 32 << 10],
            buffer: vec![0; BUFFER],
            names: Vec::new(),
            xattrs: vec![0; 1024],
            value: vec![0; 1024],
            path: Vec::new(),
            expected: Chunk::default(),
        };
        while let Some(next) = self.stack.take() {
            let done = match next {
                Next::Task(directory) => self.directory(directory, &mut room),
                Next::Big(big) => self.big(&big, &mut room),
            };
            self.stack.done(done.is_err());
            done?;
        }
        Ok(())
    }

    fn directory(&self, directory: Directory, room: &mut Room) -> Result<(), Failure> {
        let Directory { path, parent } = directory;
        let parent = parent.ok_or("a directory without a parent")?;
        let fd = match path.rsplit(|&b| b == b'/').next() {
            None | Some(b"") => parent,
            Some(name) => {
                let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                Arc::new(openat(&*parent, name, flags, Mode::empty())?)
            }
        };
        let mut names = take(&mut room.names);
        names.clear();
        let mut raw = RawDir::new(&*fd, &mut room.raw);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        if !matches!(self.work, Work::Stat | Work::Marks { .. }) {
            names.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        }
        self.entries.fetch_add(names.len() as u64, Ordering::Relaxed);
        let (mut chunk, mut directories, mut big) = (Chunk::default(), Vec::new(), Vec::new());
        for (name, kind) in &names {
            if *kind == FileType::Directory {
                let mut path = path.clone();
                path.push(b'/');
                path.extend_from_slice(name.to_bytes());
                directories.push(Directory { path, parent: Some(Arc::clone(&fd)) });
            }
            if let Some(index) = self.entry(&fd, name, *kind, &mut chunk, room)? {
                big.push((name.clone(), index));
            }
        }
        room.names = names;
        let left = AtomicUsize::new(big.len());
        if big.is_empty() {
            self.stack.push([], directories);
            return self.compare(&path, &chunk, &mut room.expected);
        }
        let waiting = Arc::new(Waiting { path, fd, chunk: Mutex::new(chunk), left });
        let big = big.into_iter().map(|(name, index)| Big(Arc::clone(&waiting), name, index));
        self.stack.push(big, directories);
        Ok(())
    }

    /// Looks at one entry; gives the place of its digest where it is a big file.
    fn entry(
        &self,
        dir: &OwnedFd,
        name: &CStr,
        kind: FileType,
        chunk: &mut Chunk,
        room: &mut Room,
    ) -> Result<Option<usize>, Failure> {
        if let Work::Marks { sealed } = self.work {
            return mark(dir, name, kind, sealed).map(|()| None);
        }
        let wanted = (StatxFlags::BASIC_STATS - StatxFlags::ATIME) | StatxFlags::MNT_ID;
        let stat = statx(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted)?;
        if matches!(self.work, Work::Stat) {
            return Ok(None);
        }
        put_row(&mut chunk.rows, name, &stat);
        if kind == FileType::Symlink {
            chunk.rows.extend_from_slice(readlinkat(dir, name, Vec::new())?.to_bytes());
        }
        let reads = matches!(self.work, Work::Record(_) | Work::Check(_));
        if kind != FileType::RegularFile || !reads {
            put_xattrs_of(dir, name, room, &mut chunk.rows)?;
            return Ok(None);
        }
        let file = open(dir, name)?;
        put_opened_xattrs(&file, room, &mut chunk.rows)?;
        if stat.stx_size >= BIG {
            let index = chunk.digests.len();
            chunk.digests.resize(index + DIGEST, 0);
            return Ok(Some(index));
        }
        chunk.digests.extend_from_slice(&self.hash(&file, &mut room.buffer)?);
        Ok(None)
    }

    fn big(&self, Big(waiting, name, index): &Big, room: &mut Room) -> Result<(), Failure> {
        let digest = self.hash(&open(&waiting.fd, name)?, &mut room.buffer)?;
        let mut chunk = waiting.chunk.lock().unwrap_or_else(PoisonError::into_inner);
        chunk.digests.get_mut(*index..index + DIGEST).ok_or("no room for a digest")?.copy_from_slice(&digest);
        if waiting.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.compare(&waiting.path, &chunk, &mut room.expected)?;
        }
        Ok(())
    }

    fn hash(&self, file: &OwnedFd, buffer: &mut [u8]) -> Result<[u8; DIGEST], Failure> {
        let mut sha = Sha256::new();
        loop {
            let n = read(file, &mut *buffer)?;
            self.bytes.fetch_add(n as u64, Ordering::Relaxed);
            sha.update(buffer.get(..n).unwrap_or_default());
            if n < buffer.len() {
                return Ok(sha.finalize().into());
            }
        }
    }

    fn compare(&self, path: &[u8], chunk: &Chunk, expected: &mut Chunk) -> Result<(), Failure> {
        let is_same = match &self.work {
            Work::Record(writer) => return writer.add(path, chunk),
            Work::Stat | Work::Marks { .. } => return Ok(()),
            Work::Check(reader) => {
                reader.read(path, expected)?;
                chunk == expected
            }
            Work::Sweep(reader) => {
                reader.read(path, expected)?;
                chunk.rows == expected.rows
            }
        };
        self.differing.fetch_add(u64::from(!is_same), Ordering::Relaxed);
        Ok(())
    }
}

fn open(dir: &OwnedFd, name: &CStr) -> Result<OwnedFd, Failure> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    Ok(openat(dir, name, flags | OFlags::NOATIME, Mode::empty())
        .or_else(|_| openat(dir, name, flags, Mode::empty()))?)
}

/// One open, one fchmod and the flag.
fn mark(dir: &OwnedFd, name: &CStr, kind: FileType, sealed: bool) -> Result<(), Failure> {
    let (mode, flags) = match kind {
        FileType::Directory if sealed => (0o555, IFlags::IMMUTABLE),
        FileType::Directory => (0o755, IFlags::empty()),
        FileType::RegularFile if sealed => (0o444, IFlags::IMMUTABLE),
        FileType::RegularFile => (0o644, IFlags::empty()),
        _ => return Ok(()),
    };
    let entry = open(dir, name)?;
    let others = ioctl_getflags(&entry)? - IFlags::IMMUTABLE;
    if !sealed {
        ioctl_setflags(&entry, others)?;
    }
    fchmod(&entry, Mode::from_raw_mode(mode))?;
    if sealed {
        ioctl_setflags(&entry, others | flags)?;
    }
    Ok(())
}

fn put_row(rows: &mut Vec<u8>, name: &CStr, s: &Statx) {
    rows.extend_from_slice(name.to_bytes_with_nul());
    let is_dir = FileType::from_raw_mode(s.stx_mode.into()) == FileType::Directory;
    // What is not compared of a directory is not recorded of it.
    let of_files = if is_dir { [0; 3] } else { [s.stx_size, s.stx_nlink.into(), s.stx_mtime.tv_sec as u64] };
    let nsec = if is_dir { 0 } else { s.stx_mtime.tv_nsec };
    let numbers = [
        u64::from(s.stx_mode),
        u64::from(s.stx_uid) << 32 | u64::from(s.stx_gid),
        s.stx_ctime.tv_sec as u64,
        u64::from(s.stx_ctime.tv_nsec) << 32 | u64::from(nsec),
        u64::from(s.stx_dev_major) << 32 | u64::from(s.stx_dev_minor),
        u64::from(s.stx_rdev_major) << 32 | u64::from(s.stx_rdev_minor),
        s.stx_ino,
        s.stx_attributes.bits(),
    ];
    for n in numbers.into_iter().chain(of_files) {
        rows.extend_from_slice(&n.to_le_bytes());
    }
}

fn put_opened_xattrs(file: &OwnedFd, room: &mut Room, rows: &mut Vec<u8>) -> Result<(), Failure> {
    let length = listed(|| flistxattr(file, &mut room.xattrs[..]))?;
    for name in room.xattrs.get(..length).unwrap_or_default().split_inclusive(|&b| b == 0) {
        let value = fgetxattr(file, CStr::from_bytes_with_nul(name)?, &mut room.value[..])?;
        rows.extend_from_slice(name);
        rows.extend_from_slice(room.value.get(..value).unwrap_or_default());
    }
    Ok(())
}

fn put_xattrs_of(dir: &OwnedFd, name: &CStr, room: &mut Room, rows: &mut Vec<u8>) -> Result<(), Failure> {
    room.path.clear();
    room.path.extend_from_slice(format!("/proc/self/fd/{}/", dir.as_raw_fd()).as_bytes());
    room.path.extend_from_slice(name.to_bytes_with_nul());
    let path = CStr::from_bytes_with_nul(&room.path)?;
    let length = listed(|| llistxattr(path, &mut room.xattrs[..]))?;
    for name in room.xattrs.get(..length).unwrap_or_default().split_inclusive(|&b| b == 0) {
        let value = lgetxattr(path, CStr::from_bytes_with_nul(name)?, &mut room.value[..])?;
        rows.extend_from_slice(name);
        rows.extend_from_slice(room.value.get(..value).unwrap_or_default());
    }
    Ok(())
}

/// A file system without extended attributes has none.
fn listed(list: impl FnOnce() -> Result<usize, Errno>) -> Result<usize, Errno> {
    match list() {
        Err(Errno::NOTSUP) => Ok(0),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_was_recorded_is_what_a_check_finds_until_something_changes() {
        let top = tempfile::tempdir().unwrap();
        let tree = top.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        for (name, size) in
            [("one", 10), ("a/two", 0), ("a/b/big", BIG as usize + 1), ("a/b/big2", BIG as usize)]
        {
            fs::write(tree.join(name), vec![7; size]).unwrap();
        }
        let records = top.path().join("records");
        let record = Floor::run(&tree, Work::Record(Writer::create(&records).unwrap()), 2).unwrap();
        assert_eq!((record.entries, record.bytes), (6, 2 * BIG + 11));
        let check = || Floor::run(&tree, Work::Check(Reader::open(&records).unwrap()), 3).unwrap().differing;
        let sweep = || Floor::run(&tree, Work::Sweep(Reader::open(&records).unwrap()), 1).unwrap().differing;
        assert_eq!((check(), sweep()), (0, 0));
        fs::write(tree.join("a/b/big"), vec![8; BIG as usize + 1]).unwrap();
        assert_eq!((check(), sweep()), (1, 1));
    }
}
