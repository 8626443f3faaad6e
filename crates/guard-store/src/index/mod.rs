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
mod writer;

use std::sync::{Arc, Mutex, PoisonError};

use guard_model::ledger::{Head, Record};
use rusqlite::{Connection, OptionalExtension as _, params};

pub use query::{AlertScope, RecordFilter};

pub(crate) use writer::{IndexWriter, Probe, open_for_writing};

use crate::error::StoreError;
use crate::state_dir::StatePaths;

/// What became of the index when the ledger was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexOpened {
    /// Why it was made anew; `None` where it was good.
    pub rebuilt: Option<RebuildCause>,
    /// Records taken in now.
    pub replayed: u64,
    /// Why it is kept in memory only, for now.
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
    /// Another program holds it; it is left alone.
    Held,
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
    /// `None` once the ledger was stopped.
    db: Arc<Mutex<Option<Connection>>>,
    paths: StatePaths,
}

impl std::fmt::Debug for Index {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Index").field("path", &self.paths.index()).finish_non_exhaustive()
    }
}

impl Index {
    fn new(db: Connection, state: &StatePaths) -> Self {
        Self { db: Arc::new(Mutex::new(Some(db))), paths: state.clone() }
    }

    /// Does something with the database.
    fn with<T>(&self, f: impl FnOnce(&mut Connection) -> rusqlite::Result<T>) -> Result<T, StoreError> {
        let mut db = self.db.lock().unwrap_or_else(PoisonError::into_inner);
        let db = db.as_mut().ok_or(StoreError::LedgerClosed)?;
        f(db).map_err(|source| StoreError::Index { path: self.paths.index(), source })
    }

    /// Takes the database out.
    fn take(&self) -> Option<Connection> {
        self.db.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn replace(&self, db: Option<Connection>) {
        *self.db.lock().unwrap_or_else(PoisonError::into_inner) = db;
    }
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
    serde_json::from_str(&text).map_err(apply::not_readable)
}

fn write_head(db: &Connection, head: Head) -> rusqlite::Result<()> {
    set_meta(db, "head", &serde_json::to_string(&head).map_err(apply::not_writable)?)
}
