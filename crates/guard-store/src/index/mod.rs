//! The index: what the ledger adds up to, in SQLite, so that nobody has to read
//! the whole ledger to know an environment's state or an alert.
//!
//! Architecture invariant: nothing is here that is not in the ledger. The index
//! is one transaction behind at most, and is thrown away and made anew where it
//! is missing, damaged, or not about this ledger. Bodies of records are not
//! copied: it knows where in the ledger they lie.

mod apply;
mod query;
mod replay;
mod schema;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guard_model::Digest;
use guard_model::ledger::{Head, Record};
use rusqlite::{Connection, OptionalExtension as _, params};

pub use query::{AlertScope, RecordFilter};

use crate::durable;
use crate::error::StoreError;
use crate::ledger::{MAX_JUMP, Remembered, Segment, first_record_hash};
use crate::state_dir::{StateDir, StatePaths};

/// What became of the index when the ledger was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexOpened {
    /// Why it was made anew; `None` where it was good.
    pub rebuilt: Option<RebuildCause>,
    /// Records taken in now.
    pub replayed: u64,
    /// Kept in memory only, because the disk did not take it; why.
    pub in_memory: Option<String>,
}

/// Why the index was made anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RebuildCause {
    /// There was none.
    Missing,
    /// It was made by another version of guardd.
    OtherVersion,
    /// It belongs to another ledger.
    OtherLedger,
    /// It could not be read.
    Damaged(String),
}

/// A record and where its line lies.
#[derive(Debug, Clone)]
pub(crate) struct Located {
    /// First number of the file it is in.
    pub(crate) segment: u64,
    pub(crate) offset: u64,
    /// Of the line, without its newline.
    pub(crate) length: u64,
    pub(crate) record: Record,
}

/// What the ledger adds up to. Clones share one connection.
#[derive(Clone)]
pub struct Index {
    db: Arc<Mutex<Connection>>,
    paths: StatePaths,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("path", &self.paths.index()).finish_non_exhaustive()
    }
}

impl Index {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn failed(&self) -> impl Fn(rusqlite::Error) -> StoreError + use<> {
        let path = self.paths.index();
        move |source| StoreError::Index { path: path.clone(), source }
    }
}

/// The end of the index that the ledger's thread holds.
pub(crate) struct IndexWriter {
    index: Index,
    /// The last record taken in.
    head: Head,
}

/// The ledger head that the index remembers, unless it is about another ledger.
pub(crate) fn remembered(state: &StatePaths, ledger_id: Option<Digest>) -> Option<Remembered> {
    let db = schema::open(&state.index()).ok()?;
    if is_foreign(&db, ledger_id) {
        return None;
    }
    let head = read_head(&db).ok()?;
    (head.seq > 0).then(|| Remembered { head, by: "guardd.db".to_owned() })
}

fn is_foreign(db: &Connection, ledger_id: Option<Digest>) -> bool {
    let known = meta(db, "ledger_id").ok().flatten();
    matches!((known, ledger_id), (Some(known), Some(id)) if known != id.to_string())
}

fn meta(db: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

fn set_meta(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
        params![key, value],
    )
    .map(|_| ())
}

fn read_head(db: &Connection) -> rusqlite::Result<Head> {
    let Some(text) = meta(db, "head")? else { return Ok(Head::default()) };
    serde_json::from_str(&text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e)))
}

/// Opens the index and brings it up to `head`; makes it anew where that must be.
pub(crate) fn open_for_writing(
    state: &StateDir,
    head: Head,
) -> Result<(IndexWriter, IndexOpened), StoreError> {
    let path = state.index();
    let first = Segment::list(&state.ledger())?.into_iter().next();
    let ledger_id = first.as_ref().map(first_record_hash).transpose()?.flatten();
    let cause = match open_existing(state, ledger_id, head) {
        Ok(found) => return Ok(found),
        Err(cause) => cause,
    };
    if cause != RebuildCause::Missing {
        set_aside(state)?;
    }
    let made = schema::create(&path).and_then(|db| from_start(state, db, head));
    let (writer, replayed, in_memory) = match made {
        Ok((writer, replayed)) => (writer, replayed, None),
        Err(e) => {
            tracing::error!(error = %e, "the index is kept in memory only");
            let db = schema::in_memory().map_err(|source| StoreError::Index { path, source })?;
            let (writer, replayed) = from_start(state, db, head)?;
            (writer, replayed, Some(e.to_string()))
        }
    };
    if let Some(id) = ledger_id {
        let outcome = set_meta(&writer.index.lock(), "ledger_id", &id.to_string());
        outcome.map_err(writer.index.failed())?;
    }
    Ok((writer, IndexOpened { rebuilt: Some(cause), replayed, in_memory }))
}

fn open_existing(
    state: &StateDir,
    ledger_id: Option<Digest>,
    head: Head,
) -> Result<(IndexWriter, IndexOpened), RebuildCause> {
    let path = state.index();
    let damaged = |e: StoreError| RebuildCause::Damaged(e.to_string());
    let db = schema::open(&path).map_err(|e| match e {
        schema::Unusable::Missing => RebuildCause::Missing,
        schema::Unusable::OtherVersion => RebuildCause::OtherVersion,
        schema::Unusable::Damaged(why) => RebuildCause::Damaged(why),
    })?;
    if is_foreign(&db, ledger_id) {
        return Err(RebuildCause::OtherLedger);
    }
    let known = read_head(&db).map_err(|e| RebuildCause::Damaged(e.to_string()))?;
    if known.seq > head.seq.saturating_add(MAX_JUMP) {
        return Err(RebuildCause::OtherLedger);
    }
    let index = Index { db: Arc::new(Mutex::new(db)), paths: state.paths().clone() };
    index.environments().map_err(damaged)?;
    let mut writer = IndexWriter { index, head: known };
    let replayed = writer.replay(state, head).map_err(damaged)?;
    Ok((writer, IndexOpened { rebuilt: None, replayed, in_memory: None }))
}

fn from_start(state: &StateDir, db: Connection, head: Head) -> Result<(IndexWriter, u64), StoreError> {
    let index = Index { db: Arc::new(Mutex::new(db)), paths: state.paths().clone() };
    let mut writer = IndexWriter { index, head: Head::default() };
    let replayed = writer.replay(state, head)?;
    Ok((writer, replayed))
}

/// Moves a bad index and its side files out of the way, as evidence.
fn set_aside(state: &StatePaths) -> Result<(), StoreError> {
    let n = (0u32..).find(|n| !aside(state, "", *n).exists()).unwrap_or(0);
    for suffix in ["-wal", "-shm", "-journal", ""] {
        let from = PathBuf::from(format!("{}{suffix}", state.index().display()));
        match std::fs::rename(&from, aside(state, suffix, n)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("move", &from)(e));
            }
            _ => {}
        }
    }
    durable::sync_dir(&state.quarantine())
}

fn aside(state: &StatePaths, suffix: &str, n: u32) -> PathBuf {
    state.quarantine().join(format!("guardd.db.{n}{suffix}"))
}

impl IndexWriter {
    /// The reading end, for everybody.
    pub(crate) fn reader(&self) -> Index {
        self.index.clone()
    }

    /// Takes in what was just written, and whatever is missing before it.
    pub(crate) fn catch_up(
        &mut self,
        state: &StatePaths,
        located: &[Located],
        head: Head,
    ) -> Result<(), StoreError> {
        if self.head.seq >= head.seq {
            return Ok(());
        }
        let joins = located.first().is_some_and(|l| Some(l.record.seq) == self.head.seq.checked_add(1));
        if joins { self.apply(located, head) } else { self.replay(state, head).map(|_| ()) }
    }

    fn apply(&mut self, located: &[Located], head: Head) -> Result<(), StoreError> {
        let failed = self.index.failed();
        let mut db = self.index.lock();
        let transaction = db.transaction().map_err(&failed)?;
        for one in located {
            apply::record(&transaction, one).map_err(&failed)?;
        }
        write_head(&transaction, head).map_err(&failed)?;
        transaction.commit().map_err(&failed)?;
        drop(db);
        self.head = head;
        Ok(())
    }
}

fn write_head(db: &Connection, head: Head) -> rusqlite::Result<()> {
    let text =
        serde_json::to_string(&head).map_err(|e| rusqlite::Error::ToSqlConversionFailure(Box::new(e)))?;
    set_meta(db, "head", &text)
}
