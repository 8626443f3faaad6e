//! Contents of small files, collected so that they can be hashed side by side.

use std::collections::VecDeque;
use std::ops::Range;

use guard_model::Digest;

use crate::lanes::Lanes;

/// Longer files are hashed while they are read: a message takes as long as ever, however many are beside it.
pub(crate) const MOST: u64 = 64 << 10;
/// What one file is read into: longer than any, so that one read shows that it ends, and a multiple of every page size
/// that Linux has on the machines it is run on.
const SLOT: usize = 128 << 10;
/// Stays in the cache of a core that has AVX-512, and is enough for lanes to be taken by one content after the other.
const ROOM: usize = 768 << 10;
/// Of very small ones fewer bytes are enough.
const MOST_CONTENTS: usize = 256;

/// Contents by one thread, and the digests of earlier ones that nobody has taken yet.
#[derive(Debug)]
pub(crate) struct Batch {
    lanes: Lanes,
    room: Vec<u8>,
    contents: Vec<Range<usize>>,
    /// Where the next content begins.
    used: usize,
    digests: VecDeque<Digest>,
    /// Whose digest is the first of those.
    first: Ticket,
}

/// Stands for a digest that is not known yet. They are numbered as contents come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket(u64);

impl Batch {
    pub(crate) fn new(lanes: Lanes) -> Self {
        Self {
            lanes,
            room: Vec::new(),
            contents: Vec::new(),
            used: 0,
            digests: VecDeque::new(),
            first: Ticket(0),
        }
    }

    /// Room for one file to be read into from its beginning. What is in it counts once it is [kept](Self::keep).
    pub(crate) fn slot(&mut self) -> &mut [u8] {
        if self.room.is_empty() {
            self.room = vec![0; ROOM];
        }
        if self.used + SLOT > ROOM || self.contents.len() == MOST_CONTENTS {
            self.hash();
        }
        self.room.get_mut(self.used..self.used + SLOT).unwrap_or_default()
    }

    /// The first bytes of the slot, so many, are a content.
    pub(crate) fn keep(&mut self, length: usize) -> Ticket {
        let ticket = Ticket(self.first.0 + (self.digests.len() + self.contents.len()) as u64);
        self.contents.push(self.used..self.used + length);
        self.used += length;
        ticket
    }

    /// Hashes what waits.
    pub(crate) fn hash(&mut self) {
        let contents: Vec<&[u8]> =
            self.contents.drain(..).map(|range| self.room.get(range).unwrap_or_default()).collect();
        self.digests.extend(self.lanes.digests(&contents));
        self.used = 0;
    }

    /// The digest, once it is known; of an earlier content than this one it cannot be asked any more.
    pub(crate) fn take(&mut self, ticket: Ticket) -> Option<Digest> {
        let at = usize::try_from(ticket.0.checked_sub(self.first.0)?).ok()?;
        let digest = *self.digests.get(at)?;
        self.digests.drain(..=at);
        self.first = Ticket(ticket.0 + 1);
        Some(digest)
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn batch() -> Batch {
        Batch::new(Lanes::with(16, 7))
    }

    fn add(batch: &mut Batch, content: &[u8]) -> Ticket {
        batch.slot()[..content.len()].copy_from_slice(content);
        batch.keep(content.len())
    }

    fn sha256(content: &[u8]) -> Option<Digest> {
        Some(Digest(Sha256::digest(content).into()))
    }

    #[test]
    fn each_ticket_stands_for_its_content() {
        let mut batch = batch();
        let contents: Vec<Vec<u8>> = (0..1000).map(|n| vec![n as u8; n * 97 % (MOST as usize + 1)]).collect();
        let tickets: Vec<Ticket> = contents.iter().map(|c| add(&mut batch, c)).collect();
        // Not one batch, and the last is not full.
        assert!(batch.contents.len() < contents.len());
        assert_eq!(batch.take(*tickets.last().unwrap()), None, "it is not hashed yet");
        batch.hash();
        for (content, ticket) in contents.iter().zip(tickets) {
            assert_eq!(batch.take(ticket), sha256(content));
            assert_eq!(batch.take(ticket), None, "it was taken");
        }
        assert!(batch.digests.is_empty());
    }

    #[test]
    fn what_is_not_kept_does_not_count() {
        let mut batch = batch();
        let before = add(&mut batch, b"before");
        batch.slot()[..5].copy_from_slice(b"never");
        let after = add(&mut batch, b"after");
        batch.hash();
        assert_eq!((batch.take(before), batch.take(after)), (sha256(b"before"), sha256(b"after")));
    }

    #[test]
    fn a_digest_that_nobody_wants_is_passed_over() {
        let mut batch = batch();
        let [_, second, third] = [b"1", b"2", b"3"].map(|content| add(&mut batch, content));
        batch.hash();
        assert_eq!(batch.take(second), sha256(b"2"));
        assert_eq!(batch.take(third), sha256(b"3"));
    }
}
