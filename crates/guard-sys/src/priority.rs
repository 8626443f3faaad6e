//! Standing back for others, and going before them.

use std::io;

/// `IOPRIO_WHO_PROCESS` (linux/ioprio.h): one thread.
const WHO_THREAD: libc::c_int = 1;
/// `IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0)`.
const IDLE: libc::c_int = 3 << 13;

/// Gives the calling thread idle disk priority: it is served when nobody else wants the
/// disk (ioprio_set(2); schedulers without priorities do not heed it). A thread
/// that it starts inherits it.
///
/// # Errors
/// What ioprio_set(2) says; `EPERM` before Linux 2.6.25 only.
pub fn set_disk_idle() -> io::Result<()> {
    // SAFETY: ioprio_set takes three integers and touches no memory of ours.
    #[expect(unsafe_code, reason = "neither libc nor rustix wraps ioprio_set")]
    let done = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_THREAD, 0, IDLE) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Nice value of [`go_first`].
const FIRST: i32 = -10;
/// Nanoseconds that a thread which goes first asks for at a time, the least there is: since Linux 6.12 one that asks
/// for little does not wait until another has had its share, usually 3 ms.
const SHARE: u64 = 100_000;

/// Lets the calling thread run before others that want the processor (nice -10), at once and for a moment, for one that
/// has next to nothing to do and must not be late with it.
///
/// # Errors
/// `EACCES` or `EPERM` without `CAP_SYS_NICE` and beyond what `RLIMIT_NICE` allows.
pub fn go_first() -> io::Result<()> {
    // On Linux this is the calling thread alone (setpriority(2)).
    rustix::process::setpriority_process(None, FIRST)?;
    ask_for(SHARE)
}

/// `struct sched_attr`, first version (linux/sched/types.h).
#[repr(C)]
struct Scheduling {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

const _: () = assert!(size_of::<Scheduling>() == 48);

/// How much processor time the calling thread has at a time; before Linux 6.12 that is the kernel's business.
fn ask_for(runtime: u64) -> io::Result<()> {
    // The usual policy, `SCHED_OTHER`, is 0.
    let wanted = Scheduling {
        size: 48,
        policy: 0,
        flags: 0,
        nice: FIRST,
        priority: 0,
        runtime,
        deadline: 0,
        period: 0,
    };
    // SAFETY: sched_setattr reads as many bytes as the struct says that it has, during the call alone, and writes to no
    // memory of ours.
    #[expect(unsafe_code, reason = "neither libc nor rustix wraps sched_setattr")]
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const wanted, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_goes_first_alone() {
        let nice = || rustix::process::getpriority_process(None).unwrap();
        let before = nice();
        std::thread::spawn(move || match go_first() {
            Ok(()) => assert_eq!(nice(), -10),
            Err(e) => eprintln!("skipped: {e}"),
        })
        .join()
        .unwrap();
        assert_eq!(nice(), before);
    }

    #[test]
    fn the_thread_has_it_afterwards() {
        std::thread::spawn(|| {
            set_disk_idle().unwrap();
            // SAFETY: ioprio_get takes two integers and touches no memory of ours.
            #[expect(unsafe_code, reason = "neither libc nor rustix wraps ioprio_get")]
            let now = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_THREAD, 0) };
            assert_eq!(now, libc::c_long::from(IDLE));
        })
        .join()
        .unwrap();
    }
}
