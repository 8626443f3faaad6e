//! Trees that were made to hurt.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use guard_model::{Entry, Kind, Observed, RelPath};
use guard_tree::{Content, MarksSet, Root, ScanContent, TreeError};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::fs::{CWD, FileType, Mode, mkdirat, mknodat};
use support::*;

/// Hears whether anybody opens one of these paths.
struct Openings(OwnedFd);

impl Openings {
    fn of(paths: &[&Path]) -> Self {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).unwrap();
        for path in paths {
            inotify::add_watch(&fd, *path, WatchFlags::OPEN).unwrap();
        }
        Self(fd)
    }

    fn any(&self) -> bool {
        let mut room = [MaybeUninit::uninit(); 4096];
        inotify::Reader::new(&self.0, &mut room).next().is_ok()
    }
}

#[test]
fn special_files_and_link_targets_are_never_opened() {
    let top = tempfile::tempdir().unwrap();
    let (root_path, outside) = (top.path().join("root"), top.path().join("outside"));
    fs::create_dir(&root_path).unwrap();
    fs::write(&outside, "not yours").unwrap();
    let fifo = root_path.join("fifo");
    rustix::fs::mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    let socket = root_path.join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    symlink(&outside, root_path.join("link")).unwrap();
    symlink("fifo", root_path.join("link_to_fifo")).unwrap();
    let mut watched = vec![fifo.as_path(), &socket, &outside];
    // Only root can make devices, and not in every container.
    let device = root_path.join("device");
    let made = mknodat(CWD, &device, FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 5));
    if made.is_ok() {
        watched.push(&device);
    }
    let openings = Openings::of(&watched);
    for resolver in resolvers() {
        let root = Root::open_with(&root_path, resolver).unwrap();
        for content in [ScanContent::All, ScanContent::WhereDiffers, ScanContent::None, ScanContent::Glance] {
            let o = try_scan(&root, &everything(), &RelPath::root(), content, 2).unwrap();
            assert_eq!(o.get("fifo").entry().kind, Kind::Fifo);
            assert_eq!(o.get("socket").entry().kind, Kind::Socket);
            assert_eq!(o.get("link").entry().kind, Kind::Symlink);
            if made.is_ok() {
                assert_eq!(o.get("device").entry().kind, Kind::CharDevice);
                assert_eq!(o.get("device").entry().rdev, 1 << 32 | 5);
            }
        }
        for name in ["fifo", "socket", "device", "link", "link_to_fifo"] {
            assert!(!matches!(root.observe(&rel(name), Content::Read), Observed::Unreadable { .. }));
            let set = root.set_marks(&rel(name), (0, 0), plain(0o400)).unwrap();
            assert!(matches!(set, MarksSet::Replaced | MarksSet::Vanished));
        }
    }
    assert!(!openings.any());
    fs::read(&outside).unwrap();
    assert!(openings.any(), "the watch works");
}

#[test]
fn symbolic_link_loops() {
    let top = tempfile::tempdir().unwrap();
    let at = |n: &str| top.path().join(n);
    symlink("b", at("a")).unwrap();
    symlink("a", at("b")).unwrap();
    symlink(".", at("self")).unwrap();
    fs::create_dir(at("d")).unwrap();
    symlink("..", at("d/up")).unwrap();
    for resolver in resolvers() {
        let root = Root::open_with(top.path(), resolver).unwrap();
        let o = scan_by(&root, &everything());
        assert_eq!(o.names(), [".", "a", "b", "d", "d/up", "self"]);
        assert_eq!(root.observe(&rel("a/x"), Content::Read), Observed::Absent);
        assert_eq!(root.observe(&rel("d/up/d"), Content::Read), Observed::Absent);
        assert!(root.observe_dir(&rel("self")).is_err());
    }
}

/// `levels` directories of `name`, one in the other, made one by one as no path can be so long.
fn dig(top: &Path, name: &str, levels: usize) -> OwnedFd {
    let mut at: OwnedFd = File::open(top).unwrap().into();
    for _ in 0..levels {
        mkdirat(&at, name, Mode::RWXU).unwrap();
        at = guard_sys::open::child(at.as_fd(), name.as_bytes(), guard_sys::open::How::List).unwrap();
    }
    at
}

#[test]
fn deeper_than_any_path_reaches() {
    let top = tempfile::tempdir().unwrap();
    let name = "d".repeat(100);
    let bottom = dig(top.path(), &name, 200);
    let file = rustix::fs::openat(
        &bottom,
        "f",
        rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
        Mode::RUSR | Mode::WUSR,
    )
    .unwrap();
    File::from(file).write_all(b"deep").unwrap();
    let path = RelPath::from_bytes(format!("{}/f", vec![name.as_str(); 200].join("/")).as_bytes()).unwrap();
    assert!(path.as_bytes().len() > 5 * 4096 - 300);
    for resolver in resolvers() {
        let root = Root::open_with(top.path(), resolver).unwrap();
        let o = scan_by(&root, &everything());
        assert_eq!(o.report.skipped, []);
        assert_eq!(o.found.len(), 202);
        let entry = o.found[path.as_bytes()].entry().clone();
        assert!(entry.sha256.is_some());
        assert_eq!(root.observe(&path, Content::Read), Observed::Present(entry.clone()));
        let mode = if entry.mode == 0o400 { 0o600 } else { 0o400 };
        let set = root.set_marks(&path, (entry.dev, entry.ino), plain(mode)).unwrap();
        assert_eq!(set, MarksSet::Done);
        assert_eq!(root.observe_dir(&path.parent().unwrap()).unwrap(), [(b"f"[..].into(), Kind::File)]);
    }
}

#[test]
fn deeper_than_anybody_wants_is_skipped_and_said() {
    let top = tempfile::tempdir().unwrap();
    drop(dig(top.path(), &"d".repeat(250), 300));
    let root = Root::open(top.path()).unwrap();
    let o = scan_by(&root, &everything());
    let (path, why) = &o.report.skipped[..][0].clone();
    assert_eq!(why, "holds paths of more than 65536 bytes");
    assert_eq!(o.report.skipped.len(), 1);
    assert!(o.found.contains_key(path.as_bytes()));
    assert_eq!(o.found.len(), 1 + 65536 / 251);
}

#[test]
fn many_directories_at_every_level_of_a_deep_tree() {
    // With a handle for each directory that waits, this would need a thousand descriptors.
    let top = tempfile::tempdir().unwrap();
    let mut at: OwnedFd = File::open(top.path()).unwrap().into();
    for _ in 0..1000 {
        mkdirat(&at, "a", Mode::RWXU).unwrap();
        mkdirat(&at, "b", Mode::RWXU).unwrap();
        at = guard_sys::open::child(at.as_fd(), b"b", guard_sys::open::How::List).unwrap();
    }
    let root = Root::open(top.path()).unwrap();
    let most = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // Other tests run beside this one; they hold few.
                if fs::read_dir("/proc/self/fd").unwrap().count() > 300 {
                    most.store(true, Ordering::Relaxed);
                }
            }
        });
        assert_eq!(scan_by(&root, &everything()).found.len(), 2001);
        done.store(true, Ordering::Relaxed);
    });
    assert!(!most.load(Ordering::Relaxed));
}

#[test]
fn empty_and_sparse_files() {
    let top = tempfile::tempdir().unwrap();
    File::create(top.path().join("empty")).unwrap();
    let sparse = File::create(top.path().join("sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, b"x", 3 << 20).unwrap();
    let root = Root::open(top.path()).unwrap();
    assert_eq!(scan_by(&root, &everything()).entries(), naive(top.path()));
}

#[test]
fn what_may_not_be_read_is_said() {
    let top = tempfile::tempdir().unwrap();
    let at = |n: &str| top.path().join(n);
    fs::create_dir(at("closed")).unwrap();
    fs::write(at("closed/inside"), "x").unwrap();
    fs::create_dir(at("no_search")).unwrap();
    fs::write(at("no_search/inside"), "x").unwrap();
    fs::write(at("secret"), "x").unwrap();
    fs::write(at("plain"), "x").unwrap();
    give_away(top.path());
    let close = |n: &str, mode| fs::set_permissions(at(n), fs::Permissions::from_mode(mode)).unwrap();
    close("secret", 0);
    close("closed", 0);
    close("no_search", 0o400);
    unprivileged(|| {
        for resolver in resolvers() {
            let root = Root::open_with(top.path(), resolver).unwrap();
            let o = scan_by(&root, &everything());
            let why = "open: Permission denied (os error 13)".to_owned();
            let Observed::Unreadable { entry: Some(entry), why: said } = &o.get("secret").observed else {
                panic!("{:?}", o.get("secret"));
            };
            assert_eq!((entry.mode, entry.size, said), (0, 1, &why));
            assert_eq!(root.observe(&rel("secret"), Content::Read), o.get("secret").observed);
            assert!(matches!(root.observe(&rel("secret"), Content::Skip), Observed::Present(_)));
            assert!(o.get("plain").entry().sha256.is_some());
            assert!(matches!(&o.get("closed").observed, Observed::Present(e) if e.mode == 0));
            let denied = "list: Permission denied (os error 13)".to_owned();
            assert_eq!(o.report.skipped, [(rel("closed"), denied)]);
            for hidden in ["closed/inside", "no_search/inside"] {
                let seen = root.observe(&rel(hidden), Content::Read);
                assert!(matches!(seen, Observed::Unreadable { entry: None, .. }), "{hidden}: {seen:?}");
            }
            // Names can be listed, and no more.
            assert!(matches!(o.get("no_search/inside").observed, Observed::Unreadable { entry: None, .. }));
            let from = try_scan(&root, &everything(), &rel("closed"), ScanContent::All, 1);
            assert!(matches!(from, Err(TreeError::Io { operation: "list", .. })));
        }
    });
    for n in ["closed", "no_search"] {
        close(n, 0o700);
    }
}

#[test]
fn files_that_come_go_and_change_meanwhile() {
    let top = tempfile::tempdir().unwrap();
    let at = |n: String| top.path().join(n);
    for i in 0..200 {
        fs::create_dir_all(at(format!("d{}", i % 10))).unwrap();
        fs::write(at(format!("d{}/still{i}", i % 10)), i.to_string()).unwrap();
    }
    fs::write(at("hot".into()), "0").unwrap();
    let root = Root::open(top.path()).unwrap();
    let still = scan_by(&root, &everything()).entries();
    let stop = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let mut hot = File::options().append(true).open(at("hot".into())).unwrap();
            for n in 0u64.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let dir = at(format!("d{}/new{}", n % 10, n % 7));
                fs::create_dir_all(&dir).unwrap();
                fs::write(dir.join("f"), "x").unwrap();
                hot.write_all(b"more").unwrap();
                fs::remove_dir_all(&dir).unwrap();
            }
        });
        for content in [ScanContent::All, ScanContent::All, ScanContent::None] {
            let o = try_scan(&root, &everything(), &RelPath::root(), content, 3).unwrap();
            for (path, entry) in still.iter().filter(|(p, e)| e.kind == Kind::File && *p != b"hot") {
                let mut want = entry.clone();
                want.sha256 = entry.sha256.filter(|_| content == ScanContent::All);
                assert_eq!(o.found.get(path).map(|f| &f.observed), Some(&Observed::Present(want)));
            }
            match &o.get("hot").observed {
                // What was read whole has the size that it says.
                Observed::Present(e) => assert_eq!(e.sha256.is_some(), content == ScanContent::All),
                Observed::Unreadable { why, .. } => assert_eq!(why, "keeps changing while it is read"),
                Observed::Absent => panic!("it is there all the time"),
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_changed_just_now_is_given_time_to_settle() {
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join("f");
    fs::write(&path, "x").unwrap();
    let root = Root::open(top.path()).unwrap();
    for content in [Content::Skip, Content::Read] {
        fs::write(&path, "y").unwrap();
        let Observed::Present(entry) = root.observe(&rel("f"), content) else { panic!("it is there") };
        let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
            - Duration::new(u64::try_from(entry.ctime.sec).unwrap(), entry.ctime.nsec);
        assert!(age >= Duration::from_millis(20), "{age:?}");
    }
}

/// Perl, which every Debian has, holds a write lease (fcntl(2), F_SETLEASE) until its input
/// ends; `sigio` is what it does when it is asked to give it up.
fn lease(path: &Path, sigio: &str) -> Option<Child> {
    let script = format!(
        "$SIG{{IO}} = '{sigio}'; open my $f, '<', $ARGV[0] or die; fcntl $f, 1024, 1 or die;
         $| = 1; print 'held'; <STDIN>"
    );
    let piped = Stdio::piped;
    let child = Command::new("perl").args(["-e", &script]).arg(path).stdin(piped()).stdout(piped()).spawn();
    let mut child = child.ok()?;
    let mut said = [0; 4];
    let held = child.stdout.as_mut()?.read_exact(&mut said).is_ok();
    // Not every file system has leases.
    held.then_some(child)
}

#[test]
fn a_lease_is_waited_for_and_not_for_ever() {
    let top = tempfile::tempdir().unwrap();
    for (name, sigio) in [("obliging", "DEFAULT"), ("stubborn", "IGNORE")] {
        let path = top.path().join(name);
        fs::write(&path, "x").unwrap();
        let Some(mut holder) = lease(&path, sigio) else { return };
        let root = Root::open(top.path()).unwrap();
        for content in [Content::Read, Content::IfDiffers(&Entry { size: 9, ..naive_entry(top.path()) })] {
            match root.observe(&rel(name), content) {
                Observed::Present(e) => assert!(name == "obliging" && e.sha256.is_some()),
                Observed::Unreadable { entry, why } => {
                    assert_eq!((name, why.as_str()), ("stubborn", "another process holds a lease on it"));
                    assert_eq!(entry.map(|e| e.size), Some(1));
                }
                Observed::Absent => panic!("it is there"),
            }
        }
        drop(holder.stdin.take());
        holder.wait().unwrap();
    }
}

#[test]
fn the_root_renamed_away_or_replaced() {
    use guard_tree::RootCheck;
    let top = tempfile::tempdir().unwrap();
    let (here, there) = (top.path().join("root"), top.path().join("moved"));
    fs::create_dir(&here).unwrap();
    fs::write(here.join("f"), "x").unwrap();
    let root = Root::open(&here).unwrap();
    assert_eq!(root.still_there().unwrap(), RootCheck::Same);
    fs::rename(&here, &there).unwrap();
    assert_eq!(root.still_there().unwrap(), RootCheck::Gone);
    // The handle stays where it was.
    assert!(matches!(root.observe(&rel("f"), Content::Read), Observed::Present(_)));
    fs::create_dir(&here).unwrap();
    assert!(matches!(root.still_there().unwrap(), RootCheck::Other { .. }));
    fs::remove_dir(&here).unwrap();
    fs::write(&here, "").unwrap();
    assert_eq!(root.still_there().unwrap(), RootCheck::Gone);
    fs::remove_dir_all(&there).unwrap();
    assert_eq!(root.observe(&RelPath::root(), Content::Skip), Observed::Absent);
    assert_eq!(root.observe(&rel("f"), Content::Read), Observed::Absent);
}

const INNER: &str = "GUARD_TREE_TEST_MOUNT";

/// Runs the next test again in a mount namespace of its own with a file system mounted in a tree.
#[test]
fn other_mounts_are_said_and_looked_at() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    fs::create_dir_all(top.path().join("a/mounted/hidden")).unwrap();
    fs::write(top.path().join("file"), "x").unwrap();
    fs::write(top.path().join("other"), "y").unwrap();
    let script = "mount -t tmpfs none \"$1/a/mounted\" || exit 0
        mkdir \"$1/a/mounted/deeper\" && echo x > \"$1/a/mounted/deeper/f\" &&
        mount --bind \"$1/other\" \"$1/file\" && exec \"$2\" --exact inner_mounts --nocapture";
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(top.path())
        .arg(std::env::current_exe().unwrap())
        .env(INNER, top.path())
        .status();
    // Containers may not let even root mount anything.
    assert!(status.is_ok_and(|s| s.success() || s.code() == Some(1)));
}

#[test]
fn inner_mounts() {
    let Some(top) = std::env::var_os(INNER) else { return };
    let top = Path::new(&top);
    let root = Root::open(top).unwrap();
    let o = scan_by(&root, &everything());
    assert_eq!(o.names(), [".", "a", "a/mounted", "a/mounted/deeper", "a/mounted/deeper/f", "file", "other"]);
    let mounts: Vec<_> = o.report.mounts.iter().map(ToString::to_string).collect();
    assert_eq!(mounts, ["a/mounted", "file"]);
    assert_ne!(o.get("a/mounted").entry().dev, o.get("a").entry().dev);
    assert_eq!(o.get("file").entry().sha256, o.get("other").entry().sha256);
    println!("mounts were looked at");
}
