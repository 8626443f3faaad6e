//! Processes that begin, execute, change and end: the kernel's process connector (linux/cn_proc.h).
//!
//! The kernel tells before it lets the process go on: what a process did cannot be seen earlier than that it began. It
//! numbers what it tells on each processor, so that what was lost is noticed, whatever it was lost by.

mod records;

use std::collections::HashMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, send, socket_with,
};

pub use records::{Event, What};
use records::{Message, Told};

/// `CN_IDX_PROC` and `CN_VAL_PROC`; the group's mask is the same.
const PROCESSES: u32 = 1;
/// `PROC_CN_MCAST_LISTEN` and `PROC_CN_MCAST_IGNORE`.
const LISTEN: u32 = 1;
const IGNORE: u32 = 2;
/// A message is 76 bytes.
const LONGEST: usize = 512;
/// What waits for us meanwhile may have pushed the answer out.
const ATTEMPTS: u32 = 3;

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// Something that a process did, in the order in which it was.
    Event(Event),
    /// Some of it was lost.
    Lost,
}

/// Hears of every process of the machine, as any number of others do.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    /// The last number of each processor.
    serials: HashMap<u32, u32>,
}

impl Listener {
    /// Hears from now on. Reading it never blocks.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN` before Linux 6.6; `ECONNREFUSED` in another network namespace than the host's;
    /// `EPROTONOSUPPORT` where the kernel has no connector; `Unsupported` in another process or user namespace than the
    /// host's, and where the kernel tells of no processes.
    pub fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(netlink::CONNECTOR))?;
        // A burst fits, as far as the system lets it.
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 1 << 20).ok();
        bind(&socket, &SocketAddrNetlink::new(0, PROCESSES))?;
        let mut listener = Self { socket, serials: HashMap::new() };
        for attempt in 0..ATTEMPTS {
            // Answered before it returns (drivers/connector/cn_proc.c), to everybody who listens.
            let token = std::process::id().wrapping_mul(31).wrapping_add(attempt);
            send(&listener.socket, &records::request(LISTEN, token), SendFlags::NOSIGNAL)?;
            if let Some(answer) = listener.answer(token)? {
                return match answer {
                    0 => Ok(listener),
                    error => Err(io::Error::from_raw_os_error(error.cast_signed())),
                };
            }
        }
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The answer to the request with this token, if there is one.
    fn answer(&mut self, token: u32) -> io::Result<Option<u32>> {
        loop {
            match self.receive() {
                Ok(None) => return Ok(None),
                Ok(Some(Message { told: Told::Answer { token: of, error }, .. }))
                    if of == token.wrapping_add(1) =>
                {
                    return Ok(Some(error));
                }
                Ok(Some(_)) => {}
                Err(e) if Errno::from_io_error(&e) == Some(Errno::NOBUFS) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// The next event; `None` where nothing waits.
    ///
    /// # Errors
    /// What recvfrom(2) says but for `EAGAIN`, `EINTR` and `ENOBUFS`.
    pub fn hear(&mut self) -> io::Result<Option<Heard>> {
        loop {
            let message = match self.receive() {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(None),
                Err(e) if Errno::from_io_error(&e) == Some(Errno::NOBUFS) => {
                    self.serials.clear();
                    return Ok(Some(Heard::Lost));
                }
                Err(e) => return Err(e),
            };
            let before = self.serials.insert(message.processor, message.serial);
            if before.is_some_and(|before| before.wrapping_add(1) != message.serial) {
                // This one, too; who asks for the next ones gets all of them.
                return Ok(Some(Heard::Lost));
            }
            if let Told::Event(event) = message.told {
                return Ok(Some(Heard::Event(event)));
            }
        }
    }

    /// One message of the kernel's; `None` where nothing waits.
    fn receive(&self) -> io::Result<Option<Message>> {
        let mut buffer = [MaybeUninit::uninit(); LONGEST];
        loop {
            let ((bytes, _), _, from) = match recvfrom(&self.socket, &mut buffer, RecvFlags::empty()) {
                Ok(received) => received,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(e) => return Err(e.into()),
            };
            // Nobody else's word.
            let from = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
            if from.is_some_and(|from| from.pid() == 0)
                && let Some(message) = records::message(bytes)
            {
                return Ok(Some(message));
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Before Linux 6.6 the kernel counts listeners by these alone, and tells on as long as there is one.
        send(&self.socket, &records::request(IGNORE, 0), SendFlags::NOSIGNAL).ok();
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, poll};
    use std::process::Command;

    #[test]
    fn a_child_begins_executes_and_ends() {
        let mut listener = match Listener::open() {
            Ok(listener) => listener,
            Err(e) => return eprintln!("skipped: the kernel does not tell of processes: {e}"),
        };
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().cast_signed();
        child.wait().unwrap();
        let mut seen = Vec::new();
        while !matches!(seen.last(), Some(What::Ended { .. })) {
            match listener.hear().unwrap() {
                Some(Heard::Event(event)) => {
                    let of = match event.what {
                        What::Began { process, .. } => process,
                        What::Executed { process } | What::Ended { process } => process,
                        What::Renamed { .. } | What::User { .. } => continue,
                    };
                    if of == pid {
                        assert!(event.at_ns <= crate::clock::monotonic_nanos());
                        seen.push(event.what);
                    }
                }
                Some(Heard::Lost) => return eprintln!("skipped: more happens here than is heard"),
                None => drop(poll(&mut [PollFd::new(&listener, PollFlags::IN)], None).unwrap()),
            }
        }
        let own = std::process::id().cast_signed();
        assert!(matches!(seen.first(), Some(What::Began { parent, .. }) if *parent == own), "{seen:?}");
        assert!(seen.contains(&What::Executed { process: pid }), "{seen:?}");
    }
}
