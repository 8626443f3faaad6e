//! The ledger's files: `NNNNNNNNNN.jsonl`, each named by its first record's number.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::durable;
use crate::error::StoreError;
use crate::ledger::lines::Lines;

/// A file is rotated once it is this long, bytes.
pub(crate) const ROTATE_AT: u64 = 64 * 1024 * 1024;

/// Numbers stay below this, so that every JSON reader keeps them exact.
pub(crate) const MAX_SEQ: u64 = 1 << 53;

/// No file of ours starts further than this behind the one before: a name that
/// does was put there to use the numbers up.
pub(crate) const MAX_JUMP: u64 = 1 << 32;

/// One file of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Number of its first record, by its name.
    pub(crate) first: u64,
    pub(crate) path: PathBuf,
}

impl Segment {
    pub(crate) fn new(dir: &Path, first: u64) -> Self {
        Self { first, path: dir.join(format!("{first:010}.jsonl")) }
    }

    /// The file, to go on in or to cut off.
    pub(crate) fn open_for_writing(&self) -> Result<File, StoreError> {
        let failed = StoreError::io("open", &self.path);
        OpenOptions::new().read(true).write(true).open(&self.path).map_err(failed)
    }

    /// Every ledger file of a directory in order. Other names are none of ours.
    pub(crate) fn list(dir: &Path) -> Result<Vec<Self>, StoreError> {
        let failed = || StoreError::io("list", dir);
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(failed())? {
            let name = entry.map_err(failed())?.file_name();
            let number = name.to_str().and_then(|n| n.strip_suffix(".jsonl")).filter(|n| n.len() >= 10);
            let Some(first) = number.and_then(|n| n.parse::<u64>().ok()) else { continue };
            let segment = Self::new(dir, first);
            // `+123456789.jsonl` and other spellings of a number are not names that we write.
            if segment.path.file_name() == Some(&name) && first < MAX_SEQ {
                found.push(segment);
            }
        }
        found.sort_by_key(|s| s.first);
        let mut before = 0;
        let plausible = found.iter().take_while(|s| {
            let near = s.first <= before + MAX_JUMP;
            before = s.first;
            near
        });
        let keep = plausible.count();
        found.truncate(keep);
        Ok(found)
    }

    pub(crate) fn open(&self) -> Result<(Arc<File>, u64), StoreError> {
        let file = durable::open_regular(&self.path)?;
        let length = file.metadata().map_err(StoreError::io("examine", &self.path))?.len();
        Ok((Arc::new(file), length))
    }

    /// Its lines from the start to its present end.
    pub(crate) fn lines(&self) -> Result<Lines, StoreError> {
        let (file, length) = self.open()?;
        Ok(Lines::new(file, 0, length))
    }
}
