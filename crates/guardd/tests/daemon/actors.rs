//! Who made a change: as told by the kernel where this process may ask it, and nobody's name otherwise.

use std::fs;
use std::process::Command;

use guard_api::wire::{Actor, Confidence};

use crate::stage::Stage;
use crate::tree::chmod;

const PLAIN: &str = "seal = \"none\"";

/// Names nobody, said, where this process may not have a fanotify group.
fn told(stage: &Stage) -> bool {
    let watch = stage.site().watch;
    match (watch.backend.as_str(), &watch.instead) {
        ("fanotify", None) => true,
        ("inotify", Some(why)) => {
            eprintln!("skipped: nobody is told who it was: {why}");
            false
        }
        other => panic!("{other:?}"),
    }
}

fn sh(stage: &Stage, script: &str) -> i32 {
    let mut child = Command::new("sh").arg("-c").arg(script).current_dir(stage.app()).spawn().unwrap();
    let pid = child.id().cast_signed();
    assert!(child.wait().unwrap().success());
    pid
}

fn actor(stage: &Stage, path: &str) -> Actor {
    stage.finding(path).actor.unwrap_or_else(|| panic!("nobody is named for {path}"))
}

#[test]
fn a_living_process_is_named_whole() {
    let stage = Stage::locked(PLAIN);
    if !told(&stage) {
        return;
    }
    // Goes on living until its alert is out.
    let script = "echo x >> backend/app/main.py; echo y > made; read wait";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .current_dir(stage.app())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id().cast_signed();
    for path in ["backend/app/main.py", "made"] {
        let by = actor(&stage, path);
        assert_eq!((by.pid, by.confidence), (pid, Confidence::Verified), "{by:?}");
        assert_eq!(by.comm.as_deref(), Some("sh"));
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap();
        assert_eq!(by.exe.as_deref(), exe.to_str());
        assert_eq!(by.cmdline, Some(format!("sh -c {script}")));
        assert_eq!(by.uid, Some(rustix::process::getuid().as_raw()));
        assert!(by.started_at.is_some());
        let parent = format!("({})", std::process::id());
        assert!(by.parents.first().is_some_and(|p| p.ends_with(&parent)), "{by:?}");
    }
    drop(child.stdin.take());
    child.wait().unwrap();

    let who = String::from_utf8(stage.guardctl(["who", "made"]).stdout).unwrap();
    assert!(who.contains(&format!("pid {pid}")), "{who}");
    let line = stage.log_line("security-alerts.log", |l| l.contains("path=made"));
    assert!(line.contains(&format!("pid={pid} exe=")), "{line}");
}

/// What a process does beside a secret is told without the arguments, among which the secret may be.
#[test]
fn a_command_that_changes_a_secret_is_told_nowhere() {
    let stage = Stage::locked(crate::stage::PLAIN);
    if !told(&stage) {
        return;
    }
    let script = "echo TOKEN=canary-91c2 > temporary; mv temporary .env.prod; echo y > made; read wait";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .current_dir(stage.app())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    for path in [".env.prod", "made"] {
        let by = actor(&stage, path);
        assert!(by.cmdline.is_none(), "{path}: {by:?}");
    }
    drop(child.stdin.take());
    child.wait().unwrap();
    let told = format!("{:?}", stage.all_alerts());
    assert!(!told.contains("canary-91c2"), "{told}");
}

/// Whoever is named is the one who did it, or nobody is.
#[test]
fn a_short_lived_process_is_named_rightly_or_not_at_all() {
    let stage = Stage::locked(PLAIN);
    if !told(&stage) {
        return;
    }
    let mut named = 0;
    let each = 40;
    for i in 0..each {
        let pid = sh(&stage, &format!("echo x > short-{i}"));
        let by = actor(&stage, &format!("short-{i}"));
        assert_eq!(by.pid, pid, "{by:?}");
        match by.confidence {
            Confidence::Verified => assert_eq!(by.cmdline, Some(format!("sh -c echo x > short-{i}"))),
            // What it was seen to execute, if that was known; its name is left in any case.
            Confidence::Exited => {
                assert_eq!(by.comm.as_deref(), Some("sh"));
                let words = format!("sh -c echo x > short-{i}");
                assert!(by.cmdline.as_ref().is_none_or(|told| *told == words), "{by:?}");
                assert_eq!(by.exe.is_some(), by.cmdline.is_some());
            }
            Confidence::Unknown => assert_eq!((by.comm, by.exe, by.cmdline), (None, None, None)),
        }
        named += u32::from(by.confidence != Confidence::Unknown);
    }
    println!("{named} of {each} named");
    assert!(named > 0, "not one of {each} processes was named");
}

#[test]
fn every_way_to_change_names_its_process() {
    let stage = Stage::locked(PLAIN);
    if !told(&stage) {
        return;
    }
    let ways = [
        ("chmod 600 compose.yml", "compose.yml"),
        ("rm scripts/deploy.sh", "scripts/deploy.sh"),
        ("mkdir -p new", "new"),
        ("mv backend/app/main.py backend/app/moved.py", "backend/app/moved.py"),
        ("ln -s x link", "link"),
    ];
    for (script, path) in ways {
        // The shell may become the command, or make a process for it.
        let shell = sh(&stage, &format!("{script}; true"));
        let by = actor(&stage, path);
        assert!(by.pid >= shell, "{script}: {by:?}");
        if let Some(line) = by.cmdline {
            assert!(script.starts_with(line.split(' ').next().unwrap_or("?")), "{script}: {line}");
        }
    }
    // What went with its directory went by the same hand.
    let shell = sh(&stage, "mv backend ../backend-elsewhere; true");
    let by = actor(&stage, "backend/app");
    assert!(by.pid >= shell, "{by:?}");
}

#[test]
fn guardd_itself_is_never_the_one() {
    let stage = Stage::locked("seal = \"read-only\"");
    stage.unlock();
    stage.lock();
    chmod(&stage.at("compose.yml"), 0o640);
    let by = stage.finding("compose.yml").actor;
    let own = i32::try_from(stage.pid()).unwrap();
    assert!(by.is_none_or(|by| by.pid != own));
    assert!(stage.findings().iter().all(|f| f.path == "compose.yml"), "a lock has findings of its own");
}

#[test]
fn inotify_by_configuration_names_nobody() {
    let mut stage = Stage::new(PLAIN);
    let text = fs::read_to_string(stage.config()).unwrap();
    stage.write_config(&text.replacen("[daemon]\n", "[daemon]\nwatch = \"inotify\"\n", 1));
    stage.start();
    stage.lock();
    let watch = stage.site().watch;
    assert_eq!((watch.backend.as_str(), watch.instead), ("inotify", None));
    sh(&stage, "echo x >> compose.yml");
    assert_eq!(stage.finding("compose.yml").actor, None);
}

#[test]
fn status_says_why_those_who_are_gone_at_once_have_no_name() {
    let stage = Stage::locked(PLAIN);
    if !told(&stage) {
        return;
    }
    drop(stage);
    let mut stage = Stage::new(PLAIN);
    let guardd = stage.command();
    let mut command = Command::new("unshare");
    command.arg("--net").arg(guardd.get_program()).args(guardd.get_args());
    stage.start_as(command);
    stage.wait_for_answer();
    stage.lock();
    let watch = stage.site().watch;
    let why = watch.nameless.unwrap_or_else(|| panic!("{:?}", watch.backend));
    assert!(why.starts_with("the kernel does not tell of processes: "), "{why}");
    let text = String::from_utf8(stage.guardctl(["status"]).stdout).unwrap();
    assert!(text.contains(&format!("who ends at once may have no name ({why})")), "{text}");
}
