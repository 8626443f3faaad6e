//! The lock file: for everybody to verify, for nobody to touch.

use std::fs;
use std::process::Command;

use guard_api::wire::{Change as C, Finding, Severity, State};
use serde_json::Value;

use crate::stage::{ENV, PLAIN, SEALED, Stage, run_with_input, text_of};
use crate::tree::{is_root, mode};
use crate::wait;

/// Verifies as the documentation says; as nobody where that can be tried.
fn verifies(stage: &Stage) -> bool {
    let text = fs::read_to_string(stage.lock_file()).unwrap();
    let end = text.find('\n').unwrap() + 1;
    fs::write(stage.path("signature"), &text[end..]).unwrap();
    let mut command = match is_root() {
        true => {
            let mut c = Command::new("setpriv");
            c.args(["--reuid=65534", "--regid=65534", "--clear-groups", "ssh-keygen"]);
            c
        }
        false => Command::new("ssh-keygen"),
    };
    command.args(["-Y", "verify", "-I", "guardd", "-n", "guardd-lock", "-f"]);
    command.arg(stage.state("public/allowed_signers")).arg("-s").arg(stage.path("signature"));
    let done = run_with_input(&mut command, &text.as_bytes()[..end]);
    if !done.status.success() {
        eprintln!("{}", text_of(&done));
    }
    done.status.success()
}

fn said(stage: &Stage) -> Value {
    let text = fs::read_to_string(stage.lock_file()).unwrap();
    serde_json::from_str(text.lines().next().unwrap()).unwrap()
}

/// What it says, with the ledger's head as it is told by now.
fn expected(stage: &Stage, good: &Value) -> Value {
    let mut expected = good.clone();
    expected["ledger"] = said(stage)["ledger"].clone();
    expected
}

fn lock_file_findings(stage: &Stage) -> Vec<Finding> {
    stage.findings().into_iter().filter(|f| f.change.contains(&C::LockFile)).collect()
}

#[test]
fn anybody_can_verify_what_it_says() {
    let stage = Stage::locked(SEALED);
    assert_eq!(mode(&stage.lock_file()), 0o644);
    assert!(verifies(&stage));
    let text = said(&stage);
    assert_eq!(
        (&text["environment"], &text["state"], &text["generation"]),
        (&ENV.into(), &"locked".into(), &1.into())
    );
    assert_eq!(text["root"], stage.app().to_str().unwrap());
    assert_eq!(text["reason"], "test");
    stage.unlock();
    assert!(verifies(&stage));
    assert_eq!(said(&stage)["state"], "unlocked");
    stage.lock();
    assert!(verifies(&stage));
    assert_eq!(said(&stage)["generation"], 2);
    let altered = fs::read_to_string(stage.lock_file()).unwrap().replacen("locked", "unlocked", 1);
    fs::write(stage.path("altered"), altered).unwrap();
    fs::copy(stage.path("altered"), stage.lock_file()).unwrap();
    assert!(!verifies(&stage));
}

#[test]
fn whatever_is_done_to_it_is_a_critical_alert_and_put_right() {
    let stage = Stage::locked(PLAIN);
    let older = fs::read(stage.lock_file()).unwrap();
    stage.unlock();
    let unlocked = fs::read(stage.lock_file()).unwrap();
    stage.lock();
    let good = said(&stage);
    let acts: [(&str, &dyn Fn()); 7] = [
        ("edited", &|| {
            let text = fs::read_to_string(stage.lock_file()).unwrap();
            fs::write(stage.lock_file(), text.replacen("\"locked\"", "\"unlocked\"", 1)).unwrap();
        }),
        ("removed", &|| fs::remove_file(stage.lock_file()).unwrap()),
        ("emptied", &|| fs::write(stage.lock_file(), "").unwrap()),
        ("replaced by an older one", &|| fs::write(stage.lock_file(), &older).unwrap()),
        ("replaced by one that says unlocked", &|| fs::write(stage.lock_file(), &unlocked).unwrap()),
        ("replaced by a directory", &|| {
            fs::remove_file(stage.lock_file()).unwrap();
            fs::create_dir(stage.lock_file()).unwrap();
        }),
        ("replaced by a symlink", &|| {
            let copy = stage.path("copy");
            fs::rename(stage.lock_file(), &copy).unwrap();
            std::os::unix::fs::symlink(copy, stage.lock_file()).unwrap();
        }),
    ];
    for (n, (how, act)) in acts.iter().enumerate() {
        act();
        wait::until_true(&format!("the alert about a lock file that was {how}"), || {
            lock_file_findings(&stage).len() > n
        });
        wait::until_true(&format!("a good lock file after it was {how}"), || {
            fs::symlink_metadata(stage.lock_file()).is_ok_and(|m| m.is_file())
                && fs::read_to_string(stage.lock_file()).is_ok_and(|t| t.lines().count() > 1)
                && said(&stage) == expected(&stage, &good)
        });
        assert!(verifies(&stage), "{how}");
        assert_eq!(lock_file_findings(&stage).len(), n + 1, "{how}");
    }
    let alerts = stage.all_alerts();
    assert_eq!(alerts.len(), acts.len());
    assert!(alerts.iter().all(|a| a.severity == Severity::Critical));
    assert_eq!(stage.site().state, State::Locked);
    stage.log_line("security-alerts.log", |l| l.contains("critical") && l.contains("lock_file"));
}

#[test]
fn what_was_done_to_it_while_guardd_was_down_is_found_at_the_next_start() {
    for how in ["removed", "older", "mode", "edited"] {
        let mut stage = Stage::locked(PLAIN);
        let older = fs::read(stage.lock_file()).unwrap();
        stage.unlock();
        stage.lock();
        stage.stop();
        match how {
            "removed" => fs::remove_file(stage.lock_file()).unwrap(),
            "older" => fs::write(stage.lock_file(), &older).unwrap(),
            "mode" => crate::tree::chmod(&stage.lock_file(), 0o666),
            _ => {
                let text = fs::read_to_string(stage.lock_file()).unwrap();
                fs::write(stage.lock_file(), text.replacen("\"locked\"", "\"unlocked\"", 1)).unwrap();
            }
        }
        stage.start();
        wait::until_true(how, || lock_file_findings(&stage).len() == 1);
        assert!(verifies(&stage));
        assert_eq!(mode(&stage.lock_file()), 0o644);
        let now = said(&stage);
        assert_eq!((&now["state"], &now["generation"]), (&"locked".into(), &2.into()), "{how}");
    }
}

#[test]
fn a_touched_mode_is_put_right_too() {
    let stage = Stage::locked(PLAIN);
    crate::tree::chmod(&stage.lock_file(), 0o666);
    wait::until_true("the alert", || lock_file_findings(&stage).len() == 1);
    wait::until_true("the mode", || mode(&stage.lock_file()) == 0o644);
    assert!(verifies(&stage));
}

#[test]
fn lock_on_a_locked_one_writes_it_anew() {
    let stage = Stage::locked(PLAIN);
    stage.lock();
    assert!(verifies(&stage));
    assert_eq!(lock_file_findings(&stage), []);
}
