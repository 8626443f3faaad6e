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

/// Lets the calling thread run before others that want the processor (nice -10), for one that has next to nothing to do and
/// must not be late with it.
///
/// # Errors
/// `EACCES` without `CAP_SYS_NICE` and beyond what `RLIMIT_NICE` allows.
pub fn go_first() -> io::Result<()> {
    // On Linux this is the calling thread alone (setpriority(2)).
    Ok(rustix::process::setpriority_process(None, -10)?)
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
