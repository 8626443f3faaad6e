//! The model's types as they go over the wire.
//!
//! Small ones are written out. Findings, entries, alerts and records have the
//! same JSON form on both sides, which is the outer contract and held by a
//! test, so they cross by it.

use guard_api::{Time, wire};
use guard_model::access::Reading;
use guard_model::baseline::Totals;
use guard_model::deploy::DeploymentKind;
use guard_model::seal::Skip;
use guard_model::state::{Gap, LastRehash, Window};
use guard_model::{Alert, Entry, Finding, RelPath, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A model value as its wire type, by way of its JSON form.
fn cross<T: DeserializeOwned>(value: &impl Serialize) -> Option<T> {
    match serde_json::to_value(value).and_then(serde_json::from_value) {
        Ok(crossed) => Some(crossed),
        Err(e) => {
            tracing::error!(error = %e, "a value has no wire form");
            None
        }
    }
}

pub(crate) fn time(at: Timestamp) -> Time {
    Time(at.0)
}

pub(crate) fn totals(t: &Totals) -> wire::Totals {
    wire::Totals { files: t.files, directories: t.directories, bytes: t.bytes }
}

pub(crate) fn window(w: &Window) -> wire::Window {
    wire::Window {
        id: w.id,
        by: w.by.clone(),
        maintainer: w.maintainer.clone(),
        reason: w.reason.clone(),
        since: time(w.since),
        until: time(w.until),
    }
}

pub(crate) fn rehash(r: &LastRehash) -> wire::Rehash {
    wire::Rehash {
        finished_at: time(r.finished_at),
        files: r.files,
        bytes: r.bytes,
        duration_ms: r.duration_ms,
    }
}

pub(crate) fn gap(g: &Gap) -> Option<wire::Gap> {
    cross(g)
}

pub(crate) fn entry(e: &Entry) -> Option<wire::Entry> {
    cross(e)
}

pub(crate) fn finding(f: &Finding) -> Option<wire::Finding> {
    cross(f)
}

pub(crate) fn reading(r: &Reading) -> Option<wire::Reading> {
    cross(r)
}

/// In what a path differs.
pub(crate) fn changes(all: &[guard_model::Change]) -> Option<Vec<wire::Change>> {
    cross(&all)
}

pub(crate) fn record(r: &guard_model::ledger::Record) -> Option<wire::Record> {
    cross(r)
}

/// An alert with at most `shown` of its findings.
pub(crate) fn alert(a: &Alert, shown: usize) -> Option<wire::Alert> {
    let mut crossed: wire::Alert = cross(a)?;
    crossed.findings_total = crossed.findings.len() as u64;
    crossed.findings.truncate(shown);
    Some(crossed)
}

pub(crate) fn skipped((path, why): &(RelPath, String)) -> wire::Skipped {
    wire::Skipped { path: path.to_string(), why: why.clone() }
}

/// What an entry lacks of its seal.
pub(crate) fn unsealed(skip: Skip) -> String {
    match skip.is_partial() {
        true => format!("sealed read-only: {skip}"),
        false => format!("not sealed: {skip}"),
    }
}

/// Something on another mount: compared like the rest, but another file system's.
pub(crate) fn mount(path: &RelPath) -> wire::Skipped {
    wire::Skipped { path: path.to_string(), why: "lies on another mount".to_owned() }
}

/// One backup of a list.
pub(crate) fn backup(
    environment: &str,
    backups: &guard_store::Backups,
    recovery: Option<&str>,
    listed: guard_store::backup::Listed,
) -> wire::Backup {
    use guard_model::retention::Proof;
    let proof = match backups.proof(&listed.id) {
        Ok(Proof::Verified) => wire::BackupProofState::Verified,
        Ok(Proof::Unverified) => wire::BackupProofState::Unverified,
        Ok(Proof::Damaged) | Err(_) => wire::BackupProofState::Damaged,
    };
    let (manifest, problem) = match listed.manifest {
        Ok((manifest, _)) => (Some(manifest), None),
        Err(e) => (None, Some(e.with_causes())),
    };
    let m = manifest.as_ref();
    wire::Backup {
        environment: environment.to_owned(),
        id: listed.id.to_string(),
        kind: m.map(|m| m.kind.to_string()),
        at: m.map(|m| time(m.at)),
        by: m.map(|m| m.by.clone()),
        note: m.and_then(|m| m.note.clone()),
        generation: m.and_then(|m| m.generation),
        protected: m.map(|m| totals(&m.totals)),
        missing: m.map_or(0, |m| m.missing),
        bytes: m.map_or(0, |m| m.entries.bytes + m.packs.iter().map(|p| p.bytes).sum::<u64>()),
        pinned: listed.pinned,
        proof,
        problem: problem.or_else(|| backups.problem(&listed.id)),
        recovery: m.is_some_and(|m| recovery.is_some_and(|key| m.recipients.iter().any(|r| r == key))),
    }
}

/// A deployment as it goes over the wire.
pub(crate) fn deployment(environment: &str, d: &guard_model::deployments::Deployment) -> wire::Deployment {
    let ended = d.ended.as_ref();
    wire::Deployment {
        id: d.id,
        environment: environment.to_owned(),
        kind: match d.kind {
            DeploymentKind::Deploy => "deploy",
            DeploymentKind::Rollback => "rollback",
        }
        .to_owned(),
        since: time(d.since),
        by: d.by.clone(),
        reason: d.reason.clone(),
        revision: d.revision.clone(),
        revision_before: d.revision_before.clone(),
        revision_after: ended.and_then(|e| e.revision_after.clone()),
        force: d.force.iter().map(ToString::to_string).collect(),
        phase: d.phase.map(|p| p.to_string()),
        step: d.step.clone(),
        backup: d.backup.as_ref().map(ToString::to_string),
        release: ended.and_then(|e| e.release.as_ref().map(ToString::to_string)),
        end: ended.map(|e| e.end.to_string()),
        why: ended.map(|e| e.why.clone()),
        changed: ended.map_or(0, |e| e.changed),
        duration_ms: ended.map(|e| e.duration_ms),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_model::ledger::{Event, GapCause, Record};
    use guard_model::{AlertStatus, Change, Digest, Kind, Severity, Stamp};

    fn sample() -> Finding {
        let entry = Entry {
            kind: Kind::File,
            mode: 0o640,
            uid: 0,
            gid: 5,
            size: 7,
            mtime: Stamp { sec: 5, nsec: 6 },
            ctime: Stamp { sec: 5, nsec: 6 },
            dev: 1,
            ino: 2,
            nlink: 1,
            rdev: 3,
            flags: 16,
            target: Some(b"\xff".to_vec()),
            xattrs: vec![(b"user.a".to_vec(), b"\0".to_vec())],
            sha256: Some(Digest([1; 32])),
        };
        Finding {
            path: "a\\x0ab".into(),
            at: Timestamp(1),
            change: vec![Change::Content, Change::LockFile],
            before: Some(entry.clone()),
            after: Some(entry),
            actor: None,
            restored: false,
            note: Some("n".into()),
        }
    }

    #[test]
    fn findings_alerts_gaps_and_records_cross_whole() {
        let f = finding(&sample()).unwrap();
        assert_eq!(serde_json::to_value(&f).unwrap()["before"]["mode"], "0640");
        let a = Alert {
            id: 7,
            environment: "p".into(),
            severity: Severity::High,
            status: AlertStatus::Open,
            opened_at: Timestamp(5),
            title: "t".into(),
            findings: vec![sample(), sample()],
            sessions: vec![],
            notes: vec![],
            settled: vec![],
            reviewed: false,
        };
        let crossed = alert(&a, 1).unwrap();
        assert_eq!((crossed.findings.len(), crossed.findings_total), (1, 2));
        let g = Gap {
            id: 1,
            cause: GapCause::Overflow,
            since: Timestamp(1),
            until: None,
            detail: None,
            verified: None,
            found: 0,
        };
        assert_eq!(gap(&g).unwrap().id, 1);
        let event = Event::AlertGrew { alert: 1, severity: Severity::High, findings: vec![sample()] };
        let r = Record { seq: 1, at: Timestamp(0), prev: Digest([0; 32]), environment: None, event };
        assert_eq!(record(&r).unwrap().event, "alert_grew");
    }
}
