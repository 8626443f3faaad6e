//! What a generation says for people and their tools: `undo.jsonl` and `SHA256SUMS`.

use std::path::Path;

use guard_model::Digest;
use guard_model::baseline::Totals;

use super::codec::Malformed;
use super::table::Rows;
use super::writer::Output;
use super::{RECORDS, SUMS, UNDO, codec, sums};
use crate::error::{Damage, StoreError};

/// How many times as long as records their lines mostly are.
const UNDO_TIMES: usize = 5;
const SUMS_TIMES: usize = 2;

/// The lines of some records, and what these add up to.
pub(super) struct Lines {
    undo: Vec<u8>,
    sha256sums: Vec<u8>,
    totals: Totals,
}

impl Lines {
    /// Those of a block of records of the generation in `dir`.
    pub(super) fn of(block: &[u8], dir: &Path) -> Result<Self, StoreError> {
        let malformed =
            |e: Malformed| StoreError::damaged(&dir.join(RECORDS), Damage::Format { what: e.0, at: 0 });
        let mut lines = Self {
            undo: Vec::with_capacity(block.len() * UNDO_TIMES),
            sha256sums: Vec::with_capacity(block.len() * SUMS_TIMES),
            totals: Totals::default(),
        };
        for row in Rows::new(block) {
            let record = row.and_then(|(key, body)| codec::record(key, body)).map_err(malformed)?;
            lines.totals.add(&record.entry);
            serde_json::to_writer(&mut lines.undo, &record)
                .map_err(|source| StoreError::Json { what: "a baseline record", source })?;
            lines.undo.push(b'\n');
            sums::put_line(&mut lines.sha256sums, &record);
        }
        Ok(lines)
    }
}

/// Both files being written.
pub(super) struct LinesOutput {
    undo: Output,
    sha256sums: Output,
    totals: Totals,
}

impl LinesOutput {
    pub(super) fn create(dir: &Path) -> Result<Self, StoreError> {
        let undo = Output::create(dir.join(UNDO))?;
        let sha256sums = Output::create(dir.join(SUMS))?;
        Ok(Self { undo, sha256sums, totals: Totals::default() })
    }

    /// Lines come in order.
    pub(super) fn put(&mut self, lines: &Lines) -> Result<(), StoreError> {
        self.totals += lines.totals;
        self.undo.write(&lines.undo)?;
        self.sha256sums.write(&lines.sha256sums)
    }

    /// Their digests: `undo.jsonl`, `SHA256SUMS`.
    pub(super) fn finish(self) -> Result<(Digest, Digest, Totals), StoreError> {
        Ok((self.undo.finish()?, self.sha256sums.finish()?, self.totals))
    }
}
