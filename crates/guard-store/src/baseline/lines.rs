//! What a generation says for people and their tools: `undo.jsonl` and `SHA256SUMS`.

use std::path::{Path, PathBuf};

use guard_model::Digest;
use guard_model::baseline::Totals;

use super::runs::Row;
use super::writer::Output;
use super::{SUMS, UNDO, codec, sums};
use crate::error::{Damage, StoreError};

/// Both files being written, and what their records add up to.
pub(super) struct Lines {
    dir: PathBuf,
    undo: Output,
    sha256sums: Output,
    totals: Totals,
    line: Vec<u8>,
}

impl Lines {
    pub(super) fn create(dir: &Path) -> Result<Self, StoreError> {
        let undo = Output::create(dir.join(UNDO))?;
        let sha256sums = Output::create(dir.join(SUMS))?;
        Ok(Self { dir: dir.to_owned(), undo, sha256sums, totals: Totals::default(), line: Vec::new() })
    }

    /// Rows come in order.
    pub(super) fn put(&mut self, row: &Row) -> Result<(), StoreError> {
        let record = codec::record(row.key(), &row.body)
            .map_err(|e| StoreError::damaged(&self.dir, Damage::Format { what: e.0, at: 0 }))?;
        self.totals.add(&record.entry);
        self.line.clear();
        serde_json::to_writer(&mut self.line, &record)
            .map_err(|source| StoreError::Json { what: "a baseline record", source })?;
        self.line.push(b'\n');
        self.undo.write(&self.line)?;
        self.line.clear();
        sums::put_line(&mut self.line, &record);
        self.sha256sums.write(&self.line)
    }

    /// Their digests: `undo.jsonl`, `SHA256SUMS`.
    pub(super) fn finish(self) -> Result<(Digest, Digest, Totals), StoreError> {
        Ok((self.undo.finish()?, self.sha256sums.finish()?, self.totals))
    }
}
