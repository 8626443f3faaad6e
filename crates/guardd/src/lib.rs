//! The guard daemon: wiring and lifecycle, and whatever works without it.
//!
//! The way of a changed file is a straight line: watcher (touch), warden
//! (coalesce), observer (observe), model (finding), ledger (durable), sinks
//! (out). Everything here passes things along it; decisions are guard-model's,
//! hands on a tree guard-tree's.

#![forbid(unsafe_code)]

mod check_config;
mod cli;
mod comparer;
mod daemon;
mod demo;
mod deploying;
mod foreground;
mod gates;
mod git;
mod init;
mod offline;
mod operations;
mod server;
mod sessions;
mod ward;
mod warden;
mod watching;
mod wire;
mod work_tree;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use guard_api::Exit;
use guard_model::failure;

use cli::{Cli, Command};

/// The command line, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Runs the program; the one place where an error becomes an exit code.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // Nowhere is left to say it where the terminal is gone.
            e.print().ok();
            return ExitCode::from(if e.use_stderr() { Exit::Usage.code() } else { Exit::Done.code() });
        }
    };
    let result = match cli.command {
        Command::Run(run) => match run.root {
            Some(root) => foreground::run(&root),
            None => run_daemon(run.config),
        },
        Command::Demo => demo::run(),
        Command::Init(init) => init::run(&init),
        Command::CheckConfig(check) => check_config::run(&check),
        Command::Check(check) => offline::check::run(&check),
        Command::Verify(verify) => offline::verify::run(&verify),
        Command::Unseal(unseal) => offline::unseal::run(&unseal),
        Command::Git(git) => git::run(git),
        Command::DeployWorker => return deploy_worker(),
    };
    match result {
        Ok(exit) => ExitCode::from(exit.code()),
        Err(e) => {
            say(&e);
            ExitCode::from(e.exit.code())
        }
    }
}

/// The status is that of what was run.
fn deploy_worker() -> ExitCode {
    match guard_deploy::worker::run(&mut std::io::stdout()) {
        Ok(status) => ExitCode::from(status),
        Err(e) => {
            say(&Failure::of(Exit::Failed, &e));
            ExitCode::from(Exit::Failed.code())
        }
    }
}

/// A failure as it ends the program: what failed, why, and what to do.
pub(crate) struct Failure {
    exit: Exit,
    text: String,
    hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, text: impl Into<String>) -> Self {
        Self { exit, text: text.into(), hint: None }
    }

    /// An error with its causes.
    pub(crate) fn of(exit: Exit, error: &dyn std::error::Error) -> Self {
        Self::new(exit, failure::chain(error))
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

#[expect(clippy::print_stderr, reason = "this is where a failing program says why")]
fn say(failure: &Failure) {
    eprintln!("guardd: {}", failure.text);
    if let Some(hint) = &failure.hint {
        eprintln!("\nhint: {hint}");
    }
}

fn run_daemon(config: Option<PathBuf>) -> Result<Exit, Failure> {
    start_logging(IsJournal::WhereSystemdAsks);
    let path = config.unwrap_or_else(guard_config::default_config_path);
    let start = match guard_config::load(&path) {
        Ok(loaded) => {
            for notice in &loaded.notices {
                tracing::warn!("{notice}");
            }
            daemon::Start {
                config: loaded.config,
                sha256: loaded.sha256,
                files: loaded.files,
                config_path: Some(path),
                refused: None,
                foreground: false,
            }
        }
        Err(problems) => {
            // Whoever can break the configuration must not be able to end the guard by it.
            let (config, files) = daemon::last_accepted(&path).ok_or_else(|| {
                Failure::of(Exit::Usage, &problems).hint("guardd check-config checks it again")
            })?;
            let sha256 = guard_model::ledger::line_hash(problems.to_string().as_bytes());
            daemon::Start {
                config,
                sha256,
                files,
                config_path: Some(path),
                refused: Some(problems),
                foreground: false,
            }
        }
    };
    run_started(start)
}

fn run_started(start: daemon::Start) -> Result<Exit, Failure> {
    match daemon::run(start) {
        Ok(()) => Ok(Exit::Done),
        Err(e) => {
            tracing::error!(error = %failure::chain(&e), "guardd ends");
            let exit = match &e {
                daemon::DaemonError::Store(guard_store::StoreError::InUse { .. })
                | daemon::DaemonError::Bind(server::BindError::InUse(_)) => Exit::Refused,
                _ => Exit::Failed,
            };
            Err(Failure::of(exit, &e))
        }
    }
}

/// Where diagnostics go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum IsJournal {
    /// To journald where systemd connected standard error to it, else to standard error.
    WhereSystemdAsks,
    /// To standard error, warnings and worse only.
    Never,
}

/// Diagnostics; alerts go their own way.
fn start_logging(journal: IsJournal) {
    use tracing_subscriber::Layer;
    use tracing_subscriber::filter::LevelFilter;
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let level = match std::env::var("GUARDD_DEBUG") {
        Ok(_) => LevelFilter::DEBUG,
        Err(_) if journal == IsJournal::Never => LevelFilter::WARN,
        Err(_) => LevelFilter::INFO,
    };
    let under_systemd =
        journal == IsJournal::WhereSystemdAsks && std::env::var_os("JOURNAL_STREAM").is_some();
    let to_journal = under_systemd.then(tracing_journald::layer).and_then(Result::ok);
    let to_terminal = to_journal.is_none().then(|| {
        tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
    });
    let registry = tracing_subscriber::registry()
        .with(to_journal.map(|l| l.with_filter(level)))
        .with(to_terminal.map(|l| l.with_filter(level)));
    // A second start in one process keeps the first one's.
    registry.try_init().ok();
}
