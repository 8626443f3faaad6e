//! Looking at a whole tree.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64};

use guard_model::baseline::{Role, Totals};
use guard_model::{Class, Entry, Observed, Policy, RelPath};

use crate::walk::walk;
use crate::{LinkCounts, Pace, Root, TreeError};

/// What a scan does with the content of regular files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanContent {
    /// What statx(2) tells by name; extended attributes, link targets and `sha256` are empty. Nobody waits until an
    /// entry that changed just now has been left alone.
    Glance,
    /// Attributes only; every observation's `sha256` is `None`.
    None,
    /// Files that differ from [`Visitor::expected`] in ctime, mtime, size, inode or
    /// device are read; the others' `sha256` is `None` (see [`crate::Content::IfDiffers`]).
    WhereDiffers,
    /// Every file is read.
    All,
    /// Likewise, what their devices hold, past the page cache.
    AllFromDevice,
    /// As [`All`](Self::All), and of each protected one, on the handle that it is then read through, it is
    /// asked whether anybody has it open for writing: see [`Visitor::writers`].
    AllAndWriters,
}

/// May a regular file be changed through what was opened before?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenWriters {
    /// Somebody has it open for writing, or mapped.
    Some,
    /// It could not be told; why, for people.
    Unknown(String),
}

/// How far a scan has come; all of them only grow, and bytes also within one
/// file, so that somebody who watches them can tell slow from stuck.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries reported that are not directories.
    pub files: AtomicU64,
    /// Bytes read from files, repetitions included.
    pub bytes: AtomicU64,
    /// Directories reported.
    pub directories: AtomicU64,
}

/// How to scan.
#[derive(Debug, Clone, Copy)]
pub struct ScanOptions<'a> {
    /// What to do with content.
    pub content: ScanContent,
    /// Threads to work on it; 0 counts as 1. Each takes one directory, or one big file, at a time. While what is
    /// asked for has to come from a disk, and there is more than one and no pace, more are added: a disk answers many
    /// readers at once.
    pub workers: usize,
    /// `Some`: read at most this fast, with idle disk priority, and leave the page
    /// cache as it was found. `None`: as fast as possible.
    pub pace: Option<Pace>,
    /// Raised by the caller to stop early, which is looked at before every entry and
    /// while reading. What was seen may then never be told, and directories that were entered never be left.
    pub cancel: &'a AtomicBool,
    /// Counted up by the scan.
    pub progress: &'a Progress,
}

/// Who hears what a scan finds. Called from several threads: `enter`, then `found` for every child in byte order of names,
/// then `leave`. Regular files that are read may come later, in any order: small ones wait until they have been hashed
/// beside others, big ones are read by whichever thread is free, from which the rest of the directory's calls then come. A
/// thread may enter other directories meanwhile, but calls nobody for one directory while another thread does.
/// Directories come in no particular order, but each after it was found in its parent.
pub trait Visitor: Sync {
    /// What the visitor keeps for a directory while it is being looked at, such as the
    /// baseline's children of it.
    type Dir: Send;

    /// The children of `dir` come next. They have been listed; a directory that
    /// could not be listed is never entered but comes in [`ScanReport::skipped`].
    fn enter(&self, dir: &RelPath) -> Self::Dir;

    /// What should be at `path`, asked for regular files in
    /// [`ScanContent::WhereDiffers`] only. `None`: nothing, so that it is read.
    fn expected<'v>(&'v self, dir: &'v Self::Dir, path: &RelPath) -> Option<Cow<'v, Entry>>;

    /// `path` was observed. The directory that the scan started from is reported
    /// first of all, within its own `enter`; every other path within its parent's.
    fn found(&self, dir: &mut Self::Dir, path: RelPath, class: Class, role: Role, observed: Observed);

    /// The protected regular file `path`, this inode (device, inode), has open writers or it could
    /// not be told. Called just before it is `found`, in [`ScanContent::AllAndWriters`] only, and
    /// not for files that cannot be opened.
    fn writers(&self, dir: &mut Self::Dir, path: &RelPath, identity: (u64, u64), writers: OpenWriters) {
        let _ = (dir, path, identity, writers);
    }

    /// `path` is there and is not reported, being ignored, writable or unprotected with
    /// nothing protected below.
    fn passed_over(&self, dir: &mut Self::Dir, path: &RelPath, class: Class) {
        let _ = (dir, path, class);
    }

    /// That was all of `dir`: children that were not found are gone, with everything
    /// below them. A name that came or went while the directory was being listed may
    /// be missed: observe a path by itself before calling it gone.
    fn leave(&self, state: Self::Dir, dir: &RelPath);
}

/// What a scan says at its end.
#[derive(Debug, Default)]
pub struct ScanReport {
    /// What could not be looked at, and why; sorted by path.
    pub skipped: Vec<(RelPath, String)>,
    /// What lies on another mount than its directory, and is looked at all the same; sorted.
    pub mounts: Vec<RelPath>,
    /// Patterns without glob characters to which nothing in the tree answers, as (list,
    /// pattern). Only filled by a scan that starts from the root.
    pub unmatched: Vec<(String, String)>,
    /// What was reported, in sum.
    pub totals: Totals,
    /// Hard links among what was reported.
    pub links: LinkCounts,
}

/// Observes `from` and everything below it that `policy` names, and tells `visitor`.
///
/// Reported are entries that are protected or sensitive, the top directories of
/// writable paths, and passages: directories that are not protected themselves
/// but have something protected below them, the root always among them. Of a
/// path that is none of this nothing is reported.
///
/// # Errors
/// [`TreeError::Cancelled`]; [`TreeError::Io`] where `from` itself is there and
/// cannot be listed, or no worker could be started.
pub fn scan<V: Visitor>(
    root: &Root,
    policy: &Policy,
    from: &RelPath,
    options: &ScanOptions<'_>,
    visitor: &V,
) -> Result<ScanReport, TreeError> {
    walk(root, policy, from, options, visitor)
}
