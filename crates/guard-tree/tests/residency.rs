//! A paced scan leaves the page cache as it found it, to the page.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::num::NonZeroU64;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use guard_model::RelPath;
use guard_sys::residency::in_memory;
use guard_tree::{Pace, Progress, Root, ScanContent, ScanOptions, scan};
use rustix::fs::{Advice, fadvise};
use support::*;

const PAGE: usize = 4096;
/// Bytes: nothing, less than a page, a page, its neighbours, a read's worth, more, and a big file.
const SIZES: [usize; 8] =
    [0, 100, PAGE, PAGE + 1, 5 * PAGE - 1, 128 << 10, (300 << 10) + 7, BIG as usize + PAGE + 3];
/// Other programs make the kernel reclaim pages at any time. What guardd drops it drops each time.
const TRIES: usize = 40;

/// A name, and whether such an application reads a page.
type Habit = (&'static str, fn(usize) -> bool);

/// Which pages of a file an application has read.
const HABITS: [Habit; 5] = [
    ("all", |_| true),
    ("none", |_| false),
    ("third", |page| page % 3 == 0),
    ("holes", |page| page % 3 != 0),
    ("first", |page| page < 2),
];

fn pages(path: &Path) -> Option<Vec<bool>> {
    let file = File::open(path).unwrap();
    in_memory(file.as_fd(), usize::try_from(file.metadata().unwrap().len()).unwrap())
}

fn resident(top: &Path) -> Option<BTreeMap<String, Vec<bool>>> {
    let files = fs::read_dir(top).unwrap().map(|entry| entry.unwrap());
    files.map(|f| Some((f.file_name().into_string().unwrap(), pages(&f.path())?))).collect()
}

/// Brings into memory what the habits say, and nothing else; `None` where this file system keeps its pages or does not tell.
fn use_them(top: &Path) -> Option<BTreeMap<String, Vec<bool>>> {
    for (name, _) in resident(top)? {
        fadvise(File::open(top.join(name)).unwrap(), 0, None, Advice::DontNeed).unwrap();
    }
    if resident(top)?.values().flatten().any(|&there| there) {
        return None;
    }
    for (name, pages) in resident(top)? {
        let file = File::open(top.join(&name)).unwrap();
        fadvise(&file, 0, None, Advice::Random).unwrap();
        let (_, is_used) = HABITS.into_iter().find(|(habit, _)| name.starts_with(habit)).unwrap();
        for page in (0..pages.len()).filter(|&page| is_used(page)) {
            file.read_at(&mut [0; PAGE], (page * PAGE) as u64).unwrap();
        }
    }
    resident(top)
}

fn run(top: &Path, pace: Option<Pace>) {
    let root = Root::open(top).unwrap();
    let (cancel, progress) = (AtomicBool::new(false), Progress::default());
    let options =
        ScanOptions { content: ScanContent::All, workers: 1, pace, cancel: &cancel, progress: &progress };
    let visitor = Collect::default();
    scan(&root, &everything(), &RelPath::root(), &options, &visitor).unwrap();
    let found = visitor.found.into_inner().unwrap();
    assert_eq!(found.values().filter(|f| f.entry().sha256.is_some()).count(), HABITS.len() * SIZES.len());
}

#[test]
fn a_paced_scan_neither_evicts_nor_adds_a_page() {
    // Not in /tmp, which may lie in memory where nothing can be dropped.
    let dir = tempfile::tempdir_in("/var/tmp").unwrap();
    let top = dir.path();
    for (habit, _) in HABITS {
        for size in SIZES {
            let file = File::create(top.join(format!("{habit}-{size}"))).unwrap();
            file.write_all_at(&vec![7; size], 0).unwrap();
            file.sync_all().unwrap();
        }
    }
    let fast = Pace { bytes_per_second: NonZeroU64::MAX, most_cpu: Pace::WHOLE_CPU };
    let mut differences = Vec::new();
    for _ in 0..TRIES {
        let Some(before) = use_them(top) else { return };
        run(top, Some(fast));
        let Some(after) = resident(top) else { return };
        if after == before {
            run(top, None);
            let read = resident(top).unwrap();
            assert!(read["none-131072"].iter().any(|&there| there), "an ordinary scan leaves what it read");
            return;
        }
        differences =
            before.into_iter().filter(|(name, pages)| after[name] != *pages).map(|(name, _)| name).collect();
    }
    panic!("pages came or went each time, at last of {differences:?}");
}
