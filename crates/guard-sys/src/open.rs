//! Opening paths beneath a directory so that nothing can lead out of it.
//!
//! [`Resolver::open`] has the kernel resolve a whole path with openat2(2) and
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS`. Where there is no
//! openat2 (before Linux 5.6, or a seccomp filter that does not know it) it opens
//! one component after another with `O_NOFOLLOW`, which comes to the same.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::OnceLock;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::Errno;

/// Longest path handed to the kernel in one piece; it takes at most 4096 bytes (`PATH_MAX`).
const PIECE: usize = 4000;

/// What a handle is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A handle on whatever it is, a symbolic link itself included, that reads nothing
    /// and wakes no driver (`O_PATH`).
    Locate,
    /// The same, and refused with `ENOTDIR` where it is no directory.
    LocateDirectory,
    /// To list a directory.
    List,
    /// To read a regular file: without waiting for a fifo's writer or a lease
    /// (`O_NONBLOCK`), without becoming a terminal's owner, without touching the atime.
    Read,
}

impl How {
    fn flags(self) -> OFlags {
        let common = OFlags::CLOEXEC | OFlags::NOFOLLOW;
        match self {
            Self::Locate => common | OFlags::PATH,
            Self::LocateDirectory => common | OFlags::PATH | OFlags::DIRECTORY,
            Self::List => common | OFlags::DIRECTORY | OFlags::NOATIME,
            Self::Read => common | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOATIME,
        }
    }

    /// Opens with these flags; without `O_NOATIME` where that is not permitted, which
    /// open(2) says it is to the file's owner and to `CAP_FOWNER` only.
    pub(crate) fn attempt(self, open: impl Fn(OFlags) -> Result<OwnedFd, Errno>) -> io::Result<OwnedFd> {
        let flags = self.flags();
        match open(flags) {
            Err(Errno::PERM) if flags.contains(OFlags::NOATIME) => Ok(open(flags - OFlags::NOATIME)?),
            done => Ok(done?),
        }
    }
}

/// How paths are resolved beneath a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolver {
    kernel: bool,
}

impl Resolver {
    /// The best that this kernel does, asked once per process.
    #[must_use]
    pub fn detect() -> Self {
        static KERNEL: OnceLock<bool> = OnceLock::new();
        let kernel = *KERNEL.get_or_init(|| {
            let flags = OFlags::PATH | OFlags::CLOEXEC;
            let tried = openat2(CWD, c"/", flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS);
            // Old container runtimes answer EPERM to system calls that they do not know.
            !matches!(tried, Err(Errno::NOSYS | Errno::PERM))
        });
        Self { kernel }
    }

    /// Component by component, as on a kernel that answers `ENOSYS` to openat2.
    #[must_use]
    pub fn by_component() -> Self {
        Self { kernel: false }
    }

    /// Opens `path`, of any length, beneath `dir`. `.` and the empty path are `dir` itself.
    ///
    /// # Errors
    /// `EXDEV` where `path` is absolute or has a `..`; `ELOOP` or `ENOTDIR` where a component
    /// is a symbolic link (with [`How::Locate`] the last one may be); else what open(2) says.
    pub fn open(self, dir: BorrowedFd<'_>, path: &Path, how: How) -> io::Result<OwnedFd> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.starts_with(b"/") || bytes.split(|&b| b == b'/').any(|c| c == b"..") {
            return Err(Errno::XDEV.into());
        }
        let mut above: Option<OwnedFd> = None;
        let mut rest = bytes;
        loop {
            let at = above.as_ref().map_or(dir, AsFd::as_fd);
            let Some((piece, tail)) = self.split(rest) else { return self.open_piece(at, rest, how) };
            above = Some(self.open_piece(at, piece, How::LocateDirectory)?);
            rest = tail;
        }
    }

    /// The part to open before the rest, or `None` where all of it can be opened at once.
    fn split(self, path: &[u8]) -> Option<(&[u8], &[u8])> {
        let cut = if !self.kernel {
            path.iter().position(|&b| b == b'/')?
        } else if path.len() > PIECE {
            path.get(..PIECE)?.iter().rposition(|&b| b == b'/')?
        } else {
            return None;
        };
        Some((path.get(..cut)?, path.get(cut + 1..)?))
    }

    fn open_piece(self, dir: BorrowedFd<'_>, path: &[u8], how: How) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b".".as_slice() } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        how.attempt(|flags| {
            if self.kernel {
                openat2(dir, path, flags, Mode::empty(), resolve)
            } else {
                openat(dir, path, flags, Mode::empty())
            }
        })
    }
}

/// Opens the child `name` of `dir`, a single component; never follows a symbolic link.
///
/// # Errors
/// `EXDEV` where `name` is not a plain single component; else what open(2) says.
pub fn child(dir: BorrowedFd<'_>, name: &[u8], how: How) -> io::Result<OwnedFd> {
    if name.contains(&b'/') || matches!(name, b"" | b"..") {
        return Err(Errno::XDEV.into());
    }
    how.attempt(|flags| openat(dir, name, flags, Mode::empty()))
}

/// Opens an absolute path, following symbolic links: for paths that an administrator
/// wrote, never for one inside a protected tree.
///
/// # Errors
/// What open(2) says.
pub fn absolute(path: &Path, how: How) -> io::Result<OwnedFd> {
    how.attempt(|flags| openat(CWD, path, flags - OFlags::NOFOLLOW, Mode::empty()))
}

/// The target of the symbolic link that `handle` (from [`How::Locate`]) stands on.
///
/// # Errors
/// `ENOENT` where it is no symbolic link (readlink(2)); else what the kernel says.
pub fn link_target(handle: BorrowedFd<'_>) -> io::Result<CString> {
    Ok(readlinkat(handle, c"", Vec::new())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn both() -> [Resolver; 2] {
        [Resolver::detect(), Resolver::by_component()]
    }

    fn locate(path: &Path) -> OwnedFd {
        absolute(path, How::LocateDirectory).unwrap()
    }

    fn errno(result: io::Result<OwnedFd>) -> Option<Errno> {
        result.err().and_then(|e| Errno::from_io_error(&e))
    }

    #[test]
    fn finds_what_is_beneath() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/b")).unwrap();
        fs::write(top.path().join("a/b/f"), "x").unwrap();
        let dir = locate(top.path());
        for r in both() {
            let file = r.open(dir.as_fd(), Path::new("a/b/f"), How::Read).unwrap();
            let mut text = [0; 4];
            assert_eq!(rustix::io::read(&file, &mut text), Ok(1));
            for path in ["", ".", "a", "a/b", "./a/./b"] {
                r.open(dir.as_fd(), Path::new(path), How::List).unwrap();
            }
            assert_eq!(errno(r.open(dir.as_fd(), Path::new("a/b/f"), How::List)), Some(Errno::NOTDIR));
            assert_eq!(errno(r.open(dir.as_fd(), Path::new("a/x/f"), How::Read)), Some(Errno::NOENT));
        }
    }

    #[test]
    fn nothing_leads_out() {
        let top = tempfile::tempdir().unwrap();
        let root = top.path().join("root");
        fs::create_dir_all(root.join("d")).unwrap();
        fs::write(top.path().join("secret"), "x").unwrap();
        symlink("..", root.join("up")).unwrap();
        symlink(top.path(), root.join("abs")).unwrap();
        symlink("d", root.join("inside")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        let dir = locate(&root);
        for r in both() {
            for path in ["../secret", "/etc/passwd", "d/../../secret", "d/.."] {
                assert_eq!(
                    errno(r.open(dir.as_fd(), Path::new(path), How::Read)),
                    Some(Errno::XDEV),
                    "{path}"
                );
            }
            for path in ["up/secret", "abs/secret", "magic/etc/passwd", "inside/x"] {
                let e = errno(r.open(dir.as_fd(), Path::new(path), How::Read));
                assert!(matches!(e, Some(Errno::LOOP | Errno::NOTDIR)), "{path}: {e:?}");
            }
            for link in ["up", "abs", "inside", "magic"] {
                assert_eq!(errno(r.open(dir.as_fd(), Path::new(link), How::Read)), Some(Errno::LOOP));
                let itself = r.open(dir.as_fd(), Path::new(link), How::Locate).unwrap();
                let target = fs::read_link(root.join(link)).unwrap();
                assert_eq!(link_target(itself.as_fd()).unwrap().as_bytes(), target.as_os_str().as_bytes());
            }
        }
    }

    #[test]
    fn a_child_is_one_component() {
        let dir = locate(Path::new("/"));
        for name in [&b"etc/passwd"[..], b"..", b"", b"/etc"] {
            assert_eq!(errno(child(dir.as_fd(), name, How::Locate)), Some(Errno::XDEV));
        }
        assert_eq!(errno(child(dir.as_fd(), b"a\0b", How::Locate)), Some(Errno::INVAL));
        child(dir.as_fd(), b"etc", How::List).unwrap();
    }

    #[test]
    fn paths_longer_than_the_kernel_takes() {
        let top = tempfile::tempdir().unwrap();
        let name = "n".repeat(200);
        let mut at = locate(top.path());
        for _ in 0..30 {
            rustix::fs::mkdirat(&at, name.as_str(), Mode::RWXU).unwrap();
            at = child(at.as_fd(), name.as_bytes(), How::LocateDirectory).unwrap();
        }
        let path = vec![name.as_str(); 30].join("/");
        assert!(path.len() > 4096);
        let dir = locate(top.path());
        for r in both() {
            r.open(dir.as_fd(), Path::new(&path), How::List).unwrap();
            let longer = format!("{path}/none");
            assert_eq!(errno(r.open(dir.as_fd(), Path::new(&longer), How::List)), Some(Errno::NOENT));
        }
    }
}
