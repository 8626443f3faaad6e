//! An unprivileged owner of the tree races the daemon: names are swapped for links, fifos and other
//! directories, and files from outside are linked in and moved about, while it locks and unlocks.
//! Nothing outside may change, and the daemon goes on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use guard_api::method::{Lock, VerifyLog};
use guard_api::{ClientError, Method};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, RenameFlags, StatxFlags, Uid, mknodat, renameat_with, statx,
};

use crate::stage::{Stage, wish};
use crate::tree::{chmod, root_for, write};

const NOBODY: u32 = 65534;

/// Rounds of lock and unlock, and how many swaps there are to be at least.
fn measure() -> (u32, u64) {
    if std::env::var_os("GUARDD_TEST_FULL").is_some_and(|v| v == "1") { (100, 100_000) } else { (8, 3_000) }
}

/// What lies beside the root: what may be linked in (by whoever may write it, or owns it), and what
/// links lead to.
fn outside(stage: &Stage) -> PathBuf {
    let dir = stage.path("outside");
    for (name, owner, mode) in [
        ("secret", 0, 0o600),
        ("shared", 0, 0o666),
        ("theirs", NOBODY, 0o644),
        ("d/f", 0, 0o644),
        ("d/sub/g", 0, 0o666),
    ] {
        write(&dir.join(name), name);
        chmod(&dir.join(name), mode);
        lchown(dir.join(name), Some(owner), Some(owner)).unwrap();
    }
    dir
}

type Seen = BTreeMap<PathBuf, (u16, u32, u32, u64, Vec<u8>)>;

/// What differs outside, before and now.
fn changed(before: &Seen, outside: &Path) -> Vec<String> {
    let now = look(outside);
    let paths = before.keys().chain(now.keys().filter(|path| !before.contains_key(*path)));
    let differ = paths.filter(|path| before.get(*path) != now.get(*path));
    differ
        .map(|path| format!("{}: {:x?} -> {:x?}", path.display(), before.get(path), now.get(path)))
        .collect()
}

const NONE: [String; 0] = [];

/// Mode, owner, inode attributes (immutable and append-only among them) and content.
fn look(dir: &Path) -> Seen {
    let mut seen = BTreeMap::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        let s = statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).unwrap();
        let is_dir = FileType::from_raw_mode(s.stx_mode.into()) == FileType::Directory;
        let text = if is_dir { Vec::new() } else { fs::read(&path).unwrap() };
        if is_dir {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        seen.insert(path, (s.stx_mode, s.stx_uid, s.stx_gid, s.stx_attributes.bits(), text));
    }
    seen
}

/// What stands in the tree at first, all the attacker's own.
fn inside(stage: &Stage) {
    let app = stage.app();
    for name in ["d/f", "d/sub/g", "d2/f", "e", "a/keep", "z/keep"] {
        write(&app.join(name), name);
    }
    // The walk takes a while.
    for n in 0..120 {
        write(&app.join(format!("m/{}/f{n}", n % 12)), "x");
    }
    symlink(stage.path("outside/d"), app.join("d.link")).unwrap();
    symlink(stage.path("outside/secret"), app.join("e.link")).unwrap();
    mknodat(CWD, app.join("p"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
    give_away(&app);
}

fn give_away(path: &Path) {
    lchown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    if path.symlink_metadata().unwrap().is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            give_away(&entry.unwrap().path());
        }
    }
}

/// This thread's rights are nobody's from now on.
fn become_nobody() {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::thread::set_thread_groups(&[]).unwrap();
    rustix::thread::set_thread_res_gid(group, group, group).unwrap();
    rustix::thread::set_thread_res_uid(user, user, user).unwrap();
}

/// One thing that the attacker does over and over. What the seal refuses is tried again later.
type Swap = fn(&Path, &Path) -> bool;

fn exchange(app: &Path, one: &str, other: &str) -> bool {
    renameat_with(CWD, app.join(one), CWD, app.join(other), RenameFlags::EXCHANGE).is_ok()
}

/// The seal's modes are the owner's to undo.
fn open_up(app: &Path) {
    for name in ["", "a", "z", "d", "d2", "d/sub"] {
        let path = app.join(name);
        if path.symlink_metadata().is_ok_and(|m| m.is_dir()) {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).ok();
        }
    }
}

/// A file from outside has one name here at any moment, and a walk may meet it twice.
fn link_that_moves(app: &Path, outside: &Path) -> bool {
    let (here, there) = (app.join("a/l"), app.join("z/l"));
    fs::hard_link(outside.join("shared"), &here).ok();
    let moved = fs::rename(&here, &there).is_ok() | fs::rename(&there, &here).is_ok();
    moved | fs::rename(&here, &there).is_ok()
}

const SWAPS: [Swap; 6] = [
    |app, _| exchange(app, "d", "d.link"),
    |app, _| exchange(app, "e", "e.link"),
    |app, _| exchange(app, "e", "p"),
    |app, _| exchange(app, "d", "d2"),
    link_that_moves,
    |app, outside| {
        let name = app.join("d/h");
        fs::hard_link(outside.join("theirs"), &name).is_ok() | fs::remove_file(&name).is_ok()
    },
];

/// Mounts over the tree's directories, as far as a user namespace lets it.
fn mounts(app: &Path) -> Option<Child> {
    let script = "while :; do mount --bind /etc d && umount d; mount -t tmpfs none a && umount a; done";
    let user = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        "unshare",
        "-Urm",
        "sh",
        "-c",
        script,
    ]);
    command.current_dir(app).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

/// A call that may fail, but not for want of a daemon.
fn tried<M: Method>(stage: &Stage, method: &M) -> bool {
    match stage.try_call(method) {
        Ok(_) => true,
        Err(ClientError::Call(_)) => false,
        Err(e) => panic!("the daemon did not answer: {e}"),
    }
}

fn attacked(seal: &str) {
    let mut stage = Stage::empty(&format!("seal = \"{seal}\"\nrehash = \"1h\"\n"));
    let outside = outside(&stage);
    inside(&stage);
    let before = look(&outside);
    stage.start();
    let (rounds, least) = measure();
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let app = stage.app();
    let mut mounting = mounts(&app);
    let mut locked = 0;
    std::thread::scope(|scope| {
        for swap in SWAPS {
            let (app, outside, stop, swaps) = (&app, &outside, &stop, &swaps);
            scope.spawn(move || {
                become_nobody();
                while !stop.load(Ordering::Relaxed) {
                    if swap(app, outside) {
                        swaps.fetch_add(1, Ordering::Relaxed);
                    } else {
                        open_up(app);
                        std::thread::yield_now();
                    }
                }
            });
        }
        let defended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut round = 0;
            while round < rounds || swaps.load(Ordering::Relaxed) < least {
                let wanted =
                    Lock { break_links: Some(round % 3 == 2), anyway: Some(true), ..Lock::default() };
                locked += u32::from(tried(&stage, &wanted));
                assert_eq!(changed(&before, &outside), NONE, "after lock {round}");
                tried(&stage, &wish(None));
                assert_eq!(changed(&before, &outside), NONE, "after unlock {round}");
                round += 1;
            }
        }));
        stop.store(true, Ordering::Relaxed);
        if let Err(failed) = defended {
            std::panic::resume_unwind(failed);
        }
    });
    if let Some(mounting) = &mut mounting {
        mounting.kill().ok();
        mounting.wait().ok();
    }
    eprintln!("{seal}: {} swaps, {locked} locks that came about", swaps.load(Ordering::Relaxed));
    assert!(locked > 0, "not one lock came about");
    assert!(stage.is_running());
    assert!(stage.call(&VerifyLog {}).result.unwrap().ok);
    assert_eq!(changed(&before, &outside), NONE);
}

#[test]
fn who_races_a_lock_reaches_nothing_outside() {
    if root_for("to seal what another user owns") {
        attacked("read-only");
    }
}

#[test]
fn who_races_an_immutable_seal_reaches_nothing_outside() {
    if root_for("to seal what another user owns") {
        attacked("immutable");
    }
}
