//! What this process has needed so far, by getrusage(2).

#![expect(unsafe_code, reason = "rustix has no getrusage")]

use std::mem::MaybeUninit;
use std::time::Duration;

/// What was needed since the process began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blocks of 512 bytes that were read from disks, content and names alike. What was in the page cache already does
    /// not count.
    pub blocks_read: u64,
    /// Processor time of all threads, user and system.
    pub cpu: Duration,
}

/// All zero where the kernel does not tell.
#[must_use]
pub fn of_this_process() -> Usage {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage fills the struct that the pointer leads to, which lives until it returns.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0 {
        return Usage::default();
    }
    // SAFETY: it was zeroed, which is a valid value of each of its fields, and then filled.
    let usage = unsafe { usage.assume_init() };
    let micros = [usage.ru_utime, usage.ru_stime].map(|t| t.tv_sec * 1_000_000 + t.tv_usec);
    Usage {
        blocks_read: u64::try_from(usage.ru_inblock).unwrap_or(0),
        cpu: Duration::from_micros(u64::try_from(micros.iter().sum::<i64>()).unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_only_grows() {
        let before = of_this_process();
        while of_this_process().cpu == before.cpu {
            std::fs::read("/proc/self/status").unwrap();
        }
        assert!(of_this_process().blocks_read >= before.blocks_read);
    }
}
