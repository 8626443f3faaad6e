//! Sorting more records than memory should hold: sorted runs on the disk,
//! merged once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};

use guard_model::baseline::BaselineRecord;

use super::codec::{Input, Key, key_of, put_body, put_bytes};
use super::table::{OTHER_PARENT, SAME_PARENT, put_parent};
use crate::durable;
use crate::error::{Damage, StoreError};

/// Rows are held up to this many bytes, then written out as a run.
const HELD_BYTES: usize = 8 * 1024 * 1024;
const BUFFER: usize = 64 * 1024;

/// A row taken apart. Its buffers are used again for the next one.
#[derive(Default)]
pub(super) struct Row {
    pub(super) parent: Vec<u8>,
    pub(super) name: Vec<u8>,
    pub(super) body: Vec<u8>,
}

impl Row {
    pub(super) fn key(&self) -> Key<'_> {
        (&self.parent, &self.name)
    }
}

/// Records in their compact form, in any order: encoded wherever there is time for it, and given to a
/// [`BaselineWriter`](super::BaselineWriter) together. Those of one directory that come one after the other are sorted
/// among themselves alone, which is far less work than to sort all of them by whole paths.
#[derive(Debug, Default)]
pub struct EncodedRecords {
    /// Names with bodies, and parents.
    held: Vec<u8>,
    groups: Vec<Group>,
    /// Where the name of each row starts in `held`.
    starts: Vec<usize>,
    body: Vec<u8>,
}

/// Rows that have their parent in common.
#[derive(Debug, Clone)]
struct Group {
    /// In `held`.
    parent: Range<usize>,
    /// In `starts`.
    rows: Range<usize>,
}

impl EncodedRecords {
    /// Takes one more.
    pub fn push(&mut self, record: &BaselineRecord) {
        let (parent, name) = key_of(&record.path);
        if self.groups.last().is_none_or(|group| self.parent(group) != parent) {
            let from = self.held.len();
            self.held.extend_from_slice(parent);
            let rows = self.starts.len()..self.starts.len();
            self.groups.push(Group { parent: from..self.held.len(), rows });
        }
        self.starts.push(self.held.len());
        if let Some(group) = self.groups.last_mut() {
            group.rows.end = self.starts.len();
        }
        put_bytes(&mut self.held, name);
        self.body.clear();
        put_body(&mut self.body, record);
        put_bytes(&mut self.held, &self.body);
    }

    /// How much memory they take, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.held.len()
    }

    fn append(&mut self, other: &Self) {
        let (bytes, rows) = (self.held.len(), self.starts.len());
        self.held.extend_from_slice(&other.held);
        self.starts.extend(other.starts.iter().map(|start| bytes + start));
        self.groups.extend(other.groups.iter().map(|group| Group {
            parent: bytes + group.parent.start..bytes + group.parent.end,
            rows: rows + group.rows.start..rows + group.rows.end,
        }));
    }

    fn parent(&self, group: &Group) -> &[u8] {
        self.held.get(group.parent.clone()).unwrap_or_default()
    }

    /// The name of a row, and the row from its name on.
    fn row(&self, start: usize) -> (&[u8], &[u8]) {
        let rest = self.held.get(start..).unwrap_or_default();
        let mut input = Input(rest);
        // Both were written here, so they are there.
        let name = input.bytes().unwrap_or_default();
        input.bytes().unwrap_or_default();
        (name, rest.get(..rest.len().saturating_sub(input.0.len())).unwrap_or_default())
    }

    /// Gives every row in order: its parent where that is another than that of the row before, and it from its name on.
    /// Of two rows of one path the later one comes later.
    fn in_order<E>(&self, mut each: impl FnMut(Option<&[u8]>, &[u8]) -> Result<(), E>) -> Result<(), E> {
        let mut groups: Vec<&Group> = self.groups.iter().collect();
        groups.sort_by(|a, b| self.parent(a).cmp(self.parent(b)));
        let mut rows = Vec::new();
        for siblings in groups.chunk_by(|a, b| self.parent(a) == self.parent(b)) {
            rows.clear();
            let starts = siblings.iter().flat_map(|group| self.starts.get(group.rows.clone()));
            rows.extend(starts.flatten().map(|&start| self.row(start)));
            rows.sort_by_key(|(name, _)| *name);
            let mut parent = siblings.first().map(|group| self.parent(group));
            rows.iter().try_for_each(|(_, row)| each(parent.take(), row))?;
        }
        Ok(())
    }
}

/// As many rows as are held in memory. They have to be written before the sorter that they come from is at its end.
#[derive(Debug)]
#[must_use = "without these rows the baseline is not whole"]
pub struct FullRun {
    rows: EncodedRecords,
    path: PathBuf,
}

impl FullRun {
    /// Sorts them and writes them to the disk.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn write(self) -> Result<(), StoreError> {
        let failed = || StoreError::io("write", &self.path);
        let mut out = BufWriter::with_capacity(BUFFER, durable::create_new(&self.path, 0o600)?);
        let mut begin = Vec::new();
        self.rows.in_order(|parent, row| {
            begin.clear();
            put_parent(&mut begin, parent);
            out.write_all(&begin).and_then(|()| out.write_all(row)).map_err(failed())
        })?;
        out.flush().map_err(failed())
    }
}

/// Takes rows in any order.
pub(super) struct Sorter {
    dir: PathBuf,
    held: EncodedRecords,
    runs: Vec<PathBuf>,
    rows: usize,
}

impl Sorter {
    pub(super) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), held: EncodedRecords::default(), runs: Vec::new(), rows: 0 }
    }

    pub(super) fn push(&mut self, record: &BaselineRecord) -> Result<(), StoreError> {
        self.rows += 1;
        self.held.push(record);
        self.full().map_or(Ok(()), FullRun::write)
    }

    pub(super) fn add(&mut self, records: &EncodedRecords) -> Option<FullRun> {
        self.rows += records.starts.len();
        self.held.append(records);
        self.full()
    }

    fn full(&mut self) -> Option<FullRun> {
        (self.held.size() >= HELD_BYTES).then(|| self.take())
    }

    fn take(&mut self) -> FullRun {
        let path = self.dir.join(format!("run-{}", self.runs.len()));
        self.runs.push(path.clone());
        FullRun { rows: std::mem::take(&mut self.held), path }
    }

    /// Everything that was pushed, in order; of equal paths the one pushed last.
    pub(super) fn finish(mut self) -> Result<Merge, StoreError> {
        if self.held.size() > 0 {
            self.take().write()?;
        }
        let mut merge = Merge { runs: Vec::new(), heap: BinaryHeap::new(), pushed: self.rows };
        for (number, path) in std::mem::take(&mut self.runs).into_iter().enumerate() {
            let file = File::open(&path).map_err(StoreError::io("open", &path))?;
            let mut run = Run { from: BufReader::with_capacity(BUFFER, file), path };
            let mut next = Next { run: number, ..Next::default() };
            if run.read(&mut next)? {
                merge.heap.push(Reverse(next));
            }
            merge.runs.push(run);
        }
        Ok(merge)
    }
}

struct Run {
    from: BufReader<File>,
    path: PathBuf,
}

/// The next row of a run, in the order in which rows leave.
#[derive(Default, PartialEq, Eq, PartialOrd, Ord)]
struct Next {
    parent: Vec<u8>,
    name: Vec<u8>,
    run: usize,
    body: Vec<u8>,
}

/// Rows in order.
pub(super) struct Merge {
    runs: Vec<Run>,
    heap: BinaryHeap<Reverse<Next>>,
    /// How many were pushed, repetitions among them.
    pub(super) pushed: usize,
}

impl Merge {
    /// The next row, in place of what `row` was. False at the end.
    pub(super) fn next(&mut self, row: &mut Row) -> Result<bool, StoreError> {
        if !self.pop(row)? {
            return Ok(false);
        }
        while self.heap.peek().is_some_and(|Reverse(next)| (&*next.parent, &*next.name) == row.key()) {
            self.pop(row)?;
        }
        Ok(true)
    }

    fn pop(&mut self, row: &mut Row) -> Result<bool, StoreError> {
        let Some(mut top) = self.heap.peek_mut() else { return Ok(false) };
        let Reverse(next) = &mut *top;
        // Stays there, for rows that have it in common.
        row.parent.clone_from(&next.parent);
        std::mem::swap(&mut row.name, &mut next.name);
        std::mem::swap(&mut row.body, &mut next.body);
        let more = match self.runs.get_mut(next.run) {
            Some(run) => run.read(next)?,
            None => false,
        };
        if !more {
            PeekMut::pop(top);
        }
        Ok(true)
    }

    /// Removes the runs from the disk.
    pub(super) fn remove_runs(self) -> Result<(), StoreError> {
        self.runs.iter().try_for_each(|run| durable::remove_if_there(&run.path))
    }
}

impl Run {
    /// The row after `next`, in its place. False at the end.
    fn read(&mut self, next: &mut Next) -> Result<bool, StoreError> {
        match self.byte()? {
            None => return Ok(false),
            Some(OTHER_PARENT) => self.bytes(&mut next.parent)?,
            Some(SAME_PARENT) => {}
            Some(_) => return Err(self.damaged("an unknown kind of row in a sorted run")),
        }
        self.bytes(&mut next.name)?;
        self.bytes(&mut next.body)?;
        Ok(true)
    }

    fn byte(&mut self) -> Result<Option<u8>, StoreError> {
        let byte = self.from.fill_buf().map_err(StoreError::io("read", &self.path))?.first().copied();
        self.from.consume(usize::from(byte.is_some()));
        Ok(byte)
    }

    /// A length and that many bytes.
    fn bytes(&mut self, into: &mut Vec<u8>) -> Result<(), StoreError> {
        let mut length = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?.ok_or_else(|| self.short())?;
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        into.clear();
        let failed = || StoreError::io("read", &self.path);
        let there = self.from.fill_buf().map_err(failed())?;
        if let Some(bytes) = usize::try_from(length).ok().and_then(|length| there.get(..length)) {
            into.extend_from_slice(bytes);
            self.from.consume(into.len());
            return Ok(());
        }
        let got = (&mut self.from).take(length).read_to_end(into).map_err(failed())?;
        if got as u64 == length { Ok(()) } else { Err(self.short()) }
    }

    fn short(&self) -> StoreError {
        self.damaged("a sorted run that ends early")
    }

    fn damaged(&self, what: &'static str) -> StoreError {
        StoreError::damaged(&self.path, Damage::Format { what, at: 0 })
    }
}
