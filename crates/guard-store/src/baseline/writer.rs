//! Writing a generation: everything into `GEN.tmp`, then one rename.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::thread::{self, Scope, ScopedJoinHandle};

use guard_model::baseline::{Ancestor, BaselineRecord, FileDigests, Manifest, Totals};
use guard_model::policy::PatternText;
use guard_model::{Digest, RelPath, Seal, Timestamp};
use sha2::{Digest as _, Sha256};

use super::lines::{Lines, LinesOutput};
use super::runs::{EncodedRecords, FullRun, Merge, Row, Sorter};
use super::table::Layout;
use super::{MANIFEST, RECORDS, SIGNATURE, generations};
use crate::durable::{self, Temporary};
use crate::error::StoreError;
use crate::keys::{HostKey, NAMESPACE_BASELINE};
use crate::plan::Hashing;
use crate::state_dir::{StateDir, make_dir};

/// What a manifest says beyond what the records themselves add up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestDraft {
    /// When.
    pub created_at: Timestamp,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The canonical root, escaped.
    pub root: String,
    /// The root's device and inode.
    pub root_identity: (u64, u64),
    /// The directories above the root, from `/` down.
    pub ancestors: Vec<Ancestor>,
    /// Where within the root something is mounted; `None` where nobody knows.
    pub mounts: Option<Vec<RelPath>>,
    /// The policy it was taken by.
    pub policy: PatternText,
    /// What the configuration asks for.
    pub seal: Seal,
    /// What was done.
    pub seal_done: Seal,
    /// SHA-256 of the previous generation's manifest.
    pub previous: Option<Digest>,
}

/// A generation that is on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// What was signed.
    pub manifest: Manifest,
    /// SHA-256 of `manifest.json`, which names this baseline in ledger and lock file.
    pub digest: Digest,
    /// Where it lies.
    pub dir: PathBuf,
}

/// Takes the records of a new generation. Dropped without
/// [`BaselineWriter::finish`] it leaves nothing.
pub struct BaselineWriter {
    environment: String,
    generation: u64,
    parent: PathBuf,
    temporary: Temporary,
    target: PathBuf,
    sorter: Sorter,
}

impl BaselineWriter {
    /// Begins a generation of an environment.
    ///
    /// # Errors
    /// [`StoreError::BaselineExists`], [`StoreError::BadName`], [`StoreError::Io`].
    pub fn create(state: &StateDir, environment: &str, generation: u64) -> Result<Self, StoreError> {
        let parent = state.baselines_of(environment)?;
        make_dir(&parent, 0o700)?;
        durable::sync_dir(&state.baselines())?;
        generations::remove_leftovers(&parent)?;
        let target = state.generation(environment, generation)?;
        if target.symlink_metadata().is_ok() {
            return Err(StoreError::BaselineExists { environment: environment.to_owned(), generation });
        }
        let path = parent.join(format!("{generation}.tmp"));
        make_dir(&path, 0o700)?;
        let sorter = Sorter::new(&path);
        let temporary = Temporary::dir(path);
        Ok(Self { environment: environment.to_owned(), generation, parent, temporary, target, sorter })
    }

    /// Takes one record, in any order. A path that comes again replaces what was
    /// pushed for it before.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn push(&mut self, record: &BaselineRecord) -> Result<(), StoreError> {
        self.sorter.push(record)
    }

    /// Takes these records as if each were pushed. What it gives has to be written before [`BaselineWriter::finish`]: here, or
    /// where it holds up nobody.
    #[must_use = "without these rows the baseline is not whole"]
    pub fn add(&mut self, records: &EncodedRecords) -> Option<FullRun> {
        self.sorter.add(records)
    }

    /// Writes the generation's files, signs the manifest and commits it all.
    ///
    /// # Errors
    /// [`StoreError::Io`], [`StoreError::Sign`]; then nothing was committed.
    pub fn finish(self, draft: ManifestDraft, key: &HostKey) -> Result<Committed, StoreError> {
        let dir = self.temporary.path();
        let (digests, totals) = write_records(dir, self.sorter)?;
        let manifest = Manifest {
            format: 1,
            environment: self.environment,
            generation: self.generation,
            created_at: draft.created_at,
            by: draft.by,
            reason: draft.reason,
            root: draft.root,
            root_identity: draft.root_identity,
            ancestors: draft.ancestors,
            mounts: draft.mounts,
            policy: draft.policy,
            seal: draft.seal,
            seal_done: draft.seal_done,
            totals,
            digests,
            previous: draft.previous,
        };
        let mut text = serde_json::to_vec_pretty(&manifest)
            .map_err(|source| StoreError::Json { what: "a manifest", source })?;
        text.push(b'\n');
        let armour = key.sign(NAMESPACE_BASELINE, &text)?;
        write_whole(&dir.join(MANIFEST), &text)?;
        write_whole(&dir.join(SIGNATURE), armour.as_bytes())?;
        durable::sync_dir(dir)?;
        self.temporary.rename(&self.target)?;
        durable::sync_dir(&self.parent)?;
        let digest = Digest(Sha256::digest(&text).into());
        Ok(Committed { manifest, digest, dir: self.target })
    }
}

/// From so many records on their lines are made and written by threads of their own.
const WORTH_THREADS: usize = 10_000;
/// Blocks that each of them is given before it has to have caught up.
const AHEAD: usize = 16;

/// Digests of `undo.jsonl` and `SHA256SUMS`, and what all records add up to.
type Beside = (Digest, Digest, Totals);

pub(super) fn write_records(dir: &Path, sorter: Sorter) -> Result<(FileDigests, Totals), StoreError> {
    let records = Output::create(dir.join(RECORDS))?;
    let mut lines = LinesOutput::create(dir)?;
    let mut merge = sorter.finish()?;
    let (records, (undo, sha256sums, totals)) = if merge.pushed < WORTH_THREADS {
        let records = write_blocks(records, &mut merge, |block| lines.put(&Lines::of(&block, dir)?))?;
        (records, lines.finish()?)
    } else {
        write_side_by_side(dir, records, &mut merge, lines)?
    };
    merge.remove_runs()?;
    Ok((FileDigests { sha256sums, undo, records }, totals))
}

/// The records here; beside it one thread makes their lines, and another one writes those.
fn write_side_by_side(
    dir: &Path,
    records: Output,
    merge: &mut Merge,
    mut output: LinesOutput,
) -> Result<(Digest, Beside), StoreError> {
    // Where nobody takes what is sent any more, whoever should says itself why.
    thread::scope(|scope| {
        let (blocks, blocks_come) = sync_channel::<Vec<u8>>(AHEAD);
        let (lines, lines_come) = sync_channel(AHEAD);
        let makes = beside(scope, dir, move || {
            blocks_come.into_iter().try_for_each(|block| {
                lines.send(Lines::of(&block, dir)?).ok();
                Ok::<(), StoreError>(())
            })
        })?;
        let writes = beside(scope, dir, move || {
            lines_come.into_iter().try_for_each(|lines| output.put(&lines))?;
            output.finish()
        })?;
        let written = write_blocks(records, merge, |block| {
            blocks.send(block).ok();
            Ok(())
        });
        drop(blocks);
        let (made, lines) = (joined(makes), joined(writes));
        made?;
        Ok((written?, lines?))
    })
}

fn beside<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    dir: &Path,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Result<ScopedJoinHandle<'scope, T>, StoreError> {
    let named = thread::Builder::new().name("lines".to_owned());
    named.spawn_scoped(scope, work).map_err(StoreError::io("start a thread for", dir))
}

fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn write_blocks(
    mut records: Output,
    merge: &mut Merge,
    mut each: impl FnMut(Vec<u8>) -> Result<(), StoreError>,
) -> Result<Digest, StoreError> {
    let mut layout = Layout::default();
    records.write(layout.begin())?;
    let mut row = Row::default();
    while merge.next(&mut row)? {
        if let Some(block) = layout.push(row.key(), &row.body) {
            records.write(&block)?;
            each(block)?;
        }
    }
    let (last, end) = layout.finish();
    if let Some(block) = last {
        records.write(&block)?;
        each(block)?;
    }
    records.write(&end)?;
    records.finish()
}

/// A file being written and hashed.
pub(super) struct Output {
    path: PathBuf,
    to: Hashing<BufWriter<File>>,
}

impl Output {
    pub(super) fn create(path: PathBuf) -> Result<Self, StoreError> {
        let file = durable::create_new(&path, 0o600)?;
        Ok(Self { path, to: Hashing { to: BufWriter::with_capacity(64 * 1024, file), hash: Sha256::new() } })
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.to.write_all(bytes).map_err(StoreError::io("write", &self.path))
    }

    pub(super) fn finish(self) -> Result<Digest, StoreError> {
        let Hashing { to, hash } = self.to;
        let file = to.into_inner().map_err(|e| StoreError::io("write", &self.path)(e.into_error()))?;
        file.sync_all().map_err(StoreError::io("fsync", &self.path))?;
        Ok(Digest(hash.finalize().into()))
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = durable::create_new(path, 0o600)?;
    file.write_all(bytes).map_err(StoreError::io("write", path))?;
    file.sync_all().map_err(StoreError::io("fsync", path))
}
