//! One step: `sh -c` in a process group of its own, ended when the order is taken back.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::PATH;

/// Taken over from the manager that started the child.
const TAKEN_OVER: [&str; 5] = ["HOME", "USER", "LOGNAME", "SHELL", "XDG_RUNTIME_DIR"];

/// After SIGTERM a step has so long before SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// The variables of everything that is run: nothing of whoever started guardd.
#[must_use]
pub fn variables(more: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = [("PATH", PATH), ("LANG", "C.UTF-8"), ("LC_ALL", "C.UTF-8")]
        .map(|(k, v)| (k.into(), v.into()))
        .into();
    all.extend(TAKEN_OVER.iter().filter_map(|&name| Some((name.to_owned(), std::env::var(name).ok()?))));
    all.extend(more.iter().map(|(k, v)| (k.clone(), v.clone())));
    all
}

/// Runs the command line until it ends or standard input closes. What it leaves behind in its group ends with it.
/// The status is its own; 128 and the signal where a signal ended it.
///
/// # Errors
/// It could not be started.
pub fn run(line: &str, environment: &BTreeMap<String, String>) -> io::Result<u8> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .env_clear()
        .envs(variables(environment))
        .process_group(0)
        .spawn()?;
    let (taken_back, is_taken_back) = mpsc::channel();
    std::thread::Builder::new().name("order".into()).spawn(move || {
        // Nothing more comes: this ends when the pipe does.
        io::copy(&mut io::stdin().lock().take(u64::MAX), &mut io::sink()).ok();
        taken_back.send(()).ok();
    })?;
    let status = wait(&mut child, &is_taken_back)?;
    end_group(&child, Signal::KILL);
    Ok(status_of(status))
}

fn wait(child: &mut Child, is_taken_back: &mpsc::Receiver<()>) -> io::Result<ExitStatus> {
    let mut ending: Option<Instant> = None;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        match is_taken_back.recv_timeout(Duration::from_millis(20)) {
            Ok(()) => {
                end_group(child, Signal::TERM);
                ending = Some(Instant::now());
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            // It has told already.
            Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(20)),
        }
        if ending.is_some_and(|since| since.elapsed() >= GRACE) {
            end_group(child, Signal::KILL);
        }
    }
}

fn end_group(child: &Child, signal: Signal) {
    let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // Nobody is left in it: that is what was wanted.
    leader.map(|leader| kill_process_group(leader, signal).ok());
}

fn status_of(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|s| 128 + s)).unwrap_or(255);
    u8::try_from(code).unwrap_or(255)
}
