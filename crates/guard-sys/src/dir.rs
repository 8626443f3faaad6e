//! The names in a directory, by getdents64(2).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::{RawDir, SeekFrom, fstatfs, seek};

use crate::stat::{self, FileType, Stat};

/// Room for getdents64, which is what glibc takes.
const CHUNK: usize = 32 << 10;
/// A directory that changes all the time is taken as the last of so many listings showed it.
const TRIES: usize = 3;
/// What a listing keeps from one directory to the next, so that one huge directory
/// does not cost its memory for good.
const KEEP: usize = 1 << 20;

/// File systems that count each subdirectory as a link to the directory that holds it (statfs(2), `f_type`):
/// ext2, ext3 and ext4, XFS, tmpfs.
const COUNT_SUBDIRECTORIES: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994];

/// True where the directory is known to hold no directory, a mount point among them, by its number of links: itself and the
/// name that it has. That costs a fraction of listing it.
///
/// # Errors
/// What statx(2) and statfs(2) say.
pub fn is_leaf(dir: BorrowedFd<'_>) -> io::Result<bool> {
    if stat::of(dir)?.nlink != 2 {
        return Ok(false);
    }
    let kind = fstatfs(dir)?.f_type;
    Ok(u64::try_from(kind).is_ok_and(|kind| COUNT_SUBDIRECTORIES.contains(&kind)))
}

/// The names in a directory, sorted by bytes, `.` and `..` left out, with room that is kept
/// from one directory to the next.
#[derive(Debug, Default)]
pub struct Listing {
    /// For the kernel to write into; allocated at the first use.
    chunk: Vec<MaybeUninit<u8>>,
    /// All names, one after the other.
    names: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Debug, Clone, Copy)]
struct Item {
    start: usize,
    length: u16,
    kind: FileType,
}

impl Listing {
    /// Lists the directory (from [`crate::open::How::List`]) from its beginning. While it
    /// changes it is listed again, a few times: a rename that happens meanwhile can hide
    /// a name that is there all along (readdir(3)).
    ///
    /// # Errors
    /// What getdents64(2) says, `ENOENT` for a directory that has been removed; then the
    /// listing is empty.
    pub fn read(&mut self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let done = self.read_settled(dir);
        if done.is_err() {
            self.clear();
        }
        done
    }

    fn read_settled(&mut self, dir: BorrowedFd<'_>) -> io::Result<()> {
        let mut before = stat::of(dir)?;
        for _ in 0..TRIES {
            self.read_once(dir)?;
            let after = stat::of(dir)?;
            if unchanged(&before, &after) {
                break;
            }
            before = after;
        }
        Ok(())
    }

    fn read_once(&mut self, dir: BorrowedFd<'_>) -> io::Result<()> {
        self.clear();
        self.chunk.resize(CHUNK, MaybeUninit::uninit());
        seek(dir, SeekFrom::Start(0))?;
        let mut raw = RawDir::new(dir, &mut self.chunk);
        while let Some(entry) = raw.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if matches!(name, b"." | b"..") {
                continue;
            }
            // A record's length is 16 bits wide, so a name's is too.
            let length = u16::try_from(name.len()).unwrap_or(u16::MAX);
            self.items.push(Item { start: self.names.len(), length, kind: entry.file_type() });
            self.names.extend_from_slice(name);
        }
        let names = &self.names;
        self.items.sort_unstable_by(|a, b| a.name(names).cmp(b.name(names)));
        self.items.dedup_by(|a, b| a.name(names) == b.name(names));
        Ok(())
    }

    fn clear(&mut self) {
        self.names.clear();
        self.names.shrink_to(KEEP);
        self.items.clear();
        self.items.shrink_to(KEEP / size_of::<Item>());
    }

    /// The names, each with its kind or `Unknown` where the file system does not tell.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], FileType)> {
        self.items.iter().map(|i| (i.name(&self.names), i.kind))
    }

    /// How many names there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// True where there is no name.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl Item {
    fn name(self, names: &[u8]) -> &[u8] {
        names.get(self.start..self.start + usize::from(self.length)).unwrap_or_default()
    }
}

fn unchanged(a: &Stat, b: &Stat) -> bool {
    (a.mtime, a.ctime) == (b.mtime, b.ctime)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{How, absolute};
    use std::ffi::OsStr;
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    #[test]
    fn hostile_names_sorted() {
        let top = tempfile::tempdir().unwrap();
        let long = [b'n'; 255];
        let names: [&[u8]; 6] = [b"\x01", b"-rf", b"a\nb", &long, b"...", b"\xff\xfe"];
        for n in names {
            fs::write(top.path().join(OsStr::from_bytes(n)), "").unwrap();
        }
        fs::create_dir(top.path().join("d")).unwrap();
        symlink("d", top.path().join("l")).unwrap();
        let dir = absolute(top.path(), How::List).unwrap();
        let mut listing = Listing::default();
        for _ in 0..2 {
            listing.read(dir.as_fd()).unwrap();
            let got: Vec<_> = listing.iter().map(|(n, _)| n).collect();
            let want: [&[u8]; 8] = [b"\x01", b"-rf", b"...", b"a\nb", b"d", b"l", &long, b"\xff\xfe"];
            assert_eq!(got, want);
        }
        let kind = |name: &[u8]| listing.iter().find(|(n, _)| *n == name).map(|(_, k)| k);
        // Some file systems do not tell.
        assert!(matches!(kind(b"d"), Some(FileType::Directory | FileType::Unknown)));
        assert!(matches!(kind(b"l"), Some(FileType::Symlink | FileType::Unknown)));
    }

    #[test]
    fn a_leaf_holds_no_directory() {
        let top = tempfile::tempdir().unwrap();
        let leaf = || is_leaf(absolute(top.path(), How::List).unwrap().as_fd()).unwrap();
        fs::write(top.path().join("f"), "").unwrap();
        symlink("/", top.path().join("l")).unwrap();
        // Where the file system does not count, it is never said to be one.
        let counts = leaf();
        fs::create_dir(top.path().join("d")).unwrap();
        assert!(!leaf());
        fs::rename(top.path().join("d"), top.path().join("e")).unwrap();
        assert!(!leaf());
        fs::remove_dir(top.path().join("e")).unwrap();
        assert_eq!(leaf(), counts);
    }

    #[test]
    fn more_than_one_chunk() {
        let top = tempfile::tempdir().unwrap();
        for i in 0..3000 {
            fs::write(top.path().join(format!("a name of some length {i:06}")), "").unwrap();
        }
        let dir = absolute(top.path(), How::List).unwrap();
        let mut listing = Listing::default();
        listing.read(dir.as_fd()).unwrap();
        assert_eq!(listing.len(), 3000);
        assert!(listing.iter().map(|(n, _)| n).is_sorted());
    }

    #[test]
    fn a_removed_directory_lists_nothing() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("d");
        fs::create_dir(&path).unwrap();
        let dir = absolute(&path, How::List).unwrap();
        fs::remove_dir(&path).unwrap();
        let mut listing = Listing::default();
        assert_eq!(listing.read(dir.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOENT));
        assert!(listing.is_empty());
    }
}
