//! Proposes a configuration for a directory by looking at it.
//!
//! Everything is protected unless there is a reason: what an application writes
//! (told by names and by the volumes of compose files) is proposed as writable,
//! what programs make by themselves as ignored, what holds keys and passwords
//! as sensitive. Where a name says one thing and the content another, nothing
//! is proposed and a note says so: an alert too many is seen, an intruder in an
//! unguarded directory is not.

mod choose;
mod compose;
mod names;
mod pattern;
mod survey;
mod write;
mod yaml;

use std::io;
use std::path::{Path, PathBuf};

use crate::parse::{SourceFile, parse};
use crate::problem::{Problems, show};

/// A configuration for one directory, for a person to read and keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The name of the environment in it.
    pub environment: String,
    /// The directory, canonical.
    pub root: PathBuf,
    /// The commented configuration: a whole `guardd.toml`, or a file of `environments.d`.
    pub toml: String,
    /// What was found and decided, and what to look at: one sentence each, safe in a terminal.
    pub notes: Vec<String>,
}

/// Why there is no proposal.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The directory cannot be opened.
    #[error("cannot look at {}", show(path))]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// TOML holds text, and this path is none.
    #[error("{} is not UTF-8, and a configuration cannot name it; rename it", show(path))]
    NotText {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be the root of an environment.
    #[error("this directory cannot be guarded as it is")]
    Unsuitable {
        /// Why not.
        #[source]
        source: Problems,
    },
}

/// Looks at a directory and proposes how to guard it. Nothing is written. The
/// environment is called `production`, unless the directory's own name says
/// what it is.
///
/// # Errors
/// [`InitError`] where it cannot be looked at, or cannot be the root of an environment.
pub fn propose(dir: &Path) -> Result<Proposal, InitError> {
    let root = canonical(dir)?;
    propose_as(&root, name_for(&root))
}

/// The same, for an environment of this name.
///
/// # Errors
/// Those of [`propose`], and [`InitError::Unsuitable`] for a bad name.
pub fn propose_as(dir: &Path, environment: &str) -> Result<Proposal, InitError> {
    let root = canonical(dir)?;
    let Some(root_text) = root.to_str() else { return Err(InitError::NotText { path: root }) };
    let environment = environment.to_owned();
    // What cannot be a root, or a name, is not worth a look.
    let bare = write::configuration(&environment, root_text, &choose::Choices::default());
    readable(&bare)?;
    let survey = survey::Survey::of(&root)?;
    let choices = choose::choose(&survey, &root);
    let toml = write::configuration(&environment, root_text, &choices);
    readable(&toml)?;
    Ok(Proposal { environment, root, toml, notes: choices.notes })
}

fn canonical(dir: &Path) -> Result<PathBuf, InitError> {
    dir.canonicalize().map_err(|source| InitError::Open { path: dir.to_owned(), source })
}

fn readable(toml: &str) -> Result<(), InitError> {
    let file = SourceFile::new("proposed.toml".into(), toml.to_owned());
    parse(&[file]).map(drop).map_err(|source| InitError::Unsuitable { source })
}

/// `production`, unless the directory's own name says what it is.
fn name_for(root: &Path) -> &'static str {
    let name = root.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
    let is = |words: &[&str]| name.split(['-', '_', '.']).any(|part| words.contains(&part));
    if is(&["staging", "stage"]) {
        "staging"
    } else if is(&["development", "dev"]) {
        "development"
    } else {
        "production"
    }
}
