//! Does anybody have a file open for writing? And who?
//!
//! A mode or an inode flag binds whoever opens a file from then on; a descriptor or a shared
//! mapping from before goes on writing. The kernel keeps count of them, and
//! refuses a read lease (fcntl(2), `F_SETLEASE`) as long as there is one, whichever process
//! and namespace holds it. That is the proof; who it is only `/proc` tells, as far as it may be read.
#![expect(unsafe_code, reason = "fcntl(2) with F_SETSIG and F_SETLEASE has no safe wrapper")]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::io::Errno;

use crate::stat::Stat;

/// asm-generic/fcntl.h; parisc alone, which guardd does not run on, has another number.
const F_SETSIG: libc::c_int = 10;

/// What a read lease tells of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// There is no writable descriptor or shared writable mapping anywhere.
    None,
    /// There is at least one.
    Some,
}

/// Takes a read lease on a regular file and gives it back at once. `file` has to be open for
/// reading only. Whoever opens the file for writing within those microseconds waits as long.
///
/// # Errors
/// `EACCES` where this process is neither the file's owner nor has `CAP_LEASE`; `EINVAL` or
/// `ENOLCK` where the file system knows no leases (NFS, FUSE), or for another kind of file.
pub fn test(file: BorrowedFd<'_>) -> io::Result<Writers> {
    // A writer that comes in between is announced to this process by SIGIO, whose default is to
    // end it. SIGURG is ignored by default.
    set(file, F_SETSIG, libc::SIGURG)?;
    match set(file, libc::F_SETLEASE, libc::F_RDLCK) {
        Ok(()) => {
            set(file, libc::F_SETLEASE, libc::F_UNLCK)?;
            Ok(Writers::None)
        }
        Err(Errno::AGAIN) => Ok(Writers::Some),
        Err(e) => Err(e.into()),
    }
}

fn set(file: BorrowedFd<'_>, command: libc::c_int, value: libc::c_int) -> Result<(), Errno> {
    // SAFETY: the descriptor is borrowed, hence open during the call; the commands that are
    // handed in here, F_SETSIG and F_SETLEASE, take an int and touch no memory of ours.
    let done = unsafe { libc::fcntl(file.as_raw_fd(), command, value) };
    if done == -1 {
        let code = io::Error::last_os_error();
        return Err(Errno::from_io_error(&code).unwrap_or(Errno::IO));
    }
    Ok(())
}

/// A process that can write to a file through what it opened before.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Writer {
    /// Which of the files asked for: device (major << 32 | minor) and inode.
    pub identity: (u64, u64),
    /// How many hard links that file has now; 0 where all its names are gone.
    pub names: u32,
    /// Its process id in this process's namespace.
    pub pid: u32,
    /// Its name (proc(5), `comm`): any bytes, chosen by itself.
    pub name: Vec<u8>,
}

/// The processes that hold one of these files (device, inode) open for writing or mapped to be
/// written, sorted by file and process id. As good as `/proc` may be read: others' processes
/// need `CAP_SYS_PTRACE`, and one that comes or goes meanwhile may be missed.
#[must_use]
pub fn who(files: &[(u64, u64)]) -> Vec<Writer> {
    let mut found = Vec::new();
    // Without /proc nobody can be named, which is all that this is for.
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let process = entry.path();
        let mut held = descriptors(&process, files);
        held.extend(mappings(&process, files));
        held.sort_unstable();
        held.dedup();
        if held.is_empty() {
            continue;
        }
        let mut name = fs::read(process.join("comm")).unwrap_or_default();
        if name.last() == Some(&b'\n') {
            name.pop();
        }
        found.extend(held.into_iter().map(|Held { identity, names }| Writer {
            identity,
            names,
            pid,
            name: name.clone(),
        }));
    }
    found.sort();
    found
}

/// A file that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Held {
    identity: (u64, u64),
    names: u32,
}

/// Which of `files` the process has descriptors on that can write.
fn descriptors(process: &Path, files: &[(u64, u64)]) -> Vec<Held> {
    let mut held = Vec::new();
    for entry in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
        let Some(file) = led_to(&entry.path()).filter(|h| files.contains(&h.identity)) else { continue };
        let info = fs::read_to_string(process.join("fdinfo").join(entry.file_name())).unwrap_or_default();
        let flags = info.lines().find_map(|l| l.strip_prefix("flags:"));
        let flags = flags.and_then(|f| libc::c_int::from_str_radix(f.trim(), 8).ok());
        if flags.is_some_and(|f| f & libc::O_ACCMODE != libc::O_RDONLY) {
            held.push(file);
        }
    }
    held
}

/// Which of `files` the process has shared mappings of that were made to be written. One that is for
/// reading now can be made writable again (mprotect(2)).
fn mappings(process: &Path, files: &[(u64, u64)]) -> Vec<Held> {
    let Ok(maps) = fs::read(process.join("maps")) else { return Vec::new() };
    let mut held = Vec::new();
    for line in maps.split(|&b| b == b'\n') {
        // address perms offset dev inode path
        let mut words = line.split(|&b| b == b' ').filter(|w| !w.is_empty());
        let mut word = || words.next().and_then(|w| std::str::from_utf8(w).ok());
        let (Some(range), Some(perms), Some(_), Some(dev), Some(ino)) =
            (word(), word(), word(), word(), word())
        else {
            continue;
        };
        let Some(ino) = ino.parse().ok().filter(|ino| files.iter().any(|f| f.1 == *ino)) else { continue };
        if !perms.ends_with('s') || !(perms.contains('w') || may_be_written(process, range)) {
            continue;
        }
        // `dev` is not what stat(2) says on btrfs and overlayfs; the mapping's own link is, where
        // it may be followed (CAP_SYS_ADMIN or CAP_CHECKPOINT_RESTORE).
        let file = led_to(&process.join("map_files").join(range)).or_else(|| {
            let names = if line.ends_with(b" (deleted)") { 0 } else { 1 };
            Some(Held { identity: (device(dev)?, ino), names })
        });
        held.extend(file.filter(|h| files.contains(&h.identity)));
    }
    held
}

/// Was a shared mapping made through a descriptor that can write? `smaps` says so: the kernel takes the
/// flag `sh` from the others (do_mmap in mm/mmap.c).
fn may_be_written(process: &Path, range: &str) -> bool {
    let Ok(smaps) = fs::read(process.join("smaps")) else { return false };
    let mut lines = smaps.split(|&b| b == b'\n').skip_while(|line| !line.starts_with(range.as_bytes()));
    let flags = lines.find_map(|line| line.strip_prefix(b"VmFlags:"));
    flags.is_some_and(|flags| flags.split(|&b| b == b' ').any(|flag| flag == b"sh"))
}

/// `fd:01` of proc(5), as major << 32 | minor.
fn device(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(
        u64::from(u32::from_str_radix(major, 16).ok()?) << 32
            | u64::from(u32::from_str_radix(minor, 16).ok()?),
    )
}

/// What a link of proc(5) leads to. A file server that does not answer is not asked.
fn led_to(link: &Path) -> Option<Held> {
    let how = AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    let stat = Stat::from(&statx(CWD, link, how, StatxFlags::INO | StatxFlags::NLINK).ok()?);
    Some(Held { identity: stat.identity(), names: stat.nlink })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{How, absolute};
    use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};
    use std::fs::{File, OpenOptions};
    use std::os::fd::AsFd;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn file(top: &tempfile::TempDir) -> PathBuf {
        let path = top.path().join("f");
        fs::write(&path, vec![b'x'; 4096]).unwrap();
        path
    }

    fn tested(path: &Path) -> Writers {
        test(absolute(path, How::Read).unwrap().as_fd()).unwrap()
    }

    fn own_part(path: &Path) -> Vec<u32> {
        let identity = crate::stat::absolute(path).unwrap().identity();
        who(&[identity]).into_iter().map(|w| w.pid).collect()
    }

    #[test]
    fn a_descriptor_counts_as_long_as_it_can_write() {
        let top = tempfile::tempdir().unwrap();
        let path = file(&top);
        assert_eq!(tested(&path), Writers::None);
        let reader = File::open(&path).unwrap();
        assert_eq!(tested(&path), Writers::None);
        assert!(own_part(&path).is_empty());
        let writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert_eq!(tested(&path), Writers::Some);
        assert_eq!(own_part(&path), [std::process::id()]);
        let identity = crate::stat::absolute(&path).unwrap().identity();
        fs::hard_link(&path, top.path().join("g")).unwrap();
        let names = || who(&[identity]).into_iter().map(|w| w.names).collect::<Vec<_>>();
        assert_eq!(names(), [2]);
        fs::remove_file(top.path().join("g")).unwrap();
        fs::remove_file(&path).unwrap();
        assert_eq!(names(), [0]);
        fs::write(&path, "another").unwrap();
        drop((reader, writer));
        assert_eq!(tested(&path), Writers::None);
    }

    #[test]
    fn a_mapping_counts_without_a_descriptor() {
        let top = tempfile::tempdir().unwrap();
        let path = file(&top);
        let writer = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice, of a file that is not truncated.
        let at = unsafe { mmap(std::ptr::null_mut(), 4096, rights, MapFlags::SHARED, &writer, 0).unwrap() };
        drop(writer);
        assert_eq!(tested(&path), Writers::Some);
        assert_eq!(own_part(&path), [std::process::id()]);
        // SAFETY: the mapping just made; nothing refers to it.
        unsafe { mprotect(at, 4096, MprotectFlags::READ).unwrap() };
        assert_eq!(tested(&path), Writers::Some, "it can be made writable again");
        assert_eq!(own_part(&path), [std::process::id()]);
        // SAFETY: as above, and it is not used afterwards.
        unsafe { munmap(at, 4096).unwrap() };
        assert_eq!(tested(&path), Writers::None);
    }

    #[test]
    fn a_private_mapping_and_a_read_only_one_do_not_count() {
        let top = tempfile::tempdir().unwrap();
        let path = file(&top);
        let reader = File::open(&path).unwrap();
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice, of a file that is not truncated.
        let at = unsafe { mmap(std::ptr::null_mut(), 4096, rights, MapFlags::PRIVATE, &reader, 0).unwrap() };
        assert_eq!(tested(&path), Writers::None);
        assert!(own_part(&path).is_empty());
        // SAFETY: the mapping just made; nothing refers to it.
        unsafe { munmap(at, 4096).unwrap() };
    }

    /// Writers that come while the lease is held must not end this process by a signal.
    #[test]
    fn survives_writers_that_come_in_between() {
        let top = tempfile::tempdir().unwrap();
        let path = file(&top);
        let done = AtomicBool::new(false);
        let reader = absolute(&path, How::Read).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    drop(OpenOptions::new().write(true).open(&path).unwrap());
                }
            });
            for _ in 0..20_000 {
                test(reader.as_fd()).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(tested(&path), Writers::None);
    }

    /// The same for certain: the lease is held until the writer waits for it.
    #[test]
    fn a_waiting_writer_gets_in_when_the_lease_is_given_back() {
        let top = tempfile::tempdir().unwrap();
        let path = file(&top);
        let reader = absolute(&path, How::Read).unwrap();
        set(reader.as_fd(), F_SETSIG, libc::SIGURG).unwrap();
        set(reader.as_fd(), libc::F_SETLEASE, libc::F_RDLCK).unwrap();
        let refused = rustix::fs::open(
            &path,
            rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK,
            rustix::fs::Mode::empty(),
        );
        // It has been announced, and we are still here.
        assert_eq!(refused.err(), Some(Errno::AGAIN));
        set(reader.as_fd(), libc::F_SETLEASE, libc::F_UNLCK).unwrap();
        OpenOptions::new().write(true).open(&path).unwrap();
    }

    #[test]
    fn other_kinds_are_an_error() {
        let top = tempfile::tempdir().unwrap();
        let dir = absolute(top.path(), How::List).unwrap();
        // A directory can be leased on some kernels, and nobody can have one open for writing.
        assert!(!matches!(test(dir.as_fd()), Ok(Writers::Some)));
    }

    #[test]
    fn device_numbers_of_proc() {
        assert_eq!(device("fd:01"), Some(0xfd << 32 | 1));
        assert_eq!(device("00:2f"), Some(0x2f));
        assert_eq!(device("x:01"), None);
        assert_eq!(device("1"), None);
    }
}
