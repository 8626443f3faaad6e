//! Programs that are asked something: never for longer than a time, never for more than an amount, and nothing of them
//! stays behind in their process group.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::child::{End, code, end_group};

/// Bytes of each stream that are kept; what comes after is read and dropped.
const MOST: usize = 4 << 20;

/// How soon it is noticed that the order was taken back.
const LOOK: Duration = Duration::from_millis(50);

/// Where programs run, with which variables, and until when.
#[derive(Debug)]
pub(crate) struct Context {
    /// The environment's root.
    pub(crate) root: PathBuf,
    /// Everything of a program's environment.
    pub(crate) variables: BTreeMap<String, String>,
    /// Set when whoever gave the order is gone.
    pub(crate) stop: &'static AtomicBool,
    /// When the child began.
    pub(crate) began: Instant,
}

/// What a program came to.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) end: End,
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
}

impl Output {
    pub(crate) fn is_good(&self) -> bool {
        self.end == End::Exited(0)
    }

    /// How it failed, in a few words, with the last line that it said.
    pub(crate) fn complaint(&self) -> String {
        let how = match self.end {
            End::Exited(code) => format!("exit code {code}"),
            End::Late => "it did not end in time".to_owned(),
            End::Stopped => "it was stopped".to_owned(),
        };
        let said = [&self.err, &self.out].into_iter().find_map(|text| last_line(text));
        match said {
            Some(said) => format!("{how}: {said}"),
            None => how,
        }
    }
}

/// The last line with anything in it, cut.
pub(crate) fn last_line(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let line = text.lines().rev().map(str::trim).find(|l| !l.is_empty())?;
    Some(line.chars().take(300).collect())
}

impl Context {
    /// Milliseconds since the child began.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits, or not so long where the order is taken back.
    pub(crate) fn wait(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// A program in the root, with these variables alone.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).env_clear().envs(&self.variables);
        command
    }

    /// Runs a program to its end, within the time.
    ///
    /// # Errors
    /// It could not be started.
    pub(crate) fn run(&self, command: &mut Command, time: Duration) -> io::Result<Output> {
        let until = Instant::now() + time;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let leader = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let mut streams =
            Streams { out: Stream::of(child.stdout.take())?, err: Stream::of(child.stderr.take())? };
        let listened = match leader {
            Some(pid) => self.listen(pid, until, &mut streams),
            None => Err(io::Error::other("it has no process number")),
        };
        // What it left behind in its group ends with it.
        end_group(&child, Signal::KILL);
        let status = child.wait()?;
        streams.out.drain();
        streams.err.drain();
        let end = listened?.unwrap_or(End::Exited(code(status)));
        Ok(Output { end, out: streams.out.kept, err: streams.err.kept })
    }

    /// Reads until the program ends by itself, or should.
    fn listen(&self, pid: Pid, until: Instant, streams: &mut Streams) -> io::Result<Option<End>> {
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        loop {
            if self.is_stopped() {
                return Ok(Some(End::Stopped));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Some(End::Late));
            }
            let wait = Timespec::try_from(left.min(LOOK)).map_err(io::Error::other)?;
            let mut wanted = vec![PollFd::new(&process, PollFlags::IN)];
            wanted.extend([&streams.out, &streams.err].into_iter().filter_map(|s| {
                s.file.as_ref().map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN))
            }));
            match poll(&mut wanted, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            let has_ended = wanted.first().is_some_and(|p| !p.revents().is_empty());
            drop(wanted);
            streams.out.drain();
            streams.err.drain();
            if has_ended {
                return Ok(None);
            }
        }
    }
}

struct Streams {
    out: Stream,
    err: Stream,
}

/// One stream of a program, read without ever waiting for it.
struct Stream {
    file: Option<File>,
    kept: Vec<u8>,
}

impl Stream {
    fn of(pipe: Option<impl Into<std::os::fd::OwnedFd>>) -> io::Result<Self> {
        let file = pipe.map(|p| File::from(p.into()));
        if let Some(file) = &file {
            rustix::io::ioctl_fionbio(file, true)?;
        }
        Ok(Self { file, kept: Vec::new() })
    }

    fn drain(&mut self) {
        let mut buffer = [0; 16 << 10];
        // A program that never stops talking does not hold us here.
        for _ in 0..64 {
            let Some(file) = &mut self.file else { return };
            match file.read(&mut buffer) {
                Ok(0) => self.file = None,
                Ok(read) => {
                    let room = MOST.saturating_sub(self.kept.len()).min(read);
                    self.kept.extend_from_slice(buffer.get(..room).unwrap_or_default());
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.file = None,
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    static NEVER: AtomicBool = AtomicBool::new(false);

    pub(crate) fn context(root: &std::path::Path) -> Context {
        let variables = [("PATH".to_owned(), crate::worker::PATH.to_owned())].into();
        Context { root: root.to_owned(), variables, stop: &NEVER, began: Instant::now() }
    }

    fn sh(line: &str, time: Duration) -> Output {
        let context = context(std::path::Path::new("/"));
        context.run(context.command("sh").args(["-c", line]), time).unwrap()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_it_said_and_how_it_ended() {
        let done = sh("echo out; echo err >&2; exit 3", LONG);
        assert_eq!((done.end, &*done.out, &*done.err), (End::Exited(3), &b"out\n"[..], &b"err\n"[..]));
        assert_eq!(done.complaint(), "exit code 3: err");
        assert_eq!(sh("kill -9 $$", LONG).end, End::Exited(137));
        assert!(sh("true", LONG).is_good());
        assert_eq!(sh("env | grep -v -e ^PWD= -e ^_= -e ^SHLVL= -e ^OLDPWD=", LONG).out, {
            format!("PATH={}\n", crate::worker::PATH).into_bytes()
        });
    }

    #[test]
    fn its_time_is_bounded_with_all_it_started() {
        let began = Instant::now();
        // Both processes hold the pipe, and one of them outlives the shell.
        let late = sh("echo early; sleep 1000 & sleep 1000", Duration::from_millis(300));
        assert_eq!((late.end, &*late.out), (End::Late, &b"early\n"[..]));
        let left = sh("sleep 1000 & exit 0", LONG);
        assert!(left.is_good());
        assert!(began.elapsed() < LONG, "{:?}", began.elapsed());
    }

    #[test]
    fn much_output_is_cut_and_not_waited_for() {
        let much = sh("head -c 9000000 /dev/zero", LONG);
        assert!(much.is_good());
        assert_eq!(much.out.len(), MOST);
    }
}
