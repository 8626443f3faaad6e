//! How far a sink has delivered, kept in a small file that is written in place.
//!
//! Two places are kept. `delivered` is what was handed over: it holds as long as
//! the kernel runs, so a killed daemon repeats at most one piece. `settled` is
//! what was on the disk: after a reboot, which may have been a power cut, the
//! sink goes on from there, and may repeat a little, but loses nothing.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// A sink's place in the ledger.
#[derive(Debug)]
pub(crate) struct Cursor {
    file: Option<File>,
    boot: String,
    delivered: Place,
    settled: u64,
    /// Why the last write failed.
    error: Option<std::io::Error>,
}

/// Everything up to record `seq`, and the first `pieces` pieces of the next one that makes any.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) seq: u64,
    pub(crate) pieces: u64,
}

impl Cursor {
    /// The place that the file at `path` holds; `None` where there is none.
    pub(crate) fn read(path: &Path, boot: &str) -> Option<Place> {
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().next()?;
        let [seq, pieces, settled, of_boot]: [&str; 4] =
            line.split_whitespace().collect::<Vec<_>>().try_into().ok()?;
        let (seq, pieces, settled) = (seq.parse().ok()?, pieces.parse().ok()?, settled.parse().ok()?);
        Some(if of_boot == boot { Place { seq, pieces } } else { Place { seq: settled, pieces: 0 } })
    }

    /// Opens the file at `path` to keep the place `from`.
    pub(crate) fn open(path: &Path, boot: String, from: Place) -> Self {
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(path);
        let (file, error) = match opened {
            Ok(file) => (Some(file), None),
            Err(e) => (None, Some(e)),
        };
        let mut cursor = Self { file, boot, delivered: from, settled: from.seq, error };
        cursor.write();
        cursor
    }

    /// A place that is kept in memory only.
    pub(crate) fn volatile(from: u64) -> Self {
        let delivered = Place { seq: from, pieces: 0 };
        Self { file: None, boot: String::new(), delivered, settled: from, error: None }
    }

    pub(crate) fn delivered(&self) -> Place {
        self.delivered
    }

    /// Why the place cannot be kept; delivery goes on all the same.
    pub(crate) fn error(&self) -> Option<&std::io::Error> {
        self.error.as_ref()
    }

    /// One more piece of the record after `delivered` went out.
    pub(crate) fn piece(&mut self, pieces: u64) {
        self.delivered.pieces = pieces;
        self.write();
    }

    /// Everything up to `seq` went out, or made no piece.
    pub(crate) fn record(&mut self, seq: u64) {
        self.delivered = Place { seq, pieces: 0 };
    }

    /// [`Self::record`], kept at once.
    pub(crate) fn record_kept(&mut self, seq: u64) {
        self.record(seq);
        self.write();
    }

    /// Everything that was delivered is on the disk.
    pub(crate) fn settle(&mut self) {
        if self.settled == self.delivered.seq {
            return;
        }
        self.settled = self.delivered.seq;
        self.write();
    }

    fn write(&mut self) {
        let Some(file) = &self.file else { return };
        let Place { seq, pieces } = self.delivered;
        // Always the same length: overwriting needs no new space on a full disk.
        let line = format!("{seq:020} {pieces:010} {:020} {:<36}\n", self.settled, self.boot);
        self.error = file.write_all_at(line.as_bytes(), 0).err();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_daemon_goes_on_where_it_was_and_a_reboot_where_it_was_safe() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sink");
        assert_eq!(Cursor::read(&path, "boot-1"), None);
        let mut cursor = Cursor::open(&path, "boot-1".into(), Place::default());
        cursor.record_kept(7);
        cursor.settle();
        cursor.record_kept(9);
        cursor.piece(3);
        drop(cursor);
        assert_eq!(Cursor::read(&path, "boot-1"), Some(Place { seq: 9, pieces: 3 }));
        assert_eq!(Cursor::read(&path, "boot-2"), Some(Place { seq: 7, pieces: 0 }));
    }

    #[test]
    fn a_file_that_holds_something_else_is_no_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sink");
        for bad in ["", "\n", "1 2 3", "1 2 x boot", "-1 0 0 boot", "1 2 3 4 5", "\u{0}\u{0}"] {
            std::fs::write(&path, bad).unwrap();
            assert_eq!(Cursor::read(&path, "boot"), None, "{bad:?}");
        }
        std::fs::write(&path, [0xff; 90]).unwrap();
        assert_eq!(Cursor::read(&path, "boot"), None);
    }
}
