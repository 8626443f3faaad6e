//! Opening the ledger: is its end what was last written, and what did a crash
//! leave behind it?
//!
//! Only the last file is read whole here; `verify_files` reads everything.

use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use guard_model::Digest;
use guard_model::ledger::{Broken, Event, Head, Record, Verifier, line_hash};

use crate::durable;
use crate::error::{Damage, StoreError};
use crate::index::Probe;
use crate::keys::PublicKey;
use crate::ledger::breaks::{BreakCause, LedgerBreak};
use crate::ledger::lines::MAX_LINE;
use crate::ledger::segments::{MAX_JUMP, Segment};
use crate::ledger::{CHECKPOINT_EVERY, Marks};
use crate::state_dir::{StateDir, StatePaths};

/// What a crash left of an unfinished write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// How much was cut off.
    pub bytes: u64,
    /// After which record.
    pub after: u64,
    /// Where the bytes are kept.
    pub saved_as: PathBuf,
}

/// The ledger's end, from which writing goes on.
pub(super) struct Found {
    pub(super) head: Head,
    pub(super) length: u64,
    pub(super) segments: Vec<Segment>,
    pub(super) marks: Marks,
    pub(super) unsigned: u64,
    pub(super) checked: u64,
    pub(super) torn_tail: Option<TornTail>,
    /// Writing goes on in a new file.
    pub(super) new_segment: bool,
}

impl Found {
    fn at_end_of(segments: Vec<Segment>, head: Head) -> Self {
        Self {
            head,
            length: 0,
            segments,
            marks: Marks::default(),
            unsigned: 0,
            checked: 0,
            torn_tail: None,
            new_segment: true,
        }
    }
}

/// A head that something outside the ledger files keeps.
pub(crate) struct Remembered {
    pub(crate) head: Head,
    pub(crate) by: String,
}

pub(super) fn after_break(state: &StateDir, broken: &LedgerBreak) -> Result<(Found, Probe), StoreError> {
    let mut segments = Segment::list(&state.ledger())?;
    while segments.last().is_some_and(|s| s.first > broken.resume_after) {
        // Only an empty file can stand there: a chain that was begun and never written to.
        drop_empty(&mut segments)?;
    }
    let head = Head { seq: broken.resume_after, hash: Digest([0; 32]) };
    Ok((Found::at_end_of(segments, head), Probe::new(state)))
}

pub(super) fn recover(state: &StateDir, key: &PublicKey) -> Result<(Found, Probe), StoreError> {
    let mut segments = Segment::list(&state.ledger())?;
    while segments.last().is_some_and(is_empty_file) {
        drop_empty(&mut segments)?;
    }
    let first_line = segments.first().map(first_record_hash).transpose()?.flatten();
    let mut remembered = lock_heads(state, key);
    let probe = Probe::new(state);
    remembered.extend(probe.remembered(first_line));
    let Some(last) = segments.last().cloned() else {
        let found = Found::at_end_of(segments, Head::default());
        return Ok((check_remembered(state, found, &remembered, 0)?, probe));
    };
    let start = start_of(&segments, &last, &remembered)?;
    let scan = scan(&last, start, &remembered)?;
    if let Some((line, cause)) = scan.broken {
        return Err(broken(&last, line, cause, resume_after(&last, scan.lines, &remembered)));
    }
    let lines = scan.lines;
    let mut found = Found {
        head: scan.head,
        length: scan.good,
        segments,
        marks: scan.marks.clone(),
        unsigned: scan.unsigned,
        checked: scan.head.seq.saturating_sub(start.seq),
        torn_tail: None,
        new_segment: false,
    };
    found = check_remembered(state, found, &remembered, lines)?;
    if scan.length > scan.good {
        found.torn_tail = Some(cut_torn_tail(state, &last, &scan, found.head.seq)?);
        if scan.good == 0 {
            drop_empty(&mut found.segments)?;
            found = Found { new_segment: true, length: 0, marks: Marks::default(), ..found };
        }
    }
    Ok((found, probe))
}

fn is_empty_file(segment: &Segment) -> bool {
    std::fs::symlink_metadata(&segment.path).is_ok_and(|m| m.is_file() && m.len() == 0)
}

fn drop_empty(segments: &mut Vec<Segment>) -> Result<(), StoreError> {
    if let Some(segment) = segments.pop()
        && is_empty_file(&segment)
    {
        durable::remove_if_there(&segment.path)?;
    }
    Ok(())
}

fn broken(file: &Segment, at: (u64, u64), cause: BreakCause, resume_after: u64) -> StoreError {
    let (line, offset) = at;
    StoreError::LedgerBroken(Box::new(LedgerBreak {
        file: file.path.clone(),
        line,
        offset,
        cause,
        resume_after,
    }))
}

/// The highest number that may have been used already.
fn resume_after(last: &Segment, lines: u64, remembered: &[Remembered]) -> u64 {
    let written = last.first.saturating_sub(1).saturating_add(lines.max(1));
    remembered
        .iter()
        .map(|r| r.head.seq)
        .filter(|&s| s <= written.saturating_add(MAX_JUMP))
        .fold(written, u64::max)
}

/// What the signed lock files say of the ledger.
fn lock_heads(state: &StatePaths, key: &PublicKey) -> Vec<Remembered> {
    let Ok(entries) = std::fs::read_dir(state.locks()) else { return Vec::new() };
    let paths = entries.filter_map(|e| e.ok().map(|e| e.path()));
    paths
        .filter(|p| p.extension().is_some_and(|e| e == "lock"))
        .filter_map(|p| crate::lock_file::read_verified(&p, key).ok())
        .map(|(lock, _)| Remembered {
            head: lock.ledger,
            by: format!("the lock file of {}", lock.environment),
        })
        .collect()
}

/// Hash of a file's first line, where it has one.
pub(crate) fn first_record_hash(segment: &Segment) -> Result<Option<Digest>, StoreError> {
    if segment.first != 1 {
        return Ok(None);
    }
    let mut lines = match segment.lines() {
        Ok(lines) => lines,
        Err(StoreError::Damaged { .. }) => return Ok(None),
        Err(e) => return Err(e),
    };
    let line = lines.next_line().map_err(StoreError::io("read", &segment.path))?;
    Ok(line.filter(|l| l.ended).map(|l| line_hash(l.text)))
}

/// Does the file start a new chain after a break?
fn is_restart(segment: &Segment) -> Result<bool, StoreError> {
    let mut lines = segment.lines()?;
    let line = lines.next_line().map_err(StoreError::io("read", &segment.path))?;
    let record = line.and_then(|l| serde_json::from_slice::<Record>(l.text).ok());
    Ok(record.is_some_and(|r| r.seq == segment.first && r.prev == Digest([0; 32])))
}

/// The head that the last file must go on from.
fn start_of(segments: &[Segment], last: &Segment, remembered: &[Remembered]) -> Result<Head, StoreError> {
    let fresh = Head { seq: last.first.saturating_sub(1), hash: Digest([0; 32]) };
    let not_a_file = |segment: &Segment, e| match e {
        StoreError::Damaged { why: Damage::NotAFile, .. } => {
            broken(segment, (0, 0), BreakCause::NotAFile, resume_after(last, 0, remembered))
        }
        other => other,
    };
    // Everything before the latest new chain was found broken and told already.
    let mut since: Vec<&Segment> = Vec::new();
    for segment in segments.iter().rev() {
        since.push(segment);
        if segment.first == 1 || is_restart(segment).map_err(|e| not_a_file(segment, e))? {
            break;
        }
    }
    let gone = |from, lines| {
        let cause = BreakCause::MissingFile { from };
        Err(broken(last, (0, 0), cause, resume_after(last, lines, remembered)))
    };
    let Some(&oldest) = since.last() else { return Ok(fresh) };
    if oldest.first != 1 && !is_restart(oldest)? {
        return gone(1, count_lines(last)?);
    }
    let Some(&before) = since.get(1) else { return Ok(fresh) };
    let head = last_head(before)?;
    if head.seq.saturating_add(1) < last.first {
        return gone(head.seq + 1, count_lines(last)?);
    }
    Ok(head)
}

fn count_lines(segment: &Segment) -> Result<u64, StoreError> {
    let mut lines = segment.lines()?;
    let mut count = 0;
    while let Some(line) = lines.next_line().map_err(StoreError::io("read", &segment.path))? {
        if !line.ended {
            break;
        }
        count = line.number;
    }
    Ok(count)
}

/// Number and hash of a file's last line; number 0 where that is no record.
fn last_head(segment: &Segment) -> Result<Head, StoreError> {
    let mut lines = segment.lines()?;
    let mut last = Vec::new();
    while let Some(line) = lines.next_line().map_err(StoreError::io("read", &segment.path))? {
        if !line.ended {
            break;
        }
        last.clear();
        last.extend_from_slice(line.text);
    }
    let seq = serde_json::from_slice::<Record>(&last).map_or(0, |r| r.seq);
    Ok(Head { seq, hash: line_hash(&last) })
}

struct Scan {
    head: Head,
    /// Whole lines, good or not.
    lines: u64,
    /// Bytes of good lines.
    good: u64,
    length: u64,
    marks: Marks,
    unsigned: u64,
    broken: Option<((u64, u64), BreakCause)>,
}

fn scan(segment: &Segment, start: Head, remembered: &[Remembered]) -> Result<Scan, StoreError> {
    let (file, length) = match segment.open() {
        Ok(opened) => opened,
        Err(StoreError::Damaged { why: Damage::NotAFile, .. }) => {
            let resume = resume_after(segment, 0, remembered);
            return Err(broken(segment, (0, 0), BreakCause::NotAFile, resume));
        }
        Err(e) => return Err(e),
    };
    let mut lines = crate::ledger::Lines::new(file, 0, length);
    let mut verifier = Verifier::after(start);
    // Where the last checkpoint lies in an earlier file, the next record gets one.
    let unsigned = if start.hash == Digest([0; 32]) { 0 } else { CHECKPOINT_EVERY };
    let mut scan =
        Scan { head: start, lines: 0, good: 0, length, marks: Marks::default(), unsigned, broken: None };
    while let Some(line) = lines.next_line().map_err(StoreError::io("read", &segment.path))? {
        let at = (line.number, line.offset);
        let (bytes, has_nul) = (line.text.len(), memchr::memchr(0, line.text).is_some());
        if !line.ended {
            if bytes > MAX_LINE {
                scan.broken = Some((at, BreakCause::Unended { after: scan.head.seq }));
            }
            break;
        }
        scan.lines = line.number;
        if scan.broken.is_some() {
            continue;
        }
        match verifier.feed(line.text) {
            Ok(record) => {
                scan.head = verifier.head();
                scan.good = line.offset.saturating_add(bytes as u64 + 1);
                scan.marks.note(record.seq, line.offset);
                scan.unsigned = match record.event {
                    Event::Checkpoint { .. } => 0,
                    _ => scan.unsigned.saturating_add(1),
                };
                let other = |r: &&Remembered| r.head.seq == scan.head.seq && r.head.hash != scan.head.hash;
                if let Some(r) = remembered.iter().find(other) {
                    let cause = BreakCause::Rewritten { remembered: r.head, by: r.by.clone() };
                    scan.broken = Some((at, cause));
                }
            }
            // A disk that lost power can leave blocks of zeros in what was not yet
            // confirmed; no line that was ever written holds one.
            Err(Broken::NotARecord { .. }) if has_nul => {
                scan.lines = scan.lines.saturating_add(1);
                break;
            }
            Err(b) => scan.broken = Some((at, BreakCause::Chain(b))),
        }
    }
    Ok(scan)
}

/// Refuses an end that is earlier than anybody remembers.
fn check_remembered(
    state: &StatePaths,
    found: Found,
    remembered: &[Remembered],
    lines: u64,
) -> Result<Found, StoreError> {
    let Some(longest) = remembered.iter().max_by_key(|r| r.head.seq) else { return Ok(found) };
    if longest.head.seq <= found.head.seq {
        return Ok(found);
    }
    let last = found.segments.last().cloned().unwrap_or_else(|| Segment::new(&state.ledger(), 1));
    let cause = BreakCause::Truncated { remembered: longest.head, by: longest.by.clone(), found: found.head };
    let resume = resume_after(&last, lines, remembered);
    Err(broken(&last, (lines, found.length), cause, resume))
}

/// Sets what stands behind the last good line aside, then cuts it off.
fn cut_torn_tail(
    state: &StatePaths,
    segment: &Segment,
    scan: &Scan,
    after: u64,
) -> Result<TornTail, StoreError> {
    let path = &segment.path;
    let file = segment.open_for_writing()?;
    let (saved_as, mut copy) = new_file_for(state, after)?;
    let mut at = scan.good;
    let mut chunk = vec![0; 64 * 1024];
    loop {
        let n = file.read_at(&mut chunk, at).map_err(StoreError::io("read", path))?;
        if n == 0 {
            break;
        }
        copy.write_all(chunk.get(..n).unwrap_or_default()).map_err(StoreError::io("write", &saved_as))?;
        at += n as u64;
    }
    copy.sync_all().map_err(StoreError::io("fsync", &saved_as))?;
    durable::sync_dir(&state.quarantine())?;
    file.set_len(scan.good).map_err(StoreError::io("shorten", path))?;
    file.sync_all().map_err(StoreError::io("fsync", path))?;
    Ok(TornTail { bytes: at - scan.good, after, saved_as })
}

fn new_file_for(state: &StatePaths, after: u64) -> Result<(PathBuf, std::fs::File), StoreError> {
    let mut n = 0u32;
    loop {
        let path = state.quarantine().join(format!("ledger-torn-after-{after}.{n}"));
        match durable::create_new(&path, 0o600) {
            Ok(file) => return Ok((path, file)),
            Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                n += 1
            }
            Err(e) => return Err(e),
        }
    }
}
