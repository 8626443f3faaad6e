//! Put back: restore by hand, `on_tamper = "restore"`, and what `diff` shows.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use guard_api::method::{AcknowledgeAlert, Diff, ListBackups, Restore};
use guard_api::wire::{FileDiffKind, RestoreResult, State};
use guard_api::{Exit, Known};

use rustix::process::Signal;

use crate::stage::{ENV, IMMUTABLE, PLAIN, SEALED, Stage, text_of};
use crate::tree::{chmod, mode, picture, write};
use crate::wait;

fn restore(paths: &[&str], plan: bool) -> Restore {
    Restore {
        environment: None,
        paths: paths.iter().map(|&p| p.to_owned()).collect(),
        from: None,
        plan: Some(plan),
    }
}

fn restored(stage: &Stage, paths: &[&str]) -> RestoreResult {
    stage.call(&restore(paths, false)).result.unwrap()
}

/// What people do by mistake, and intruders on purpose.
fn wreck(stage: &Stage) {
    fs::write(stage.at("compose.yml"), "services: {evil: {}}\n").unwrap();
    fs::remove_file(stage.at("backend/app/orders.py")).unwrap();
    fs::remove_file(stage.at("scripts/deploy.sh")).unwrap();
    symlink("/etc/passwd", stage.at("scripts/deploy.sh")).unwrap();
    chmod(&stage.at("backend/app/main.py"), 0o666);
    write(&stage.at("backend/new/deep/er.py"), "added");
}

/// The same under a seal, which is lifted first, as whoever does that with root's rights: guardd learns of it when all is done.
fn wreck_sealed(stage: &Stage) {
    stage.signal(Signal::STOP);
    crate::tree::open_up(&stage.app());
    wreck(stage);
    stage.signal(Signal::CONT);
}

const WRECKED: [&str; 5] =
    ["compose.yml", "backend/app/orders.py", "scripts/deploy.sh", "backend/app/main.py", "backend/new"];

/// The tree without what is no content: which inodes there are.
fn tree_of(stage: &Stage) -> Vec<(Vec<u8>, String)> {
    picture(&stage.app()).into_iter().collect()
}

#[test]
fn a_plan_says_what_would_be_done_and_changes_nothing() {
    let stage = Stage::locked(PLAIN);
    wreck(&stage);
    let before = tree_of(&stage);
    let planned = stage.call(&restore(&["."], true)).result.unwrap();
    assert!(planned.plan && planned.skipped.is_empty(), "{planned:?}");
    let steps: Vec<(&str, &str)> =
        planned.steps.iter().map(|s| (s.path.as_str(), s.action.as_str())).collect();
    assert_eq!(
        steps,
        [
            ("backend/app/main.py", "adjust"),
            ("backend/app/orders.py", "replace"),
            ("backend/new", "remove"),
            ("compose.yml", "replace"),
            ("scripts/deploy.sh", "replace"),
        ]
    );
    assert_eq!(tree_of(&stage), before);
    let told = stage.guardctl(["restore", ENV, "--all", "--plan"]);
    let text = text_of(&told);
    assert!(text.contains("would be put back") && text.contains("backend/new"), "{text}");
}

#[test]
fn a_restore_brings_everything_back_and_keeps_what_it_takes_away() {
    for section in [PLAIN, SEALED, IMMUTABLE] {
        let mut stage = Stage::locked(section);
        let before = tree_of(&stage);
        let dir_time = |p: &str| fs::metadata(stage.at(p)).map(|m| (m.mtime(), m.mtime_nsec())).unwrap();
        let times = (dir_time("backend"), dir_time("backend/app"));
        wreck_sealed(&stage);
        for path in WRECKED {
            stage.finding(path);
        }
        let done = restored(&stage, &["."]);
        assert!(done.skipped.is_empty(), "{done:?}");
        assert_eq!(tree_of(&stage), before);
        assert_eq!((dir_time("backend"), dir_time("backend/app")), times);
        assert!(stage.check().clean, "{:?}", stage.check().findings);
        let place = stage.state("quarantine").join(done.quarantine.unwrap());
        let contents = fs::read_to_string(place.join("contents.jsonl")).unwrap();
        assert!(contents.contains("backend/new/deep/er.py") && contents.contains("/etc/passwd"));
        assert_eq!(mode(&place.join("contents.jsonl")), 0o600);
        // The tree as it stood before is in a backup, too.
        assert_eq!(stage.events("backup_created").pop().unwrap().fields["kind"], "emergency");
        // Its alert says so, and is still for a person to look at.
        for finding in stage.findings().iter().filter(|f| f.path == "compose.yml") {
            assert!(finding.restored, "{finding:?}");
        }
        assert!(!stage.open_alerts().is_empty());
        // It stays expected: through a restart, and with the modes that unlock gives back.
        stage.stop();
        stage.start();
        assert!(stage.check().clean, "{:?}", stage.check().findings);
        let offline = stage.offline(["check", "--offline", ENV]);
        assert_eq!(offline.status.code(), Some(Exit::Done.code().into()), "{}", text_of(&offline));
        stage.unlock();
        assert_eq!(mode(&stage.at("compose.yml")) & 0o200, 0o200);
        stage.lock();
        assert!(stage.check().clean);
        let closed = stage.events("window_closed").remove(0);
        assert_eq!(closed.fields["changed"], 0, "what was put back is no change of the window");
    }
}

#[test]
fn one_path_out_of_a_lost_directory_brings_the_directories_with_it() {
    let stage = Stage::locked(PLAIN);
    fs::remove_dir_all(stage.at("backend")).unwrap();
    stage.finding("backend/app/main.py");
    let done = restored(&stage, &["backend/app/main.py"]);
    let paths: Vec<&str> = done.steps.iter().map(|s| s.path.as_str()).collect();
    assert_eq!(paths, ["backend", "backend/app", "backend/app/main.py"]);
    assert!(!stage.at("backend/app/orders.py").exists());
    restored(&stage, &["backend/"]);
    assert!(stage.check().clean, "{:?}", stage.check().findings);
}

/// Both names differ, one of them in what belongs to both: the seal.
#[test]
fn names_of_one_file_are_names_of_one_file_again() {
    let mut stage = Stage::new(IMMUTABLE);
    fs::hard_link(stage.at("compose.yml"), stage.at("backend/twin.yml")).unwrap();
    stage.start();
    stage.lock();
    let before = tree_of(&stage);
    crate::tree::open_up(&stage.app());
    fs::remove_file(stage.at("compose.yml")).unwrap();
    symlink("/etc/passwd", stage.at("compose.yml")).unwrap();
    stage.finding("compose.yml");
    stage.finding("backend/twin.yml");
    let done = restored(&stage, &["."]);
    assert!(done.skipped.is_empty() && done.remarks.is_empty(), "{done:?}");
    let inode = |p: &str| fs::metadata(stage.at(p)).unwrap().ino();
    assert_eq!(inode("compose.yml"), inode("backend/twin.yml"), "{done:?}");
    assert_eq!(tree_of(&stage), before);
    assert!(stage.check().clean, "{:?}", stage.check().findings);
}

#[test]
fn in_a_window_the_originals_come_back_without_seal() {
    let stage = Stage::locked(SEALED);
    let original = mode(&stage.at("compose.yml")) | 0o200;
    stage.unlock();
    fs::write(stage.at("compose.yml"), "broken by a maintainer").unwrap();
    let id = stage.call(&ListBackups { environment: None }).backups[0].id.clone();
    let from = Restore { from: Some(id), ..restore(&["compose.yml"], false) };
    let done = stage.call(&from).result.unwrap();
    assert_eq!((done.steps.len(), done.skipped.len()), (1, 0), "{done:?}");
    assert_eq!(mode(&stage.at("compose.yml")), original);
    stage.lock();
    assert!(stage.check().clean);
    let refused = stage.refused(&from);
    assert!(matches!(refused, Known::Refused { .. }), "{refused:?}");
}

#[test]
fn without_the_content_nothing_is_half_done() {
    let stage = Stage::locked(PLAIN);
    fs::remove_dir_all(stage.state("backups")).unwrap();
    fs::write(stage.at("compose.yml"), "x").unwrap();
    chmod(&stage.at("backend/app/main.py"), 0o600);
    let answer = stage.try_call(&restore(&["."], false));
    assert_eq!(fs::read(stage.at("compose.yml")).unwrap(), b"x");
    if let Ok(done) = answer {
        let done = done.result.unwrap();
        assert!(done.skipped.iter().any(|s| s.path == "compose.yml"), "{done:?}");
    }
}

fn by_itself(section: &str) -> String {
    format!("{section}\non_tamper = \"restore\"\n")
}

#[test]
fn what_is_tampered_with_is_put_back_by_itself_once() {
    for section in [PLAIN, SEALED, IMMUTABLE] {
        let stage = Stage::locked(&by_itself(section));
        assert!(stage.degraded().iter().all(|d| !d.contains("on_tamper")), "{:?}", stage.degraded());
        let before = tree_of(&stage);
        wreck_sealed(&stage);
        wait::until_true("everything is put back", || tree_of(&stage) == before);
        wait::until_true("and expected", || stage.check().clean);
        let alerts = stage.all_alerts();
        for path in WRECKED {
            let findings = alerts.iter().flat_map(|a| &a.findings);
            let mut of_path = findings.filter(|f| f.path == path).peekable();
            assert!(of_path.peek().is_some() && of_path.all(|f| f.restored), "{path}: {alerts:#?}");
        }
        stage.log_line("security-alerts.log", |l| l.contains("compose.yml") && l.contains("put back"));
        // Its own changes are nobody's tampering: nothing more comes of them.
        assert_eq!(stage.events("put_back_stopped").len(), 0);
        let kept = stage.events("quarantined");
        assert!(!kept.is_empty());
    }
}

#[test]
fn a_fight_is_stopped_and_begins_again_when_somebody_has_looked() {
    let stage = Stage::locked(&by_itself(PLAIN));
    let original = fs::read(stage.at("compose.yml")).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut round = 0;
    let stopped = loop {
        assert!(Instant::now() < deadline, "it fights for ever");
        if let Some(stopped) = stage.events("put_back_stopped").pop() {
            break stopped;
        }
        round += 1;
        // As a whole: what is half written is no state to be fought over.
        fs::write(stage.path("next"), format!("evil {round}")).unwrap();
        fs::rename(stage.path("next"), stage.at("compose.yml")).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(stopped.fields["path"], "compose.yml");
    assert!(stage.degraded().iter().any(|d| d.contains("not put back any more")), "{:?}", stage.degraded());
    let id = stopped.fields["alert"].as_u64().unwrap();
    let alert = stage.all_alerts().into_iter().find(|a| a.id == id).unwrap();
    assert_eq!(alert.severity, guard_api::wire::Severity::Critical);
    // Others are put back all the same.
    let main = fs::read(stage.at("backend/app/main.py")).unwrap();
    fs::write(stage.at("backend/app/main.py"), "evil").unwrap();
    wait::until_true("another path", || fs::read(stage.at("backend/app/main.py")).unwrap() == main);
    stage.call(&AcknowledgeAlert { id, note: "I have ended it".to_owned() });
    wait::until_true("it begins again", || fs::read(stage.at("compose.yml")).unwrap() == original);
    wait::until_true("status says nothing of it", || {
        stage.degraded().iter().all(|d| !d.contains("not put back any more"))
    });
}

#[test]
fn in_a_window_nothing_is_put_back() {
    let stage = Stage::locked(&by_itself(PLAIN));
    stage.unlock();
    fs::write(stage.at("compose.yml"), "meant so").unwrap();
    wait::until_true("it is noticed", || !stage.events("window_change").is_empty());
    fs::write(stage.at("scripts/deploy.sh"), "meant so, too").unwrap();
    wait::until_true("both", || stage.events("window_change").len() > 1);
    assert_eq!(fs::read(stage.at("compose.yml")).unwrap(), b"meant so");
    assert_eq!(stage.events("restored").len(), 0);
    stage.wait_for_state(State::Unlocked);
}

/// How long a change stands, measured and shown; what a machine makes of it is no test.
#[test]
fn the_time_until_a_file_is_back() {
    let mut stage = Stage::new(&by_itself(PLAIN));
    let original = vec![b'x'; 1 << 20];
    fs::write(stage.at("backend/app/big.bin"), &original).unwrap();
    stage.start();
    stage.lock();
    let events = stage.follow();
    let mut shown = Vec::new();
    for round in 0..3 {
        fs::write(stage.path("next"), format!("evil {round}")).unwrap();
        let began = Instant::now();
        fs::rename(stage.path("next"), stage.at("backend/app/big.bin")).unwrap();
        let is_alert = |e: &str| matches!(e, "alert_opened" | "alert_grew");
        events.wait_for("the alert", |r| is_alert(&r.event));
        let alert = began.elapsed();
        while fs::metadata(stage.at("backend/app/big.bin")).unwrap().len() != original.len() as u64 {
            std::thread::sleep(Duration::from_millis(1));
            assert!(began.elapsed() < Duration::from_secs(120), "never put back");
        }
        shown.push((alert, began.elapsed().saturating_sub(alert)));
        events.wait_for("the record", |r| r.event == "restored");
    }
    eprintln!("change to alert, alert to put back (1 MiB): {shown:?}");
}

const CANARY: &str = "canary-7f3a9b";

/// "Nothing differs" and "nothing was put back" would be taken for an answer.
#[test]
fn what_is_mistyped_or_not_protected_is_no_path_to_ask_about() {
    let stage = Stage::locked(PLAIN);
    fs::write(stage.at("logs/app.log"), "line\n").unwrap();
    let diff = |path: &str| Diff { environment: None, path: Some(path.to_owned()) };
    for path in ["compose.yaml", "backend/nowhere/x", "logs/app.log"] {
        let told = stage.refused(&diff(path));
        assert!(matches!(&told, Known::Refused { message, .. } if message.contains(path)), "{told:?}");
        let told = stage.refused(&restore(&["compose.yml", path], false));
        assert!(matches!(&told, Known::Refused { message, .. } if message.contains(path)), "{told:?}");
    }
    assert_eq!(stage.guardctl(["diff", "compose.yaml"]).status.code(), Some(3));
    // What is recorded, what came since, and what is gone are.
    fs::write(stage.at("backend/new"), "x").unwrap();
    fs::remove_file(stage.at("compose.yml")).unwrap();
    for (path, differing) in
        [("backend/new", 1), ("compose.yml", 1), ("backend/app", 0), ("logs", 0), (".", 2)]
    {
        assert_eq!(stage.call(&diff(path)).result.unwrap().findings.len(), differing, "{path}");
    }
    assert_eq!(restored(&stage, &["backend/new", "compose.yml"]).steps_total, 2);
}

#[test]
fn a_diff_shows_lines_of_text_and_of_secrets_names_alone() {
    let mut stage = Stage::new(PLAIN);
    fs::write(stage.at(".env.prod"), format!("KEEP=1\nTOKEN={CANARY}-old\nGONE=x\n")).unwrap();
    fs::write(stage.at("blob.bin"), [0u8, 1, 2]).unwrap();
    stage.start();
    stage.lock();
    fs::write(stage.at(".env.prod"), format!("KEEP=1\nTOKEN={CANARY}-new\nADDED={CANARY}\n")).unwrap();
    fs::write(stage.at("compose.yml"), "services: {\u{1b}[31mevil: {}}\n").unwrap();
    fs::write(stage.at("blob.bin"), [0u8, 9, 9, 9]).unwrap();
    let diff = stage.call(&Diff::default()).result.unwrap();
    let of = |path: &str| diff.files.iter().find(|f| f.path == path).unwrap();
    let text = of("compose.yml").unified.as_deref().unwrap();
    assert!(text.contains("+services: {\\x1b[31mevil: {}}"), "{text}");
    assert_eq!(of(".env.prod").kind, FileDiffKind::Keys);
    let keys: Vec<String> =
        of(".env.prod").keys.iter().flatten().map(|(name, how)| format!("{name} {how}")).collect();
    assert_eq!(keys, ["ADDED added", "GONE removed", "TOKEN changed"]);
    assert_eq!(of("blob.bin").kind, FileDiffKind::Binary);
    assert_eq!(of("blob.bin").after.as_ref().map(|c| c.size), Some(4));

    let told = stage.guardctl(["diff", ENV]);
    let json = stage.guardctl(["diff", ENV, "--json"]);
    assert_eq!(told.status.code(), Some(Exit::Findings.code().into()));
    stage.finding(".env.prod");
    restored(&stage, &[".env.prod"]);
    let plan = stage.guardctl(["restore", ENV, "--all", "--plan"]);
    for output in [&told, &json, &plan] {
        assert!(!text_of(output).contains(CANARY), "{}", text_of(output));
    }
    assert!(!serde_json::to_string(&diff).unwrap().contains(CANARY));
    assert!(!stage.said().contains(CANARY));
    for dir in ["log", "state/ledger", "state/plans", "state/baseline", "state/sinks", "run"] {
        nothing_holds(&stage.path(dir), CANARY.as_bytes());
    }
}

fn nothing_holds(dir: &Path, secret: &[u8]) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.map(|e| e.unwrap().path()) {
        let meta = fs::symlink_metadata(&path).unwrap();
        if meta.is_dir() {
            nothing_holds(&path, secret);
        } else if meta.is_file() {
            let bytes = fs::read(&path).unwrap_or_default();
            let found = bytes.windows(secret.len()).any(|w| w == secret);
            assert!(!found, "{} holds a secret", path.display());
        }
    }
}
