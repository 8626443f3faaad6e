//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// One mistake: where it is, what is wrong, and what to write or run instead.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The configuration file, or the directory that stops us.
    pub file: PathBuf,
    /// The line, counted from 1; `None` where the file as a whole is meant.
    pub line: Option<u32>,
    /// The dotted key, as in `environments.production.rehash`; empty where no
    /// single key is meant.
    pub key: String,
    /// What is wrong, without a full stop.
    pub what: String,
    /// What to do instead, without a full stop.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(&self.file))?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}\n    fix: {}", self.what, self.fix)
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Sorted by file, `main` first, and line; `None` where there are none.
    #[must_use]
    pub(crate) fn from_list(main: Option<&Path>, mut list: Vec<Problem>) -> Option<Self> {
        list.sort_by(|a, b| (Some(&*a.file) != main, a).cmp(&(Some(&*b.file) != main, b)));
        list.dedup();
        (!list.is_empty()).then_some(Self(list))
    }

    /// All of them, by file and line.
    #[must_use]
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(f, "the configuration has {n} {}", if n == 1 { "problem" } else { "problems" })?;
        for p in &self.0 {
            write!(f, "\n{p}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// A path as text that is safe in a terminal.
pub(crate) fn show(path: &Path) -> String {
    guard_model::path::escape(path.as_os_str().as_bytes())
}

/// Configured text in quotes, safe in a terminal and short enough for one line.
pub(crate) fn quoted(text: &str) -> String {
    // A path that is cut does not say where: most fit.
    const LONGEST: usize = 200;
    if text.is_empty() {
        return "an empty text".to_owned();
    }
    let mut cut: String = text.chars().take(LONGEST).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("`{}`", guard_model::path::escape(cut.as_bytes()))
}
