//! The file being written: durable appends, undone as a whole where they fail,
//! and space allocated ahead so that a full disk leaves room for alerts.

use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use crate::durable;
use crate::error::StoreError;
use crate::ledger::segments::Segment;

/// Space allocated beyond the ledger's end, bytes.
pub(crate) const RESERVE: u64 = 16 * 1024 * 1024;

/// Space kept ready beyond the ledger's end, which nobody else can take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Bytes that can be written though the disk is full; 16 to 24 MiB when whole.
    pub bytes: u64,
    /// Why there is less: the disk is full, or the file system cannot allocate ahead.
    pub error: Option<String>,
}

pub(crate) struct Appender {
    segment: Segment,
    file: File,
    length: u64,
    /// Up to where space is allocated.
    allocated: u64,
    reserve_error: Option<Errno>,
    /// Something may stand beyond `length`, left by a write that failed.
    dirty: bool,
}

impl Appender {
    /// Goes on at the end of a file that was checked.
    pub(crate) fn resume(segment: Segment, length: u64) -> Result<Self, StoreError> {
        let file = segment.open_for_writing()?;
        Ok(Self::with(segment, file, length))
    }

    /// Makes a new file.
    pub(crate) fn create(dir: &Path, first: u64) -> Result<Self, StoreError> {
        let segment = Segment::new(dir, first);
        let file = durable::create_new(&segment.path, 0o600)?;
        durable::sync_dir(dir)?;
        Ok(Self::with(segment, file, 0))
    }

    fn with(segment: Segment, file: File, length: u64) -> Self {
        let mut new = Self { segment, file, length, allocated: length, reserve_error: None, dirty: false };
        new.reserve();
        new
    }

    pub(crate) fn segment(&self) -> &Segment {
        &self.segment
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    pub(crate) fn reserve_state(&self) -> Reserve {
        Reserve {
            bytes: self.allocated.saturating_sub(self.length),
            error: self.reserve_error.map(|e| std::io::Error::from(e).to_string()),
        }
    }

    /// True where the whole reserve is there.
    pub(crate) fn has_reserve(&self) -> bool {
        self.allocated.saturating_sub(self.length) >= RESERVE
    }

    /// True where the file system can allocate ahead, though it may be full now.
    pub(crate) fn can_reserve(&self) -> bool {
        self.reserve_error.is_none_or(is_full)
    }

    /// Allocates ahead again once less than the reserve is left, half of it more
    /// than needed so that this is rare. On a disk that is nearly full it takes
    /// what it can get.
    fn reserve(&mut self) {
        if self.has_reserve() || !self.can_reserve() {
            return;
        }
        for size in [RESERVE / 2 * 3, RESERVE, RESERVE / 4, RESERVE / 16, RESERVE / 64] {
            match self.allocate(self.length + size) {
                Ok(()) => break,
                Err(e) => self.reserve_error = Some(e),
            }
        }
        if self.has_reserve() {
            self.reserve_error = None;
        }
    }

    fn allocate(&mut self, until: u64) -> Result<(), Errno> {
        let from = self.allocated.max(self.length);
        if until > from {
            rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, from, until - from)?;
            self.allocated = until;
        }
        Ok(())
    }

    /// Tries to get the reserve back.
    pub(crate) fn refill(&mut self) {
        self.reserve();
    }

    /// Was the file changed by somebody else since the last append?
    pub(crate) fn disturbed(&self) -> Option<&'static str> {
        let Ok(ours) = self.file.metadata() else { return Some("made unreadable") };
        match std::fs::symlink_metadata(&self.segment.path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => {}
            Ok(_) => return Some("replaced"),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Some("removed"),
            Err(_) => return None,
        }
        match ours.len().cmp(&self.length) {
            std::cmp::Ordering::Less => Some("shortened"),
            // What a failed write left is ours, and is cut off by the next one.
            std::cmp::Ordering::Greater if !self.dirty => Some("lengthened"),
            _ => None,
        }
    }

    /// Appends `bytes`; they are on the disk when this returns. When it fails
    /// the file is as it was, as far as the disk allows.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self.dirty {
            self.cut_back().map_err(StoreError::io("shorten", &self.segment.path))?;
        }
        self.make_room(bytes.len() as u64)?;
        let path = &self.segment.path;
        let outcome = self
            .file
            .write_all_at(bytes, self.length)
            .map_err(StoreError::io("write", path))
            .and_then(|()| self.file.sync_data().map_err(StoreError::io("fsync", path)));
        if let Err(e) = outcome {
            self.dirty = true;
            if let Err(error) = self.cut_back() {
                tracing::error!(file = %self.segment.path.display(), %error, "cannot undo a failed ledger write yet");
            }
            return Err(e);
        }
        self.length += bytes.len() as u64;
        self.reserve();
        Ok(())
    }

    /// Refuses a write that has no room before a byte of it is written, because
    /// cutting it off again would give the reserve away as well.
    fn make_room(&mut self, more: u64) -> Result<(), StoreError> {
        match self.allocate(self.length.saturating_add(more)) {
            Err(e) if is_full(e) => {
                self.reserve_error = Some(e);
                Err(StoreError::sys("allocate space for", &self.segment.path)(e))
            }
            // A file system that cannot allocate ahead: the write itself will tell.
            _ => Ok(()),
        }
    }

    fn cut_back(&mut self) -> std::io::Result<()> {
        self.file.set_len(self.length)?;
        // Shortening gives the space beyond the end back as well.
        self.allocated = self.length;
        self.dirty = false;
        self.reserve();
        Ok(())
    }

    /// Gives back the space beyond the end: this file is finished.
    pub(crate) fn finish(&self) {
        if let Err(error) = self.file.set_len(self.length) {
            tracing::warn!(file = %self.segment.path.display(), %error, "cannot give back reserved ledger space");
        }
    }
}

fn is_full(e: Errno) -> bool {
    matches!(e, Errno::NOSPC | Errno::DQUOT | Errno::FBIG)
}
