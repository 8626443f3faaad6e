//! Reads the ledger's files to bring the index up to date.

use guard_model::ledger::{Head, Record, line_hash};

use super::{IndexWriter, Located};
use crate::error::StoreError;
use crate::ledger::Segment;
use crate::state_dir::StatePaths;

/// Records that share a transaction.
const TOGETHER: usize = 2000;
/// Bytes of lines that share a transaction.
const TOGETHER_BYTES: u64 = 8 * 1024 * 1024;

impl IndexWriter {
    /// Takes in every record behind the index's head up to `head`; answers how many.
    ///
    /// In a ledger that was found broken, what can be read counts: a forged line
    /// was reported when the break was found, and a lost `locked` would leave an
    /// environment unguarded.
    pub(super) fn replay(&mut self, state: &StatePaths, head: Head) -> Result<u64, StoreError> {
        let mut taken = 0;
        let segments = Segment::list(&state.ledger())?;
        let next = self.head.seq.saturating_add(1);
        let from = segments.partition_point(|s| s.first <= next).saturating_sub(1);
        for segment in segments.iter().skip(from) {
            if self.head.seq >= head.seq {
                break;
            }
            taken += self.replay_segment(segment, head)?;
        }
        Ok(taken)
    }

    fn replay_segment(&mut self, segment: &Segment, head: Head) -> Result<u64, StoreError> {
        let mut lines = match segment.lines() {
            Ok(lines) => lines,
            Err(StoreError::Damaged { .. }) => return Ok(0),
            Err(e) => return Err(e),
        };
        let failed = || StoreError::io("read", &segment.path);
        let (mut taken, mut group, mut bytes) = (0, Vec::new(), 0u64);
        let mut last = self.head;
        loop {
            let mut skip = false;
            let line = match lines.next_line().map_err(failed())? {
                None => break,
                Some(line) if line.ended => Some(line),
                Some(_) => {
                    skip = true;
                    None
                }
            };
            if let Some(line) = line {
                if let Ok(record) = serde_json::from_slice::<Record>(line.text) {
                    if record.seq > last.seq && record.seq <= head.seq {
                        last = Head { seq: record.seq, hash: line_hash(line.text) };
                        let length = line.text.len() as u64;
                        bytes += length;
                        let (segment, offset) = (segment.first, line.offset);
                        group.push(Located { segment, offset, length, record });
                    }
                }
            }
            if skip {
                lines.skip_unended().map_err(failed())?;
            }
            if group.len() >= TOGETHER || bytes >= TOGETHER_BYTES {
                self.apply(&group, last)?;
                taken += group.len() as u64;
                group.clear();
                bytes = 0;
            }
        }
        if !group.is_empty() {
            self.apply(&group, last)?;
            taken += group.len() as u64;
        }
        Ok(taken)
    }
}
