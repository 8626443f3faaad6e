//! State files that somebody or something damaged: recovery or a clear message, never a crash, never "ok".

use std::fs;
use std::path::{Path, PathBuf};

use guard_api::Known;
use guard_api::method::{Check, Lock, VerifyLog};
use guard_api::wire::{Change as C, Severity, State};

use crate::stage::{ENV, PLAIN, SEALED, Stage, text_of, wish};
use crate::tree::{chmod, mode, picture};
use crate::wait;

type Damage = (&'static str, fn(&Path));

/// Ways to damage a file.
const DAMAGES: [Damage; 6] = [
    ("gone", |p| fs::remove_file(p).unwrap()),
    ("empty", |p| fs::write(p, "").unwrap()),
    ("cut in half", |p| {
        let b = fs::read(p).unwrap();
        fs::write(p, &b[..b.len() / 2]).unwrap();
    }),
    ("garbage", |p| fs::write(p, b"\0\xff\x01garbage\n\0").unwrap()),
    ("a flipped bit", |p| {
        let mut b = fs::read(p).unwrap();
        let at = b.len() / 2;
        if let Some(byte) = b.get_mut(at) {
            *byte ^= 1;
        }
        fs::write(p, b).unwrap();
    }),
    ("a directory", |p| {
        fs::remove_file(p).unwrap();
        fs::create_dir(p).unwrap();
    }),
];

/// A stage that was locked, has an alert and an acknowledgement, and was stopped.
fn lived(section: &str) -> Stage {
    let mut stage = Stage::locked(section);
    chmod(&stage.at("compose.yml"), 0o600);
    stage.finding("compose.yml");
    stage.acknowledge(stage.all_alerts()[0].id);
    stage.stop();
    stage
}

/// Starts; true where it runs and still guards its locked environment, false where it
/// said clearly why it does not run.
fn starts_or_says_why(stage: &mut Stage, what: &str) -> bool {
    let command = stage.command();
    stage.start_as(command);
    let socket = stage.socket();
    let runs = wait::until(&format!("an answer or an end, {what}"), || {
        if guard_api::Client::connect(&socket)
            .is_ok_and(|mut c| c.call(&guard_api::method::Status {}).is_ok())
        {
            return Some(true);
        }
        (!stage.is_running()).then_some(false)
    });
    if !runs {
        let status = stage.ended();
        let said = stage.last_said();
        assert!(matches!(status.code(), Some(2 | 3 | 5 | 6)), "{what}: {status}: {said}");
        assert!(said.contains("guardd: "), "{what}: no word of why: {said}");
    }
    assert!(!stage.said().contains("panicked"), "{what}: {}", stage.said());
    runs
}

/// It guards: a change is found.
fn guards(stage: &Stage, what: &str) {
    assert_eq!(stage.site().state, State::Locked, "{what}");
    let script = stage.at("scripts/deploy.sh");
    // The seal stops everybody but root.
    chmod(&script, 0o755);
    fs::write(&script, what).unwrap();
    stage.finding_that_changes("scripts/deploy.sh", C::Content);
}

#[test]
fn what_can_be_made_anew_is_made_anew() {
    for file in ["guardd.db", "heartbeat", "accepted-configuration.json", "daemon.lock", "sinks/*"] {
        wait::each(DAMAGES, |(how, damage)| {
            let what = format!("{file} {how}");
            let mut stage = lived(PLAIN);
            for path in expand(&stage, file) {
                if path.is_file() {
                    damage(&path);
                }
            }
            if !starts_or_says_why(&mut stage, &what) {
                // Only what stands where a file must be, and cannot be told from a user's own.
                assert_eq!(*how, "a directory", "{what}: {}", stage.last_said());
                return;
            }
            assert_eq!(stage.site().generation, Some(1), "{what}");
            let alerts = stage.all_alerts();
            assert_eq!(alerts.len(), 1, "{what}: {alerts:?}");
            assert_eq!(alerts[0].notes[0].text, "looked at", "{what}");
            // However little is known of the time it was down, it is a gap.
            assert!(!stage.site().watch.gaps.is_empty(), "{what}: no gap");
            guards(&stage, &what);
            assert!(stage.call(&VerifyLog {}).result.unwrap().ok, "{what}");
        });
    }
}

fn expand(stage: &Stage, file: &str) -> Vec<PathBuf> {
    match file.strip_suffix("/*") {
        Some(dir) => fs::read_dir(stage.state(dir)).unwrap().map(|e| e.unwrap().path()).collect(),
        None => vec![stage.state(file)],
    }
}

#[test]
fn damaged_records_are_made_anew_and_told() {
    for file in ["records", "SHA256SUMS"] {
        wait::each(DAMAGES, |(how, damage)| {
            let what = format!("{file} {how}");
            let mut stage = lived(SEALED);
            let path = stage.state(format!("baseline/site/1/{file}"));
            let good = fs::read(&path).unwrap();
            damage(&path);
            if file == "records" {
                assert!(starts_or_says_why(&mut stage, &what), "{what}: {}", stage.last_said());
                assert_eq!(fs::read(&path).unwrap(), good, "{what}");
                let told = |a: &guard_api::wire::Alert| {
                    a.title.contains("baseline was damaged") && a.severity == Severity::Critical
                };
                assert_eq!(stage.all_alerts().iter().filter(|a| told(a)).count(), 1, "{what}");
                assert_eq!(stage.check().findings_total, 1, "{what}");
            } else {
                let done = stage.offline(["verify", "--offline"]);
                assert_eq!(done.status.code(), Some(1), "{what}: {}", text_of(&done));
                assert!(text_of(&done).contains("SHA256SUMS"), "{what}: {}", text_of(&done));
            }
        });
    }
}

#[test]
fn a_lost_baseline_is_never_called_clean_and_never_forgotten() {
    for file in ["manifest.json", "manifest.json.sig", "records and undo.jsonl"] {
        wait::each(DAMAGES, |(how, damage)| {
            let what = format!("{file} {how}");
            let mut stage = lived(SEALED);
            for file in file.split(" and ") {
                damage(&stage.state(format!("baseline/site/1/{file}")));
            }
            assert!(starts_or_says_why(&mut stage, &what), "{what}: {}", stage.last_said());
            assert_eq!(stage.site().state, State::Locked, "{what}");
            let refused = stage.refused(&Check::default());
            assert!(
                matches!(&refused, Known::Failed { message, .. } if message.contains("baseline")),
                "{what}: {refused:?}"
            );
            assert_eq!(stage.guardctl(["check"]).status.code(), Some(5), "{what}");
            assert!(
                stage.degraded().iter().any(|d| d.contains("site") && d.contains("baseline")),
                "{what}: {:?}",
                stage.degraded()
            );
            assert!(stage.all_alerts().iter().any(|a| a.title.contains("baseline")), "{what}");
            // Restarting does not make it forget, and raises nothing twice.
            let alerts = stage.all_alerts().len();
            stage.kill();
            assert!(starts_or_says_why(&mut stage, &what));
            assert!(matches!(stage.refused(&Check::default()), Known::Failed { .. }), "{what}");
            assert_eq!(stage.all_alerts().len(), alerts, "{what}");
            // It is not locked for ever: a window, and a new baseline.
            let done = stage.unlock();
            assert_eq!(done.restored, 0, "{what}");
            assert!(done.skipped[0].why.contains("baseline is lost"), "{what}: {:?}", done.skipped);
            assert_eq!(stage.lock().generation, 2, "{what}");
            assert!(stage.check().clean, "{what}");
            assert!(
                !stage.degraded().iter().any(|d| d.contains("baseline")),
                "{what}: {:?}",
                stage.degraded()
            );
        });
    }
}

#[test]
fn a_baseline_that_goes_while_guardd_runs_is_told_and_still_given_back() {
    let is_about_it = |text: &String| text.contains("baseline") && text.contains("unlock and lock before");
    for what in ["manifest.json", "undo.jsonl", "all of it"] {
        let mut stage = Stage::new(SEALED);
        let original = picture(&stage.app());
        stage.start();
        stage.lock();
        let generation = stage.state("baseline/site/1");
        match what {
            "all of it" => fs::remove_dir_all(generation).unwrap(),
            file => fs::remove_file(generation.join(file)).unwrap(),
        }
        wait::until("its loss to be told", || stage.degraded().iter().any(is_about_it).then_some(()));
        let told = || stage.all_alerts().iter().filter(|a| a.title.contains("baseline")).count();
        wait::until("an alert", || (told() == 1).then_some(()));
        assert!(stage.check().findings.iter().all(|f| f.path.contains("baseline")), "{what}");
        stage.unlock();
        assert_eq!(picture(&stage.app()), original, "{what}");
        assert_eq!(stage.lock().generation, 2, "{what}");
        assert_eq!(told(), 1, "{what}");
        assert!(!stage.degraded().iter().any(is_about_it), "{what}: {:?}", stage.degraded());
    }
}

#[test]
fn records_that_are_damaged_while_guardd_runs_are_made_anew() {
    wait::each(DAMAGES, |(how, damage)| {
        let stage = Stage::locked(SEALED);
        damage(&stage.state("baseline/site/1/records"));
        let is_about_it = |a: &guard_api::wire::Alert| a.title.contains("baseline was damaged");
        wait::until(&format!("the repair, {how}"), || {
            stage.all_alerts().iter().any(is_about_it).then_some(())
        });
        assert!(stage.check().findings.iter().all(|f| f.path.contains("baseline")), "{how}");
        assert!(!stage.degraded().iter().any(|d| d.contains("baseline")), "{how}: {:?}", stage.degraded());
        assert!(stage.unlock().skipped.is_empty(), "{how}");
    });
}

#[test]
fn what_was_sealed_by_damaged_records_is_unsealed_exactly() {
    let mut stage = Stage::new(SEALED);
    let original = picture(&stage.app());
    stage.start();
    stage.lock();
    stage.stop();
    fs::write(stage.state("baseline/site/1/records"), "garbage").unwrap();
    stage.start();
    stage.unlock();
    assert_eq!(picture(&stage.app()), original);
    assert_eq!(stage.lock().generation, 2);
    assert!(stage.check().clean);
}

#[test]
fn a_locked_environment_stays_locked_whatever_becomes_of_its_records() {
    // What may be lost together, and what still has to be known.
    let cases = [
        &["ledger"][..],
        &["guardd.db"],
        &["locks"],
        &["ledger", "guardd.db"],
        &["ledger", "locks"],
        &["guardd.db", "locks"],
        &["ledger", "guardd.db", "locks"],
        &["ledger", "guardd.db", "locks", "heartbeat", "sinks", "accepted-configuration.json"],
    ];
    wait::each(cases, |lost| {
        let mut stage = lived(SEALED);
        for name in *lost {
            let path = stage.state(name);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
        let what = format!("{lost:?}");
        assert!(starts_or_says_why(&mut stage, &what), "{what}: {}", stage.last_said());
        let site = stage.site();
        assert_eq!((site.state, site.generation), (State::Locked, Some(1)), "{what}");
        guards(&stage, &what);
        if lost.contains(&"ledger") {
            assert!(
                stage.own_alerts().iter().any(|a| a.title.contains("ledger")),
                "{what}: {:?}",
                stage.own_alerts()
            );
        }
        let lock_file = fs::read_to_string(stage.lock_file()).unwrap();
        assert!(lock_file.contains("\"state\":\"locked\""), "{what}: {lock_file}");
        stage.kill();
        stage.start();
        assert_eq!(stage.site().state, State::Locked, "{what}, after another start");
        stage.unlock();
        assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o664, "{what}");
    });
}

#[test]
fn an_open_window_of_which_no_record_is_left_is_closed() {
    let mut stage = Stage::locked(SEALED);
    stage.unlock();
    fs::write(stage.at("backend/app/main.py"), "in the window").unwrap();
    stage.stop();
    fs::remove_dir_all(stage.state("ledger")).unwrap();
    fs::remove_file(stage.state("guardd.db")).unwrap();
    stage.start();
    let site = stage.site();
    assert_eq!((site.state, site.generation), (State::Locked, Some(2)));
    let alert = wait::until("the alert", || stage.all_alerts().pop());
    assert!(alert.title.contains("unreviewed window changes"), "{}", alert.title);
    assert_eq!(alert.findings[0].path, "backend/app/main.py");
}

#[test]
fn a_damaged_plan_is_told_and_nothing_is_done_by_it() {
    wait::each(DAMAGES, |(how, damage)| {
        let mut stage = Stage::locked(SEALED);
        stage.stop();
        let plan = stage.state("plans/site.jsonl");
        fs::write(&plan, "{\"environment\":\"site\"}\n").unwrap();
        damage(&plan);
        assert!(starts_or_says_why(&mut stage, how));
        if *how == "gone" {
            assert_eq!(stage.site().state, State::Locked);
            return;
        }
        let site = stage.site();
        assert_eq!(site.state, State::NeedsOperator, "{how}");
        assert!(
            stage.degraded().iter().any(|d| d.contains("plans/site.jsonl")),
            "{how}: {:?}",
            stage.degraded()
        );
        assert!(matches!(stage.refused(&wish(None)), Known::NeedsOperator { .. }), "{how}");
        let done = stage.guardctl(["unlock", "--reason", "x", "--maintainer", "y"]);
        assert_eq!(done.status.code(), Some(6), "{how}: {}", text_of(&done));
        // It goes on guarding.
        chmod(&stage.at("compose.yml"), 0o644);
        stage.change("compose.yml", &[C::Mode, C::Seal]);
        // The operator looks, and takes it away.
        stage.stop();
        if plan.is_dir() {
            fs::remove_dir(&plan).unwrap()
        } else {
            fs::remove_file(&plan).unwrap()
        }
        stage.start();
        assert_eq!(stage.site().state, State::Locked, "{how}");
        stage.unlock();
    });
}

#[test]
fn a_host_key_that_is_gone_is_made_anew_and_told() {
    let mut stage = lived(PLAIN);
    fs::remove_file(stage.state("keys/host")).unwrap();
    assert!(starts_or_says_why(&mut stage, "no key"));
    assert!(stage.own_alerts().iter().any(|a| a.title.contains("host key")), "{:?}", stage.own_alerts());
    // What the old one signed cannot be believed: that is said, and nothing is clean.
    assert!(!matches!(stage.try_call(&Check::default()), Ok(s) if s.result.as_ref().unwrap().clean));
    assert!(stage.degraded().iter().any(|d| d.contains("site")), "{:?}", stage.degraded());
    let verified = stage.call(&VerifyLog {}).result.unwrap();
    assert!(!verified.ok, "{verified:?}");
}

#[test]
fn a_damaged_host_key_ends_the_start_with_the_reason() {
    let damages = DAMAGES.into_iter().filter(|(how, _)| !["gone", "a flipped bit"].contains(how));
    wait::each(damages, |(how, damage)| {
        let mut stage = lived(PLAIN);
        let key = stage.state("keys/host");
        let good = fs::read(&key).unwrap();
        damage(&key);
        assert!(!starts_or_says_why(&mut stage, how), "{how}: it runs with a key that is none");
        assert!(stage.last_said().contains("keys/host"), "{how}: {}", stage.last_said());
        if key.is_dir() {
            fs::remove_dir(&key).unwrap();
        }
        fs::write(&key, good).unwrap();
        stage.start();
        guards(&stage, how);
    });
}

#[test]
fn damaged_public_files_are_put_right_and_told() {
    for file in ["host.pub", "allowed_signers"] {
        wait::each(DAMAGES, |(how, damage)| {
            let mut stage = lived(PLAIN);
            let path = stage.state("public").join(file);
            let good = fs::read(&path).unwrap();
            damage(&path);
            assert!(starts_or_says_why(&mut stage, how), "{file} {how}: {}", stage.last_said());
            assert_eq!(fs::read(&path).unwrap(), good, "{file} {how}");
            assert!(
                stage.own_alerts().iter().any(|a| a.title.contains(file)),
                "{file} {how}: {:?}",
                stage.own_alerts()
            );
            guards(&stage, how);
        });
    }
}

#[test]
fn damaged_ledgers_are_told_and_the_guard_goes_on() {
    wait::each(DAMAGES, |(how, damage)| {
        let mut stage = lived(PLAIN);
        let ledger = fs::read_dir(stage.state("ledger")).unwrap().next().unwrap().unwrap().path();
        damage(&ledger);
        assert!(starts_or_says_why(&mut stage, how), "{how}: {}", stage.last_said());
        assert!(
            stage.own_alerts().iter().any(|a| a.title.contains("ledger")),
            "{how}: {:?}",
            stage.own_alerts()
        );
        guards(&stage, how);
        assert!(!stage.call(&VerifyLog {}).result.unwrap().ok, "{how}");
        stage.stop();
        // The next start has nothing new to say of it.
        let count = {
            stage.start();
            stage.own_alerts().len()
        };
        stage.stop();
        stage.start();
        assert_eq!(stage.own_alerts().len(), count, "{how}");
    });
}

#[test]
fn everything_but_the_tree_gone_is_a_new_beginning_that_says_so() {
    let mut stage = lived(SEALED);
    for entry in fs::read_dir(stage.path("state")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    assert!(starts_or_says_why(&mut stage, "no state"));
    let site = stage.site();
    assert_eq!((site.state, site.generation), (State::Unlocked, None));
    assert!(matches!(stage.refused(&Check::default()), Known::NoBaseline { .. }));
    stage.call(&Lock::default());
    assert!(stage.check().clean);
    assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o444);
}

#[test]
fn a_heartbeat_from_the_future_or_the_past_makes_a_sensible_gap() {
    for at in [0, 4_000_000_000_u64] {
        let mut stage = lived(PLAIN);
        let file = fs::File::options().write(true).open(stage.state("heartbeat")).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(at)).unwrap();
        let before = now_us();
        stage.start();
        let gap = stage.site().watch.gaps.into_iter().next_back().unwrap();
        assert!(gap.since.0 <= now_us(), "a gap that begins in the future: {gap:?}");
        assert!(gap.since.0 <= before, "{gap:?}");
        guards(&stage, "a heartbeat");
        assert_eq!(stage.site().name, ENV);
    }
}

fn now_us() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_micros()).unwrap()
}
