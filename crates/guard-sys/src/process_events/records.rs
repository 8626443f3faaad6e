//! The bytes of the process connector: a netlink header, the connector's own, and `struct proc_event`.
//!
//! Pure: no system call. What does not fit is no message.

/// Something that a process did. Threads do nothing by themselves here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When, nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
    /// What.
    pub what: What,
}

/// What a process did; numbers are the host's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It is there; it has not run yet.
    Began {
        /// The process.
        process: i32,
        /// Its parent: not the process that it is a copy of, where `CLONE_PARENT` made them siblings.
        parent: i32,
    },
    /// It has become another program.
    Executed {
        /// The process.
        process: i32,
    },
    /// It gave itself another name.
    Renamed {
        /// The process.
        process: i32,
        /// The name, at most 15 bytes.
        name: Vec<u8>,
    },
    /// Its user changed.
    User {
        /// The process.
        process: i32,
        /// Its real user id from now on.
        uid: u32,
    },
    /// Its first thread ended; others may go on. Its number is its own until its parent has asked for it.
    Ended {
        /// The process.
        process: i32,
    },
}

/// A message of the kernel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Where it happened.
    pub(super) processor: u32,
    /// The how manieth it is there.
    pub(super) serial: u32,
    pub(super) told: Told,
}

/// What a message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// The answer to a request.
    Answer {
        token: u32,
        error: u32,
    },
    Event(Event),
    /// Something else, or of a single thread.
    Other,
}

const NETLINK: usize = 16;
const CONNECTOR: usize = 20;
const NLMSG_DONE: u16 = 3;
const PROCESSES: u32 = 1;

const NONE: u32 = 0;
const FORK: u32 = 1;
const EXEC: u32 = 2;
const UID: u32 = 4;
const COMM: u32 = 0x200;
const EXIT: u32 = 0x8000_0000;

/// A request (`enum proc_cn_mcast_op`) that is answered with `token` and one more.
pub(super) fn request(operation: u32, token: u32) -> Vec<u8> {
    // The sum of the parts: 40 bytes.
    let length: u32 = 16 + 20 + 4;
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(NLMSG_DONE.to_ne_bytes());
    bytes.extend([0; 2 + 4 + 4]);
    for word in [PROCESSES, PROCESSES, 0, token] {
        bytes.extend(word.to_ne_bytes());
    }
    bytes.extend(4_u16.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(operation.to_ne_bytes());
    bytes
}

/// `None` for what is no message about processes.
pub(super) fn message(bytes: &[u8]) -> Option<Message> {
    let connector = bytes.get(NETLINK..)?;
    if (word(connector, 0)?, word(connector, 4)?) != (PROCESSES, PROCESSES) {
        return None;
    }
    let (serial, answered) = (word(connector, 8)?, word(connector, 12)?);
    let event = connector.get(CONNECTOR..)?;
    let at_ns = u64::from_ne_bytes(*event.get(8..)?.first_chunk()?);
    let data = event.get(16..)?;
    let told = match word(event, 0)? {
        NONE => Told::Answer { token: answered, error: word(data, 0)? },
        kind => what(kind, data)?.map_or(Told::Other, |what| Told::Event(Event { at_ns, what })),
    };
    Some(Message { processor: word(event, 4)?, serial, told })
}

/// `None` for what is cut off, `Some(None)` for what does not concern a process as a whole.
fn what(kind: u32, data: &[u8]) -> Option<Option<What>> {
    // Thread and process; those of a first thread are the same. Of a new one they stand second.
    let at = if kind == FORK { 8 } else { 0 };
    let (thread, process) = (word(data, at)?, word(data, at + 4)?);
    let number = |of: u32| i32::try_from(of).ok().filter(|pid| *pid > 0);
    let Some(process) = number(process).filter(|_| thread == process) else { return Some(None) };
    Some(match kind {
        // Whichever of its threads did it.
        FORK => Some(What::Began { process, parent: number(word(data, 4)?).unwrap_or(0) }),
        EXEC => Some(What::Executed { process }),
        UID => Some(What::User { process, uid: word(data, 8)? }),
        COMM => {
            let name = data.get(8..24)?;
            let end = name.iter().position(|b| *b == 0).unwrap_or(name.len());
            Some(What::Renamed { process, name: name.get(..end)?.to_vec() })
        }
        EXIT => Some(What::Ended { process }),
        _ => None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn raw(kind: u32, words: [u32; 6]) -> Vec<u8> {
        let mut bytes = vec![0; NETLINK];
        for word in [1, 1, 7, 9, 40, kind, 3] {
            bytes.extend(u32::to_ne_bytes(word));
        }
        bytes.extend(1234_u64.to_ne_bytes());
        words.into_iter().for_each(|word| bytes.extend(word.to_ne_bytes()));
        bytes
    }

    fn told(kind: u32, words: [u32; 6]) -> Told {
        let message = message(&raw(kind, words)).unwrap();
        assert_eq!((message.processor, message.serial), (3, 7));
        message.told
    }

    #[test]
    fn messages() {
        let event = |what| Told::Event(Event { at_ns: 1234, what });
        assert_eq!(told(FORK, [11, 10, 12, 12, 0, 0]), event(What::Began { process: 12, parent: 10 }));
        assert_eq!(told(EXEC, [12, 12, 0, 0, 0, 0]), event(What::Executed { process: 12 }));
        assert_eq!(told(UID, [12, 12, 33, 0, 0, 0]), event(What::User { process: 12, uid: 33 }));
        assert_eq!(told(EXIT, [12, 12, 0, 17, 10, 10]), event(What::Ended { process: 12 }));
        let name = u32::from_ne_bytes(*b"ab\nc");
        let renamed = What::Renamed { process: 12, name: b"ab\nc".to_vec() };
        assert_eq!(told(COMM, [12, 12, name, 0, 0, 0]), event(renamed));
        assert_eq!(told(NONE, [1, 0, 0, 0, 0, 0]), Told::Answer { token: 9, error: 1 });
        // Of threads, of numbers that there are not, and of what will be told one day.
        assert_eq!(told(FORK, [11, 10, 13, 12, 0, 0]), Told::Other);
        assert_eq!(told(EXIT, [13, 12, 0, 0, 0, 0]), Told::Other);
        assert_eq!(told(EXEC, [u32::MAX, u32::MAX, 0, 0, 0, 0]), Told::Other);
        assert_eq!(told(0x100, [12, 12, 0, 0, 0, 0]), Told::Other);
        let mut other = raw(EXEC, [12, 12, 0, 0, 0, 0]);
        other[NETLINK] = 2;
        assert_eq!(message(&other), None);
    }

    proptest! {
        #[test]
        fn whatever_comes(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
            drop(message(&bytes));
        }

        #[test]
        fn whatever_is_cut_off(kind in any::<u32>(), words in any::<[u32; 6]>(), cut in 0usize..76) {
            let whole = raw(kind, words);
            prop_assert!(message(&whole).is_some());
            drop(message(&whole[..cut.min(whole.len())]));
        }
    }
}
