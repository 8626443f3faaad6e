//! Lines of a ledger file, read by position and never past a given limit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// Longest line, bytes: what does not fit is split or shortened before it is written.
pub(crate) const MAX_LINE: usize = 16 * 1024 * 1024;

const CHUNK: usize = 64 * 1024;

/// One line as it stands in a file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    /// Without its newline.
    pub(crate) text: &'a [u8],
    /// Where it starts in the file.
    pub(crate) offset: u64,
    /// Counts from 1 where reading began.
    pub(crate) number: u64,
    /// False where the limit came before a newline, or the line is too long.
    pub(crate) ended: bool,
}

/// Reads lines; the limit may be moved forward while reading.
#[derive(Debug)]
pub(crate) struct Lines {
    file: Arc<File>,
    limit: u64,
    held: Vec<u8>,
    /// Where in the file `held` starts.
    held_at: u64,
    /// Where in `held` the next line starts.
    next: usize,
    number: u64,
}

impl Lines {
    pub(crate) fn new(file: Arc<File>, from: u64, limit: u64) -> Self {
        Self { file, limit, held: Vec::new(), held_at: from, next: 0, number: 0 }
    }

    pub(crate) fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// The next line; `None` at the limit. A line that has not ended is given
    /// once more by the next call, with what has come since.
    pub(crate) fn next_line(&mut self) -> io::Result<Option<Line<'_>>> {
        let mut searched = 0;
        let ended = loop {
            let rest = self.held.get(self.next..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', rest.get(searched..).unwrap_or_default()) {
                break Some(searched + at);
            }
            searched = rest.len();
            if searched > MAX_LINE || self.fill()? == 0 {
                break None;
            }
        };
        let start = self.next;
        let offset = self.held_at.saturating_add(start as u64);
        let rest = self.held.get(start..).unwrap_or_default();
        let number = self.number + 1;
        match ended {
            Some(length) => {
                self.next = start + length + 1;
                self.number = number;
                let text = rest.get(..length).unwrap_or_default();
                Ok(Some(Line { text, offset, number, ended: true }))
            }
            None if rest.is_empty() => Ok(None),
            None => Ok(Some(Line { text: rest, offset, number, ended: false })),
        }
    }

    /// Passes over a line that is too long or has no end, up to the next newline or the limit.
    pub(crate) fn skip_unended(&mut self) -> io::Result<()> {
        loop {
            let rest = self.held.get(self.next..).unwrap_or_default();
            if let Some(at) = memchr::memchr(b'\n', rest) {
                self.next += at + 1;
                self.number += 1;
                return Ok(());
            }
            self.next = self.held.len();
            if self.fill()? == 0 {
                self.number += 1;
                return Ok(());
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.next > 0 {
            self.held.drain(..self.next);
            self.held_at += self.next as u64;
            self.next = 0;
        }
        let at = self.held_at + self.held.len() as u64;
        let want = usize::try_from(self.limit.saturating_sub(at)).unwrap_or(CHUNK).min(CHUNK);
        if want == 0 {
            return Ok(0);
        }
        let had = self.held.len();
        self.held.resize(had + want, 0);
        let read = loop {
            match self.file.read_at(self.held.get_mut(had..).unwrap_or_default(), at) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.held.truncate(had + read.as_ref().copied().unwrap_or(0));
        read
    }
}
