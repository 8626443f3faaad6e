//! The notify command: what it gets, and what it can do to us.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, in a file of its own")]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use guard_alert::NotifyPatience;
use support::{Stage, caught_up, has_lines, health, until};

const NAME: &str = "notify:production";

/// A stage whose command is this shell script; `$1` is the stage's directory.
fn stage(script: &str) -> Stage {
    let mut s = Stage::default();
    let path = s.path("notify.sh");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let command =
        vec!["/bin/sh".into(), path.to_str().unwrap().into(), s.dir.path().to_str().unwrap().into()];
    s.config.notify.insert("production".into(), command);
    s.config.patience = NotifyPatience {
        deadline: support::PATIENCE,
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(100),
    };
    s
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn each_new_alert_is_one_json_object_in_a_clean_environment() {
    let s = stage(
        "cat >> $1/got; env | sort > $1/env; ps -o pgid= -p $$ > $1/group; echo $$ > $1/pid; pwd > $1/pwd",
    );
    let sinks = s.start();
    s.memory.alert("first", 2);
    s.memory.append("development", support::opened("elsewhere", 1));
    let severity = guard_model::Severity::High;
    let findings = vec![support::finding("joined")];
    s.memory.append("production", guard_model::ledger::Event::AlertGrew { alert: 1, severity, findings });
    s.memory.alert("second", 1);
    caught_up(&sinks);
    let got = read(s.path("got"));
    let alerts: Vec<serde_json::Value> = got.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(alerts.len(), 2, "{got}");
    let first = &alerts[0];
    assert_eq!(first["id"], 1);
    assert_eq!(first["environment"], "production");
    assert_eq!(first["severity"], "high");
    assert_eq!(first["status"], "open");
    assert_eq!(first["title"], "first");
    assert_eq!(first["opened_at"], "2023-11-14T22:13:20.000000Z");
    assert_eq!(first["findings"].as_array().unwrap().len(), 2);
    assert_eq!(first["findings"][0]["path"], "first-0");
    assert_eq!(first["findings"][0]["change"][0], "content");
    assert_eq!(alerts[1]["id"], 4);
    let env = read(s.path("env"));
    let names: Vec<&str> = env.lines().filter_map(|l| l.split_once('=')).map(|(n, _)| n).collect();
    // PWD, OLDPWD, _ and SHLVL are the shell's own.
    let ours: Vec<&&str> = names.iter().filter(|n| !["PWD", "OLDPWD", "_", "SHLVL"].contains(n)).collect();
    let expected =
        ["GUARDD_ALERT", "GUARDD_ENVIRONMENT", "GUARDD_SEVERITY", "GUARDD_UNDURABLE", "LANG", "PATH"];
    assert_eq!(ours, expected.iter().collect::<Vec<_>>());
    assert_eq!(read(s.path("group")).trim(), read(s.path("pid")).trim());
    assert_eq!(read(s.path("pwd")), "/\n");
}

#[test]
fn a_command_that_hangs_is_killed_with_all_its_children_and_tried_again() {
    let mut s = stage(
        "echo x >> $1/tries; [ $(wc -l < $1/tries) -ge 3 ] && { cat > $1/got; exit 0; }
         sh -c 'trap \"\" TERM INT HUP; echo $$ >> \"$0/children\"; while :; do sleep 1000; done' $1 &
         trap '' TERM INT HUP; wait; sleep 1000",
    );
    s.config.patience.deadline = Duration::from_millis(500);
    let sinks = s.start();
    let began = Instant::now();
    for i in 0..50 {
        s.memory.alert(&format!("a{i}"), 1);
    }
    has_lines(&s.alerts(), 50);
    until("the failure", || !health(&sinks, NAME).healthy);
    let error = health(&sinks, NAME).error.unwrap();
    assert!(error.contains("did not end within 0.5 s and was killed"), "{error}");
    until("a delivery", || s.path("got").exists());
    assert!(began.elapsed() >= Duration::from_secs(1));
    for pid in read(s.path("children")).lines() {
        let process = PathBuf::from(format!("/proc/{pid}/stat"));
        // Gone, or a zombie until whoever adopted it reaps it.
        until("the child's end", || {
            let stat = read(process.clone());
            stat.is_empty() || stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'))
        });
    }
    until("the recovery", || health(&sinks, NAME).healthy);
    caught_up(&sinks);
}

#[test]
fn a_command_that_fails_is_tried_again_with_what_it_said_in_status() {
    let s = stage(
        "cat >> $1/got; [ -e $1/fixed ] && exit 0
         printf 'cannot page:\\n\\033[31mno network' >&2; exit 3",
    );
    let sinks = s.start();
    s.memory.alert("a", 1);
    s.memory.alert("b", 1);
    until("the failure", || !health(&sinks, NAME).healthy);
    let error = health(&sinks, NAME).error.unwrap();
    assert!(error.contains("failed with exit status 3: cannot page:\\x0a\\x1b[31mno network"), "{error}");
    assert_eq!(health(&sinks, NAME).waiting, 2);
    until("a second try", || read(s.path("got")).lines().count() >= 2);
    fs::write(s.path("fixed"), "").unwrap();
    caught_up(&sinks);
    let ids: Vec<String> = read(s.path("got"))
        .lines()
        .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["id"].to_string())
        .collect();
    // The first one as often as it took, then the second one once.
    assert_eq!(ids.iter().filter(|id| *id == "2").count(), 1);
    assert_eq!(ids.last().unwrap(), "2");
}

#[test]
fn a_command_that_reads_nothing_or_writes_without_end_is_no_trouble() {
    let s = stage("head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2; echo done >> $1/done");
    let sinks = s.start();
    // Far more than a pipe holds.
    s.memory.alert("many", 20_000);
    s.memory.alert("b", 1);
    caught_up(&sinks);
    assert_eq!(read(s.path("done")), "done\ndone\n");
    assert!(health(&sinks, NAME).healthy);
}

#[test]
fn a_command_that_leaves_something_in_the_background_is_not_waited_for() {
    // The background process holds the standard error open.
    let s = stage("sleep 1000 & echo $! > $1/background; echo done > $1/done");
    let sinks = s.start();
    s.memory.alert("a", 1);
    caught_up(&sinks);
    assert_eq!(read(s.path("done")), "done\n");
    let pid: i32 = read(s.path("background")).trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[test]
fn a_command_that_is_not_there_is_said() {
    let mut s = Stage::default();
    s.config.notify.insert("production".into(), vec!["/nonexistent/page-me".into()]);
    let sinks = s.start();
    s.memory.alert("a", 1);
    until("the failure", || !health(&sinks, NAME).healthy);
    let error = health(&sinks, NAME).error.unwrap();
    assert!(error.contains("cannot start /nonexistent/page-me: No such file"), "{error}");
    has_lines(&s.alerts(), 1);
}

#[test]
fn a_stop_does_not_wait_for_a_command_and_hands_the_alert_over_again() {
    let s = stage("cat >> $1/got; [ -e $1/quick ] || sleep 1000");
    let sinks = s.start();
    s.memory.alert("a", 1);
    until("the command", || !read(s.path("got")).is_empty());
    until("the others", || sinks.health().iter().all(|h| h.name == NAME || h.waiting == 0));
    let began = Instant::now();
    let left = sinks.shutdown(Duration::from_millis(100));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert_eq!(left.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), [NAME]);
    fs::write(s.path("quick"), "").unwrap();
    let sinks = s.start();
    caught_up(&sinks);
    assert_eq!(read(s.path("got")).lines().count(), 2);
}

#[test]
fn commands_change_with_the_configuration() {
    let s = stage("echo old >> $1/got");
    let sinks = s.start();
    s.memory.alert("a", 1);
    caught_up(&sinks);
    let mut notify = s.config.notify.clone();
    let script = s.path("new.sh");
    fs::write(&script, "echo new >> $1/got\n").unwrap();
    notify.get_mut("production").unwrap()[1] = script.to_str().unwrap().into();
    sinks.set_notify(&notify).unwrap();
    s.memory.alert("b", 1);
    caught_up(&sinks);
    sinks.set_notify(&notify).unwrap();
    s.memory.alert("c", 1);
    caught_up(&sinks);
    sinks.set_notify(&std::collections::BTreeMap::new()).unwrap();
    s.memory.alert("d", 1);
    caught_up(&sinks);
    assert_eq!(read(s.path("got")), "old\nnew\nnew\n");
    assert!(sinks.health().iter().all(|h| h.name != NAME));
}
