//! Reads the ledger's files to bring the index up to date.

use guard_model::ledger::{Head, Record, line_hash};

use super::Located;
use super::writer::IndexWriter;
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
        let mut pick = Pick { last: self.head, doubtful: None };
        let (mut taken, mut group, mut bytes) = (0, Vec::new(), 0u64);
        loop {
            let whole = match lines.next_line().map_err(failed())? {
                None => break,
                Some(line) if line.ended => {
                    let length = line.text.len() as u64;
                    bytes += length;
                    if let Ok(record) = serde_json::from_slice::<Record>(line.text)
                        && record.seq <= head.seq
                    {
                        let seen = Head { seq: record.seq, hash: line_hash(line.text) };
                        let (segment, offset) = (segment.first, line.offset);
                        pick.next(seen, Located { segment, offset, length, record }, &mut group);
                    }
                    true
                }
                Some(_) => false,
            };
            if !whole {
                lines.skip_unended().map_err(failed())?;
            }
            if group.len() >= TOGETHER || bytes >= TOGETHER_BYTES {
                taken += group.len() as u64;
                self.apply(&group, pick.last)?;
                group.clear();
                bytes = 0;
            }
        }
        pick.end(&mut group);
        if !group.is_empty() {
            taken += group.len() as u64;
            self.apply(&group, pick.last)?;
        }
        Ok(taken)
    }
}

/// Follows the numbers through a ledger that may be broken: one forged number
/// must not make everything behind it look old.
struct Pick {
    last: Head,
    /// A record whose number does not follow, until the next one bears it out.
    doubtful: Option<(Head, Located)>,
}

impl Pick {
    fn next(&mut self, seen: Head, one: Located, group: &mut Vec<Located>) {
        if seen.seq <= self.last.seq {
            return;
        }
        if seen.seq == self.last.seq + 1 {
            self.doubtful = None;
        } else if let Some((before, held)) = self.doubtful.take_if(|(b, _)| b.seq + 1 == seen.seq) {
            self.last = before;
            group.push(held);
        } else {
            self.doubtful = Some((seen, one));
            return;
        }
        self.last = seen;
        group.push(one);
    }

    fn end(&mut self, group: &mut Vec<Located>) {
        if let Some((head, held)) = self.doubtful.take() {
            self.last = head;
            group.push(held);
        }
    }
}
