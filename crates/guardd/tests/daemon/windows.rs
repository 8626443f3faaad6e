//! Maintenance windows: what unlock gives back, what is recorded, how they end.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use guard_api::method::{ListBaselines, Unlock};
use guard_api::wire::{AlertStatus, Change as C, Severity, State};
use guard_api::{Exit, Known};

use crate::stage::{ENV, PLAIN, SEALED, Stage, run, text_of, wish};
use crate::tree::{chmod, mode, picture, write};
use crate::wait;

/// A tree with every mode that is easy to lose.
pub(crate) fn odd_modes(stage: &Stage) {
    let modes = [
        0o644, 0o664, 0o666, 0o600, 0o640, 0o200, 0o220, 0o222, 0o755, 0o775, 0o777, 0o4755, 0o2755, 0o6775,
        0o1644, 0o7777, 0o444, 0o400, 0o000, 0o333,
    ];
    for m in modes {
        let path = stage.at(format!("modes/f{m:o}"));
        write(&path, format!("{m:o}"));
        chmod(&path, m);
    }
    for m in [0o755, 0o775, 0o2775, 0o1777, 0o3777, 0o700, 0o2755] {
        let path = stage.at(format!("modes/d{m:o}"));
        fs::create_dir(&path).unwrap();
        chmod(&path, m);
    }
}

#[track_caller]
fn setfacl(args: &[&str], path: &std::path::Path) {
    let done = run(Command::new("setfacl").args(args).arg(path));
    assert!(done.status.success(), "{}", text_of(&done));
}

#[test]
fn unlock_gives_back_the_exact_modes_and_acls() {
    let mut stage = Stage::new(SEALED);
    odd_modes(&stage);
    // The mask hides a write bit here, and shows one there.
    write(&stage.at("acl/masked"), "x");
    setfacl(&["-m", "u:1:rw,g::r,m::rwx"], &stage.at("acl/masked"));
    write(&stage.at("acl/hidden"), "x");
    setfacl(&["-m", "u:1:rwx,g:2:rw,m::r"], &stage.at("acl/hidden"));
    fs::create_dir(stage.at("acl/defaults")).unwrap();
    setfacl(&["-m", "u:1:rwx,d:u:1:rwx,d:g::rwx"], &stage.at("acl/defaults"));
    let original = picture(&stage.app());

    stage.start();
    stage.lock();
    let sealed = picture(&stage.app());
    assert_ne!(sealed, original);
    assert_eq!(mode(&stage.at("modes/f6775")), 0o6555);
    assert_eq!(mode(&stage.at("modes/d3777")), 0o3555);
    assert!(stage.check().clean);

    let done = stage.unlock();
    assert_eq!(picture(&stage.app()), original);
    assert!(done.restored > 10 && done.skipped.is_empty(), "{done:?}");
    assert_eq!(done.window.maintainer, "ada");
    assert!(stage.check().clean, "{:?}", stage.check().findings);

    // And again, by a baseline that was taken of what came back.
    stage.lock();
    assert_eq!(picture(&stage.app()), sealed);
    stage.unlock();
    assert_eq!(picture(&stage.app()), original);
}

#[test]
fn what_lock_cannot_seal_is_listed_and_left_alone() {
    let mut stage = Stage::new(SEALED);
    write(&stage.path("elsewhere"), "shared");
    fs::hard_link(stage.path("elsewhere"), stage.at("shared")).unwrap();
    chmod(&stage.at("shared"), 0o644);
    write(&stage.at("inside-a"), "x");
    fs::hard_link(stage.at("inside-a"), stage.at("inside-b")).unwrap();
    chmod(&stage.at("inside-a"), 0o644);
    stage.start();
    let locked = stage.lock();
    let listed: Vec<&str> = locked.skipped.iter().map(|s| s.path.as_str()).collect();
    // Symlink, hard link to outside, and the root, which directly holds writable directories.
    assert_eq!(listed.len(), 3, "{listed:?}");
    for path in ["current", "shared", "."] {
        assert!(listed.contains(&path), "{listed:?}");
    }
    assert_eq!(mode(&stage.at("shared")), 0o644);
    assert_eq!(mode(&stage.at("inside-b")), 0o444);
    assert_eq!(mode(&stage.app()), 0o755);
    assert_eq!(mode(&stage.at("logs")), 0o755);
    assert_eq!(locked.seal.unsealed, 3);
    // The same is in status, also after a restart.
    stage.kill();
    stage.start();
    let skipped = stage.site().watch.skipped;
    assert!(skipped.iter().any(|s| s.path == "shared" && s.why.contains("hard link")), "{skipped:?}");
    stage.unlock();
    assert_eq!(mode(&stage.at("inside-a")), 0o644);
}

#[test]
fn a_window_records_and_does_not_alarm() {
    let stage = Stage::locked(PLAIN);
    let window = stage.unlock().window;
    let site = stage.site();
    assert_eq!((site.state, site.window.as_ref()), (State::Unlocked, Some(&window)));
    let events = stage.follow();
    fs::write(stage.at("backend/app/main.py"), "fixed\n").unwrap();
    fs::remove_file(stage.at("compose.yml")).unwrap();
    write(&stage.at("scripts/new/tool.sh"), "x");
    let mut seen = Vec::new();
    for path in ["backend/app/main.py", "compose.yml", "scripts/new/tool.sh"] {
        wait::until_true(path, || {
            if !seen.iter().any(|p| p == path) {
                let r = events.wait_for("a change under the window", |r| r.event == "window_change");
                assert_eq!(r.fields["window"], window.id);
                seen.extend(crate::stage::findings_of(&r).into_iter().map(|f| f.path));
            }
            seen.iter().any(|p| p == path)
        });
    }
    stage.log_line("maintenance.log", |l| l.contains("backend/app/main.py"));
    assert_eq!(stage.all_alerts(), []);
    let check = stage.check();
    assert!(!check.clean);
    let locked = stage.lock();
    // compose.yml, main.py, scripts/new, scripts/new/tool.sh.
    assert_eq!((locked.generation, locked.changed), (2, Some(4)));
    assert_eq!(stage.all_alerts(), []);
    assert!(stage.check().clean);
    assert_eq!(stage.site().window, None);
    let closed = stage.events("window_closed").remove(0);
    assert_eq!((&closed.fields["how"], &closed.fields["changed"]), (&"lock".into(), &4.into()));
}

#[test]
fn a_window_that_ends_by_its_time_locks_and_asks_for_a_review() {
    let stage = Stage::locked(SEALED);
    stage.unlock_for(Some(1));
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o664);
    fs::write(stage.at("backend/app/orders.py"), "hasty\n").unwrap();
    let site = stage.wait_for_state(State::Locked);
    assert_eq!((site.generation, site.by.as_deref()), (Some(2), Some("guardd")));
    assert!(site.reason.unwrap().contains("repair"));
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o444);
    let alert = wait::until("the alert", || stage.all_alerts().pop());
    assert!(alert.title.contains("unreviewed window changes"), "{}", alert.title);
    assert!(alert.title.contains("ada") && alert.title.contains("repair"), "{}", alert.title);
    assert_eq!((alert.severity, alert.status), (Severity::Warning, AlertStatus::Open));
    assert_eq!(alert.findings.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["backend/app/orders.py"]);
    assert!(alert.findings[0].change.contains(&C::Content));
    // Nothing differs any more, and it stays open until somebody looks.
    assert!(stage.check().clean);
    assert_eq!(stage.site().alerts_open, 1);
    assert_eq!(stage.acknowledge(alert.id).status, AlertStatus::Resolved);
    assert_eq!(stage.site().alerts_open, 0);
    let closed = stage.events("window_closed").remove(0);
    assert_eq!(closed.fields["how"], "timer");
}

#[test]
fn a_window_without_changes_that_ends_by_its_time_asks_for_nothing() {
    let stage = Stage::locked(SEALED);
    stage.unlock_for(Some(1));
    stage.wait_for_state(State::Locked);
    assert!(stage.check().clean);
    assert_eq!(stage.all_alerts(), []);
}

#[test]
fn a_window_that_ended_while_it_was_down_is_over_before_the_socket_answers() {
    for clean in [true, false] {
        let mut stage = Stage::locked(SEALED);
        let until = stage.unlock_for(Some(1)).window.until;
        fs::write(stage.at("compose.yml"), "changed under the window\n").unwrap();
        if clean {
            stage.stop()
        } else {
            stage.kill()
        }
        fs::write(stage.at("scripts/while-down"), "x").unwrap();
        wait::until_true("the window's end", || {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            i64::try_from(now.as_micros()).unwrap() > until.0
        });
        stage.start();
        // The first answer there is says so.
        let site = stage.site();
        assert_eq!((site.state, site.generation), (State::Locked, Some(2)));
        assert_eq!(mode(&stage.at("compose.yml")), 0o444);
        let alerts = stage.all_alerts();
        assert_eq!(alerts.len(), 1, "{alerts:?}");
        let paths: Vec<&str> = alerts[0].findings.iter().map(|f| f.path.as_str()).collect();
        assert_eq!(paths, ["compose.yml", "scripts/while-down"]);
        assert_eq!(stage.events("window_closed")[0].fields["how"], "while_down");
        assert!(stage.check().clean);
    }
}

#[test]
fn an_open_window_survives_a_restart() {
    let mut stage = Stage::locked(SEALED);
    let window = stage.unlock_for(Some(600)).window;
    stage.kill();
    fs::write(stage.at("compose.yml"), "while down\n").unwrap();
    stage.start();
    let site = stage.site();
    assert_eq!((site.state, site.window), (State::Unlocked, Some(window)));
    assert_eq!(stage.all_alerts(), []);
    wait::until_true("the change under the window", || {
        stage.events("window_change").iter().any(|r| crate::stage::findings_of(r)[0].path == "compose.yml")
    });
    assert_eq!(stage.lock().changed, Some(1));
    assert_eq!(stage.all_alerts(), []);
}

#[test]
fn unlock_wants_a_reason_a_maintainer_and_a_bounded_time() {
    let mut stage = Stage::new(PLAIN);
    let text = stage.daemon_section() + "window_max = \"10m\"\n";
    stage.write_config(&(text + &stage.environment_section(ENV, &stage.app(), PLAIN)));
    stage.start();
    assert!(matches!(stage.refused(&wish(None)), Known::AlreadyUnlocked { window: None, .. }));
    stage.lock();
    let ask = |reason: &str, maintainer: &str, seconds| Unlock {
        environment: None,
        reason: reason.into(),
        maintainer: maintainer.into(),
        for_seconds: seconds,
        anyway: None,
    };
    assert_eq!(stage.refused(&ask("", "ada", None)), Known::ReasonRequired {});
    assert_eq!(stage.refused(&ask(" \t", "ada", None)), Known::ReasonRequired {});
    assert_eq!(stage.refused(&ask("why", " ", None)), Known::MaintainerRequired {});
    let too_long = Known::InvalidWindow { asked_seconds: 601, max_seconds: 600 };
    assert_eq!(stage.refused(&ask("why", "ada", Some(601))), too_long);
    assert!(matches!(stage.refused(&ask("why", "ada", Some(0))), Known::InvalidWindow { .. }));
    assert!(matches!(stage.refused(&ask("why", "ada", Some(u64::MAX))), Known::InvalidWindow { .. }));
    let elsewhere = Unlock { environment: Some("nowhere".into()), ..ask("why", "ada", None) };
    assert!(matches!(stage.refused(&elsewhere), Known::UnknownEnvironment { .. }));
    assert_eq!(stage.site().state, State::Locked);
    // Each refusal is in the ledger, with who it was.
    let calls = stage.events("call");
    let unlocks: Vec<_> =
        calls.iter().filter(|c| c.fields["method"] == <Unlock as guard_api::Method>::NAME).collect();
    assert_eq!(unlocks.len(), 8);
    for call in unlocks {
        assert_eq!(call.fields["outcome"], "refused");
        assert_eq!(call.fields["peer"]["uid"], rustix::process::geteuid().as_raw());
        assert_eq!(call.fields["peer"]["pid"], std::process::id());
    }
    // The default is cut to what is allowed.
    let window = stage.unlock().window;
    assert!((598..=600).contains(&((window.until.0 - window.since.0) / 1_000_000)), "{window:?}");
    assert!(matches!(stage.refused(&wish(None)), Known::AlreadyUnlocked { window: Some(_), .. }));

    // guardctl without a terminal asks nothing.
    let done = stage.guardctl(["unlock", ENV]);
    assert_eq!(done.status.code(), Some(i32::from(Exit::Usage.code())), "{}", text_of(&done));
}

#[test]
fn lock_on_a_locked_one_repairs_and_makes_no_baseline() {
    let stage = Stage::locked(SEALED);
    chmod(&stage.at("backend/app/orders.py"), 0o666);
    chmod(&stage.at("scripts"), 0o2777);
    stage.change("scripts", &[C::Mode, C::Seal]);
    stage.change("backend/app/orders.py", &[C::Mode, C::Seal]);
    let repaired = stage.lock();
    assert_eq!((repaired.generation, repaired.repaired), (1, Some(2)));
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o444);
    assert_eq!(mode(&stage.at("scripts")), 0o2555);
    assert!(stage.check().clean);
    assert_eq!(stage.call(&ListBaselines::default()).baselines.len(), 1);
    assert_eq!(stage.lock().repaired, Some(0));
    // What was changed otherwise is not taken over.
    fs::remove_file(stage.at("current")).unwrap();
    symlink("/etc", stage.at("current")).unwrap();
    stage.finding("current");
    stage.lock();
    assert!(!stage.check().clean);
    stage.unlock();
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o664);
}

#[test]
fn what_was_replaced_meanwhile_is_named_by_unlock_and_left_as_it_is() {
    let stage = Stage::locked(SEALED);
    chmod(&stage.at("backend/app"), 0o755);
    fs::write(stage.path("other"), "replacement").unwrap();
    chmod(&stage.path("other"), 0o604);
    fs::rename(stage.path("other"), stage.at("backend/app/orders.py")).unwrap();
    fs::remove_file(stage.at("backend/app/main.py")).unwrap();
    stage.finding("backend/app/main.py");
    stage.finding("backend/app/orders.py");
    let done = stage.unlock();
    let mut named: Vec<&str> = done.skipped.iter().map(|s| s.path.as_str()).collect();
    named.sort_unstable();
    assert_eq!(named, ["backend/app/main.py", "backend/app/orders.py"]);
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o604);
    assert_eq!(mode(&stage.at("backend/app")), 0o755);
    // The alerts from before the window stay, and say what became of them.
    let open = stage.open_alerts().len();
    assert!(open > 0);
    stage.lock();
    assert_eq!(stage.open_alerts().len(), open);
    assert!(stage.open_alerts()[0].notes.iter().any(|n| n.text.contains("became baseline 2")));
    assert!(stage.check().clean);
}
