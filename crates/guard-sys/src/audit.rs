//! The kernel's audit (auditctl(8), linux/audit.h): rules of our own about single files, and the records that come of
//! them, heard beside whoever else listens, auditd among them.
//!
//! Nothing but single rules is ever changed: not whether there is auditing, nor how much waits, nor rules of others.

pub mod records;

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recvfrom, send, socket_with,
};

const AUDIT_GET: u16 = 1000;
const AUDIT_ADD_RULE: u16 = 1011;
const AUDIT_DEL_RULE: u16 = 1012;
const AUDIT_LIST_RULES: u16 = 1013;
const AUDIT_SYSCALL: u16 = 1300;
const AUDIT_CONFIG_CHANGE: u16 = 1305;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// `AUDIT_NLGRP_READLOG`, as a mask.
const READLOG: u32 = 1;

const FILTER_TASK: u32 = 1;
const FILTER_EXIT: u32 = 4;
const NEVER: u32 = 0;
const ALWAYS: u32 = 2;
const FIELD_PID: u32 = 0;
const FIELD_WATCH: u32 = 105;
const FIELD_PERM: u32 = 106;
const FIELD_KEY: u32 = 210;
/// Fields whose value is the length of a string in the buffer.
const STRINGS: [u32; 14] = [13, 14, 15, 16, 17, 19, 20, 21, 22, 23, FIELD_WATCH, 107, 112, FIELD_KEY];
const EQUAL: u32 = 0x4000_0000;
const NOT_EQUAL: u32 = 0x3000_0000;
const PERM_EXEC_OR_READ: u32 = 1 | 4;
/// `AUDIT_BITMASK_SIZE` and `AUDIT_MAX_FIELDS`.
const WORDS: usize = 64;
/// `struct audit_rule_data` up to its buffer.
const RULE: usize = 4 * (3 + 4 * WORDS + 1);
const HEADER: usize = 16;
/// A record is at most 8970 bytes (`MAX_AUDIT_MESSAGE_LENGTH`), a rule a little more than a path.
const LONGEST: usize = 16 * 1024;

/// How auditing stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status {
    /// 0: off, 1: on, 2: on, and no rule can be changed until the next boot.
    pub enabled: u32,
    /// Records that the kernel could not deliver since it was booted.
    pub lost: u32,
}

/// A rule that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    bytes: Vec<u8>,
}

impl Rule {
    /// Tells of this file, whatever inode it becomes, being opened for reading or executed by any process but this one.
    /// `key`: printable, at most 255 bytes. `None` where the path or key is too long.
    #[must_use]
    pub fn reads_of(path: &Path, key: &str) -> Option<Self> {
        let path = path.as_os_str().as_bytes();
        let own = std::process::id();
        let lengths = (u32::try_from(path.len()).ok()?, u32::try_from(key.len()).ok()?);
        if path.len() >= 4096 || key.len() > 255 {
            return None;
        }
        let fields = [
            (FIELD_WATCH, EQUAL, lengths.0),
            (FIELD_PERM, EQUAL, PERM_EXEC_OR_READ),
            (FIELD_PID, NOT_EQUAL, own),
            (FIELD_KEY, EQUAL, lengths.1),
        ];
        let mut words = vec![FILTER_EXIT, ALWAYS, 4];
        // Every system call; the last word stands for classes.
        words.extend((1..WORDS).map(|_| u32::MAX).chain([0]));
        let column = |of: fn(&(u32, u32, u32)) -> u32| {
            fields.iter().map(of).chain(std::iter::repeat(0)).take(WORDS).collect::<Vec<u32>>()
        };
        words.extend(column(|field| field.0));
        words.extend(column(|field| field.2));
        words.extend(column(|field| field.1));
        words.push(lengths.0.checked_add(lengths.1)?);
        let mut bytes: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
        bytes.extend_from_slice(path);
        bytes.extend_from_slice(key.as_bytes());
        Some(Self { bytes })
    }

    fn word(&self, at: usize) -> u32 {
        let bytes = self.bytes.get(at * 4..).and_then(<[u8]>::first_chunk).copied();
        bytes.map_or(0, u32::from_ne_bytes)
    }

    /// Its key; `None` where it has none.
    #[must_use]
    pub fn key(&self) -> Option<&[u8]> {
        let mut at = RULE;
        for field in 0..(self.word(2) as usize).min(WORDS) {
            let kind = self.word(3 + WORDS + field);
            if STRINGS.contains(&kind) {
                let length = self.word(3 + 2 * WORDS + field) as usize;
                if kind == FIELD_KEY {
                    return self.bytes.get(at..at.checked_add(length)?);
                }
                at = at.checked_add(length)?;
            }
        }
        None
    }

    /// Does it keep every process from being audited?
    #[must_use]
    pub fn silences_all(&self) -> bool {
        (self.word(0) & 7, self.word(1), self.word(2)) == (FILTER_TASK, NEVER, 0)
    }
}

/// Asks and changes; one call at a time.
#[derive(Debug)]
pub struct Control {
    socket: OwnedFd,
    serial: u32,
}

impl Control {
    /// How long the kernel may take for an answer.
    const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

    /// # Errors
    /// Where there is no audit, or a filter forbids such a socket.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: open(0)?, serial: 0 })
    }

    /// # Errors
    /// `EPERM` without `CAP_AUDIT_CONTROL`, or in a container; what send(2) and recv(2) say.
    pub fn status(&mut self) -> io::Result<Status> {
        let answers = self.ask(AUDIT_GET, &[])?;
        let status = answers.iter().find(|(kind, _)| *kind == AUDIT_GET).map(|(_, body)| body.as_slice());
        let word = |at: usize| status?.get(at * 4..)?.first_chunk().copied().map(u32::from_ne_bytes);
        match (word(1), word(6)) {
            (Some(enabled), Some(lost)) => Ok(Status { enabled, lost }),
            _ => Err(malformed()),
        }
    }

    /// Every rule there is, whoever made it.
    ///
    /// # Errors
    /// As [`Control::status`].
    pub fn rules(&mut self) -> io::Result<Vec<Rule>> {
        let answers = self.ask(AUDIT_LIST_RULES, &[])?;
        let rules =
            answers.into_iter().filter(|(kind, bytes)| *kind == AUDIT_LIST_RULES && bytes.len() >= RULE);
        Ok(rules.map(|(_, bytes)| Rule { bytes }).collect())
    }

    /// # Errors
    /// `EEXIST` where there is the same one; `ENOENT` where the directory is not there; `EPERM` where rules cannot be
    /// changed.
    pub fn add(&mut self, rule: &Rule) -> io::Result<()> {
        self.ask(AUDIT_ADD_RULE, &rule.bytes).map(drop)
    }

    /// # Errors
    /// `ENOENT` where there is none; as [`Control::add`].
    pub fn delete(&mut self, rule: &Rule) -> io::Result<()> {
        self.ask(AUDIT_DEL_RULE, &rule.bytes).map(drop)
    }

    /// Everything that is answered, up to its end.
    fn ask(&mut self, kind: u16, body: &[u8]) -> io::Result<Vec<(u16, Vec<u8>)>> {
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        let length = u32::try_from(HEADER + body.len()).map_err(|_| malformed())?;
        let mut message = length.to_ne_bytes().to_vec();
        message.extend(kind.to_ne_bytes());
        message.extend((NLM_F_REQUEST | NLM_F_ACK).to_ne_bytes());
        message.extend(serial.to_ne_bytes());
        message.extend([0; 4]);
        message.extend_from_slice(body);
        send(&self.socket, &message, SendFlags::NOSIGNAL)?;
        let mut answers = Vec::new();
        // What is asked for comes before or after the acknowledgement of the question.
        let (mut is_acknowledged, mut is_answered) = (false, !matches!(kind, AUDIT_GET | AUDIT_LIST_RULES));
        while !(is_acknowledged && is_answered) {
            let mut asked = [PollFd::new(&self.socket, PollFlags::IN)];
            if poll(&mut asked, Some(&Self::PATIENCE))? == 0 {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let Some(message) = receive(self.socket.as_fd())? else { continue };
            if message.serial != serial {
                continue;
            }
            match message.kind {
                NLMSG_ERROR => match message.body.first_chunk().copied().map(i32::from_ne_bytes) {
                    Some(0) => is_acknowledged = true,
                    Some(error) => return Err(io::Error::from_raw_os_error(error.wrapping_neg())),
                    None => return Err(malformed()),
                },
                NLMSG_DONE => is_answered = true,
                other => {
                    is_answered |= other == AUDIT_GET;
                    answers.push((other, message.body));
                }
            }
        }
        Ok(answers)
    }
}

/// What is heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// A system call's record.
    SystemCall(Vec<u8>),
    /// Rules were changed: its record.
    Configuration(Vec<u8>),
    /// Records were lost: they came faster than they were read.
    Lost,
}

/// Hears all records, as any number of others do.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// # Errors
    /// `EPERM` without `CAP_AUDIT_READ`; as [`Control::open`].
    pub fn open() -> io::Result<Self> {
        open(READLOG).map(Self)
    }

    /// The next record that matters; `None` where nothing waits. Never blocks.
    ///
    /// # Errors
    /// What recv(2) says.
    pub fn next(&self) -> io::Result<Option<Heard>> {
        loop {
            let message = match receive(self.0.as_fd()) {
                Ok(Some(message)) => message,
                Ok(None) => return Ok(None),
                Err(e) if Errno::from_io_error(&e) == Some(Errno::NOBUFS) => return Ok(Some(Heard::Lost)),
                Err(e) => return Err(e),
            };
            match message.kind {
                AUDIT_SYSCALL => return Ok(Some(Heard::SystemCall(message.body))),
                AUDIT_CONFIG_CHANGE => return Ok(Some(Heard::Configuration(message.body))),
                _ => {}
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

struct Message {
    kind: u16,
    serial: u32,
    body: Vec<u8>,
}

fn open(groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::AUDIT))?;
    bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    if groups != 0 {
        // A burst fits, where the system lets it.
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 4 << 20).ok();
    }
    Ok(socket)
}

/// One message of the kernel's; `None` where nothing waits.
fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<Message>> {
    let mut buffer = [MaybeUninit::uninit(); LONGEST];
    loop {
        let ((bytes, _), _, from) = match recvfrom(socket, &mut buffer, RecvFlags::empty()) {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(e) => return Err(e.into()),
        };
        // Nobody else's word.
        let is_from_kernel =
            from.and_then(|from| SocketAddrNetlink::try_from(from).ok()).is_some_and(|from| from.pid() == 0);
        if !is_from_kernel {
            continue;
        }
        // The length in the header is not what it should be in every version; a datagram is one message.
        let (Some(kind), Some(serial), Some(body)) = (
            bytes.get(4..).and_then(<[u8]>::first_chunk).copied().map(u16::from_ne_bytes),
            bytes.get(8..).and_then(<[u8]>::first_chunk).copied().map(u32::from_ne_bytes),
            bytes.get(HEADER..),
        ) else {
            return Err(malformed());
        };
        return Ok(Some(Message { kind, serial, body: body.to_vec() }));
    }
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not a message of audit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_says_its_key() {
        let rule = Rule::reads_of(Path::new("/srv/app/.env"), "guardd-1-2").unwrap();
        assert_eq!(rule.key(), Some(&b"guardd-1-2"[..]));
        assert!(!rule.silences_all());
        assert!(Rule::reads_of(Path::new(&"x".repeat(5000)), "k").is_none());
        for cut in 0..rule.bytes.len() {
            // Whatever is left of it, asking does not panic.
            assert!(Rule { bytes: rule.bytes[..cut].to_vec() }.key().is_none());
        }
    }

    #[test]
    fn the_kernel_answers_or_says_why_not() {
        match Control::open().and_then(|mut control| Ok((control.status()?, control.rules()?))) {
            Ok((status, _)) => assert!(status.enabled <= 2),
            Err(e) => eprintln!("skipped: no audit: {e}"),
        }
    }
}
