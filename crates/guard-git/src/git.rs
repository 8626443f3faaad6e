//! Asks git about a repository without letting the repository run anything.
//!
//! A repository's configuration names programs: `core.fsmonitor`, hooks,
//! filters, the remote helpers of a partial clone. Run by root they would run as
//! root. So root becomes the repository's owner first, whoever asks gets an
//! environment made here, and the settings that start programs are overridden.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use guard_model::path::escape;

use crate::error::GitError;

/// Where programs are looked for: never in a directory of the repository.
pub const SAFE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables by which git tells a hook which repository it is about.
pub const REPOSITORY_VARIABLES: [&str; 8] = [
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_COMMON_DIR",
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_QUARANTINE_PATH",
    "GIT_PREFIX",
];

/// Settings that win over those of the repository: what would start a program is off.
const SETTINGS: [&str; 8] = [
    "core.fsmonitor=false",
    "core.hooksPath=/dev/null",
    "core.attributesFile=/dev/null",
    "core.pager=cat",
    "core.sshCommand=false",
    "protocol.allow=never",
    "gc.auto=0",
    "maintenance.auto=false",
];

/// Variables under which git neither asks, nor fetches, nor writes by itself.
const VARIABLES: [(&str, &str); 5] = [
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_NO_LAZY_FETCH", "1"),
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("GIT_PROTOCOL_FROM_USER", "0"),
    // Wins over every `protocol.NAME.allow` of the repository: no remote helper is started for a
    // missing object, by a git too old for GIT_NO_LAZY_FETCH neither.
    ("GIT_ALLOW_PROTOCOL", "none"),
];

/// The variables, and the arguments before a command's name, with which git runs nothing of a
/// repository's own: for whoever has git run elsewhere. Filters (`filter.NAME.clean`) are not among
/// it, since their names are the repository's.
#[must_use]
pub fn hardened() -> (Vec<(&'static str, &'static str)>, Vec<&'static str>) {
    let settings = SETTINGS.iter().flat_map(|setting| ["-c", setting]);
    let variables = VARIABLES.into_iter().chain([("GIT_CONFIG_GLOBAL", "/dev/null")]);
    (variables.collect(), std::iter::once("--no-pager").chain(settings).collect())
}

/// Longest part of git's complaint that an error repeats.
const LONGEST_COMPLAINT: usize = 400;

/// Who asks, which decides what of the environment git may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A user at a prompt: the directory alone says which repository is meant.
    User,
    /// A hook that git started: git's own variables say it.
    Hook,
}

/// A repository to be asked.
#[derive(Debug, Clone)]
pub struct Git {
    dir: PathBuf,
    owner: Option<(u32, u32)>,
    kept: Vec<(&'static str, OsString)>,
}

/// Whom root has to become to work in `dir`: its owner, where that is not root.
///
/// # Errors
/// [`GitError::Io`] where the directory cannot be examined.
pub fn other_owner(dir: &Path) -> Result<Option<(u32, u32)>, GitError> {
    let meta = std::fs::metadata(dir).map_err(GitError::io("examine", dir))?;
    let we_are_root = rustix::process::geteuid().is_root();
    Ok((we_are_root && meta.uid() != 0).then(|| (meta.uid(), meta.gid())))
}

/// An environment without anything that steers git, a shell or an interpreter.
pub(crate) fn clean(command: &mut Command) -> &mut Command {
    command.env_clear().env("PATH", SAFE_PATH).env("LC_ALL", "C.UTF-8")
}

impl Git {
    /// The repository that `dir` belongs to.
    ///
    /// # Errors
    /// [`GitError::Io`] where the directory cannot be examined.
    pub fn new(dir: &Path, caller: Caller) -> Result<Self, GitError> {
        let owner = other_owner(dir)?;
        let mut kept = Vec::new();
        if caller == Caller::Hook {
            kept.extend(REPOSITORY_VARIABLES.iter().filter_map(|&n| Some((n, std::env::var_os(n)?))));
        }
        if owner.is_none() {
            // The user's own settings say which repositories of others he trusts.
            kept.extend(["HOME", "XDG_CONFIG_HOME"].iter().filter_map(|&n| Some((n, std::env::var_os(n)?))));
        }
        Ok(Self { dir: dir.to_owned(), owner, kept })
    }

    /// A command in the repository, without standard input.
    #[must_use]
    pub fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Command::new("git");
        clean(&mut command).current_dir(&self.dir).envs(VARIABLES).stdin(Stdio::null());
        if self.owner.is_some() {
            command.env("HOME", "/nonexistent").env("GIT_CONFIG_GLOBAL", "/dev/null");
        }
        for (name, value) in &self.kept {
            command.env(name, value);
        }
        if let Some((uid, gid)) = self.owner {
            // The standard library drops supplementary groups along with root.
            command.gid(gid).uid(uid);
        }
        command.arg("--no-pager");
        for setting in SETTINGS {
            command.args(["-c", setting]);
        }
        command.args(arguments);
        command
    }

    /// What a command prints.
    ///
    /// # Errors
    /// [`GitError::Run`], [`GitError::Failed`].
    pub fn output<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Vec<u8>, GitError> {
        let name = || name_of(arguments);
        let out =
            self.command(arguments).output().map_err(|source| GitError::Run { command: name(), source })?;
        if out.status.success() {
            return Ok(out.stdout);
        }
        Err(GitError::Failed { command: name(), said: complaint(&out.stderr) })
    }

    /// What a command prints without the newline at its end; `None` where it says by exit code 1
    /// that there is nothing.
    ///
    /// # Errors
    /// [`GitError::Run`], [`GitError::Failed`].
    pub fn line<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Result<Option<OsString>, GitError> {
        use std::os::unix::ffi::OsStringExt;
        let name = || name_of(arguments);
        let out =
            self.command(arguments).output().map_err(|source| GitError::Run { command: name(), source })?;
        match out.status.code() {
            Some(0) => {
                let mut bytes = out.stdout;
                if bytes.last() == Some(&b'\n') {
                    bytes.pop();
                }
                Ok(Some(OsString::from_vec(bytes)))
            }
            Some(1) => Ok(None),
            _ => Err(GitError::Failed { command: name(), said: complaint(&out.stderr) }),
        }
    }

    /// A path that `rev-parse` answers, absolute.
    ///
    /// # Errors
    /// [`GitError::Run`], [`GitError::Failed`].
    pub fn path(&self, arguments: &[&str]) -> Result<PathBuf, GitError> {
        let mut all = vec!["rev-parse"];
        all.extend(arguments);
        let found = self.line(&all)?.unwrap_or_default();
        if found.is_empty() {
            return Err(GitError::Answer { command: "rev-parse", what: "it names no path" });
        }
        Ok(self.dir.join(found))
    }

    /// The branch that HEAD is on, as `refs/heads/…`; `None` where it is detached.
    ///
    /// # Errors
    /// [`GitError::Run`], [`GitError::Failed`].
    pub fn head_branch(&self) -> Result<Option<Vec<u8>>, GitError> {
        use std::os::unix::ffi::OsStringExt;
        Ok(self.line(&["symbolic-ref", "-q", "HEAD"])?.map(OsString::into_vec))
    }

    /// The index, where the git that runs a hook says which one it is.
    pub(crate) fn index(&self) -> Option<PathBuf> {
        let (_, path) = self.kept.iter().find(|(name, _)| *name == "GIT_INDEX_FILE")?;
        Some(self.dir.join(path))
    }

    /// The directory that git is asked in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

fn name_of<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    arguments.first().map(|a| a.as_ref().to_string_lossy().into_owned()).unwrap_or_default()
}

fn complaint(stderr: &[u8]) -> String {
    let text = escape(stderr.trim_ascii()).replace("\\x0a", "; ");
    match text.char_indices().nth(LONGEST_COMPLAINT) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}
