//! Opens files and directories, and says who besides root and the daemon's own
//! user could have put something else there.
//!
//! The way is walked one component at a time on handles, symbolic links
//! included, and what is judged is what was opened: a path that is swapped
//! meanwhile can make this fail, never make it read something unjudged.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use guard_sys::peer;
use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::blame;
use crate::problem::Problem;

/// As many symbolic links as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// More than any configuration needs.
const LARGEST_FILE: u64 = 1 << 20;

/// Group and others may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Only the owner of an entry may rename or remove it.
const STICKY: u32 = 0o1000;

/// Why something could not be opened.
#[derive(Debug)]
pub(crate) enum Refused {
    /// It, or a directory that leads there, does not exist.
    Missing(Problem),
    /// Anything else.
    Other(Problem),
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Missing(p) | Refused::Other(p) => p,
        }
    }
}

/// Judges what it opens by who else could write there.
#[derive(Debug)]
pub(crate) struct Trust {
    /// The user besides root whose files are believed.
    own: u32,
    /// What is open to others; reading goes on, so that all of it is found.
    problems: Vec<Problem>,
}

/// A directory on the way, with the path that really leads there.
#[derive(Debug)]
struct Step {
    handle: OwnedFd,
    path: PathBuf,
    stat: Stat,
}

/// Where a path ends: at an entry that is neither directory nor link, or in a directory.
enum End {
    Entry { parent: Step, name: OsString, stat: Stat },
    Directory(Step),
}

/// Whether only owners may remove entries is enough of a protection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sticky {
    Suffices,
    DoesNotSuffice,
}

impl Trust {
    /// Believes root and the user that this process runs as.
    pub(crate) fn own() -> Self {
        Self { own: peer::own_uid(), problems: Vec::new() }
    }

    /// What was found open to others.
    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The text of a file.
    pub(crate) fn read(&mut self, path: &Path) -> Result<String, Refused> {
        let (parent, name, before) = match self.walk(path)? {
            End::Entry { parent, name, stat } => (parent, name, stat),
            End::Directory(step) => return Err(Refused::Other(blame::not_a_file(&step.path, "a directory"))),
        };
        let real = parent.path.join(&name);
        if let Some(kind) = kind_of(&before).filter(|_| !is(&before, FileType::RegularFile)) {
            return Err(Refused::Other(blame::not_a_file(&real, kind)));
        }
        self.judge(&parent.path, &parent.stat, Sticky::DoesNotSuffice);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(&parent.handle, &name, flags, Mode::empty())
            .map_err(|e| Refused::Other(blame::unopened(self.own, &real, &before, e)))?;
        let stat = rustix::fs::fstat(&handle).map_err(|e| Refused::Other(blame::failed(&real, "stat", e)))?;
        if (stat.st_dev, stat.st_ino) != (before.st_dev, before.st_ino) {
            return Err(Refused::Other(blame::swapped(&real)));
        }
        self.judge(&real, &stat, Sticky::DoesNotSuffice);
        read_text(File::from(handle), &real).map_err(Refused::Other)
    }

    /// The sorted names in a directory that nobody else may add to.
    pub(crate) fn list(&mut self, path: &Path) -> Result<Vec<OsString>, Refused> {
        let step = match self.walk(path)? {
            End::Directory(step) => step,
            End::Entry { parent, name, stat } => {
                let real = parent.path.join(&name);
                let kind = kind_of(&stat).unwrap_or("no directory");
                return Err(Refused::Other(blame::not_a_directory(&real, kind)));
            }
        };
        self.judge(&step.path, &step.stat, Sticky::DoesNotSuffice);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let unopened = |e| Refused::Other(blame::unopened(self.own, &step.path, &step.stat, e));
        let handle = rustix::fs::openat(&step.handle, ".", flags, Mode::empty()).map_err(unopened)?;
        let mut names = Vec::new();
        let failed = |e| Refused::Other(blame::failed(&step.path, "list", e));
        for entry in rustix::fs::Dir::new(handle).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name().to_bytes().to_vec();
            if !matches!(name.as_slice(), b"." | b"..") {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort();
        Ok(names)
    }

    /// Judges a program that the daemon is to run; `Ok(false)` where there is none.
    pub(crate) fn program(&mut self, path: &Path) -> Result<bool, Problem> {
        match self.walk(path) {
            Ok(End::Entry { parent, name, stat }) => {
                let real = parent.path.join(&name);
                if !is(&stat, FileType::RegularFile) || stat.st_mode & 0o111 == 0 {
                    return Err(blame::not_a_program(&real, &stat));
                }
                self.judge(&parent.path, &parent.stat, Sticky::Suffices);
                self.judge(&real, &stat, Sticky::DoesNotSuffice);
                Ok(true)
            }
            Ok(End::Directory(step)) => Err(blame::not_a_program(&step.path, &step.stat)),
            Err(Refused::Missing(_)) => Ok(false),
            Err(Refused::Other(p)) => Err(p),
        }
    }

    /// Goes to where the path leads, judging every directory and link on the way.
    fn walk(&mut self, path: &Path) -> Result<End, Refused> {
        let path = std::path::absolute(path).map_err(|e| {
            Refused::Other(blame::failed(path, "find", Errno::from_io_error(&e).unwrap_or(Errno::INVAL)))
        })?;
        let mut rest: VecDeque<OsString> = VecDeque::new();
        put_in_front(&mut rest, &path);
        let mut way = vec![open_root()?];
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == ".." {
                if way.len() > 1 {
                    way.pop();
                }
                continue;
            }
            let Some(dir) = way.last() else { break };
            self.judge(&dir.path, &dir.stat, Sticky::Suffices);
            let here = dir.path.join(&name);
            let handle = rustix::fs::openat(
                &dir.handle,
                &name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .map_err(|e| self.stopped(&path, dir, &here, e))?;
            let stat =
                rustix::fs::fstat(&handle).map_err(|e| Refused::Other(blame::failed(&here, "stat", e)))?;
            if is(&stat, FileType::Symlink) {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Refused::Other(blame::loops(&path)));
                }
                if rest.is_empty() {
                    self.judge(&dir.path, &dir.stat, Sticky::DoesNotSuffice);
                }
                self.judge_owner(&here, &stat);
                let target = rustix::fs::readlinkat(&handle, "", Vec::new())
                    .map_err(|e| Refused::Other(blame::failed(&here, "read the link", e)))?;
                let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                if target.is_absolute() {
                    way.truncate(1);
                }
                put_in_front(&mut rest, &target);
            } else if is(&stat, FileType::Directory) {
                way.push(Step { handle, path: here, stat });
            } else if rest.is_empty() {
                let Some(parent) = way.pop() else { break };
                return Ok(End::Entry { parent, name, stat });
            } else {
                let kind = kind_of(&stat).unwrap_or("no directory");
                return Err(Refused::Other(blame::not_a_directory(&here, kind)));
            }
        }
        match way.pop() {
            Some(step) => Ok(End::Directory(step)),
            None => Ok(End::Directory(open_root()?)),
        }
    }

    /// The component that stops us, and for whom.
    fn stopped(&self, asked: &Path, dir: &Step, here: &Path, e: Errno) -> Refused {
        match e {
            Errno::NOENT => Refused::Missing(blame::missing(asked, here)),
            Errno::ACCESS => Refused::Other(blame::no_way_through(self.own, asked, &dir.path, &dir.stat)),
            e => Refused::Other(blame::failed(here, "open", e)),
        }
    }

    fn judge(&mut self, path: &Path, stat: &Stat, sticky: Sticky) {
        let open = stat.st_mode & WRITABLE_BY_OTHERS != 0
            && !(sticky == Sticky::Suffices && stat.st_mode & STICKY != 0);
        if open || !self.owner_is_believed(stat) {
            self.accuse(blame::open_to_others(self.own, path, stat, open));
        }
    }

    fn judge_owner(&mut self, path: &Path, stat: &Stat) {
        if !self.owner_is_believed(stat) {
            self.accuse(blame::open_to_others(self.own, path, stat, false));
        }
    }

    fn owner_is_believed(&self, stat: &Stat) -> bool {
        stat.st_uid == 0 || stat.st_uid == self.own
    }

    fn accuse(&mut self, problem: Problem) {
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

fn open_root() -> Result<Step, Refused> {
    let path = PathBuf::from("/");
    let failed = |e| Refused::Other(blame::failed(Path::new("/"), "open", e));
    let handle = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(failed)?;
    let stat = rustix::fs::fstat(&handle).map_err(failed)?;
    Ok(Step { handle, path, stat })
}

/// The components of `path`, to be walked before what is left.
fn put_in_front(rest: &mut VecDeque<OsString>, path: &Path) {
    for c in path.components().rev() {
        match c {
            Component::Normal(name) => rest.push_front(name.to_owned()),
            Component::ParentDir => rest.push_front("..".into()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

fn read_text(mut file: File, path: &Path) -> Result<String, Problem> {
    let mut bytes = Vec::new();
    file.by_ref()
        .take(LARGEST_FILE + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| blame::failed(path, "read", Errno::from_io_error(&e).unwrap_or(Errno::IO)))?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(blame::too_large(path, LARGEST_FILE));
    }
    String::from_utf8(bytes).map_err(|e| {
        let valid = e.utf8_error().valid_up_to();
        blame::not_text(path, e.as_bytes().get(..valid).unwrap_or_default())
    })
}

fn is(stat: &Stat, kind: FileType) -> bool {
    FileType::from_raw_mode(stat.st_mode) == kind
}

/// What an entry is, in words.
fn kind_of(stat: &Stat) -> Option<&'static str> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => "a file",
        FileType::Directory => "a directory",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        _ => return None,
    })
}
