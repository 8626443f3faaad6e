//! How much a scan costs beside the bare work of it: getdents, statx, open, read and
//! SHA-256 on the same number of threads.
//!
//! `cargo run --release -p guard-tree --example scan_ratio -- [DIR [THREADS]]` makes a tree of
//! 100,000 small files in DIR (by default in the temporary directory, removed at the
//! end) or takes what is there, warms the page cache and prints medians and ratios.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a measurement for developers")]

use std::collections::HashMap;
use std::fs;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use guard_model::baseline::Role;
use guard_model::policy::PatternText;
use guard_model::{Class, Entry, Observed, Policy, RelPath};
use guard_tree::{Pace, Progress, Root, ScanContent, ScanOptions, Visitor, scan};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, StatxFlags, openat, statx};
use sha2::{Digest, Sha256};

const FILES: usize = 100_000;
const RUNS: usize = 9;

/// Directories of 20 files, nested three deep as in a web project's dependencies.
fn make(top: &Path) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let content: Vec<u8> = (0..1 << 20).map(|_| random() as u8).collect();
    for d in 0..FILES / 20 {
        let dir = top.join(format!("package{}/lib{}/part{d}", d / 50, d / 10 % 5));
        fs::create_dir_all(&dir).unwrap();
        for f in 0..20 {
            // Sizes around 8 KiB, few big ones: the product of four dice.
            let size = (0..4).map(|_| random() % 17 + 2).product::<u64>() as usize;
            fs::write(dir.join(format!("module_{f}.js")), &content[..size.min(content.len())]).unwrap();
        }
    }
}

/// The bare work.
fn floor(top: &Path, threads: usize, read: bool) -> usize {
    let open = |dir: &OwnedFd, name: &std::ffi::CStr, flags| {
        openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty())
    };
    let first: OwnedFd = fs::File::open(top).unwrap().into();
    let (stack, busy, files) = (Mutex::new(vec![first]), AtomicUsize::new(0), AtomicUsize::new(0));
    let work = || {
        let mut names = vec![MaybeUninit::uninit(); 32 << 10];
        let mut buffer = vec![0; 128 << 10];
        loop {
            let dir = {
                let mut stack = stack.lock().unwrap();
                let dir = stack.pop();
                if dir.is_some() {
                    busy.fetch_add(1, Ordering::SeqCst);
                }
                dir
            };
            let Some(dir) = dir else {
                if busy.load(Ordering::SeqCst) == 0 && stack.lock().unwrap().is_empty() {
                    return;
                }
                std::thread::yield_now();
                continue;
            };
            let mut raw = RawDir::new(&dir, &mut names);
            while let Some(entry) = raw.next() {
                let entry = entry.unwrap();
                let name = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                black_box(statx(&dir, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).unwrap());
                match entry.file_type() {
                    FileType::Directory => {
                        let child = open(&dir, name, OFlags::DIRECTORY | OFlags::NOFOLLOW).unwrap();
                        stack.lock().unwrap().push(child);
                    }
                    FileType::RegularFile if read => {
                        let file = open(&dir, name, OFlags::NOFOLLOW).unwrap();
                        let mut sha = Sha256::new();
                        loop {
                            let n = rustix::io::read(&file, &mut buffer[..]).unwrap();
                            sha.update(&buffer[..n]);
                            if n < buffer.len() {
                                break;
                            }
                        }
                        black_box(sha.finalize());
                        files.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => {}
                }
            }
            busy.fetch_sub(1, Ordering::SeqCst);
        }
    };
    std::thread::scope(|s| (0..threads).for_each(|_| drop(s.spawn(work))));
    files.into_inner()
}

#[derive(Default)]
struct Sink {
    known: HashMap<RelPath, Entry>,
    seen: Option<Mutex<HashMap<RelPath, Entry>>>,
}

impl Visitor for Sink {
    type Dir = ();
    fn enter(&self, _: &RelPath) {}
    fn expected(&self, (): &(), path: &RelPath) -> Option<Entry> {
        self.known.get(path).cloned()
    }
    fn found(&self, (): &mut (), path: RelPath, _: Class, _: Role, observed: Observed) {
        match (&self.seen, observed) {
            (Some(seen), Observed::Present(entry)) => {
                seen.lock().unwrap().insert(path, entry);
            }
            (_, observed) => {
                black_box((path, observed));
            }
        }
    }
    fn leave(&self, (): (), _: &RelPath) {}
}

fn guarded(
    root: &Root,
    policy: &Policy,
    threads: usize,
    content: ScanContent,
    pace: Option<Pace>,
    sink: &Sink,
) {
    let (cancel, progress) = (AtomicBool::new(false), Progress::default());
    let options = ScanOptions { content, workers: threads, pace, cancel: &cancel, progress: &progress };
    black_box(scan(root, policy, &RelPath::root(), &options, sink).unwrap());
}

fn timed(mut work: impl FnMut()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn main() {
    let mut args = std::env::args_os().skip(1);
    let temporary = tempfile::tempdir().unwrap();
    let top = args.next().map_or_else(|| temporary.path().to_owned(), PathBuf::from);
    let threads = args.next().and_then(|n| n.to_str()?.parse().ok()).unwrap_or(2);
    if fs::read_dir(&top).is_ok_and(|mut d| d.next().is_none()) {
        println!("making {FILES} files in {}", top.display());
        make(&top);
    }
    let root = Root::open(&top).unwrap();
    let everything = Policy::new(PatternText::default()).unwrap();
    let own = |list: &[&str]| list.iter().map(|&s| s.to_owned()).collect();
    let patterns = Policy::new(PatternText {
        protect: Vec::new(),
        ignore: own(&["__pycache__/", "*.pyc", "node_modules/.cache/"]),
        writable: own(&["media/", "logs/"]),
        sensitive: own(&[".env*"]),
        ..PatternText::default()
    })
    .unwrap();
    let fastest = Pace { bytes_per_second: std::num::NonZeroU64::MAX };
    let count = floor(&top, threads, true);
    println!("{count} files read, {threads} threads");
    type Case<'a> = (&'a str, Box<dyn Fn() + 'a>);
    let first = Sink { seen: Some(Mutex::default()), ..Sink::default() };
    guarded(&root, &everything, threads, ScanContent::All, None, &first);
    let sink = Sink { known: first.seen.unwrap().into_inner().unwrap(), seen: None };
    let scans = |content, policy, pace| {
        let (root, sink) = (&root, &sink);
        Box::new(move || guarded(root, policy, threads, content, pace, sink)) as Box<dyn Fn()>
    };
    let cases: Vec<Case<'_>> = vec![
        ("bare, reading", Box::new(|| assert_eq!(floor(&top, threads, true), count))),
        ("scan, reading all", scans(ScanContent::All, &everything, None)),
        ("scan, reading all, with patterns", scans(ScanContent::All, &patterns, None)),
        ("scan, reading all, leaving the cache alone", scans(ScanContent::All, &everything, Some(fastest))),
        ("bare, metadata", Box::new(|| assert_eq!(floor(&top, threads, false), 0))),
        ("scan, reading what differs (nothing)", scans(ScanContent::WhereDiffers, &everything, None)),
        ("scan, metadata", scans(ScanContent::None, &everything, None)),
        ("scan, metadata, with patterns", scans(ScanContent::None, &patterns, None)),
    ];
    let mut times = vec![Vec::new(); cases.len()];
    for _ in 0..RUNS {
        for (case, times) in cases.iter().zip(&mut times) {
            times.push(timed(&case.1));
        }
    }
    let mut bare = Duration::MAX;
    for ((name, _), times) in cases.iter().zip(&mut times) {
        times.sort();
        let median = times[RUNS / 2];
        if name.starts_with("bare") {
            bare = median;
        }
        let ratio = median.as_secs_f64() / bare.as_secs_f64();
        println!("{name:44} {:7.3} s  x {ratio:.2}", median.as_secs_f64());
    }
}
