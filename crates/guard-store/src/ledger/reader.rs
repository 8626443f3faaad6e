//! Reads durable records in order, from any number on.

use std::sync::Arc;

use guard_model::ledger::Record;

use crate::error::{Damage, StoreError};
use crate::ledger::Shared;
use crate::ledger::lines::Lines;
use crate::ledger::segments::Segment;

/// Reads records in order up to the last durable one.
///
/// The iterator is not fused: after `None` it goes on once more records are
/// there. A line that is no record, or a file that cannot be read, gives one
/// error, and the next call goes on behind it.
pub struct LedgerReader {
    shared: Arc<Shared>,
    /// The next record's number.
    next: u64,
    place: Option<(Segment, Lines)>,
}

impl std::fmt::Debug for LedgerReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerReader").field("next", &self.next).finish_non_exhaustive()
    }
}

impl LedgerReader {
    pub(super) fn new(shared: Arc<Shared>, seq: u64) -> Self {
        Self { shared, next: seq.max(1), place: None }
    }

    /// As [`Self::read`]; after an error it stands behind what could not be read.
    fn read_on(&mut self) -> Result<Option<Record>, StoreError> {
        let outcome = self.read();
        if let Err(StoreError::Io { .. }) = outcome {
            let state = self.shared.lock();
            let current = self.place.as_ref().map_or(self.next, |(s, _)| s.first);
            let after = state.segments.iter().find(|s| s.first > current).map(|s| s.first);
            self.next = self.next.max(after.unwrap_or(state.head.seq.saturating_add(1)));
            self.place = None;
        }
        outcome
    }

    fn read(&mut self) -> Result<Option<Record>, StoreError> {
        loop {
            let (is_last, after) = {
                let state = self.shared.lock();
                if self.next > state.head.seq {
                    return Ok(None);
                }
                let holds = state.segments.partition_point(|s| s.first <= self.next).saturating_sub(1);
                if self.place.is_none() {
                    let Some(segment) = state.segments.get(holds).cloned() else { return Ok(None) };
                    let is_last = holds + 1 == state.segments.len();
                    let from = if is_last { state.marks.before(self.next) } else { 0 };
                    let limit = state.length;
                    drop(state);
                    let (file, length) = segment.open()?;
                    let lines = Lines::new(file, from, if is_last { limit } else { length });
                    self.place = Some((segment, lines));
                    continue;
                }
                let current = self.place.as_ref().map_or(0, |(s, _)| s.first);
                let is_last = state.segments.last().is_some_and(|s| s.first == current);
                let after = state.segments.iter().find(|s| s.first > current).map(|s| s.first);
                if let Some((_, lines)) = self.place.as_mut() {
                    // What is behind the last durable record may still be undone; a
                    // file that another one follows is finished.
                    lines.set_limit(if is_last { state.length } else { u64::MAX });
                }
                (is_last, after)
            };
            let Some((segment, lines)) = self.place.as_mut() else { return Ok(None) };
            let failed = || StoreError::io("read", &segment.path);
            match lines.next_line().map_err(failed())? {
                Some(line) if line.ended => {
                    let record = match serde_json::from_slice::<Record>(line.text) {
                        Ok(record) => record,
                        Err(e) => {
                            let why = Damage::Line { line: line.number, why: e.to_string() };
                            return Err(StoreError::damaged(&segment.path, why));
                        }
                    };
                    if record.seq >= self.next {
                        self.next = record.seq.saturating_add(1);
                        return Ok(Some(record));
                    }
                }
                Some(_) if is_last => return Ok(None),
                Some(line) => {
                    let why = Damage::Line { line: line.number, why: "the line has no end".to_owned() };
                    lines.skip_unended().map_err(failed())?;
                    return Err(StoreError::damaged(&segment.path, why));
                }
                None if is_last => return Ok(None),
                None => {
                    let Some(after) = after else { return Ok(None) };
                    self.next = self.next.max(after);
                    self.place = None;
                }
            }
        }
    }
}

impl Iterator for LedgerReader {
    type Item = Result<Record, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read_on().transpose()
    }
}
