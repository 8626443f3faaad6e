//! Every kind of change of a locked tree, and what is none.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use guard_api::wire::{AlertStatus, Change, Change as C, Finding, Severity};
use rustix::fs::{CWD, FileType, Mode, RenameFlags, XattrFlags};

use crate::stage::{ENV, PLAIN, SEALED, Stage, findings_of};
use crate::tree::{chmod, is_root, write};
use crate::wait;

/// One way to change a tree, in a directory of its own with the files `file`
/// and `other`, a directory `dir` with `dir/child`, and a symlink `link`.
struct Act {
    name: &'static str,
    /// Gets the directory, and one outside of the tree.
    does: fn(&Path, &Path),
    /// The paths that it shows at, each with the changes that must be among those reported.
    shows: &'static [(&'static str, &'static [Change])],
    needs_root: bool,
}

const fn act(
    name: &'static str,
    does: fn(&Path, &Path),
    shows: &'static [(&'static str, &'static [Change])],
) -> Act {
    Act { name, does, shows, needs_root: false }
}

const fn root_act(
    name: &'static str,
    does: fn(&Path, &Path),
    shows: &'static [(&'static str, &'static [Change])],
) -> Act {
    Act { name, does, shows, needs_root: true }
}

/// Where nothing else can be among them the list is exact; an inode number may be
/// given out again at once, so that `inode` is asked for only where both exist.
const ACTS: &[Act] = &[
    act(
        "content in place",
        |d, _| {
            let f = OpenOptions::new().write(true).open(d.join("file")).unwrap();
            f.write_all_at(b"X", 0).unwrap();
        },
        &[("file", &[C::Content, C::Mtime])],
    ),
    act(
        "content, time put back",
        |d, _| {
            let f = OpenOptions::new().write(true).open(d.join("file")).unwrap();
            let before = f.metadata().unwrap().modified().unwrap();
            f.write_all_at(b"X", 0).unwrap();
            f.set_modified(before).unwrap();
        },
        &[("file", &[C::Content])],
    ),
    act(
        "append",
        |d, _| OpenOptions::new().append(true).open(d.join("file")).unwrap().write_all(b"more").unwrap(),
        &[("file", &[C::Content, C::Size, C::Mtime])],
    ),
    act(
        "truncate",
        |d, _| OpenOptions::new().write(true).open(d.join("file")).unwrap().set_len(0).unwrap(),
        &[("file", &[C::Content, C::Size, C::Mtime])],
    ),
    act("mode", |d, _| chmod(&d.join("file"), 0o600), &[("file", &[C::Mode])]),
    act("setuid", |d, _| chmod(&d.join("file"), 0o4755), &[("file", &[C::Mode])]),
    act("mode of a directory", |d, _| chmod(&d.join("dir"), 0o700), &[("dir", &[C::Mode])]),
    root_act("owner", |d, _| chown(d.join("file"), Some(1), None).unwrap(), &[("file", &[C::Owner])]),
    root_act(
        "group of a directory",
        |d, _| chown(d.join("dir"), None, Some(1)).unwrap(),
        &[("dir", &[C::Owner])],
    ),
    root_act(
        "owner of a symlink",
        |d, _| std::os::unix::fs::lchown(d.join("link"), Some(1), None).unwrap(),
        &[("link", &[C::Owner])],
    ),
    act(
        "mtime",
        |d, _| File::open(d.join("file")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap(),
        &[("file", &[C::Mtime])],
    ),
    act(
        "extended attribute",
        |d, _| rustix::fs::setxattr(d.join("file"), "user.guardd", b"x", XattrFlags::empty()).unwrap(),
        &[("file", &[C::Xattr])],
    ),
    act(
        "extended attribute of a directory",
        |d, _| rustix::fs::setxattr(d.join("dir"), "user.guardd", b"x", XattrFlags::empty()).unwrap(),
        &[("dir", &[C::Xattr])],
    ),
    act(
        "rename within",
        |d, _| fs::rename(d.join("file"), d.join("new")).unwrap(),
        &[("file", &[C::Deleted]), ("new", &[C::Created])],
    ),
    act(
        "rename out",
        |d, out| fs::rename(d.join("file"), out.join("taken")).unwrap(),
        &[("file", &[C::Deleted])],
    ),
    act(
        "rename in",
        |d, out| {
            fs::write(out.join("brought"), "new").unwrap();
            fs::rename(out.join("brought"), d.join("brought")).unwrap();
        },
        &[("brought", &[C::Created])],
    ),
    act(
        "rename over, from outside",
        |d, out| {
            fs::write(out.join("better"), "better").unwrap();
            fs::rename(out.join("better"), d.join("file")).unwrap();
        },
        &[("file", &[C::Content, C::Size, C::Mtime, C::Inode])],
    ),
    act(
        "rename over, from within",
        |d, _| fs::rename(d.join("other"), d.join("file")).unwrap(),
        &[("file", &[C::Content, C::Inode]), ("other", &[C::Deleted])],
    ),
    act(
        "exchange",
        |d, _| {
            let (a, b) = (d.join("file"), d.join("other"));
            rustix::fs::renameat_with(CWD, &a, CWD, &b, RenameFlags::EXCHANGE).unwrap();
        },
        &[("file", &[C::Content, C::Inode]), ("other", &[C::Content, C::Inode])],
    ),
    act(
        "symlink retarget",
        |d, _| {
            symlink("/etc/passwd", d.join("new")).unwrap();
            fs::rename(d.join("new"), d.join("link")).unwrap();
        },
        &[("link", &[C::Target, C::Inode])],
    ),
    act("delete", |d, _| fs::remove_file(d.join("file")).unwrap(), &[("file", &[C::Deleted])]),
    act(
        "recreate identical",
        |d, _| {
            let before = fs::read(d.join("file")).unwrap();
            fs::remove_file(d.join("file")).unwrap();
            fs::write(d.join("file"), before).unwrap();
            chmod(&d.join("file"), 0o644);
        },
        &[("file", &[C::Mtime])],
    ),
    act(
        "mkdir -p and write",
        |d, _| write(&d.join("a/b/c/payload"), "x"),
        &[
            ("a", &[C::Created]),
            ("a/b", &[C::Created]),
            ("a/b/c", &[C::Created]),
            ("a/b/c/payload", &[C::Created]),
        ],
    ),
    act(
        "directory moved in",
        |d, out| {
            write(&out.join("tree/sub/file"), "x");
            fs::rename(out.join("tree"), d.join("tree")).unwrap();
        },
        &[("tree", &[C::Created]), ("tree/sub", &[C::Created]), ("tree/sub/file", &[C::Created])],
    ),
    act(
        "directory moved out",
        |d, out| fs::rename(d.join("dir"), out.join("dir")).unwrap(),
        &[("dir", &[C::Deleted]), ("dir/child", &[C::Deleted])],
    ),
    act(
        "directory moved within, and written in afterwards",
        |d, _| {
            fs::rename(d.join("dir"), d.join("moved")).unwrap();
            fs::write(d.join("moved/later"), "x").unwrap();
        },
        &[
            ("dir", &[C::Deleted]),
            ("dir/child", &[C::Deleted]),
            ("moved", &[C::Created]),
            ("moved/child", &[C::Created]),
            ("moved/later", &[C::Created]),
        ],
    ),
    act(
        "directory removed",
        |d, _| fs::remove_dir_all(d.join("dir")).unwrap(),
        &[("dir", &[C::Deleted]), ("dir/child", &[C::Deleted])],
    ),
    act(
        "directory replaced by another",
        |d, out| {
            write(&out.join("dir/child"), "another");
            fs::rename(d.join("dir"), out.join("before")).unwrap();
            fs::rename(out.join("dir"), d.join("dir")).unwrap();
        },
        &[("dir", &[C::Inode]), ("dir/child", &[C::Content, C::Inode])],
    ),
    act(
        "file becomes directory",
        |d, _| {
            fs::remove_file(d.join("file")).unwrap();
            write(&d.join("file/inside"), "x");
        },
        &[("file", &[C::Type]), ("file/inside", &[C::Created])],
    ),
    act(
        "file becomes symlink",
        |d, _| {
            fs::remove_file(d.join("file")).unwrap();
            symlink("other", d.join("file")).unwrap();
        },
        &[("file", &[C::Type])],
    ),
    act(
        "directory becomes file",
        |d, _| {
            fs::remove_dir_all(d.join("dir")).unwrap();
            fs::write(d.join("dir"), "x").unwrap();
        },
        &[("dir", &[C::Type]), ("dir/child", &[C::Deleted])],
    ),
    act(
        "directory becomes symlink to its like",
        |d, out| {
            fs::rename(d.join("dir"), out.join("dir")).unwrap();
            symlink(out.join("dir"), d.join("dir")).unwrap();
        },
        &[("dir", &[C::Type]), ("dir/child", &[C::Deleted])],
    ),
    act(
        "symlink becomes file",
        |d, _| {
            fs::remove_file(d.join("link")).unwrap();
            fs::write(d.join("link"), "x").unwrap();
        },
        &[("link", &[C::Type])],
    ),
    act(
        "fifo appears",
        |d, _| {
            rustix::fs::mknodat(CWD, d.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap()
        },
        &[("fifo", &[C::Created])],
    ),
    act(
        "file becomes fifo",
        |d, _| {
            fs::remove_file(d.join("file")).unwrap();
            rustix::fs::mknodat(CWD, d.join("file"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
        },
        &[("file", &[C::Type])],
    ),
    act(
        "socket appears",
        // The directory's own path may be too long for a socket's.
        |d, out| {
            drop(UnixListener::bind(out.join("s")).unwrap());
            fs::rename(out.join("s"), d.join("socket")).unwrap();
        },
        &[("socket", &[C::Created])],
    ),
    root_act(
        "device appears",
        |d, _| {
            let null = rustix::fs::makedev(1, 3);
            rustix::fs::mknodat(
                CWD,
                d.join("null"),
                FileType::CharacterDevice,
                Mode::from_raw_mode(0o666),
                null,
            )
            .unwrap();
        },
        &[("null", &[C::Created])],
    ),
    act(
        "empty file appears",
        |d, _| drop(File::create(d.join("empty")).unwrap()),
        &[("empty", &[C::Created])],
    ),
    act(
        "empty directory appears",
        |d, _| fs::create_dir(d.join("empty")).unwrap(),
        &[("empty", &[C::Created])],
    ),
    act(
        "dangling symlink appears",
        |d, _| symlink("nowhere", d.join("dangling")).unwrap(),
        &[("dangling", &[C::Created])],
    ),
];

/// What the kernel tells nobody who watches directories: found by looking.
const UNTOLD: &[Act] = &[
    act(
        "hard link within",
        |d, _| fs::hard_link(d.join("file"), d.join("second")).unwrap(),
        &[("file", &[C::Links]), ("second", &[C::Created])],
    ),
    act(
        "hard link to outside",
        |d, out| fs::hard_link(d.join("file"), out.join("second")).unwrap(),
        &[("file", &[C::Links])],
    ),
    act(
        "written through a hard link elsewhere",
        // The link was there before the lock.
        |_, out| {
            OpenOptions::new().append(true).open(out.join("linked")).unwrap().write_all(b"more").unwrap()
        },
        &[("other", &[C::Content, C::Size, C::Mtime])],
    ),
    act(
        "stored through a mapping",
        |d, _| {
            let script = "import mmap,sys; f=open(sys.argv[1],'r+b'); m=mmap.mmap(f.fileno(),0); m[0:1]=b'M'; m.flush()";
            let done = std::process::Command::new("/usr/bin/python3")
                .args(["-c", script])
                .arg(d.join("file"))
                .status();
            assert!(done.unwrap().success());
        },
        &[("file", &[C::Content])],
    ),
    root_act(
        "inode flag",
        |d, _| {
            let done = std::process::Command::new("chattr").arg("+d").arg(d.join("file")).status();
            assert!(done.unwrap().success());
        },
        &[("file", &[C::Flags])],
    ),
];

/// A directory for each act, named by its number.
fn grounds(stage: &Stage, acts: &[Act]) {
    for n in 0..acts.len() {
        let dir = stage.at(n.to_string());
        write(&dir.join("file"), "content of file\n");
        write(&dir.join("other"), "content of the other\n");
        write(&dir.join("dir/child"), "child\n");
        symlink("file", dir.join("link")).unwrap();
        chmod(&dir.join("file"), 0o644);
        let out = stage.path(format!("out-{n}"));
        fs::create_dir(&out).unwrap();
        fs::hard_link(dir.join("other"), out.join("linked")).unwrap();
    }
}

/// Those that this user can do, each with its number, which names its directory.
fn doable(acts: &[Act]) -> Vec<(usize, &Act)> {
    acts.iter().enumerate().filter(|(_, a)| is_root() || !a.needs_root).collect()
}

/// What of `acts` did not show as it should.
fn missing(found: &[(String, Vec<Change>)], acts: &[(usize, &Act)]) -> Vec<String> {
    let mut missing = Vec::new();
    for (n, act) in acts {
        for (path, change) in act.shows {
            let path = format!("{n}/{path}");
            let fits = |(p, c): &&(String, Vec<Change>)| *p == path && change.iter().all(|w| c.contains(w));
            if !found.iter().any(|f| fits(&f)) {
                let seen: Vec<_> = found.iter().filter(|(p, _)| *p == path).map(|(_, c)| c).collect();
                missing.push(format!("{}: {path} {change:?}, seen {seen:?}", act.name));
            }
        }
    }
    missing
}

fn listed(all: Vec<Finding>) -> Vec<(String, Vec<Change>)> {
    all.into_iter().map(|f| (f.path, f.change)).collect()
}

/// Does it all and waits until everything shows.
fn all_show(stage: &Stage, acts: &[(usize, &Act)]) {
    for (n, act) in acts {
        (act.does)(&stage.at(n.to_string()), &stage.path(format!("out-{n}")));
    }
    let mut left = Vec::new();
    let deadline = Instant::now() + Duration::from_secs(120);
    while Instant::now() < deadline {
        left = missing(&listed(stage.findings()), acts);
        if left.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("not reported:\n{}", left.join("\n"));
}

#[test]
fn every_kind_of_change_is_an_alert_a_line_and_an_event() {
    let mut stage = Stage::empty(PLAIN);
    grounds(&stage, ACTS);
    stage.start();
    stage.lock();
    let events = stage.follow();
    let acts = doable(ACTS);
    all_show(&stage, &acts);

    // The stream told the same.
    let mut streamed = Vec::new();
    wait::until_true("every finding in the stream", || {
        let record = events.wait_for("findings", |r| !findings_of(r).is_empty());
        streamed.extend(listed(findings_of(&record)));
        missing(&streamed, &acts).is_empty()
    });
    // And the log file names the first of the alert at least.
    let first = stage.all_alerts().remove(0);
    stage.log_line("security-alerts.log", |l| {
        l.contains(&format!("alert={}", first.id)) && l.contains(&first.findings[0].path) && l.contains(ENV)
    });
    // What did not change is in no finding: the files beside it, the directories above it.
    let named: Vec<String> =
        acts.iter().flat_map(|(n, a)| a.shows.iter().map(move |(p, _)| format!("{n}/{p}"))).collect();
    let beside: Vec<String> = stage.found_paths().into_iter().filter(|p| !named.contains(p)).collect();
    assert_eq!(beside, [""; 0], "reported though nothing happened there");
}

#[test]
fn what_the_kernel_tells_nobody_is_found_by_looking() {
    let mut stage = Stage::empty(&PLAIN.replace("1h", "1s"));
    grounds(&stage, UNTOLD);
    stage.start();
    stage.lock();
    all_show(&stage, &doable(UNTOLD));
}

#[test]
fn findings_say_what_was_and_what_is() {
    let stage = Stage::locked(PLAIN);
    let before = stage.at("backend/app/main.py").metadata().unwrap();
    OpenOptions::new()
        .append(true)
        .open(stage.at("backend/app/main.py"))
        .unwrap()
        .write_all(b"# x\n")
        .unwrap();
    let f = stage.change("backend/app/main.py", &[C::Content, C::Size, C::Mtime]);
    let (was, is) = (f.before.unwrap(), f.after.unwrap());
    assert_eq!((was.size, is.size), (before.len(), before.len() + 4));
    assert_eq!(was.ino, before.ino());
    assert_ne!(was.sha256.unwrap(), is.sha256.clone().unwrap());
    let sum = crate::stage::run(std::process::Command::new("sha256sum").arg(stage.at("backend/app/main.py")));
    assert!(String::from_utf8(sum.stdout).unwrap().starts_with(&is.sha256.unwrap()));
    let own = i32::try_from(std::process::id()).unwrap();
    assert!(f.actor.is_none_or(|by| by.pid == own) && !f.restored);

    fs::remove_file(stage.at("compose.yml")).unwrap();
    let f = stage.finding("compose.yml");
    assert!(f.after.is_none() && f.before.unwrap().sha256.is_some());
    symlink("x", stage.at("new")).unwrap();
    let f = stage.finding("new");
    assert!(f.before.is_none());
    assert_eq!(f.after.unwrap().target.as_deref(), Some("x"));
}

#[test]
fn reading_and_what_the_application_may_write_is_no_alert() {
    let stage = Stage::locked(PLAIN);
    fs::write(stage.at("logs/access.log"), "GET /\n").unwrap();
    fs::write(stage.at("logs/error.log"), "oops\n").unwrap();
    write(&stage.at("media/2026/11/a.jpg"), "x");
    fs::remove_file(stage.at("media/photo.jpg")).unwrap();
    fs::write(stage.at("backend/app/main.pyc"), "bytecode").unwrap();
    write(&stage.at("backend/app/__pycache__/main.cpython-312.pyc"), "bytecode");
    chmod(&stage.at("logs/access.log"), 0o600);
    for dir in ["backend/app", "scripts", "."] {
        for entry in fs::read_dir(stage.at(dir)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::read(path).unwrap();
            }
        }
    }
    fs::read_link(stage.at("current")).unwrap();
    // Opened for writing and nothing written is no change either.
    drop(OpenOptions::new().write(true).open(stage.at("backend/app/main.py")).unwrap());
    for dir in ["backend/app", "."] {
        let found = stage.findings_beside_a_late_one(dir);
        let found: Vec<_> = found.into_iter().filter(|f| !f.path.ends_with("zzz-late")).collect();
        assert!(found.is_empty(), "{found:?}");
    }
    let check = stage.check();
    assert_eq!(
        check.findings.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
        ["backend/app/zzz-late", "zzz-late"]
    );
}

#[test]
fn a_change_of_a_writable_directory_itself_is_an_alert() {
    let stage = Stage::locked(PLAIN);
    chmod(&stage.at("media"), 0o777);
    stage.change("media", &[C::Mode]);
    fs::remove_dir_all(stage.at("logs")).unwrap();
    stage.change("logs", &[C::Deleted]);
}

#[test]
fn a_burst_is_one_alert_with_every_finding() {
    let mut stage = Stage::new(PLAIN);
    for n in 0..500 {
        write(&stage.at(format!("vendor/p{}/f{n}.js", n % 20)), format!("{n}"));
    }
    stage.start();
    stage.lock();
    for n in 0..500 {
        fs::write(stage.at(format!("vendor/p{}/f{n}.js", n % 20)), format!("changed {n}")).unwrap();
    }
    wait::until_true("500 findings", || stage.found_paths().len() == 500);
    let alerts = stage.all_alerts();
    assert_eq!(alerts.len(), 1, "{:?}", alerts.iter().map(|a| &a.title).collect::<Vec<_>>());
    assert_eq!(alerts[0].findings_total, 500);
    // The log file is capped, and says how to see the rest.
    let more = stage.log_line("security-alerts.log", |l| l.contains("more: guardctl alerts show"));
    assert!(more.contains(&format!("guardctl alerts show {}", alerts[0].id)), "{more}");
    let text = fs::read_to_string(stage.path("log/security-alerts.log")).unwrap();
    assert!(text.lines().count() < 100, "{} lines", text.lines().count());
    // guardctl has them all.
    let shown = stage.guardctl(["alerts", "show", &alerts[0].id.to_string(), "--json"]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let count = shown.pointer("/alert/findings").or_else(|| shown.pointer("/findings"));
    assert_eq!(count.and_then(|f| f.as_array()).map(Vec::len), Some(500));
}

#[test]
fn separate_causes_are_separate_alerts() {
    let stage = Stage::locked(PLAIN);
    fs::write(stage.at("backend/app/main.py"), "1").unwrap();
    stage.finding("backend/app/main.py");
    let opened = stage.all_alerts().remove(0).opened_at;
    // An alert takes in more for two seconds of quiet.
    wait::until_true("two seconds of quiet", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros();
        i64::try_from(now).unwrap() > opened.0 + 2_300_000
    });
    fs::write(stage.at("scripts/deploy.sh"), "2").unwrap();
    stage.finding("scripts/deploy.sh");
    let alerts = stage.all_alerts();
    assert_eq!(alerts.len(), 2);
    assert!(alerts[1].title.contains("scripts/deploy.sh"));
}

#[test]
fn severity_follows_what_was_touched() {
    let stage = Stage::locked(PLAIN);
    File::open(stage.at("backend/app/main.py")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    stage.finding("backend/app/main.py");
    assert_eq!(stage.all_alerts()[0].severity, Severity::Warning);
    fs::write(stage.at("compose.yml"), "x").unwrap();
    stage.finding("compose.yml");
    wait::until_true("a high alert", || stage.all_alerts().iter().any(|a| a.severity == Severity::High));
    fs::write(stage.at(".env.prod"), "SECRET=stolen-horse\n").unwrap();
    stage.finding(".env.prod");
    wait::until_true("a critical alert", || {
        stage.all_alerts().iter().any(|a| a.severity == Severity::Critical)
    });
    // A new file of a sensitive name, too; and no value of it anywhere.
    fs::write(stage.at(".env.local"), "SECRET=battery-staple\n").unwrap();
    stage.finding(".env.local");
    stage.log_line("security-alerts.log", |l| l.contains(".env.local") && l.contains(" critical "));
    let mut told = stage.said();
    for dir in ["log", "state/ledger"] {
        for entry in fs::read_dir(stage.path(dir)).unwrap() {
            told += &String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap());
        }
    }
    told += &format!("{:?}{:?}", stage.all_alerts(), stage.check());
    for secret in ["correct-horse", "stolen-horse", "battery-staple"] {
        assert!(!told.contains(secret), "{secret} was told");
    }
}

#[test]
fn nothing_is_reported_twice_by_sweep_or_rehash() {
    let stage = Stage::locked(&PLAIN.replace("1h", "1s"));
    fs::write(stage.at("backend/app/main.py"), "x").unwrap();
    fs::remove_file(stage.at("compose.yml")).unwrap();
    fs::write(stage.at("scripts/new"), "x").unwrap();
    chmod(&stage.at("backend/Dockerfile"), 0o600);
    for path in ["backend/app/main.py", "compose.yml", "scripts/new", "backend/Dockerfile"] {
        stage.finding(path);
    }
    let read = || stage.events("rehash_finished").len();
    let before = read();
    wait::until_true("three further rehashes", || read() >= before + 3);
    let mut paths: Vec<String> = stage.findings().into_iter().map(|f| f.path).collect();
    paths.sort();
    assert_eq!(paths, ["backend/Dockerfile", "backend/app/main.py", "compose.yml", "scripts/new"]);
    assert_eq!(stage.events("alert_settled").len(), 0);
}

#[test]
fn without_any_watch_it_is_found_by_looking() {
    let mut stage = Stage::new("");
    let text = stage.daemon_section() + "watch = \"none\"\n";
    let text = text + &stage.environment_section(ENV, &stage.app(), &PLAIN.replace("1h", "1s"));
    stage.write_config(&text);
    stage.start();
    stage.lock();
    let site = stage.site();
    assert_eq!(site.watch.backend, "none");
    assert!(stage.degraded().iter().any(|d| d.contains("not watched")), "{:?}", stage.degraded());
    fs::write(stage.at("backend/app/main.py"), "print('HELLO')\n").unwrap();
    stage.finding("backend/app/main.py");
    write(&stage.at("backend/new/deep/file"), "x");
    stage.finding("backend/new/deep/file");
}

#[test]
fn putting_things_back_leaves_the_alert_open_until_somebody_looks() {
    let stage = Stage::locked(PLAIN);
    chmod(&stage.at("compose.yml"), 0o600);
    stage.change("compose.yml", &[C::Mode]);
    chmod(&stage.at("compose.yml"), 0o644);
    wait::until_true("settling", || stage.all_alerts()[0].settled == ["compose.yml"]);
    assert_eq!(stage.all_alerts()[0].status, AlertStatus::Open);
    assert!(stage.check().clean);
    assert_eq!(stage.acknowledge(stage.all_alerts()[0].id).status, AlertStatus::Resolved);
    assert_eq!(stage.site().alerts_open, 0);
    // The same again is a new finding.
    chmod(&stage.at("compose.yml"), 0o600);
    wait::until_true("a second finding", || stage.findings().len() == 2);
}

#[test]
fn a_hot_file_is_reported_with_its_last_state() {
    let stage = Stage::locked(PLAIN);
    for n in 0..300 {
        fs::write(stage.at("compose.yml"), format!("{n}\n")).unwrap();
    }
    let len = fs::metadata(stage.at("compose.yml")).unwrap().len();
    let sum = crate::stage::run(std::process::Command::new("sha256sum").arg(stage.at("compose.yml")));
    let sum = String::from_utf8(sum.stdout).unwrap()[..64].to_owned();
    wait::until_true("the last state", || {
        stage
            .findings()
            .iter()
            .rev()
            .find_map(|f| f.after.clone())
            .is_some_and(|e| e.size == len && e.sha256.as_deref() == Some(&sum))
    });
    assert!(stage.findings().len() < 50, "{} findings", stage.findings().len());
    assert_eq!(stage.all_alerts().len(), 1);
}

#[test]
fn sealed_files_that_lose_their_seal_are_critical() {
    let stage = Stage::locked(SEALED);
    assert_eq!(crate::tree::mode(&stage.at("backend/app/orders.py")), 0o444);
    chmod(&stage.at("backend/app/orders.py"), 0o664);
    stage.change("backend/app/orders.py", &[C::Mode, C::Seal]);
    assert_eq!(stage.all_alerts()[0].severity, Severity::Critical);
    // A directory, too.
    chmod(&stage.at("backend/app"), 0o755);
    stage.change("backend/app", &[C::Mode, C::Seal]);
    fs::write(stage.at("backend/app/evil.py"), "x").unwrap();
    stage.finding("backend/app/evil.py");
}
