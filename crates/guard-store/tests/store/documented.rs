//! The command lines of docs/ledger.md and docs/state.md do what they say.

use std::ffi::OsStr;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use guard_model::baseline::{BaselineRecord, Role};
use guard_model::ledger::Event;
use guard_model::seal::{APPEND, BINDING, IMMUTABLE, Marks};
use guard_model::{Entry, Kind, RelPath, Seal, Stamp, Timestamp};
use guard_store::{BaselineWriter, Plan, PlanHeader, PlanKind, PlanStep, lock_file};

use crate::support::{Fixture, bash, digest, draft, lock_content, locked, opened_alert, stopped};

/// Directories end in a slash.
const TREE: [(&[u8], u32); 14] = [
    (b"./", 0o755),
    (b"sub/", 0o2775),
    (b"plain", 0o644),
    (b"with  spaces ", 0o664),
    (b" leading", 0o600),
    (b"new\nline", 0o666),
    (b"ends in newline\n", 0o640),
    (b"back\\slash\\x41", 0o644),
    (b"\\", 0o755),
    (b"not utf-8 \xff\xfe", 0o644),
    (b"-rf", 0o644),
    (b"$(touch gone)`id`'\"", 0o744),
    (b"sub/setuid\ttab", 0o6755),
    (b"sub/%s%b*?[a]", 0o622),
];

/// Entries that had binding flags before they were sealed, where flags can be set.
const FLAGGED: [(&[u8], u32); 3] = [(b"plain", APPEND), (b"-rf", IMMUTABLE), (b"sub/", APPEND)];

struct Documented {
    f: Fixture,
    root: PathBuf,
    seal: Seal,
}

impl Drop for Documented {
    fn drop(&mut self) {
        self.flag(|_| 0);
    }
}

impl Documented {
    /// A locked environment: a real tree, sealed, with baseline, lock file, ledger and a plan.
    fn new() -> Self {
        Self::sealed(Seal::ReadOnly)
    }

    fn sealed(seal: Seal) -> Self {
        let f = Fixture::new();
        let root = f.temp.path().join("srv");
        std::fs::create_dir_all(root.join("sub")).unwrap();
        let (ledger, _) = f.open().unwrap();
        let h = ledger.handle();
        let mut writer = BaselineWriter::create(&f.state, "production", 3).unwrap();
        let mut steps = Vec::new();
        for (name, mode) in TREE {
            let mut record = make(&root, name, mode);
            record.sealed = seal;
            record.entry.flags = flags_before(name, seal);
            let identity = (record.entry.dev, record.entry.ino);
            let marks = Marks::of(&record.entry);
            steps.push(PlanStep::new(record.path.clone(), identity, marks, marks.under(record.sealed)));
            writer.push(&record).unwrap();
        }
        let committed = writer.finish(draft(), &f.key).unwrap();
        let header = PlanHeader {
            environment: "production".into(),
            kind: PlanKind::Lock,
            generation: 3,
            at: Timestamp(0),
            by: "root (uid 0)".into(),
            reason: "release".into(),
            root: "/srv/app".into(),
            root_identity: (1, 2),
        };
        Plan::write(&f.state, &header, steps).unwrap();
        h.append(None, (0..1200).map(stopped).collect()).unwrap();
        h.append(Some("production".into()), vec![locked(3), opened_alert(&[".env.prod"])]).unwrap();
        let mut content = lock_content("production", h.head());
        content.baseline = committed.digest;
        lock_file::write(&f.state, &content, &f.key).unwrap();
        h.append(None, vec![Event::DaemonStopped { reason: "SIGTERM".into() }]).unwrap();
        ledger.stop().unwrap();
        let d = Self { f, root, seal };
        d.seal();
        d
    }

    fn seal(&self) {
        self.flag(|_| 0);
        for (name, mode) in TREE.iter().rev() {
            set_mode(&self.root.join(OsStr::from_bytes(name)), mode & !0o222);
        }
        let bound = if self.seal == Seal::Immutable { IMMUTABLE } else { 0 };
        self.flag(|name| bound | flags_before(name, self.seal));
    }

    /// Gives every entry binding flags, where the test is about them.
    fn flag(&self, wanted: impl Fn(&[u8]) -> u32) {
        for (name, _) in TREE.iter().filter(|_| self.seal == Seal::Immutable) {
            let file = std::fs::File::open(self.root.join(OsStr::from_bytes(name))).unwrap();
            guard_sys::flags::set(file.as_fd(), BINDING, wanted(name)).unwrap();
        }
    }

    /// Mode and binding flags of every entry.
    fn marks(&self) -> Vec<(u32, u32)> {
        let marks = |(name, _): &(&[u8], u32)| {
            let path = self.root.join(OsStr::from_bytes(name));
            let mode = path.metadata().unwrap().mode() & 0o7777;
            let file = std::fs::File::open(path);
            let flags = file.map_or(0, |f| guard_sys::flags::get(f.as_fd()).unwrap_or(0) & BINDING);
            (mode, flags)
        };
        TREE.iter().map(marks).collect()
    }

    /// Runs a block of a document, after the settings it relies on.
    fn run(&self, document: &str, name: &str) -> Result<String, String> {
        let settings = match document {
            LEDGER => "STATE=/var/lib/guardd".to_owned(),
            _ => block(STATE, "setting"),
        };
        let text = format!("{settings}\n{}", block(document, name))
            .replace("/var/lib/guardd", self.f.state.path().to_str().unwrap())
            .replace("ROOT=/srv/app", &format!("ROOT={}", self.root.display()));
        bash(self.f.temp.path(), &text)
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn flags_before(name: &[u8], seal: Seal) -> u32 {
    let flagged = FLAGGED.iter().find(|(flagged, _)| *flagged == name && seal == Seal::Immutable);
    flagged.map_or(0, |(_, flags)| *flags)
}

/// With the immutable flag where this test may set it, and without.
fn seals() -> Vec<Seal> {
    let temp = tempfile::tempfile().unwrap();
    let set = |flags| guard_sys::flags::set(temp.as_fd(), BINDING, flags).is_ok();
    if set(IMMUTABLE) && set(0) { vec![Seal::ReadOnly, Seal::Immutable] } else { vec![Seal::ReadOnly] }
}

fn make(root: &Path, name: &[u8], mode: u32) -> BaselineRecord {
    let path = root.join(OsStr::from_bytes(name));
    let directory = name.strip_suffix(b"/");
    if directory.is_none() {
        std::fs::write(&path, name).unwrap();
    }
    set_mode(&path, mode);
    let meta = path.metadata().unwrap();
    let kind = if directory.is_some() { Kind::Directory } else { Kind::File };
    BaselineRecord {
        path: RelPath::from_bytes(directory.unwrap_or(name)).unwrap(),
        role: Role::Protected,
        sealed: Seal::ReadOnly,
        skip: None,
        entry: Entry {
            kind,
            mode,
            uid: meta.uid(),
            gid: meta.gid(),
            size: if kind == Kind::File { meta.len() } else { 0 },
            mtime: Stamp::default(),
            ctime: Stamp::default(),
            dev: meta.dev(),
            ino: meta.ino(),
            nlink: 1,
            rdev: 0,
            flags: 0,
            target: None,
            xattrs: vec![],
            sha256: (kind == Kind::File).then(|| digest(name)),
        },
    }
}

const LEDGER: &str = include_str!("../../../../docs/ledger.md");
const STATE: &str = include_str!("../../../../docs/state.md");

/// The block that follows `<!-- test: NAME -->`.
fn block(document: &str, name: &str) -> String {
    let (_, rest) = document.split_once(&format!("<!-- test: {name} -->\n```sh\n")).unwrap();
    rest.split_once("\n```").unwrap().0.to_owned()
}

#[test]
fn everything_documented_about_state_works() {
    seals().into_iter().for_each(state_works);
}

fn state_works(seal: Seal) {
    let d = Documented::sealed(seal);
    let originals: Vec<(u32, u32)> = TREE.iter().map(|t| (t.1, flags_before(t.0, seal))).collect();
    assert!(d.run(STATE, "verify-lock").unwrap().contains("Good \"guardd-lock\" signature for guardd"));
    d.run(STATE, "verify-baseline").unwrap();
    assert_eq!(d.run(STATE, "verify-files").unwrap(), "");
    let differing = d.run(STATE, "compare-attributes").unwrap();
    assert!(differing.contains("plain: was 0644 ") && differing.contains(", is 0444 "), "{differing}");
    assert_ne!(d.marks(), originals);
    d.run(STATE, "undo").unwrap();
    assert_eq!(d.marks(), originals);
    assert_eq!(d.run(STATE, "compare-attributes").unwrap(), "");
    d.seal();
    d.run(STATE, "undo-plan").unwrap();
    assert_eq!(d.marks(), originals);
    assert!(!d.root.join("gone").exists() && !d.f.temp.path().join("gone").exists());
    assert!(d.run(STATE, "sign").unwrap().starts_with("-----BEGIN SSH SIGNATURE-----"));
}

#[test]
fn everything_documented_about_state_finds_what_is_wrong() {
    let d = Documented::new();
    let baseline = d.f.state.generation("production", 3).unwrap();
    for name in ["SHA256SUMS", "undo.jsonl", "records", "manifest.json"] {
        crate::support::flip(&baseline.join(name), 5, 0);
        d.run(STATE, "verify-baseline").unwrap_err();
        crate::support::flip(&baseline.join(name), 5, 0);
    }
    d.run(STATE, "verify-baseline").unwrap();
    for (name, mode) in TREE.iter().filter(|t| !t.0.ends_with(b"/")) {
        let path = d.root.join(OsStr::from_bytes(name));
        set_mode(&path, 0o600);
        std::fs::write(&path, "changed").unwrap();
        d.run(STATE, "verify-files").unwrap_err();
        std::fs::write(&path, name).unwrap();
        set_mode(&path, mode & !0o222);
    }
    bash(d.f.state.path(), "sed -i '1s/release/other/' locks/production.lock").unwrap();
    d.run(STATE, "verify-lock").unwrap_err();
}

#[test]
fn anybody_can_verify_a_lock_file() {
    if !crate::support::is_root() {
        println!("skipped: needs root to become another user");
        return;
    }
    let d = Documented::new();
    // The way there must be passable, as the way to /var/lib is.
    set_mode(d.f.temp.path(), 0o755);
    let line = block(STATE, "verify-lock").replace("/var/lib/guardd", d.f.state.path().to_str().unwrap());
    let as_nobody = |line: &str| {
        let mut command = std::process::Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "bash",
            "-euo",
            "pipefail",
            "-c",
            line,
        ]);
        crate::support::run(&mut command, b"")
    };
    as_nobody(&line).unwrap();
    for secret in ["keys/host", "guardd.db", "ledger/0000000001.jsonl", "baseline/production/3/undo.jsonl"] {
        as_nobody(&format!("cat {}/{secret}", d.f.state.path().display())).unwrap_err();
    }
    as_nobody(&format!("ls {}", d.f.state.path().display())).unwrap_err();
}

#[test]
fn everything_documented_about_the_ledger_works_and_finds_what_is_wrong() {
    let d = Documented::new();
    assert!(d.run(LEDGER, "last-alerts").unwrap().ends_with(" production: .env.prod changed\n"));
    assert!(d.run(LEDGER, "path-history").unwrap().contains("\"alert_opened\"]"));
    assert!(d.run(LEDGER, "checkpoints").unwrap().lines().count() == 2);
    d.run(LEDGER, "remembered-head").unwrap();
    // The chain by hand takes three processes a record: enough of them, not all.
    let path = &d.f.ledger_files()[0];
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let some = lines[..40].join("\n") + "\n";
    std::fs::write(path, &some).unwrap();
    assert!(d.run(LEDGER, "chain").unwrap().starts_with("whole, its head is "));
    d.run(LEDGER, "remembered-head").unwrap_err();
    std::fs::write(path, some.replacen("SIGTERM 9", "SIGTERM 8", 1)).unwrap();
    assert!(d.run(LEDGER, "chain").unwrap_err().contains("broken before record 11"));
    let other = Fixture::new();
    std::fs::write(path, &text).unwrap();
    std::fs::copy(other.state.public().join("allowed_signers"), d.f.state.public().join("allowed_signers"))
        .unwrap();
    d.run(LEDGER, "checkpoints").unwrap_err();
}

#[test]
fn every_event_is_documented() {
    let source = include_str!("../../../guard-model/src/ledger.rs");
    let (_, names) = source.split_once("pub fn name(&self)").unwrap();
    let (names, _) = names.split_once("\n    }\n").unwrap();
    let names: Vec<&str> = names.split('"').skip(1).step_by(2).collect();
    assert!(names.len() > 15);
    for name in names {
        assert!(LEDGER.contains(&format!("`{name}`")), "docs/ledger.md does not know `{name}`");
    }
}

#[test]
fn every_block_is_tested() {
    let source = include_str!("documented.rs");
    for document in [LEDGER, STATE] {
        for name in document.lines().filter_map(|l| l.strip_prefix("<!-- test: ")?.strip_suffix(" -->")) {
            assert!(source.contains(&format!("\"{name}\"")), "{name} is not run");
        }
        let marked = document.matches("<!-- test: ").count();
        // One block of the ledger's document is the setting of the others.
        let blocks = document.matches("```sh").count();
        assert!(blocks - marked <= 1, "{} blocks are not tested", blocks - marked);
    }
}
