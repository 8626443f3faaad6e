//! One step: `sh -c` in a process group of its own, ended when the order is taken back.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::PATH;
use crate::child::{code, end_group, when_taken_back};

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
    when_taken_back(move || {
        taken_back.send(()).ok();
    })?;
    let status = wait(&mut child, &is_taken_back)?;
    end_group(&child, Signal::KILL);
    Ok(u8::try_from(code(status)).unwrap_or(255))
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
