//! The command line's definition: one source for parsing, help, manual pages and completions.

mod backup;
mod deployment;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::quantity;
pub(crate) use backup::Backup;
pub(crate) use deployment::{Deploy, DeploymentList, Deployments, Rollback};

/// Exit codes and variables, for the bottom of the help.
const AFTER: &str = "\
Exit codes:
  0  done; listings too, whatever they list
  1  findings or violations exist (check, validate, diff, log verify, backup verify and drill)
  2  usage or configuration error
  3  refused: not permitted, wrong state, busy, changed since shown
  4  guardd is not reachable
  5  failed; nothing changed or all undone
  6  failed; needs an operator

ENV may be left out where there is only one environment.
Paths are relative to the environment's root, as guardctl prints them; absolute ones are understood too.

Environment variables:
  GUARDD_SOCKET  the control socket, with or without a leading unix:
  NO_COLOR       no colour, even on a terminal

Examples:
  guardctl status
  guardctl lock production --reason 'release 4.2'
  guardctl watch
  guardctl unlock production --reason 'fix the mail queue' --maintainer anna --for 30m";

/// See, lock and unlock the environments that guardd guards.
#[derive(Debug, Parser)]
#[command(name = "guardctl", version, after_help = AFTER, max_term_width = 100, subcommand_required = true)]
#[command(arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Globals {
    /// Print JSON; for streams one object a line; errors as an object on stderr
    #[arg(long, global = true, help_heading = "Options of every command")]
    pub(crate) json: bool,
    /// The control socket, instead of GUARDD_SOCKET or the one that is found
    #[arg(long, global = true, help_heading = "Options of every command", value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// How long to wait for each answer of guardd [default: 30s, and 60s between signs of progress]
    #[arg(long, global = true, value_name = "TIME", value_parser = quantity::parse_duration)]
    #[arg(help_heading = "Options of every command")]
    pub(crate) timeout: Option<Duration>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Is it locked, since when, by whom, why, is it watched, is anything wrong
    ///
    /// Shows all environments, or one.
    #[command(
        after_help = "Examples:\n  guardctl status\n  guardctl status production --json | jq .environments[0].state"
    )]
    Status {
        /// Only this environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
    },
    /// Live events as they happen: alerts, locks and unlocks, gaps
    ///
    /// Runs until interrupted. With --json one ledger record a line.
    #[command(
        after_help = "Examples:\n  guardctl watch\n  guardctl watch production --json | jq -c 'select(.event == \"alert_opened\")'"
    )]
    Watch {
        /// Only this environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
    },
    /// Changes that were not authorised: list, show, acknowledge
    ///
    /// Without a subcommand: list.
    #[command(args_conflicts_with_subcommands = true)]
    #[command(
        after_help = "Examples:\n  guardctl alerts\n  guardctl alerts show 17\n  guardctl alerts ack 17 --note 'my deploy, forgot to unlock'"
    )]
    Alerts {
        #[command(subcommand)]
        command: Option<Alerts>,
        #[command(flatten)]
        list: AlertList,
    },
    /// What is recorded of a path, and who changed it when; with --reads who opened or read it
    #[command(
        after_help = "Examples:\n  guardctl who production backend/app/main.py\n  guardctl who .env.prod\n  guardctl who /srv/app/.env.prod\n  guardctl who --reads\n  guardctl who --reads production .env.prod"
    )]
    #[command(
        override_usage = "guardctl who [OPTIONS] [ENV] <PATH>\n       guardctl who [OPTIONS] --reads [ENV] [PATH]"
    )]
    Who {
        /// Who opened or read it; only sensitive files are followed. Without a path: all of them
        #[arg(long)]
        reads: bool,
        /// The path; the environment may stand before it
        #[arg(value_name = "PATH", num_args = 1..=2, required_unless_present = "reads")]
        place: Vec<OsString>,
    },
    /// The ledger: everything that happened; verify it, take it off the host
    ///
    /// Without a subcommand: the last records, oldest first.
    #[command(args_conflicts_with_subcommands = true)]
    #[command(
        after_help = "Examples:\n  guardctl log\n  guardctl log production -n 1000 --json | jq '.[] | select(.event == \"call\")'\n  guardctl log --follow\n  guardctl log verify\n  guardctl log export --head >> /mnt/evidence/heads"
    )]
    Log {
        #[command(subcommand)]
        command: Option<Log>,
        #[command(flatten)]
        show: LogShow,
    },
    /// Take a baseline, seal the tree and guard it from now on
    ///
    /// Every attribute of every protected path is recorded and every file's content hashed; then write permission is
    /// taken away as the seal says, and from now on every change is an alert. Lists what could not be sealed. On an
    /// environment that is locked already it repairs seal and lock file and makes no new baseline.
    #[command(
        after_help = "Examples:\n  guardctl lock production\n  guardctl lock production --reason 'release 4.2' --break-links"
    )]
    Lock {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
        /// Why, for the record
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Lock although files are open for writing, or no backup can be made, and warn of it
        ///
        /// What was opened before goes on writing into a sealed tree. Without this, lock is refused then, names the
        /// files and processes, and gives every mode back; likewise where the tree cannot be backed up.
        #[arg(long)]
        anyway: bool,
        /// Give files with hard links to outside the root an inode of their own, so that they can be sealed
        ///
        /// Content and attributes stay; what lies outside is not touched, and is another file from then on. Otherwise such
        /// files are left unsealed, and listed. Not on an environment that is locked already.
        #[arg(long)]
        break_links: bool,
    },
    /// Open a maintenance window: give back the original modes for a while
    ///
    /// Changes inside the window are recorded but raise no alert. When its time is up guardd locks again by itself; lock
    /// before that with `guardctl lock`. On a terminal, asks for what is missing.
    #[command(
        after_help = "Examples:\n  guardctl unlock production --reason 'fix the mail queue' --maintainer anna\n  guardctl unlock production --reason 'database move' --maintainer anna --for 2h30m"
    )]
    Unlock {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
        /// Why (required; asked for on a terminal)
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Who answers for it (required; asked for on a terminal)
        #[arg(long, value_name = "NAME")]
        maintainer: Option<String>,
        /// How long, such as 45m or 2h30m [default: 30m]
        #[arg(long = "for", value_name = "TIME", value_parser = quantity::parse_duration)]
        length: Option<Duration>,
        /// Unlock although no backup can be made
        ///
        /// Before anything is changed, the tree is backed up as it stands. Without this, unlock is refused where that
        /// fails, such as on a full disk.
        #[arg(long)]
        anyway: bool,
    },
    /// Make a new release by the configured steps; roll everything back where it fails
    ///
    /// Looks whether everything holds, opens a window where the environment is locked, makes a backup, runs the steps as the
    /// configured user, asks the health probes until all was well for long enough, and locks again. Where a step or the
    /// verification fails, the files, the images and what can be undone are put back and verified. Goes on when guardctl is
    /// interrupted: `deploy --attach` follows it, `cancel` stops it.
    #[command(
        after_help = "Exit code: 0 deployed, 3 refused by a gate, 5 rolled back, 6 needs an operator.\n\nExamples:\n  guardctl deploy production --revision v4.2 --plan\n  guardctl deploy production --revision v4.2 --reason 'release 4.2'\n  guardctl deploy production --revision hotfix --force health --reason 'the probe itself is broken'\n  guardctl deploy --attach"
    )]
    Deploy(Deploy),
    /// Bring an earlier release back: its files, its images, its services
    ///
    /// Without --to what stood before the last deployment. Verified like a deployment.
    #[command(
        after_help = "Exit code: 0 brought back and verified, 6 needs an operator.\n\nExamples:\n  guardctl rollback production --reason 'orders fail'\n  guardctl rollback production --to 1207"
    )]
    Rollback(Rollback),
    /// Stop the deployment that runs; it is rolled back
    #[command(after_help = "Examples:\n  guardctl cancel production")]
    Cancel {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
    },
    /// Deployments: the one that runs and the last ones
    ///
    /// Without a subcommand: list.
    #[command(args_conflicts_with_subcommands = true)]
    #[command(after_help = "Examples:\n  guardctl deployments\n  guardctl deployments show 1207")]
    Deployments {
        #[command(subcommand)]
        command: Option<Deployments>,
        #[command(flatten)]
        list: DeploymentList,
    },
    /// Compare the tree with the baseline now, every byte of it
    ///
    /// Exit code 1 where anything differs or could not be checked.
    #[command(
        after_help = "Examples:\n  guardctl check production\n  guardctl check --quick && echo unchanged"
    )]
    Check {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
        /// Metadata only; contents are read only where metadata differ
        #[arg(long)]
        quick: bool,
    },
    /// Look at everything that must hold before a deployment
    ///
    /// The lock and its signature, every byte of the tree, variables as every reader of the project reads them, compose
    /// files, services, units, probes, ports, backups, disk space and the git repository. Each with what was seen; what
    /// does not hold with the command that looks by hand. What cannot be told counts as not holding.
    ///
    /// Exit code 1 where anything does not hold.
    #[command(
        after_help = "Examples:\n  guardctl validate production\n  guardctl validate --junit validate.xml && ./deploy\n  guardctl validate production --json | jq '.gates[] | select(.verdict != \"pass\")'"
    )]
    Validate {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
        /// Write a report for CI systems as JUnit's XML, too
        #[arg(long, value_name = "FILE")]
        junit: Option<PathBuf>,
        /// Write what does not hold as SARIF 2.1.0, too
        #[arg(long, value_name = "FILE")]
        sarif: Option<PathBuf>,
    },
    /// What differs from the last baseline, attribute by attribute and line by line
    ///
    /// Text files are compared with what the backups hold. Of sensitive files only the names of settings are shown, never
    /// a value; of others size and digest.
    ///
    /// Exit code 1 where anything differs or could not be compared.
    #[command(after_help = "Examples:\n  guardctl diff production\n  guardctl diff production backend/app")]
    #[command(override_usage = "guardctl diff [OPTIONS] [ENV] [PATH]")]
    Diff {
        /// This path and below only; the environment may stand before it, or alone
        #[arg(value_name = "PATH", num_args = 0..=2)]
        place: Vec<OsString>,
    },
    /// Make the present state of changed paths part of a new baseline
    ///
    /// A path that ends in a slash stands for every open finding below that directory. If any of the paths changed again
    /// since it was reported, nothing is accepted. On a terminal, asks for a missing reason.
    #[command(
        after_help = "Examples:\n  guardctl accept production .env.prod --reason 'rotated the key'\n  guardctl accept production backend/app/ --reason 'hotfix 4.2.1, reviewed'"
    )]
    #[command(override_usage = "guardctl accept [OPTIONS] [ENV] <PATH>...")]
    Accept {
        /// The paths; the environment may stand before them
        #[arg(value_name = "PATH", required = true, num_args = 1..)]
        place: Vec<OsString>,
        /// Why (required; asked for on a terminal)
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Bring paths back to what they should be, from the backups
    ///
    /// Content, type, owner, mode, extended attributes, flags and times; the seal, too, where the environment is locked.
    /// A directory stands for everything in it. What stands in the way, and what should not be there, is taken away into
    /// quarantine. Paths that cannot be put back are named and stay as they are.
    #[command(
        after_help = "Examples:\n  guardctl restore production --all --plan\n  guardctl restore production .env.prod backend/app/\n  guardctl restore production --all --from 17"
    )]
    #[command(
        override_usage = "guardctl restore [OPTIONS] [ENV] <PATH>...\n       guardctl restore [OPTIONS] --all [ENV]"
    )]
    Restore {
        /// The paths; the environment may stand before them
        #[arg(value_name = "PATH", num_args = 0..)]
        place: Vec<OsString>,
        /// Everything that differs
        #[arg(long)]
        all: bool,
        /// Take them from this backup (an unlocked environment only)
        #[arg(long, value_name = "ID")]
        from: Option<String>,
        /// Only show what would be done
        #[arg(long)]
        plan: bool,
    },
    /// The baselines: list the generations, export one
    #[command(subcommand_required = true, arg_required_else_help = true)]
    #[command(
        after_help = "Examples:\n  guardctl baseline list\n  guardctl baseline export production > SHA256SUMS"
    )]
    Baseline {
        #[command(subcommand)]
        command: Baseline,
    },
    /// Backups: make, list, prove, take off the host; the recovery key
    #[command(subcommand_required = true, arg_required_else_help = true)]
    #[command(
        after_help = "Examples:\n  guardctl backup init\n  guardctl backup create production --note 'before the move'\n  guardctl backup drill production"
    )]
    Backup {
        #[command(subcommand)]
        command: Backup,
    },
    /// Read the configuration again and apply it whole, or refuse it whole
    #[command(after_help = "Examples:\n  guardctl check-config && guardctl reload")]
    Reload,
    /// Write a configuration by looking at a directory (runs `guardd init`)
    #[command(disable_help_flag = true)]
    #[command(after_help = "Examples:\n  guardctl init /srv/app\n  guardctl init --help")]
    Init {
        /// The directory, and further arguments of `guardd init`
        #[arg(value_name = "DIR", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Check the configuration without applying it (runs `guardd check-config`)
    #[command(disable_help_flag = true)]
    #[command(after_help = "Examples:\n  guardctl check-config\n  guardctl check-config --help")]
    CheckConfig {
        /// Arguments of `guardd check-config`
        #[arg(value_name = "ARGUMENT", trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Git hooks that hold the branches of a locked environment (runs `guardd git`)
    #[command(disable_help_flag = true)]
    #[command(
        after_help = "Examples:\n  guardctl git install /srv/app\n  guardctl git status\n  guardctl git uninstall\n  guardctl git --help"
    )]
    Git {
        /// What to do, and further arguments of `guardd git`
        #[arg(value_name = "COMMAND", required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

/// Which alerts to list.
#[derive(Debug, Args)]
pub(crate) struct AlertList {
    /// Only this environment's
    #[arg(value_name = "ENV")]
    pub(crate) environment: Option<String>,
    /// Resolved ones too
    #[arg(long)]
    pub(crate) all: bool,
}

/// What to do with alerts.
#[derive(Debug, Subcommand)]
pub(crate) enum Alerts {
    /// Those that stand, oldest first
    #[command(
        after_help = "Examples:\n  guardctl alerts list production --all\n  guardctl alerts list --json | jq '.[].findings[].path'"
    )]
    List(AlertList),
    /// One alert with everything known of it, and how to look further
    #[command(after_help = "Examples:\n  guardctl alerts show 17")]
    Show {
        /// The alert's number
        #[arg(value_name = "ID")]
        id: u64,
    },
    /// Note that somebody has looked at an alert
    ///
    /// The difference still stands; `guardctl accept` makes it part of the baseline. On a terminal, asks for a missing note.
    #[command(after_help = "Examples:\n  guardctl alerts ack 17 --note 'my deploy, forgot to unlock'")]
    Ack {
        /// The alert's number
        #[arg(value_name = "ID")]
        id: u64,
        /// What you found (required; asked for on a terminal)
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
    },
}

/// Which ledger records to show.
#[derive(Debug, Args)]
pub(crate) struct LogShow {
    /// Only this environment's
    #[arg(value_name = "ENV")]
    pub(crate) environment: Option<String>,
    /// The last so many records
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub(crate) limit: u64,
    /// Go on with what comes, until interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// What to do with the ledger.
#[derive(Debug, Subcommand)]
pub(crate) enum Log {
    /// Is the ledger whole: no record edited, removed, reordered, no tail cut off
    ///
    /// Exit code 1 where it is not.
    #[command(
        after_help = "Examples:\n  guardctl log verify\n  guardctl log verify --file ledger.jsonl --key host.pub --head head.json"
    )]
    Verify {
        /// Verify this ledger file or directory without the daemon (runs `guardd verify --offline`)
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
        /// With --file: the host's public key to trust
        #[arg(long, value_name = "PATH", requires = "file")]
        key: Option<PathBuf>,
        /// With --file: a head that `log export --head` printed before, or a file that ends in one; a shorter ledger has
        /// lost its tail
        #[arg(long, value_name = "HEAD", requires = "file")]
        head: Option<String>,
    },
    /// Print the whole ledger exactly as it is, or its head
    ///
    /// One record a line, as JSON. The head, kept off the host, proves later that nothing was cut off.
    #[command(
        after_help = "Examples:\n  guardctl log export > ledger.jsonl\n  guardctl log export --head >> /mnt/evidence/heads"
    )]
    Export {
        /// Only the head, "SEQ HASH" on one line; with --json also its signature
        #[arg(long)]
        head: bool,
    },
}

/// What to do with baselines.
#[derive(Debug, Subcommand)]
pub(crate) enum Baseline {
    /// The generations that are kept, oldest first
    #[command(
        after_help = "Examples:\n  guardctl baseline list\n  guardctl baseline list production --json | jq '.[] | select(.current)'"
    )]
    List {
        /// Only this environment's
        #[arg(value_name = "ENV")]
        environment: Option<String>,
    },
    /// Print a generation's SHA256SUMS, or write all of its files to a directory
    ///
    /// The files are SHA256SUMS for sha256sum(1), undo.jsonl with every attribute, manifest.json and its signature, and
    /// the public key to verify it by.
    #[command(
        after_help = "Examples:\n  guardctl baseline export production > SHA256SUMS\n  cd /srv/app && sha256sum -c --quiet ~/SHA256SUMS\n  guardctl baseline export production --to /mnt/evidence/baseline"
    )]
    Export {
        /// The environment
        #[arg(value_name = "ENV")]
        environment: Option<String>,
        /// This generation instead of the current one
        #[arg(long, value_name = "N")]
        generation: Option<u64>,
        /// Write all files to this directory, which is made if it does not exist
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
