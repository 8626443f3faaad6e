//! Extended attributes, read through handles only.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::fs::{fgetxattr, flistxattr, getxattr, listxattr};
use rustix::io::{Errno, Result};

use crate::procfd::FdPath;

/// Room for the names of an inode's attributes, and for most values; grown where needed.
const START: usize = 1024;
/// Linux limits a list of names and a value to 64 KiB (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`);
/// file systems of other origins may hold more, which is refused above this.
const LIMIT: usize = 16 << 20;

/// A name and its value.
pub type Pair = (Vec<u8>, Vec<u8>);

/// Why extended attributes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum XattrError {
    /// Not even their names.
    #[error("cannot list extended attributes")]
    List(#[source] io::Error),
    /// The value of one.
    #[error("cannot read extended attribute {}", String::from_utf8_lossy(name))]
    Get {
        /// Its name.
        name: Vec<u8>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Reads extended attributes, with room that is kept from one inode to the next.
#[derive(Debug)]
pub struct XattrReader {
    names: Vec<u8>,
    value: Vec<u8>,
}

/// How the kernel is to be asked about an inode.
#[derive(Debug, Clone, Copy)]
enum Way<'a> {
    /// Through an opened file or directory.
    Opened(BorrowedFd<'a>),
    /// Through the link in `/proc` of a handle that is merely located.
    Located(&'a CStr),
}

impl Default for XattrReader {
    fn default() -> Self {
        Self { names: vec![0; START], value: vec![0; START] }
    }
}

impl XattrReader {
    /// All attributes of an opened file or directory, sorted by name. Those that the
    /// kernel does not show to this process (`trusted.*` without `CAP_SYS_ADMIN`) are not there.
    ///
    /// # Errors
    /// [`XattrError`]; not where the file system has no extended attributes: then there are none.
    pub fn of_opened(&mut self, file: BorrowedFd<'_>) -> std::result::Result<Vec<Pair>, XattrError> {
        self.read(Way::Opened(file))
    }

    /// All attributes of what `handle` (from [`crate::open::How::Locate`]) stands on, symbolic
    /// links themselves included, likewise.
    ///
    /// # Errors
    /// [`XattrError`]; `ENOENT` in it also where `/proc` is not mounted.
    pub fn of_located(&mut self, handle: BorrowedFd<'_>) -> std::result::Result<Vec<Pair>, XattrError> {
        self.read(Way::Located(FdPath::of(handle).as_c_str()))
    }

    fn read(&mut self, way: Way<'_>) -> std::result::Result<Vec<Pair>, XattrError> {
        let list = grow(&mut self.names, |room| match way {
            Way::Opened(fd) => flistxattr(fd, room),
            Way::Located(path) => listxattr(path, room),
        });
        let length = match list {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            Err(e) => return Err(XattrError::List(e.into())),
        };
        let mut pairs = Vec::new();
        for name in self.names.get(..length).unwrap_or_default().split(|&b| b == 0) {
            let Ok(name) = CString::new(name) else { continue };
            if name.is_empty() {
                continue;
            }
            let got = grow(&mut self.value, |room| match way {
                Way::Opened(fd) => fgetxattr(fd, &*name, room),
                Way::Located(path) => getxattr(path, &*name, room),
            });
            match got {
                Ok(n) => {
                    let value = self.value.get(..n).unwrap_or_default().to_vec();
                    pairs.push((name.into_bytes(), value));
                }
                // Removed since it was listed.
                Err(Errno::NODATA) => {}
                Err(e) => return Err(XattrError::Get { name: name.into_bytes(), source: e.into() }),
            }
        }
        pairs.sort_unstable();
        Ok(pairs)
    }
}

/// Asks with ever more room while the kernel says that it is too little.
fn grow(room: &mut Vec<u8>, ask: impl Fn(&mut [u8]) -> Result<usize>) -> Result<usize> {
    loop {
        match ask(room) {
            Err(Errno::RANGE) if room.len() < LIMIT => room.resize(room.len() * 8, 0),
            done => return done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{How, absolute, child};
    use rustix::fs::{XattrFlags, lsetxattr, setxattr};
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    /// Sets `user.*` attributes; false where the file system has none.
    fn give(path: &std::path::Path, pairs: &[(&str, &[u8])]) -> bool {
        for (name, value) in pairs {
            match setxattr(path, *name, value, XattrFlags::empty()) {
                Err(Errno::NOTSUP) => return false,
                done => done.unwrap(),
            }
        }
        true
    }

    fn plain(name: &str, value: &[u8]) -> Pair {
        (name.as_bytes().to_vec(), value.to_vec())
    }

    fn users(pairs: Vec<Pair>) -> Vec<Pair> {
        pairs.into_iter().filter(|(n, _)| !n.starts_with(b"security.")).collect()
    }

    #[test]
    fn the_same_both_ways_and_sorted() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("f");
        fs::write(&path, "x").unwrap();
        let long = vec![0xff; 3000];
        if !give(&path, &[("user.z", b"\0"), ("user.a", &long), ("user.empty", b"")]) {
            return;
        }
        let want = [plain("user.a", &long), plain("user.empty", b""), plain("user.z", b"\0")];
        let mut reader = XattrReader::default();
        let opened = absolute(&path, How::Read).unwrap();
        assert_eq!(users(reader.of_opened(opened.as_fd()).unwrap()), want);
        let dir = absolute(top.path(), How::LocateDirectory).unwrap();
        let handle = child(dir.as_fd(), b"f", How::Locate).unwrap();
        assert_eq!(users(reader.of_located(handle.as_fd()).unwrap()), want);
        assert_eq!(users(reader.of_located(dir.as_fd()).unwrap()), []);
    }

    #[test]
    fn a_symbolic_link_has_its_own() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("f"), "x").unwrap();
        symlink("f", top.path().join("l")).unwrap();
        if !give(&top.path().join("f"), &[("user.of_the_file", b"1")]) {
            return;
        }
        // Only a privileged process can give a symbolic link an attribute (xattr(7)).
        let given = lsetxattr(top.path().join("l"), "trusted.t", b"2", XattrFlags::empty());
        let dir = absolute(top.path(), How::LocateDirectory).unwrap();
        let handle = child(dir.as_fd(), b"l", How::Locate).unwrap();
        let found = users(XattrReader::default().of_located(handle.as_fd()).unwrap());
        let want = if given.is_ok() { vec![plain("trusted.t", b"2")] } else { vec![] };
        assert_eq!(found, want);
    }
}
