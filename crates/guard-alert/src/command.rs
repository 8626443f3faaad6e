//! The notify command: each new alert as JSON on its standard input.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guard_model::Alert;
use guard_model::ledger::Record;
use guard_model::state::apply_to_alert;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::bell::Bell;
use crate::error::OutletError;
use crate::outlet::Outlet;
use crate::text::free;

/// Runs a command for each alert of one environment.
pub(crate) struct Notify {
    environment: String,
    command: Vec<String>,
    deadline: Duration,
    bell: Arc<Bell>,
}

/// One alert, as it is handed over.
pub(crate) struct Message {
    alert: Alert,
    undurable: bool,
}

/// The search path that the command gets; nothing of ours is inherited.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// As much of its stderr as an error quotes, in bytes.
const STDERR: usize = 1024;
/// How often a running command is looked at for a stop of guardd.
const GLANCE: Duration = Duration::from_millis(100);

impl Notify {
    pub(crate) fn new(
        environment: String,
        command: Vec<String>,
        deadline: Duration,
        bell: Arc<Bell>,
    ) -> Self {
        Self { environment, command, deadline, bell }
    }

    /// The alert that a record opens, where it is this environment's or the whole daemon's.
    fn message(&self, record: &Record, undurable: bool) -> Option<Message> {
        let ours = record.environment.as_ref().is_none_or(|e| *e == self.environment);
        let alert = apply_to_alert(None, record).filter(|_| ours)?;
        Some(Message { alert, undurable })
    }

    fn start(&self, message: &Message) -> Result<Child, OutletError> {
        let program = self.program();
        let alert = &message.alert;
        let mut json = serde_json::to_vec(alert).map_err(OutletError::Json)?;
        json.push(b'\n');
        let failed = |source| OutletError::Start { program: program.clone(), source };
        // A file, not a pipe: a command that never reads it is not waited for.
        let input =
            rustix::fs::memfd_create("guardd-alert", MemfdFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
        let mut input = File::from(input);
        input.write_all(&json).and_then(|()| input.rewind()).map_err(failed)?;
        let mut command = Command::new(&program);
        command
            .args(self.command.get(1..).unwrap_or_default())
            .env_clear()
            .env("PATH", PATH)
            .env("LANG", "C.UTF-8")
            .env("GUARDD_ALERT", alert.id.to_string())
            .env("GUARDD_ENVIRONMENT", &alert.environment)
            .env("GUARDD_SEVERITY", alert.severity.to_string())
            .env("GUARDD_UNDURABLE", if message.undurable { "yes" } else { "no" })
            .current_dir("/")
            .stdin(Stdio::from(input))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0);
        command.spawn().map_err(failed)
    }

    fn program(&self) -> String {
        self.command.first().cloned().unwrap_or_default()
    }

    fn finish(&self, mut child: Child) -> Result<(), OutletError> {
        let mut stderr = Vec::new();
        let watched = self.wait(&mut child, &mut stderr);
        let over = !matches!(watched, Ok(End::Exited));
        if over {
            // Before it is reaped, so that its number cannot be somebody else's yet.
            kill_group(&child);
        }
        let program = self.program();
        let status =
            child.wait().map_err(|source| OutletError::Start { program: program.clone(), source })?;
        let stderr = free(String::from_utf8_lossy(&stderr).trim());
        match watched {
            Ok(End::Exited) if status.success() => Ok(()),
            Ok(End::Exited) => Err(OutletError::Failed { program, status: in_words(status), stderr }),
            Ok(End::Late) => Err(OutletError::TimedOut { program, after: self.deadline, stderr }),
            Ok(End::Stopping) => Err(OutletError::Stopping),
            Err(e) => Err(OutletError::Start { program, source: e.into() }),
        }
    }

    /// Waits for the command's end, reading its stderr so that it never blocks on it.
    fn wait(&self, child: &mut Child, said: &mut Vec<u8>) -> Result<End, Errno> {
        let end = Instant::now() + self.deadline;
        let process =
            pid_of(child).ok_or(Errno::SRCH).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))?;
        let mut stderr = child.stderr.take();
        if let Some(pipe) = &stderr {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        loop {
            let left = end.saturating_duration_since(Instant::now()).min(GLANCE);
            let mut fds = vec![PollFd::new(&process, PollFlags::IN)];
            if let Some(pipe) = &stderr {
                fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(e),
            }
            let exited = fds.first().is_some_and(|f| !f.revents().is_empty());
            drop(fds);
            if let Some(pipe) = stderr.as_mut()
                && !drain(pipe, said)
            {
                stderr = None;
            }
            if exited {
                return Ok(End::Exited);
            }
            if Instant::now() >= end {
                return Ok(End::Late);
            }
            if self.bell.is_over() {
                return Ok(End::Stopping);
            }
        }
    }
}

enum End {
    Exited,
    Late,
    Stopping,
}

fn pid_of(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

fn kill_group(child: &Child) {
    if let Some(group) = pid_of(child) {
        // It may have ended this very moment.
        if let Err(error) = kill_process_group(group, Signal::KILL) {
            tracing::debug!(%error, "the notify command's process group cannot be killed");
        }
    }
}

/// Reads what is there and keeps the beginning; false at the end.
fn drain(pipe: &mut impl Read, kept: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    // A command that writes without end must not keep us here.
    for _ in 0..16 {
        match pipe.read(&mut buffer) {
            Ok(0) => return false,
            Ok(n) => {
                let room = STDERR.saturating_sub(kept.len());
                kept.extend_from_slice(buffer.get(..n.min(room)).unwrap_or_default());
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return e.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
    true
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

impl Outlet for Notify {
    type Piece = Message;

    fn pieces(&mut self, record: &Record) -> Vec<Message> {
        self.message(record, false).into_iter().collect()
    }

    fn undurable(&self, record: &Record) -> Vec<Message> {
        self.message(record, true).into_iter().collect()
    }

    fn deliver(&mut self, piece: &Message) -> Result<(), OutletError> {
        self.finish(self.start(piece)?)
    }
}
