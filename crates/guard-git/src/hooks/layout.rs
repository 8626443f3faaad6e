//! Where a repository has what, as git itself says.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::GitError;
use crate::git::{Caller, Git};

/// The directory of ours in the repository's common directory.
const OWN: &str = "guardd";

/// A repository's places.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Git, asked in the directory that was named.
    pub git: Git,
    /// The directory that all worktrees share (`.git`, a bare repository itself, `.git/modules/…`).
    pub common: PathBuf,
    /// The top of the work tree; `None` for a bare repository.
    pub work_tree: Option<PathBuf>,
    /// Where git looks for hooks now.
    pub hooks: PathBuf,
    /// The value of `core.hooksPath`, from wherever it comes.
    pub hooks_path: Option<OsString>,
}

impl Layout {
    /// Asks git about the repository that `dir` belongs to.
    ///
    /// # Errors
    /// [`GitError::Failed`] where it is none, or not the caller's.
    pub fn find(dir: &Path) -> Result<Self, GitError> {
        let dir = dir.canonicalize().map_err(GitError::io("find", dir))?;
        let git = Git::new(&dir, Caller::User)?;
        let common = real(git.path(&["--git-common-dir"])?)?;
        let bare = git.line(&["rev-parse", "--is-bare-repository"])?.is_some_and(|answer| answer == "true");
        let inside =
            git.line(&["rev-parse", "--is-inside-work-tree"])?.is_some_and(|answer| answer == "true");
        let work_tree = (!bare && inside).then(|| git.path(&["--show-toplevel"])).transpose()?;
        let hooks_path = hooks_path(&git)?;
        let hooks = match &hooks_path {
            None => common.join("hooks"),
            // Relative to where hooks run (git-config(1)).
            Some(path) => work_tree.as_deref().unwrap_or(&common).join(path),
        };
        Ok(Self { git, common, work_tree, hooks, hooks_path })
    }

    /// Where our own files are.
    #[must_use]
    pub fn own(&self) -> PathBuf {
        self.common.join(OWN)
    }

    /// The hooks directory of ours, for repositories whose hooks are elsewhere.
    #[must_use]
    pub fn own_hooks(&self) -> PathBuf {
        self.own().join("hooks")
    }
}

/// What `core.hooksPath` says. Our own override is left out of the question, or it would be the answer.
fn hooks_path(git: &Git) -> Result<Option<OsString>, GitError> {
    // The last value wins; ours on the command line is the last of all.
    let all = git.output(&["config", "--null", "--type=path", "--get-all", "core.hooksPath"])?;
    let mut values: Vec<&[u8]> = all.split(|&b| b == 0).filter(|v| !v.is_empty()).collect();
    values.pop();
    use std::os::unix::ffi::OsStrExt;
    Ok(values.last().map(|v| std::ffi::OsStr::from_bytes(v).to_owned()))
}

fn real(path: PathBuf) -> Result<PathBuf, GitError> {
    path.canonicalize().map_err(GitError::io("find", &path))
}
