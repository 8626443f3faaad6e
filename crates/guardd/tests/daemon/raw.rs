//! A client that keeps no rules.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

/// A connection on which anything may be said.
pub(crate) struct Raw {
    pub(crate) stream: UnixStream,
    kept: Vec<u8>,
}

impl Raw {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(120))).unwrap();
        Self { stream, kept: Vec::new() }
    }

    /// Sends bytes; false where the other end takes no more.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Sends a message and its end.
    pub(crate) fn say(&mut self, text: impl AsRef<str>) -> bool {
        let mut bytes = text.as_ref().as_bytes().to_vec();
        bytes.push(0);
        self.send(bytes)
    }

    /// The next message; `None` where the connection was closed.
    pub(crate) fn next(&mut self) -> Option<Value> {
        let mut buffer = [0; 65536];
        loop {
            if let Some(end) = self.kept.iter().position(|b| *b == 0) {
                let message: Vec<u8> = self.kept.drain(..=end).collect();
                return Some(serde_json::from_slice(&message[..end]).unwrap());
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.kept.extend_from_slice(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("neither an answer nor an end: {e}"),
            }
        }
    }
}
