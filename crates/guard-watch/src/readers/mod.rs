//! Who opens single files: the kernel's audit where it may be had, else fanotify with a mark on each file's inode.
//!
//! guardd itself is never told of.

mod audit;
mod fanotify;
mod gather;

use std::collections::BTreeSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;

use guard_model::RelPath;
use guard_model::access::Access;
use guard_model::finding::Actor;

/// What is told of one process and one file.
#[derive(Debug, Clone)]
pub struct Accessed {
    /// The path that the file was followed by.
    pub path: RelPath,
    /// What was done, each once.
    pub access: BTreeSet<Access>,
    /// How often at least.
    pub times: u64,
    /// Who did it, where the kernel tells.
    pub by: Option<Arc<By>>,
}

/// A process, with what cannot be feigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    /// The process.
    pub actor: Arc<Actor>,
    /// Device and inode of what it executes; `None` where it had ended.
    pub executable: Option<(u64, u64)>,
    /// The outermost service or scope that it belongs to: what is inside could be named by itself.
    pub service: Option<String>,
}

/// What [`Readers`] tell.
#[derive(Debug)]
pub enum ReadHint {
    /// Files were opened or read.
    Accessed(Vec<Accessed>),
    /// More than could be told, and why.
    Missed(String),
    /// Nothing will be told any more, and why.
    Ended(String),
}

/// Where hints go.
type Sink = Arc<dyn Fn(ReadHint) + Send + Sync>;

/// Follows files and tells who opens them, until it is dropped.
#[derive(Debug)]
pub struct Readers {
    means: Means,
    instead: Option<String>,
}

#[derive(Debug)]
enum Means {
    Audit(audit::Rules),
    Fanotify(fanotify::Marks),
}

impl Readers {
    /// Starts with no files. The sink is called from a thread of its own. `name` tells the rules of audit apart from
    /// those of everybody else, and is the same at the next start, which removes what this one left: letters, digits
    /// and hyphens.
    ///
    /// # Errors
    /// Where this process may neither use audit nor have a fanotify group, or no thread.
    pub fn start(name: &str, sink: impl Fn(ReadHint) + Send + Sync + 'static) -> io::Result<Self> {
        let sink: Sink = Arc::new(sink);
        match audit::Rules::start(name, Arc::clone(&sink)) {
            Ok(rules) => Ok(Self { means: Means::Audit(rules), instead: None }),
            Err(why) => {
                let marks = fanotify::Marks::start(sink)?;
                Ok(Self { means: Means::Fanotify(marks), instead: Some(why) })
            }
        }
    }

    /// Tells from now on who opens this file, known by `path`, which stands at the absolute path `at` without symbolic
    /// links; the handle need only be located. Doing it again is harmless. Another file that was followed by the same
    /// path is not told of any more.
    ///
    /// # Errors
    /// `EOPNOTSUPP`, `ENODEV` or `EXDEV` where the file system has no handles that events could carry; `ENOSPC` at
    /// the limit of marks; what the kernel says to a rule of audit.
    pub fn follow(&self, path: &RelPath, at: &Path, file: BorrowedFd<'_>) -> io::Result<()> {
        match &self.means {
            Means::Audit(rules) => rules.follow(path, at),
            Means::Fanotify(marks) => marks.follow(path, file),
        }
    }

    /// How many files are followed.
    #[must_use]
    pub fn files(&self) -> usize {
        match &self.means {
            Means::Audit(rules) => rules.files(),
            Means::Fanotify(marks) => marks.files(),
        }
    }

    /// What tells: `audit` or `fanotify`.
    #[must_use]
    pub fn by(&self) -> &'static str {
        match &self.means {
            Means::Audit(_) => "audit",
            Means::Fanotify(_) => "fanotify",
        }
    }

    /// Why it is not audit.
    #[must_use]
    pub fn instead(&self) -> Option<&str> {
        self.instead.as_deref()
    }

    /// What it does not see, for people.
    #[must_use]
    pub fn blind(&self) -> Vec<String> {
        match &self.means {
            Means::Audit(_) => audit::BLIND.map(str::to_owned).into(),
            Means::Fanotify(marks) => marks.blind(),
        }
    }
}
