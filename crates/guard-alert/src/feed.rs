//! Records for several sinks: those that keep up share one reader, those that
//! are behind read for themselves.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guard_model::ledger::Record;

/// Why a record could not be read.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Reads records in order. After `None` it goes on once more records are there.
pub type Records = Box<dyn Iterator<Item = Result<Record, SourceError>> + Send>;

/// Where records come from: the ledger.
pub trait Source: Send + Sync + 'static {
    /// The last durable record's number; 0 for none.
    fn head(&self) -> u64;
    /// Reads durable records from this number on.
    fn read_from(&self, seq: u64) -> Records;
    /// Calls `hook` after records became durable. The hook does not block.
    fn on_commit(&self, hook: Box<dyn Fn() + Send>);
}

/// The newest records, read once for all sinks that keep up.
pub(crate) struct Feed {
    source: Box<dyn Source>,
    newest: Mutex<Newest>,
}

struct Newest {
    reader: Records,
    records: VecDeque<Arc<Record>>,
    /// Every record after this one is in `records`, or has not been read yet.
    complete_after: u64,
}

/// A sink's own reader, while it is behind.
#[derive(Default)]
pub(crate) struct Behind(Option<(u64, Records)>);

impl Feed {
    /// Records kept for sinks that are a moment late.
    const KEPT: usize = 32;

    pub(crate) fn new(source: Box<dyn Source>) -> Self {
        let head = source.head();
        let reader = source.read_from(head.saturating_add(1));
        let newest = Newest { reader, records: VecDeque::new(), complete_after: head };
        Self { source, newest: Mutex::new(newest) }
    }

    pub(crate) fn head(&self) -> u64 {
        self.source.head()
    }

    pub(crate) fn read_from(&self, seq: u64) -> Records {
        self.source.read_from(seq)
    }

    pub(crate) fn on_commit(&self, hook: Box<dyn Fn() + Send>) {
        self.source.on_commit(hook);
    }

    fn lock(&self) -> MutexGuard<'_, Newest> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first readable record after `seq`; `None` where there is none yet.
    /// A record that cannot be read is logged and passed over: the ledger's own
    /// verification reports it.
    pub(crate) fn after(&self, seq: u64, behind: &mut Behind) -> Option<Arc<Record>> {
        let mut newest = self.lock();
        if seq >= newest.complete_after {
            behind.0 = None;
            if let Some(found) = newest.records.iter().find(|r| r.seq > seq) {
                return Some(Arc::clone(found));
            }
            loop {
                let record = Arc::new(readable(&mut newest.reader)?);
                if newest.records.len() >= Self::KEPT
                    && let Some(dropped) = newest.records.pop_front()
                {
                    newest.complete_after = dropped.seq;
                }
                newest.records.push_back(Arc::clone(&record));
                if record.seq > seq {
                    return Some(record);
                }
            }
        }
        drop(newest);
        let (next, reader) = match behind.0.take() {
            Some((next, reader)) if next == seq => (next, reader),
            _ => (seq, self.source.read_from(seq.saturating_add(1))),
        };
        let mut reader = reader;
        let record = readable(&mut reader)?;
        behind.0 = Some((next.max(record.seq), reader));
        Some(Arc::new(record))
    }
}

fn readable(reader: &mut Records) -> Option<Record> {
    loop {
        match reader.next()? {
            Ok(record) => return Some(record),
            Err(error) => tracing::error!(error = &*error, "a ledger record cannot be read and is not sent"),
        }
    }
}
