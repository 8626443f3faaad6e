//! What every child process has in common here: a group that ends as a whole, a status that is one number, and an order
//! that holds as long as standard input is open.

use std::io::{self, Read};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ExitStatus};

use rustix::process::{Pid, Signal, kill_process_group};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With this status; 128 and more is a signal's number more.
    Exited(i32),
    /// It was ended, since its time was up.
    Late,
    /// It was ended, since somebody asked for it.
    Stopped,
}

/// Sends a signal to all of the group that the child leads. Where nobody is left in it, that is what was wanted.
pub(crate) fn end_group(child: &Child, signal: Signal) {
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    leader.map(|leader| kill_process_group(leader, signal).ok());
}

/// Its own status; 128 and the signal where a signal ended it.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(255)
}

/// Does this when standard input closes: whoever gave the order is gone, or takes it back.
///
/// # Errors
/// There is no thread to wait for it.
pub(crate) fn when_taken_back(then: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new().name("order".into()).spawn(move || {
        // Nothing more comes: this ends when the pipe does.
        io::copy(&mut io::stdin().lock().take(u64::MAX), &mut io::sink()).ok();
        then();
    })?;
    Ok(())
}
