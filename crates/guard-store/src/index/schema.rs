//! Making and opening the database file.

use std::path::Path;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::durable;
use crate::error::StoreError;

/// Raised whenever the tables change; an index of another version is made anew.
const VERSION: i64 = 2;

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
-- Deployments apart: fifty of them are many times the rest, and few records change them.
CREATE TABLE environments (name TEXT PRIMARY KEY, state TEXT NOT NULL, deployments TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE records (
    seq INTEGER PRIMARY KEY,
    segment INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    length INTEGER NOT NULL,
    at INTEGER NOT NULL,
    environment TEXT,
    event TEXT NOT NULL
);
CREATE INDEX records_by_environment ON records (environment, seq);
CREATE INDEX records_by_event ON records (event, seq);
CREATE TABLE paths (
    environment TEXT NOT NULL,
    path TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (environment, path, seq)
) WITHOUT ROWID;
CREATE TABLE alerts (
    id INTEGER PRIMARY KEY,
    environment TEXT NOT NULL,
    severity TEXT NOT NULL,
    status TEXT NOT NULL,
    opened_at INTEGER NOT NULL,
    title TEXT NOT NULL,
    reviewed INTEGER NOT NULL
);
CREATE INDEX alerts_by_status ON alerts (status, environment);
CREATE TABLE alert_records (
    alert INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (alert, seq)
) WITHOUT ROWID;
CREATE TABLE alert_paths (
    alert INTEGER NOT NULL,
    path TEXT NOT NULL,
    settled INTEGER NOT NULL,
    PRIMARY KEY (alert, path)
) WITHOUT ROWID;
CREATE INDEX alert_paths_unsettled ON alert_paths (alert) WHERE settled = 0;
";

/// Why a database file cannot be used as it is.
#[derive(Debug)]
pub(super) enum Unusable {
    Missing,
    OtherVersion,
    /// Another program has it open.
    Held,
    Damaged(String),
}

/// Opens an index that is there.
pub(super) fn open(path: &Path) -> Result<Connection, Unusable> {
    let damaged = |e: rusqlite::Error| match e.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Unusable::Held,
        _ => Unusable::Damaged(e.to_string()),
    };
    match durable::open_regular(path) {
        Ok(_) => {}
        Err(e) if e.is_not_found() => return Err(Unusable::Missing),
        Err(e) => return Err(Unusable::Damaged(e.to_string())),
    }
    let db = Connection::open_with_flags(path, flags()).map_err(damaged)?;
    configure(&db).map_err(damaged)?;
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(damaged)?;
    if version != VERSION {
        return Err(Unusable::OtherVersion);
    }
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(damaged)?;
    if verdict != "ok" {
        return Err(Unusable::Damaged(verdict));
    }
    Ok(db)
}

/// Makes a new index where none is.
pub(super) fn create(path: &Path) -> Result<Connection, StoreError> {
    // Made here and not by SQLite, whose umask would let others read it.
    drop(durable::create_new(path, 0o600)?);
    let failed = |source| StoreError::Index { path: path.to_owned(), source };
    let db = Connection::open_with_flags(path, flags()).map_err(failed)?;
    configure(&db).map_err(failed)?;
    fill(&db).map_err(failed)?;
    // Otherwise a power cut leaves an empty file, which looks like tampering. What
    // comes later may be lost in one: it is in the ledger.
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)?;
    durable::sync_dir(path.parent().unwrap_or(path))?;
    Ok(db)
}

/// An index for a disk that takes none.
pub(super) fn in_memory() -> rusqlite::Result<Connection> {
    let db = Connection::open_in_memory()?;
    fill(&db)?;
    Ok(db)
}

fn flags() -> OpenFlags {
    OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    // Exclusive: one connection is all there is, and it needs no shared-memory
    // file, which could not be made on a full disk.
    db.busy_timeout(std::time::Duration::from_secs(1))?;
    db.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE;
         PRAGMA journal_mode = WAL;
         PRAGMA synchronous = NORMAL;
         PRAGMA journal_size_limit = 4194304;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;
         PRAGMA temp_store = MEMORY;",
    )
}

fn fill(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(&format!("BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"))
}
