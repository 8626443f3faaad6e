//! Sorting more records than memory should hold: sorted runs on the disk,
//! merged once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use guard_model::baseline::BaselineRecord;

use super::codec::{Input, Key, key_of, put_body, put_bytes};
use crate::durable;
use crate::error::{Damage, StoreError};

/// Rows are held up to this many bytes, then written out as a run.
const HELD_BYTES: usize = 8 * 1024 * 1024;
const BUFFER: usize = 64 * 1024;

/// A row taken apart.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
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
/// [`BaselineWriter`](super::BaselineWriter) together.
#[derive(Debug, Default)]
pub struct EncodedRecords {
    held: Vec<u8>,
    /// Where each row starts in `held`.
    starts: Vec<usize>,
    body: Vec<u8>,
}

impl EncodedRecords {
    /// Takes one more.
    pub fn push(&mut self, record: &BaselineRecord) {
        let (parent, name) = key_of(&record.path);
        self.starts.push(self.held.len());
        put_bytes(&mut self.held, parent);
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
        let before = self.held.len();
        self.held.extend_from_slice(&other.held);
        self.starts.extend(other.starts.iter().map(|start| before + start));
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
    pub fn write(mut self) -> Result<(), StoreError> {
        let held = &self.rows.held;
        let key = |start: usize| {
            let mut input = Input(held.get(start..).unwrap_or_default());
            // Both were just written here, so they are there.
            (input.bytes().unwrap_or_default(), input.bytes().unwrap_or_default())
        };
        // Stable, so that of two rows of one path the later one stays later.
        self.rows.starts.sort_by(|&a, &b| key(a).cmp(&key(b)));
        let failed = || StoreError::io("write", &self.path);
        let mut out = BufWriter::with_capacity(BUFFER, durable::create_new(&self.path, 0o600)?);
        for &start in &self.rows.starts {
            let rest = held.get(start..).unwrap_or_default();
            let mut input = Input(rest);
            for _ in 0..3 {
                input.bytes().unwrap_or_default();
            }
            let length = rest.len().saturating_sub(input.0.len());
            out.write_all(rest.get(..length).unwrap_or_default()).map_err(failed())?;
        }
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
        for path in std::mem::take(&mut self.runs) {
            let file = File::open(&path).map_err(StoreError::io("open", &path))?;
            merge.runs.push(Run { from: BufReader::with_capacity(BUFFER, file), path });
        }
        for index in 0..merge.runs.len() {
            merge.refill(index)?;
        }
        Ok(merge)
    }
}

struct Run {
    from: BufReader<File>,
    path: PathBuf,
}

/// Parent, name, the run it comes from, body: the order in which rows leave.
type Next = (Vec<u8>, Vec<u8>, usize, Vec<u8>);

/// Rows in order.
pub(super) struct Merge {
    runs: Vec<Run>,
    /// The next row of each run; among equal keys the earlier run first.
    heap: BinaryHeap<Reverse<Next>>,
    /// How many were pushed, repetitions among them.
    pub(super) pushed: usize,
}

impl Merge {
    pub(super) fn next(&mut self) -> Result<Option<Row>, StoreError> {
        let Some(mut row) = self.pop()? else { return Ok(None) };
        loop {
            let again = self
                .heap
                .peek()
                .is_some_and(|Reverse((parent, name, ..))| (parent.as_slice(), name.as_slice()) == row.key());
            match again {
                true => row = self.pop()?.unwrap_or(row),
                false => return Ok(Some(row)),
            }
        }
    }

    fn pop(&mut self) -> Result<Option<Row>, StoreError> {
        let Some(Reverse((parent, name, index, body))) = self.heap.pop() else { return Ok(None) };
        self.refill(index)?;
        Ok(Some(Row { parent, name, body }))
    }

    fn refill(&mut self, index: usize) -> Result<(), StoreError> {
        let Some(run) = self.runs.get_mut(index) else { return Ok(()) };
        if let Some(row) = run.row()? {
            self.heap.push(Reverse((row.parent, row.name, index, row.body)));
        }
        Ok(())
    }

    /// Removes the runs from the disk.
    pub(super) fn remove_runs(self) -> Result<(), StoreError> {
        self.runs.iter().try_for_each(|run| durable::remove_if_there(&run.path))
    }
}

impl Run {
    fn row(&mut self) -> Result<Option<Row>, StoreError> {
        let Some(parent) = self.bytes(true)? else { return Ok(None) };
        let name = self.bytes(false)?.unwrap_or_default();
        let body = self.bytes(false)?.unwrap_or_default();
        Ok(Some(Row { parent, name, body }))
    }

    /// A length and that many bytes; `None` at the end where one is allowed.
    fn bytes(&mut self, may_end: bool) -> Result<Option<Vec<u8>>, StoreError> {
        let failed = || StoreError::io("read", &self.path);
        let mut length = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = match self.from.fill_buf().map_err(failed())?.first() {
                Some(&byte) => byte,
                None if may_end && shift == 0 => return Ok(None),
                None => return Err(self.short()),
            };
            self.from.consume(1);
            length |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let there = self.from.fill_buf().map_err(failed())?;
        if let Some(bytes) = usize::try_from(length).ok().and_then(|length| there.get(..length)) {
            let bytes = bytes.to_vec();
            self.from.consume(bytes.len());
            return Ok(Some(bytes));
        }
        let mut bytes = Vec::new();
        let got = (&mut self.from).take(length).read_to_end(&mut bytes).map_err(failed())?;
        if got as u64 != length {
            return Err(self.short());
        }
        Ok(Some(bytes))
    }

    fn short(&self) -> StoreError {
        StoreError::damaged(&self.path, Damage::Format { what: "a sorted run that ends early", at: 0 })
    }
}
