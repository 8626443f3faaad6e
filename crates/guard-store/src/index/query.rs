//! What the index can be asked.

use guard_model::alert::Note;
use guard_model::ledger::{Head, Record};
use guard_model::state::{EnvironmentState, apply_to_alert};
use guard_model::{Alert, AlertStatus, Timestamp};
use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params_from_iter};

use super::apply::{not_readable, number, query_severity};
use super::{Index, read_head};
use crate::error::{Damage, StoreError};
use crate::ledger::Segment;
use crate::state_dir::StatePaths;

/// Which alerts are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertScope {
    /// Those that nobody has looked at.
    Open,
    /// Those, and those whose difference still stands.
    Unresolved,
    /// Every alert there ever was.
    All,
}

/// Which records are wanted; the default wants all.
#[derive(Debug, Clone, Default)]
pub struct RecordFilter {
    /// Only this environment's.
    pub environment: Option<String>,
    /// Only events of these names, as in the ledger's `event`; empty wants all.
    pub events: Vec<String>,
    /// Only from this time on.
    pub since: Option<Timestamp>,
    /// Only up to this time.
    pub until: Option<Timestamp>,
    /// Only records after this number.
    pub after: Option<u64>,
    /// Only records before this number, to page on.
    pub before: Option<u64>,
}

/// An environment's state from its columns, of which this is the first.
fn state(row: &Row<'_>, first: usize) -> rusqlite::Result<EnvironmentState> {
    let state: EnvironmentState =
        serde_json::from_str(&row.get::<_, String>(first)?).map_err(not_readable)?;
    let deployments = serde_json::from_str(&row.get::<_, String>(first + 1)?).map_err(not_readable)?;
    Ok(EnvironmentState { deployments, ..state })
}

/// Where a record's line lies.
struct Place {
    seq: u64,
    segment: u64,
    offset: u64,
    length: u64,
}

impl Place {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        let get = |i| row.get::<_, i64>(i).map(|n| u64::try_from(n).unwrap_or(0));
        Ok(Self { seq: get(0)?, segment: get(1)?, offset: get(2)?, length: get(3)? })
    }
}

impl Index {
    /// The last record that the index on disk has taken in, for whoever verifies a
    /// ledger without a daemon. `None` where there is no index that can be read.
    #[must_use]
    pub fn head_on_disk(state: &StatePaths) -> Option<Head> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(state.index(), flags).ok()?;
        read_head(&db).ok().filter(|head| head.seq > 0)
    }

    /// The last record taken in.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn head(&self) -> Result<Head, StoreError> {
        self.with(|db| read_head(db))
    }

    /// How an environment stands; never locked where the ledger does not know it.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn environment_state(&self, environment: &str) -> Result<EnvironmentState, StoreError> {
        let sql = "SELECT state, deployments FROM environments WHERE name = ?1";
        self.with(|db| {
            let state = db.query_row(sql, [environment], |row| state(row, 0)).optional()?;
            Ok(state.unwrap_or_default())
        })
    }

    /// Every environment that the ledger knows.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn environments(&self) -> Result<Vec<(String, EnvironmentState)>, StoreError> {
        self.with(|db| {
            let mut query =
                db.prepare_cached("SELECT name, state, deployments FROM environments ORDER BY name")?;
            query.query_map([], |row| Ok((row.get(0)?, state(row, 1)?)))?.collect()
        })
    }

    /// How many alerts nobody has looked at.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn open_alerts(&self, environment: &str) -> Result<u64, StoreError> {
        let sql = "SELECT count(*) FROM alerts WHERE status = 'open' AND environment = ?1";
        let count: i64 = self.with(|db| db.query_row(sql, [environment], |row| row.get(0)))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Alerts, oldest first, whole.
    ///
    /// # Errors
    /// [`StoreError::Index`], [`StoreError::Io`].
    pub fn alerts(&self, environment: Option<&str>, scope: AlertScope) -> Result<Vec<Alert>, StoreError> {
        let wanted = match scope {
            AlertScope::Open => "status = 'open'",
            AlertScope::Unresolved => "status IN ('open', 'acknowledged')",
            AlertScope::All => "1",
        };
        let sql =
            format!("SELECT id FROM alerts WHERE {wanted} AND (?1 IS NULL OR environment = ?1) ORDER BY id");
        let ids: Vec<i64> = self.with(|db| {
            let mut query = db.prepare_cached(&sql)?;
            query.query_map([environment], |row| row.get(0))?.collect()
        })?;
        let mut alerts = Vec::with_capacity(ids.len());
        for id in ids {
            alerts.extend(self.alert(u64::try_from(id).unwrap_or(0))?);
        }
        Ok(alerts)
    }

    /// One alert, whole. What of it cannot be read from the ledger any more is
    /// missing, and a note says so.
    ///
    /// # Errors
    /// [`StoreError::Index`].
    pub fn alert(&self, id: u64) -> Result<Option<Alert>, StoreError> {
        let Some(bare) = self.bare_alert(id)? else { return Ok(None) };
        let sql =
            "SELECT r.seq, r.segment, r.offset, r.length FROM alert_records a JOIN records r ON r.seq = a.seq
                   WHERE a.alert = ?1 ORDER BY a.seq";
        let places = self.places(sql, vec![Value::Integer(number(id))])?;
        let mut alert: Option<Alert> = None;
        let mut lost = 0u64;
        for place in &places {
            match self.read_record(place) {
                Ok(record) => alert = apply_to_alert(alert.or_else(|| Some(bare.clone())), &record),
                Err(error) => {
                    tracing::warn!(alert = id, %error, "a record of an alert cannot be read");
                    lost += 1;
                }
            }
        }
        let mut alert = alert.unwrap_or(bare);
        if lost > 0 {
            alert.notes.push(Note {
                at: alert.opened_at,
                by: "guardd".to_owned(),
                text: format!("{lost} ledger records of this alert cannot be read any more"),
            });
        }
        Ok(Some(alert))
    }

    /// What the index itself knows of an alert.
    fn bare_alert(&self, id: u64) -> Result<Option<Alert>, StoreError> {
        let sql =
            "SELECT environment, severity, status, opened_at, title, reviewed FROM alerts WHERE id = ?1";
        let read = |row: &Row<'_>| {
            let (severity, status): (String, String) = (row.get(1)?, row.get(2)?);
            let known = [AlertStatus::Acknowledged, AlertStatus::Resolved];
            Ok(Alert {
                id,
                environment: row.get(0)?,
                // What is not understood is taken for the worst.
                severity: query_severity(&severity).unwrap_or(guard_model::Severity::Critical),
                status: known.into_iter().find(|s| s.to_string() == status).unwrap_or(AlertStatus::Open),
                opened_at: Timestamp(row.get(3)?),
                title: row.get(4)?,
                findings: Vec::new(),
                sessions: Vec::new(),
                notes: Vec::new(),
                settled: Vec::new(),
                reviewed: row.get(5)?,
            })
        };
        self.with(|db| db.query_row(sql, [number(id)], read).optional())
    }

    /// The last records that tell of changes of a path (escaped), newest first.
    ///
    /// # Errors
    /// [`StoreError::Index`], [`StoreError::Io`], [`StoreError::Damaged`] where
    /// the ledger no longer holds what was indexed.
    pub fn path_history(&self, environment: &str, path: &str, limit: u64) -> Result<Vec<Record>, StoreError> {
        // Reads must not crowd out the changes.
        let sql = "SELECT r.seq, r.segment, r.offset, r.length FROM paths p JOIN records r ON r.seq = p.seq
                   WHERE p.environment = ?1 AND p.path = ?2 AND r.event <> 'accessed' ORDER BY p.seq DESC LIMIT ?3";
        let values = vec![
            Value::Text(environment.to_owned()),
            Value::Text(path.to_owned()),
            Value::Integer(number(limit)),
        ];
        self.places(sql, values)?.iter().map(|p| self.read_record(p)).collect()
    }

    /// The last records that tell of reads, of one path (escaped) or of any, newest first.
    ///
    /// # Errors
    /// As [`Index::path_history`].
    pub fn reads(
        &self,
        environment: &str,
        path: Option<&str>,
        limit: u64,
    ) -> Result<Vec<Record>, StoreError> {
        let mut sql = "SELECT r.seq, r.segment, r.offset, r.length FROM records r
                       WHERE r.environment = ?1 AND r.event = 'accessed'"
            .to_owned();
        let mut values = vec![Value::Text(environment.to_owned()), Value::Integer(number(limit))];
        if let Some(path) = path {
            sql.push_str(" AND EXISTS (SELECT 1 FROM paths p WHERE p.environment = ?1 AND p.path = ?3 AND p.seq = r.seq)");
            values.push(Value::Text(path.to_owned()));
        }
        sql.push_str(" ORDER BY r.seq DESC LIMIT ?2");
        self.places(&sql, values)?.iter().map(|p| self.read_record(p)).collect()
    }

    /// The last records that the filter wants, newest first.
    ///
    /// # Errors
    /// As [`Index::path_history`].
    pub fn recent(&self, limit: u64, filter: &RecordFilter) -> Result<Vec<Record>, StoreError> {
        let mut sql = "SELECT seq, segment, offset, length FROM records WHERE 1".to_owned();
        let mut values = Vec::new();
        let mut and = |condition: &str, value: Value| {
            values.push(value);
            sql.push_str(&format!(" AND {condition} ?{}", values.len()));
        };
        if let Some(environment) = &filter.environment {
            and("environment =", Value::Text(environment.clone()));
        }
        if let Some(since) = filter.since {
            and("at >=", Value::Integer(since.0));
        }
        if let Some(until) = filter.until {
            and("at <=", Value::Integer(until.0));
        }
        if let Some(after) = filter.after {
            and("seq >", Value::Integer(number(after)));
        }
        if let Some(before) = filter.before {
            and("seq <", Value::Integer(number(before)));
        }
        if !filter.events.is_empty() {
            let marks: Vec<String> = filter
                .events
                .iter()
                .map(|name| {
                    values.push(Value::Text(name.clone()));
                    format!("?{}", values.len())
                })
                .collect();
            sql.push_str(&format!(" AND event IN ({})", marks.join(", ")));
        }
        values.push(Value::Integer(number(limit)));
        sql.push_str(&format!(" ORDER BY seq DESC LIMIT ?{}", values.len()));
        self.places(&sql, values)?.iter().map(|p| self.read_record(p)).collect()
    }

    fn places(&self, sql: &str, values: Vec<Value>) -> Result<Vec<Place>, StoreError> {
        self.with(|db| {
            let mut query = db.prepare_cached(sql)?;
            query.query_map(params_from_iter(values), Place::from_row)?.collect()
        })
    }

    /// Reads a record from the ledger and makes sure that it is the one indexed.
    fn read_record(&self, place: &Place) -> Result<Record, StoreError> {
        let segment = Segment::new(&self.paths.ledger(), place.segment);
        let damaged = |why: String| StoreError::damaged(&segment.path, Damage::Line { line: 0, why });
        let (file, length) = segment.open()?;
        if place.offset.saturating_add(place.length) > length {
            return Err(StoreError::damaged(&segment.path, Damage::Short { at: place.offset }));
        }
        let mut text = vec![0; usize::try_from(place.length).unwrap_or(0)];
        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut text, place.offset)
            .map_err(StoreError::io("read", &segment.path))?;
        let record: Record = serde_json::from_slice(&text)
            .map_err(|e| damaged(format!("record {} at byte {}: {e}", place.seq, place.offset)))?;
        if record.seq != place.seq {
            return Err(damaged(format!("record {} stands where {} was written", record.seq, place.seq)));
        }
        Ok(record)
    }
}
