//! Hints for changes in a tree that stands, and in one that moves.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::support::{ENV, Ground, is_gap, policy, rel, touch, tree};
use guard_model::ledger::GapCause;
use guard_watch::{EnvId, Hint, WatchError};

fn everything() -> std::sync::Arc<guard_model::Policy> {
    policy(&[], &[], &[])
}

#[test]
fn changes_are_told_and_reading_is_not() {
    let g = Ground::new(&["a/b"], everything());
    assert_eq!((g.report.directories, g.report.failed.len()), (3, 0));
    fs::write(g.path("a/b/read-only"), "x").unwrap();
    g.settle();
    g.heard.clear();

    for _ in 0..100 {
        fs::read(g.path("a/b/read-only")).unwrap();
        fs::read_dir(g.path("a/b")).unwrap().for_each(drop);
    }
    assert_eq!(g.touched(), Vec::<String>::new());

    fs::write(g.path("a/b/new"), "1").unwrap();
    symlink("new", g.path("a/link")).unwrap();
    fs::set_permissions(g.path("a/b/read-only"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(g.touched(), ["a/b/new", "a/b/read-only", "a/link"]);
    g.heard.clear();

    fs::remove_file(g.path("a/b/new")).unwrap();
    fs::rename(g.path("a/link"), g.path("a/b/moved")).unwrap();
    fs::set_permissions(g.path("a"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(g.touched(), ["a", "a/b/moved", "a/b/new", "a/link"]);
}

#[test]
fn an_open_for_writing_that_only_closes_is_told() {
    // A change through a mapping makes no other event.
    let g = Ground::new(&[], everything());
    g.write("mapped");
    g.settle();
    g.heard.clear();
    drop(fs::OpenOptions::new().write(true).open(g.path("mapped")).unwrap());
    assert_eq!(g.touched(), ["mapped"]);
}

#[test]
fn hostile_names_come_through() {
    use std::os::unix::ffi::OsStrExt;
    let g = Ground::new(&[], everything());
    let name = std::ffi::OsStr::from_bytes(b"a\n\xff \\ \x1b");
    let long = "n".repeat(255);
    fs::create_dir(g.root.join(name)).unwrap();
    g.heard.until("the tree", |h| h.iter().any(|h| matches!(h, Hint::Tree { .. })));
    fs::write(g.root.join(name).join(&long), "x").unwrap();
    g.heard.one(&Hint::Touch {
        env: ENV,
        path: guard_model::RelPath::from_bytes(&[name.as_bytes(), b"/", long.as_bytes()].concat()).unwrap(),
        actor: None,
        complete: false,
    });
}

#[test]
fn what_the_policy_leaves_out_is_neither_watched_nor_told() {
    let g = Ground::new(
        &["app/sub", "logs/deep", "other/deep", "node_modules/x", "conf/a"],
        policy(&["/app/", "conf/*/x.toml"], &["node_modules/"], &["logs/"]),
    );
    // The root, app, app/sub, conf, conf/a.
    assert_eq!(g.report.directories, 5, "{:?}", g.report);
    g.write("logs/deep/file");
    g.write("other/deep/file");
    g.write("node_modules/x/file");
    g.write("other/file");
    g.write("file");
    g.write("conf/a/x.toml");
    g.write("app/sub/file");
    fs::set_permissions(g.path("logs"), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(g.touched(), ["app/sub/file", "conf/a/x.toml", "logs"]);
}

#[test]
fn a_wide_tree_is_watched_throughout() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("root");
    for i in 0..600 {
        fs::create_dir_all(root.join(format!("n{i}/a"))).unwrap();
    }
    let g = Ground::at(dir, root, everything());
    assert_eq!((g.report.directories, g.report.failed.len()), (1 + 600 * 2, 0));
    for i in [0, 299, 300, 599] {
        // Where no directory was before.
        fs::create_dir(g.path(&format!("n{i}/a/b"))).unwrap();
        g.write(&format!("n{i}/f"));
    }
    g.settle();
    for i in [0, 299, 300, 599] {
        g.assert_watched(&format!("n{i}"));
        g.assert_watched(&format!("n{i}/a"));
        g.assert_watched(&format!("n{i}/a/b"));
    }
}

#[test]
fn a_new_directory_is_covered_with_all_that_is_in_it() {
    let g = Ground::new(&[], everything());
    for i in 0..500 {
        fs::create_dir_all(g.path(&format!("n{i}/a/b/c"))).unwrap();
        g.write(&format!("n{i}/a/b/c/f"));
    }
    // Each file is told by itself, or lies in a tree that was told after its watches stood.
    let hints = g.settle();
    for i in 0..500 {
        let file = rel(&format!("n{i}/a/b/c/f"));
        let told = hints.iter().any(|h| match h {
            Hint::Touch { path, .. } => *path == file,
            Hint::Tree { path, .. } => file.is_within(path),
            _ => false,
        });
        assert!(told, "{file}");
    }
    for i in [0, 250, 499] {
        g.assert_watched(&format!("n{i}/a/b/c"));
    }
}

#[test]
fn a_directory_that_moves_is_followed() {
    let g = Ground::new(&["from/x/y", "to"], everything());
    fs::rename(g.path("from"), g.path("to/there")).unwrap();
    g.heard.one(&tree("to/there"));
    g.heard.one(&touch("from"));
    g.assert_watched("to/there/x/y");
    g.heard.clear();
    // Back and forth: the inode, and with it the kernel's watch, stays the same.
    for _ in 0..5 {
        fs::rename(g.path("to/there"), g.path("from")).unwrap();
        fs::rename(g.path("from"), g.path("to/there")).unwrap();
    }
    g.settle();
    g.assert_watched("to/there");
    g.assert_watched("to/there/x");
    g.assert_watched("to/there/x/y");
    assert!(g.settle().iter().all(|h| !h_path(h).starts_with("from/")), "{:?}", g.heard.all());
}

fn h_path(hint: &Hint) -> String {
    match hint {
        Hint::Touch { path, .. } | Hint::Tree { path, .. } => path.to_string(),
        _ => String::new(),
    }
}

#[test]
fn a_directory_moved_out_is_told_and_forgotten() {
    let g = Ground::new(&["in/x"], everything());
    let out = g.dir.path().join("out");
    fs::rename(g.path("in"), &out).unwrap();
    g.heard.one(&touch("in"));
    g.settle();
    g.heard.clear();
    fs::write(out.join("x/file"), "x").unwrap();
    assert_eq!(g.touched(), Vec::<String>::new());
    fs::rename(&out, g.path("in")).unwrap();
    g.heard.one(&tree("in"));
    g.assert_watched("in/x");
}

#[test]
fn exchanged_directories_are_both_told() {
    let g = Ground::new(&["one/a", "two/b"], everything());
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let cwd = rustix::fs::CWD;
    rustix::fs::renameat_with(cwd, g.path("one"), cwd, g.path("two"), flags).unwrap();
    g.heard.one(&tree("one"));
    g.heard.one(&tree("two"));
    g.settle();
    g.assert_watched("one/b");
    g.assert_watched("two/a");
}

#[test]
fn a_directory_deleted_and_made_again_is_watched_again() {
    let g = Ground::new(&["d/e"], everything());
    for round in 0..20 {
        fs::remove_dir_all(g.path("d")).unwrap();
        fs::create_dir_all(g.path("d/e")).unwrap();
        if round % 5 == 0 {
            g.settle();
        }
    }
    g.settle();
    g.assert_watched("d");
    g.assert_watched("d/e");
}

#[test]
fn a_directory_replaced_by_a_link_is_not_followed() {
    let g = Ground::new(&["d"], everything());
    let outside = g.dir.path().join("outside");
    fs::create_dir_all(outside.join("deep")).unwrap();
    fs::remove_dir(g.path("d")).unwrap();
    symlink(&outside, g.path("d")).unwrap();
    g.heard.one(&touch("d"));
    g.settle();
    g.heard.clear();
    fs::write(outside.join("deep/file"), "x").unwrap();
    fs::write(outside.join("file"), "x").unwrap();
    assert_eq!(g.touched(), Vec::<String>::new());
}

#[test]
fn a_hot_file_costs_one_hint_at_a_time() {
    let g = Ground::new(&[], everything());
    for i in 0..5000 {
        fs::write(g.path("hot"), i.to_string()).unwrap();
    }
    let touches = g.settle().iter().filter(|h| **h == touch("hot")).count();
    assert!((1..5000).contains(&touches), "{touches}");
}

#[test]
fn the_root_going_and_coming_back_is_a_gap_and_watched_again() {
    let g = Ground::new(&["sub"], everything());
    fs::rename(&g.root, g.root.with_file_name("away")).unwrap();
    g.heard.until("the gap", |h| h.iter().any(|h| is_gap(h, GapCause::Root)));
    g.heard.clear();
    fs::rename(g.root.with_file_name("away"), &g.root).unwrap();
    g.heard.until("the second gap", |h| h.iter().any(|h| is_gap(h, GapCause::Root)));
    g.assert_watched("sub");
}

#[test]
fn the_root_replaced_or_deleted_is_a_gap() {
    let g = Ground::new(&["sub"], everything());
    fs::remove_dir_all(&g.root).unwrap();
    g.heard.until("the gap", |h| h.iter().any(|h| is_gap(h, GapCause::Root)));
    g.heard.clear();
    fs::create_dir_all(g.root.join("sub2")).unwrap();
    g.heard.until("the second gap", |h| h.iter().any(|h| is_gap(h, GapCause::Root)));
    g.assert_watched("sub2");
}

#[test]
fn a_directory_above_the_root_moved_away_and_back_is_a_gap() {
    let g = Ground::new(&["sub"], everything());
    let above = g.root.parent().unwrap();
    let elsewhere = above.with_file_name("elsewhere");
    fs::rename(above, &elsewhere).unwrap();
    fs::rename(&elsewhere, above).unwrap();
    g.heard.until("the gap", |h| h.iter().any(|h| is_gap(h, GapCause::Root)));
    g.settle();
    g.assert_watched("sub");
    g.settle();
    g.heard.clear();
    // Others' business beside the root's ancestors is none of ours.
    fs::write(above.join("sibling"), "x").unwrap();
    fs::create_dir(above.join("sibling.d")).unwrap();
    assert_eq!(g.touched(), Vec::<String>::new());
    // The mode of an ancestor decides who may replace the root.
    fs::set_permissions(above, fs::Permissions::from_mode(0o777)).unwrap();
    g.heard.one(&touch("."));
}

#[test]
fn alive_needs_every_environment() {
    let g = Ground::new(&["sub"], everything());
    let other = g.dir.path().canonicalize().unwrap().join("other");
    fs::create_dir(&other).unwrap();
    g.watcher.add_environment(EnvId(8), &other, everything()).unwrap();
    g.watcher.ping(1).unwrap();
    g.heard.one(&Hint::Alive { nonce: 1 });
    g.watcher.remove_environment(EnvId(8));
    g.watcher.ping(2).unwrap();
    g.heard.one(&Hint::Alive { nonce: 2 });
    // Gone hints after the removal.
    g.heard.clear();
    fs::write(other.join("x"), "x").unwrap();
    assert!(g.settle().iter().all(|h| matches!(h, Hint::Alive { .. })));
    g.watcher.remove_environment(ENV);
    g.watcher.ping(3).unwrap();
    g.heard.one(&Hint::Alive { nonce: 3 });
}

#[test]
fn the_canary_survives_the_loss_of_its_directory() {
    let g = Ground::new(&[], everything());
    fs::remove_dir_all(g.dir.path().join("canary")).unwrap();
    // A ping may fall between the new directory and its watch; one of the next is answered.
    let end = std::time::Instant::now() + crate::support::PATIENCE;
    let mut nonce = 0;
    while !g.heard.all().iter().any(|h| matches!(h, Hint::Alive { .. })) {
        assert!(std::time::Instant::now() < end, "no answer to {nonce} pings");
        nonce += 1;
        g.watcher.ping(nonce).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn a_rebuild_leaves_everything_watched() {
    let g = Ground::new(&["a/b", "c"], everything());
    let again = g.watcher.rebuild(ENV).unwrap();
    assert_eq!(again, g.report);
    g.assert_watched("a/b");
    fs::create_dir(g.path("new")).unwrap();
    g.heard.one(&tree("new"));
    assert!(g.heard.all().iter().all(|h| !matches!(h, Hint::Gap { .. })));
}

#[test]
fn a_directory_that_may_not_be_read_is_said_and_watched_once_it_may() {
    if rustix::process::geteuid().is_root() {
        return; // root reads everything
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("root");
    fs::create_dir_all(root.join("shut/inner")).unwrap();
    fs::set_permissions(root.join("shut"), fs::Permissions::from_mode(0o311)).unwrap();
    let g = Ground::at(dir, root, everything());
    assert_eq!(g.report.directories, 1);
    assert_eq!(g.report.failed[0].0, rel("shut"));
    assert!(g.report.failed[0].1.contains("denied"), "{:?}", g.report);
    g.heard.until("the gap", |h| h.iter().any(|h| is_gap(h, GapCause::Backend)));
    g.heard.clear();
    assert_eq!(g.watcher.rebuild(ENV).unwrap(), g.report);
    assert_eq!(g.heard.all(), []);
    fs::set_permissions(g.path("shut"), fs::Permissions::from_mode(0o755)).unwrap();
    g.heard.one(&tree("shut"));
    g.assert_watched("shut/inner");
}

#[test]
fn misuse_is_refused() {
    let g = Ground::new(&[], everything());
    assert!(matches!(g.watcher.add_environment(ENV, &g.root, everything()), Err(WatchError::Twice(ENV))));
    let relative = g.watcher.add_environment(EnvId(9), "relative".as_ref(), everything());
    assert!(matches!(relative, Err(WatchError::Relative(_))));
    assert!(matches!(g.watcher.rebuild(EnvId(9)), Err(WatchError::Unknown(EnvId(9)))));
    g.watcher.remove_environment(EnvId(9));
}

#[test]
fn reading_everything_makes_no_gap() {
    let names: Vec<String> = (0..100).map(|i| format!("d{i}")).collect();
    let g = Ground::new(&names.iter().map(String::as_str).collect::<Vec<_>>(), everything());
    for part in names.chunks(20) {
        part.iter().for_each(|d| (0..100).for_each(|i| g.write(&format!("{d}/f{i}"))));
        g.settle();
    }
    g.heard.clear();
    let (root, names) = (&g.root, &names);
    // 100,000 opens: six times what the kernel's queue holds, per instance. In parts that fit into it, since on a machine
    // that is busy enough nobody may come to take anything out meanwhile.
    for part in names.chunks(20).cycle().take(25) {
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(move || {
                    for d in part {
                        for i in 0..100 {
                            fs::File::open(root.join(format!("{d}/f{i}"))).unwrap();
                        }
                    }
                });
            }
        });
        let hints = g.settle();
        assert!(hints.iter().all(|h| matches!(h, Hint::Alive { .. })), "{hints:?}");
    }
}

#[test]
fn a_root_that_is_not_there_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("not/yet/there");
    let g = Ground::at(dir, root.clone(), everything());
    assert_eq!(g.report.directories, 0);
    assert_eq!(g.report.failed[0].0, rel("."));
    g.heard.until("the gap", |h| h.iter().any(|h| is_gap(h, GapCause::Root)));
    g.heard.clear();
    fs::create_dir_all(root.parent().unwrap()).unwrap();
    fs::write(&root, "a file").unwrap();
    g.settle();
    fs::remove_file(&root).unwrap();
    fs::create_dir_all(root.join("sub")).unwrap();
    g.heard.until("a gap", |h| h.iter().any(|h| is_gap(h, GapCause::Root)));
    let end = std::time::Instant::now() + crate::support::PATIENCE;
    while g.watcher.rebuild(ENV).unwrap().directories != 2 {
        assert!(std::time::Instant::now() < end);
    }
    g.assert_watched("sub");
}

/// A tmpfs, unmounted at the end.
struct Mounted(std::path::PathBuf);

impl Mounted {
    /// `None` where mounting is not permitted.
    fn over(path: &std::path::Path) -> Option<Self> {
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("tmpfs", path, "tmpfs", flags, None).ok()?;
        Some(Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

#[test]
fn something_mounted_over_a_directory_is_told_and_watched() {
    let g = Ground::new(&["a/b", "c"], everything());
    let Some(mounted) = Mounted::over(&g.path("a")) else { return };
    g.heard.one(&touch("a"));
    g.heard.one(&tree("a"));
    fs::create_dir(g.path("a/on-top")).unwrap();
    g.heard.one(&tree("a/on-top"));
    g.assert_watched("a/on-top");
    g.heard.clear();
    drop(mounted);
    g.heard.one(&tree("a"));
    g.assert_watched("a/b");
    assert!(g.heard.all().iter().all(|h| !matches!(h, Hint::Gap { .. })));
}

#[test]
fn something_mounted_over_the_root_or_above_it_is_a_gap() {
    let g = Ground::new(&["a"], everything());
    let above = g.root.parent().unwrap();
    for place in [g.root.as_path(), above] {
        g.heard.clear();
        let Some(mounted) = Mounted::over(place) else { return };
        g.heard.until("the gap", |h| h.iter().any(|h| is_gap(h, GapCause::Root)));
        g.heard.clear();
        drop(mounted);
        g.heard.until("the second gap", |h| h.iter().any(|h| is_gap(h, GapCause::Root)));
    }
    g.assert_watched("a");
}
