//! One run of guardctl: its connection, its output, its end.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guard_api::method::{GetInfo, Step};
use guard_api::{Call, Client, ClientError, Exit, Known, Method, Time};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::arguments::Globals;
use crate::failure::{Failure, hints};
use crate::progress::Line;
use crate::safe::{line_json, pretty_json};
use crate::terminal::{Paint, Terminal};
use crate::{reach, refusal};

/// What a command comes to.
pub(crate) type Outcome = Result<Exit, Failure>;

/// The daemon sends a sign of progress every ten seconds.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(60);

/// An answer: as it came, for `--json`, and as this version reads it.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) json: Value,
    pub(crate) value: T,
}

/// Everything a command works with.
pub(crate) struct Ctl {
    socket: PathBuf,
    timeout: Option<Duration>,
    pub(crate) json: bool,
    pub(crate) terminal: Terminal,
    out: BufWriter<io::Stdout>,
    client: Option<Client>,
}

/// The time at which something is shown. Not that of the start: an answer may have taken minutes, and what
/// happened meanwhile is not in the future.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

impl Ctl {
    pub(crate) fn new(globals: &Globals) -> Self {
        Self {
            socket: globals.socket.clone().unwrap_or_else(guard_api::default_socket),
            timeout: globals.timeout,
            json: globals.json,
            terminal: Terminal::detect(),
            out: BufWriter::new(io::stdout()),
            client: None,
        }
    }

    /// The colours for data.
    pub(crate) fn paint(&self) -> Paint {
        self.terminal.stdout
    }

    /// Calls a method with one reply. `doing` is what the user wants: "lock".
    pub(crate) fn call<M: Method>(&mut self, doing: &str, method: &M) -> Result<Answer<M::Reply>, Failure> {
        let timeout = self.timeout.unwrap_or(Client::TIMEOUT);
        let mut connection = self.connection(timeout)?;
        let answer = one(&mut connection, method);
        self.client = Some(connection);
        answer.map_err(|e| self.explain(doing, M::NAME, e))
    }

    /// Calls a method that streams progress, shows it, and returns the result.
    pub(crate) fn call_long<M, T>(&mut self, doing: &str, method: &M) -> Result<Answer<T>, Failure>
    where
        M: Method<Reply = Step<T>>,
        T: DeserializeOwned,
    {
        let mut client = self.connection(self.timeout.unwrap_or(PROGRESS_TIMEOUT))?;
        let mut line = Line::new(self.terminal.shows_progress && !self.json);
        let outcome = steps(&mut client, method, &mut line);
        line.clear();
        self.client = Some(client);
        outcome.map_err(|e| self.explain(doing, M::NAME, e))
    }

    /// Calls a method and hands each of its replies to `each`, which says whether to go on.
    /// `endless`: silence between replies is normal.
    pub(crate) fn call_stream<M: Method>(
        &mut self,
        doing: &str,
        method: &M,
        wait: Wait,
        mut each: impl FnMut(&mut Self, Answer<M::Reply>) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut client = self.connection(self.timeout.unwrap_or(PROGRESS_TIMEOUT))?;
        let explain = |ctl: &Self, e| ctl.explain(doing, M::NAME, e);
        send_more(&mut client, method).map_err(|e| explain(self, e))?;
        loop {
            let reply = client.receive().map_err(|e| explain(self, e))?;
            let json = Value::Object(reply.parameters.clone());
            let value = client.decode(reply.parameters).map_err(|e| explain(self, e))?;
            each(self, Answer { json, value })?;
            if !reply.continues {
                return Ok(());
            }
            if wait == Wait::ForEver {
                client.set_timeout(None);
            }
        }
    }

    fn connection(&mut self, timeout: Duration) -> Result<Client, Failure> {
        if let Some(mut client) = self.client.take() {
            client.set_timeout(Some(timeout));
            return Ok(client);
        }
        Client::connect_within(&self.socket, Some(timeout)).map_err(|e| reach::explain(&self.socket, &e))
    }

    /// A call's failure in words.
    fn explain(&self, doing: &str, method: &str, e: ClientError) -> Failure {
        let version = match &e {
            ClientError::Unexpected { .. }
            | ClientError::Call(guard_api::CallError::Known(
                Known::MethodNotFound { .. } | Known::MethodNotImplemented { .. },
            )) => daemon_version(&self.socket),
            _ => None,
        };
        match e {
            ClientError::Call(e) => refusal::explain(doing, method, e, version.as_deref()),
            e => reach::explain_broken(doing, method, &e, version.as_deref()),
        }
    }

    /// Prints data.
    pub(crate) fn print(&mut self, text: &str) -> Result<(), Failure> {
        self.print_bytes(text.as_bytes())
    }

    /// Prints data that is no text.
    pub(crate) fn print_bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.out.write_all(bytes).map_err(|e| cannot_print(&e))
    }

    /// Prints a JSON document.
    pub(crate) fn print_json(&mut self, value: &Value) -> Result<(), Failure> {
        self.print(&(pretty_json(value) + "\n"))
    }

    /// Prints a JSON value on a line of its own, at once.
    pub(crate) fn print_json_line(&mut self, value: &Value) -> Result<(), Failure> {
        self.print(&(line_json(value) + "\n"))?;
        self.flush()
    }

    /// Lets go what was printed.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.out.flush().map_err(|e| cannot_print(&e))
    }

    /// Talks: a line on stderr, after what was printed so far. Silent with `--json`.
    pub(crate) fn say(&mut self, line: &str) -> Result<(), Failure> {
        self.flush()?;
        if !self.json {
            talk(&format!("{}\n", crate::safe::Safe(line)));
        }
        Ok(())
    }

    /// What to do next, on stderr. Silent with `--json`.
    pub(crate) fn hint<T: AsRef<str>>(&mut self, lines: &[T]) -> Result<(), Failure> {
        self.flush()?;
        if !self.json {
            talk(&hints(lines, self.terminal.stderr));
        }
        Ok(())
    }

    /// The one place that maps an outcome to an exit code.
    pub(crate) fn finish(mut self, outcome: Outcome) -> ExitCode {
        let outcome = outcome.and_then(|exit| self.flush().map(|()| exit));
        let exit = match outcome {
            Ok(exit) => exit,
            Err(failure) if failure.is_silent() => failure.exit(),
            Err(failure) => {
                if self.json {
                    talk(&failure.json());
                } else {
                    talk(&failure.text(self.terminal.stderr));
                }
                failure.exit()
            }
        };
        ExitCode::from(exit.code())
    }
}

/// Is silence between replies a failure?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Yes, after the timeout.
    Timeout,
    /// No, once the first reply is there.
    ForEver,
}

fn one<M: Method>(client: &mut Client, method: &M) -> Result<Answer<M::Reply>, ClientError> {
    let call = Call::of(method).map_err(|source| malformed(M::NAME, source))?;
    client.send(&call)?;
    let parameters = client.receive()?.parameters;
    answer(client, parameters)
}

fn steps<M, T>(client: &mut Client, method: &M, line: &mut Line) -> Result<Answer<T>, ClientError>
where
    M: Method<Reply = Step<T>>,
    T: DeserializeOwned,
{
    send_more(client, method)?;
    loop {
        let reply = client.receive()?;
        let continues = reply.continues;
        let Answer { mut json, value } = answer::<Step<T>>(client, reply.parameters)?;
        if let Some(progress) = &value.progress {
            line.show(progress);
        }
        match value.result {
            Some(value) => return Ok(Answer { json: json["result"].take(), value }),
            None if continues => {}
            None => {
                let source = serde::de::Error::missing_field("result");
                return Err(ClientError::Unexpected { method: M::NAME.to_owned(), source });
            }
        }
    }
}

fn send_more<M: Method>(client: &mut Client, method: &M) -> Result<(), ClientError> {
    let mut call = Call::of(method).map_err(|source| malformed(M::NAME, source))?;
    call.more = true;
    client.send(&call)
}

fn answer<T: DeserializeOwned>(
    client: &Client,
    parameters: Map<String, Value>,
) -> Result<Answer<T>, ClientError> {
    let json = Value::Object(parameters.clone());
    Ok(Answer { json, value: client.decode(parameters)? })
}

fn malformed(method: &str, source: guard_api::FrameError) -> ClientError {
    ClientError::Unexpected { method: method.to_owned(), source: serde::ser::Error::custom(source) }
}

/// The daemon's version, on a connection of its own; a wrong answer to one call may make the first useless.
fn daemon_version(socket: &Path) -> Option<String> {
    let mut client = Client::connect_within(socket, Some(Duration::from_secs(2))).ok()?;
    client.call(&GetInfo {}).ok().map(|info| info.version)
}

/// A reader that has seen enough (`guardctl log | head`) is no failure.
fn cannot_print(e: &io::Error) -> Failure {
    if e.kind() == io::ErrorKind::BrokenPipe {
        return Failure::silent();
    }
    Failure::new(Exit::Failed, format!("cannot write to standard output: {e}"))
}

/// What goes wrong with stderr cannot be told anybody.
#[expect(clippy::let_underscore_must_use, reason = "there is nowhere left to say it")]
fn talk(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
