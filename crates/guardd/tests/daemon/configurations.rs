//! The configuration: at start, by reload, and under an intruder's hands.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use guard_api::Known;
use guard_api::method::{AcknowledgeAlert, Lock, Reload};
use guard_api::wire::{Severity, State};
use serde_json::Value;

use crate::stage::{ENV, PLAIN, Stage, guardd, run, text_of};
use crate::tree::{chmod, sample, write};
use crate::wait;

#[test]
fn reload_takes_a_good_one() {
    let stage = Stage::locked(PLAIN);
    let before = stage.status().environments[0].rehash_seconds;
    assert_eq!(before, 3600);
    // The same again changes nothing.
    assert_eq!(stage.call(&Reload {}).environments, [ENV]);
    // What does not concern the lock is taken at once.
    stage.configure(&PLAIN.replace("1h", "7m"));
    let done = stage.call(&Reload {});
    assert_eq!(done.environments, [ENV]);
    assert_eq!(stage.site().rehash_seconds, 420);
    assert_eq!(stage.site().state, State::Locked);
    // An edit that a reload accepted is no alert.
    let late = stage.findings_beside_a_late_one(".");
    assert!(late.is_empty(), "{late:?}");
    assert_eq!(stage.own_alerts(), []);
    let accepted = stage.events("configuration");
    assert!(accepted.len() >= 3 && accepted.iter().all(|r| r.fields["accepted"] == true), "{accepted:?}");
}

#[test]
fn a_bad_one_is_refused_whole_with_all_its_mistakes() {
    let stage = Stage::locked(PLAIN);
    let good = fs::read_to_string(stage.config()).unwrap();
    let bad = good
        .replace("rehash = \"1h\"", "rehash = \"soon\"\nsael = \"none\"")
        .replace("version = 1", "version = 7");
    stage.write_config(&bad);
    let Known::ConfigurationRefused { problems } = stage.refused(&Reload {}) else { panic!("not refused") };
    assert_eq!(problems.len(), 3, "{problems:?}");
    for p in &problems {
        assert!(p.line.is_some() && !p.what.is_empty() && !p.fix.is_empty(), "{p:?}");
        assert_eq!(p.file, stage.config().to_str().unwrap());
    }
    let keys: Vec<&str> = problems.iter().map(|p| p.key.as_str()).collect();
    assert!(keys.contains(&"version"), "{keys:?}");
    assert_eq!(stage.site().rehash_seconds, 3600);
    let done = stage.guardctl(["reload"]);
    assert_eq!(done.status.code(), Some(2), "{}", text_of(&done));
    for word in ["sael", "soon", "version"] {
        assert!(text_of(&done).contains(word), "{}", text_of(&done));
    }
    // Gone, a directory, not UTF-8, too long.
    fs::remove_file(stage.config()).unwrap();
    assert!(matches!(stage.refused(&Reload {}), Known::ConfigurationRefused { .. }));
    fs::create_dir(stage.config()).unwrap();
    assert!(matches!(stage.refused(&Reload {}), Known::ConfigurationRefused { .. }));
    fs::remove_dir(stage.config()).unwrap();
    fs::write(stage.config(), b"version = \xff").unwrap();
    assert!(matches!(stage.refused(&Reload {}), Known::ConfigurationRefused { .. }));
    fs::write(stage.config(), "#".repeat(2 << 20)).unwrap();
    assert!(matches!(stage.refused(&Reload {}), Known::ConfigurationRefused { .. }));
    assert!(stage.events("configuration").iter().any(|r| r.fields["accepted"] == false));
    stage.write_config(&good);
    stage.call(&Reload {});
    // It guarded all the time.
    fs::write(stage.at("compose.yml"), "x").unwrap();
    stage.finding("compose.yml");
}

#[test]
fn what_a_lock_signed_cannot_be_reloaded_away() {
    let stage = Stage::locked(PLAIN);
    let good = fs::read_to_string(stage.config()).unwrap();
    let other = stage.path("other");
    sample(&other);
    let attempts = [
        ("root", good.replace(stage.app().to_str().unwrap(), other.to_str().unwrap())),
        ("pattern", good.replace("\"*.pyc\"", "\"*.pyc\", \"*.py\"")),
        ("pattern", good.replace("\"logs/\"", "\"logs/\", \"backend/\"")),
        ("pattern", good.replace("sensitive = [\".env*\"]", "")),
        ("seal", good.replace("seal = \"none\"", "seal = \"read-only\"")),
        ("removed", stage.daemon_section()),
        ("removed", good.replace("[environments.site]", "[environments.renamed]")),
    ];
    for (what, text) in attempts {
        stage.write_config(&text);
        let refused = stage.refused(&Reload {});
        let Known::Refused { message, hint, .. } = &refused else { panic!("{what}: {refused:?}") };
        assert!(message.contains(what) && message.contains("nothing was applied"), "{what}: {message}");
        assert!(hint.as_deref().unwrap().contains("guardctl unlock site"), "{hint:?}");
    }
    for (key, text) in [
        ("state_dir", good.replace("/state\"", "/state2\"")),
        ("runtime_dir", good.replace("/run\"", "/run2\"")),
        ("log_dir", good.replace("/log\"", "/log2\"")),
        ("watch", good.replace("[environments", "watch = \"none\"\n[environments")),
    ] {
        stage.write_config(&text);
        let refused = stage.refused(&Reload {});
        assert!(
            matches!(&refused, Known::Refused { message, .. } if message.contains(key)),
            "{key}: {refused:?}"
        );
    }
    let site = stage.site();
    assert_eq!((site.state, site.root), (State::Locked, stage.app().to_str().unwrap().to_owned()));
    fs::write(stage.at("backend/app/main.py"), "x").unwrap();
    stage.finding("backend/app/main.py");
    // Unlocked, patterns are taken, and the next lock signs them.
    stage.write_config(&good.replace("\"logs/\"", "\"logs/\", \"backend/\""));
    stage.unlock();
    stage.call(&Reload {});
    stage.lock();
    fs::write(stage.at("backend/app/main.py"), "y").unwrap();
    let found = stage.findings_beside_a_late_one("scripts");
    assert_eq!(found.iter().filter(|f| f.path == "backend/app/main.py").count(), 1, "{found:?}");
}

#[test]
fn environments_come_and_go_by_reload() {
    let stage = Stage::locked(PLAIN);
    let second = stage.path("second");
    sample(&second);
    let good = fs::read_to_string(stage.config()).unwrap();
    fs::create_dir(stage.path("etc/environments.d")).unwrap();
    chmod(&stage.path("etc/environments.d"), 0o755);
    write(&stage.path("etc/environments.d/second.toml"), stage.environment_section("second", &second, PLAIN));
    chmod(&stage.path("etc/environments.d/second.toml"), 0o644);
    let done = stage.call(&Reload {});
    assert_eq!(done.environments, ["second", ENV]);
    assert!(done.changed.iter().any(|c| c.contains("second")), "{:?}", done.changed);
    // Two of them: one has to be named.
    assert!(matches!(stage.refused(&Lock::default()), Known::UnknownEnvironment { environment: None, .. }));
    stage.call(&Lock { environment: Some("second".into()), ..Lock::default() });
    fs::write(second.join("compose.yml"), "x").unwrap();
    let all = || {
        stage.call(&guard_api::method::ListAlerts { environment: Some("second".into()), all: None }).alerts
    };
    wait::until_true("an alert there", || !all().is_empty());
    assert_eq!(stage.all_alerts(), []);
    // Locked, it cannot go; unlocked, it can.
    fs::remove_file(stage.path("etc/environments.d/second.toml")).unwrap();
    assert!(matches!(stage.refused(&Reload {}), Known::Refused { .. }));
    stage.call(&guard_api::method::Unlock { environment: Some("second".into()), ..crate::stage::wish(None) });
    let done = stage.call(&Reload {});
    assert_eq!(done.environments, [ENV]);
    assert_eq!(stage.status().environments.len(), 1);
    assert!(matches!(
        stage.refused(&Lock { environment: Some("second".into()), ..Lock::default() }),
        Known::UnknownEnvironment { .. }
    ));
    // Overlapping roots never.
    stage.write_config(&(good + &stage.environment_section("inner", &stage.at("backend"), PLAIN)));
    assert!(matches!(stage.refused(&Reload {}), Known::ConfigurationRefused { .. }));
    stage.lock();
    assert!(stage.check().clean);
}

#[test]
fn an_edit_that_nobody_reloaded_is_an_alert_about_guardd_itself() {
    let stage = Stage::locked(PLAIN);
    let good = fs::read_to_string(stage.config()).unwrap();
    stage.write_config(&format!("{good}# harmless\n"));
    let alert = wait::until("the alert", || stage.own_alerts().pop());
    assert_eq!(alert.severity, Severity::Critical);
    assert!(alert.title.contains("guardd.toml"), "{}", alert.title);
    stage.log_line("security-alerts.log", |l| l.contains("guardd.toml"));
    // A file that would be read at the next start, too; and the keys.
    fs::create_dir(stage.path("etc/environments.d")).unwrap();
    write(&stage.path("etc/environments.d/evil.toml"), "x");
    wait::until_true("the second alert", || stage.own_alerts().len() == 2);
    chmod(&stage.state("keys/host"), 0o644);
    wait::until_true("the third alert", || stage.own_alerts().iter().any(|a| a.title.contains("keys/host")));
    fs::write(stage.state("public/host.pub"), "another").unwrap();
    wait::until_true("the fourth alert", || stage.own_alerts().iter().any(|a| a.title.contains("host.pub")));
    let count = stage.own_alerts().len();
    // Said once each.
    stage.findings_beside_a_late_one(".");
    assert_eq!(stage.own_alerts().len(), count);
    assert_eq!(stage.site().state, State::Locked);
    // `status` alone tells of them, until somebody has looked.
    assert_eq!(stage.status().daemon.alerts_open, count as u64);
    stage.call(&AcknowledgeAlert { id: alert.id, note: "mine".into() });
    assert_eq!(stage.status().daemon.alerts_open, count as u64 - 1);
}

#[test]
fn removing_a_locked_environment_and_restarting_does_not_end_its_guard() {
    let mut stage = Stage::locked(PLAIN);
    stage.stop();
    stage.write_config(&stage.daemon_section());
    stage.start();
    let site = stage.site();
    assert_eq!((site.state, site.root), (State::Locked, stage.app().to_str().unwrap().to_owned()));
    let alert = wait::until("the alert", || stage.own_alerts().pop());
    assert_eq!(alert.severity, Severity::Critical);
    assert!(alert.title.contains(ENV) && alert.title.contains("removed"), "{}", alert.title);
    fs::write(stage.at("compose.yml"), "x").unwrap();
    fs::write(stage.at("backend/app/new.pyc"), "x").unwrap();
    stage.finding("compose.yml");
    assert_eq!(stage.found_paths(), ["compose.yml"], "by the patterns that were signed");
    // By a later start it is not news any more... but it goes on to be said in the status.
    stage.unlock();
    fs::write(stage.at("compose.yml"), "y").unwrap();
    stage.lock();
    assert_eq!(stage.site().state, State::Locked);
}

#[test]
fn weakening_a_locked_environment_and_restarting_does_not_weaken_its_guard() {
    let mut stage = Stage::locked(PLAIN);
    stage.stop();
    let elsewhere = stage.path("elsewhere");
    sample(&elsewhere);
    stage.write_config(
        &(stage.daemon_section()
            + &stage.environment_section(
                ENV,
                &elsewhere,
                &PLAIN.replace("\"logs/\"", "\"logs/\", \"backend/\""),
            )),
    );
    stage.start();
    assert!(stage.own_alerts().iter().any(|a| a.title.contains("root")), "{:?}", stage.own_alerts());
    fs::write(stage.at("backend/app/main.py"), "x").unwrap();
    stage.finding("backend/app/main.py");
    assert_eq!(stage.site().root, stage.app().to_str().unwrap());
}

#[test]
fn a_bad_one_at_start_guards_by_the_last_accepted_one_and_says_so() {
    let mut stage = Stage::locked(PLAIN);
    stage.stop();
    let good = fs::read_to_string(stage.config()).unwrap();
    for bad in [
        good.replace("rehash = \"1h\"", "rehash = \"soon\""),
        good.replace("version = 1", "version = 1\nnonsense"),
        String::new(),
    ] {
        stage.write_config(&bad);
        let mut command = stage.command();
        // Where the refused one does not say it, the state directory is systemd's word.
        command.env("STATE_DIRECTORY", stage.state(""));
        stage.start_as(command);
        stage.wait_for_answer();
        assert!(
            stage
                .degraded()
                .iter()
                .any(|d| d.contains("configuration is refused") && d.contains("check-config")),
            "{:?}",
            stage.degraded()
        );
        assert_eq!(stage.site().state, State::Locked);
        assert_eq!(stage.events("configuration").pop().unwrap().fields["accepted"], false);
        chmod(&stage.at("compose.yml"), 0o600);
        stage.finding("compose.yml");
        chmod(&stage.at("compose.yml"), 0o644);
        assert!(matches!(stage.refused(&Reload {}), Known::ConfigurationRefused { .. }));
        // Put right, a reload ends it.
        stage.write_config(&good);
        stage.call(&Reload {});
        assert!(
            !stage.degraded().iter().any(|d| d.contains("configuration is refused")),
            "{:?}",
            stage.degraded()
        );
        stage.stop();
    }
}

#[test]
fn a_bad_one_at_the_very_first_start_ends_it_with_every_mistake() {
    let stage = Stage::new(PLAIN);
    stage.write_config(
        &fs::read_to_string(stage.config())
            .unwrap()
            .replace("rehash = \"1h\"", "rehash = \"soon\"\nsael = 1"),
    );
    let done = stage.start_and_fail();
    assert_eq!(done.status.code(), Some(2));
    let said = text_of(&done);
    for word in ["soon", "sael", "guardd.toml:", "check-config"] {
        assert!(said.contains(word), "no {word} in {said}");
    }
    assert!(!stage.state("").exists(), "nothing was made");
    fs::remove_file(stage.config()).unwrap();
    assert_eq!(stage.start_and_fail().status.code(), Some(2));
}

#[test]
fn one_that_others_may_write_is_refused() {
    let stage = Stage::new(PLAIN);
    chmod(&stage.config(), 0o666);
    let done = stage.start_and_fail();
    assert_eq!(done.status.code(), Some(2), "{}", text_of(&done));
    assert!(text_of(&done).contains("chmod go-w"), "{}", text_of(&done));
    chmod(&stage.config(), 0o644);
    chmod(&stage.path("etc"), 0o777);
    let done = stage.start_and_fail();
    assert_eq!(done.status.code(), Some(2), "{}", text_of(&done));
}

#[test]
fn check_config_tells_good_from_bad_in_text_and_json() {
    let stage = Stage::new(PLAIN);
    let check = |more: &[&str]| run(guardd().arg("check-config").arg(stage.config()).args(more));
    let done = check(&[]);
    assert_eq!(done.status.code(), Some(0), "{}", text_of(&done));
    assert!(text_of(&done).contains("the configuration is good (1 file)"), "{}", text_of(&done));
    let said: Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!((&said["ok"], &said["environments"][0]), (&true.into(), &ENV.into()));
    assert!(!text_of(&done).contains("nothing is guarded"), "{}", text_of(&done));
    stage.write_config("version = 1\n");
    let done = check(&[]);
    assert_eq!(done.status.code(), Some(0), "{}", text_of(&done));
    assert!(text_of(&done).contains("nothing is guarded"), "{}", text_of(&done));
    stage.write_config("version = 1\n[environments.a]\nroot = \"relative\"\nnonsense = 1\n");
    let done = check(&[]);
    assert_eq!(done.status.code(), Some(2));
    for word in ["guardd.toml:3", "guardd.toml:4", "nonsense", "relative"] {
        assert!(text_of(&done).contains(word), "no {word} in {}", text_of(&done));
    }
    let said: Value = serde_json::from_slice(&check(&["--json"]).stdout).unwrap();
    assert_eq!((&said["ok"], said["problems"].as_array().unwrap().len()), (&false.into(), 2));
    let done = run(guardd().arg("check-config").env("GUARDD_CONFIG", stage.config()));
    assert_eq!(done.status.code(), Some(2));
    // As guardctl calls it.
    let done = stage.guardctl(["check-config".as_ref(), stage.config().as_os_str()]);
    assert_eq!(done.status.code(), Some(2), "{}", text_of(&done));
}

#[test]
fn what_init_proposes_is_a_good_configuration_that_guards() {
    let mut stage = Stage::new("");
    fs::remove_file(stage.config()).unwrap();
    let out = stage.path("etc/environments.d/site.toml");
    let init = |more: &[&str]| {
        run(guardd()
            .arg("init")
            .arg(stage.app())
            .args(["--name", ENV])
            .args(more)
            .env("GUARDD_CONFIG", stage.config()))
    };
    let printed = init(&["--print"]);
    assert_eq!(printed.status.code(), Some(0), "{}", text_of(&printed));
    let toml = String::from_utf8(printed.stdout).unwrap();
    for word in ["[environments.site]", "logs/", "media/", ".env"] {
        assert!(toml.contains(word), "no {word} in {toml}");
    }
    assert!(!stage.config().exists());
    // With a main file beside it, it goes below environments.d.
    stage.write_config(&stage.daemon_section());
    let done = init(&[]);
    assert_eq!(done.status.code(), Some(0), "{}", text_of(&done));
    assert_eq!(fs::read_to_string(&out).unwrap(), toml);
    assert!(String::from_utf8_lossy(&done.stdout).contains("environments.d/site.toml"));
    let again = init(&[]);
    assert_eq!(again.status.code(), Some(3), "{}", text_of(&again));
    assert_eq!(fs::read_to_string(&out).unwrap(), toml);
    let good = run(guardd().arg("check-config").arg(stage.config()));
    assert_eq!(good.status.code(), Some(0), "{}", text_of(&good));
    stage.start();
    stage.lock();
    fs::write(stage.at("logs/x"), "x").unwrap();
    // The proposal seals; its owner has to open a file before he writes it.
    crate::tree::open_up(&stage.at("compose.yml"));
    fs::set_permissions(stage.at("compose.yml"), PermissionsExt::from_mode(0o644)).unwrap();
    fs::write(stage.at("compose.yml"), "x").unwrap();
    stage.finding("compose.yml");
    assert_eq!(stage.found_paths(), ["compose.yml"]);
    let missing = run(Command::new(crate::stage::GUARDD).args(["init", "/nonexistent"]));
    assert_eq!(missing.status.code(), Some(2), "{}", text_of(&missing));
}

#[test]
fn a_reload_in_the_middle_of_a_lock_does_not_disturb_it() {
    let mut stage = Stage::new(crate::stage::SEALED);
    for n in 0..800 {
        write(&stage.at(format!("vendor/p{}/f{n}", n % 20)), "x");
    }
    stage.start();
    let mut client = stage.client();
    let call = std::thread::spawn(move || client.call(&Lock::default()).unwrap().result.unwrap());
    wait::until_true("the plan", || stage.state("plans/site.jsonl").exists());
    let mut reloads = 0;
    while !call.is_finished() {
        stage.call(&Reload {});
        reloads += 1;
    }
    assert!(reloads > 0);
    assert_eq!(call.join().unwrap().generation, 1);
    let check = stage.check();
    assert!(check.clean, "{} paths differ", check.findings_total);
    assert_eq!(crate::tree::mode(&stage.at("vendor/p7/f7")), 0o444);
    assert_eq!(stage.events("recovered").len(), 0);
}
