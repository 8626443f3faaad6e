//! `entries.jsonl.zst.age`: a line for each path in a backup, parents before children.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::PathBuf;

use guard_model::backup::{BackupEntry, Ciphertext};
use guard_model::{Digest, Kind};
use serde::Deserialize;

use super::dir::Dir;
use super::error::BackupError;
use super::keys::BackupKeys;
use super::sealed::{SealedReader, SealedWriter};
use crate::error::StoreError;

/// The file's name in a backup's directory.
pub const ENTRIES: &str = "entries.jsonl.zst.age";
/// Longest line, bytes: xattrs of 64 KiB each, escaped, and then some.
const MAX_LINE: u64 = 4 << 20;

pub(super) struct EntriesWriter {
    to: SealedWriter,
    line: Vec<u8>,
    path: PathBuf,
}

impl EntriesWriter {
    pub(super) fn create(dir: &Dir, keys: &BackupKeys) -> Result<Self, BackupError> {
        let path = dir.path_of(ENTRIES);
        let to = SealedWriter::new(dir.create(ENTRIES)?, &path, keys)?;
        Ok(Self { to, line: Vec::new(), path })
    }

    pub(super) fn push(&mut self, entry: &BackupEntry) -> Result<(), BackupError> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, entry)
            .map_err(|source| StoreError::Json { what: "a backup's entry", source })?;
        self.line.push(b'\n');
        self.to.write_all(&self.line).map_err(BackupError::io("write", &self.path))
    }

    pub(super) fn finish(self) -> Result<Ciphertext, BackupError> {
        self.to.finish()
    }
}

/// Reads the lines one by one.
pub(super) struct Lines {
    from: BufReader<SealedReader>,
    path: PathBuf,
    line: u64,
    text: Vec<u8>,
}

impl Lines {
    /// Opens the entries of a backup whose manifest is believed; the whole file is compared with it first.
    pub(super) fn open(dir: &Dir, expected: &Ciphertext, keys: &BackupKeys) -> Result<Self, BackupError> {
        let path = dir.path_of(ENTRIES);
        super::sealed::check_ciphertext(&mut dir.open(ENTRIES)?, &path, expected)?;
        let from = BufReader::with_capacity(128 * 1024, SealedReader::new(dir.open(ENTRIES)?, &path, keys)?);
        Ok(Self { from, path, line: 0, text: Vec::new() })
    }

    pub(super) fn next<T: for<'de> Deserialize<'de>>(&mut self) -> Result<Option<T>, BackupError> {
        self.text.clear();
        let mut limited = (&mut self.from).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut self.text).map_err(BackupError::io("read", &self.path))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        let bad = |why: String| BackupError::content(&self.path, format!("line {}: {why}", self.line));
        let text = self.text.strip_suffix(b"\n").ok_or_else(|| bad("it has no end".to_owned()))?;
        serde_json::from_slice(text).map(Some).map_err(|e| bad(e.to_string()))
    }
}

/// What of an entry says where its content is.
#[derive(Deserialize)]
pub(super) struct Holding {
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    #[serde(default)]
    pub(super) pack: Option<u32>,
    #[serde(default)]
    pub(super) sha256: Option<Digest>,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) missing: Option<String>,
}
