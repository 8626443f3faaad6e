//! A drill: a backup restored into a private directory, compared there with
//! what was recorded, and removed again.
//!
//! It is the only place where what is in a backup stands on a disk in the clear:
//! below the state directory, in a directory that nobody else may enter, which is
//! removed at the end, and at the next start where guardd was killed on the way.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use guard_model::baseline::Role;
use guard_model::compare::compare;
use guard_model::{Change, Digest, Entry, Kind, Observed, RelPath};
use guard_store::StateDir;
use guard_store::backup::{Backup, BackupError, Backups, Entries};
use guard_tree::Content;
use guard_tree::replica::{self, Made, Replica};

use super::{OperationError, Phase, Work};

/// How a drill went.
#[derive(Debug, Default)]
pub(crate) struct Drilled {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) missing: u64,
    pub(crate) problems: Vec<String>,
    /// What could not be made or compared here, though nothing is wrong with the backup.
    pub(crate) notes: Vec<String>,
}

/// Problems and notes said one by one.
const NAMED: usize = 20;

/// Where drills are made: below the state directory, so that there is a place nobody else may enter.
fn place(state: &StateDir) -> PathBuf {
    state.base().join("drill")
}

/// Removes what drills that were cut short left, secrets in the clear among it.
pub(crate) fn clear_leftovers(state: &StateDir) -> Result<(), OperationError> {
    Ok(Replica::remove(&place(state))?)
}

/// Restores a backup and compares it. Two drills at once stand beside each other.
pub(crate) fn drill(
    state: &StateDir,
    backups: &Backups,
    backup: &Backup,
    work: &Work,
) -> Result<Drilled, OperationError> {
    let private = Private::make(&place(state), backups, backup)?;
    let mut drill = Drill {
        replica: Replica::begin(&private.dir)?,
        backups,
        backup,
        work,
        done: Drilled { missing: backup.manifest().missing, ..Drilled::default() },
        unmade: HashSet::new(),
        short: HashSet::new(),
    };
    let total = backup.manifest().totals;
    work.enter(Phase::Restoring, total.files + total.directories);
    let outcome = drill.restore().and_then(|()| {
        work.enter(Phase::Hashing, total.files + total.directories);
        drill.compare()
    });
    let Drill { mut done, .. } = drill;
    private.remove()?;
    match outcome {
        Ok(()) => Ok(done),
        // The backup's own fault is what a drill is there to find.
        Err(OperationError::Backup(e)) => {
            done.problems.push(e.with_causes());
            Ok(done)
        }
        Err(e) => Err(e),
    }
}

/// The directory of one drill, removed when it is dropped.
struct Private {
    dir: PathBuf,
    gone: bool,
}

impl Private {
    fn make(place: &Path, backups: &Backups, backup: &Backup) -> Result<Self, OperationError> {
        let environment = backups.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| guard_tree::TreeError::Io { operation: "make", path, source }
        };
        let mut builder = std::fs::DirBuilder::new();
        builder.mode(0o700);
        builder.recursive(true).create(place).map_err(failed(place))?;
        let dir = place.join(format!("{environment}-{}", backup.id()));
        builder.recursive(false).create(&dir).map_err(failed(&dir))?;
        Ok(Self { dir, gone: false })
    }

    fn remove(mut self) -> Result<(), OperationError> {
        self.gone = true;
        Ok(Replica::remove(&self.dir)?)
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if !self.gone
            && let Err(error) = Replica::remove(&self.dir)
        {
            tracing::error!(%error, dir = %self.dir.display(), "what a drill restored could not be removed");
        }
    }
}

/// The files of a backup.
#[derive(Default)]
struct Files {
    /// The paths that each content goes to.
    contents: HashMap<Digest, Vec<RelPath>>,
    /// A further name, and the first of the same file.
    links: Vec<(RelPath, RelPath)>,
}

struct Drill<'a> {
    replica: Replica,
    backups: &'a Backups,
    backup: &'a Backup,
    work: &'a Work,
    done: Drilled,
    /// What is not there, and said.
    unmade: HashSet<RelPath>,
    /// What could not be given all of its attributes here.
    short: HashSet<RelPath>,
}

impl Drill<'_> {
    fn entries(&self) -> Result<Entries, OperationError> {
        Ok(self.backup.entries()?)
    }

    fn restore(&mut self) -> Result<(), OperationError> {
        let files = self.make_all()?;
        self.fill(&files.contents)?;
        for (path, other) in &files.links {
            self.replica.link(other, path)?;
        }
        // What is in a directory moves its time: directories come after everything in them.
        let mut directories = Vec::new();
        for entry in self.entries()? {
            let record = entry?.record;
            self.work.check_cancelled()?;
            match record.entry.kind {
                _ if self.unmade.contains(&record.path) => {}
                Kind::Directory => directories.push((record.path, record.entry)),
                _ => self.give(&record.path, &record.entry)?,
            }
        }
        for (path, entry) in directories.into_iter().rev() {
            self.give(&path, &entry)?;
        }
        Ok(())
    }

    /// Makes every entry but the files; says what files are to be made.
    fn make_all(&mut self) -> Result<Files, OperationError> {
        let mut files = Files::default();
        let mut names: BTreeMap<(u64, u64), RelPath> = BTreeMap::new();
        for entry in self.entries()? {
            let entry = entry?;
            let (path, recorded) = (entry.record.path, entry.record.entry);
            self.work.check_cancelled()?;
            if let Some(why) = entry.missing {
                self.done.files += 1;
                self.leave_out(path, &why);
                continue;
            }
            let is_file = recorded.kind == Kind::File;
            self.done.files += u64::from(is_file);
            let identity = (recorded.dev, recorded.ino);
            if is_file && recorded.nlink > 1 {
                if let Some(other) = names.get(&identity) {
                    files.links.push((path, other.clone()));
                    continue;
                }
                names.insert(identity, path.clone());
            }
            if let (true, Some(digest)) = (is_file, recorded.sha256) {
                files.contents.entry(digest).or_default().push(path);
            } else if let Made::No(why) = self.replica.make(&path, &recorded)? {
                self.leave_out(path, why);
            }
        }
        Ok(files)
    }

    fn leave_out(&mut self, path: RelPath, why: &str) {
        if self.done.notes.len() < NAMED {
            self.done.notes.push(format!("{path}: {why}"));
        }
        self.unmade.insert(path);
    }

    fn fill(&mut self, wanted: &HashMap<Digest, Vec<RelPath>>) -> Result<(), OperationError> {
        let (replica, work) = (&self.replica, self.work);
        let mut bytes = 0;
        let filled = self.backups.each_content(self.backup, |digest, size, content| {
            work.check_cancelled()?;
            let Some(paths) = wanted.get(digest) else { return Ok(()) };
            let mut files = Vec::new();
            for path in paths {
                files.push(replica.make_file(path)?);
                work.step();
            }
            bytes += size * files.len() as u64;
            content(&mut All { files, work })?;
            Ok::<(), OperationError>(())
        });
        self.done.bytes = bytes;
        match filled {
            Err(OperationError::Backup(BackupError::Sink(_))) if work.cancel.load(Ordering::Relaxed) => {
                Err(OperationError::Cancelled)
            }
            filled => filled,
        }
    }

    fn give(&mut self, path: &RelPath, entry: &Entry) -> Result<(), OperationError> {
        for what in self.replica.give_attributes(path, entry)? {
            if self.done.notes.len() < NAMED {
                self.done.notes.push(format!("{path}: not given here: {what}"));
            }
            self.short.insert(path.clone());
        }
        Ok(())
    }

    /// Reads everything back and compares it with what was recorded.
    fn compare(&mut self) -> Result<(), OperationError> {
        for entry in self.entries()? {
            let record = entry?.record;
            self.work.check_cancelled()?;
            self.work.step();
            if self.unmade.contains(&record.path) {
                continue;
            }
            let work = self.work;
            let seen =
                self.replica.root().observe_with(&record.path, Content::Read, &work.cancel, &work.progress);
            let differs = self.differences(&record.path, record.role, &record.entry, seen);
            if !differs.is_empty() && self.done.problems.len() < NAMED {
                let words: Vec<String> = differs.iter().map(ToString::to_string).collect();
                self.done.problems.push(format!(
                    "{}: restored with another {}",
                    record.path,
                    words.join(", ")
                ));
            }
        }
        Ok(())
    }

    fn differences(&self, path: &RelPath, role: Role, recorded: &Entry, seen: Observed) -> Vec<Change> {
        let wanted = replica::wanted(recorded);
        let Observed::Present(mut seen) = seen else { return vec![Change::Deleted] };
        // Another inode on another file system it has to be.
        (seen.dev, seen.ino, seen.ctime) = (wanted.dev, wanted.ino, wanted.ctime);
        if matches!(role, Role::WritableTop) || wanted.kind != Kind::File {
            seen.nlink = wanted.nlink;
        } else if seen.nlink < wanted.nlink {
            // Names outside the root are not in the backup.
            seen.nlink = wanted.nlink;
        }
        let mut found = compare(Some(&wanted), &Observed::Present(seen));
        if self.short.contains(path) {
            found.retain(|c| !matches!(c, Change::Xattr | Change::Flags | Change::Mtime));
        }
        found
    }
}

/// Writes the same content to several files.
struct All<'a> {
    files: Vec<std::fs::File>,
    work: &'a Work,
}

impl Write for All<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.work.cancel.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        for file in &mut self.files {
            file.write_all(bytes)?;
        }
        self.work.progress.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
