//! What single parts cost: `cargo bench -p guard-bench --features suite`.

#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "a bench fails by panicking, and its macros make public functions"
)]

use std::borrow::Cow;
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use guard_model::baseline::{BaselineRecord, Expect, Role};
use guard_model::ledger::Event;
use guard_model::policy::PatternText;
use guard_model::{Class, Entry, Observed, Policy, RelPath, Seal, Timestamp};
use guard_store::{
    Baseline, BaselineWriter, Committed, EncodedRecords, HostKey, Ledger, ManifestDraft, StateDir,
};
use guard_tree::{Content, Progress, Root, ScanContent, ScanOptions, Visitor, scan};
use sha2::{Digest as _, Sha256};
use stringzilla::sz;

const DIRECTORIES: usize = 100;
const FILES: usize = 20;
const BIG: usize = 8 << 20;
/// Bytes of a message, and how many.
const SMALL: usize = 8 << 10;
const SIDE_BY_SIDE: usize = 64;

fn tree() -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    for d in 0..DIRECTORIES {
        let dir = top.path().join(format!("package-{}/part-{d}", d % 10));
        fs::create_dir_all(&dir).unwrap();
        for f in 0..FILES {
            fs::write(dir.join(format!("module_{f}.js")), vec![f as u8; 7000]).unwrap();
        }
    }
    top
}

fn everything() -> Policy {
    Policy::new(PatternText::default()).unwrap()
}

/// What a scan comes upon, as records.
#[derive(Default)]
struct Collect(Mutex<Vec<BaselineRecord>>);

impl Visitor for Collect {
    type Dir = ();

    fn enter(&self, _dir: &RelPath) {}

    fn expected<'v>(&'v self, _dir: &'v (), _path: &RelPath) -> Option<Cow<'v, Entry>> {
        None
    }

    fn found(&self, _dir: &mut (), path: RelPath, _class: Class, role: Role, observed: Observed) {
        if let Observed::Present(entry) = observed {
            let record = BaselineRecord { path, role, sealed: Seal::None, skip: None, entry };
            self.0.lock().unwrap().push(record);
        }
    }

    fn leave(&self, _dir: (), _path: &RelPath) {}
}

/// The walk merged with a baseline, directory by directory.
struct Compare<'b> {
    baseline: &'b Baseline,
    differing: AtomicU64,
}

impl Visitor for Compare<'_> {
    type Dir = Vec<BaselineRecord>;

    fn enter(&self, dir: &RelPath) -> Self::Dir {
        self.baseline.children(dir).unwrap()
    }

    fn expected<'v>(&'v self, dir: &'v Self::Dir, path: &RelPath) -> Option<Cow<'v, Entry>> {
        let at = dir.binary_search_by(|record| record.path.cmp(path)).ok()?;
        Some(Cow::Borrowed(&dir[at].entry))
    }

    fn found(&self, dir: &mut Self::Dir, path: RelPath, _class: Class, _role: Role, observed: Observed) {
        let Ok(at) = dir.binary_search_by(|record| record.path.cmp(&path)) else { return };
        let differs = !dir[at].differences(&observed, Expect::Original).is_empty();
        self.differing.fetch_add(u64::from(differs), Ordering::Relaxed);
    }

    fn leave(&self, _dir: Self::Dir, _path: &RelPath) {}
}

fn run<V: Visitor>(root: &Root, content: ScanContent, visitor: &V) {
    let (cancel, progress) = (AtomicBool::new(false), Progress::default());
    let options = ScanOptions { content, workers: 1, pace: None, cancel: &cancel, progress: &progress };
    scan(root, &everything(), &RelPath::root(), &options, visitor).unwrap();
}

fn draft() -> ManifestDraft {
    ManifestDraft {
        created_at: Timestamp(0),
        by: String::new(),
        reason: String::new(),
        root: "/srv/app".into(),
        root_identity: (1, 2),
        ancestors: vec![],
        mounts: None,
        policy: PatternText::default(),
        seal: Seal::None,
        seal_done: Seal::None,
        previous: None,
    }
}

fn written(top: &Path, records: &[BaselineRecord]) -> (Committed, HostKey) {
    let state = StateDir::open(top).unwrap();
    let key = HostKey::load_or_create(&state).unwrap();
    let mut writer = BaselineWriter::create(&state, "bench", 1).unwrap();
    records.iter().for_each(|record| writer.push(record).unwrap());
    (writer.finish(draft(), &key).unwrap(), key)
}

fn trees(c: &mut Criterion) {
    let top = tree();
    let root = Root::open(top.path()).unwrap();
    let seen = Collect::default();
    run(&root, ScanContent::All, &seen);
    let records = seen.0.into_inner().unwrap();
    let count = Throughput::Elements(records.len() as u64);

    let mut group = c.benchmark_group("tree");
    group.throughput(count.clone());
    group.bench_function("walk", |b| b.iter(|| run(&root, ScanContent::None, &Collect::default())));
    group.bench_function("walk, read and hash", |b| {
        b.iter(|| run(&root, ScanContent::All, &Collect::default()))
    });
    let state = tempfile::tempdir().unwrap();
    let (committed, key) = written(state.path(), &records);
    let baseline = Baseline::open(&committed.dir, &committed.digest, &key.public()).unwrap();
    group.bench_function("walk merged with a baseline", |b| {
        b.iter(|| {
            let compare = Compare { baseline: &baseline, differing: AtomicU64::new(0) };
            run(&root, ScanContent::WhereDiffers, &compare);
            assert_eq!(compare.differing.into_inner(), 0);
        });
    });
    group.finish();

    let mut group = c.benchmark_group("records");
    group.throughput(count);
    group.bench_function("encode", |b| {
        b.iter(|| {
            let mut encoded = EncodedRecords::default();
            records.iter().for_each(|record| encoded.push(record));
            black_box(encoded.size())
        });
    });
    group.bench_function("decode", |b| b.iter(|| baseline.iter().filter(|record| record.is_ok()).count()));
    group.bench_function("sort, write, sign and fsync a baseline", |b| {
        b.iter_batched(
            || tempfile::tempdir().unwrap(),
            |top| written(top.path(), &records),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn hashing(c: &mut Criterion) {
    let top = tempfile::tempdir().unwrap();
    fs::write(top.path().join("big"), vec![7; BIG]).unwrap();
    let root = Root::open(top.path()).unwrap();
    let path = RelPath::from_text("big").unwrap();
    let mut group = c.benchmark_group("hashing");
    group.throughput(Throughput::Bytes(BIG as u64));
    group.bench_function("a file of 8 MiB", |b| b.iter(|| black_box(root.observe(&path, Content::Read))));
    let messages: Vec<Vec<u8>> = (0..SIDE_BY_SIDE).map(|n| vec![n as u8; SMALL]).collect();
    group.throughput(Throughput::Bytes((SIDE_BY_SIDE * SMALL) as u64));
    group.bench_function("small messages, one after the other", |b| {
        b.iter(|| messages.iter().map(|m| Sha256::digest(m)[0]).fold(0, |all, byte| all ^ byte));
    });
    for lanes in [16, 8, 4, 1] {
        group.bench_function(format!("small messages, {lanes} side by side"), |b| {
            b.iter(|| {
                for messages in messages.chunks(lanes) {
                    let mut states = vec![sz::Sha256::new(); messages.len()];
                    let mut digests = vec![[0; 32]; messages.len()];
                    sz::sha256_multistate_update(&mut states, messages).unwrap();
                    sz::sha256_multistate_digest(&states, &mut digests).unwrap();
                    black_box(digests);
                }
            });
        });
    }
    group.finish();
}

fn ledger(c: &mut Criterion) {
    let top = tempfile::tempdir().unwrap();
    let state = StateDir::open(top.path()).unwrap();
    let key = HostKey::load_or_create(&state).unwrap();
    let (ledger, _) = Ledger::open(&state, key, || Timestamp(0)).unwrap();
    let event = Event::RehashFinished { files: 1, bytes: 2, duration_ms: 3, findings: 0, deep: false };
    let mut group = c.benchmark_group("ledger");
    for count in [1, 100] {
        group.throughput(Throughput::Elements(count));
        group.bench_function(format!("append {count}, signed and fsynced"), |b| {
            b.iter(|| {
                let events = vec![event.clone(); usize::try_from(count).unwrap()];
                ledger.handle().append(Some("bench".to_owned()), events).unwrap()
            });
        });
    }
    group.finish();
    ledger.stop().unwrap();
}

criterion_group!(parts, hashing, trees, ledger);
criterion_main!(parts);
