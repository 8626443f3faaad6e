//! The state directory itself, and plans.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use guard_model::seal::Marks;
use guard_model::{RelPath, Seal, Timestamp};
use guard_store::{Plan, PlanHeader, PlanKind, PlanStep, StateDir, StoreError};

use crate::support::{Fixture, bash};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_tree_has_the_documented_modes_whatever_was_there() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().join("a/b/state");
    std::fs::create_dir_all(base.join("locks")).unwrap();
    std::fs::create_dir_all(base.join("keys")).unwrap();
    std::fs::set_permissions(base.join("keys"), std::fs::Permissions::from_mode(0o777)).unwrap();
    std::fs::set_permissions(base.join("locks"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let state = StateDir::open(&base).unwrap();
    assert_eq!(mode(state.path()), 0o711);
    for public in [state.locks(), state.public()] {
        assert_eq!(mode(&public), 0o755, "{}", public.display());
    }
    for private in
        [state.keys(), state.ledger(), state.baselines(), state.plans(), state.quarantine(), state.sinks()]
    {
        assert_eq!(mode(&private), 0o700, "{}", private.display());
    }
}

#[test]
fn a_second_daemon_is_refused_and_told_who_is_there() {
    let f = Fixture::new();
    match StateDir::open(f.state.path()) {
        Err(StoreError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
    // The lock lives as long as any clone, and not longer.
    let path = f.state.path().to_owned();
    let clone = f.state.clone();
    drop(f.state);
    assert!(matches!(StateDir::open(&path), Err(StoreError::InUse { .. })));
    drop(clone);
    StateDir::open(&path).unwrap();
}

#[test]
fn a_state_directory_of_somebody_else_is_refused() {
    if !crate::support::is_root() {
        println!("skipped: needs root to give a directory away");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().join("state");
    drop(StateDir::open(&base).unwrap());
    std::os::unix::fs::chown(base.join("keys"), Some(12345), None).unwrap();
    assert!(matches!(StateDir::open(&base), Err(StoreError::NotOurs { owner: 12345, .. })));
}

#[test]
fn what_is_no_directory_is_a_clear_error() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().join("state");
    std::fs::create_dir(&base).unwrap();
    std::fs::write(base.join("ledger"), b"").unwrap();
    let e = StateDir::open(&base).unwrap_err();
    assert!(e.to_string().contains("ledger"), "{e}");
    std::fs::remove_file(base.join("ledger")).unwrap();
    std::os::unix::fs::symlink("/tmp", base.join("ledger")).unwrap();
    assert!(matches!(StateDir::open(&base), Err(StoreError::Io { .. })));
    std::fs::remove_file(base.join("ledger")).unwrap();
    std::os::unix::fs::symlink("/dev/null", base.join("daemon.lock")).unwrap();
    assert!(matches!(StateDir::open(&base), Err(StoreError::Io { .. })));
}

#[test]
fn names_that_leave_the_directory_are_refused() {
    let f = Fixture::new();
    let long = "x".repeat(65);
    for bad in ["", ".", "..", "../x", "a/b", ".hidden", "-rf", "a b", "ä", "a\0", "a\n", long.as_str()] {
        assert!(matches!(f.state.lock_file(bad), Err(StoreError::BadName { .. })), "{bad:?}");
        assert!(matches!(Plan::load(&f.state, bad), Err(StoreError::BadName { .. })), "{bad:?}");
    }
    for good in ["production", "_x", "a.b-c_9", "9"] {
        f.state.lock_file(good).unwrap();
    }
}

fn header() -> PlanHeader {
    PlanHeader {
        environment: "production".into(),
        kind: PlanKind::Lock,
        generation: 4,
        at: Timestamp(1_795_300_000_000_000),
        by: "root (uid 0)".into(),
        reason: "release".into(),
        root: "/srv/app".into(),
        root_identity: (64768, 2),
    }
}

fn step(path: &[u8], mode_before: u32) -> PlanStep {
    let marks = Marks { mode: mode_before, flags: 0x20 };
    PlanStep::new(RelPath::from_bytes(path).unwrap(), (64768, 17), marks, marks.under(Seal::Immutable))
}

#[test]
fn a_step_from_before_there_were_flags_is_read() {
    let old = r#"{"path":"a","identity":[64768,17],"mode_before":"0644","mode_after":"0444"}"#;
    let marks = Marks { mode: 0o644, flags: 0 };
    let step =
        PlanStep::new(RelPath::from_bytes(b"a").unwrap(), (64768, 17), marks, marks.under(Seal::ReadOnly));
    assert_eq!(serde_json::from_str::<PlanStep>(old).unwrap(), step);
}

#[test]
fn a_plan_comes_back_as_it_was_written() {
    let f = Fixture::new();
    assert!(Plan::load(&f.state, "production").unwrap().is_none());
    let steps = vec![step(b"", 0o755), step(b"a\nb/\xff \\", 0o4755), step(b"c", 0o644)];
    Plan::write(&f.state, &header(), steps.clone()).unwrap();
    let plan = Plan::load(&f.state, "production").unwrap().unwrap();
    assert_eq!((plan.header(), plan.len()), (&header(), 3));
    // Two readers at once do not disturb each other.
    let (mut one, mut two) = (plan.steps(), plan.steps());
    for expected in &steps {
        assert_eq!(one.next().unwrap().unwrap(), *expected);
        assert_eq!(two.next().unwrap().unwrap(), *expected);
    }
    assert!(one.next().is_none());
    Plan::clear(&f.state, "production").unwrap();
    Plan::clear(&f.state, "production").unwrap();
    assert!(Plan::load(&f.state, "production").unwrap().is_none());
}

#[test]
fn a_plan_that_was_cut_or_edited_is_refused() {
    let f = Fixture::new();
    Plan::write(&f.state, &header(), (0..20u8).map(|i| step(&[b'a', b'a' + i], 0o644))).unwrap();
    let path = f.state.plans().join("production.jsonl");
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        std::fs::write(&path, &good[..at]).unwrap();
        assert!(Plan::load(&f.state, "production").is_err(), "cut at {at}");
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        if let Ok(plan) = Plan::load(&f.state, "production") {
            // Only a letter's case in the digest or an insignificant spelling can be as good.
            let steps: Vec<_> = plan.unwrap().steps().map(Result::unwrap).collect();
            assert_eq!(steps.len(), 20, "edited at {at}");
        }
    }
    // A crash while a plan was written leaves no plan.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(f.state.plans().join("production.new"), &good[..100]).unwrap();
    assert!(Plan::load(&f.state, "production").unwrap().is_none());
    Plan::write(&f.state, &header(), []).unwrap();
    assert!(Plan::load(&f.state, "production").unwrap().unwrap().is_empty());
}

#[test]
fn a_plan_of_another_environment_is_refused() {
    let f = Fixture::new();
    Plan::write(&f.state, &header(), [step(b"a", 0o644)]).unwrap();
    bash(f.state.path(), "cp plans/production.jsonl plans/staging.jsonl").unwrap();
    assert!(matches!(Plan::load(&f.state, "staging"), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_large_plan_streams() {
    let f = Fixture::new();
    let steps = (0..100_000u32).map(|i| step(format!("dir{}/file{i}", i % 100).as_bytes(), 0o644));
    Plan::write(&f.state, &header(), steps).unwrap();
    let plan = Plan::load(&f.state, "production").unwrap().unwrap();
    assert_eq!(plan.steps().map(Result::unwrap).count(), 100_000);
}

#[test]
fn what_a_crash_left_unfinished_goes_at_the_next_start_and_nothing_else() {
    let temp = tempfile::tempdir().unwrap();
    let state = StateDir::open(temp.path()).unwrap();
    let left =
        [state.locks().join(".e.lock.new"), state.plans().join("e.new"), state.keys().join(".host.new")];
    let kept =
        [state.plans().join("e.jsonl"), state.quarantine().join("torn.new"), state.locks().join("e.lock")];
    for path in left.iter().chain(&kept) {
        std::fs::write(path, "x").unwrap();
    }
    std::fs::create_dir(state.plans().join("d.new")).unwrap();
    drop(state);
    let state = StateDir::open(temp.path()).unwrap();
    assert!(left.iter().all(|path| !path.exists()), "{left:?}");
    assert!(kept.iter().all(|path| path.exists()), "{kept:?}");
    assert!(state.plans().join("d.new").exists());
}
