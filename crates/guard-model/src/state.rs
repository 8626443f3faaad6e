//! What the ledger says an environment's state is: a fold over its records.

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::alert::{Alert, AlertStatus, Note};
use crate::backup::{BackupId, BackupKind};
use crate::baseline::{LockState, Totals};
use crate::deployments::Deployments;
use crate::entry::Digest;
use crate::ledger::{Event, GapCause, Proving, Record};
use crate::put_back::{PUT_BACK, PutBackStop};
use crate::time::Timestamp;

/// A maintenance window that is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Ledger number of its `window_opened`.
    pub id: u64,
    /// Who called.
    pub by: String,
    /// Who answers for it.
    pub maintainer: String,
    /// Why.
    pub reason: String,
    /// When it opened.
    pub since: Timestamp,
    /// Its end by the wall clock.
    pub until: Timestamp,
    /// Its end by the boot-time clock, microseconds.
    pub until_boot_us: u64,
    /// The boot which that clock belongs to.
    pub boot_id: String,
}

impl Window {
    /// Has it ended, by whichever clock is first? The boot-time clock counts only
    /// within the boot that it was taken in.
    #[must_use]
    pub fn has_ended(&self, now: Timestamp, boot_us: u64, boot_id: &str) -> bool {
        now >= self.until || (boot_id == self.boot_id && boot_us >= self.until_boot_us)
    }
}

/// The baseline that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CurrentBaseline {
    /// Its number.
    pub generation: u64,
    /// SHA-256 of its manifest.
    pub digest: Digest,
    /// What it holds.
    pub totals: Totals,
    /// Entries that were left unsealed when it was locked.
    #[serde(default)]
    pub unsealed: u64,
}

/// A span of time in which hints may have been lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Ledger number of its `gap_opened`.
    pub id: u64,
    /// Why.
    pub cause: GapCause,
    /// From when.
    pub since: Timestamp,
    /// Until when; `None` while not yet re-verified.
    pub until: Option<Timestamp>,
    /// More for people.
    pub detail: Option<String>,
    /// What was re-verified.
    pub verified: Option<String>,
    /// Findings that it brought.
    pub found: u64,
}

/// The last time every protected file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRehash {
    /// When it ended.
    pub finished_at: Timestamp,
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
}

/// One environment, as its ledger records leave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvironmentState {
    /// Locked or unlocked.
    pub state: LockState,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Who brought it there.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// `None` where it was never locked.
    pub baseline: Option<CurrentBaseline>,
    /// The open window.
    pub window: Option<Window>,
    /// Gaps that are open, and the last few that were closed.
    pub gaps: Vec<Gap>,
    /// The last rehash.
    pub last_rehash: Option<LastRehash>,
    /// The last one past the page cache.
    #[serde(default)]
    pub last_deep_rehash: Option<LastRehash>,
    /// When it was locked for the first time.
    #[serde(default)]
    pub first_locked_at: Option<Timestamp>,
    /// Its backups.
    #[serde(default)]
    pub backups: Backups,
    /// What is not put back any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub put_back_stops: Vec<PutBackStop>,
    /// Its deployments.
    #[serde(default)]
    pub deployments: Deployments,
}

/// What the ledger remembers of an environment's backups.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Backups {
    /// Those that should be there, with the SHA-256 of each one's manifest.
    pub known: BTreeMap<BackupId, Digest>,
    /// The greatest number there ever was.
    pub last_number: u64,
    /// The newest.
    pub newest: Option<NewestBackup>,
    /// The last that was decrypted and compared, and was good.
    pub last_verified: Option<Proven>,
    /// The last that was restored for a test, and was good.
    pub last_drill: Option<Proven>,
}

/// The newest backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewestBackup {
    /// Which.
    pub id: BackupId,
    /// Why it was made.
    pub kind: BackupKind,
    /// When.
    pub at: Timestamp,
    /// Files whose content it does not hold.
    pub missing: u64,
}

/// A backup that was proven good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// Which.
    pub id: BackupId,
    /// When.
    pub at: Timestamp,
    /// Regular files in it.
    pub files: u64,
    /// Bytes that were compared.
    pub bytes: u64,
}

impl Backups {
    fn apply(&mut self, record: &Record) {
        match &record.event {
            Event::BackupCreated { backup, manifest, kind, missing, .. } => {
                self.known.insert(backup.clone(), *manifest);
                self.last_number = self.last_number.max(backup.sequence());
                // One whose removal was cut short is told once more: it is none the newer for it.
                if self.newest.as_ref().is_none_or(|n| n.id.sequence() <= backup.sequence()) {
                    let (id, kind, missing) = (backup.clone(), *kind, *missing);
                    self.newest = Some(NewestBackup { id, kind, at: record.at, missing });
                }
            }
            Event::BackupPruned { backups, .. } => self.known.retain(|id, _| !backups.contains(id)),
            Event::BackupVerified { backup, how, files, bytes, problems, .. } if problems.is_empty() => {
                let proven = Proven { id: backup.clone(), at: record.at, files: *files, bytes: *bytes };
                match how {
                    Proving::Verify => self.last_verified = Some(proven),
                    Proving::Drill => self.last_drill = Some(proven),
                }
            }
            _ => {}
        }
    }
}

impl Default for EnvironmentState {
    fn default() -> Self {
        Self {
            state: LockState::Unlocked,
            since: None,
            by: None,
            reason: None,
            baseline: None,
            window: None,
            gaps: Vec::new(),
            last_rehash: None,
            last_deep_rehash: None,
            first_locked_at: None,
            backups: Backups::default(),
            put_back_stops: Vec::new(),
            deployments: Deployments::default(),
        }
    }
}

impl EnvironmentState {
    /// Closed gaps kept for `status`; all of them stay in the ledger.
    pub const CLOSED_GAPS: usize = 5;
    /// Stops that are remembered: so many paths are fought over, and then the whole environment's stop counts.
    pub const STOPS: usize = 100;

    /// Takes in one record of this environment.
    pub fn apply(&mut self, record: &Record) {
        self.deployments.apply(record);
        match &record.event {
            Event::Locked { generation, baseline, by, reason, totals, unsealed, .. } => {
                self.state = LockState::Locked;
                self.since = Some(record.at);
                self.first_locked_at.get_or_insert(record.at);
                self.by = Some(by.clone());
                self.reason = Some(reason.clone());
                self.baseline = Some(CurrentBaseline {
                    generation: *generation,
                    digest: *baseline,
                    totals: *totals,
                    unsealed: *unsealed,
                });
                self.window = None;
                self.put_back_stops.clear();
            }
            Event::Accepted { generation, baseline, totals, .. } => {
                self.baseline = Some(CurrentBaseline {
                    generation: *generation,
                    digest: *baseline,
                    totals: *totals,
                    unsealed: self.baseline.as_ref().map_or(0, |b| b.unsealed),
                });
            }
            Event::WindowOpened { by, maintainer, reason, until, until_boot_us, boot_id } => {
                self.state = LockState::Unlocked;
                self.put_back_stops.clear();
                self.since = Some(record.at);
                self.by = Some(by.clone());
                self.reason = Some(reason.clone());
                self.window = Some(Window {
                    id: record.seq,
                    by: by.clone(),
                    maintainer: maintainer.clone(),
                    reason: reason.clone(),
                    since: record.at,
                    until: *until,
                    until_boot_us: *until_boot_us,
                    boot_id: boot_id.clone(),
                });
            }
            Event::WindowClosed { .. } => self.window = None,
            Event::PutBackStopped(stop) if self.put_back_stops.len() < Self::STOPS => {
                self.put_back_stops.push(stop.clone());
            }
            Event::AlertAcknowledged { alert, .. } => self.put_back_stops.retain(|s| s.alert != *alert),
            Event::GapOpened { cause, since, detail } => self.gaps.push(Gap {
                id: record.seq,
                cause: *cause,
                since: *since,
                until: None,
                detail: detail.clone(),
                verified: None,
                found: 0,
            }),
            Event::GapClosed { gap, verified, found } => {
                if let Some(g) = self.gaps.iter_mut().find(|g| g.id == *gap) {
                    g.until = Some(record.at);
                    g.verified = Some(verified.clone());
                    g.found = *found;
                }
                while self.gaps.iter().filter(|g| g.until.is_some()).count() > Self::CLOSED_GAPS {
                    let oldest = self.gaps.iter().position(|g| g.until.is_some());
                    oldest.map(|i| self.gaps.remove(i));
                }
            }
            Event::RehashFinished { files, bytes, duration_ms, deep, .. } => {
                self.last_rehash = Some(LastRehash {
                    finished_at: record.at,
                    files: *files,
                    bytes: *bytes,
                    duration_ms: *duration_ms,
                });
                if *deep {
                    self.last_deep_rehash.clone_from(&self.last_rehash);
                }
            }
            _ => self.backups.apply(record),
        }
    }
}

/// Which alert a record opens or touches.
#[must_use]
pub fn alert_of(record: &Record) -> Option<u64> {
    match &record.event {
        Event::AlertOpened { .. } => Some(record.seq),
        Event::AlertGrew { alert, .. }
        | Event::AlertAcknowledged { alert, .. }
        | Event::AlertSettled { alert, .. } => Some(*alert),
        _ => None,
    }
}

// Sets, since a storm's alert holds tens of thousands of paths.
fn all_settled(alert: &Alert) -> bool {
    let settled: HashSet<&str> = alert.settled.iter().map(String::as_str).collect();
    alert.findings.iter().all(|f| !f.is_difference() || settled.contains(f.path.as_str()))
}

/// The alert after `record`; `before` is `None` only for the record that opens it.
#[must_use]
pub fn apply_to_alert(before: Option<Alert>, record: &Record) -> Option<Alert> {
    if let Event::AlertOpened { severity, title, findings, sessions } = &record.event {
        return Some(Alert {
            id: record.seq,
            environment: record.environment.clone().unwrap_or_default(),
            severity: *severity,
            status: AlertStatus::Open,
            opened_at: findings.first().map_or(record.at, |f| f.at),
            title: title.clone(),
            findings: findings.clone(),
            sessions: sessions.clone(),
            notes: Vec::new(),
            settled: Vec::new(),
            reviewed: false,
        });
    }
    let mut alert = before?;
    match &record.event {
        Event::AlertGrew { severity, findings, .. } => {
            alert.severity = alert.severity.max(*severity);
            // Nobody has looked at what came later.
            alert.reviewed = false;
            if !alert.settled.is_empty() {
                let again: HashSet<&str> = findings.iter().map(|f| f.path.as_str()).collect();
                alert.settled.retain(|p| !again.contains(p.as_str()));
            }
            alert.findings.extend(findings.iter().cloned());
        }
        Event::AlertAcknowledged { by, note, .. } => {
            alert.reviewed = true;
            alert.notes.push(Note { at: record.at, by: by.clone(), text: note.clone() });
        }
        Event::AlertSettled { paths, how, reviewed, .. } => {
            let mut known: HashSet<String> = alert.settled.iter().cloned().collect();
            alert.settled.extend(paths.iter().filter(|p| known.insert((*p).clone())).cloned());
            if how == PUT_BACK {
                let back: HashSet<&str> = paths.iter().map(String::as_str).collect();
                let findings = alert.findings.iter_mut();
                findings.filter(|f| back.contains(f.path.as_str())).for_each(|f| f.restored = true);
            }
            // Who decided about a part has not looked at the rest.
            alert.reviewed |= *reviewed && all_settled(&alert);
            let what = match paths.as_slice() {
                [one] => format!("{one}: {how}"),
                many => format!("{} paths: {how}", many.len()),
            };
            alert.notes.push(Note { at: record.at, by: "guardd".to_owned(), text: what });
        }
        _ => {}
    }
    alert.status = match (alert.reviewed, all_settled(&alert)) {
        (true, true) => AlertStatus::Resolved,
        (true, false) => AlertStatus::Acknowledged,
        (false, _) => AlertStatus::Open,
    };
    Some(alert)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::Severity;
    use crate::compare::Change;
    use crate::finding::Finding;

    fn record(seq: u64, event: Event) -> Record {
        Record { seq, at: Timestamp(1), prev: Digest([0; 32]), environment: Some("p".into()), event }
    }

    fn finding(path: &str) -> Finding {
        Finding {
            path: path.into(),
            at: Timestamp(1),
            change: vec![Change::Content],
            before: None,
            after: None,
            actor: None,
            restored: false,
            note: None,
        }
    }

    fn opened() -> Alert {
        let event = Event::AlertOpened {
            severity: Severity::High,
            title: "a".into(),
            findings: vec![finding("a"), finding("b")],
            sessions: vec![],
        };
        apply_to_alert(None, &record(7, event)).unwrap()
    }

    fn settle(alert: Alert, paths: &[&str], reviewed: bool) -> Alert {
        let event = Event::AlertSettled {
            alert: 7,
            paths: paths.iter().map(|&p| p.to_owned()).collect(),
            how: "as before".into(),
            reviewed,
        };
        apply_to_alert(Some(alert), &record(8, event)).unwrap()
    }

    #[test]
    fn an_intruder_putting_things_back_does_not_close_an_alert() {
        let a = settle(opened(), &["a", "b"], false);
        assert_eq!(a.status, AlertStatus::Open);
        let ack = Event::AlertAcknowledged { alert: 7, by: "me".into(), note: "seen".into() };
        assert_eq!(apply_to_alert(Some(a), &record(9, ack)).unwrap().status, AlertStatus::Resolved);
    }

    #[test]
    fn acceptance_of_a_part_leaves_the_rest() {
        let a = settle(opened(), &["a"], true);
        assert_eq!(a.status, AlertStatus::Open);
        assert_eq!(settle(a, &["b"], true).status, AlertStatus::Resolved);
        let a = settle(settle(opened(), &["a"], true), &["b"], false);
        assert_eq!(a.status, AlertStatus::Open);
    }

    #[test]
    fn what_was_put_back_is_marked_on_its_alert_and_its_alert_stays_open() {
        let event =
            Event::AlertSettled { alert: 7, paths: vec!["a".into()], how: PUT_BACK.into(), reviewed: false };
        let a = apply_to_alert(Some(opened()), &record(8, event)).unwrap();
        assert_eq!(a.findings.iter().map(|f| f.restored).collect::<Vec<_>>(), [true, false]);
        assert_eq!(a.status, AlertStatus::Open);
    }

    #[test]
    fn a_stop_ends_when_its_alert_is_acknowledged() {
        let mut state = EnvironmentState::default();
        let stop = PutBackStop { path: Some("a".into()), alert: 7, why: "a fight".into() };
        let stopped = record(8, Event::PutBackStopped(stop.clone()));
        let text = serde_json::to_string(&stopped).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), stopped);
        state.apply(&stopped);
        assert_eq!(state.put_back_stops, [stop]);
        state
            .apply(&record(9, Event::AlertAcknowledged { alert: 7, by: String::new(), note: String::new() }));
        assert!(state.put_back_stops.is_empty());
    }

    #[test]
    fn what_comes_after_an_acknowledgement_wants_a_look_of_its_own() {
        let ack = Event::AlertAcknowledged { alert: 7, by: "me".into(), note: "seen".into() };
        let a = apply_to_alert(Some(opened()), &record(8, ack)).unwrap();
        assert_eq!(a.status, AlertStatus::Acknowledged);
        let grew = Event::AlertGrew { alert: 7, severity: Severity::High, findings: vec![finding("c")] };
        assert_eq!(apply_to_alert(Some(a), &record(9, grew)).unwrap().status, AlertStatus::Open);
    }

    #[test]
    fn a_window_ends_by_the_first_clock() {
        let w = Window {
            id: 1,
            by: String::new(),
            maintainer: String::new(),
            reason: String::new(),
            since: Timestamp(0),
            until: Timestamp(100),
            until_boot_us: 50,
            boot_id: "b".into(),
        };
        assert!(!w.has_ended(Timestamp(99), 49, "b"));
        assert!(w.has_ended(Timestamp(10), 50, "b")); // the wall clock was set back
        assert!(w.has_ended(Timestamp(100), 0, "b"));
        assert!(!w.has_ended(Timestamp(99), 99, "other boot"));
    }
}
