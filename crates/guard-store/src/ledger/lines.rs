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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn file(bytes: &[u8]) -> Arc<File> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Arc::new(file)
    }

    fn all(lines: &mut Lines) -> Vec<(Vec<u8>, u64, bool)> {
        let mut found = Vec::new();
        loop {
            let Some(line) = lines.next_line().unwrap() else { return found };
            found.push((line.text.to_vec(), line.offset, line.ended));
            if !line.ended {
                lines.skip_unended().unwrap();
            }
        }
    }

    proptest! {
        #[test]
        fn lines_are_what_stands_between_newlines(
            parts in prop::collection::vec(prop::collection::vec(prop::num::u8::ANY, 0..50), 0..20),
            tail in prop::option::of(1usize..9),
        ) {
            let mut bytes = Vec::new();
            let mut expected = Vec::new();
            for part in &parts {
                let part: Vec<u8> = part.iter().copied().filter(|&b| b != b'\n').collect();
                expected.push((part.clone(), bytes.len() as u64, true));
                bytes.extend(part);
                bytes.push(b'\n');
            }
            if let Some(n) = tail {
                expected.push((vec![b'x'; n], bytes.len() as u64, false));
                bytes.extend(vec![b'x'; n]);
            }
            prop_assert_eq!(all(&mut Lines::new(file(&bytes), 0, u64::MAX)), expected);
        }
    }

    #[test]
    fn nothing_behind_the_limit_is_read_until_it_moves() {
        let mut lines = Lines::new(file(b"one\ntwo\nthree"), 0, 6);
        assert_eq!(lines.next_line().unwrap().unwrap().text, b"one");
        let line = lines.next_line().unwrap().unwrap();
        assert_eq!((line.text, line.ended), (&b"tw"[..], false));
        lines.set_limit(8);
        let line = lines.next_line().unwrap().unwrap();
        assert_eq!((line.text, line.offset, line.number, line.ended), (&b"two"[..], 4, 2, true));
        assert!(lines.next_line().unwrap().is_none());
    }

    #[test]
    fn a_line_without_end_takes_no_more_memory_than_the_longest() {
        let long = vec![b'x'; MAX_LINE * 2];
        let mut lines = Lines::new(file(&[&long, &b"\nnext\n"[..]].concat()), 0, u64::MAX);
        let line = lines.next_line().unwrap().unwrap();
        assert!(!line.ended && line.text.len() < MAX_LINE + 2 * CHUNK);
        lines.skip_unended().unwrap();
        assert_eq!(lines.next_line().unwrap().unwrap().text, b"next");
    }
}
