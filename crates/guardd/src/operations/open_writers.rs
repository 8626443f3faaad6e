//! Files of which a lock found that somebody has them open for writing.
//!
//! Write bits bind whoever opens a file from now on; what was opened before goes
//! on writing into a locked tree. A lock is refused then, with the names of the
//! processes, unless it is wished all the same.

use crate::sessions::alert;
use std::fmt;

use guard_model::ledger::Event;
use guard_model::path::escape;
use guard_model::{RelPath, Severity};
use guard_tree::OpenWriters;

/// Files that a message names; the rest are counted.
const NAMED: usize = 5;

/// What a lock does about open writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum OnOpenWriters {
    /// It is refused and undone.
    #[default]
    Refuse,
    /// It says so and goes on: asked for, or better than no lock at all.
    Warn,
}

/// A file: where, and which inode (device, inode).
pub(super) type File = (RelPath, (u64, u64));

/// What a scan told of open writers.
#[derive(Debug, Default)]
pub(super) struct Told {
    open: Vec<File>,
    unknown: Vec<(RelPath, String)>,
}

impl Told {
    pub(super) fn add(&mut self, path: &RelPath, identity: (u64, u64), writers: OpenWriters) {
        match writers {
            OpenWriters::Some => self.open.push((path.clone(), identity)),
            OpenWriters::Unknown(why) => self.unknown.push((path.clone(), why)),
        }
    }

    /// Files that could not be asked, in one sentence.
    pub(super) fn untested(&self) -> Option<String> {
        let (path, why) = self.unknown.iter().min()?;
        Some(format!(
            "whether anybody has them open for writing cannot be told of {} files (the first: {path}: {why}); it takes their owner or CAP_LEASE, and a file system with leases",
            self.unknown.len()
        ))
    }

    /// The files that are open, with the processes that `/proc` names now.
    pub(super) fn open_files(&mut self) -> Option<OpenFiles> {
        OpenFiles::of(std::mem::take(&mut self.open))
    }
}

/// Files that are open for writing. As text: the first few with the processes that have them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OpenFiles {
    named: Vec<(RelPath, Vec<String>)>,
    total: usize,
}

impl OpenFiles {
    /// `None` for no files. Looks through `/proc` for whoever has the first few.
    pub(super) fn of(mut files: Vec<File>) -> Option<Self> {
        files.sort();
        files.dedup();
        let total = files.len();
        files.truncate(NAMED);
        let identities: Vec<(u64, u64)> = files.iter().map(|f| f.1).collect();
        let writers = if files.is_empty() { return None } else { guard_sys::writers::who(&identities) };
        let named = files.into_iter().map(|(path, identity)| {
            let by = writers.iter().filter(|w| w.identity == identity);
            (path, by.map(|w| format!("{} (pid {})", escape(&w.name), w.pid)).collect())
        });
        Some(Self { named: named.collect(), total })
    }
}

impl OpenFiles {
    /// For a lock whose answer nobody waits for.
    pub(super) fn alert(&self) -> Event {
        alert(Severity::Warning, format!("locked with open writers: {self}"), Vec::new())
    }
}

impl fmt::Display for OpenFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (path, by)) in self.named.iter().enumerate() {
            let comma = if n == 0 { "" } else { ", " };
            let by =
                if by.is_empty() { "a process that could not be found".to_owned() } else { by.join(" and ") };
            write!(f, "{comma}{path} by {by}")?;
        }
        match self.total - self.named.len() {
            0 => Ok(()),
            more => write!(f, ", and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_are_named_and_all_are_counted() {
        assert_eq!(OpenFiles::of(Vec::new()), None);
        let files = |n: u8| {
            (0..n).map(|i| (RelPath::from_text(&format!("f{i}")).unwrap_or_else(|_| RelPath::root()), (0, 0)))
        };
        let two = OpenFiles::of(files(2).collect()).map(|o| o.to_string());
        let unknown = "a process that could not be found";
        assert_eq!(two, Some(format!("f0 by {unknown}, f1 by {unknown}")));
        let many = OpenFiles::of(files(7).rev().collect()).map(|o| o.to_string()).unwrap_or_default();
        assert!(many.starts_with("f0 by") && many.ends_with(", and 2 more"), "{many}");
    }

    #[test]
    fn what_could_not_be_asked_is_said() {
        let mut told = Told::default();
        assert_eq!((told.untested(), told.open_files()), (None, None));
        told.add(&RelPath::root(), (1, 1), OpenWriters::Unknown("Permission denied".to_owned()));
        assert!(told.untested().is_some_and(|t| t.contains("Permission denied")));
        assert_eq!(told.open_files(), None);
    }
}
