//! A large tree: what its watches cost. One test only, because memory is
//! measured for the whole process.

#![allow(clippy::unwrap_used, reason = "this is test code, in a file of its own")]

mod support;

const SOURCE: guard_watch::Source = guard_watch::Source::Inotify;

use std::fs;
use std::time::Instant;

use support::{Ground, policy};

/// Resident memory in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

#[test]
fn fifteen_thousand_directories_stay_small_and_can_go_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("root");
    for package in 0..300 {
        let base = root.join(format!("frontend/node_modules/some-package-name-{package:04}/dist/esm"));
        for i in 0..47 {
            fs::create_dir_all(base.join(format!("component-{i:02}"))).unwrap();
        }
    }
    let before = resident();
    let started = Instant::now();
    let g = Ground::at(dir, root, policy(&[], &[], &[]));
    println!("{} directories in {:?}", g.report.directories, started.elapsed());
    assert_eq!((g.report.directories, g.report.failed.len()), (3 + 300 * 50, 0));
    let grown = resident().saturating_sub(before);
    println!("{} KiB", grown >> 10);
    assert!(grown < 15 << 20, "{grown} bytes for {} directories", g.report.directories);

    let started = Instant::now();
    fs::remove_dir_all(g.path("frontend/node_modules")).unwrap();
    println!("removed in {:?}", started.elapsed());
    g.settle();
    println!("settled after {:?}", started.elapsed());
    println!("{} KiB", resident().saturating_sub(before) >> 10);
    fs::create_dir_all(g.path("frontend/node_modules/again")).unwrap();
    g.settle();
    g.assert_watched("frontend/node_modules/again");
}
