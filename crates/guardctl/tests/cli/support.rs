//! A daemon that answers as a test says, and golden files.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use guard_api::{Call, Time};
use serde_json::{Value, json};

/// What the fake daemon does about a call.
pub(crate) enum Answer {
    /// Sends these bytes, then waits for the next call.
    Say(Vec<u8>),
    /// Sends these bytes, then closes.
    Close(Vec<u8>),
    /// Sends these bytes, then nothing more until the client is gone.
    Hang(Vec<u8>),
}

/// One reply.
pub(crate) fn reply(parameters: Value) -> Answer {
    replies([parameters])
}

/// Replies to a call with `more`, the last of which does not continue.
pub(crate) fn replies(all: impl IntoIterator<Item = Value>) -> Answer {
    let all: Vec<Value> = all.into_iter().collect();
    let last = all.len() - 1;
    let messages = all
        .into_iter()
        .enumerate()
        .flat_map(|(at, parameters)| message(&json!({ "parameters": parameters, "continues": at < last })));
    Answer::Say(messages.collect())
}

/// Replies after which the connection stays silent.
pub(crate) fn endless(all: impl IntoIterator<Item = Value>) -> Answer {
    let parts = all.into_iter().flat_map(|p| message(&json!({ "parameters": p, "continues": true })));
    Answer::Hang(parts.collect())
}

/// An error.
pub(crate) fn error(name: &str, parameters: Value) -> Answer {
    let name = if name.contains('.') { name.to_owned() } else { format!("org.guardd.Control.{name}") };
    Answer::Say(message(&json!({ "error": name, "parameters": parameters })))
}

fn message(v: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(v).unwrap();
    bytes.push(0);
    bytes
}

/// A daemon on a socket in a directory of its own. Its thread ends with the test's process.
pub(crate) struct Fake {
    dir: tempfile::TempDir,
    calls: Arc<Mutex<Vec<Value>>>,
}

impl Fake {
    pub(crate) fn new(answer: impl Fn(&Call) -> Answer + Send + Sync + 'static) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("control.sock")).unwrap();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&calls));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                std::thread::spawn(move || serve(stream.unwrap(), &*answer, &seen));
            }
        });
        Self { dir, calls }
    }

    /// Answers every call alike.
    pub(crate) fn always(answer: impl Fn() -> Answer + Send + Sync + 'static) -> Self {
        Self::new(move |_| answer())
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    /// Runs guardctl against it.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        let mut ran = run(&self.socket(), args);
        ran.calls = std::mem::take(&mut *self.calls.lock().unwrap());
        ran
    }
}

fn serve(mut stream: UnixStream, answer: &dyn Fn(&Call) -> Answer, seen: &Mutex<Vec<Value>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut bytes = Vec::new();
        reader.read_until(0, &mut bytes).unwrap_or_default();
        if bytes.pop() != Some(0) {
            return;
        }
        let call = Call::parse(&bytes).unwrap();
        seen.lock().unwrap().push(serde_json::to_value(&call).unwrap());
        // A client that is gone in the middle of an answer is not the fake's concern.
        match answer(&call) {
            Answer::Say(bytes) if stream.write_all(&bytes).is_ok() => {}
            Answer::Say(_) => return,
            Answer::Close(bytes) => return stream.write_all(&bytes).unwrap_or_default(),
            Answer::Hang(bytes) => {
                stream.write_all(&bytes).unwrap_or_default();
                reader.read_until(0, &mut Vec::new()).unwrap_or_default();
                return;
            }
        }
    }
}

/// Copies a program that is run soon. Done by another process: were it written by this one, a
/// child that another thread forks at that moment would hold it open, and running it would fail (ETXTBSY).
pub(crate) fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg(from).arg(to).status().unwrap().success());
    std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// guardctl with a clean environment.
pub(crate) fn guardctl(socket: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_guardctl"));
    command.args(args).env_clear().env("GUARDD_SOCKET", socket).env("TERM", "xterm").stdin(Stdio::null());
    command
}

/// Runs it to its end.
pub(crate) fn run(socket: &Path, args: &[&str]) -> Ran {
    let output = guardctl(socket, args).output().unwrap();
    Ran { line: args.join(" "), output, calls: Vec::new(), socket: socket.to_owned() }
}

/// A run that has ended.
pub(crate) struct Ran {
    line: String,
    pub(crate) output: Output,
    pub(crate) calls: Vec<Value>,
    socket: PathBuf,
}

impl Ran {
    pub(crate) fn code(&self) -> i32 {
        self.output.status.code().unwrap()
    }

    pub(crate) fn stdout(&self) -> String {
        String::from_utf8(self.output.stdout.clone()).unwrap()
    }

    pub(crate) fn stderr(&self) -> String {
        String::from_utf8(self.output.stderr.clone()).unwrap()
    }

    /// Everything about the run, without what differs from run to run.
    fn text(&self) -> String {
        let mut out = format!("$ guardctl {}\nexit {}\n", self.line, self.code());
        for (name, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            if !text.is_empty() {
                out.push_str(&format!("--- {name}\n{text}"));
            }
        }
        if !self.calls.is_empty() {
            out.push_str("--- calls\n");
        }
        for call in &self.calls {
            out.push_str(&format!("{call}\n"));
        }
        let socket = self.socket.display().to_string();
        let out = out.replace(&socket, "SOCKET").replace(env!("CARGO_PKG_VERSION"), "VERSION");
        masked_processes(&masked_times(&out))
    }

    /// Compares with `tests/golden/NAME.txt`; with `UPDATE_GOLDEN` set, writes it.
    pub(crate) fn golden(&self, name: &str) {
        golden(name, &self.text());
    }

    /// Compares only what it printed.
    pub(crate) fn golden_stdout(&self, name: &str) {
        golden(name, &self.stdout());
    }
}

fn golden(name: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|v| !v.is_empty()) {
        std::fs::write(&path, now).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    if golden != now {
        panic!("{name} differs; look, then UPDATE_GOLDEN=1\n=== golden\n{golden}\n=== now\n{now}");
    }
}

/// Absolute times become `YYYY-MM-DD hh:mm:ss` of the same width.
fn masked_times(text: &str) -> String {
    const MASK: &str = "YYYY-MM-DD hh:mm:ss";
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::new();
    let mut at = 0;
    while at < chars.len() {
        let window = &chars[at..chars.len().min(at + MASK.len())];
        let is_time = window.len() == MASK.len()
            && window.iter().zip(MASK.chars()).all(|(c, m)| match m {
                '-' | ':' => *c == m,
                ' ' => matches!(c, ' ' | 'T'),
                _ => c.is_ascii_digit(),
            });
        if is_time {
            out.push_str(MASK);
            at += MASK.len();
            // The microseconds of a time on the wire.
            if chars.get(at) == Some(&'.') {
                at += 1;
                while chars.get(at).is_some_and(char::is_ascii_digit) {
                    at += 1;
                }
            }
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// Whether a guardd runs on the machine that tests is not for a golden file.
fn masked_processes(text: &str) -> String {
    let mut out = String::new();
    for line in text.split_inclusive('\n') {
        let known = line.starts_with("  a process named guardd runs, pid ")
            || line == "  no process named guardd is to be seen\n";
        out.push_str(if known { "  WHETHER A PROCESS NAMED guardd RUNS\n" } else { line });
    }
    out
}

/// A time so many seconds from now, as it is on the wire.
pub(crate) fn at(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros();
    Time(i64::try_from(now).unwrap() + seconds * 1_000_000).to_string()
}

/// What text of a daemon may hold if an intruder had a hand in it.
pub(crate) const HOSTILE: &str = "h\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\r\n\t\u{8}\u{0}\u{2066}\\ö";

/// Nothing in it drives a terminal.
pub(crate) fn assert_harmless(text: &str) {
    let bad = text.chars().find(|c| (c.is_control() && *c != '\n') || ('\u{202a}'..='\u{2069}').contains(c));
    assert_eq!(bad, None, "in {text:?}");
}
