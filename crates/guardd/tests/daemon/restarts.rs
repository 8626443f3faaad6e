//! Stops, starts, and what happened between them.

use std::fs;
use std::time::Instant;

use guard_api::method::{Lock, VerifyLog};
use guard_api::wire::{AlertStatus, Change as C, GapCause, State};

use crate::stage::{PLAIN, SEALED, Stage, wish};
use crate::tree::{chmod, mode, picture, write};
use crate::wait;

/// Ends the daemon, in order or not.
fn end(stage: &mut Stage, clean: bool) {
    if clean { stage.stop() } else { stage.kill() }
}

#[test]
fn changes_made_while_it_was_down_are_reported_once() {
    for clean in [true, false] {
        let mut stage = Stage::locked(PLAIN);
        end(&mut stage, clean);
        let before = fs::metadata(stage.at("backend/app/main.py")).unwrap().modified().unwrap();
        fs::write(stage.at("backend/app/main.py"), "print('HELLO')\n").unwrap();
        let file = fs::File::options().write(true).open(stage.at("backend/app/main.py")).unwrap();
        file.set_modified(before).unwrap();
        fs::remove_file(stage.at("compose.yml")).unwrap();
        write(&stage.at("scripts/new/payload"), "x");
        chmod(&stage.at("backend"), 0o777);
        fs::write(stage.at("logs/access.log"), "GET /\n").unwrap();
        stage.start();
        stage.change("backend/app/main.py", &[C::Content]);
        for path in ["compose.yml", "scripts/new", "scripts/new/payload", "backend"] {
            stage.finding(path);
        }
        wait::until_true("the end of the gap", || stage.site().watch.gaps.iter().all(|g| g.until.is_some()));
        assert_eq!(stage.findings().len(), 5, "{:?}", stage.found_paths());
        assert_eq!(stage.all_alerts().len(), 1);

        // The next starts have nothing to add.
        for clean in [false, true] {
            end(&mut stage, clean);
            stage.start();
            let rehashed = stage.events("rehash_finished").len();
            wait::until_true("a rehash", || stage.events("rehash_finished").len() > rehashed);
            assert_eq!(stage.findings().len(), 5, "{:?}", stage.found_paths());
        }
        assert!(stage.call(&VerifyLog {}).result.unwrap().ok);
    }
}

#[test]
fn the_time_it_was_down_is_a_gap_until_everything_was_read() {
    for clean in [true, false] {
        let mut stage = Stage::locked(PLAIN);
        let locked_at = stage.site().since.unwrap();
        end(&mut stage, clean);
        stage.start();
        let gap = stage.site().watch.gaps.into_iter().next_back().unwrap();
        assert_eq!(gap.cause, GapCause::Down);
        assert!(gap.since.0 >= locked_at.0 - 6_000_000, "{gap:?}");
        let closed = wait::until("the end of the gap", || {
            stage.site().watch.gaps.into_iter().find(|g| g.id == gap.id && g.until.is_some())
        });
        assert_eq!(closed.verified.as_deref(), Some("content of every protected file"));
        let opened = stage.events("gap_opened");
        assert_eq!(opened.len(), 1);
        assert!(stage.events("rehash_finished").last().unwrap().seq < stage.events("gap_closed")[0].seq);
        let start = stage.events("daemon_started").pop().unwrap();
        assert_eq!(start.fields["after_clean_stop"], clean);
        assert_eq!(stage.events("daemon_stopped").len(), usize::from(clean));
    }
}

#[test]
fn a_start_before_any_lock_makes_no_gap_and_no_alert() {
    let mut stage = Stage::new(PLAIN);
    stage.start();
    fs::write(stage.at("compose.yml"), "x").unwrap();
    stage.kill();
    stage.start();
    let site = stage.site();
    assert_eq!((site.state, site.generation, site.watch.gaps.len()), (State::Unlocked, None, 0));
    assert_eq!(stage.all_alerts(), []);
}

#[test]
fn alerts_keep_their_standing_across_restarts() {
    let mut stage = Stage::locked(PLAIN);
    chmod(&stage.at("compose.yml"), 0o600);
    let first = stage.change("compose.yml", &[C::Mode]);
    let id = stage.all_alerts()[0].id;
    stage.acknowledge(id);
    for clean in [true, false] {
        end(&mut stage, clean);
        stage.start();
        let alerts = stage.all_alerts();
        assert_eq!((alerts.len(), alerts[0].id, alerts[0].status), (1, id, AlertStatus::Acknowledged));
        assert_eq!(alerts[0].findings, std::slice::from_ref(&first));
        assert_eq!(alerts[0].notes[0].text, "looked at");
    }
    // It goes on to differ otherwise: that is new.
    fs::write(stage.at("compose.yml"), "x").unwrap();
    wait::until_true("a second finding", || stage.findings().len() == 2);
    // What is put right while it is down is settled.
    stage.stop();
    chmod(&stage.at("compose.yml"), 0o644);
    fs::write(stage.at("compose.yml"), "services: {}\n").unwrap();
    stage.start();
    wait::until_true("the content's settling", || {
        // The time of the last change still differs, which is a finding of its own.
        stage.findings().last().unwrap().change == [C::Mtime]
    });
}

#[test]
fn locked_and_unlocked_are_kept_with_their_reasons() {
    let mut stage = Stage::locked(SEALED);
    let before = stage.site();
    for clean in [true, false] {
        end(&mut stage, clean);
        stage.start();
        let now = stage.site();
        assert_eq!(
            (now.state, now.since, &now.by, &now.reason),
            (before.state, before.since, &before.by, &before.reason)
        );
        assert_eq!((now.generation, now.protected), (before.generation, before.protected));
        assert_eq!(mode(&stage.at("backend/app/orders.py")), 0o444);
    }
    assert!(stage.check().clean);
    assert_eq!(stage.all_alerts(), []);
}

#[test]
fn a_restart_renews_watches_of_what_came_and_went() {
    let mut stage = Stage::locked(PLAIN);
    stage.stop();
    fs::rename(stage.at("backend"), stage.at("moved")).unwrap();
    stage.start();
    stage.finding("moved/app/main.py");
    stage.finding("backend/app/main.py");
    write(&stage.at("moved/app/later"), "x");
    stage.finding("moved/app/later");
}

#[test]
fn everything_is_sealed_or_nothing_whenever_it_is_killed() {
    let mut stage = Stage::new(SEALED);
    for n in 0..150 {
        write(&stage.at(format!("vendor/p{}/f{n}.js", n % 15)), format!("{n}"));
        chmod(&stage.at(format!("vendor/p{}/f{n}.js", n % 15)), [0o644, 0o664, 0o755, 0o2755][n % 4]);
    }
    killed_at_random(&mut stage, 16);
}

#[test]
fn everything_is_sealed_or_nothing_in_a_bigger_tree_too() {
    let mut stage = Stage::new(SEALED);
    for n in 0..3000 {
        write(&stage.at(format!("vendor/p{}/f{n}.js", n % 100)), format!("{n}"));
    }
    killed_at_random(&mut stage, 8);
}

/// Kills the daemon while it locks or unlocks, again and again. The moments are spread evenly over
/// the time that each takes when it is left alone, and a little more.
fn killed_at_random(stage: &mut Stage, times: u32) {
    let original = picture(&stage.app());
    stage.start();
    let clock = Instant::now();
    stage.lock();
    let a_lock = clock.elapsed();
    let sealed = picture(&stage.app());
    let clock = Instant::now();
    stage.unlock();
    let an_unlock = clock.elapsed();
    let (mut undone, mut finished) = (0, 0);
    for n in 0..times {
        let locking = n % 2 == 0;
        match (locking, stage.site().state) {
            (true, State::Locked) => drop(stage.unlock()),
            (false, State::Unlocked) => drop(stage.lock()),
            _ => {}
        }
        let mut client = stage.client();
        let call = std::thread::spawn(move || {
            // It is killed before it answers, or just after.
            match locking {
                true => drop(client.call(&Lock::default())),
                false => drop(client.call(&wish(None))),
            }
        });
        let whole = if locking { a_lock } else { an_unlock };
        let moment = whole * 14 / 10 * n / times;
        // The moment is what is tried here, not something that is waited for.
        std::thread::sleep(moment);
        stage.kill();
        call.join().unwrap();
        stage.start();
        let site = stage.site();
        let now = picture(&stage.app());
        match site.state {
            State::Locked => assert!(now == sealed, "after kill {n} it says locked and is not all sealed"),
            State::Unlocked => {
                assert!(now == original, "after kill {n} it says unlocked and is not all open")
            }
            other => panic!("after kill {n} it is {other:?}: {:?}", stage.degraded()),
        }
        match (site.state == State::Locked) == locking {
            true => finished += 1,
            false => undone += 1,
        }
        let what = if locking { "lock" } else { "unlock" };
        assert_eq!(stage.all_alerts(), [], "after kill {n}, {moment:?} into a {what} of {whole:?}");
        assert!(stage.call(&VerifyLog {}).result.unwrap().ok, "after kill {n}");
        assert!(!stage.state("plans/site.jsonl").exists(), "after kill {n} a plan is left");
    }
    eprintln!("{undone} undone, {finished} finished");
    assert!(stage.check().clean || stage.site().state == State::Unlocked);
    if stage.site().state == State::Locked {
        stage.unlock();
    }
    assert_eq!(picture(&stage.app()), original);
}
