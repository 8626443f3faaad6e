//! What is mounted over a protected path, the root, or a directory above it: told as a mount, with who did it where the
//! kernel tells, and over a restart.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use guard_api::wire::{Change as C, Finding};

use crate::stage::{ENV, PLAIN, Stage, run};
use crate::tree::root_for;
use crate::wait;

/// A mount of the host's that goes with the test.
struct Mounted(PathBuf);

impl Mounted {
    fn bind(what: &Path, over: &Path) -> Self {
        assert!(run(Command::new("mount").arg("--bind").args([what, over])).status.success());
        Self(over.to_owned())
    }

    fn tmpfs(over: &Path) -> Self {
        assert!(run(Command::new("mount").args(["-t", "tmpfs", "none"]).arg(over)).status.success());
        Self(over.to_owned())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let done = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(done.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

/// Who mounted it is named: right, or not at all (before Linux 6.14).
fn is_named_rightly(found: &Finding) {
    let name = found.actor.as_ref().and_then(|actor| actor.comm.clone());
    assert!(name.is_none() || name.as_deref() == Some("mount"), "{found:?}");
}

#[test]
fn a_bind_mount_that_changes_nothing_else_is_a_mount() {
    if !root_for("mounting") {
        return;
    }
    let mut stage = Stage::locked(PLAIN);
    let (file, dir) = (stage.at("compose.yml"), stage.at("backend"));
    {
        let _file = Mounted::bind(&file, &file);
        let _dir = Mounted::bind(&dir, &dir);
        for path in ["compose.yml", "backend"] {
            let found = stage.finding(path);
            assert_eq!(found.change, [C::Mount], "{found:?}");
            is_named_rightly(&found);
        }
        let found: Vec<_> = stage.check().findings.into_iter().map(|f| (f.path, f.change)).collect();
        let expected = ["backend", "compose.yml"].map(|path| (path.to_owned(), vec![C::Mount]));
        assert_eq!(found, expected);
        // No event tells the next start.
        stage.stop();
        stage.start();
        assert_eq!(stage.check().findings.len(), 2);
        assert!(stage.open_alerts().iter().all(|alert| alert.settled.is_empty()));
    }
    wait::until_true("that it is over", || stage.check().clean);
}

#[test]
fn what_was_mounted_at_lock_is_expected_and_its_end_is_a_mount() {
    if !root_for("mounting") {
        return;
    }
    let mut stage = Stage::new(PLAIN);
    let other = stage.path("other");
    fs::create_dir(&other).unwrap();
    let dir = stage.at("backend");
    {
        let _mounted = Mounted::bind(&other, &dir);
        stage.start();
        stage.lock();
        assert!(stage.check().clean);
        assert_eq!(stage.open_alerts(), []);
    }
    assert!(stage.finding("backend").change.contains(&C::Mount));
}

#[test]
fn mounts_over_the_root_and_above_it_are_mounts() {
    if !root_for("mounting") {
        return;
    }
    let mut stage = Stage::new(PLAIN);
    let (above, other) = (stage.path("above"), stage.path("other"));
    let app = above.join("app");
    fs::create_dir(&above).unwrap();
    fs::create_dir(&other).unwrap();
    fs::rename(stage.app(), &app).unwrap();
    stage.write_config(&(stage.daemon_section() + &stage.environment_section(ENV, &app, PLAIN)));
    stage.start();
    stage.lock();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    for (what, mounted, found_at) in [
        ("itself over the root", Mounted::bind as fn(&Path, &Path) -> Mounted, &app),
        ("another directory over the root", Mounted::bind, &app),
        ("another directory over the one above", Mounted::bind, &above),
        ("a tmpfs over the one above", |_, over| Mounted::tmpfs(over), &above),
    ] {
        let source = if what.starts_with("itself") { &app } else { &other };
        let mounted = mounted(source, found_at);
        let found = stage.finding_that_changes(&path(found_at), C::Mount);
        assert!(found.change.contains(&C::Root), "{what}: {found:?}");
        is_named_rightly(&found);
        drop(mounted);
        wait::until_true(what, || !stage.degraded().iter().any(|d| d.contains(&path(&app))));
        for alert in stage.open_alerts() {
            stage.acknowledge(alert.id);
        }
    }
}
