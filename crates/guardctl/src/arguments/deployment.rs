//! The commands about deployments.

use clap::{Args, Subcommand};

/// `guardctl deploy`.
#[derive(Debug, Args)]
pub(crate) struct Deploy {
    /// The environment
    #[arg(value_name = "ENV")]
    pub(crate) environment: Option<String>,
    /// What to deploy: a branch, tag or commit; the steps get it as GUARDD_REVISION
    #[arg(long, value_name = "REVISION")]
    pub(crate) revision: Option<String>,
    /// Why, for the record; required with --force
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Skip these gates, by name: lock, integrity, validate, health
    ///
    /// Never another deployment that runs, the backup or the record. Raises an alert that stays open until somebody
    /// acknowledges it with a note.
    #[arg(long, value_name = "GATE", value_delimiter = ',')]
    pub(crate) force: Vec<String>,
    /// Say what would be done, and do nothing
    #[arg(long, conflicts_with = "attach")]
    pub(crate) plan: bool,
    /// Follow the deployment that runs, whoever began it
    #[arg(long, conflicts_with_all = ["revision", "reason", "force"])]
    pub(crate) attach: bool,
}

/// `guardctl rollback`.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    /// The environment
    #[arg(value_name = "ENV")]
    pub(crate) environment: Option<String>,
    /// The deployment whose release is brought back [default: what stood before the last one]
    #[arg(long, value_name = "ID")]
    pub(crate) to: Option<u64>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
}

/// `guardctl deployments`.
#[derive(Debug, Subcommand)]
pub(crate) enum Deployments {
    /// One deployment: what its parts brought, and the end of what it printed
    #[command(after_help = "Examples:\n  guardctl deployments show 1207")]
    Show {
        /// Its number, as the list has it
        #[arg(value_name = "ID")]
        id: u64,
    },
}

/// What `guardctl deployments` lists.
#[derive(Debug, Args)]
pub(crate) struct DeploymentList {
    /// Only this environment
    #[arg(value_name = "ENV")]
    pub(crate) environment: Option<String>,
}
