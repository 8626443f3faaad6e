//! Roots that are missing, moved, replaced, mounted over.

use std::fs;
use std::process::Command;

use guard_api::Known;
use guard_api::method::{Check, Lock, Validate};
use guard_api::wire::{Change as C, Finding, GapCause, Severity, State, Verdict};

use crate::stage::{PLAIN, SEALED, Stage, acceptance, run, text_of};
use crate::tree::{mode, picture, root_for, sample, write};
use crate::wait;

fn root_finding(stage: &Stage, change: C) -> Finding {
    let root = stage.app().to_str().unwrap().to_owned();
    stage.finding_that_changes(&root, change)
}

#[test]
fn a_root_that_is_not_there_at_start_is_told_and_waited_for() {
    let mut stage = Stage::new(PLAIN);
    fs::rename(stage.app(), stage.path("later")).unwrap();
    stage.start();
    assert_eq!(stage.site().state, State::Unlocked);
    assert!(
        stage.degraded().iter().any(|d| d.contains("site") && d.contains("app")),
        "{:?}",
        stage.degraded()
    );
    let refused = stage.refused(&Lock::default());
    assert!(matches!(&refused, Known::Refused { message, .. } if message.contains("app")), "{refused:?}");
    fs::rename(stage.path("later"), stage.app()).unwrap();
    wait::until_true("the lock", || stage.try_call(&Lock::default()).is_ok());
    assert!(stage.check().clean);
    assert!(!stage.degraded().iter().any(|d| d.contains("app")), "{:?}", stage.degraded());
}

#[test]
fn a_root_that_is_no_directory_is_told() {
    let mut stage = Stage::new(PLAIN);
    fs::rename(stage.app(), stage.path("real")).unwrap();
    fs::write(stage.app(), "a file").unwrap();
    stage.start();
    assert!(matches!(stage.refused(&Lock::default()), Known::Refused { .. }));
    fs::remove_file(stage.app()).unwrap();
    // A symlink is followed at lock, and what it led to is what is guarded.
    std::os::unix::fs::symlink(stage.path("real"), stage.app()).unwrap();
    wait::until_true("the lock", || stage.try_call(&Lock::default()).is_ok());
    assert_eq!(stage.site().root, stage.path("real").to_str().unwrap());
    fs::write(stage.at("compose.yml"), "x").unwrap();
    stage.finding("compose.yml");
}

#[test]
fn a_locked_root_that_is_gone_at_start_is_critical_and_its_return_is_checked() {
    let mut stage = Stage::locked(SEALED);
    stage.stop();
    fs::rename(stage.app(), stage.path("hidden")).unwrap();
    stage.start();
    let alert = wait::until("the alert", || stage.all_alerts().pop());
    assert_eq!(alert.severity, Severity::Critical);
    root_finding(&stage, C::Root);
    assert_eq!(stage.site().state, State::Locked);
    assert!(
        matches!(stage.refused(&Check::default()), Known::Refused { .. }),
        "nothing is clean that is not there"
    );
    assert!(stage.site().watch.gaps.iter().any(|g| g.until.is_none()));
    fs::write(stage.path("hidden/logs/x"), "x").unwrap();
    crate::tree::chmod(&stage.path("hidden/backend/app/orders.py"), 0o664);
    fs::write(stage.path("hidden/backend/app/orders.py"), "changed while away").unwrap();
    fs::rename(stage.path("hidden"), stage.app()).unwrap();
    stage.finding("backend/app/orders.py");
    wait::until_true("the end of every gap", || stage.site().watch.gaps.iter().all(|g| g.until.is_some()));
    write(&stage.at("media/new"), "x");
    fs::remove_file(stage.at("scripts/deploy.sh")).ok();
    let check = stage.check();
    assert!(check.findings.iter().any(|f| f.path == "backend/app/orders.py"));
    stage.unlock();
    assert_eq!(mode(&stage.at("backend/Dockerfile")), 0o644);
}

#[test]
fn a_root_renamed_away_is_told_and_nothing_is_called_clean_until_it_is_back() {
    let stage = Stage::locked(PLAIN);
    fs::rename(stage.app(), stage.path("away")).unwrap();
    let finding = root_finding(&stage, C::Root);
    assert!(finding.change.contains(&C::Deleted), "{:?}", finding.change);
    for _ in 0..3 {
        assert!(matches!(stage.refused(&Check::default()), Known::Refused { .. }));
    }
    assert!(matches!(stage.refused(&acceptance(&["."])), Known::Refused { .. }));
    let gap = stage.site().watch.gaps.into_iter().find(|g| g.cause == GapCause::Root).unwrap();
    assert!(gap.until.is_none());
    assert!(stage.degraded().iter().any(|d| d.contains("app")), "{:?}", stage.degraded());
    // Changed where nobody looked.
    fs::write(stage.path("away/backend/app/main.py"), "print('HELLO')\n").unwrap();
    fs::rename(stage.path("away"), stage.app()).unwrap();
    stage.finding("backend/app/main.py");
    wait::until_true("the end of the gap", || {
        stage.site().watch.gaps.iter().any(|g| g.id == gap.id && g.until.is_some())
    });
    assert!(!stage.degraded().iter().any(|d| d.contains("app")), "{:?}", stage.degraded());
    assert_eq!(stage.check().findings_total, 1);
    // The watches stand again.
    fs::write(stage.at("scripts/new"), "x").unwrap();
    stage.finding("scripts/new");
    // Once each.
    let root = stage.app().to_str().unwrap().to_owned();
    assert_eq!(stage.findings().iter().filter(|f| f.path == root).count(), 1);
}

/// While unlocked nothing is compared, and yet nothing can be deployed to what is not there.
#[test]
fn an_unlocked_environment_without_its_root_is_ready_for_nothing() {
    let stage = Stage::locked(PLAIN);
    stage.unlock();
    let integrity = || {
        let gates = stage.call(&Validate::default()).result.unwrap().gates;
        gates.into_iter().find(|g| g.gate == "integrity").unwrap()
    };
    assert_eq!(integrity().verdict, Verdict::Pass);
    fs::rename(stage.app(), stage.path("away")).unwrap();
    let gate = integrity();
    assert_eq!(gate.verdict, Verdict::Fail);
    assert!(gate.evidence.contains("nothing is there"), "{}", gate.evidence);
    fs::rename(stage.path("away"), stage.app()).unwrap();
    assert_eq!(integrity().verdict, Verdict::Pass);
}

#[test]
fn another_directory_in_the_roots_place_is_told() {
    let mut stage = Stage::locked(SEALED);
    let original = picture(&stage.app());
    fs::rename(stage.app(), stage.path("original")).unwrap();
    sample(&stage.app());
    let finding = root_finding(&stage, C::Root);
    assert!(
        finding.change.contains(&C::Inode) || finding.change.contains(&C::Deleted),
        "{:?}",
        finding.change
    );
    assert_eq!(stage.all_alerts()[0].severity, Severity::Critical);
    assert!(matches!(stage.refused(&Check::default()), Known::Refused { .. }));
    // Restarted on the wrong one: still said, and it is not the sealed one.
    stage.kill();
    stage.start();
    assert_eq!(stage.site().state, State::Locked);
    wait::until_true("the alert about the root", || {
        stage.findings().iter().any(|f| f.change.contains(&C::Root) && f.change.contains(&C::Inode))
    });
    let wrong = picture(&stage.app());
    assert!(stage.try_call(&Check::default()).map_or(true, |c| !c.result.unwrap().clean));
    assert_eq!(picture(&stage.app()), wrong, "what was never locked is not touched");
    // The right one comes back.
    fs::rename(stage.app(), stage.path("wrong")).unwrap();
    fs::rename(stage.path("original"), stage.app()).unwrap();
    wait::until_true("a check of the right one", || {
        stage.try_call(&Check::default()).is_ok_and(|c| c.result.unwrap().clean)
    });
    assert_eq!(picture(&stage.app()), original);
    stage.unlock();
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o664);
}

#[test]
fn a_lost_root_can_be_given_up_and_another_one_locked() {
    let stage = Stage::locked(SEALED);
    crate::tree::open_up(&stage.app());
    fs::remove_dir_all(stage.app()).unwrap();
    root_finding(&stage, C::Root);
    sample(&stage.app());
    let done = stage.unlock();
    assert!(!done.skipped.is_empty());
    let locked = stage.lock();
    assert_eq!(locked.generation, 2);
    assert!(stage.check().clean);
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o444);
    fs::write(stage.at("logs/x"), "x").unwrap();
    crate::tree::chmod(&stage.at("compose.yml"), 0o644);
    stage.change("compose.yml", &[C::Mode, C::Seal]);
    assert!(!stage.degraded().iter().any(|d| d.contains("app")), "{:?}", stage.degraded());
}

#[test]
fn lock_does_not_lock_what_was_moved_away() {
    let stage = Stage::locked(SEALED);
    stage.unlock();
    let open = picture(&stage.app());
    fs::rename(stage.app(), stage.path("away")).unwrap();
    let refused = stage.refused(&Lock::default());
    assert!(matches!(refused, Known::Refused { .. }), "{refused:?}");
    assert_eq!(picture(&stage.path("away")), open);
    assert_eq!(stage.site().state, State::Unlocked);
    fs::rename(stage.path("away"), stage.app()).unwrap();
    assert_eq!(stage.lock().generation, 2);
}

#[test]
fn a_window_whose_root_is_gone_when_it_ends_is_locked_when_it_is_back() {
    let stage = Stage::locked(SEALED);
    stage.unlock_for(Some(1));
    fs::rename(stage.app(), stage.path("away")).unwrap();
    wait::until_true("the trouble being told", || {
        stage.degraded().iter().any(|d| d.contains("window ended") || d.contains("locked"))
    });
    assert_eq!(stage.site().state, State::Unlocked);
    fs::rename(stage.path("away"), stage.app()).unwrap();
    stage.wait_for_state(State::Locked);
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o444);
    assert!(stage.check().clean);
}

#[test]
fn an_ancestor_that_is_opened_or_replaced_is_told() {
    let mut stage = Stage::new("");
    let inner = stage.path("srv/sites/app");
    sample(&inner);
    stage.write_config(
        &(stage.daemon_section() + &stage.environment_section(crate::stage::ENV, &inner, PLAIN)),
    );
    stage.start();
    stage.lock();
    let above = stage.path("srv/sites").to_str().unwrap().to_owned();
    crate::tree::chmod(&stage.path("srv/sites"), 0o777);
    stage.change(&above, &[C::Mode, C::Root]);
    assert_eq!(stage.all_alerts()[0].severity, Severity::Critical);
    crate::tree::chmod(&stage.path("srv/sites"), 0o755);
    wait::until_true("settling", || stage.all_alerts()[0].settled.contains(&above));
    // The whole branch is exchanged for a copy.
    fs::rename(stage.path("srv"), stage.path("old")).unwrap();
    sample(&inner);
    stage.finding_that_changes(stage.path("srv").to_str().unwrap(), C::Inode);
    root_finding_of(&stage, inner.to_str().unwrap());
}

fn root_finding_of(stage: &Stage, root: &str) {
    stage.finding_that_changes(root, C::Root);
}

#[test]
fn an_operation_cut_short_is_recovered_when_its_root_is_back() {
    let mut stage = Stage::new(SEALED);
    for n in 0..400 {
        write(&stage.at(format!("vendor/f{n}")), "x");
    }
    let original = picture(&stage.app());
    stage.start();
    let mut client = stage.client();
    let call = std::thread::spawn(move || drop(client.call(&Lock::default())));
    wait::until_true("a sealed file", || mode(&stage.at("vendor/f0")) == 0o444);
    stage.kill();
    call.join().unwrap();
    // Committed or not, it is finished or undone once its root is there.
    fs::rename(stage.app(), stage.path("away")).unwrap();
    stage.start();
    fs::rename(stage.path("away"), stage.app()).unwrap();
    wait::until_true("recovery", || {
        let now = picture(&stage.app());
        match stage.site().state {
            State::Unlocked => now == original,
            State::Locked => stage.try_call(&Check::default()).is_ok_and(|c| c.result.unwrap().clean),
            _ => false,
        }
    });
    if stage.site().state == State::Locked {
        stage.unlock();
    } else {
        stage.lock();
        stage.unlock();
    }
    assert_eq!(picture(&stage.app()), original);
}

#[test]
fn a_root_mounted_over_is_told_and_nothing_is_called_clean() {
    if !root_for("mounting") {
        return;
    }
    let stage = Stage::locked(PLAIN);
    let mount = |args: &[&str]| {
        // In the daemon's own mount namespace, which is the test's.
        let done = run(Command::new("mount").args(args));
        assert!(done.status.success(), "{}", text_of(&done));
    };
    let app = stage.app();
    mount(&["-t", "tmpfs", "guardd-test", app.to_str().unwrap()]);
    let unmount = Unmount(app.clone());
    let finding = root_finding(&stage, C::Mount);
    assert!(finding.change.contains(&C::Root));
    assert_eq!(stage.all_alerts()[0].severity, Severity::Critical);
    assert!(matches!(stage.refused(&Check::default()), Known::Refused { .. }));
    drop(unmount);
    wait::until_true("a clean check", || {
        stage.try_call(&Check::default()).is_ok_and(|c| c.result.unwrap().clean)
    });
    // Over a directory inside, too.
    let inside = stage.at("backend/app");
    mount(&["-t", "tmpfs", "guardd-test", inside.to_str().unwrap()]);
    let unmount = Unmount(inside);
    let check = stage.check();
    assert!(!check.clean);
    stage.finding_that_changes("backend/app", C::Mount);
    drop(unmount);
    wait::until_true("a clean check", || stage.check().clean);
}

/// Unmounts when dropped, whatever became of the test.
struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("--lazy").arg(&self.0).output();
        if !done.is_ok_and(|d| d.status.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}
