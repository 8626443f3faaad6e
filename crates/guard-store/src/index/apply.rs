//! Takes one record into the index.

use guard_model::AlertStatus;
use guard_model::deployments::Deployments;
use guard_model::ledger::{Event, Record};
use guard_model::state::{EnvironmentState, alert_of};
use rusqlite::{Connection, OptionalExtension as _, params};

use super::Located;

pub(super) fn record(db: &Connection, one: &Located) -> rusqlite::Result<()> {
    let record = &one.record;
    db.prepare_cached(
        "INSERT OR REPLACE INTO records (seq, segment, offset, length, at, environment, event)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?
    .execute(params![
        number(record.seq),
        number(one.segment),
        number(one.offset),
        number(one.length),
        record.at.0,
        record.environment,
        record.event.name(),
    ])?;
    if let Some(environment) = &record.environment {
        note_paths(db, environment, record)?;
        state(db, environment, record)?;
    }
    alert(db, record)
}

/// SQLite's integers are signed; a number beyond is never reached.
pub(super) fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn note_paths(db: &Connection, environment: &str, record: &Record) -> rusqlite::Result<()> {
    let mut insert =
        db.prepare_cached("INSERT OR IGNORE INTO paths (environment, path, seq) VALUES (?1, ?2, ?3)")?;
    let mut note = |path: &str| insert.execute(params![environment, path, number(record.seq)]).map(|_| ());
    match &record.event {
        Event::AlertOpened { findings, .. }
        | Event::AlertGrew { findings, .. }
        | Event::WindowChange { findings, .. } => findings.iter().try_for_each(|f| note(&f.path)),
        Event::AlertSettled { paths, .. }
        | Event::Accepted { paths, .. }
        | Event::Quarantined { paths, .. } => paths.iter().try_for_each(|p| note(p)),
        Event::Accessed { readings, .. } => readings.iter().try_for_each(|r| note(&r.path)),
        Event::Restored { paths, .. } => paths.iter().try_for_each(|p| note(&p.path.to_string())),
        _ => Ok(()),
    }
}

fn state(db: &Connection, environment: &str, record: &Record) -> rusqlite::Result<()> {
    let known: Option<String> = db
        .prepare_cached("SELECT state FROM environments WHERE name = ?1")?
        .query_row([environment], |row| row.get(0))
        .optional()?;
    let before: EnvironmentState = match &known {
        Some(text) => serde_json::from_str(text).map_err(not_readable)?,
        None => EnvironmentState::default(),
    };
    let mut after = before.clone();
    after.apply(record);
    // They have a column of their own, of which this one knew nothing.
    after.deployments = Deployments::default();
    if known.is_none() || after != before {
        let text = serde_json::to_string(&after).map_err(not_writable)?;
        db.prepare_cached(
            "INSERT INTO environments (name, state, deployments) VALUES (?1, ?2, '{}')
             ON CONFLICT (name) DO UPDATE SET state = ?2",
        )?
        .execute(params![environment, text])?;
    }
    if Deployments::hears(&record.event) { deployments(db, environment, record) } else { Ok(()) }
}

fn deployments(db: &Connection, environment: &str, record: &Record) -> rusqlite::Result<()> {
    let known: String = db
        .prepare_cached("SELECT deployments FROM environments WHERE name = ?1")?
        .query_row([environment], |row| row.get(0))?;
    let mut deployments: Deployments = serde_json::from_str(&known).map_err(not_readable)?;
    deployments.apply(record);
    let text = serde_json::to_string(&deployments).map_err(not_writable)?;
    if text == known {
        return Ok(());
    }
    db.prepare_cached("UPDATE environments SET deployments = ?2 WHERE name = ?1")?
        .execute(params![environment, text])
        .map(|_| ())
}

/// The same fold as `guard_model::state::apply_to_alert`, on rows: which paths
/// are unsettled and whether a person has looked decide the status.
fn alert(db: &Connection, record: &Record) -> rusqlite::Result<()> {
    let Some(id) = alert_of(record) else { return Ok(()) };
    let id = number(id);
    if let Event::AlertOpened { severity, title, findings, .. } = &record.event {
        let opened_at = findings.first().map_or(record.at, |f| f.at);
        db.prepare_cached(
            "INSERT OR REPLACE INTO alerts (id, environment, severity, status, opened_at, title, reviewed)
             VALUES (?1, ?2, ?3, 'open', ?4, ?5, 0)",
        )?
        .execute(params![
            id,
            record.environment.as_deref().unwrap_or_default(),
            severity.to_string(),
            opened_at.0,
            title
        ])?;
    }
    let reviewed: Option<bool> = db
        .prepare_cached("SELECT reviewed FROM alerts WHERE id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()?;
    // Of an alert that was never opened there is nothing to fold.
    let Some(mut reviewed) = reviewed else { return Ok(()) };
    db.prepare_cached("INSERT OR IGNORE INTO alert_records (alert, seq) VALUES (?1, ?2)")?
        .execute(params![id, number(record.seq)])?;
    match &record.event {
        Event::AlertOpened { findings, .. } | Event::AlertGrew { findings, .. } => {
            let mut insert = db.prepare_cached(
                "INSERT INTO alert_paths (alert, path, settled) VALUES (?1, ?2, ?3)
                 ON CONFLICT (alert, path) DO UPDATE SET settled = ?3",
            )?;
            for finding in findings {
                insert.execute(params![id, finding.path, !finding.is_difference()])?;
            }
            reviewed = false;
        }
        Event::AlertSettled { paths, .. } => {
            let mut settle =
                db.prepare_cached("UPDATE alert_paths SET settled = 1 WHERE alert = ?1 AND path = ?2")?;
            for path in paths {
                settle.execute(params![id, path])?;
            }
        }
        Event::AlertAcknowledged { .. } => reviewed = true,
        _ => {}
    }
    if let Event::AlertGrew { severity, .. } = &record.event {
        let known: String = db.query_row("SELECT severity FROM alerts WHERE id = ?1", [id], |r| r.get(0))?;
        if query_severity(&known).is_none_or(|known| *severity > known) {
            db.execute("UPDATE alerts SET severity = ?2 WHERE id = ?1", params![id, severity.to_string()])?;
        }
    }
    let unsettled: bool = db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM alert_paths WHERE alert = ?1 AND settled = 0)")?
        .query_row([id], |row| row.get(0))?;
    if let Event::AlertSettled { reviewed: by_person, .. } = &record.event {
        reviewed |= *by_person && !unsettled;
    }
    let status = match (reviewed, unsettled) {
        (true, false) => AlertStatus::Resolved,
        (true, true) => AlertStatus::Acknowledged,
        (false, _) => AlertStatus::Open,
    };
    db.prepare_cached("UPDATE alerts SET status = ?2, reviewed = ?3 WHERE id = ?1")?
        .execute(params![id, status.to_string(), reviewed])
        .map(|_| ())
}

pub(super) fn query_severity(text: &str) -> Option<guard_model::Severity> {
    use guard_model::Severity::{Critical, High, Warning};
    [Warning, High, Critical].into_iter().find(|s| s.to_string() == text)
}

pub(super) fn not_readable(e: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(e))
}

pub(super) fn not_writable(e: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::ToSqlConversionFailure(Box::new(e))
}
