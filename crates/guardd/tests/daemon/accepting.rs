//! Accept, acknowledge, diff, check and who.

use std::fs;
use std::os::unix::fs::symlink;

use guard_api::method::{AcknowledgeAlert, Check, Diff, ListBaselines, ShowAlert, Unlock, Who};
use guard_api::wire::{AlertStatus, Change as C, State};
use guard_api::{Exit, Known};

use crate::stage::{ENV, PLAIN, SEALED, Stage, acceptance, text_of, wish};
use crate::tree::{chmod, mode, write};
use crate::wait;

#[test]
fn one_path_is_accepted_and_the_rest_stays_a_finding() {
    let stage = Stage::locked(PLAIN);
    fs::write(stage.at("compose.yml"), "services: {web: {}}\n").unwrap();
    fs::write(stage.at("scripts/deploy.sh"), "#!/bin/sh\nevil\n").unwrap();
    stage.finding("compose.yml");
    stage.finding("scripts/deploy.sh");
    let done = stage.accept(&["compose.yml"]);
    assert_eq!((done.generation, done.accepted), (2, vec!["compose.yml".to_owned()]));
    let left: Vec<String> = stage.check().findings.into_iter().map(|f| f.path).collect();
    assert_eq!(left, ["scripts/deploy.sh"]);
    let alert = stage.all_alerts().remove(0);
    assert_eq!(alert.settled, ["compose.yml"]);
    assert_eq!(alert.status, AlertStatus::Open);
    assert!(alert.notes.iter().any(|n| n.text.contains("accepted as baseline 2")), "{:?}", alert.notes);
    stage.accept(&["scripts/deploy.sh"]);
    assert_eq!(stage.all_alerts()[0].status, AlertStatus::Resolved);
    assert!(stage.check().clean);
    let record = stage.events("accepted").remove(0);
    assert_eq!(
        (&record.fields["reason"], &record.fields["paths"][0]),
        (&"meant so".into(), &"compose.yml".into())
    );
    let current = stage.call(&ListBaselines::default()).baselines;
    assert_eq!(
        current.iter().map(|b| (b.generation, b.current)).collect::<Vec<_>>(),
        [(1, false), (2, false), (3, true)]
    );
}

#[test]
fn a_directory_stands_for_everything_below_it() {
    let stage = Stage::locked(PLAIN);
    write(&stage.at("backend/app/new/deep/module.py"), "x");
    fs::remove_file(stage.at("backend/app/orders.py")).unwrap();
    fs::write(stage.at("backend/app/main.py"), "y").unwrap();
    fs::write(stage.at("compose.yml"), "z").unwrap();
    for path in
        ["backend/app/new/deep/module.py", "backend/app/orders.py", "backend/app/main.py", "compose.yml"]
    {
        stage.finding(path);
    }
    let mut accepted = stage.accept(&["backend/app/"]).accepted;
    accepted.sort();
    assert_eq!(
        accepted,
        [
            "backend/app/main.py",
            "backend/app/new",
            "backend/app/new/deep",
            "backend/app/new/deep/module.py",
            "backend/app/orders.py"
        ]
    );
    assert_eq!(stage.check().findings_total, 1);
    // What was accepted is guarded from now on.
    fs::write(stage.at("backend/app/new/deep/module.py"), "changed").unwrap();
    stage.finding_that_changes("backend/app/new/deep/module.py", C::Content);
    fs::write(stage.at("backend/app/orders.py"), "back again").unwrap();
    stage.finding_that_changes("backend/app/orders.py", C::Created);
}

#[test]
fn a_new_directory_that_goes_on_filling_can_be_accepted() {
    let stage = Stage::locked(PLAIN);
    fs::create_dir(stage.at("backend/new")).unwrap();
    stage.finding("backend/new");
    // Its link count and time are others than when it was seen.
    write(&stage.at("backend/new/deep/module.py"), "x");
    stage.finding("backend/new/deep/module.py");
    assert!(stage.accept(&["backend/new"]).accepted.contains(&"backend/new/deep/module.py".to_owned()));
    assert!(stage.check().clean);
}

#[test]
fn additions_deletions_types_and_links_can_be_accepted() {
    let stage = Stage::locked(PLAIN);
    fs::write(stage.at("added"), "x").unwrap();
    fs::remove_file(stage.at("scripts/deploy.sh")).unwrap();
    fs::remove_file(stage.at("current")).unwrap();
    symlink("scripts", stage.at("current")).unwrap();
    fs::remove_file(stage.at("compose.yml")).unwrap();
    fs::create_dir(stage.at("compose.yml")).unwrap();
    chmod(&stage.at("backend"), 0o700);
    for path in ["added", "scripts/deploy.sh", "current", "compose.yml", "backend"] {
        stage.finding(path);
    }
    wait::until_true("the link's last state", || {
        stage.findings().iter().rfind(|f| f.path == "current").unwrap().after.is_some()
    });
    wait::until_true("the directory's last state", || {
        stage.findings().iter().rfind(|f| f.path == "compose.yml").unwrap().change.contains(&C::Type)
    });
    stage.accept(&["."]);
    let check = stage.check();
    assert!(check.clean, "{:?}", check.findings);
    assert_eq!(stage.open_alerts().len(), 0);
}

#[test]
fn what_changed_again_since_it_was_shown_is_refused_and_nothing_is_accepted() {
    let mut stage = Stage::locked(PLAIN);
    fs::write(stage.at("compose.yml"), "first").unwrap();
    fs::write(stage.at("scripts/deploy.sh"), "shown").unwrap();
    stage.finding("compose.yml");
    stage.finding("scripts/deploy.sh");
    // Nobody tells a daemon that is stopped of the second change; the alert shows the first.
    stage.kill();
    let before = fs::metadata(stage.at("compose.yml")).unwrap();
    fs::write(stage.at("compose.yml"), "other").unwrap();
    fs::File::options()
        .write(true)
        .open(stage.at("compose.yml"))
        .unwrap()
        .set_modified(before.modified().unwrap())
        .unwrap();
    stage.start();
    let refused = stage.try_accept(&["compose.yml", "scripts/deploy.sh"]);
    match refused {
        // The start's sweep may have seen it before: then the alert shows it, and what is accepted is what is there.
        Ok(_) => assert_eq!(stage.findings().iter().filter(|f| f.path == "compose.yml").count(), 2),
        Err(e) => {
            assert!(e.to_string().contains("changed since reported"), "{e}");
            assert_eq!(e.exit(), Exit::Refused);
            assert_eq!(stage.site().generation, Some(1));
        }
    }
}

#[test]
fn a_file_that_goes_on_changing_is_never_accepted_torn() {
    let stage = Stage::locked(PLAIN);
    let path = stage.at("compose.yml");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (stopped, name) = (std::sync::Arc::clone(&stop), path.clone());
    let writer = std::thread::spawn(move || {
        let mut n = 0_u64;
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            fs::write(&name, format!("{n} {n} {n} {n}\n").repeat(500)).unwrap();
            n += 1;
        }
    });
    stage.finding("compose.yml");
    // Accepted it may be whenever the writer was not given the processor meanwhile.
    wait::until_true("a refusal", || match stage.try_accept(&["compose.yml"]) {
        Err(e) => {
            assert_eq!(e.exit(), Exit::Refused, "{e}");
            true
        }
        Ok(_) => false,
    });
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.join().unwrap();
    wait::until_true("what stands there being accepted", || {
        stage.check().clean || stage.try_accept(&["compose.yml"]).is_ok()
    });
    wait::until_true("agreement", || stage.check().clean);
}

#[test]
fn unlock_after_an_acceptance_gives_back_the_right_modes() {
    let mut stage = Stage::locked(SEALED);
    // Content changed under the seal by somebody whom modes do not stop.
    chmod(&stage.at("backend/app/orders.py"), 0o664);
    fs::write(stage.at("backend/app/orders.py"), "def charge(): steal()\n").unwrap();
    chmod(&stage.at("backend/app/orders.py"), 0o444);
    // A new file, which acceptance seals; and one whose mode was changed for good.
    chmod(&stage.at("scripts"), 0o2775);
    fs::write(stage.at("scripts/new.sh"), "#!/bin/sh\n").unwrap();
    chmod(&stage.at("scripts/new.sh"), 0o775);
    chmod(&stage.at("scripts"), 0o2555);
    chmod(&stage.at("compose.yml"), 0o400);
    for path in ["backend/app/orders.py", "scripts/new.sh", "compose.yml"] {
        stage.finding(path);
    }
    wait::until_true("the right things being shown", || {
        let last = |path: &str| stage.findings().into_iter().rfind(|f| f.path == path).unwrap();
        !last("backend/app/orders.py").change.contains(&C::Mode)
            && last("scripts/new.sh").after.is_some_and(|e| e.mode == "0775")
    });
    stage.accept(&["backend/app/orders.py", "scripts/new.sh", "compose.yml"]);
    let check = stage.check();
    assert!(check.clean, "{:?}", check.findings);
    assert_eq!(mode(&stage.at("scripts/new.sh")), 0o555);
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o444);
    stage.kill();
    stage.start();
    let done = stage.unlock();
    assert!(done.skipped.is_empty(), "{:?}", done.skipped);
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o664);
    assert_eq!(mode(&stage.at("scripts/new.sh")), 0o775);
    assert_eq!(mode(&stage.at("compose.yml")), 0o400);
    assert_eq!(mode(&stage.at("scripts")), 0o2775);
}

#[test]
fn acceptance_killed_at_any_moment_leaves_no_half() {
    let mut stage = Stage::new(SEALED);
    for n in 0..60 {
        write(&stage.at(format!("vendor/f{n}")), "x");
    }
    stage.start();
    stage.lock();
    for n in 0..8_u32 {
        chmod(&stage.at("vendor"), 0o755);
        for m in 0..20 {
            fs::write(stage.at(format!("vendor/new-{n}-{m}")), "y").unwrap();
            chmod(&stage.at(format!("vendor/new-{n}-{m}")), 0o664);
        }
        chmod(&stage.at("vendor"), 0o555);
        for m in 0..20 {
            stage.finding(&format!("vendor/new-{n}-{m}"));
        }
        wait::until_true("a calm tree", || stage.check().findings.iter().all(|f| f.path.contains("/new-")));
        let generation = stage.site().generation;
        let mut client = stage.client();
        let call = std::thread::spawn(move || drop(client.call(&acceptance(&["vendor/"]))));
        // The moment is what is tried here, not something that is waited for.
        std::thread::sleep(std::time::Duration::from_millis(u64::from(n) * 8));
        stage.kill();
        call.join().unwrap();
        stage.start();
        let accepted = stage.site().generation != generation;
        let check = stage.check();
        if accepted {
            assert!(check.clean, "kill {n}: {:?}", check.findings);
        } else {
            assert_eq!(check.findings_total, 20, "kill {n}: {:?}", check.findings);
            for f in &check.findings {
                assert_eq!(f.change, [C::Created]);
                assert_eq!(f.after.as_ref().unwrap().mode, "0664", "kill {n}: {} keeps a seal", f.path);
            }
            stage.accept(&["vendor/"]);
        }
        let lock_file = |f: &guard_api::wire::Finding| f.change.contains(&C::LockFile);
        assert!(
            !stage.findings().iter().any(lock_file),
            "kill {n}: its own lock file is called tampered with"
        );
        assert_eq!(stage.site().state, State::Locked);
    }
}

#[test]
fn accept_is_refused_with_its_reason() {
    let stage = Stage::locked(PLAIN);
    let nothing = stage.refused(&acceptance(&["compose.yml"]));
    assert!(
        matches!(&nothing, Known::Refused { message, .. } if message.contains("compose.yml")),
        "{nothing:?}"
    );
    fs::write(stage.at("compose.yml"), "x").unwrap();
    stage.finding("compose.yml");
    assert!(matches!(stage.refused(&acceptance(&["compose.yml", "backend"])), Known::Refused { .. }));
    assert!(matches!(
        stage.refused(&acceptance(&[])),
        Known::Refused { .. } | Known::InvalidParameter { .. }
    ));
    for bad in ["../etc/passwd", "a//b", "a/../b", "", "/", "//", "\\xzz", "a/."] {
        let refused = stage.refused(&acceptance(&[bad]));
        assert!(
            matches!(&refused, Known::InvalidParameter { .. } | Known::Refused { .. }),
            "{bad}: {refused:?}"
        );
    }
    let mut no_reason = acceptance(&["compose.yml"]);
    no_reason.reason = "  ".into();
    assert_eq!(stage.refused(&no_reason), Known::ReasonRequired {});
    assert_eq!(stage.site().generation, Some(1));
    stage.unlock();
    assert!(matches!(stage.refused(&acceptance(&["compose.yml"])), Known::NotLocked { .. }));
    let done = stage.guardctl(["accept", ENV, "compose.yml", "--reason", "x"]);
    assert_eq!(done.status.code(), Some(3), "{}", text_of(&done));
}

#[test]
fn alerts_are_shown_and_acknowledged() {
    let stage = Stage::locked(PLAIN);
    chmod(&stage.at("compose.yml"), 0o600);
    stage.finding("compose.yml");
    let id = stage.open_alerts()[0].id;
    assert_eq!(stage.refused(&ShowAlert { id: 999_999 }), Known::UnknownAlert { id: 999_999 });
    assert_eq!(
        stage.refused(&AcknowledgeAlert { id: 999_999, note: "x".into() }),
        Known::UnknownAlert { id: 999_999 }
    );
    assert!(matches!(
        stage.refused(&AcknowledgeAlert { id, note: " ".into() }),
        Known::InvalidParameter { .. } | Known::ReasonRequired {}
    ));
    let shown = stage.call(&ShowAlert { id }).alert;
    assert_eq!((shown.id, shown.findings_total, shown.status), (id, 1, AlertStatus::Open));
    let text = text_of(&stage.guardctl(["alerts", "show", &id.to_string()]));
    for word in ["compose.yml", "0644", "0600"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    let acknowledged = stage.acknowledge(id);
    assert_eq!(acknowledged.status, AlertStatus::Acknowledged);
    assert_eq!(stage.site().alerts_open, 0);
    // Acknowledged is not accepted.
    assert!(!stage.check().clean);
}

#[test]
fn check_and_diff_tell_what_differs_now() {
    let stage = Stage::locked(PLAIN);
    let check = stage.check();
    assert!(check.clean && check.files >= 6 && check.bytes > 0, "{check:?}");
    let code = |args: &[&str]| stage.guardctl(args).status.code();
    assert_eq!(code(&["check"]), Some(0));
    assert_eq!(code(&["diff"]), Some(0));
    fs::write(stage.at("backend/app/main.py"), "x").unwrap();
    chmod(&stage.at("scripts"), 0o2700);
    let quick = stage.call(&Check { quick: Some(true), ..Check::default() }).result.unwrap();
    assert!(quick.quick && !quick.clean);
    assert_eq!(
        quick.findings.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
        ["backend/app/main.py", "scripts"]
    );
    let full = stage.check();
    assert_eq!(full.findings_total, 2);
    assert!(full.bytes > quick.bytes);
    let below = |path: &str| {
        let diff = stage.call(&Diff { path: Some(path.into()), ..Diff::default() }).result.unwrap();
        diff.findings.into_iter().map(|f| f.path).collect::<Vec<_>>()
    };
    assert_eq!(below("backend"), ["backend/app/main.py"]);
    assert_eq!(below("backend/app/main.py"), ["backend/app/main.py"]);
    assert_eq!(below("scripts/"), ["scripts"]);
    assert_eq!(below("media"), [""; 0]);
    let nowhere = Diff { path: Some("not/there".into()), ..Diff::default() };
    assert!(matches!(stage.refused(&nowhere), Known::Refused { .. }), "nothing was compared there");
    assert!(matches!(
        stage.refused(&Diff { path: Some("../x".into()), ..Diff::default() }),
        Known::InvalidParameter { .. }
    ));
    assert_eq!(code(&["check"]), Some(1));
    assert_eq!(code(&["check", "--quick"]), Some(1));
    assert_eq!(code(&["diff"]), Some(1));
    assert_eq!(code(&["diff", ENV, "media"]), Some(0));
}

#[test]
fn a_check_finds_what_only_reading_tells_and_raises_it() {
    let stage = Stage::locked(&format!("{PLAIN}\n"));
    // Through a link from elsewhere, times put back: ctime alone betrays it.
    fs::write(stage.at("backend/app/main.py"), "print('HELLO')\n").unwrap();
    stage.finding("backend/app/main.py");
    assert_eq!(stage.check().findings.len(), 1);
    assert_eq!(stage.findings().len(), 1);
}

#[test]
fn nothing_can_be_checked_before_the_first_lock() {
    let mut stage = Stage::new(PLAIN);
    stage.start();
    assert!(matches!(stage.refused(&Check::default()), Known::NoBaseline { generation: None, .. }));
    assert!(matches!(stage.refused(&Diff::default()), Known::NoBaseline { .. }));
    assert!(matches!(
        stage.refused(&Unlock { environment: Some("x".into()), ..wish(None) }),
        Known::UnknownEnvironment { .. }
    ));
    assert_eq!(stage.guardctl(["check"]).status.code(), Some(3));
}

#[test]
fn who_tells_the_history_of_a_path() {
    let stage = Stage::locked(PLAIN);
    let who = |path: &str| stage.call(&Who { environment: None, path: path.into() });
    assert_eq!(who("compose.yml").history.len(), 0);
    assert_eq!(who("compose.yml").expected.unwrap().mode, "0644");
    assert!(who("not/there").expected.is_none());
    chmod(&stage.at("compose.yml"), 0o600);
    stage.finding("compose.yml");
    stage.accept(&["compose.yml"]);
    stage.unlock();
    fs::write(stage.at("compose.yml"), "in the window").unwrap();
    wait::until_true("the window's change", || !stage.events("window_change").is_empty());
    let events: Vec<String> = who("compose.yml").history.into_iter().map(|e| e.event).collect();
    assert_eq!(events, ["alert_opened", "accepted", "alert_settled", "window_change"]);
    assert_eq!(who("./compose.yml").history.len(), 4);
    assert!(matches!(
        stage.refused(&Who { environment: None, path: "a/../b".into() }),
        Known::InvalidParameter { .. }
    ));
}
