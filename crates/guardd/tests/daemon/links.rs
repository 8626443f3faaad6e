//! `lock --break-links`: files with names outside the root get inodes of their own.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use guard_api::method::Lock;
use guard_api::wire::{LockResult, State};
use guard_api::{Client, Exit, Known};

use crate::stage::{SEALED, Stage, text_of};
use crate::tree::{chmod, mode, write};
use crate::wait;

fn breaking() -> Lock {
    Lock { break_links: Some(true), ..Lock::default() }
}

#[track_caller]
fn break_links(stage: &Stage) -> LockResult {
    stage.call(&breaking()).result.unwrap()
}

/// A file outside the root, linked into it by these names.
fn shared(stage: &Stage, names: &[&str]) -> PathBuf {
    let outside = stage.path("elsewhere");
    write(&outside, "shared");
    chmod(&outside, 0o664);
    rustix::fs::setxattr(&outside, "user.kept", b"value", rustix::fs::XattrFlags::empty()).ok();
    for name in names {
        write(&stage.at(name), "");
        fs::remove_file(stage.at(name)).unwrap();
        fs::hard_link(&outside, stage.at(name)).unwrap();
    }
    outside
}

fn inode(path: &Path) -> (u64, u64) {
    let m = fs::metadata(path).unwrap();
    (m.ino(), m.nlink())
}

/// Everything but the mode that a copy has to keep.
fn kept(path: &Path) -> (Vec<u8>, u32, u32, i64, i64, Vec<u8>) {
    let m = fs::metadata(path).unwrap();
    let mut value = vec![0; 64];
    let n = rustix::fs::getxattr(path, "user.kept", &mut value).unwrap_or(0);
    (fs::read(path).unwrap(), m.uid(), m.gid(), m.mtime(), m.mtime_nsec(), value[..n].to_vec())
}

fn temporary(dir: &Path) -> Option<PathBuf> {
    let all = fs::read_dir(dir).unwrap().flatten().map(|e| e.path());
    all.into_iter().find(|p| p.file_name().unwrap().to_string_lossy().starts_with(".guardd-"))
}

#[test]
fn a_link_to_outside_is_broken_and_sealed() {
    let mut stage = Stage::new(SEALED);
    let outside = shared(&stage, &["shared"]);
    let (before, old) = (kept(&outside), inode(&outside));
    stage.start();
    let locked = break_links(&stage);
    assert!(
        locked.warnings.iter().any(|w| w.starts_with("1 files with links to outside")),
        "{:?}",
        locked.warnings
    );
    assert!(locked.skipped.iter().all(|s| s.path != "shared"), "{:?}", locked.skipped);
    // Two files now, each with what it had, and only the one inside is sealed.
    assert_eq!((kept(&stage.at("shared")), kept(&outside)), (before.clone(), before));
    assert_eq!((mode(&stage.at("shared")), mode(&outside)), (0o444, 0o664));
    assert_eq!((inode(&outside), inode(&stage.at("shared")).1), ((old.0, 1), 1));
    assert_ne!(inode(&stage.at("shared")).0, old.0);
    assert_eq!(temporary(&stage.app()), None);
    assert!(stage.check().clean);
    fs::write(&outside, "goes on").unwrap();
    assert_eq!(fs::read(stage.at("shared")).unwrap(), b"shared");
    stage.unlock();
    assert_eq!(mode(&stage.at("shared")), 0o664);
    assert!(stage.check().clean, "{:?}", stage.check().findings);
    // There is nothing to break any more, and nothing is said.
    let again = break_links(&stage);
    assert!(again.warnings.iter().all(|w| !w.contains("links")), "{:?}", again.warnings);
}

#[test]
fn names_inside_stay_one_file() {
    let mut stage = Stage::new(SEALED);
    let names = ["one", "backend/two"];
    let outside = shared(&stage, &names);
    write(&stage.at("inside-a"), "x");
    fs::hard_link(stage.at("inside-a"), stage.at("inside-b")).unwrap();
    let inside = inode(&stage.at("inside-a"));
    stage.start();
    break_links(&stage);
    let [one, two] = names.map(|n| inode(&stage.at(n)));
    assert_eq!((one, one.1, inode(&outside).1), (two, 2, 1));
    assert_ne!(one.0, inode(&outside).0);
    assert_eq!(names.map(|n| mode(&stage.at(n))), [0o444, 0o444]);
    // Links that do not lead outside are none to break.
    assert_eq!(inode(&stage.at("inside-b")), inside);
}

#[test]
fn an_open_file_is_not_copied() {
    let mut stage = Stage::new(SEALED);
    let outside = shared(&stage, &["shared"]);
    let old = inode(&outside);
    stage.start();
    let writer = fs::OpenOptions::new().append(true).open(&outside).unwrap();
    match stage.refused(&breaking()) {
        Known::Refused { message, anyway: true, .. } => assert!(message.contains("shared by"), "{message}"),
        other => panic!("{other:?}"),
    }
    assert_eq!((inode(&outside), stage.site().state), (old, State::Unlocked));
    let locked = stage.call(&Lock { anyway: Some(true), ..breaking() }).result.unwrap();
    assert!(locked.warnings.iter().any(|w| w.contains("shared keeps its link")), "{:?}", locked.warnings);
    assert!(locked.skipped.iter().any(|s| s.path == "shared"), "{:?}", locked.skipped);
    assert_eq!((inode(&outside), mode(&outside)), (old, 0o664));
    drop(writer);
}

#[test]
fn a_locked_environment_keeps_its_links() {
    let mut stage = Stage::new(SEALED);
    let outside = shared(&stage, &["shared"]);
    stage.start();
    stage.lock();
    let said = stage.guardctl(["lock", "--break-links"]);
    assert_eq!(said.status.code(), Some(i32::from(Exit::Refused.code())), "{}", text_of(&said));
    assert!(text_of(&said).contains("unlock it"), "{}", text_of(&said));
    assert_eq!(inode(&outside).1, 2);
}

#[test]
fn killed_while_it_copies() {
    let mut stage = Stage::new(SEALED);
    let outside = shared(&stage, &["backend/shared"]);
    // A hole that takes its time to be read.
    fs::OpenOptions::new().write(true).open(&outside).unwrap().set_len(8 << 30).unwrap();
    let old = inode(&outside);
    stage.start();
    let socket = stage.socket();
    let asked = std::thread::spawn(move || {
        // It never hears an answer.
        Client::connect(&socket).unwrap().call(&breaking()).is_err()
    });
    let left = wait::until("a copy under way", || temporary(&stage.at("backend")));
    stage.kill();
    assert!(asked.join().unwrap(), "it was locked before it was killed");
    assert!(left.exists() && stage.state("plans/site.jsonl").exists());
    stage.start();
    assert!(!left.exists() && !stage.state("plans/site.jsonl").exists());
    assert_eq!((inode(&stage.at("backend/shared")), inode(&outside)), (old, old));
    let recovered = stage.events("recovered");
    assert!(
        recovered.iter().any(|r| {
            r.fields["operation"] == "lock --break-links"
                && r.fields["how"].as_str().is_some_and(|how| how.contains("1 copies removed"))
        }),
        "{recovered:?}"
    );
    // And now in peace.
    fs::OpenOptions::new().write(true).open(&outside).unwrap().set_len(6).unwrap();
    break_links(&stage);
    assert_eq!(inode(&outside), (old.0, 1));
}
