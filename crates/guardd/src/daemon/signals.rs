//! Signals: stop, reload, reopen.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
pub(super) enum Asked {
    /// SIGTERM or SIGINT, by its name.
    Stop(&'static str),
    /// SIGHUP.
    Reload,
    /// SIGUSR1: the log files were rotated.
    Reopen,
}

/// The signals that the daemon listens to.
pub(super) struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
    usr1: Signal,
}

impl Signals {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
            usr1: signal(SignalKind::user_defined1())?,
        })
    }

    pub(super) async fn next(&mut self) -> Asked {
        tokio::select! {
            _ = self.term.recv() => Asked::Stop("SIGTERM"),
            _ = self.int.recv() => Asked::Stop("SIGINT"),
            _ = self.hup.recv() => Asked::Reload,
            _ = self.usr1.recv() => Asked::Reopen,
        }
    }

    /// From now on SIGTERM and SIGINT end the process at once: whoever sends a
    /// second one does not want to wait. What it was doing is recovered at the next start.
    pub(super) fn next_stop_forces_the_exit(mut self) {
        tokio::spawn(async move {
            tokio::select! {
                _ = self.term.recv() => {}
                _ = self.int.recv() => {}
            }
            tracing::warn!("told to stop a second time: ending at once");
            guard_sys::process::end_now(1);
        });
    }
}
