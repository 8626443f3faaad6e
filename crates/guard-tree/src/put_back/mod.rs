//! Putting back: bringing one path to what it should be.
//!
//! What is new is made beside its place under a planned name that nobody can guess, checked there
//! against its digest and given every attribute; then it changes places in one step with what stands
//! at the name. At any moment the name leads to the old entry or to the whole new one. What stood there
//! comes out at the planned name, is copied into quarantine, durably, and only then removed. What
//! differs in attributes alone is adjusted where it is and keeps its inode.
//!
//! A [`Desk`] is the directory that holds the path, with what forbids changing its names (immutable
//! flag, mode) lifted; [`Desk::close`] gives it back exactly. Recovery asks [`Desk::clear`]
//! what an interruption left at a planned name, and looks at the tree only.
//!
//! Everything happens through handles beneath the root and on its own mount: whoever renames or replaces
//! names and directories meanwhile can make it fail, and nothing else. An inode that has names which are
//! not the caller's is never changed, only left by this one name.

mod aside;
pub(crate) mod attributes;
mod desk;
mod error;
mod make;

use std::error::Error;
use std::io::{self, Read, Write};

use guard_model::{Digest, Entry, RelPath};
use guard_sys::place;

pub use desk::{Cleared, Desk, Marks};
pub use error::PutBackError;

use crate::TreeError;

/// Writes the content that has this digest. What it writes is checked again.
pub type ContentOf<'a> = &'a dyn Fn(&Digest, &mut dyn Write) -> Result<(), Box<dyn Error + Send + Sync>>;

/// Takes in what is about to be removed.
pub trait Keeper {
    /// One entry that stood at `path`: as plain data, with its attributes beside. `content` is there for a
    /// regular file.
    ///
    /// # Errors
    /// Where it cannot be kept; then nothing is removed.
    fn keep(&mut self, path: &RelPath, entry: &Entry, content: Option<&mut dyn Read>) -> io::Result<()>;

    /// Waits until everything that was taken in is on the disk.
    ///
    /// # Errors
    /// Where that cannot be told; then nothing is removed.
    fn durable(&mut self) -> io::Result<()>;
}

/// What is to be done at one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutBack {
    /// Where.
    pub path: RelPath,
    /// Beside it, where things may be for a while: see [`PutBack::temporary_beside`].
    pub temporary: RelPath,
    /// What stood there when this was planned: device and inode. Anything else is left alone.
    pub found: Option<(u64, u64)>,
    /// How.
    pub action: Action,
}

/// How a path is brought to what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// A new entry takes the place of whatever stands there, or of nothing.
    Make(Entry),
    /// One more name of a file that is there takes the place.
    Link {
        /// What the file is.
        wanted: Entry,
        /// Its other name.
        to: RelPath,
        /// Which inode that leads to.
        identity: (u64, u64),
    },
    /// Nothing should be there.
    Remove,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What stands at the path now; `None` where nothing should.
    pub now: Option<Entry>,
    /// What was taken away and is in quarantine.
    pub kept: Option<Entry>,
    /// Attributes that could not be given, in words.
    pub short: Vec<String>,
}

impl PutBack {
    /// A name beside `path` that nobody can guess.
    ///
    /// # Errors
    /// [`TreeError::Io`] where there are no random numbers, or for the root itself.
    pub fn temporary_beside(path: &RelPath) -> Result<RelPath, TreeError> {
        let failed =
            |source| TreeError::Io { operation: "name a copy of", path: path.as_path().into(), source };
        let name = place::temporary_name().map_err(failed)?;
        let temporary = path.parent().and_then(|dir| dir.join(name.as_bytes()).ok());
        temporary.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))
    }
}
