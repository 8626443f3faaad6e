//! Putting back, one path at a time: what comes of it, and that nothing else changes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::error::Error;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use guard_model::{Digest, Entry, Kind, Observed, RelPath};
use guard_tree::put_back::{Action, Cleared, ContentOf, Marks};
use guard_tree::{Content, Keeper, Placed, PutBack, PutBackError, Root};
use sha2::{Digest as _, Sha256};

/// What is taken away, in memory.
#[derive(Default)]
struct InMemory {
    kept: Vec<(String, Kind, Vec<u8>)>,
    is_full: bool,
}

impl Keeper for InMemory {
    fn keep(&mut self, path: &RelPath, entry: &Entry, content: Option<&mut dyn Read>) -> io::Result<()> {
        if self.is_full {
            return Err(io::Error::other("full"));
        }
        let mut bytes = Vec::new();
        if let Some(content) = content {
            content.read_to_end(&mut bytes)?;
        }
        self.kept.push((path.to_string(), entry.kind, bytes));
        Ok(())
    }

    fn durable(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Failure = Box<dyn Error + Send + Sync>;

struct Scene {
    top: tempfile::TempDir,
    root: Root,
    keeper: InMemory,
}

fn rel(text: &str) -> RelPath {
    RelPath::from_bytes(text.as_bytes()).unwrap()
}

impl Scene {
    /// A root beside which there is something that must not change.
    fn new() -> Self {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("root/d")).unwrap();
        fs::write(top.path().join("root/d/f"), "original").unwrap();
        fs::set_permissions(top.path().join("root/d/f"), fs::Permissions::from_mode(0o640)).unwrap();
        fs::create_dir(top.path().join("outside")).unwrap();
        fs::write(top.path().join("outside/victim"), "victim").unwrap();
        let root = Root::open(&top.path().join("root")).unwrap();
        Self { top, root, keeper: InMemory::default() }
    }

    fn at(&self, path: &str) -> std::path::PathBuf {
        self.top.path().join("root").join(path)
    }

    fn outside(&self, path: &str) -> std::path::PathBuf {
        self.top.path().join("outside").join(path)
    }

    fn entry(&self, path: &str) -> Entry {
        match self.root.observe(&rel(path), Content::Read) {
            Observed::Present(entry) => entry,
            other => panic!("{path}: {other:?}"),
        }
    }

    fn found(&self, path: &str) -> Option<(u64, u64)> {
        match self.root.observe(&rel(path), Content::Skip) {
            Observed::Present(entry) => Some((entry.dev, entry.ino)),
            _ => None,
        }
    }

    fn step(&self, path: &str, action: Action) -> PutBack {
        let path = rel(path);
        let temporary = PutBack::temporary_beside(&path).unwrap();
        PutBack { found: self.found(&path.to_string()), path, temporary, action }
    }

    fn carry_out(&mut self, step: &PutBack, content: ContentOf<'_>) -> Result<Placed, PutBackError> {
        let dir = step.path.parent().unwrap();
        let identity =
            self.found(if dir.is_root() { "." } else { std::str::from_utf8(dir.as_bytes()).unwrap() });
        let desk = self.root.desk(&dir, identity.unwrap())?;
        let done = desk.put_back(step, 1, content, &mut self.keeper);
        desk.close(None)?;
        done
    }

    fn put(&mut self, path: &str, wanted: &Entry) -> Result<Placed, PutBackError> {
        let step = self.step(path, Action::Make(wanted.clone()));
        self.carry_out(&step, &original)
    }

    /// Nothing is left at a temporary name anywhere below.
    fn no_leftovers(&self) {
        fn look(dir: &Path) {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                assert!(!entry.file_name().to_string_lossy().starts_with(".guardd-"), "{:?}", entry.path());
                if entry.file_type().unwrap().is_dir() {
                    look(&entry.path());
                }
            }
        }
        look(self.top.path());
        assert_eq!(fs::read(self.outside("victim")).unwrap(), b"victim");
    }
}

fn original(digest: &Digest, out: &mut dyn Write) -> Result<(), Failure> {
    assert_eq!(*digest, Digest(Sha256::digest("original").into()));
    // In pieces, as a store would.
    out.write_all(b"orig")?;
    out.write_all(b"inal")?;
    Ok(())
}

fn nothing(_: &Digest, _: &mut dyn Write) -> Result<(), Failure> {
    Ok(())
}

/// Equal in all that is recorded but which inode it is and when that changed.
fn same(a: &Entry, b: &Entry) -> bool {
    let plain = |e: &Entry| Entry { ino: 0, ctime: guard_model::Stamp::default(), ..e.clone() };
    plain(a) == plain(b)
}

#[test]
fn content_comes_back_as_a_new_inode_with_every_attribute() {
    let mut s = Scene::new();
    let wanted = s.entry("d/f");
    let dir_before = fs::metadata(s.at("d")).unwrap();
    fs::write(s.at("d/f"), "tampered with").unwrap();
    let placed = s.put("d/f", &wanted).unwrap();
    let now = s.entry("d/f");
    assert!(same(&now, &wanted), "{now:?} {wanted:?}");
    assert_ne!(now.ino, wanted.ino);
    assert_eq!(placed.now.as_ref().map(|e| e.ino), Some(now.ino));
    assert!(placed.short.is_empty(), "{:?}", placed.short);
    assert_eq!(s.keeper.kept, [("d/f".to_owned(), Kind::File, b"tampered with".to_vec())]);
    let dir_after = fs::metadata(s.at("d")).unwrap();
    assert_eq!((dir_before.mtime(), dir_before.mtime_nsec()), (dir_after.mtime(), dir_after.mtime_nsec()));
    s.no_leftovers();
}

#[test]
fn what_is_gone_and_what_is_another_type_comes_back() {
    let mut s = Scene::new();
    symlink("f", s.at("d/l")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, s.at("d/p"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let wanted: Vec<_> = ["d/f", "d/l", "d/p"].into_iter().map(|p| (p, s.entry(p))).collect();
    type Breaking = fn(&Path);
    let breakings: [Breaking; 4] = [
        |p| fs::remove_file(p).unwrap(),
        |p| {
            fs::remove_file(p).unwrap();
            symlink("../../outside/victim", p).unwrap();
        },
        |p| {
            fs::remove_file(p).unwrap();
            fs::create_dir_all(p.join("deep/er")).unwrap();
            fs::write(p.join("deep/er/x"), "x").unwrap();
            symlink("/etc", p.join("deep/link")).unwrap();
        },
        |p| {
            fs::remove_file(p).unwrap();
            rustix::fs::mknodat(rustix::fs::CWD, p, rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
        },
    ];
    for breaking in breakings {
        for (path, wanted) in &wanted {
            breaking(&s.at(path));
            s.put(path, wanted).unwrap();
            assert!(same(&s.entry(path), wanted), "{path}");
            s.no_leftovers();
        }
    }
    assert!(s.keeper.kept.iter().any(|k| k.0 == "d/f/deep/er/x" && k.2 == b"x"));
}

#[test]
fn directories_come_back_from_the_top_down() {
    let mut s = Scene::new();
    let (dir, file) = (s.entry("d"), s.entry("d/f"));
    fs::remove_dir_all(s.at("d")).unwrap();
    let made = s.put("d", &dir).unwrap().now.unwrap();
    assert_ne!((made.ino, made.ino), (dir.ino, 0));
    s.put("d/f", &file).unwrap();
    assert!(same(&s.entry("d"), &dir));
    assert!(same(&s.entry("d/f"), &file));
}

#[test]
fn additions_go_to_quarantine_whole() {
    let mut s = Scene::new();
    fs::create_dir_all(s.at("d/new/a/b")).unwrap();
    fs::write(s.at("d/new/a/b/c"), "added").unwrap();
    fs::set_permissions(s.at("d/new/a"), fs::Permissions::from_mode(0o500)).unwrap();
    let step = s.step("d/new", Action::Remove);
    let placed = s.carry_out(&step, &nothing).unwrap();
    assert_eq!((placed.now, placed.kept.map(|e| e.kind)), (None, Some(Kind::Directory)));
    assert!(!s.at("d/new").exists());
    let names: Vec<&str> = s.keeper.kept.iter().map(|k| k.0.as_str()).collect();
    assert_eq!(names, ["d/new", "d/new/a", "d/new/a/b", "d/new/a/b/c"]);
    s.no_leftovers();
}

#[test]
fn attributes_alone_keep_the_inode() {
    let s = Scene::new();
    let wanted = s.entry("d/f");
    let identity = (wanted.dev, wanted.ino);
    fs::set_permissions(s.at("d/f"), fs::Permissions::from_mode(0o666)).unwrap();
    let touched = guard_sys::stat::Time { sec: 7, nsec: 7 };
    let file = guard_sys::open::absolute(&s.at("d/f"), guard_sys::open::How::Read).unwrap();
    guard_sys::entries::set_mtime(std::os::fd::AsFd::as_fd(&file), touched).unwrap();
    s.root.adjust(&rel("d/f"), identity, &wanted, 1).unwrap();
    let now = s.entry("d/f");
    assert!(same(&now, &wanted));
    assert_eq!(now.ino, wanted.ino);
}

#[test]
fn an_inode_with_another_name_is_never_changed() {
    let mut s = Scene::new();
    let wanted = s.entry("d/f");
    fs::remove_file(s.at("d/f")).unwrap();
    fs::hard_link(s.outside("victim"), s.at("d/f")).unwrap();
    let before = fs::metadata(s.outside("victim")).unwrap();
    let identity = s.found("d/f").unwrap();
    let refused = s.root.adjust(&rel("d/f"), identity, &wanted, 1).unwrap_err();
    assert!(matches!(refused, PutBackError::OtherNames { .. }), "{refused}");
    s.put("d/f", &wanted).unwrap();
    let after = fs::metadata(s.outside("victim")).unwrap();
    assert_eq!((before.mode(), before.uid(), before.mtime()), (after.mode(), after.uid(), after.mtime()));
    assert_eq!(after.nlink(), 1);
    s.no_leftovers();
}

#[test]
fn hard_links_inside_are_one_inode_again() {
    let mut s = Scene::new();
    fs::hard_link(s.at("d/f"), s.at("d/g")).unwrap();
    let (wanted, other) = (s.entry("d/f"), s.entry("d/g"));
    fs::remove_file(s.at("d/f")).unwrap();
    fs::write(s.at("d/f"), "x").unwrap();
    let to = Action::Link { wanted: wanted.clone(), to: rel("d/g"), identity: (other.dev, other.ino) };
    let step = s.step("d/f", to);
    s.carry_out(&step, &nothing).unwrap();
    assert_eq!(s.entry("d/f").ino, other.ino);
    assert!(same(&s.entry("d/f"), &wanted));
}

#[test]
fn wrong_content_or_a_full_quarantine_leave_everything_as_it_was() {
    let mut s = Scene::new();
    let wanted = s.entry("d/f");
    fs::write(s.at("d/f"), "tampered").unwrap();
    let before = s.entry("d/f");
    let step = s.step("d/f", Action::Make(wanted.clone()));
    let wrong = |bytes: &'static [u8]| {
        move |_: &Digest, out: &mut dyn Write| -> Result<(), Failure> { Ok(out.write_all(bytes)?) }
    };
    for bytes in [&b"forged!!"[..], b"short", b"longer than it was", b""] {
        let e = s.carry_out(&step, &wrong(bytes)).unwrap_err();
        assert!(matches!(e, PutBackError::OtherContent { .. } | PutBackError::Content { .. }), "{e}");
    }
    let e = s.carry_out(&step, &|_, _| Err("not held".into())).unwrap_err();
    assert!(matches!(e, PutBackError::Content { .. }), "{e}");
    s.keeper.is_full = true;
    let e = s.carry_out(&step, &original).unwrap_err();
    assert!(matches!(e, PutBackError::NotKept { .. }), "{e}");
    let removal = s.step("d/f", Action::Remove);
    assert!(matches!(s.carry_out(&removal, &nothing), Err(PutBackError::NotKept { .. })));
    assert_eq!(s.entry("d/f").ino, before.ino);
    assert!(same(&s.entry("d/f"), &before));
    s.no_leftovers();
}

#[test]
fn what_is_not_what_was_planned_with_is_left_alone() {
    let mut s = Scene::new();
    let wanted = s.entry("d/f");
    let step = s.step("d/f", Action::Make(wanted.clone()));
    // Another file, a link to elsewhere, nothing at all.
    fs::rename(s.at("d/f"), s.at("d/old")).unwrap();
    symlink("../../outside/victim", s.at("d/f")).unwrap();
    assert!(s.carry_out(&step, &original).unwrap_err().is_race());
    fs::remove_file(s.at("d/f")).unwrap();
    assert!(s.carry_out(&step, &original).unwrap_err().is_race());
    // Another directory, or a link to one, where the directory was.
    let dir = s.found("d").unwrap();
    fs::rename(s.at("d"), s.at("moved")).unwrap();
    symlink("../outside", s.at("d")).unwrap();
    assert!(s.root.desk(&rel("d"), dir).unwrap_err().is_race());
    fs::remove_file(s.at("d")).unwrap();
    fs::create_dir(s.at("d")).unwrap();
    assert!(s.root.desk(&rel("d"), dir).unwrap_err().is_race());
    s.no_leftovers();
}

#[test]
fn a_directory_moved_away_meanwhile_takes_nothing_of_others_along() {
    let mut s = Scene::new();
    let wanted = s.entry("d/f");
    fs::write(s.at("d/f"), "tampered").unwrap();
    let step = s.step("d/f", Action::Make(wanted));
    let desk = s.root.desk(&rel("d"), s.found("d").unwrap()).unwrap();
    fs::rename(s.at("d"), s.outside("d")).unwrap();
    symlink("../outside", s.at("d")).unwrap();
    // It goes on in the directory that it has; the one that stands there now is not touched.
    desk.put_back(&step, 1, &original, &mut s.keeper).unwrap();
    desk.close(None).unwrap();
    assert_eq!(fs::read(s.outside("d/f")).unwrap(), b"original");
    s.no_leftovers();
}

/// Moves a directory out of the tree in the very moment before it is closed to its owner.
struct Thief {
    from: std::path::PathBuf,
    to: std::path::PathBuf,
}

impl Keeper for Thief {
    fn keep(&mut self, _: &RelPath, entry: &Entry, _: Option<&mut dyn Read>) -> io::Result<()> {
        if entry.kind == Kind::Directory { fs::rename(&self.from, &self.to) } else { Ok(()) }
    }

    fn durable(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_directory_that_is_moved_out_while_it_is_taken_away_keeps_its_mode() {
    let s = Scene::new();
    fs::create_dir(s.at("d/new")).unwrap();
    fs::write(s.at("d/new/f"), "added").unwrap();
    fs::set_permissions(s.at("d/new"), fs::Permissions::from_mode(0o751)).unwrap();
    let step = s.step("d/new", Action::Remove);
    let temporary = s.at(std::str::from_utf8(step.temporary.as_bytes()).unwrap());
    let mut thief = Thief { from: temporary, to: s.outside("stolen") };
    let desk = s.root.desk(&rel("d"), s.found("d").unwrap()).unwrap();
    assert!(desk.put_back(&step, 1, &nothing, &mut thief).is_err());
    desk.close(None).unwrap();
    let stolen = fs::metadata(s.outside("stolen")).unwrap();
    assert_eq!(stolen.permissions().mode() & 0o7777, 0o751);
    assert_eq!(fs::read(s.outside("stolen/f")).unwrap(), b"added");
    s.no_leftovers();
}

#[test]
fn a_read_only_directory_is_lifted_and_given_back() {
    let mut s = Scene::new();
    let wanted = s.entry("d/f");
    fs::remove_file(s.at("d/f")).unwrap();
    fs::set_permissions(s.at("d"), fs::Permissions::from_mode(0o555)).unwrap();
    s.put("d/f", &wanted).unwrap();
    assert_eq!(fs::metadata(s.at("d")).unwrap().mode() & 0o7777, 0o555);
    let marks = Marks { mode: 0o750, flags: 0, mtime: guard_model::Stamp { sec: 9, nsec: 1 } };
    let desk = s.root.desk(&rel("d"), s.found("d").unwrap()).unwrap();
    desk.close(Some(&marks)).unwrap();
    let now = fs::metadata(s.at("d")).unwrap();
    assert_eq!((now.mode() & 0o7777, now.mtime(), now.mtime_nsec()), (0o750, 9, 1));
}

#[test]
fn the_immutable_flag_is_lifted_and_set_again() {
    use guard_sys::flags::IMMUTABLE;
    let mut s = Scene::new();
    let set = |path: &str, value| {
        let path = s.at(path);
        let how = if path.is_dir() { guard_sys::open::How::List } else { guard_sys::open::How::Read };
        let file = guard_sys::open::absolute(&path, how).unwrap();
        guard_sys::flags::set(std::os::fd::AsFd::as_fd(&file), IMMUTABLE, value).map(|_| ())
    };
    if let Err(e) = set("d/f", IMMUTABLE) {
        eprintln!("skipped: the immutable flag cannot be set here: {e}");
        return;
    }
    let wanted = s.entry("d/f");
    set("d/f", 0).unwrap();
    fs::write(s.at("d/f"), "tampered").unwrap();
    set("d/f", IMMUTABLE).unwrap();
    set("d", IMMUTABLE).unwrap();
    let placed = s.put("d/f", &wanted);
    let flags = |path: &str| s.entry(path).flags & IMMUTABLE;
    let dir_after = flags("d");
    let adjusted = placed
        .as_ref()
        .ok()
        .and_then(|p| p.now.clone())
        .map(|now| s.root.adjust(&rel("d/f"), (now.dev, now.ino), &wanted, 1));
    let file_after = flags("d/f");
    let is_same = same(&s.entry("d/f"), &wanted);
    let set = |path: &str| {
        let path = s.at(path);
        let how = if path.is_dir() { guard_sys::open::How::List } else { guard_sys::open::How::Read };
        let file = guard_sys::open::absolute(&path, how).unwrap();
        guard_sys::flags::set(std::os::fd::AsFd::as_fd(&file), IMMUTABLE, 0).unwrap();
    };
    set("d/f");
    set("d");
    placed.unwrap();
    adjusted.unwrap().unwrap();
    assert_eq!((dir_after, file_after, is_same), (IMMUTABLE, IMMUTABLE, true));
    s.no_leftovers();
}

#[test]
fn an_interruption_at_any_step_leaves_old_or_new_and_is_cleared() {
    let mut s = Scene::new();
    let wanted = s.entry("d/f");
    fs::write(s.at("d/f"), "tampered").unwrap();
    let clear = |s: &mut Scene, step: &PutBack| {
        let desk = s.root.desk(&rel("d"), s.found("d").unwrap()).unwrap();
        let cleared = desk.clear(step, &mut s.keeper).unwrap();
        desk.close(None).unwrap();
        cleared
    };
    // Before anything was made.
    let step = s.step("d/f", Action::Make(wanted.clone()));
    assert_eq!(clear(&mut s, &step), Cleared::Nothing);
    // A part of the copy is there.
    fs::write(s.at(&step.temporary.to_string()), "orig").unwrap();
    assert_eq!(clear(&mut s, &step), Cleared::Unfinished);
    assert_eq!(fs::read(s.at("d/f")).unwrap(), b"tampered");
    assert!(s.keeper.kept.is_empty());
    // They have changed places.
    fs::write(s.at("new"), "original").unwrap();
    fs::rename(s.at("d/f"), s.at(&step.temporary.to_string())).unwrap();
    fs::rename(s.at("new"), s.at("d/f")).unwrap();
    assert_eq!(clear(&mut s, &step), Cleared::Kept);
    assert_eq!(s.keeper.kept, [("d/f".to_owned(), Kind::File, b"tampered".to_vec())]);
    // Nothing stood there before.
    fs::remove_file(s.at("d/f")).unwrap();
    let step = s.step("d/f", Action::Make(wanted));
    fs::write(s.at(&step.temporary.to_string()), "orig").unwrap();
    assert_eq!(clear(&mut s, &step), Cleared::Unfinished);
    // An addition that was taken aside.
    fs::create_dir(s.at("d/new")).unwrap();
    let step = s.step("d/new", Action::Remove);
    fs::rename(s.at("d/new"), s.at(&step.temporary.to_string())).unwrap();
    assert_eq!(clear(&mut s, &step), Cleared::Kept);
    s.no_leftovers();
}
