//! A sender for systemd-journald's native protocol
//! (systemd.io/JOURNAL_NATIVE_PROTOCOL), which says what became of each entry.
//!
//! Every entry is one datagram to journald's socket. The socket is
//! non-blocking: a journald that does not read makes [`SendError::Busy`], never
//! a thread that hangs. An entry that is larger than a datagram may be goes as a
//! sealed memory file whose descriptor is passed (SCM_RIGHTS). Values are raw
//! bytes: paths need not be UTF-8, and a newline cannot forge a field.

use std::io::{self, IoSlice, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg_addr, sendto, socket_with,
};

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Why an entry was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// journald does not read at present; try again later.
    #[error("journald does not take entries at present ({} is full)", path.display())]
    Busy {
        /// The socket.
        path: PathBuf,
    },
    /// Nobody listens there.
    #[error("journald is not listening on {}", path.display())]
    Absent {
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
    /// Anything else.
    #[error("cannot {operation} for journald at {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// The socket.
        path: PathBuf,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

/// Why a field was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no name of a journal field: 1 to 64 of A-Z, 0-9 and _, beginning with a letter")]
pub struct NotAName(pub String);

/// One journal entry, framed as it is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry(Vec<u8>);

impl Entry {
    /// An entry without fields. journald drops entries without any.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field. A name may come several times: it then has several values.
    ///
    /// # Errors
    /// [`NotAName`] where journald would drop the field (leading underscores
    /// belong to journald itself).
    pub fn field(&mut self, name: &str, value: &[u8]) -> Result<&mut Self, NotAName> {
        let good = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
        let begins = name.as_bytes().first().is_some_and(u8::is_ascii_uppercase);
        if !begins || name.len() > 64 || !name.bytes().all(good) {
            return Err(NotAName(name.to_owned()));
        }
        self.0.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            // The length comes first, so nothing inside can end the value.
            self.0.push(b'\n');
            self.0.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            self.0.push(b'=');
        }
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
        Ok(self)
    }

    /// The bytes of the datagram.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A socket to send entries from.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    address: SocketAddrUnix,
    path: PathBuf,
}

impl Sender {
    /// Makes the socket. journald need not be there yet: each entry is addressed
    /// anew, so a journald that comes back is found.
    ///
    /// # Errors
    /// Where the path is too long for a socket, or no socket can be had.
    pub fn new(path: &Path) -> Result<Self, SendError> {
        let failed =
            |operation, e: Errno| SendError::Io { operation, path: path.to_owned(), source: e.into() };
        let address = SocketAddrUnix::new(path).map_err(|e| failed("make an address", e))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)
            .map_err(|e| failed("make a socket", e))?;
        Ok(Self { socket, address, path: path.to_owned() })
    }

    /// Sends one entry. `Ok` means that it stands in journald's queue, which
    /// systemd holds across a restart of journald.
    ///
    /// # Errors
    /// [`SendError`]; the entry was then not taken.
    pub fn send(&self, entry: &Entry) -> Result<(), SendError> {
        let sent = sendto(&self.socket, &entry.0, SendFlags::NOSIGNAL, &self.address);
        match sent {
            Ok(_) => Ok(()),
            Err(Errno::MSGSIZE | Errno::NOBUFS) => self.send_as_file(entry),
            Err(e) => Err(self.error("send", e)),
        }
    }

    /// journald reads such an entry only where it cannot be changed any more.
    fn send_as_file(&self, entry: &Entry) -> Result<(), SendError> {
        let fd = memfd_create("guardd-journal-entry", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(|e| self.error("make a memory file", e))?;
        let mut file = std::fs::File::from(fd);
        file.write_all(&entry.0).map_err(|source| SendError::Io {
            operation: "fill a memory file",
            path: self.path.clone(),
            source,
        })?;
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
        fcntl_add_seals(&file, seals).map_err(|e| self.error("seal a memory file", e))?;
        let fds = [file.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(self.error("pass a memory file", Errno::NOBUFS));
        }
        let nothing = [IoSlice::new(&[])];
        sendmsg_addr(&self.socket, &self.address, &nothing, &mut control, SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|e| self.error("send a memory file", e))
    }

    fn error(&self, operation: &'static str, e: Errno) -> SendError {
        let path = self.path.clone();
        match e {
            Errno::AGAIN => SendError::Busy { path },
            Errno::NOENT | Errno::CONNREFUSED | Errno::NOTDIR => SendError::Absent { path, source: e.into() },
            e => SendError::Io { operation, path, source: e.into() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek};
    use std::os::unix::net::UnixDatagram;

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    /// Reads fields as journald does.
    fn parse(mut bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'=')).unwrap();
            let name = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let binary = bytes[end] == b'\n';
            bytes = &bytes[end + 1..];
            let length = if binary {
                let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
                bytes = &bytes[8..];
                usize::try_from(length).unwrap()
            } else {
                bytes.iter().position(|&b| b == b'\n').unwrap()
            };
            fields.push((name, bytes[..length].to_vec()));
            assert_eq!(bytes[length], b'\n');
            bytes = &bytes[length + 1..];
        }
        fields
    }

    fn listener() -> (tempfile::TempDir, UnixDatagram, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let socket = UnixDatagram::bind(&path).unwrap();
        (dir, socket, path)
    }

    #[test]
    fn values_are_raw_and_cannot_forge_fields() {
        let (_dir, socket, path) = listener();
        let mut entry = Entry::new();
        let hostile: &[u8] = b"a\xff\nPRIORITY=7\nMESSAGE=forged\n";
        entry.field("MESSAGE", b"plain = text").unwrap().field("GUARDD_PATH", hostile).unwrap();
        entry.field("EMPTY", b"").unwrap();
        Sender::new(&path).unwrap().send(&entry).unwrap();
        let mut buffer = [0; 4096];
        let n = socket.recv(&mut buffer).unwrap();
        let expected = [("MESSAGE", &b"plain = text"[..]), ("GUARDD_PATH", hostile), ("EMPTY", b"")];
        assert_eq!(parse(&buffer[..n]), expected.map(|(n, v)| (n.to_owned(), v.to_vec())));
    }

    #[test]
    fn names_that_journald_would_drop_are_refused() {
        let long = "A".repeat(65);
        for bad in ["", "_PID", "1A", "lower", "A B", "A=B", "A\nB", "Ä", long.as_str()] {
            assert_eq!(Entry::new().field(bad, b"x"), Err(NotAName(bad.to_owned())));
        }
        assert!(Entry::new().field(&"A".repeat(64), b"x").is_ok());
    }

    #[test]
    fn a_large_entry_goes_as_a_sealed_file() {
        let (_dir, socket, path) = listener();
        let mut entry = Entry::new();
        entry.field("MESSAGE", &vec![b'x'; 8 << 20]).unwrap();
        Sender::new(&path).unwrap().send(&entry).unwrap();

        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&socket, &mut [], &mut control, RecvFlags::empty()).unwrap();
        assert_eq!(got.bytes, 0);
        let fd = control
            .drain()
            .find_map(|m| match m {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
            .unwrap();
        let seals = rustix::fs::fcntl_get_seals(&fd).unwrap();
        assert!(seals.contains(SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE));
        let mut file = std::fs::File::from(fd);
        file.rewind().unwrap();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        assert!(content == entry.as_bytes());
    }

    #[test]
    fn a_journald_that_does_not_read_blocks_nobody() {
        let (_dir, socket, path) = listener();
        let sender = Sender::new(&path).unwrap();
        let mut entry = Entry::new();
        entry.field("MESSAGE", b"x").unwrap();
        let taken = (0..100_000).find(|_| sender.send(&entry).is_err()).unwrap();
        assert!(taken > 0);
        assert!(matches!(sender.send(&entry), Err(SendError::Busy { .. })));
        socket.recv(&mut [0; 64]).unwrap();
        sender.send(&entry).unwrap();
    }

    #[test]
    fn a_journald_that_is_gone_is_said_and_found_again() {
        let (dir, socket, path) = listener();
        let sender = Sender::new(&path).unwrap();
        let mut entry = Entry::new();
        entry.field("MESSAGE", b"x").unwrap();
        drop(socket);
        assert!(matches!(sender.send(&entry), Err(SendError::Absent { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(sender.send(&entry), Err(SendError::Absent { .. })));
        let again = UnixDatagram::bind(dir.path().join("socket")).unwrap();
        sender.send(&entry).unwrap();
        assert_eq!(again.recv(&mut [0; 64]).unwrap(), entry.as_bytes().len());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_an_error() {
        let long = PathBuf::from(format!("/{}", "x".repeat(200)));
        assert!(matches!(Sender::new(&long), Err(SendError::Io { operation: "make an address", .. })));
    }
}
