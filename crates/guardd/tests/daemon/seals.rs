//! The immutable flag: what it stops, what it is taken from exactly, and what is
//! said where it cannot be set.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use guard_api::wire::{Change as C, LockResult, State};

use crate::stage::{IMMUTABLE, SEALED, Stage, text_of};
use crate::tree::{chattr, chmod, flags, flags_for, mode, picture, root_for, write};
use crate::wait;
use crate::windows::odd_modes;

/// The sample application with every flag that is easy to lose.
fn odd_flags(stage: &Stage) {
    odd_modes(stage);
    for (name, change) in
        [("d", "+d"), ("noatime", "+A"), ("append", "+a"), ("immutable", "+i"), ("all", "+iadA")]
    {
        let path = stage.at(format!("flags/{name}"));
        write(&path, name);
        chmod(&path, 0o664);
        chattr(change, &path);
    }
    for (name, change) in [("dir-append", "+a"), ("dir-immutable", "+i"), ("dir-nodump", "+d")] {
        let path = stage.at(format!("flags/{name}"));
        fs::create_dir(&path).unwrap();
        write(&path.join("f"), "x");
        chmod(&path, 0o775);
        chattr(change, &path);
    }
}

/// The daemon's command without the right to set the flag.
fn without_the_right(stage: &Stage) -> Command {
    let guardd = stage.command();
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-linux_immutable", "--inh-caps", "-linux_immutable"]);
    command.arg(guardd.get_program()).args(guardd.get_args());
    for (name, value) in guardd.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// The paths below `root` that carry the immutable flag.
fn immutable_below(root: &Path, under: &str, all: &mut BTreeMap<String, String>) {
    let path = root.join(under);
    let meta = path.symlink_metadata().unwrap();
    if meta.is_file() || meta.is_dir() {
        all.insert(under.to_owned(), flags(&path));
    }
    if meta.is_dir() {
        for entry in fs::read_dir(&path).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            immutable_below(root, &if under.is_empty() { name } else { format!("{under}/{name}") }, all);
        }
    }
}

fn skipped(locked: &LockResult) -> Vec<String> {
    locked.skipped.iter().map(|s| format!("{}: {}", s.path, s.why)).collect()
}

#[test]
fn unlock_gives_back_the_exact_modes_and_flags() {
    if !flags_for("setting inode flags") {
        return;
    }
    for section in [IMMUTABLE, SEALED] {
        let mut stage = Stage::new(section);
        odd_flags(&stage);
        let original = picture(&stage.app());
        stage.start();
        let locked = stage.lock();
        assert_eq!(locked.seal.asked, locked.seal.done, "{:?}", locked.warnings);
        assert!(locked.warnings.is_empty(), "{:?}", locked.warnings);
        let sealed = picture(&stage.app());
        assert_ne!(sealed, original);
        assert!(stage.check().clean, "{:?}", stage.check().findings);
        assert_eq!(flags(&stage.at("flags/all")), "iadA");
        assert_eq!(mode(&stage.at("flags/immutable")), 0o444);

        let done = stage.unlock();
        assert!(done.skipped.is_empty(), "{done:?}");
        assert_eq!(picture(&stage.app()), original);
        assert!(stage.check().clean, "{:?}", stage.check().findings);
        stage.lock();
        assert_eq!(picture(&stage.app()), sealed);
        // Without the daemon, by the same record.
        stage.stop();
        let unsealed = stage.offline(["unseal", "--offline", "site"]);
        assert_eq!(unsealed.status.code(), Some(0), "{}", text_of(&unsealed));
        assert_eq!(picture(&stage.app()), original);
    }
}

#[test]
fn even_root_cannot_change_what_is_sealed_and_the_application_goes_on() {
    if !flags_for("setting inode flags") {
        return;
    }
    let mut stage = Stage::new(IMMUTABLE);
    write(&stage.at("inside/a"), "x");
    fs::hard_link(stage.at("inside/a"), stage.at("inside/b")).unwrap();
    stage.start();
    let locked = stage.lock();
    let mut all = BTreeMap::new();
    immutable_below(&stage.app(), "", &mut all);
    let bare: Vec<&str> = all.iter().filter(|(_, f)| !f.contains('i')).map(|(p, _)| p.as_str()).collect();
    // The root directly holds writable directories: neither flag nor mode.
    assert_eq!(bare, ["", "logs", "logs/access.log", "media", "media/photo.jpg"]);
    assert_eq!(mode(&stage.app()), 0o755);
    assert_eq!(
        skipped(&locked),
        [".: not sealed: directory holds ignored or writable entries", "current: not sealed: symbolic link"]
    );
    assert_eq!(locked.seal.unsealed, 2);

    let refused = |done: std::io::Result<()>| done.unwrap_err().kind() == ErrorKind::PermissionDenied;
    let main = stage.at("backend/app/main.py");
    assert!(refused(fs::write(&main, "x")));
    assert!(refused(fs::OpenOptions::new().append(true).open(&main).map(drop)));
    assert!(refused(fs::remove_file(&main)));
    assert!(refused(fs::rename(&main, stage.at("logs/main.py"))));
    assert!(refused(fs::rename(stage.at("backend/app"), stage.at("backend/gone"))));
    assert!(refused(fs::write(stage.at("backend/app/new.py"), "x")));
    assert!(refused(fs::hard_link(&main, stage.at("logs/main.py"))));
    assert!(refused(fs::set_permissions(&main, std::os::unix::fs::PermissionsExt::from_mode(0o666))));
    assert!(refused(fs::rename(stage.path("log"), stage.at("backend/app"))));

    fs::write(stage.at("logs/access.log"), "GET /\n").unwrap();
    fs::write(stage.at("media/upload.jpg"), "jpeg").unwrap();
    fs::remove_file(stage.at("media/photo.jpg")).unwrap();
    assert!(stage.check().clean);
    assert_eq!(stage.findings(), []);
}

#[test]
fn a_lifted_flag_is_an_alert_and_lock_puts_it_right() {
    if !flags_for("setting inode flags") {
        return;
    }
    let stage = Stage::locked(IMMUTABLE);
    let sealed = picture(&stage.app());
    chattr("-i", &stage.at("backend/app/main.py"));
    let found = stage.check();
    assert_eq!(found.findings.len(), 1, "{:?}", found.findings);
    assert_eq!(found.findings[0].change, [C::Flags, C::Seal]);
    let repaired = stage.lock();
    assert_eq!((repaired.repaired, repaired.skipped.len()), (Some(1), 0));
    assert_eq!(picture(&stage.app()), sealed);
    assert!(stage.check().clean);
}

#[test]
fn what_is_accepted_is_sealed_again() {
    if !flags_for("setting inode flags") {
        return;
    }
    let mut stage = Stage::new(IMMUTABLE);
    chmod(&stage.at("backend/app/main.py"), 0o664);
    stage.start();
    stage.lock();
    let dir = stage.at("backend/app");
    for path in [dir.clone(), dir.join("main.py")] {
        chattr("-i", &path);
    }
    fs::write(dir.join("main.py"), "print('patched')\n").unwrap();
    write(&dir.join("new.py"), "new");
    chmod(&dir.join("new.py"), 0o640);
    stage.finding_that_changes("backend/app/main.py", C::Content);
    stage.finding("backend/app/new.py");
    // The directory's flag makes no event: it is looked at where it is named.
    let found = stage.finding_that_changes("backend/app", C::Seal);
    assert_eq!(found.change, [C::Flags, C::Seal]);
    stage.accept(&["backend/app"]);
    for (path, mode_now) in
        [("backend/app", 0o555), ("backend/app/main.py", 0o444), ("backend/app/new.py", 0o440)]
    {
        assert_eq!((flags(&stage.at(path)).as_str(), mode(&stage.at(path))), ("i", mode_now), "{path}");
    }
    assert!(stage.check().clean, "{:?}", stage.check().findings);
    stage.unlock();
    for (path, mode_now) in
        [("backend/app", 0o755), ("backend/app/main.py", 0o664), ("backend/app/new.py", 0o640)]
    {
        assert_eq!((flags(&stage.at(path)).as_str(), mode(&stage.at(path))), ("", mode_now), "{path}");
    }
}

#[test]
fn without_the_right_it_is_sealed_read_only_and_says_why() {
    if !root_for("taking a right away from the daemon") {
        return;
    }
    let mut stage = Stage::new(IMMUTABLE);
    let command = without_the_right(&stage);
    stage.start_as(command);
    stage.wait_for_answer();
    let locked = stage.lock();
    let why = "guardd may not set the immutable flag, which takes CAP_LINUX_IMMUTABLE";
    assert_eq!((locked.seal.asked.as_str(), locked.seal.done.as_str()), ("immutable", "read-only"));
    assert_eq!(locked.seal.why.as_deref(), Some(why));
    assert!(stage.said().contains(why));
    // Not one by one: only what has no seal at all.
    assert_eq!(locked.seal.unsealed, 2);
    assert_eq!(mode(&stage.at("backend/app/main.py")), 0o444);
    stage.stop();

    // It may from now on; what is locked stays as it was locked, and says why.
    stage.start();
    let seal = stage.site().seal.unwrap();
    assert_eq!((seal.done.as_str(), seal.why.as_deref(), seal.unsealed), ("read-only", Some(why), 2));
    assert!(stage.check().clean);
    stage.unlock();
    assert_eq!(mode(&stage.at("backend/app/main.py")), 0o644);
    if flags_for("setting inode flags") {
        assert_eq!(stage.lock().seal.done, "immutable");
    }
}

#[test]
fn a_file_system_without_the_flag_is_sealed_read_only_and_says_why() {
    if !root_for("mounting a file system without flags") {
        return;
    }
    let mut stage = Stage::new(IMMUTABLE);
    fs::rename(stage.app(), stage.path("sample")).unwrap();
    fs::create_dir(stage.app()).unwrap();
    let guardd = stage.command();
    let mut command = Command::new("unshare");
    // In a mount namespace of its own: gone with the daemon.
    let script = r#"mount -t ramfs none "$1" && cp -a "$2/." "$1" && shift 2 && exec "$@""#;
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(stage.app()).arg(stage.path("sample"));
    command.arg(guardd.get_program()).args(guardd.get_args());
    stage.start_as(command);
    stage.wait_for_answer();
    let locked = stage.lock();
    assert_eq!(locked.seal.done, "read-only");
    assert_eq!(locked.seal.why.as_deref(), Some("the file system has no immutable flag"));
    assert_eq!(stage.site().state, State::Locked);
    assert!(stage.check().clean);
    assert!(stage.unlock().skipped.is_empty());
}

#[test]
fn killed_at_any_moment_everything_is_sealed_or_nothing() {
    if !flags_for("setting inode flags") {
        return;
    }
    let mut stage = Stage::new(IMMUTABLE);
    odd_flags(&stage);
    for n in 0..300 {
        write(&stage.at(format!("many/{n}")), "x");
    }
    let original = picture(&stage.app());
    stage.start();
    stage.lock();
    let sealed = picture(&stage.app());
    stage.unlock();
    for millis in [1u64, 5, 10, 15, 20, 30, 40, 60, 90] {
        let stage_state = stage.site().state;
        let client = stage.client();
        let wish = match stage_state {
            State::Locked => std::thread::spawn(move || {
                let mut client = client;
                client.call(&crate::stage::wish(None)).map(drop).ok()
            }),
            _ => std::thread::spawn(move || {
                let mut client = client;
                client.call(&guard_api::method::Lock::default()).map(drop).ok()
            }),
        };
        // Not to wait for anything: to be early or late by different spans.
        std::thread::sleep(std::time::Duration::from_millis(millis));
        stage.kill();
        wish.join().unwrap();
        stage.start();
        let now = picture(&stage.app());
        match stage.site().state {
            State::Locked => assert_eq!(now, sealed, "after {millis} ms"),
            State::Unlocked => assert_eq!(now, original, "after {millis} ms"),
            other => panic!("{other:?} after {millis} ms"),
        }
    }
}

#[test]
fn a_weakened_seal_is_told_though_the_kernel_sends_no_event() {
    if !flags_for("setting inode flags") {
        return;
    }
    // Scans come once in a minute at most: what is found before was found by the rounds.
    let stage = Stage::locked(IMMUTABLE);
    let paths = [".env.prod", "backend/app", "compose.yml"];
    for path in paths {
        chattr("-i", &stage.at(path));
    }
    for path in paths {
        assert_eq!(stage.finding_that_changes(path, C::Seal).change, [C::Flags, C::Seal], "{path}");
    }
    let bound = wait::until("a whole round", || stage.site().seal.and_then(|seal| seal.every_ms));
    assert!(bound >= 1_000, "rounds of {bound} ms");

    // The same again is no news, another flag is, and what is put right is said to be.
    chattr("+a", &stage.at("compose.yml"));
    stage.change("compose.yml", &[C::Flags, C::Seal]);
    wait::until_true("another finding", || {
        stage.findings().iter().filter(|f| f.path == "compose.yml").count() == 2
    });
    chattr("-a", &stage.at("compose.yml"));
    for path in paths {
        chattr("+i", &stage.at(path));
    }
    for path in paths {
        wait::until_true("as before", || {
            stage.all_alerts().iter().any(|a| a.settled.iter().any(|s| s == path))
        });
    }
    assert_eq!(stage.findings().iter().filter(|f| f.path == "backend/app").count(), 1);
    assert!(stage.unlock().skipped.is_empty());
    assert_eq!(stage.site().seal.and_then(|seal| seal.every_ms), None);
}
