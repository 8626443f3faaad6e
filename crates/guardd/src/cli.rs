//! The command line of `guardd`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Locks a production tree, watches it, and tells who changed what.
///
/// guardd is the daemon, and whatever works without one: guardctl talks to it.
#[derive(Debug, Parser)]
#[command(name = "guardd", version, max_term_width = 100)]
#[command(
    after_help = "Configuration: /etc/guardd/guardd.toml (GUARDD_CONFIG overrides), see guardd.toml in the documentation.
Exit codes: 0 done, 1 findings exist (check, verify), 2 usage or configuration error, 3 refused, 4 guardd not reachable,
5 failed and nothing changed, 6 failed and needs an operator.

Examples:
  guardd demo                      the whole cycle on a sample application, nothing to install
  guardd run --root ~/site         guards a directory of your own in the foreground
  guardd check --offline production   compares without a daemon, for cron and rescue systems"
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What `guardd` can do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the daemon in the foreground; systemd starts it so.
    Run(Run),
    /// Shows the whole cycle on a sample application: lock, tamper, alert, unlock, relock.
    Demo,
    /// Looks at a directory and writes a configuration for it.
    Init(Init),
    /// Checks the configuration and names every mistake with its line and the fix.
    CheckConfig(CheckConfig),
    /// Compares an environment with its baseline without a daemon.
    Check(Offline),
    /// Verifies ledger, baselines and lock files with the public key alone.
    Verify(Verify),
    /// Gives back the modes that lock took, without a daemon.
    Unseal(Unseal),
    /// Hooks that hold a locked environment's branches.
    Git(crate::git::cli::Git),
    /// Carries out one order of a deployment, read from standard input, as the user who runs it.
    #[command(hide = true)]
    DeployWorker,
}

/// `guardd run`.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Configuration file [default: /etc/guardd/guardd.toml, or GUARDD_CONFIG].
    #[arg(long, value_name = "FILE", conflicts_with = "root")]
    pub(crate) config: Option<PathBuf>,
    /// Guards this directory without a configuration: locked at once, not sealed, alerts on the
    /// terminal, state below XDG_STATE_HOME.
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
}

/// `guardd init`.
#[derive(Debug, Args)]
pub(crate) struct Init {
    /// The directory to guard.
    pub(crate) dir: PathBuf,
    /// The environment's name [default: production, unless the directory is called otherwise].
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Where to write it [default: environments.d/NAME.toml beside the configuration file].
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Writes it to standard output instead.
    #[arg(long, conflicts_with = "output")]
    pub(crate) print: bool,
    /// As JSON: where it was written, its text, and what was found.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `guardd check-config`.
#[derive(Debug, Args)]
pub(crate) struct CheckConfig {
    /// Configuration file [default: /etc/guardd/guardd.toml, or GUARDD_CONFIG].
    #[arg(value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `guardd check --offline`.
#[derive(Debug, Args)]
pub(crate) struct Offline {
    /// Without a daemon; the daemon's own check is `guardctl check`.
    #[arg(long, required = true)]
    pub(crate) offline: bool,
    /// The environment; may be left out where there is only one.
    #[arg(value_name = "ENV")]
    pub(crate) environment: Option<String>,
    /// Compares metadata, and reads content only where it differs.
    #[arg(long)]
    pub(crate) quick: bool,
    /// The root, where it is not at its place (a rescue system's mount).
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// The state directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/guardd")]
    pub(crate) state_dir: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `guardd verify --offline`.
#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// Without a daemon; the daemon's own verification is `guardctl log verify`.
    #[arg(long, required = true)]
    pub(crate) offline: bool,
    /// Ledger file or directory alone, instead of the whole state directory.
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    /// Public key [default: public/host.pub in the state directory].
    #[arg(long, value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// A head kept elsewhere, as `guardctl log export --head` printed it (`SEQ HASH` or JSON, whose signature is verified),
    /// or a file that ends in one: finds a cut tail.
    #[arg(long, value_name = "HEAD")]
    pub(crate) head: Option<String>,
    /// The state directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/guardd")]
    pub(crate) state_dir: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `guardd unseal --offline`.
#[derive(Debug, Args)]
pub(crate) struct Unseal {
    /// Without a daemon; with one, `guardctl unlock` does it.
    #[arg(long, required = true)]
    pub(crate) offline: bool,
    /// The environment; may be left out where there is only one.
    #[arg(value_name = "ENV", conflicts_with = "all")]
    pub(crate) environment: Option<String>,
    /// Every environment that is locked.
    #[arg(long)]
    pub(crate) all: bool,
    /// The root, where it is not at its place (a rescue system's mount).
    #[arg(long, value_name = "DIR", conflicts_with = "all")]
    pub(crate) root: Option<PathBuf>,
    /// The state directory.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/guardd")]
    pub(crate) state_dir: PathBuf,
}
