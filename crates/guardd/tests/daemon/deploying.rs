//! Deployments: forward, back, cut short, refused, and who made what meanwhile.

use std::fs;
use std::process::Command;
use std::time::Duration;

use guard_api::method::{
    Cancel, CreateBackup, Deploy, DeploymentStep, ListBackups, ListDeployments, Lock, PinBackup, Rollback,
    ShowDeployment, Who,
};
use guard_api::wire::{Deployment, Severity, State};
use guard_api::{Exit, Known};
use rustix::process::Signal;

use crate::repositories::git;
use crate::stage::{ENV, PLAIN, SEALED, Stage, run, text_of, wish};
use crate::tree::{mode, picture, write};
use crate::wait;

/// The user that the tests run as.
fn me() -> String {
    let said = run(Command::new("id").arg("-un"));
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

/// An environment whose deployments do this. `logs/` is writable and shows what ran.
fn configured(environment: &str, deploy: &str) -> String {
    let me = me();
    format!(
        "{environment}\n[environments.{ENV}.deploy]\nrun_as = {me:?}\nstable_for = \"1s\"\nopens_window = true\n{deploy}\n"
    )
}

/// Changes a file, adds one and removes one; then whether it is well is up to `app.ok`.
const RELEASE: &str = r#"
steps = [
    { name = "files", run = "echo \"release $GUARDD_REVISION\" > compose.yml; mkdir new; echo x > new/file; rm backend/app/orders.py" },
    { name = "migrate", run = "echo up >> logs/migrations", undo = "reversible", undo_run = "echo down >> logs/migrations" },
]
rollback = [{ name = "up", run = "echo rolled >> logs/rollbacks" }]
health = [{ command = "! grep -q bad compose.yml" }]
deadline = "8s"
"#;

fn asked(revision: &str) -> Deploy {
    Deploy { revision: Some(revision.to_owned()), reason: Some("a release".to_owned()), ..Deploy::default() }
}

fn end_of(step: DeploymentStep) -> Deployment {
    step.deployment.unwrap()
}

fn deployed(stage: &Stage, revision: &str) -> Deployment {
    end_of(stage.call(&asked(revision)))
}

fn last(stage: &Stage) -> Deployment {
    stage.call(&ListDeployments::default()).deployments.pop().unwrap()
}

/// Waits until the newest deployment has ended.
fn ended(stage: &Stage) -> Deployment {
    wait::until("the deployment's end", || Some(last(stage)).filter(|d| d.end.is_some()))
}

/// Begins one that runs until it is stopped, in another thread's call.
fn begun<'s>(stage: &Stage, scope: &'s std::thread::Scope<'s, '_>, revision: &str) {
    let (socket, asked) = (stage.socket(), asked(revision));
    scope.spawn(move || {
        let mut client = guard_api::Client::connect(&socket).unwrap();
        client.set_timeout(Some(Duration::from_secs(120)));
        // How it ends is seen in the list; a daemon that is killed answers nobody.
        client.call(&asked).ok();
    });
    wait::until_true("its first step", || stage.at("logs/began").exists());
}

/// Its first step waits until it is ended.
const HANGS: &str = r#"
steps = [{ name = "hang", run = "echo broken > compose.yml; touch logs/began; sleep 1000 & wait" }]
rollback = [{ name = "up", run = "echo rolled >> logs/rollbacks" }]
"#;

fn read(stage: &Stage, name: &str) -> String {
    fs::read_to_string(stage.at(name)).unwrap_or_default()
}

#[test]
fn a_good_one_becomes_the_baseline_and_is_explained() {
    let stage = Stage::locked(&configured(SEALED, RELEASE));
    let done = deployed(&stage, "v2");
    assert_eq!((done.end.as_deref(), done.why.as_deref()), (Some("done"), Some("verified")), "{done:?}");
    let site = stage.site();
    assert_eq!((site.state, site.generation), (State::Locked, Some(2)));
    assert_eq!(read(&stage, "compose.yml"), "release v2\n");
    assert_eq!(mode(&stage.at("compose.yml")) & 0o222, 0);
    assert!(done.changed >= 4 && done.backup.is_some() && done.release.is_some(), "{done:?}");
    assert!(stage.check().clean);
    // Nobody has to review what a deployment changed; it says itself which changes are its own.
    assert_eq!(stage.open_alerts().len(), 0);
    let who = stage.call(&Who { environment: None, path: "compose.yml".to_owned() }).history;
    assert!(who.iter().any(|e| e.deployment == Some(done.id)), "{who:?}");
    let line = stage.log_line("deployments.log", |l| l.contains("deployment_ended"));
    assert!(line.contains("end=done") && line.contains(&format!("deployment={}", done.id)), "{line}");
    stage.log_line("maintenance.log", |l| l.contains(&format!("deployment={}", done.id)));
}

#[test]
fn what_fails_is_put_back_exactly_undone_and_verified() {
    let stage = Stage::new(&configured(SEALED, RELEASE));
    write(&stage.at(".env"), "KEY=before\n");
    let original = picture(&stage.at("backend"));
    let mut stage = stage;
    stage.start();
    stage.lock();
    let done = deployed(&stage, "bad");
    assert_eq!(done.end.as_deref(), Some("rolled-back"), "{done:?}");
    stage.call(&wish(None));
    assert_eq!(picture(&stage.at("backend")), original);
    assert!(!stage.at("new").exists() && !read(&stage, "compose.yml").contains("release"));
    assert_eq!(read(&stage, "logs/migrations"), "up\ndown\n");
    assert_eq!(read(&stage, "logs/rollbacks"), "rolled\n");
    let shown = stage.call(&ShowDeployment { environment: None, id: done.id });
    let not_ok: Vec<&str> = shown.results.iter().filter(|r| !r.ok).map(|r| r.phase.as_str()).collect();
    assert_eq!(not_ok, ["verify"], "{:?}", shown.results);
}

#[test]
fn one_whose_step_fails_hangs_or_is_killed_is_rolled_back() {
    let steps = [
        ("exit 7", "failed with status 7"),
        ("kill -9 $$", "ended by signal 9"),
        ("sleep 1000", "not done after 1 s"),
        ("no-such-program", "failed with status 127"),
    ];
    wait::each(steps, |(line, said)| {
        let deploy = format!(
            "steps = [{{ name = \"files\", run = \"echo broken > compose.yml\" }},\n{{ name = \"it\", run = {line:?}, deadline = \"1s\" }}]"
        );
        let stage = Stage::locked(&configured(PLAIN, &deploy));
        let before = read(&stage, "compose.yml");
        let done = deployed(&stage, "v2");
        assert_eq!(done.end.as_deref(), Some("rolled-back"), "{line}: {done:?}");
        assert!(done.why.as_ref().is_some_and(|why| why.contains(said)), "{line}: {done:?}");
        assert_eq!(read(&stage, "compose.yml"), before, "{line}");
        assert_eq!(stage.site().state, State::Locked, "{line}");
    });
}

#[test]
fn one_that_is_cancelled_leaves_nothing_running_and_nothing_changed() {
    let stage = Stage::locked(&configured(PLAIN, HANGS));
    let before = read(&stage, "compose.yml");
    std::thread::scope(|scope| {
        begun(&stage, scope, "v2");
        let running = last(&stage);
        assert_eq!((running.end.as_deref(), running.step.as_deref()), (None, Some("hang")));
        // Nobody else changes anything meanwhile, by whatever command.
        for refused in [
            stage.refused(&asked("v3")),
            stage.refused(&Lock::default()),
            stage.refused(&wish(None)),
            stage.refused(&Rollback::default()),
        ] {
            assert!(
                matches!(&refused, Known::Busy { operation, .. } if operation.starts_with("deployment")),
                "{refused:?}"
            );
        }
        assert_eq!(stage.call(&Cancel::default()).id, running.id);
        let done = ended(&stage);
        assert_eq!(done.end.as_deref(), Some("rolled-back"), "{done:?}");
    });
    assert_eq!(read(&stage, "compose.yml"), before);
    assert!(!is_running("sleep 1000", &stage));
    assert!(matches!(stage.refused(&Cancel::default()), Known::Refused { .. }));
}

/// Does any process whose working directory is the root still have this command line?
fn is_running(line: &str, stage: &Stage) -> bool {
    fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let cwd = fs::read_link(entry.path().join("cwd"));
        let said = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).replace('\0', " ");
        cwd.is_ok_and(|cwd| cwd == stage.app()) && said.trim() == line
    })
}

#[test]
fn one_that_guardd_did_not_outlive_is_rolled_back_at_its_next_start() {
    let mut stage = Stage::locked(&configured(SEALED, HANGS));
    let before = read(&stage, "compose.yml");
    std::thread::scope(|scope| {
        begun(&stage, scope, "v2");
        stage.kill();
    });
    wait::until_true("the end of what the step had started", || !is_running("sleep 1000", &stage));
    fs::remove_file(stage.at("logs/began")).unwrap();
    stage.start();
    let done = ended(&stage);
    assert_eq!(done.end.as_deref(), Some("rolled-back"), "{done:?}");
    assert_eq!(read(&stage, "compose.yml"), before);
    assert_eq!(read(&stage, "logs/rollbacks"), "rolled\n");
    stage.wait_for_state(State::Locked);
    assert!(stage.check().clean);
    assert_eq!(stage.events("recovered").len(), 1);
}

#[test]
fn an_ordered_stop_ends_the_steps_too_and_the_next_start_rolls_back() {
    let mut stage = Stage::locked(&configured(PLAIN, HANGS));
    std::thread::scope(|scope| {
        begun(&stage, scope, "v2");
        stage.stop();
    });
    wait::until_true("the end of what the step had started", || !is_running("sleep 1000", &stage));
    stage.start();
    assert_eq!(ended(&stage).end.as_deref(), Some("rolled-back"));
}

#[test]
fn where_the_rollback_fails_somebody_has_to_look_and_nothing_is_locked_by_itself() {
    let deploy = r#"
steps = [{ name = "files", run = "echo broken > compose.yml; exit 1" }]
rollback = [{ name = "up", run = "test -e logs/mended" }]
"#;
    let stage = Stage::locked(&configured(PLAIN, deploy));
    fs::create_dir_all(stage.at("logs")).unwrap();
    let done = deployed(&stage, "v2");
    assert_eq!(done.end.as_deref(), Some("needs-operator"), "{done:?}");
    assert_eq!(stage.site().state, State::NeedsOperator);
    let alert = stage.open_alerts().into_iter().find(|a| a.title.contains("needs an operator")).unwrap();
    assert_eq!(alert.severity, Severity::Critical);
    assert!(matches!(stage.refused(&asked("v3")), Known::NeedsOperator { .. }));
    // Put right by hand: once more back, and it is good.
    fs::write(stage.at("logs/mended"), "").unwrap();
    let again = end_of(stage.call(&Rollback::default()));
    assert_eq!(again.end.as_deref(), Some("done"), "{again:?}");
    assert_eq!(stage.site().state, State::Locked);
    assert!(!read(&stage, "compose.yml").contains("broken"));
}

#[test]
fn a_lock_by_hand_says_that_it_is_right_as_it_is() {
    let deploy = r#"
steps = [{ name = "files", run = "echo broken > compose.yml; exit 1" }]
rollback = [{ name = "up", run = "exit 1" }]
"#;
    let stage = Stage::locked(&configured(PLAIN, deploy));
    assert_eq!(deployed(&stage, "v2").end.as_deref(), Some("needs-operator"));
    stage.lock();
    assert_eq!(stage.site().state, State::Locked);
}

#[test]
fn releases_are_brought_back_by_number() {
    let deploy = RELEASE.replace("mkdir new; ", "mkdir -p new; ").replace("rm backend", "rm -f backend");
    let stage = Stage::locked(&configured(PLAIN, &deploy));
    let before = read(&stage, "compose.yml");
    let first = deployed(&stage, "v1");
    deployed(&stage, "v2");
    assert_eq!(read(&stage, "compose.yml"), "release v2\n");
    let back = end_of(stage.call(&Rollback { to: Some(first.id), ..Rollback::default() }));
    assert_eq!(back.end.as_deref(), Some("done"), "{back:?}");
    assert_eq!(read(&stage, "compose.yml"), "release v1\n");
    assert!(stage.at("new/file").exists());
    assert!(matches!(stage.refused(&Rollback { to: Some(1), ..Rollback::default() }), Known::Refused { .. }));
    assert_ne!(before, "release v1\n");
}

#[test]
fn what_good_ones_can_be_rolled_back_to_stays_whatever_fails_after_them() {
    let deploy = r#"steps = [{ name = "up", run = "echo $GUARDD_REVISION > compose.yml; test $GUARDD_REVISION != bad" }]"#;
    let stage = Stage::locked(&configured(PLAIN, deploy));
    let pinned = || -> Vec<String> {
        let mut backups = stage.call(&ListBackups::default()).backups;
        backups.retain(|b| b.pinned);
        let mut ids: Vec<String> = backups.into_iter().map(|b| b.id).collect();
        ids.sort();
        ids
    };
    let needed = |all: &[Deployment]| -> Vec<String> {
        let ids = all.iter().flat_map(|d| d.backup.clone().into_iter().chain(d.release.clone()));
        let mut ids: Vec<String> = ids.collect();
        ids.sort();
        ids.dedup();
        ids
    };
    let good: Vec<Deployment> = ["v1", "v2", "v3"].map(|revision| deployed(&stage, revision)).to_vec();
    assert_eq!(good.iter().map(|d| d.end.as_deref()).collect::<Vec<_>>(), [Some("done"); 3]);
    let by_hand = stage.call(&CreateBackup::default()).result.unwrap().backup.id;
    stage.call(&PinBackup { environment: None, id: by_hand.clone(), pinned: true });
    for _ in 0..3 {
        assert_eq!(deployed(&stage, "bad").end.as_deref(), Some("rolled-back"));
    }
    for id in needed(&good) {
        assert!(pinned().contains(&id), "{id}: {:?}", pinned());
    }
    // Only a good one takes the place of the oldest; what failed needs nothing any more.
    let newest = deployed(&stage, "v4");
    let mut kept = needed(&[good[1].clone(), good[2].clone(), newest]);
    kept.push(by_hand);
    kept.sort();
    assert_eq!(pinned(), kept);
}

#[test]
fn what_a_release_holds_that_no_commit_has_is_said() {
    let deploy = r#"
steps = [{ name = "files", run = "git mv compose.yml moved.yml && echo x > added && echo SECRET=2 > .env && echo x > logs/x" }]
"#;
    let mut stage = Stage::new(&configured(PLAIN, deploy));
    let root = stage.app();
    git(&root, &["init", "-q"]);
    git(&root, &["add", "-A", "--", ".", ":!.env", ":!logs", ":!media"]);
    git(&root, &["commit", "-q", "-m", "all that is part of it"]);
    stage.start();
    stage.lock();
    let done = deployed(&stage, "v2");
    assert_eq!(done.end.as_deref(), Some("done"), "{done:?}");
    let results = stage.call(&ShowDeployment { environment: None, id: done.id }).results;
    let compared = results.iter().find(|r| r.step.as_deref() == Some("commit")).unwrap();
    // Both names of what was moved, each whole.
    assert_eq!(compared.told, "not from the commit: D compose.yml, A moved.yml, ?? added");
    assert_eq!(git(&root, &["diff", "--cached", "--no-renames", "--name-only"]), "compose.yml\nmoved.yml");
    // What was staged goes back with the files.
    assert_eq!(end_of(stage.call(&Rollback::default())).end.as_deref(), Some("done"));
    assert_eq!(git(&root, &["diff", "--cached", "--no-renames", "--name-only"]), "");
}

#[test]
fn without_a_lock_nothing_is_locked_and_all_the_same_put_back() {
    let mut stage = Stage::new(&configured(SEALED, RELEASE));
    stage.start();
    let before = picture(&stage.at("backend"));
    let done = deployed(&stage, "v2");
    assert_eq!((done.end.as_deref(), stage.site().state), (Some("done"), State::Unlocked), "{done:?}");
    let back = end_of(stage.call(&Rollback::default()));
    assert_eq!(back.end.as_deref(), Some("done"), "{back:?}");
    assert_eq!(picture(&stage.at("backend")), before);
    assert!(!stage.at("new").exists());
}

#[test]
fn a_locked_environment_is_unlocked_by_nobody_who_was_not_told_to() {
    let section = configured(PLAIN, RELEASE).replace("opens_window = true", "opens_window = false");
    let stage = Stage::locked(&section);
    assert!(matches!(stage.refused(&asked("v2")), Known::Refused { .. }));
    // Inside somebody's window it may, and locks at its end.
    stage.unlock();
    assert_eq!(deployed(&stage, "v2").end.as_deref(), Some("done"));
    assert_eq!(stage.site().state, State::Locked);
    // Or by name, with a reason, which stays an alert until somebody has looked.
    let forced = Deploy { force: vec!["lock".to_owned()], ..asked("v3") };
    assert!(matches!(stage.refused(&Deploy { reason: None, ..forced.clone() }), Known::ReasonRequired {}));
    let deploy = end_of(stage.call(&forced));
    // It fails, since the directory is there by now. What was forced is told all the same.
    assert_eq!(deploy.force, ["lock"]);
    let alert = stage.open_alerts().into_iter().find(|a| a.title.contains("skips lock")).unwrap();
    assert_eq!(alert.severity, Severity::High);
}

#[test]
fn what_differs_from_the_baseline_is_not_deployed_over() {
    let stage = Stage::locked(&configured(PLAIN, RELEASE));
    fs::write(stage.at("backend/app/main.py"), "tampered\n").unwrap();
    stage.finding("backend/app/main.py");
    let done = deployed(&stage, "v2");
    assert_eq!(done.end.as_deref(), Some("refused"), "{done:?}");
    assert!(done.why.as_ref().is_some_and(|why| why.contains("integrity")), "{done:?}");
    assert_eq!(stage.site().state, State::Locked);
    assert!(!stage.at("new").exists());
    let forced = Deploy { force: vec!["integrity".to_owned()], ..asked("v2") };
    assert_eq!(end_of(stage.call(&forced)).end.as_deref(), Some("done"));
}

#[test]
fn what_is_no_revision_never_reaches_a_step() {
    let stage = Stage::locked(&configured(PLAIN, RELEASE));
    for bad in ["--upload-pack=touch /tmp/x", "v1; rm -rf /", "$(id)", "", "-x"] {
        assert!(matches!(stage.refused(&asked(bad)), Known::InvalidParameter { .. }), "{bad}");
    }
    let unknown = Deploy { force: vec!["backup".to_owned()], ..asked("v2") };
    assert!(matches!(stage.refused(&unknown), Known::InvalidParameter { .. }));
    assert_eq!(stage.call(&ListDeployments::default()).deployments.len(), 0);
}

#[test]
fn a_plan_says_it_all_and_does_nothing() {
    let stage = Stage::locked(&configured(SEALED, RELEASE));
    let said = stage.guardctl(["deploy", "--revision", "v2", "--plan"]);
    assert_eq!(said.status.code(), Some(i32::from(Exit::Done.code())), "{}", text_of(&said));
    let text = text_of(&said);
    for part in
        ["unlock", "back up", "migrate [reversible]", "undo migrate", "lock again", "nothing was changed"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(stage.call(&ListDeployments::default()).deployments.len(), 0);
    assert_eq!(stage.site().state, State::Locked);
}

#[test]
fn exit_codes_tell_how_it_ended() {
    let stage = Stage::locked(&configured(PLAIN, RELEASE));
    let code = |revision: &str| {
        let said = stage.guardctl(["deploy", "--revision", revision]);
        (said.status.code(), text_of(&said))
    };
    let (bad, text) = code("bad");
    assert_eq!(bad, Some(5), "{text}");
    assert!(text.contains("rolled back") && text.contains("status") || text.contains("well"), "{text}");
    let (good, text) = code("v2");
    assert_eq!(good, Some(0), "{text}");
    assert!(stage.guardctl(["deployments"]).status.success());
    let id = last(&stage).id.to_string();
    let shown = text_of(&stage.guardctl(["deployments", "show", &id]));
    assert!(shown.contains("step files") && shown.contains("backup of what stood before"), "{shown}");
}

#[test]
fn steps_get_nothing_of_the_daemons_environment() {
    let deploy = "steps = [{ name = \"env\", run = \"env > logs/env; cat /proc/self/cmdline > logs/argv; readlink /proc/self/fd/0 >> logs/env\" }]\n[environments.site.deploy.variables]\nFLAVOUR = \"blue\"";
    let mut stage = Stage::new(&configured(PLAIN, deploy));
    let mut command = stage.command();
    command.env("DATABASE_PASSWORD", "hunter2").env("LD_PRELOAD_X", "x");
    stage.start_as(command);
    stage.wait_for_answer();
    let done = deployed(&stage, "v2");
    assert_eq!(done.end.as_deref(), Some("done"), "{done:?}");
    let said = read(&stage, "logs/env");
    for part in ["GUARDD_REVISION=v2\n", "GUARDD_ENVIRONMENT=site\n", "FLAVOUR=blue\n", "HOME=", "/dev/null"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(
        !said.contains("hunter2") && !said.contains("LD_PRELOAD_X") && !said.contains("GUARDD_CONFIG"),
        "{said}"
    );
}

#[test]
fn guardd_that_is_stopped_while_it_rolls_back_goes_on_with_that() {
    let deploy = r#"
steps = [{ name = "files", run = "echo broken > compose.yml; exit 1" }]
rollback = [{ name = "up", run = "touch logs/began; test -e logs/mended || sleep 1000" }]
"#;
    let mut stage = Stage::locked(&configured(PLAIN, deploy));
    std::thread::scope(|scope| {
        begun(&stage, scope, "v2");
        stage.signal(Signal::KILL);
        stage.ended();
    });
    fs::write(stage.at("logs/mended"), "").unwrap();
    stage.start();
    assert_eq!(ended(&stage).end.as_deref(), Some("rolled-back"));
    assert!(!read(&stage, "compose.yml").contains("broken"));
}

#[test]
fn what_nobody_is_known_to_have_made_is_listed_with_its_deployment() {
    let deploy = r#"
steps = [{ name = "files", run = "for n in $(seq 103); do echo x > scripts/new$n; done; touch logs/began; until test -e logs/go; do sleep 0.1; done" }]
"#;
    let mut stage = Stage::new(&configured(PLAIN, deploy));
    let text = fs::read_to_string(stage.config()).unwrap();
    stage.write_config(&text.replacen("[daemon]\n", "[daemon]\nwatch = \"inotify\"\n", 1));
    stage.start();
    stage.lock();
    std::thread::scope(|scope| {
        begun(&stage, scope, "v2");
        let id = last(&stage).id;
        // Seen before they become part of a baseline.
        let shown = wait::until("all changes", || {
            let shown = stage.call(&ShowDeployment { environment: None, id });
            Some(shown).filter(|shown| shown.assumed_total >= 103)
        });
        assert_eq!((shown.assumed_total, shown.assumed.len()), (103, 100));
        assert!(shown.assumed.iter().all(|f| f.path.starts_with("scripts/new") && f.actor.is_none()));
        let text = text_of(&stage.guardctl(["deployments", "show", &id.to_string()]));
        assert!(text.contains("created  scripts/new") && text.contains("and 3 more"), "{text}");
        fs::write(stage.at("logs/go"), "").unwrap();
    });
    assert_eq!(last(&stage).end.as_deref(), Some("done"));
}

/// Needs fanotify, which tells who it was.
#[test]
fn what_somebody_else_changes_meanwhile_is_an_alert_inside_the_window_too() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("left out: only root is told who changed something");
    }
    let stage = Stage::locked(&configured(PLAIN, HANGS));
    std::thread::scope(|scope| {
        begun(&stage, scope, "v2");
        fs::write(stage.at("backend/app/main.py"), "an intruder's\n").unwrap();
        let alert = wait::until("the alert", || {
            stage
                .open_alerts()
                .into_iter()
                .find(|a| a.title.contains("changed by somebody else during deployment"))
        });
        assert_eq!(
            alert.findings.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
            ["backend/app/main.py"]
        );
        assert_eq!(alert.severity, Severity::High);
        stage.call(&Cancel::default());
        assert_eq!(ended(&stage).end.as_deref(), Some("rolled-back"));
    });
    // What the step itself did is its own, and no alert.
    assert!(stage.found_paths().iter().all(|path| path != "compose.yml"), "{:?}", stage.found_paths());
    assert_ne!(read(&stage, "backend/app/main.py"), "an intruder's\n");
}
