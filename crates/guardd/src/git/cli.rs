//! The command line of `guardd git`, which `guardctl git` calls.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `guardd git`.
#[derive(Debug, Args)]
pub(crate) struct Git {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do with a repository.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Installs the hooks, in front of whatever hooks are there.
    ///
    /// While the environment is locked, its branches do not move: no commit, merge, rebase, reset, push or any other
    /// way. On every branch, what is staged is checked. Run it as the repository's owner; root becomes the owner.
    /// Works in worktrees, submodules, bare repositories and beside husky and pre-commit, whose hooks are called after.
    #[command(
        after_help = "Examples:\n  guardctl git install /srv/app\n  guardctl git install --environment production ~/app\n  guardctl git install --checks-only"
    )]
    Install(Install),
    /// Takes the hooks away and gives back what was there, byte for byte.
    #[command(after_help = "Examples:\n  guardctl git uninstall /srv/app")]
    Uninstall(Place),
    /// Which hooks are in place, intact and called, and what could get past them.
    ///
    /// Exit code 1 where a hook is not as it was installed.
    #[command(after_help = "Examples:\n  guardctl git status /srv/app")]
    Status(Place),
    /// Checks syntax and secrets of what is staged, of a commit, or of a range of commits.
    ///
    /// What the pre-commit hook checks, for CI. Each finding has its file, line, column and what was expected. What could
    /// not be checked is listed as that, never as passed. Exit code 1 where a finding is an error.
    #[command(
        after_help = "Examples:\n  guardctl git validate\n  guardctl git validate --rev HEAD\n  guardctl git validate --rev origin/main..HEAD --sarif >guardd.sarif\n  guardctl git validate --rev HEAD --junit >guardd.xml"
    )]
    Validate(Validate),
    /// What the hooks call; not for people.
    #[command(hide = true)]
    Hook(Hook),
}

/// Which repository.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// A directory of the repository [default: the current one].
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `guardd git install`.
#[derive(Debug, Args)]
pub(crate) struct Install {
    #[command(flatten)]
    pub(crate) place: Place,
    /// The environment that guards it [default: the one whose root holds the repository, or the only one].
    #[arg(long, value_name = "ENV", conflicts_with = "checks_only")]
    pub(crate) environment: Option<String>,
    /// Only checks what is staged, and locks nothing: for a machine without guardd's daemon.
    #[arg(long)]
    pub(crate) checks_only: bool,
    /// The state directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/guardd")]
    pub(crate) state_dir: PathBuf,
}

/// `guardd git validate`.
#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// A directory of the repository [default: the current one].
    #[arg(value_name = "DIR", default_value = ".")]
    pub(crate) dir: PathBuf,
    /// What is staged, which is the default.
    #[arg(long, conflicts_with = "rev")]
    pub(crate) staged: bool,
    /// A commit, all files of it; or FROM..TO, what changed, and the secrets that came and went in between.
    #[arg(long, value_name = "REV")]
    pub(crate) rev: Option<String>,
    /// The environment whose own validators are to be run.
    #[arg(long, value_name = "ENV")]
    pub(crate) environment: Option<String>,
    /// As JSON.
    #[arg(long, group = "format")]
    pub(crate) json: bool,
    /// As SARIF 2.1.0.
    #[arg(long, group = "format")]
    pub(crate) sarif: bool,
    /// As JUnit's XML.
    #[arg(long, group = "format")]
    pub(crate) junit: bool,
}

/// `guardd git hook`.
#[derive(Debug, Args)]
pub(crate) struct Hook {
    /// Git's name for the hook.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// The git that runs it.
    #[arg(long, value_name = "PID")]
    pub(crate) git_pid: Option<u32>,
    /// The environment that guards the repository.
    #[arg(long, value_name = "ENV")]
    pub(crate) environment: Option<String>,
    /// The state directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/guardd")]
    pub(crate) state_dir: PathBuf,
    /// A branch that was protected at installation.
    #[arg(long = "branch", value_name = "BRANCH")]
    pub(crate) branches: Vec<String>,
    /// A line of standard input that the hook has read already.
    #[arg(long, value_name = "LINE", allow_hyphen_values = true)]
    pub(crate) line: Option<OsString>,
    /// What git gave the hook.
    #[arg(last = true)]
    pub(crate) arguments: Vec<OsString>,
}
