//! The mount table of our mount namespace, and being woken when it changes
//! (proc_pid_mountinfo(5)).
//!
//! No inotify or fanotify event tells that something was mounted over a
//! directory: the watch goes on watching what is hidden now.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

/// One mount, as far as it decides what a path leads to. Its options are left out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mount {
    /// The mount's number, which may be used again after it is gone.
    pub id: u64,
    /// The number of the mount it is on.
    pub parent: u64,
    /// The device, as `major:minor`.
    pub device: Vec<u8>,
    /// What of that file system is mounted, as raw bytes.
    pub root: Vec<u8>,
    /// Where, as raw bytes.
    pub point: Vec<u8>,
}

/// Why [`Table::wait`] returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Woken {
    /// The table has changed.
    Changed,
    /// The other descriptor with this index is readable or closed.
    Other(usize),
}

/// The open mount table.
#[derive(Debug)]
pub struct Table(File);

impl Table {
    /// Opens the table of this process.
    ///
    /// # Errors
    /// Where `/proc` is not mounted.
    pub fn open() -> io::Result<Self> {
        File::open("/proc/self/mountinfo").map(Self)
    }

    /// The mounts there are. Lines that are no mounts are passed over.
    ///
    /// # Errors
    /// What read(2) says.
    pub fn read(&mut self) -> io::Result<Vec<Mount>> {
        let mut bytes = Vec::new();
        self.0.rewind()?;
        self.0.read_to_end(&mut bytes)?;
        Ok(parse(&bytes))
    }

    /// Waits until the table has changed since it was opened or last waited for,
    /// or one of `others` is readable or at its end; the first of these comes before everything else.
    ///
    /// # Errors
    /// What poll(2) says.
    pub fn wait(&self, others: &[BorrowedFd<'_>]) -> io::Result<Woken> {
        loop {
            let mut fds: Vec<PollFd<'_>> =
                others.iter().map(|other| PollFd::from_borrowed_fd(*other, PollFlags::IN)).collect();
            // The file is always readable; a change is POLLPRI with POLLERR.
            fds.push(PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::PRI));
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            }
            let table = fds.pop().map_or(PollFlags::empty(), |table| table.revents());
            let ready = fds.iter().position(|other| !other.revents().is_empty());
            let changed = table.intersects(PollFlags::PRI | PollFlags::ERR);
            match ready {
                Some(other) if other == 0 || !changed => return Ok(Woken::Other(other)),
                _ if changed => return Ok(Woken::Changed),
                _ => {}
            }
        }
    }
}

/// A mount namespace that is not this process's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// A process that lives in it.
    pub pid: u32,
    /// That process's name (proc(5), `comm`): any bytes, chosen by itself.
    pub name: Vec<u8>,
    /// What is mounted there.
    pub mounts: Vec<Mount>,
}

/// The mount namespaces of other processes, one process for each, as far as `/proc` may be read (others' processes need
/// `CAP_SYS_PTRACE`).
#[must_use]
pub fn elsewhere() -> Vec<Namespace> {
    let namespace_of = |process: &Path| fs::read_link(process.join("ns/mnt")).ok();
    let mut known: HashSet<PathBuf> = namespace_of(Path::new("/proc/self")).into_iter().collect();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let process = entry.path();
        if namespace_of(&process).is_none_or(|namespace| !known.insert(namespace)) {
            continue;
        }
        let Ok(mounts) = fs::read(process.join("mountinfo")) else { continue };
        let mut name = fs::read(process.join("comm")).unwrap_or_default();
        if name.last() == Some(&b'\n') {
            name.pop();
        }
        found.push(Namespace { pid, name, mounts: parse(&mounts) });
    }
    found
}

/// The mounts of a `mountinfo` file's bytes.
#[must_use]
pub fn parse(bytes: &[u8]) -> Vec<Mount> {
    bytes.split(|&b| b == b'\n').filter_map(line).collect()
}

fn line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let mut bytes = || fields.next().map(unescape);
    Some(Mount { id, parent, device: bytes()?, root: bytes()?, point: bytes()? })
}

/// Space, tab, newline and backslash stand as `\` and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&b, tail)) = rest.split_first() {
        let code = tail.get(..3).filter(|_| b == b'\\').and_then(octal);
        out.push(code.unwrap_or(b));
        rest = if code.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    out
}

fn octal(digits: &[u8]) -> Option<u8> {
    digits.iter().try_fold(0u8, |n, &d| match d {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(d - b'0'),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_as_the_kernel_writes_them() {
        let text = b"24 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
            36 24 0:31 /a\\040b /srv/x\\040y\\134\\012z rw - tmpfs tmpfs rw,size=64k\n";
        let mounts = parse(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].id, mounts[0].parent, mounts[0].point.as_slice()), (24, 1, &b"/"[..]));
        assert_eq!(mounts[1].root, b"/a b");
        assert_eq!(mounts[1].point, b"/srv/x y\\\nz");
        assert_eq!(mounts[1].device, b"0:31");
    }

    #[test]
    fn hostile_lines_are_passed_over() {
        let bad: [&[u8]; 7] =
            [b"", b"\n\n", b"1", b"1 2 3", b"x 2 3 4 5", b"-1 2 3 4 5", b"1 99999999999999999999 3 4 5"];
        for text in bad {
            assert_eq!(parse(text), [], "{text:?}");
        }
        assert_eq!(unescape(b"\\"), b"\\");
        assert_eq!(unescape(b"\\04"), b"\\04");
        assert_eq!(unescape(b"\\777\\089\\377"), b"\\777\\089\xff");
    }

    #[test]
    fn our_own_table_has_a_root() {
        let mut table = Table::open().unwrap();
        assert!(table.read().unwrap().iter().any(|m| m.point == b"/"));
        assert_eq!(table.read().unwrap(), table.read().unwrap());
    }

    #[test]
    fn waiting_ends_when_the_other_end_goes() {
        let table = Table::open().unwrap();
        let (reader, writer) = io::pipe().unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                loop {
                    // Other tests may mount something meanwhile.
                    if table.wait(&[reader.as_fd()]).unwrap() == Woken::Other(0) {
                        return;
                    }
                }
            });
            drop(writer);
            waiting.join().unwrap();
        });
    }
}
