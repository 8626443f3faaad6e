//! A blocking client: one connection, one call at a time.

use std::io::{self, Read, Write};
use std::marker::PhantomData;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{CallError, Exit};
use crate::frame::{Call, FrameError, Framing, REPLY_CAP, Reply, encode};
use crate::method::Method;

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nothing answers at the socket.
    #[error("cannot connect to {}: {source}", socket.display())]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The call could not be sent.
    #[error("cannot send a call to {}: {source}", socket.display())]
    Send {
        /// The socket's path.
        socket: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// The reply could not be read.
    #[error("cannot read the reply from {}: {source}", socket.display())]
    Receive {
        /// The socket's path.
        socket: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },
    /// No reply, or no whole one, in time.
    #[error("no reply from {} within {} s", socket.display(), after.as_secs_f32())]
    TimedOut {
        /// The socket's path.
        socket: PathBuf,
        /// How long was waited.
        after: Duration,
    },
    /// The other end closed the connection before the reply was whole.
    #[error("{} closed the connection in the middle of the call", socket.display())]
    Closed {
        /// The socket's path.
        socket: PathBuf,
    },
    /// What came is not a Varlink message.
    #[error("{} does not speak as guardd does: {source}", socket.display())]
    Frame {
        /// The socket's path.
        socket: PathBuf,
        /// What is wrong with it.
        #[source]
        source: FrameError,
    },
    /// A reply lacks what this version needs.
    #[error("the reply to {method} is not what this version knows: {source}")]
    Unexpected {
        /// The method called.
        method: String,
        /// The parser's words.
        #[source]
        source: serde_json::Error,
    },
    /// The replies of an earlier call were not all read; the connection is of no more use.
    #[error("replies of an earlier call are still under way")]
    OutOfStep,
    /// The daemon answered with an error.
    #[error("{0}")]
    Call(CallError),
}

impl ClientError {
    /// The exit code of a program whose call ended so.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Call(e) => e.exit(),
            _ => Exit::Unreachable,
        }
    }
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    socket: PathBuf,
    framing: Framing,
    timeout: Option<Duration>,
    method: String,
    under_way: bool,
}

impl Client {
    /// How long to wait for a reply, and for room to send, unless said otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(30);

    /// Connects; waits at most [`Client::TIMEOUT`] where the daemon does not accept.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::TimedOut`].
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        Self::connect_within(socket, Some(Self::TIMEOUT))
    }

    /// Connects; `timeout` is for connecting, for sending, and for each single reply. `None` waits for ever.
    ///
    /// # Errors
    /// [`ClientError::Connect`], [`ClientError::TimedOut`].
    pub fn connect_within(socket: &Path, timeout: Option<Duration>) -> Result<Self, ClientError> {
        let failed = |e: rustix::io::Errno| match (e, timeout) {
            (rustix::io::Errno::AGAIN, Some(after)) => {
                ClientError::TimedOut { socket: socket.to_owned(), after }
            }
            _ => ClientError::Connect { socket: socket.to_owned(), source: e.into() },
        };
        let address = SocketAddrUnix::new(socket).map_err(failed)?;
        let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
        // unix(7) lets connect wait for room in the backlog as long as SO_SNDTIMEO says.
        set_socket_timeout(&fd, Timeout::Send, timeout).map_err(failed)?;
        loop {
            match connect(&fd, &address) {
                Ok(()) => break,
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(failed(e)),
            }
        }
        Ok(Self {
            stream: UnixStream::from(fd),
            socket: socket.to_owned(),
            framing: Framing::new(REPLY_CAP),
            timeout,
            method: String::new(),
            under_way: false,
        })
    }

    /// How long to wait for each single reply from now on. `None` waits for ever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.timeout = timeout;
    }

    /// Calls a method and waits for its one reply.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn call<M: Method>(&mut self, method: &M) -> Result<M::Reply, ClientError> {
        let call = Call::of(method).map_err(|source| self.frame_error(source))?;
        self.send(&call)?;
        let reply = self.receive()?;
        self.decode(reply.parameters)
    }

    /// Calls a method that sends several replies.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn call_more<M: Method>(&mut self, method: &M) -> Result<Replies<'_, M>, ClientError> {
        let mut call = Call::of(method).map_err(|source| self.frame_error(source))?;
        call.more = true;
        self.send(&call)?;
        Ok(Replies { client: self, ended: false, method: PhantomData })
    }

    /// Sends a call; its replies are to be had by [`Client::receive`] until one does not continue.
    ///
    /// # Errors
    /// [`ClientError`]
    pub fn send(&mut self, call: &Call) -> Result<(), ClientError> {
        if self.under_way {
            return Err(ClientError::OutOfStep);
        }
        call.method.clone_into(&mut self.method);
        let bytes = encode(call).map_err(|source| self.frame_error(source))?;
        self.under_way = !call.oneway;
        match self.stream.write_all(&bytes) {
            Ok(()) => Ok(()),
            // The daemon may have said why before it closed: the reply tells.
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(e) if is_timeout(&e) => Err(self.timed_out()),
            Err(source) => Err(ClientError::Send { socket: self.socket.clone(), source }),
        }
    }

    /// Waits for the next reply to the call under way.
    ///
    /// # Errors
    /// [`ClientError`]; an error reply is [`ClientError::Call`].
    pub fn receive(&mut self) -> Result<Reply, ClientError> {
        let deadline = self.timeout.map(|t| Instant::now() + t);
        let message = loop {
            match self.framing.next_message() {
                Ok(Some(message)) => break message,
                Ok(None) => {}
                Err(source) => return Err(self.frame_error(source)),
            }
            read_some(&mut self.stream, &mut self.framing, deadline).map_err(|e| match e {
                e if is_timeout(&e) => self.timed_out(),
                e if matches!(e.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset) => {
                    ClientError::Closed { socket: self.socket.clone() }
                }
                source => ClientError::Receive { socket: self.socket.clone(), source },
            })?;
        };
        let reply = match Reply::parse(message) {
            Ok(reply) => reply,
            Err(source) => return Err(self.frame_error(source)),
        };
        if let Some(name) = &reply.error {
            self.under_way = false;
            return Err(ClientError::Call(CallError::from_parts(name, reply.parameters)));
        }
        self.under_way = reply.continues;
        Ok(reply)
    }

    /// A reply's parameters as the type they should be.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`]
    pub fn decode<T: DeserializeOwned>(&self, parameters: Map<String, Value>) -> Result<T, ClientError> {
        T::deserialize(Value::Object(parameters))
            .map_err(|source| ClientError::Unexpected { method: self.method.clone(), source })
    }

    fn frame_error(&self, source: FrameError) -> ClientError {
        ClientError::Frame { socket: self.socket.clone(), source }
    }

    fn timed_out(&self) -> ClientError {
        ClientError::TimedOut { socket: self.socket.clone(), after: self.timeout.unwrap_or_default() }
    }
}

/// The replies to a call, until one does not continue. Ends after an error.
#[derive(Debug)]
pub struct Replies<'a, M> {
    client: &'a mut Client,
    ended: bool,
    method: PhantomData<M>,
}

impl<M: Method> Replies<'_, M> {
    /// How long to wait for each single reply from now on. `None` waits for ever.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) {
        self.client.timeout = timeout;
    }
}

impl<M: Method> Iterator for Replies<'_, M> {
    type Item = Result<M::Reply, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let reply = self.client.receive();
        self.ended = !matches!(&reply, Ok(r) if r.continues);
        let decoded = reply.and_then(|r| self.client.decode(r.parameters));
        self.ended |= decoded.is_err();
        Some(decoded)
    }
}

/// Reads once, at most until the deadline, and hands the bytes to the framing.
fn read_some(stream: &mut UnixStream, framing: &mut Framing, deadline: Option<Instant>) -> io::Result<()> {
    let mut buffer = [0; 64 * 1024];
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        if left.is_some_and(|l| l.is_zero()) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(left)?;
        match stream.read(&mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                framing.push(buffer.get(..n).unwrap_or_default());
                return Ok(());
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn is_timeout(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
