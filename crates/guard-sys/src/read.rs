//! Reading a file from its first byte to its last.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;

use rustix::fs::{Advice, OFlags, fadvise, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, pread};

use crate::residency::Residency;

/// What reading does to the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheUse {
    /// What any reader does: pages that are read stay and push out others.
    Ordinary,
    /// Pages that were not there before are dropped again, those that were stay. What
    /// an application has in memory is neither pushed out nor made to look newly used.
    LeaveAsFound,
    /// What the device holds, whatever is in the page cache (`O_DIRECT`). Where a file system has
    /// no way past its cache, pages that are neither dirty nor mapped are dropped before
    /// they are read.
    FromDevice,
}

/// What `O_DIRECT` wants buffers, offsets and lengths to be multiples of, on any device.
const ALIGNMENT: usize = 4096;

/// Reads `file` in pieces of `buffer`'s size, gives each piece to `each`, and says how many bytes
/// there were. It stops early, with more than `size`, once the file has turned out to
/// be longer than `size`, which is what statx(2) said: a file that grows as fast as it
/// is read has no end.
///
/// With [`CacheUse::LeaveAsFound`] the buffer's size has to be a multiple of the page size to
/// leave the cache as it was to the page.
///
/// # Errors
/// What pread(2) says, `EIO` and so on. `Break` is what `each` broke off with.
pub fn read_whole<B>(
    file: BorrowedFd<'_>,
    size: u64,
    buffer: &mut [u8],
    cache: CacheUse,
    mut each: impl FnMut(&[u8]) -> ControlFlow<B>,
) -> io::Result<ControlFlow<B, u64>> {
    if cache == CacheUse::LeaveAsFound {
        // Only wishes: no read-ahead beyond what is asked for, and (Linux 6.3) no promotion
        // of the pages that are read. Where they are not heeded the rest still holds.
        fadvise(file, 0, None, Advice::Random).ok();
        fadvise(file, 0, None, Advice::NoReuse).ok();
    }
    // A buffer that is too short for it is read through the cache.
    let aligned = if cache == CacheUse::FromDevice { aligned(buffer) } else { None };
    let mut direct = aligned.is_some() && set_direct(file, true).is_ok();
    let buffer = match aligned {
        Some(range) => buffer.get_mut(range).unwrap_or_default(),
        None => buffer,
    };
    if cache == CacheUse::FromDevice && !direct {
        fadvise(file, 0, None, Advice::DontNeed).ok();
    }
    let mut total: u64 = 0;
    let mut residency = Residency::default();
    loop {
        if cache == CacheUse::LeaveAsFound {
            let length =
                usize::try_from(size.saturating_sub(total)).map_or(buffer.len(), |n| n.min(buffer.len()));
            residency.look(file, total, length);
        }
        let n = match pread(file, &mut *buffer, total) {
            Ok(n) => n,
            Err(Errno::INTR) => continue,
            // Not every file system that lets it be asked for can do it.
            Err(Errno::INVAL) if direct => {
                direct = false;
                set_direct(file, false)?;
                fadvise(file, 0, None, Advice::DontNeed).ok();
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        if cache == CacheUse::LeaveAsFound {
            residency.drop_absent(file);
        }
        let piece = buffer.get(..n).unwrap_or_default();
        if let (false, ControlFlow::Break(why)) = (piece.is_empty(), each(piece)) {
            return Ok(ControlFlow::Break(why));
        }
        total += n as u64;
        // A short read that ends where the file is said to end needs no further read to prove it.
        if n == 0 || total > size || (total == size && n < buffer.len()) {
            return Ok(ControlFlow::Continue(total));
        }
    }
}

/// The part of a buffer that direct reads can be made into; `None` where there is none.
fn aligned(buffer: &[u8]) -> Option<std::ops::Range<usize>> {
    let start = buffer.as_ptr().align_offset(ALIGNMENT);
    let whole = buffer.len().checked_sub(start)? / ALIGNMENT * ALIGNMENT;
    (whole > 0).then(|| start..start + whole)
}

/// From now on the handle is read past the page cache, or no longer.
fn set_direct(file: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let mut flags = fcntl_getfl(file)?;
    flags.set(OFlags::DIRECT, on);
    Ok(fcntl_setfl(file, flags)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{How, absolute};
    use std::convert::Infallible;
    use std::fs::{self, File};
    use std::os::fd::AsFd;

    fn read(path: &std::path::Path, size: u64, buffer: usize, cache: CacheUse) -> (Vec<u8>, u64) {
        let file = absolute(path, How::Read).unwrap();
        let mut all = Vec::new();
        let done = read_whole::<Infallible>(file.as_fd(), size, &mut vec![0; buffer], cache, |piece| {
            all.extend_from_slice(piece);
            ControlFlow::Continue(())
        });
        match done.unwrap() {
            ControlFlow::Continue(n) => (all, n),
        }
    }

    #[test]
    fn every_byte_whatever_the_sizes() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("f");
        for size in [0usize, 1, 4095, 4096, 4097, 8192, 20_000] {
            let content: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            fs::write(&path, &content).unwrap();
            for cache in [CacheUse::Ordinary, CacheUse::LeaveAsFound, CacheUse::FromDevice] {
                for buffer in [100, 4096, 65536] {
                    let (all, n) = read(&path, size as u64, buffer, cache);
                    assert_eq!((all == content, n), (true, size as u64), "{size} {buffer} {cache:?}");
                }
            }
        }
    }

    #[test]
    fn a_longer_file_is_not_read_to_its_end() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("f");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let (_, n) = read(&path, 10, 4096, CacheUse::Ordinary);
        assert_eq!(n, 4096);
    }

    #[test]
    fn the_caller_can_break_off() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("f");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let file = absolute(&path, How::Read).unwrap();
        let mut pieces = 0;
        let done = read_whole(file.as_fd(), 1 << 40, &mut [0; 4096], CacheUse::Ordinary, |_| {
            pieces += 1;
            if pieces == 3 { ControlFlow::Break("enough") } else { ControlFlow::Continue(()) }
        });
        assert_eq!(done.unwrap(), ControlFlow::Break("enough"));
    }
}
