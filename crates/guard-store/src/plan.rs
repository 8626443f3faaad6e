//! Plans: the before-state of every entry that an operation is about to
//! change, on the disk before the first change.
//!
//! `plans/ENV.jsonl` is a header line, one line a step, and a last line with
//! the number of steps and the SHA-256 of everything before it. It appears
//! whole by a rename or not at all; recovery looks at the tree, never at how
//! far a plan was carried out.

use std::fs::File;
use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use guard_model::seal::Marks;
use guard_model::{Digest, Entry, RelPath, Stamp, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::durable::{self, ReadAt, Temporary};
use crate::error::{Damage, StoreError};
use crate::state_dir::{StateDir, StatePaths, checked_name};

/// Longest line of a plan, bytes: an escaped path of `PATH_MAX` bytes and its attributes, among them
/// extended ones of several times 64 KiB.
const MAX_LINE: u64 = 4 * 1024 * 1024;

/// Which operation a plan belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanKind {
    /// Taking write bits away and setting flags.
    Lock,
    /// Giving the original modes and flags back.
    Unlock,
    /// Giving files with names outside the root an inode of their own. Steps come in pairs: the file,
    /// and the temporary name beside it where its copy is made. No mode or flag changes.
    BreakLinks,
    /// Bringing paths back to what they should be. Each step says how in [`PlanStep::restore`].
    Restore,
}

/// What a step of a restore is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum RestoreStep {
    /// The directory's names are changed: it gets back its marks and this time.
    Within {
        /// The time of its last change of content.
        mtime: Stamp,
    },
    /// Attributes alone; the inode stays.
    Adjust {
        /// All of them.
        wanted: Entry,
    },
    /// Something new takes the place of what was found, or of nothing.
    Make {
        /// What.
        wanted: Entry,
        /// Beside it, where things are for a while.
        temporary: RelPath,
        /// Device and inode of what was found; `None` for nothing.
        found: Option<(u64, u64)>,
    },
    /// Nothing should be there.
    Remove {
        /// Beside it, where it is for a while.
        temporary: RelPath,
    },
}

/// What a plan is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanHeader {
    /// The environment's name.
    pub environment: String,
    /// The operation.
    pub kind: PlanKind,
    /// The baseline that the operation makes or undoes.
    pub generation: u64,
    /// When it was written.
    pub at: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The canonical root, escaped.
    pub root: String,
    /// The root's device and inode.
    pub root_identity: (u64, u64),
}

/// One entry that the operation changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanStep {
    /// Where, relative to the root.
    pub path: RelPath,
    /// Device and inode: whatever else stands there now is left alone.
    pub identity: (u64, u64),
    /// Permission bits found.
    #[serde(with = "guard_model::entry::octal")]
    pub mode_before: u32,
    /// Permission bits to be set.
    #[serde(with = "guard_model::entry::octal")]
    pub mode_after: u32,
    /// Those of the flags in [`guard_model::seal::BINDING`] that were found.
    #[serde(default)]
    pub flags_before: u32,
    /// Those that it is to have.
    #[serde(default)]
    pub flags_after: u32,
    /// For a restore: how. Its marks before and after are those that the entry is to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Box<RestoreStep>>,
}

impl PlanStep {
    /// A step from what the entry at `path` has to what it is to have.
    #[must_use]
    pub fn new(path: RelPath, identity: (u64, u64), before: Marks, after: Marks) -> Self {
        Self {
            path,
            identity,
            mode_before: before.mode,
            mode_after: after.mode,
            flags_before: before.flags,
            flags_after: after.flags,
            restore: None,
        }
    }

    /// A step of a restore. `identity` is zeros where nothing was found.
    #[must_use]
    pub fn restoring(path: RelPath, identity: (u64, u64), marks: Marks, how: RestoreStep) -> Self {
        Self { restore: Some(Box::new(how)), ..Self::new(path, identity, marks, marks) }
    }

    /// What was found.
    #[must_use]
    pub fn before(&self) -> Marks {
        Marks { mode: self.mode_before, flags: self.flags_before }
    }

    /// What is to be set.
    #[must_use]
    pub fn after(&self) -> Marks {
        Marks { mode: self.mode_after, flags: self.flags_after }
    }
}

#[derive(Serialize, Deserialize)]
struct Trailer {
    steps: u64,
    sha256: Digest,
}

/// A plan that was read back and found whole.
#[derive(Debug)]
pub struct Plan {
    header: PlanHeader,
    steps: u64,
    path: PathBuf,
    file: Arc<File>,
    /// Where the steps start.
    body: u64,
}

impl Plan {
    /// Writes `plans/ENV.jsonl`, replacing an earlier plan. It is on the disk
    /// when this returns.
    ///
    /// # Errors
    /// [`StoreError::BadName`], [`StoreError::Io`].
    pub fn write(
        state: &StateDir,
        header: &PlanHeader,
        steps: impl IntoIterator<Item = PlanStep>,
    ) -> Result<(), StoreError> {
        let path = path_of(state, &header.environment)?;
        let temporary = path.with_extension("new");
        durable::remove_if_there(&temporary)?;
        let unfinished = Temporary::file(temporary.clone());
        let file = durable::create_new(&temporary, 0o600)?;
        let mut out = Hashing { to: BufWriter::new(file), hash: Sha256::new() };
        let failed = || StoreError::io("write", &temporary);
        write_line(&mut out, "a plan", header)?.map_err(failed())?;
        let mut count = 0u64;
        for step in steps {
            write_line(&mut out, "a plan's step", &step)?.map_err(failed())?;
            count += 1;
        }
        let sha256 = Digest(out.hash.clone().finalize().into());
        write_line(&mut out, "a plan's end", &Trailer { steps: count, sha256 })?.map_err(failed())?;
        let file = out.to.into_inner().map_err(|e| failed()(e.into_error()))?;
        file.sync_all().map_err(StoreError::io("fsync", &temporary))?;
        unfinished.rename(&path)?;
        let synced = durable::sync_dir(&state.plans());
        if synced.is_err() {
            // Nothing is going to be done by it; found later, it would undo what others did since.
            durable::remove_if_there(&path)?;
        }
        synced
    }

    /// Reads the plan of an environment; `None` where no operation is under way.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where it is not as it was written.
    pub fn load(state: &StatePaths, environment: &str) -> Result<Option<Self>, StoreError> {
        let path = path_of(state, environment)?;
        let file = match durable::open_regular(&path) {
            Ok(file) => Arc::new(file),
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(e),
        };
        let (header, body, steps) = check(&file, &path)?;
        if header.environment != environment {
            let why = Damage::About { expected: environment.to_owned(), found: header.environment };
            return Err(StoreError::damaged(&path, why));
        }
        Ok(Some(Self { header, steps, path, file, body }))
    }

    /// Removes the plan of an environment: the operation is over.
    ///
    /// # Errors
    /// [`StoreError::BadName`], [`StoreError::Io`].
    pub fn clear(state: &StateDir, environment: &str) -> Result<(), StoreError> {
        let path = path_of(state, environment)?;
        durable::remove_if_there(&path)?;
        durable::sync_dir(&state.plans())
    }

    /// What it is about.
    #[must_use]
    pub fn header(&self) -> &PlanHeader {
        &self.header
    }

    /// How many entries it changes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.steps
    }

    /// True where it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps == 0
    }

    /// Its steps in order, read one by one.
    pub fn steps(&self) -> impl Iterator<Item = Result<PlanStep, StoreError>> + use<> {
        let path = self.path.clone();
        let mut lines = Lines::new(&self.file, self.body, 1);
        let count = usize::try_from(self.steps).unwrap_or(usize::MAX);
        let step = move || -> Result<PlanStep, StoreError> {
            let text = lines.next(&path)?.unwrap_or_default();
            parse(&path, lines.line, &text)
        };
        std::iter::repeat_with(step).take(count)
    }
}

fn path_of(state: &StatePaths, environment: &str) -> Result<PathBuf, StoreError> {
    Ok(state.plans().join(format!("{}.jsonl", checked_name(environment)?)))
}

/// Reads the whole file once: its header, where its steps start, and how many there are.
fn check(file: &Arc<File>, path: &Path) -> Result<(PlanHeader, u64, u64), StoreError> {
    let mut lines = Lines::new(file, 0, 0);
    let mut hash = Sha256::new();
    let first = lines.next(path)?.unwrap_or_default();
    let header: PlanHeader = parse(path, 1, &first)?;
    hash.update(&first);
    let mut held: Option<Vec<u8>> = None;
    let mut steps = 0u64;
    while let Some(text) = lines.next(path)? {
        if let Some(step) = held.replace(text) {
            parse::<PlanStep>(path, lines.line.saturating_sub(1), &step)?;
            hash.update(&step);
            steps += 1;
        }
    }
    let trailer: Trailer = parse(path, lines.line, &held.unwrap_or_default())?;
    let found = Digest(hash.finalize().into());
    if found != trailer.sha256 {
        return Err(StoreError::damaged(path, Damage::Digest { expected: trailer.sha256, found }));
    }
    if steps != trailer.steps {
        let why = format!("{} steps are announced and {steps} are there", trailer.steps);
        return Err(StoreError::damaged(path, Damage::Line { line: lines.line, why }));
    }
    Ok((header, first.len() as u64, steps))
}

struct Lines {
    from: BufReader<ReadAt>,
    line: u64,
}

impl Lines {
    fn new(file: &Arc<File>, at: u64, line: u64) -> Self {
        Self { from: BufReader::new(ReadAt { file: Arc::clone(file), at }), line }
    }

    /// The next line with its newline; `None` at the end.
    fn next(&mut self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        let mut text = Vec::new();
        let mut limited = (&mut self.from).take(MAX_LINE);
        let read = limited.read_until(b'\n', &mut text).map_err(StoreError::io("read", path))?;
        if read == 0 {
            return Ok(None);
        }
        self.line += 1;
        Ok(Some(text))
    }
}

fn parse<T: for<'de> Deserialize<'de>>(path: &Path, line: u64, text: &[u8]) -> Result<T, StoreError> {
    let text = text.strip_suffix(b"\n").ok_or_else(|| {
        StoreError::damaged(path, Damage::Line { line, why: "the line has no end".to_owned() })
    })?;
    serde_json::from_slice(text)
        .map_err(|e| StoreError::damaged(path, Damage::Line { line, why: e.to_string() }))
}

/// Counts everything that goes through into a digest.
pub(crate) struct Hashing<W> {
    pub(crate) to: W,
    pub(crate) hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let n = self.to.write(bytes)?;
        self.hash.update(bytes.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

/// One JSON value and a newline; the outer error is a value that has no JSON form.
fn write_line<T: Serialize>(
    out: &mut impl Write,
    what: &'static str,
    value: &T,
) -> Result<std::io::Result<()>, StoreError> {
    let mut text = serde_json::to_vec(value).map_err(|source| StoreError::Json { what, source })?;
    text.push(b'\n');
    Ok(out.write_all(&text))
}
