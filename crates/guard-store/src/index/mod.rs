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
use std::time::{Duration, Instant};

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
    /// When it was last opened or made anew.
    remade: Instant,
}

/// A damaged index is not made anew more often than this.
const REMAKE_AFTER: Duration = Duration::from_secs(60);

fn is_damage(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase, TypeMismatch};
    match e.sqlite_error_code() {
        Some(code) => matches!(code, DatabaseCorrupt | NotADatabase | TypeMismatch),
        // A value that is not what was put there.
        None => matches!(e, rusqlite::Error::FromSqlConversionFailure(..)),
    }
}

/// The index as it was found, before the ledger's end is known to be good.
pub(crate) struct Probe(Result<Connection, schema::Unusable>);

impl Probe {
    pub(crate) fn new(state: &StatePaths) -> Self {
        Self(schema::open(&state.index()))
    }

    /// The ledger head that the index remembers, unless it is about another ledger.
    pub(crate) fn remembered(&self, ledger_id: Option<Digest>) -> Option<Remembered> {
        let db = self.0.as_ref().ok()?;
        if is_foreign(db, ledger_id) {
            return None;
        }
        let head = read_head(db).ok()?;
        (head.seq > 0).then(|| Remembered { head, by: "guardd.db".to_owned() })
    }
}

fn is_foreign(db: &Connection, ledger_id: Option<Digest>) -> bool {
    let known = meta(db, "ledger_id").ok().flatten();
    let known = known.filter(|k| !k.is_empty());
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

/// Brings the index up to `head`; makes it anew where that must be.
pub(crate) fn open_for_writing(
    state: &StateDir,
    probe: Probe,
    head: Head,
) -> Result<(IndexWriter, IndexOpened), StoreError> {
    let cause = match open_existing(state, probe, head) {
        Ok(found) => return Ok(found),
        Err(cause) => cause,
    };
    let (db, in_memory) = make_anew(state)?;
    let index = Index { db: Arc::new(Mutex::new(db)), paths: state.paths().clone() };
    let mut writer = IndexWriter { index, head: Head::default(), remade: Instant::now() };
    let (replayed, in_memory) = match (writer.replay(state, head), in_memory) {
        (Ok(replayed), why) => (replayed, why),
        (Err(e), Some(_)) => return Err(e),
        (Err(e), None) => {
            // The disk took the file but not what belongs in it.
            *writer.index.lock() = schema::in_memory().map_err(writer.index.failed())?;
            writer.head = Head::default();
            (writer.replay(state, head)?, Some(e.with_causes()))
        }
    };
    Ok((writer, IndexOpened { rebuilt: Some(cause), replayed, in_memory }))
}

fn open_existing(
    state: &StateDir,
    probe: Probe,
    head: Head,
) -> Result<(IndexWriter, IndexOpened), RebuildCause> {
    let damaged = |e: StoreError| RebuildCause::Damaged(e.with_causes());
    let db = probe.0.map_err(|e| match e {
        schema::Unusable::Missing => RebuildCause::Missing,
        schema::Unusable::OtherVersion => RebuildCause::OtherVersion,
        schema::Unusable::Damaged(why) => RebuildCause::Damaged(why),
    })?;
    if is_foreign(&db, ledger_id(state).map_err(damaged)?) {
        return Err(RebuildCause::OtherLedger);
    }
    let known = read_head(&db).map_err(|e| RebuildCause::Damaged(e.to_string()))?;
    if known.seq > head.seq.saturating_add(MAX_JUMP) {
        return Err(RebuildCause::OtherLedger);
    }
    let index = Index { db: Arc::new(Mutex::new(db)), paths: state.paths().clone() };
    index.environments().map_err(damaged)?;
    let mut writer = IndexWriter { index, head: known, remade: Instant::now() };
    let replayed = writer.replay(state, head).map_err(damaged)?;
    Ok((writer, IndexOpened { rebuilt: None, replayed, in_memory: None }))
}

/// What tells one ledger from another: the hash of its first line, where that is there.
fn ledger_id(state: &StatePaths) -> Result<Option<Digest>, StoreError> {
    let first = Segment::list(&state.ledger())?.into_iter().next();
    Ok(first.as_ref().map(first_record_hash).transpose()?.flatten())
}

/// An empty index in the place of what is there; in memory, and why, where the
/// disk takes none.
fn make_anew(state: &StatePaths) -> Result<(Connection, Option<String>), StoreError> {
    let path = state.index();
    match set_aside(state).and_then(|()| schema::create(&path)) {
        Ok(db) => Ok((db, None)),
        Err(e) => {
            tracing::error!(error = e.with_causes(), "the index is kept in memory only");
            let db = schema::in_memory().map_err(|source| StoreError::Index { path, source })?;
            Ok((db, Some(e.with_causes())))
        }
    }
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

    /// Takes in what was just written, and whatever is missing before it. A
    /// database that turns out damaged is made anew, once in a while.
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
        let outcome = if joins { self.apply(located, head) } else { self.replay(state, head).map(|_| ()) };
        match outcome {
            Err(StoreError::Index { source, .. })
                if is_damage(&source) && self.remade.elapsed() > REMAKE_AFTER =>
            {
                tracing::error!(error = %source, "the index is damaged and made anew");
                self.remade = Instant::now();
                let (db, _) = make_anew(state)?;
                *self.index.lock() = db;
                self.head = Head::default();
                self.replay(state, head).map(|_| ())
            }
            other => other,
        }
    }

    fn apply(&mut self, located: &[Located], head: Head) -> Result<(), StoreError> {
        let failed = self.index.failed();
        let mut db = self.index.lock();
        let transaction = db.transaction().map_err(&failed)?;
        for one in located {
            apply::record(&transaction, one).map_err(&failed)?;
        }
        write_head(&transaction, head).map_err(&failed)?;
        if self.head.seq == 0 {
            let id = ledger_id(&self.index.paths)?.map(|id| id.to_string()).unwrap_or_default();
            set_meta(&transaction, "ledger_id", &id).map_err(&failed)?;
        }
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
