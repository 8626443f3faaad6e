//! An unprivileged owner of the tree races the daemon: names are swapped for links, fifos and other
//! directories, and files from outside are linked in and moved about, while it locks and unlocks, and
//! while it puts back, by a command or by itself. Nothing outside may change, and the daemon goes on.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use guard_api::method::{AcknowledgeAlert, Lock, Restore, VerifyLog};
use guard_api::{ClientError, Method};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, RenameFlags, StatxFlags, Uid, mknodat, renameat_with, statx,
};

use crate::stage::{Stage, wish};
use crate::tree::{chmod, root_for, write};
use crate::wait;

const NOBODY: u32 = 65534;

/// Rounds of an operation, and how many swaps there are to be at least. There are four of these races: together
/// they are more than 100,000 swaps.
fn measure() -> (u32, u64) {
    if std::env::var_os("GUARDD_TEST_FULL").is_some_and(|v| v == "1") { (100, 250_000) } else { (8, 30_000) }
}

/// So often an operation is to come about, if it does within a third of [`LONGEST`].
const ENOUGH: usize = 4;

/// Nothing that is asked for takes longer, however it is raced.
const LONGEST: Duration = Duration::from_secs(120);

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

const SWAPS: [Swap; 8] = [
    |app, _| exchange(app, "d", "d.link"),
    |app, _| exchange(app, "e", "e.link"),
    |app, _| exchange(app, "e", "p"),
    |app, _| exchange(app, "d", "d2"),
    link_that_moves,
    |app, outside| {
        let name = app.join("d/h");
        fs::hard_link(outside.join("theirs"), &name).is_ok() | fs::remove_file(&name).is_ok()
    },
    temporary_names,
    additions,
];

/// What guardd makes beside a path, or sets aside, is exchanged for a link, a file from outside or a fifo.
fn temporary_names(app: &Path, outside: &Path) -> bool {
    let mut done = false;
    for dir in ["", "a", "z", "d", "m/3"] {
        let Ok(names) = fs::read_dir(app.join(dir)) else { continue };
        for name in names.flatten().filter(|n| n.file_name().as_bytes().starts_with(b".guardd-")) {
            let path = name.path();
            done |= match path.as_os_str().as_bytes().last().map(|b| b % 4) {
                Some(0) => exchange(app, "e.link", &path.to_string_lossy()),
                Some(1) => fs::rename(&path, app.join("a/stolen")).is_ok(),
                Some(2) => exchange(app, "p", &path.to_string_lossy()),
                _ => fs::remove_file(&path).is_ok() && fs::hard_link(outside.join("shared"), &path).is_ok(),
            };
        }
    }
    done | fs::rename(app.join("a/stolen"), app.join("z/stolen")).is_ok()
}

/// What should not be there, to be taken away: with links outside, a fifo and a file from outside in it. And a file
/// whose content is another.
fn additions(app: &Path, outside: &Path) -> bool {
    let dir = app.join("x/y");
    let made = fs::create_dir_all(&dir).is_ok();
    fs::hard_link(outside.join("shared"), dir.join("l")).ok();
    symlink(outside.join("d"), dir.join("s")).ok();
    let moved = fs::rename(&dir, app.join("z/y")).is_ok() | fs::rename(app.join("z/y"), &dir).is_ok();
    // As a whole: a name may lead outside when it is written to.
    let new = app.join("m/new");
    made | moved | (fs::write(&new, "evil").is_ok() && fs::rename(&new, app.join("m/3/f3")).is_ok())
}

/// Mounts over the tree's directories, as far as a user namespace lets it. It ends with whoever called this, however
/// that ends.
fn mounts(app: &Path) -> Option<Child> {
    let script = "while :; do mount --bind /etc d && umount d; mount -t tmpfs none a && umount a; done";
    let user = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--pdeathsig", "KILL"]);
    command.args(["unshare", "-Urm", "--pid", "--fork", "--kill-child", "sh", "-c", script]);
    command.current_dir(app).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

/// A call that may fail, but not for want of a daemon.
fn tried<M: Method>(stage: &Stage, method: &M) -> Option<M::Reply> {
    let began = Instant::now();
    let answer = stage.try_call(method);
    assert!(began.elapsed() < LONGEST, "{} took {:?}", M::NAME, began.elapsed());
    match answer {
        Ok(reply) => Some(reply),
        Err(ClientError::Call(_)) => None,
        Err(e) => panic!("the daemon did not answer: {e}"),
    }
}

/// Races rounds of what `defend` does, which says how often it came about. `stage` is as it is to be raced.
fn raced(what: &str, stage: &mut Stage, before: &Seen, mut defend: impl FnMut(&Stage, u32) -> usize) {
    let (rounds, least) = measure();
    let (app, outside) = (stage.app(), stage.path("outside"));
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut mounting = mounts(&app);
    let (mut came_about, mut round, began) = (0, 0, Instant::now());
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
            let goes_on = |round, came_about| {
                let is_enough = round >= rounds && swaps.load(Ordering::Relaxed) >= least;
                !is_enough || came_about < ENOUGH && began.elapsed() < LONGEST / 3
            };
            while goes_on(round, came_about) {
                came_about += defend(stage, round);
                assert_eq!(changed(before, &outside), NONE, "after {what} {round}");
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
    let swaps = swaps.load(Ordering::Relaxed);
    eprintln!("{what}: {swaps} swaps in {:?}, {came_about} of {round} came about", began.elapsed());
    assert!(came_about > 0, "not one came about");
    assert!(stage.is_running());
    assert!(stage.call(&VerifyLog {}).result.unwrap().ok);
    assert_eq!(changed(before, &outside), NONE);
}

/// A daemon with the attacker's tree, and what lies beside it.
fn attacked(section: &str) -> (Stage, Seen) {
    let mut stage = Stage::empty(&format!("{section}\nrehash = \"1h\"\n"));
    let outside = outside(&stage);
    inside(&stage);
    let before = look(&outside);
    stage.start();
    (stage, before)
}

fn lock_raced(seal: &str) {
    let (mut stage, before) = attacked(&format!("seal = \"{seal}\""));
    let outside = stage.path("outside");
    raced(&format!("{seal} lock"), &mut stage, &before, |stage, round| {
        let wanted = Lock { break_links: Some(round % 3 == 2), anyway: Some(true), ..Lock::default() };
        let is_locked = tried(stage, &wanted).is_some();
        assert_eq!(changed(&before, &outside), NONE, "after lock {round}");
        tried(stage, &wish(None));
        usize::from(is_locked)
    });
}

#[test]
fn who_races_a_lock_reaches_nothing_outside() {
    if root_for("to seal what another user owns") {
        lock_raced("read-only");
    }
}

#[test]
fn who_races_an_immutable_seal_reaches_nothing_outside() {
    if root_for("to seal what another user owns") {
        lock_raced("immutable");
    }
}

fn everything() -> Restore {
    Restore { environment: None, paths: vec![".".to_owned()], from: None, plan: None }
}

/// Where nobody races any more everything comes back, and nothing of guardd's own is left.
fn comes_back(stage: &Stage) {
    wait::until_true("everything to be put back", || {
        let result = tried(stage, &everything()).and_then(|r| r.result);
        result.is_some_and(|r| r.skipped.is_empty()) && stage.check().clean
    });
}

#[test]
fn who_races_a_restore_reaches_nothing_outside() {
    if !root_for("to put back what another user owns") {
        return;
    }
    let (mut stage, before) = attacked("seal = \"none\"");
    stage.lock();
    raced("restore", &mut stage, &before, |stage, _| {
        tried(stage, &everything()).and_then(|r| r.result).map_or(0, |r| r.steps.len())
    });
    comes_back(&stage);
    assert_eq!(changed(&before, &stage.path("outside")), NONE);
}

#[test]
fn who_races_what_guardd_puts_back_by_itself_reaches_nothing_outside() {
    if !root_for("to put back what another user owns") {
        return;
    }
    let (mut stage, before) = attacked("seal = \"read-only\"\non_tamper = \"restore\"");
    stage.lock();
    let mut seen = 0;
    raced("self-restore", &mut stage, &before, |stage, _| {
        // Whoever looks at once lets it go on, as often as it has stopped.
        for stopped in stage.events("put_back_stopped") {
            let id = stopped.fields["alert"].as_u64().unwrap();
            tried(stage, &AcknowledgeAlert { id, note: "go on".to_owned() });
        }
        std::thread::sleep(Duration::from_millis(20));
        let restored = stage.events("restored").len();
        restored - std::mem::replace(&mut seen, restored)
    });
    comes_back(&stage);
    assert_eq!(changed(&before, &stage.path("outside")), NONE);
}
