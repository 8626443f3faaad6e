//! The index says what the ledger says, and comes back when it is lost.

use std::os::unix::fs::PermissionsExt as _;

use guard_model::ledger::{Event, Record};
use guard_model::state::{EnvironmentState, alert_of, apply_to_alert};
use guard_model::{Alert, AlertStatus, Severity, Timestamp};
use guard_store::index::{AlertScope, RebuildCause};
use guard_store::{Index, Ledger, LedgerHandle, Opened, RecordFilter};
use proptest::prelude::*;

use crate::support::{Fixture, bash, finding, locked, opened_alert, stopped};

const ENV: &str = "production";

fn append(h: &LedgerHandle, event: Event) -> u64 {
    h.append(Some(ENV.into()), vec![event]).unwrap()[0].seq
}

fn acknowledged(alert: u64) -> Event {
    Event::AlertAcknowledged { alert, by: "root (uid 0)".into(), note: "seen".into() }
}

fn settled(alert: u64, paths: &[&str], reviewed: bool) -> Event {
    Event::AlertSettled {
        alert,
        paths: paths.iter().map(|&p| p.to_owned()).collect(),
        how: "as before".into(),
        reviewed,
    }
}

/// A ledger with something of everything; closed.
fn sample(f: &Fixture) {
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    append(&h, locked(4));
    let first = append(&h, opened_alert(&["a", "dir/b"]));
    append(&h, opened_alert(&["c"]));
    append(&h, acknowledged(first));
    append(&h, settled(first, &["a"], false));
    append(
        &h,
        Event::WindowOpened {
            by: "root (uid 0)".into(),
            maintainer: "ada".into(),
            reason: "upgrade".into(),
            until: Timestamp(1_795_400_000_000_000),
            until_boot_us: 77,
            boot_id: "b".into(),
        },
    );
    append(&h, Event::WindowChange { window: 6, deployment: None, findings: vec![finding("dir/b")] });
    h.append(Some("staging".into()), vec![opened_alert(&["a"])]).unwrap();
    h.append(None, vec![stopped(0)]).unwrap();
    ledger.stop().unwrap();
}

/// Everything that the index says, to compare.
fn everything(index: &Index) -> String {
    let mut out = String::new();
    for scope in [AlertScope::Open, AlertScope::Unresolved, AlertScope::All] {
        out += &format!("{:?}\n", index.alerts(None, scope).unwrap());
    }
    out += &format!("{:?}\n{:?}\n", index.environments().unwrap(), index.head().unwrap());
    out += &format!("{:?}\n", index.recent(1000, &RecordFilter::default()).unwrap());
    for path in ["a", "dir/b", "c", "none"] {
        out += &format!("{:?}\n", index.path_history(ENV, path, 100).unwrap());
    }
    out
}

fn reopened(f: &Fixture) -> (Ledger, Opened) {
    f.open().unwrap()
}

#[test]
fn it_knows_states_alerts_paths_and_records() {
    let f = Fixture::new();
    sample(&f);
    let (ledger, _) = reopened(&f);
    let h = ledger.handle();
    let index = h.index();
    let state = index.environment_state(ENV).unwrap();
    assert_eq!(state.window.unwrap().maintainer, "ada");
    assert_eq!(state.baseline.unwrap().generation, 4);
    assert_eq!(index.environment_state("never locked").unwrap(), EnvironmentState::default());
    let ids = |env, scope| index.alerts(env, scope).unwrap().iter().map(|a| a.id).collect::<Vec<_>>();
    assert_eq!(ids(None, AlertScope::All), [2, 3, 8]);
    assert_eq!(ids(Some(ENV), AlertScope::Open), [3]);
    assert_eq!(ids(Some(ENV), AlertScope::Unresolved), [2, 3]);
    assert_eq!((index.open_alerts(ENV).unwrap(), index.open_alerts("staging").unwrap()), (1, 1));
    let first = index.alert(2).unwrap().unwrap();
    assert_eq!((first.status, first.notes.len()), (AlertStatus::Acknowledged, 2));
    assert!(index.alert(1).unwrap().is_none() && index.alert(99).unwrap().is_none());
    let seqs = |r: Vec<Record>| r.iter().map(|r| r.seq).collect::<Vec<_>>();
    assert_eq!(seqs(index.path_history(ENV, "dir/b", 10).unwrap()), [7, 2]);
    assert_eq!(seqs(index.path_history(ENV, "a", 10).unwrap()), [5, 2]);
    assert_eq!(seqs(index.path_history(ENV, "a", 1).unwrap()), [5]);
    let filtered = |f: RecordFilter| seqs(index.recent(4, &f).unwrap());
    assert_eq!(filtered(RecordFilter::default()), [10, 9, 8, 7]);
    assert_eq!(filtered(RecordFilter { before: Some(3), ..Default::default() }), [2, 1]);
    assert_eq!(filtered(RecordFilter { after: Some(3), before: Some(6), ..Default::default() }), [5, 4]);
    assert_eq!(filtered(RecordFilter { environment: Some("staging".into()), ..Default::default() }), [8]);
    let opened = RecordFilter { events: vec!["alert_opened".into(), "locked".into()], ..Default::default() };
    assert_eq!(filtered(opened.clone()), [8, 3, 2, 1]);
    assert_eq!(filtered(RecordFilter { environment: Some(ENV.into()), ..opened }), [3, 2, 1]);
    let third = h.read_from(3).next().unwrap().unwrap().at;
    assert_eq!(filtered(RecordFilter { until: Some(third), ..Default::default() }), [3, 2, 1]);
    assert_eq!(filtered(RecordFilter { since: Some(third), until: Some(third), ..Default::default() }), [3]);
    ledger.stop().unwrap();
}

#[test]
fn nobody_else_may_read_it() {
    let f = Fixture::new();
    sample(&f);
    for suffix in ["", "-wal"] {
        let path = format!("{}{suffix}", f.state.index().display());
        if let Ok(meta) = std::fs::metadata(&path) {
            assert_eq!(meta.permissions().mode() & 0o7777, 0o600, "{path}");
        }
    }
}

#[test]
fn it_is_made_anew_when_it_is_gone_or_bad() {
    let f = Fixture::new();
    sample(&f);
    let (ledger, opened) = reopened(&f);
    assert_eq!(opened.index.rebuilt, None);
    let good = everything(ledger.handle().index());
    ledger.stop().unwrap();
    let path = f.state.index();
    let bytes = std::fs::read(&path).unwrap();
    type Deed<'a> = (&'a dyn Fn(), fn(&RebuildCause) -> bool);
    let deeds: [Deed<'_>; 9] = [
        (&|| std::fs::remove_file(&path).unwrap(), |c| *c == RebuildCause::Missing),
        (&|| std::fs::write(&path, b"").unwrap(), |c| *c == RebuildCause::OtherVersion),
        (&|| std::fs::write(&path, b"not a database, not at all").unwrap(), |c| {
            matches!(c, RebuildCause::Damaged(_))
        }),
        (&|| std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(), |c| {
            matches!(c, RebuildCause::Damaged(_))
        }),
        (
            &|| {
                let mut bad = bytes.clone();
                bad[4096..].fill(0x5a);
                std::fs::write(&path, bad).unwrap();
            },
            |c| matches!(c, RebuildCause::Damaged(_)),
        ),
        (&|| drop(bash(f.state.path(), "sqlite3 guardd.db 'PRAGMA user_version = 99'").unwrap()), |c| {
            *c == RebuildCause::OtherVersion
        }),
        (&|| drop(bash(f.state.path(), "sqlite3 guardd.db 'DROP TABLE environments'").unwrap()), |c| {
            matches!(c, RebuildCause::Damaged(_))
        }),
        (
            &|| {
                drop(
                    bash(f.state.path(), "sqlite3 guardd.db \"UPDATE environments SET state = '{'\"")
                        .unwrap(),
                )
            },
            |c| matches!(c, RebuildCause::Damaged(_)),
        ),
        (
            &|| {
                std::fs::remove_file(&path).unwrap();
                std::fs::create_dir(&path).unwrap();
            },
            |c| matches!(c, RebuildCause::Damaged(_)),
        ),
    ];
    for (i, (deed, expected)) in deeds.iter().enumerate() {
        deed();
        let (ledger, opened) = reopened(&f);
        let cause = opened.index.rebuilt.unwrap_or_else(|| panic!("deed {i}: not noticed"));
        assert!(expected(&cause), "deed {i}: {cause:?}");
        assert_eq!((opened.index.replayed, opened.index.in_memory), (10, None));
        assert_eq!(opened.verified.unwrap().verdict(), guard_store::ledger::Verified::Whole);
        assert_eq!(everything(ledger.handle().index()), good, "deed {i}");
        ledger.stop().unwrap();
    }
    assert!(std::fs::read_dir(f.state.quarantine()).unwrap().count() >= 5, "bad ones are kept");
}

#[test]
fn one_of_another_ledger_is_not_believed() {
    let (f, other) = (Fixture::new(), Fixture::new());
    sample(&f);
    other.ledger_of(50);
    std::fs::copy(other.state.index(), f.state.index()).unwrap();
    let (ledger, opened) = reopened(&f);
    assert_eq!(opened.index.rebuilt, Some(RebuildCause::OtherLedger));
    assert_eq!(ledger.handle().index().alerts(None, AlertScope::All).unwrap().len(), 3);
    ledger.stop().unwrap();
}

#[test]
fn one_that_lags_behind_catches_up() {
    let f = Fixture::new();
    f.ledger_of(5);
    let old = std::fs::read(f.state.index()).unwrap();
    sample(&f);
    let (ledger, _) = reopened(&f);
    let good = everything(ledger.handle().index());
    ledger.stop().unwrap();
    std::fs::write(f.state.index(), old).unwrap();
    let (ledger, opened) = reopened(&f);
    assert_eq!((opened.index.rebuilt, opened.index.replayed), (None, 10));
    assert_eq!(everything(ledger.handle().index()), good);
    ledger.stop().unwrap();
}

#[test]
fn held_by_another_program_it_is_left_alone() {
    let f = Fixture::new();
    sample(&f);
    let other = rusqlite::Connection::open(f.state.index()).unwrap();
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; SELECT * FROM meta;").unwrap();
    let (ledger, opened) = reopened(&f);
    assert_eq!(opened.index.rebuilt, Some(RebuildCause::Held));
    assert!(opened.index.in_memory.is_some());
    assert_eq!(ledger.handle().index().alerts(None, AlertScope::All).unwrap().len(), 3);
    ledger.stop().unwrap();
    drop(other);
    let (_ledger, opened) = reopened(&f);
    assert_eq!((opened.index.rebuilt, opened.index.in_memory), (None, None));
}

#[test]
fn an_alert_whose_records_are_lost_still_shows() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    append(&h, opened_alert(&["a", "b"]));
    append(&h, acknowledged(1));
    std::fs::remove_file(&f.ledger_files()[0]).unwrap();
    append(&h, settled(1, &["a"], true));
    let alert = h.index().alert(1).unwrap().unwrap();
    assert_eq!((alert.title.as_str(), alert.severity), ("a changed", Severity::High));
    assert!(alert.notes.last().unwrap().text.contains("2 ledger records"));
    ledger.stop().unwrap();
}

#[test]
fn after_stop_it_says_nothing_rather_than_something_old() {
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    append(&h, locked(1));
    ledger.stop().unwrap();
    assert!(h.index().environment_state(ENV).is_err());
}

#[test]
fn numbers_forged_in_a_broken_ledger_hide_nothing_behind_them() {
    let f = Fixture::new();
    sample(&f);
    let path = &f.ledger_files()[0];
    let text = std::fs::read_to_string(path).unwrap();
    // Record 2 claims to be the last one.
    std::fs::write(path, text.replacen("{\"seq\":2,", "{\"seq\":10,", 1)).unwrap();
    let Err(guard_store::StoreError::LedgerBroken(b)) = f.open() else { panic!() };
    f.remove_index();
    let (ledger, _) = Ledger::open_after_break(&f.state, f.key.clone(), crate::support::clock(), &b).unwrap();
    let h = ledger.handle();
    assert!(h.index().environment_state(ENV).unwrap().window.is_some());
    assert_eq!(h.index().open_alerts("staging").unwrap(), 1);
    ledger.stop().unwrap();
}

/// Steps of an alert's life, by small numbers.
#[derive(Debug, Clone)]
enum Step {
    Open(Vec<u8>),
    Grow(u8, Vec<u8>, bool),
    Acknowledge(u8),
    Settle(u8, Vec<u8>, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let paths = || prop::collection::vec(0u8..5, 0..4);
    prop_oneof![
        paths().prop_map(Step::Open),
        (any::<u8>(), paths(), any::<bool>()).prop_map(|(a, p, c)| Step::Grow(a, p, c)),
        any::<u8>().prop_map(Step::Acknowledge),
        (any::<u8>(), paths(), any::<bool>()).prop_map(|(a, p, r)| Step::Settle(a, p, r)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn rows_and_the_models_fold_agree(steps in prop::collection::vec(step(), 1..25)) {
        let f = Fixture::new();
        let (ledger, _) = f.open().unwrap();
        let h = ledger.handle();
        let mut opened: Vec<u64> = Vec::new();
        let findings = |paths: &[u8]| paths.iter().map(|p| finding(&format!("p{p}"))).collect::<Vec<_>>();
        let pick = |opened: &[u64], n: u8| opened.get(usize::from(n) % opened.len().max(1)).copied().unwrap_or(77);
        let mut folded: std::collections::BTreeMap<u64, Alert> = Default::default();
        for step in steps {
            let event = match step {
                Step::Open(p) => Event::AlertOpened {
                    severity: Severity::Warning,
                    title: "t".into(),
                    findings: findings(&p),
                    sessions: vec![],
                },
                Step::Grow(a, p, critical) => Event::AlertGrew {
                    alert: pick(&opened, a),
                    severity: if critical { Severity::Critical } else { Severity::Warning },
                    findings: findings(&p),
                },
                Step::Acknowledge(a) => acknowledged(pick(&opened, a)),
                Step::Settle(a, p, reviewed) => {
                    let paths: Vec<String> = p.iter().map(|p| format!("p{p}")).collect();
                    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
                    settled(pick(&opened, a), &paths, reviewed)
                }
            };
            let record = h.append(Some(ENV.into()), vec![event]).unwrap().remove(0);
            let id = alert_of(&record).unwrap();
            if matches!(record.event, Event::AlertOpened { .. }) {
                opened.push(id);
            }
            if let Some(alert) = apply_to_alert(folded.remove(&id), &record) {
                folded.insert(id, alert);
            }
        }
        for (id, alert) in &folded {
            let found = h.index().alert(*id).unwrap();
            prop_assert_eq!(found.as_ref(), Some(alert));
        }
        let listed = |scope| h.index().alerts(Some(ENV), scope).unwrap();
        let with = |keep: fn(AlertStatus) -> bool| {
            folded.values().filter(|a| keep(a.status)).cloned().collect::<Vec<_>>()
        };
        prop_assert_eq!(listed(AlertScope::Open), with(|s| s == AlertStatus::Open));
        prop_assert_eq!(listed(AlertScope::Unresolved), with(|s| s != AlertStatus::Resolved));
        prop_assert_eq!(listed(AlertScope::All), with(|_| true));
        ledger.stop().unwrap();
    }
}

#[test]
fn deployments_are_what_the_models_fold_makes_of_them() {
    use guard_model::deploy::{DeploymentEnd, DeploymentKind, Phase};
    let f = Fixture::new();
    let (ledger, _) = f.open().unwrap();
    let h = ledger.handle();
    let mut folded = EnvironmentState::default();
    let mut take = |event: Event| {
        let record = h.append(Some(ENV.into()), vec![event]).unwrap().remove(0);
        folded.apply(&record);
        assert_eq!(h.index().environment_state(ENV).unwrap(), folded);
        record.seq
    };
    // Also where it is the first that is known of the environment.
    for end in [DeploymentEnd::Done, DeploymentEnd::Refused, DeploymentEnd::NeedsOperator] {
        let deployment = take(Event::DeploymentStarted {
            kind: DeploymentKind::Deploy,
            by: "root (uid 0)".into(),
            reason: "release".into(),
            revision: Some("v1".into()),
            force: vec![],
            locked: true,
            relock: true,
            to: None,
        });
        let backup = guard_model::BackupId::new(deployment, Timestamp(0));
        let (images, revision) = (vec![], None);
        take(Event::DeploymentSecured { deployment, backup: backup.clone(), revision, images });
        take(Event::BackupPinned { backup, pinned: true, by: "guardd".into() });
        take(Event::DeploymentPhase { deployment, phase: Phase::Step, step: Some("up".into()) });
        take(Event::WindowChange { window: 1, deployment: None, findings: vec![finding("a")] });
        take(Event::DeploymentEnded {
            deployment,
            end,
            why: "so".into(),
            revision_after: None,
            changed: 1,
            images: vec![],
            release: None,
            duration_ms: 1,
        });
    }
    take(locked(1));
    assert_eq!(folded.deployments.past.len(), 3);
    assert_eq!(h.index().environments().unwrap(), [(ENV.to_owned(), folded)]);
    ledger.stop().unwrap();
}
