//! A child process: how it becomes another user, and what it prints.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use nix::unistd::User;

use super::{MOST_OUTPUT, Stream};
use crate::worker::PATH;

/// How long it is waited for what a child printed last, where something that it left behind holds the pipe.
const REMAINS: Duration = Duration::from_secs(1);

/// The worker as that user, in a process group of its own.
pub(super) fn own_group(program: &Path, user: &str) -> io::Result<Command> {
    let entry = User::from_name(user)?.ok_or_else(|| io::Error::other("there is no such user"))?;
    let own = nix::unistd::geteuid();
    let mut command = if entry.uid == own {
        Command::new(program)
    } else if own.is_root() {
        // With the user's groups, which the standard library would leave out.
        let mut command = Command::new("setpriv");
        command
            .arg(format!("--reuid={}", entry.uid))
            .arg(format!("--regid={}", entry.gid))
            .args(["--init-groups", "--inh-caps=-all", "--"])
            .arg(program);
        command
    } else {
        return Err(io::Error::other("guardd is neither root nor this user"));
    };
    command
        .arg("deploy-worker")
        .env_clear()
        .env("PATH", PATH)
        .env("HOME", &entry.dir)
        .env("USER", user)
        .env("LOGNAME", user)
        .env("SHELL", &entry.shell)
        .process_group(0);
    Ok(command)
}

/// What a child prints, on both its streams.
pub(super) struct Listened {
    pieces: Receiver<(Stream, Vec<u8>)>,
    passed_on: usize,
}

impl Listened {
    pub(super) fn to(child: &mut Child) -> io::Result<Self> {
        let (sender, pieces) = channel();
        if let Some(out) = child.stdout.take() {
            listen(Stream::Out, out, sender.clone())?;
        }
        if let Some(err) = child.stderr.take() {
            listen(Stream::Err, err, sender)?;
        }
        Ok(Self { pieces, passed_on: 0 })
    }

    /// Passes on what has come, or waits a moment for something.
    pub(super) fn pass_on(&mut self, heard: &mut dyn FnMut(Stream, &[u8])) {
        match self.pieces.recv_timeout(Duration::from_millis(20)) {
            Ok(piece) => self.one(piece, heard),
            Err(RecvTimeoutError::Timeout) => {}
            // Both streams are closed, and the child is about to end.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(Duration::from_millis(5)),
        }
    }

    /// Passes on the rest.
    pub(super) fn finish(&mut self, heard: &mut dyn FnMut(Stream, &[u8])) {
        let until = Instant::now() + REMAINS;
        while let Ok(piece) = self.pieces.recv_timeout(until.saturating_duration_since(Instant::now())) {
            self.one(piece, heard);
        }
    }

    fn one(&mut self, (stream, bytes): (Stream, Vec<u8>), heard: &mut dyn FnMut(Stream, &[u8])) {
        let room = MOST_OUTPUT.saturating_sub(self.passed_on);
        let piece = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.passed_on += piece.len();
        if !piece.is_empty() {
            heard(stream, piece);
        }
    }
}

fn listen(
    stream: Stream,
    mut from: impl Read + Send + 'static,
    to: Sender<(Stream, Vec<u8>)>,
) -> io::Result<()> {
    std::thread::Builder::new().name("output".into()).spawn(move || {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            let piece = buffer.get(..read).unwrap_or_default().to_vec();
            if to.send((stream, piece)).is_err() {
                return;
            }
        }
    })?;
    Ok(())
}
