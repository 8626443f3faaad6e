//! Verifying a whole ledger, beside a running daemon or on another machine.

use std::path::{Path, PathBuf};

use guard_model::Digest;
use guard_model::ledger::{Broken, Event, Head, Record, Verifier, checkpoint_text, line_hash};

use crate::error::{Damage, StoreError};
use crate::keys::{NAMESPACE_LEDGER, PublicKey};
use crate::ledger::CHECKPOINT_EVERY;
use crate::ledger::breaks::{BreakCause, LedgerBreak};
use crate::ledger::lines::{Lines, MAX_LINE};
use crate::ledger::segments::Segment;

/// Breaks that a report lists; there may be more.
const LISTED: usize = 100;

/// What the verification of a ledger found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyReport {
    /// Files read.
    pub files: u64,
    /// Lines that are records and hang together.
    pub records: u64,
    /// The last of them.
    pub head: Head,
    /// Where the ledger is broken, in order; the first hundred.
    pub breaks: Vec<LedgerBreak>,
    /// How many there are.
    pub breaks_total: u64,
    /// Checkpoints whose signature verifies.
    pub checkpoints_good: u64,
    /// The last record that a good signature covers.
    pub signed_up_to: u64,
    /// Bytes of a line that was not finished at the end: a write under way, or
    /// what a crash left. Not a break.
    pub unfinished: u64,
    /// Names in the directory that are no ledger files.
    pub strangers: Vec<PathBuf>,
}

/// The verdict in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// Everything hangs together, and the remembered head is in it.
    Whole,
    /// It does not.
    Broken,
}

impl VerifyReport {
    /// The verdict.
    #[must_use]
    pub fn verdict(&self) -> Verified {
        if self.breaks_total == 0 { Verified::Whole } else { Verified::Broken }
    }

    /// The first break.
    #[must_use]
    pub fn first_broken(&self) -> Option<&LedgerBreak> {
        self.breaks.first()
    }

    /// The break that says that the end was cut off, if it was.
    #[must_use]
    pub fn truncated(&self) -> Option<&LedgerBreak> {
        self.breaks.iter().find(|b| matches!(b.cause, BreakCause::Truncated { .. }))
    }
}

/// Verifies the ledger files in `path`, a directory of them or a single file:
/// the chain, every checkpoint's signature, and that `remembered`, a head kept
/// elsewhere, is in it.
///
/// # Errors
/// [`StoreError::Io`] where a file cannot be read. What can be read and is
/// broken is in the report.
pub fn verify_files(
    path: &Path,
    key: &PublicKey,
    remembered: Option<Head>,
) -> Result<VerifyReport, StoreError> {
    let meta = std::fs::metadata(path).map_err(StoreError::io("examine", path))?;
    let (segments, strangers) = if meta.is_dir() {
        let segments = Segment::list(path)?;
        let strangers = strangers(path, &segments)?;
        (segments, strangers)
    } else {
        (vec![Segment { first: 0, path: path.to_owned() }], Vec::new())
    };
    let report = VerifyReport {
        files: segments.len() as u64,
        records: 0,
        head: Head::default(),
        breaks: Vec::new(),
        breaks_total: 0,
        checkpoints_good: 0,
        signed_up_to: 0,
        unfinished: 0,
        strangers,
    };
    let mut walk = Walk {
        verifier: Verifier::default(),
        key,
        remembered,
        met: false,
        unsigned: 0,
        started: false,
        unreadable: false,
        report,
    };
    for (i, segment) in segments.iter().enumerate() {
        walk.file(segment, i + 1 == segments.len())?;
    }
    let last = segments.last().map_or_else(|| path.to_owned(), |s| s.path.clone());
    Ok(walk.finish(last))
}

fn strangers(dir: &Path, segments: &[Segment]) -> Result<Vec<PathBuf>, StoreError> {
    let failed = || StoreError::io("list", dir);
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(failed())? {
        let path = entry.map_err(failed())?.path();
        if !segments.iter().any(|s| s.path == path) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

struct Walk<'a> {
    verifier: Verifier,
    key: &'a PublicKey,
    remembered: Option<Head>,
    /// The remembered record was met, as remembered or not.
    met: bool,
    /// Records since the last checkpoint.
    unsigned: u64,
    started: bool,
    /// The last line was no record.
    unreadable: bool,
    report: VerifyReport,
}

impl Walk<'_> {
    fn file(&mut self, segment: &Segment, is_last: bool) -> Result<(), StoreError> {
        let mut lines = match segment.lines() {
            Ok(lines) => lines,
            Err(StoreError::Damaged { why: Damage::NotAFile, .. }) => {
                self.broken(segment, (0, 0), BreakCause::NotAFile);
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        self.begin(segment)?;
        self.lines(segment, &mut lines, is_last).map_err(StoreError::io("read", &segment.path))
    }

    /// Looks at how a file joins on to the one before.
    fn begin(&mut self, segment: &Segment) -> Result<(), StoreError> {
        let failed = || StoreError::io("read", &segment.path);
        let mut lines = segment.lines()?;
        let line = lines.next_line().map_err(failed())?;
        let first = line.and_then(|l| serde_json::from_slice::<Record>(l.text).ok());
        let Some(first) = first else { return Ok(()) };
        let head = self.verifier.head();
        let alone = segment.first == 0;
        if alone && !self.started && first.seq > 1 {
            // A single file from the middle: its first record says where it hangs.
            self.verifier = Verifier::after(Head { seq: first.seq - 1, hash: first.prev });
        } else if first.prev == Digest([0; 32]) && first.seq > 1 && first.seq > head.seq {
            self.broken(segment, (1, 0), BreakCause::Restart { seq: first.seq });
            self.verifier = Verifier::after(Head { seq: first.seq - 1, hash: first.prev });
            self.unsigned = 0;
        } else if first.seq > head.seq.saturating_add(1) {
            self.broken(segment, (0, 0), BreakCause::MissingFile { from: head.seq + 1 });
            self.verifier = Verifier::after(Head { seq: first.seq - 1, hash: first.prev });
            self.unsigned = 0;
        }
        self.started = true;
        Ok(())
    }

    fn lines(&mut self, segment: &Segment, lines: &mut Lines, is_last: bool) -> std::io::Result<()> {
        while let Some(line) = lines.next_line()? {
            let at = (line.number, line.offset);
            if !line.ended {
                let bytes = line.text.len();
                if is_last && bytes <= MAX_LINE {
                    self.report.unfinished = bytes as u64;
                } else {
                    let after = self.verifier.head().seq;
                    self.broken(segment, at, BreakCause::Unended { after });
                }
                lines.skip_unended()?;
                continue;
            }
            self.adopt(line.text);
            match self.verifier.feed(line.text) {
                Ok(record) => self.good(segment, at, &record),
                Err(cause) => self.resume_behind(segment, at, line.text, cause),
            }
        }
        Ok(())
    }

    fn good(&mut self, segment: &Segment, at: (u64, u64), record: &Record) {
        self.report.records += 1;
        let head = self.verifier.head();
        if let Some(remembered) = self.remembered.filter(|r| r.seq == head.seq) {
            self.met = true;
            if remembered.hash != head.hash {
                let by = "the head given".to_owned();
                self.broken(segment, at, BreakCause::Rewritten { remembered, by });
            }
        }
        if let Event::Checkpoint { signature } = &record.event {
            self.unsigned = 0;
            let text = checkpoint_text(record.seq, &record.prev);
            match self.key.verify(NAMESPACE_LEDGER, text.as_bytes(), signature) {
                Ok(()) => {
                    self.report.checkpoints_good += 1;
                    self.report.signed_up_to = record.seq;
                }
                Err(e) => {
                    let why = std::error::Error::source(&e).map_or_else(String::new, ToString::to_string);
                    self.broken(segment, at, BreakCause::Checkpoint { seq: record.seq, why });
                }
            }
            return;
        }
        self.unsigned += 1;
        if self.unsigned > CHECKPOINT_EVERY {
            let after = record.seq.saturating_sub(self.unsigned);
            self.broken(segment, at, BreakCause::NoCheckpoint { after });
            self.unsigned = 0;
        }
    }

    /// Notes a break and goes on behind it, to find the others.
    fn resume_behind(&mut self, segment: &Segment, at: (u64, u64), text: &[u8], cause: Broken) {
        self.broken(segment, at, BreakCause::Chain(cause));
        let head = self.verifier.head();
        let record = serde_json::from_slice::<Record>(text);
        self.unreadable = record.is_err();
        let seq = record.map_or(head.seq.saturating_add(1), |r| r.seq);
        self.verifier = Verifier::after(Head { seq, hash: line_hash(text) });
    }

    /// The line behind one that was no record cannot be checked against it, and
    /// would only be a second break at the same place.
    fn adopt(&mut self, text: &[u8]) {
        if !std::mem::take(&mut self.unreadable) {
            return;
        }
        let before = self.verifier.head().seq;
        if let Ok(record) = serde_json::from_slice::<Record>(text)
            && Some(record.seq) == before.checked_add(1)
        {
            self.verifier = Verifier::after(Head { seq: before, hash: record.prev });
        }
    }

    fn broken(&mut self, segment: &Segment, at: (u64, u64), cause: BreakCause) {
        self.report.breaks_total += 1;
        if self.report.breaks.len() < LISTED {
            let (line, offset) = at;
            let resume_after = self.verifier.head().seq;
            self.report.breaks.push(LedgerBreak {
                file: segment.path.clone(),
                line,
                offset,
                cause,
                resume_after,
            });
        }
    }

    fn finish(mut self, last: PathBuf) -> VerifyReport {
        let found = self.verifier.head();
        self.report.head = found;
        if let Some(remembered) = self.remembered.filter(|r| !self.met && r.seq > 0) {
            let by = "the head given".to_owned();
            let cause = if remembered.seq > found.seq {
                BreakCause::Truncated { remembered, by, found }
            } else {
                BreakCause::Rewritten { remembered, by }
            };
            self.broken(&Segment { first: 0, path: last }, (0, 0), cause);
        }
        self.report
    }
}
