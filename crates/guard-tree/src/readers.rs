//! More threads where a disk is waited for.
//!
//! A disk answers many readers at once; a processor hashes no faster for them. Whether this process reads from a disk is
//! seen from what the kernel counts, so that a scan of what is in the page cache keeps to the threads that it was given.

use std::io;
use std::time::{Duration, Instant};

use guard_sys::usage::{Usage, of_this_process};

/// More bring nothing.
const MOST: usize = 32;
/// How often it is looked whether there is a disk to wait for.
const EVERY: Duration = Duration::from_millis(20);
/// Blocks of 512 bytes within that time from which on there is: 25 MiB a second.
const FROM_DISK: u64 = 1024;

/// Starts more threads, twice as many each time, as long as a disk is waited for and tasks wait, until `watch` (which waits
/// so long and says how many wait) says that there will be none any more.
pub(crate) fn add(
    workers: usize,
    watch: impl Fn(Duration) -> Option<usize>,
    start: impl Fn(usize) -> io::Result<()>,
) {
    let mut running = workers;
    let (mut before, mut since) = (of_this_process(), Instant::now());
    while running < MOST {
        let Some(waiting) = watch(EVERY) else { return };
        let (now, passed) = (of_this_process(), since.elapsed());
        if waiting > 0 && is_waiting(before, now, passed, workers) {
            let wanted = (running * 2).min(MOST);
            while running < wanted {
                if let Err(e) = start(running) {
                    tracing::debug!(error = %e, readers = running, "no more threads for a scan");
                    return;
                }
                running += 1;
            }
        }
        (before, since) = (now, Instant::now());
    }
}

/// Much comes from a disk, and the processors that the scan was given have time left.
fn is_waiting(before: Usage, now: Usage, passed: Duration, workers: usize) -> bool {
    let cores = u32::try_from(workers).unwrap_or(u32::MAX);
    let cpu = now.cpu.saturating_sub(before.cpu);
    now.blocks_read.saturating_sub(before.blocks_read) >= FROM_DISK
        && cpu < passed.saturating_mul(cores) * 3 / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn usage(blocks_read: u64, cpu: u64) -> Usage {
        Usage { blocks_read, cpu: Duration::from_millis(cpu) }
    }

    #[test]
    fn a_disk_is_waited_for_where_it_is_read_and_processors_rest() {
        let waits = |blocks: u64, cpu: u64| is_waiting(usage(7, 100), usage(7 + blocks, 100 + cpu), EVERY, 2);
        assert!(waits(FROM_DISK, 10));
        assert!(!waits(FROM_DISK - 1, 10), "from the page cache");
        assert!(!waits(FROM_DISK, 35), "the processors are busy");
    }

    #[test]
    fn nobody_is_added_once_all_is_done() {
        let (asked, started) = (Cell::new(0), Cell::new(0));
        let watch = |_| {
            asked.set(asked.get() + 1);
            (asked.get() < 3).then_some(5)
        };
        add(2, watch, |_| {
            started.set(started.get() + 1);
            Ok(())
        });
        assert_eq!(asked.get(), 3);
    }
}
