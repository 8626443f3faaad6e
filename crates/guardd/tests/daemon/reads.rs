//! Who opens sensitive files: recorded, an alert where nobody expects it, and never guardd itself.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use guard_api::method::{Reads, ReadsReply};
use guard_api::wire::{Access, AlertStatus, Change, Reading, Severity};

use crate::stage::{ENV, PLAIN, Stage};
use crate::wait;

const SECRET: &str = ".env.prod";

/// False, said, where this process may not have a fanotify group.
fn told(stage: &Stage) -> bool {
    let reads = stage.site().watch.reads.unwrap();
    match (reads.by.as_str(), &reads.why) {
        // Audit where this machine has it enabled.
        ("fanotify" | "audit", None) => {
            assert_eq!(reads.files, 1, "{reads:?}");
            assert!(!reads.blind.is_empty());
            true
        }
        ("none", Some(why)) => {
            assert_eq!(reads.files, 0);
            eprintln!("skipped: nobody tells who reads: {why}");
            false
        }
        other => panic!("{other:?}"),
    }
}

fn reads(stage: &Stage, path: Option<&str>) -> ReadsReply {
    stage.call(&Reads { environment: None, path: path.map(str::to_owned) })
}

/// The readings of this program, once there are any.
fn by_program(stage: &Stage, name: &str) -> Vec<Reading> {
    let is_by = |r: &Reading| {
        r.actor
            .as_ref()
            .and_then(|a| a.exe.as_deref())
            .is_some_and(|exe| exe.rsplit('/').next() == Some(name))
    };
    wait::until("the reading", || {
        let found: Vec<Reading> = reads(stage, None).reads.into_iter().filter(is_by).collect();
        (!found.is_empty()).then_some(found)
    })
}

/// A program of our own that reads a file and lives until it is killed.
struct Reader(Child);

impl Reader {
    fn start(program: &Path, file: &Path) -> Self {
        let child =
            Command::new(program).args(["-f", "-n", "1"]).arg(file).stdout(Stdio::null()).spawn().unwrap();
        Self(child)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

fn own_program(stage: &Stage, name: &str) -> std::path::PathBuf {
    let program = stage.path(name);
    fs::copy(fs::canonicalize("/usr/bin/tail").unwrap(), &program).unwrap();
    program
}

#[test]
fn reads_are_recorded_with_their_reader_and_are_no_alert_by_themselves() {
    let stage = Stage::locked(PLAIN);
    if !told(&stage) {
        return;
    }
    let program = own_program(&stage, "reader-a");
    let reader = Reader::start(&program, &stage.at(SECRET));
    let found = by_program(&stage, "reader-a");
    let one = &found[0];
    assert_eq!((one.path.as_str(), one.expected), (SECRET, None));
    assert!(one.access.contains(&Access::Opened), "{one:?}");
    let by = one.actor.as_ref().unwrap();
    assert_eq!(by.pid, reader.0.id().cast_signed());
    // It may hold what is searched for.
    assert_eq!(by.cmdline, None);
    assert_eq!(reads(&stage, Some(SECRET)).reads.len(), reads(&stage, None).reads.len());
    assert_eq!(reads(&stage, Some("compose.yml")).reads, []);
    assert_eq!(stage.open_alerts(), []);

    let shown = stage.guardctl(["who", "--reads", ENV, SECRET]);
    let text = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.status.success() && text.contains("reader-a"), "{text}");
    let line = stage.log_line("protection.log", |l| l.contains("/reader-a"));
    assert!(line.contains(" accessed path=.env.prod access=opened"), "{line}");
    // What happened to the path is another list.
    let who = String::from_utf8(stage.guardctl(["who", SECRET]).stdout).unwrap();
    assert!(who.contains("nothing is recorded of this path"), "{who}");
}

#[test]
fn guardds_own_reading_is_never_told() {
    let stage = Stage::locked(PLAIN);
    if !told(&stage) {
        return;
    }
    assert!(stage.check().clean);
    stage.call(&guard_api::method::CreateBackup { environment: None, note: None });
    let program = own_program(&stage, "reader-b");
    let _reader = Reader::start(&program, &stage.at(SECRET));
    by_program(&stage, "reader-b");
    let own = i32::try_from(stage.pid()).unwrap();
    let all = reads(&stage, None).reads;
    assert!(all.iter().all(|r| r.actor.as_ref().is_some_and(|a| a.pid != own)), "{all:?}");
    assert_eq!(all.len(), 1, "{all:?}");
}

#[test]
fn who_is_not_expected_is_an_alert_until_somebody_has_looked() {
    let mut stage = Stage::new(PLAIN);
    let (good, bad) = (own_program(&stage, "expected"), own_program(&stage, "stranger"));
    stage.configure(&format!("{PLAIN}\n[environments.{ENV}.readers]\nexe = [{good:?}]"));
    stage.start();
    stage.lock();
    if !told(&stage) {
        return;
    }
    let expected = Reader::start(&good, &stage.at(SECRET));
    assert_eq!(by_program(&stage, "expected")[0].expected, Some(true));
    assert_eq!(stage.open_alerts(), []);

    let stranger = Reader::start(&bad, &stage.at(SECRET));
    let alert = wait::until("the alert", || stage.open_alerts().into_iter().next());
    assert_eq!((alert.severity, alert.findings.len()), (Severity::Critical, 1));
    assert!(alert.title.contains("stranger"), "{}", alert.title);
    let finding = &alert.findings[0];
    assert_eq!((finding.path.as_str(), &finding.change), (SECRET, &vec![Change::Read]));
    assert_eq!(finding.actor.as_ref().unwrap().pid, stranger.0.id().cast_signed());
    let line = stage.log_line("security-alerts.log", |l| l.contains("change=read"));
    assert!(line.contains("critical") && line.contains("/stranger"), "{line}");
    // Nothing differs, so there is nothing to accept.
    assert!(stage.try_accept(&[SECRET]).is_err());
    assert!(stage.check().clean);

    // The same one again is no second alert, also after a restart.
    let same = Reader::start(&bad, &stage.at(SECRET));
    stage.stop();
    stage.start();
    let again = Reader::start(&bad, &stage.at(SECRET));
    wait::until_true("the second reading", || by_program(&stage, "stranger").len() >= 2);
    assert_eq!(stage.open_alerts().iter().map(|a| a.id).collect::<Vec<_>>(), [alert.id]);

    assert_eq!(stage.acknowledge(alert.id).status, AlertStatus::Resolved);
    drop((expected, stranger, same, again));
    let second = wait::until("an alert of its own", || {
        drop(Reader::start(&bad, &stage.at(SECRET)));
        stage.open_alerts().into_iter().next()
    });
    assert_ne!(second.id, alert.id);
}

#[test]
fn a_replaced_file_is_followed_and_many_reads_are_few_records() {
    let stage = Stage::locked(PLAIN);
    if !told(&stage) {
        return;
    }
    fs::write(stage.at("new"), "KEY=2\n").unwrap();
    fs::rename(stage.at("new"), stage.at(SECRET)).unwrap();
    stage.finding(SECRET);
    let script = format!("i=0; while [ $i -lt 3000 ]; do : < {SECRET}; i=$((i+1)); done; read wait");
    let mut sh = Command::new("sh")
        .args(["-c", &script])
        .current_dir(stage.app())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = sh.id().cast_signed();
    wait::until_true("the reading", || {
        reads(&stage, None).reads.iter().any(|r| r.actor.as_ref().is_some_and(|a| a.pid == pid))
    });
    drop(sh.stdin.take());
    sh.wait().unwrap();
    let mut stage = stage;
    // What was gathered since is recorded by an orderly stop.
    stage.stop();
    stage.start();
    let all = reads(&stage, None).reads;
    let its: Vec<&Reading> = all.iter().filter(|r| r.actor.as_ref().is_some_and(|a| a.pid == pid)).collect();
    assert!((1..=2).contains(&its.len()), "{its:?}");
}
