//! Keeping the index up with the ledger, whatever becomes of the database.
//!
//! A damaged one is made anew from the ledger. One that the disk has no room
//! for, or that another program holds, is kept in memory until that is over:
//! the daemon must know an environment's state and alerts all the same.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use guard_model::Digest;
use guard_model::ledger::Head;
use rusqlite::{Connection, ErrorCode};

use super::schema::{self, Unusable};
use super::{Index, IndexOpened, Located, RebuildCause, apply, meta, read_head, set_meta, write_head};
use crate::durable;
use crate::error::StoreError;
use crate::ledger::{MAX_JUMP, Remembered, Segment, first_record_hash};
use crate::state_dir::{StateDir, StatePaths};

/// A damaged index is not made anew more often than this.
const REMAKE_AFTER: Duration = Duration::from_secs(60);

/// A larger database is not taken into memory; it lags behind instead.
const MAX_IN_MEMORY: u64 = 128 * 1024 * 1024;

/// The index as it was found, before the ledger's end is known to be good.
pub(crate) struct Probe(Result<Connection, Unusable>);

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

    /// A database that can be gone on with, and the last record in it.
    fn usable(self, state: &StatePaths, head: Head) -> Result<(Connection, Head), RebuildCause> {
        let db = self.0.map_err(|e| match e {
            Unusable::Missing => RebuildCause::Missing,
            Unusable::OtherVersion => RebuildCause::OtherVersion,
            Unusable::Held => RebuildCause::Held,
            Unusable::Damaged(why) => RebuildCause::Damaged(why),
        })?;
        let id = ledger_id(state).map_err(|e| RebuildCause::Damaged(e.with_causes()))?;
        let known = read_head(&db).map_err(|e| RebuildCause::Damaged(e.to_string()))?;
        if is_foreign(&db, id) || known.seq > head.seq.saturating_add(MAX_JUMP) {
            return Err(RebuildCause::OtherLedger);
        }
        Ok((db, known))
    }
}

fn is_foreign(db: &Connection, ledger_id: Option<Digest>) -> bool {
    let known = meta(db, "ledger_id").ok().flatten();
    matches!((known, ledger_id), (Some(known), Some(id)) if known != id.to_string())
}

/// What tells one ledger from another: the hash of its first line, where that is there.
fn ledger_id(state: &StatePaths) -> Result<Option<Digest>, StoreError> {
    let first = Segment::list(&state.ledger())?.into_iter().next();
    Ok(first.as_ref().map(first_record_hash).transpose()?.flatten())
}

/// The end of the index that the ledger's thread holds.
pub(crate) struct IndexWriter {
    index: Index,
    /// The last record taken in.
    pub(super) head: Head,
    /// When it was last made anew, and why.
    remade: Option<(Instant, RebuildCause)>,
    /// Why it is in memory.
    memory: Option<String>,
}

/// Brings the index up to `head`; makes it anew where that must be.
pub(crate) fn open_for_writing(
    state: &StateDir,
    probe: Probe,
    head: Head,
) -> Result<(IndexWriter, IndexOpened), StoreError> {
    let mut writer = match probe.usable(state, head) {
        Ok((db, head)) => IndexWriter { index: Index::new(db, state), head, remade: None, memory: None },
        Err(RebuildCause::Held) => IndexWriter {
            index: Index::new(in_memory(state)?, state),
            head: Head::default(),
            remade: Some((Instant::now(), RebuildCause::Held)),
            memory: Some("another program holds it".to_owned()),
        },
        Err(cause) => {
            let (db, memory) = make_anew(state)?;
            let remade = Some((Instant::now(), cause));
            IndexWriter { index: Index::new(db, state), head: Head::default(), remade, memory }
        }
    };
    // States that cannot be read are found now and not when they are needed.
    if let Err(e) = writer.index.environments() {
        writer.cure(state, &e)?;
    }
    let replayed = writer.catch_up(state, &[], head)?;
    let rebuilt = writer.remade.as_ref().map(|(_, cause)| cause.clone());
    let opened = IndexOpened { rebuilt, replayed, in_memory: writer.memory.clone() };
    Ok((writer, opened))
}

impl IndexWriter {
    /// The reading end, for everybody.
    pub(crate) fn reader(&self) -> Index {
        self.index.clone()
    }

    /// Lets go of the database; who still reads gets [`StoreError::LedgerClosed`].
    pub(crate) fn close(&self) {
        self.index.replace(None);
    }

    /// Why it is kept in memory only, if it is.
    pub(crate) fn in_memory(&self) -> Option<&str> {
        self.memory.as_deref()
    }

    /// Takes in what was just written and whatever is missing before it; answers
    /// how many records that were.
    pub(crate) fn catch_up(
        &mut self,
        state: &StatePaths,
        located: &[Located],
        head: Head,
    ) -> Result<u64, StoreError> {
        loop {
            match self.take_in(state, located, head) {
                Err(e) if self.cure(state, &e)? => {}
                other => return other,
            }
        }
    }

    fn take_in(&mut self, state: &StatePaths, located: &[Located], head: Head) -> Result<u64, StoreError> {
        if self.head.seq >= head.seq {
            return Ok(0);
        }
        let joins = located.first().is_some_and(|l| Some(l.record.seq) == self.head.seq.checked_add(1));
        if joins {
            self.apply(located, head)?;
            Ok(located.len() as u64)
        } else {
            self.replay(state, head)
        }
    }

    /// One transaction.
    pub(super) fn apply(&mut self, located: &[Located], head: Head) -> Result<(), StoreError> {
        let id = if self.head.seq == 0 { ledger_id(&self.index.paths)? } else { None };
        self.index.with(|db| {
            let transaction = db.transaction()?;
            for one in located {
                apply::record(&transaction, one)?;
            }
            write_head(&transaction, head)?;
            if let Some(id) = id {
                set_meta(&transaction, "ledger_id", &id.to_string())?;
            }
            transaction.commit()
        })?;
        self.head = head;
        Ok(())
    }

    /// Does what can be done about a failure; true where it is worth trying again.
    fn cure(&mut self, state: &StatePaths, e: &StoreError) -> Result<bool, StoreError> {
        let StoreError::Index { source, .. } = e else { return Ok(false) };
        let lately = self.remade.as_ref().is_some_and(|(t, _)| t.elapsed() < REMAKE_AFTER);
        if is_damage(source) && !lately {
            tracing::error!(error = e.with_causes(), "the index is damaged and made anew");
            self.remade = Some((Instant::now(), RebuildCause::Damaged(e.with_causes())));
            let (db, memory) = make_anew(state)?;
            self.index.replace(Some(db));
            (self.memory, self.head) = (memory, Head::default());
            return Ok(true);
        }
        let refused = e.is_out_of_space() || source.sqlite_error_code() == Some(ErrorCode::SystemIoFailure);
        if refused && self.memory.is_none() {
            return self.go_to_memory(state, e);
        }
        Ok(false)
    }

    fn go_to_memory(&mut self, state: &StatePaths, e: &StoreError) -> Result<bool, StoreError> {
        let length = std::fs::metadata(state.index()).map_or(0, |m| m.len());
        if length > MAX_IN_MEMORY {
            return Ok(false);
        }
        tracing::error!(error = e.with_causes(), "the index is kept in memory for now");
        let mut db = in_memory(state)?;
        let copied = self.index.with(|from| {
            rusqlite::backup::Backup::new(from, &mut db)?.run_to_completion(1000, Duration::ZERO, None)
        });
        match copied
            .and_then(|()| read_head(&db).map_err(|source| StoreError::Index { path: state.index(), source }))
        {
            Ok(head) => self.head = head,
            Err(_) => (db, self.head) = (in_memory(state)?, Head::default()),
        }
        self.index.replace(Some(db));
        self.memory = Some(e.with_causes());
        Ok(true)
    }

    /// Tries to go back to the disk.
    pub(crate) fn leave_memory(&mut self, state: &StateDir, head: Head) {
        if self.memory.is_none() {
            return;
        }
        let (db, known) = match Probe::new(state).usable(state, head) {
            Ok(found) => found,
            Err(RebuildCause::Held) => return,
            Err(_) => match make_anew(state) {
                Ok((db, None)) => (db, Head::default()),
                _ => return,
            },
        };
        let mut fresh =
            Self { index: Index::new(db, state), head: known, remade: self.remade.clone(), memory: None };
        match fresh.take_in(state, &[], head) {
            Ok(_) => {
                self.index.replace(fresh.index.take());
                (self.head, self.memory) = (fresh.head, None);
                tracing::info!("the index is on the disk again");
            }
            Err(e) => tracing::debug!(error = e.with_causes(), "the index stays in memory"),
        }
    }
}

fn is_damage(e: &rusqlite::Error) -> bool {
    match e.sqlite_error_code() {
        // `Unknown` is SQLite's plain error: a table or column that is not there.
        Some(code) => matches!(
            code,
            ErrorCode::DatabaseCorrupt
                | ErrorCode::NotADatabase
                | ErrorCode::TypeMismatch
                | ErrorCode::ConstraintViolation
                | ErrorCode::Unknown
        ),
        // A value that is not what was put there.
        None => matches!(
            e,
            rusqlite::Error::FromSqlConversionFailure(..) | rusqlite::Error::InvalidColumnType(..)
        ),
    }
}

/// An empty index in the place of what is there; in memory, and why, where the
/// disk takes none.
fn make_anew(state: &StatePaths) -> Result<(Connection, Option<String>), StoreError> {
    match set_aside(state).and_then(|()| schema::create(&state.index())) {
        Ok(db) => Ok((db, None)),
        Err(e) => Ok((in_memory(state)?, Some(e.with_causes()))),
    }
}

fn in_memory(state: &StatePaths) -> Result<Connection, StoreError> {
    schema::in_memory().map_err(|source| StoreError::Index { path: state.index(), source })
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
