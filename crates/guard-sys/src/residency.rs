//! Which pages of a file are in the page cache.
//!
//! By mincore(2) on a mapping that is never touched. `preadv2(RWF_NOWAIT)` would not do: on
//! Linux 5.9 and later its refusal starts to read the very pages that it says are absent.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use rustix::fs::{Advice, fadvise};

/// The kernel's page size in bytes.
pub(crate) fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        // SAFETY: sysconf takes an integer and touches no memory of ours.
        #[expect(unsafe_code, reason = "sysconf is a foreign function")]
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).unwrap_or(4096).max(1)
    })
}

/// Which pages of a file's first `length` bytes are in memory; `None` where the kernel does not tell: to a process that
/// neither owns the file nor may write it, or for a file that cannot be mapped.
#[must_use]
pub fn in_memory(file: BorrowedFd<'_>, length: usize) -> Option<Vec<bool>> {
    let mut residency = Residency::default();
    residency.look(file, 0, length).then(|| residency.pages.iter().map(|page| page & 1 == 1).collect())
}

/// A stretch of a file, and for each of its pages whether it was in memory.
#[derive(Debug, Default)]
pub(crate) struct Residency {
    start: u64,
    /// Bit 0 of each byte; the others are reserved (mincore(2)).
    pages: Vec<u8>,
}

impl Residency {
    /// Looks at `length` bytes from `start`, a multiple of the page size. False where the kernel does
    /// not tell (see [`in_memory`]): then every page counts as in memory.
    pub(crate) fn look(&mut self, file: BorrowedFd<'_>, start: u64, length: usize) -> bool {
        self.start = start;
        self.pages.clear();
        let Ok(offset) = libc::off_t::try_from(start) else { return false };
        if length == 0 || !start.is_multiple_of(page_size() as u64) {
            return length == 0;
        }
        self.pages.resize(length.div_ceil(page_size()), 1);
        // SAFETY: a new mapping at an address of the kernel's choice overlays no memory of ours.
        #[expect(unsafe_code, reason = "mapping memory")]
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_NONE,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        if at == libc::MAP_FAILED {
            return false;
        }
        // SAFETY: `at..at + length` is the mapping made above, which nobody reads or writes
        // through, so that a file cut short meanwhile cannot fault; `pages` has a byte for each page.
        #[expect(unsafe_code, reason = "mincore is a foreign function")]
        let told = unsafe { libc::mincore(at, length, self.pages.as_mut_ptr()) };
        if told != 0 {
            self.pages.fill(1);
        }
        // SAFETY: the mapping made above, to which no reference is left.
        #[expect(unsafe_code, reason = "unmapping memory")]
        let unmapped = unsafe { libc::munmap(at, length) };
        debug_assert_eq!(unmapped, 0);
        told == 0
    }

    /// Drops from the cache what was not in it when looked at.
    pub(crate) fn drop_absent(&self, file: BorrowedFd<'_>) {
        let page = page_size() as u64;
        let mut at = 0;
        for run in self.pages.chunk_by(|a, b| a & 1 == b & 1) {
            let length = run.len() as u64;
            if run.first().is_some_and(|p| p & 1 == 0) {
                let bytes = std::num::NonZeroU64::new(length * page);
                // A wish; where it is not heeded the pages are the kernel's to reclaim.
                fadvise(file, self.start + at * page, bytes, Advice::DontNeed).ok();
            }
            at += length;
        }
    }
}
