//! Starts a child of [`crate::worker`] as another user and listens to it.
//!
//! Where systemd runs the machine the child is a transient service that PID 1 starts: a process of the daemon's own would
//! have its sandbox, and could not be another user. Elsewhere it is a process group of its own. The order goes through
//! standard input, so that nothing of it is on a command line; when that is closed the child ends with all it started,
//! which also happens when guardd dies.

mod child;
mod look;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;

pub use crate::child::End;
use crate::child::{code, end_group};
use crate::worker::Spec;
use child::Listened;
pub use look::LookError;

/// How children are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As transient services.
    Systemd,
    /// As process groups of this process.
    Group,
}

/// Starts children.
#[derive(Debug, Clone)]
pub struct Runner {
    /// The program that has the worker.
    program: PathBuf,
    way: Way,
}

/// One child to start.
#[derive(Debug)]
pub struct Job<'a> {
    /// The transient service's name without `.service`.
    pub unit: &'a str,
    /// The user it runs as.
    pub user: &'a str,
    /// What it is to do.
    pub spec: &'a Spec,
    /// When it has to be done.
    pub deadline: Duration,
}

/// What came out of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A child that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub end: End,
    /// How long it ran.
    pub took: Duration,
}

/// A child could not be started or listened to.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct RunError {
    what: String,
    source: io::Error,
}

fn cannot(what: impl Into<String>) -> impl FnOnce(io::Error) -> RunError {
    |source| RunError { what: what.into(), source }
}

/// Bytes of one child that are passed on; what comes after is read and dropped.
pub const MOST_OUTPUT: usize = 8 << 20;

/// How long a child that was told to end has until it is ended by force.
const PATIENCE: Duration = Duration::from_secs(10);

impl Runner {
    /// A runner for this machine, with this program's own worker.
    ///
    /// # Errors
    /// This program cannot be found.
    pub fn here() -> io::Result<Self> {
        let program = std::env::current_exe()?;
        // After an upgrade the name is right and the file another.
        let text = program.to_string_lossy();
        let program = text.strip_suffix(" (deleted)").map(PathBuf::from).unwrap_or_else(|| program.clone());
        let is_systemd = std::path::Path::new("/run/systemd/system").is_dir();
        let way = if is_systemd && rustix::process::geteuid().is_root() { Way::Systemd } else { Way::Group };
        Ok(Self { program, way })
    }

    /// How it starts children.
    #[must_use]
    pub fn way(&self) -> Way {
        self.way
    }

    /// Runs a child to its end. `heard` gets what it prints, as it comes. `stop` ends it.
    ///
    /// # Errors
    /// It could not be started, or its output not be read. A child that fails is no error.
    pub fn run(
        &self,
        job: &Job<'_>,
        stop: &AtomicBool,
        heard: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Ended, RunError> {
        let began = Instant::now();
        let mut command = self.command(job)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let what = format!("start {}", command.get_program().display());
        let mut child = command.spawn().map_err(cannot(what))?;
        let mut order = serde_json::to_vec(job.spec).map_err(|e| cannot("write the order")(e.into()))?;
        order.push(b'\n');
        let mut input = child.stdin.take();
        if let Some(pipe) = &mut input {
            // A child that could not begin says why itself.
            pipe.write_all(&order).and_then(|()| pipe.flush()).ok();
        }
        let mut listened = Listened::to(&mut child).map_err(cannot("listen to a child"))?;
        let mut asked: Option<(End, Instant)> = None;
        let status = loop {
            listened.pass_on(heard);
            if let Some(status) = child.try_wait().map_err(cannot("wait for a child"))? {
                break status;
            }
            if asked.is_none() {
                let why = match () {
                    () if stop.load(Ordering::Relaxed) => Some(End::Stopped),
                    () if began.elapsed() >= job.deadline => Some(End::Late),
                    () => None,
                };
                if let Some(why) = why {
                    input = None;
                    asked = Some((why, Instant::now()));
                }
            }
            if asked.is_some_and(|(_, at)| at.elapsed() >= PATIENCE) {
                self.end_by_force(job, &mut child);
            }
        };
        drop(input);
        listened.finish(heard);
        let end = asked.map_or(End::Exited(code(status)), |(why, _)| why);
        Ok(Ended { end, took: began.elapsed() })
    }

    /// Ends what a guardd that is gone had started and what still runs, by the beginning of its units' names.
    ///
    /// # Errors
    /// systemd could not be asked.
    pub fn end_left_over(&self, prefix: &str) -> Result<(), RunError> {
        if self.way == Way::Group {
            // Their order was taken back when guardd died.
            return Ok(());
        }
        let status = Command::new("systemctl")
            .args(["stop", "--quiet"])
            .arg(format!("{prefix}*.service"))
            .stdin(Stdio::null())
            .output()
            .map_err(cannot("run systemctl"))?;
        if status.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&status.stderr).trim().to_owned();
        Err(cannot("end what was left over")(io::Error::other(said)))
    }

    fn command(&self, job: &Job<'_>) -> Result<Command, RunError> {
        match self.way {
            Way::Systemd => Ok(self.service(job)),
            Way::Group => {
                child::own_group(&self.program, job.user).map_err(cannot(format!("run as {}", job.user)))
            }
        }
    }

    fn service(&self, job: &Job<'_>) -> Command {
        let mut command = Command::new("systemd-run");
        // Only words of ours, and a program of ours: systemd would expand `$` and `%` in anything else.
        command
            .args(["--quiet", "--collect", "--wait", "--pipe", "--service-type=exec"])
            .arg(format!("--unit={}", job.unit))
            .arg(format!("--uid={}", job.user))
            .arg(format!("--description=A step of guardd's deployment ({})", job.unit))
            .arg("--property=TimeoutStopSec=10s")
            // guardd ends it earlier by itself; this holds where guardd is not there to do so.
            .arg(format!("--property=RuntimeMaxSec={}s", job.deadline.as_secs().saturating_add(60)))
            .arg("--")
            .arg(&self.program)
            .arg("deploy-worker");
        command
    }

    fn end_by_force(&self, job: &Job<'_>, child: &mut std::process::Child) {
        match self.way {
            // `stop` waits for TimeoutStopSec at most; then all of it is gone.
            Way::Systemd => {
                let stopped = Command::new("systemctl")
                    .args(["stop", "--quiet"])
                    .arg(format!("{}.service", job.unit))
                    .stdin(Stdio::null())
                    .output();
                if stopped.is_err() {
                    child.kill().ok();
                }
            }
            Way::Group => end_group(child, Signal::KILL),
        }
    }
}
