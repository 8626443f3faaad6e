//! Walks a directory once and notes what is there, by names alone but for
//! compose files. Follows no symbolic link, and stops at a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use guard_model::RelPath;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::InitError;
use super::names::{self, DirectoryUse, FileUse};
use crate::words;

/// As many entries as are looked at before the rest is left to the reader.
const MOST_ENTRIES: usize = 300_000;

/// As deep as is looked.
const DEEPEST: usize = 24;

/// As many components as the path of something has that the application writes;
/// deeper down, the same names mean other things.
const DEEPEST_WRITTEN: usize = 4;

/// How many paths of one use are remembered.
const MOST_OF_A_USE: usize = 1000;

/// The longest compose file that is read.
const LARGEST_COMPOSE: u64 = 1 << 20;

/// What was found in a directory.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// Files by use, sorted, at most [`MOST_OF_A_USE`] each.
    files: BTreeMap<FileUse, Vec<RelPath>>,
    counts: BTreeMap<FileUse, usize>,
    /// Directories that hold programs: the first component, or the first two
    /// where the second is a usual name for it (`backend/app`).
    sources: BTreeSet<RelPath>,
    /// The text of each compose file that could be read.
    pub(super) compose: Vec<(RelPath, String)>,
    /// Directories whose name says that the application writes there, and what.
    pub(super) written: Vec<(RelPath, &'static str)>,
    /// The same, in which programs were found: the directory and one of them.
    pub(super) suspect: Vec<(RelPath, RelPath)>,
    /// `data` and the like, whose names do not tell.
    pub(super) data: Vec<RelPath>,
    pub(super) dependencies: Vec<RelPath>,
    pub(super) secrets: Vec<RelPath>,
    /// The kinds of cache directories seen, by name.
    pub(super) caches: Vec<Vec<u8>>,
    /// Directories with a `.git` directory.
    pub(super) repositories: Vec<RelPath>,
    /// The branch that the root's repository has checked out.
    pub(super) branch: Option<String>,
    /// A Python environment called `.env` or similar, which `.env*` would take for secrets.
    pub(super) misnamed: Vec<RelPath>,
    /// Directories that could not be read.
    pub(super) unread: Vec<RelPath>,
    pub(super) entries: usize,
    /// The bound was reached: something was not looked at.
    pub(super) cut: bool,
}

impl Survey {
    pub(super) fn files(&self, of: FileUse) -> &[RelPath] {
        self.files.get(&of).map_or(&[], Vec::as_slice)
    }

    /// How many files of a use there are.
    pub(super) fn count(&self, of: FileUse) -> usize {
        self.counts.get(&of).copied().unwrap_or(0)
    }

    /// Directories that hold programs, none within another.
    pub(super) fn sources(&self) -> Vec<RelPath> {
        let outer = |d: &&RelPath| !self.sources.iter().any(|o| o != *d && d.is_within(o));
        self.sources.iter().filter(outer).cloned().collect()
    }

    /// Looks at everything below `root`.
    pub(super) fn of(root: &Path) -> Result<Self, InitError> {
        let failed =
            |source: rustix::io::Errno| InitError::Open { path: root.to_owned(), source: source.into() };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(root, flags, Mode::empty()).map_err(failed)?;
        let mut survey = Self::default();
        survey.directory(&handle, &RelPath::root(), 0);
        for list in
            [&mut survey.data, &mut survey.dependencies, &mut survey.secrets, &mut survey.repositories]
        {
            list.sort();
        }
        survey.written.sort();
        Ok(survey)
    }

    fn directory(&mut self, handle: &OwnedFd, path: &RelPath, depth: usize) {
        let Some(names) = listed(handle.as_fd()) else { return self.unread.push(path.clone()) };
        for name in names {
            if self.entries >= MOST_ENTRIES {
                self.cut = true;
                return;
            }
            self.entries += 1;
            let (Ok(below), Some(kind)) = (path.join(&name), kind(handle.as_fd(), &name)) else { continue };
            match kind {
                FileType::Directory => self.enter(handle, path, &name, &below, depth),
                FileType::RegularFile => self.file(handle, path, &name, below),
                FileType::Socket => self.remember(FileUse::State, below),
                _ => {}
            }
        }
    }

    fn file(&mut self, directory: &OwnedFd, parent: &RelPath, name: &[u8], path: RelPath) {
        let Some(of) = names::file(name, parent.name()) else { return };
        if of == FileUse::Compose
            && let Some(text) = text(directory.as_fd(), name)
        {
            self.compose.push((path.clone(), text));
        }
        if of == FileUse::Source {
            self.sources.extend(source_directory(&path));
        }
        let state = matches!(of, FileUse::State | FileUse::Log);
        if !state || may_be_written(parent, &path) {
            self.remember(of, path);
        }
    }

    fn remember(&mut self, of: FileUse, path: RelPath) {
        *self.counts.entry(of).or_default() += 1;
        let list = self.files.entry(of).or_default();
        if list.len() < MOST_OF_A_USE {
            list.push(path);
        }
    }

    fn enter(&mut self, parent: &OwnedFd, above: &RelPath, name: &[u8], path: &RelPath, depth: usize) {
        if depth >= DEEPEST {
            self.cut = true;
            return;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(handle) = rustix::fs::openat(parent, name, flags, Mode::empty()) else {
            // Somebody else's data: still known by its name.
            if let DirectoryUse::Written(what) = names::directory(name) {
                self.written.push((path.clone(), what));
            }
            return self.unread.push(path.clone());
        };
        if name == b".git" {
            self.repositories.push(above.clone());
            if above.is_root() {
                self.branch = text(handle.as_fd(), b"HEAD").and_then(|head| branch_of(&head));
            }
            return;
        }
        if has(&handle, "pyvenv.cfg") {
            self.dependencies.push(path.clone());
            if name.starts_with(b".env") {
                self.misnamed.push(path.clone());
            }
            return;
        }
        match names::directory(name) {
            DirectoryUse::Dependencies => self.dependencies.push(path.clone()),
            DirectoryUse::Cache => {
                if !self.caches.iter().any(|c| c == name) {
                    self.caches.push(name.to_vec());
                }
            }
            DirectoryUse::Secrets => {
                self.secrets.push(path.clone());
                self.directory(&handle, path, depth + 1);
            }
            DirectoryUse::Written(what) if may_be_written(above, path) => {
                let frameworks = has(&handle, "framework") || is_symfony(parent, above, name);
                match program_below(&handle, path, 0, &mut 0).filter(|_| !frameworks) {
                    None => self.written.push((path.clone(), what)),
                    Some(program) => {
                        self.suspect.push((path.clone(), program));
                        self.directory(&handle, path, depth + 1);
                    }
                }
            }
            of => {
                if of == DirectoryUse::Data && may_be_written(above, path) {
                    self.data.push(path.clone());
                }
                self.directory(&handle, path, depth + 1);
            }
        }
    }
}

/// Is this a place where an application writes? Not deep down, and not where
/// some directory above makes `media`, `cache` or `log` the program's own.
fn may_be_written(above: &RelPath, path: &RelPath) -> bool {
    let parts = |p: &RelPath| p.as_bytes().split(|&b| b == b'/').count();
    parts(path) <= DEEPEST_WRITTEN && !above.as_bytes().split(|&b| b == b'/').any(names::holds_programs_own)
}

fn source_directory(file: &RelPath) -> Option<RelPath> {
    const USUAL: [&[u8]; 8] = [b"app", b"src", b"lib", b"api", b"server", b"pages", b"public", b"components"];
    let mut directories = file.ancestors_from_root().skip(1);
    let first = directories.next()?;
    Some(directories.next().filter(|d| USUAL.contains(&d.name())).unwrap_or(first))
}

/// Symfony keeps compiled programs in `var/cache`, and rewrites them.
fn is_symfony(parent: &OwnedFd, above: &RelPath, name: &[u8]) -> bool {
    above.name() == b"var" && name == b"cache" && has(parent, "../bin/console")
}

/// The first program below a directory on disk that has this path in the survey.
pub(super) fn first_program(on_disk: &Path, path: &RelPath) -> Option<RelPath> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::open(on_disk, flags, Mode::empty()).ok()?;
    program_below(&handle, path, 0, &mut 0)
}

/// The first program below a directory, looked for a little while.
fn program_below(handle: &OwnedFd, path: &RelPath, depth: usize, seen: &mut usize) -> Option<RelPath> {
    const ENOUGH: usize = 5000;
    const DEEP: usize = 8;
    for name in listed(handle.as_fd())? {
        *seen += 1;
        if *seen > ENOUGH {
            return None;
        }
        let below = path.join(&name).ok()?;
        match kind(handle.as_fd(), &name) {
            Some(FileType::RegularFile) if names::is_program(&name) => return Some(below),
            Some(FileType::Directory) if depth < DEEP => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                if let Ok(inner) = rustix::fs::openat(handle, name.as_slice(), flags, Mode::empty())
                    && let Some(found) = program_below(&inner, &below, depth + 1, seen)
                {
                    return Some(found);
                }
            }
            _ => {}
        }
    }
    None
}

/// The sorted names in a directory; `None` where it cannot be read.
fn listed(handle: BorrowedFd<'_>) -> Option<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(handle).ok()? {
        let name = entry.ok()?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    names.sort();
    Some(names)
}

fn kind(directory: BorrowedFd<'_>, name: &[u8]) -> Option<FileType> {
    let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
    Some(FileType::from_raw_mode(stat.st_mode))
}

fn has(directory: &OwnedFd, name: &str) -> bool {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// A small regular file's text, read without following a link or waiting for a fifo.
fn text(directory: BorrowedFd<'_>, name: &[u8]) -> Option<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(directory, name, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&handle).ok()?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut text = String::new();
    File::from(handle).take(LARGEST_COMPOSE).read_to_string(&mut text).ok()?;
    Some(text)
}

/// The branch that a `.git/HEAD` names.
fn branch_of(head: &str) -> Option<String> {
    let name = head.trim().strip_prefix("ref: refs/heads/")?;
    (name.len() < 100 && words::is_branch(name)).then(|| name.to_owned())
}

/// A path of the survey, on this machine.
pub(super) fn on_disk(root: &Path, path: &RelPath) -> PathBuf {
    root.join(std::ffi::OsStr::from_bytes(path.as_bytes()))
}
