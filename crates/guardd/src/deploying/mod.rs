//! A deployment, from its first gate to its last record.
//!
//! It runs on a thread of its own beside the warden, which it asks for everything that changes the tree's guard: unlock,
//! backup, restore, lock. Each part is in the ledger before it acts, so that a start after a crash knows how far it had
//! come: what was verified is finished, everything else is rolled back ([`flow`]). It never holds anything that the
//! ledger does not.

mod desk;
mod flow;
mod keep;
pub(crate) mod log;
mod looks;
mod preflight;
mod release;
mod roll_back;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::Sender;

use guard_config::Environment;
use guard_deploy::run::{Runner, Way};
use guard_model::deployments::Deployment;
use guard_model::state::EnvironmentState;

use crate::ward::Ward;
use crate::warden::Message;

/// A deployment that is in the ledger and is to be carried out.
pub(crate) struct Order {
    pub(crate) ward: Ward,
    pub(crate) warden: Sender<Message>,
    pub(crate) config: Environment,
    pub(crate) root: PathBuf,
    /// How the environment stood when it began.
    pub(crate) state: EnvironmentState,
    pub(crate) deployment: Deployment,
    /// Set when somebody cancels it.
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) start: Start,
}

/// How it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// From its beginning.
    New,
    /// guardd was ended while it ran.
    Resume,
}

/// How the names of the units of a deployment's steps begin.
pub(crate) fn unit_prefix(environment: &str, deployment: u64) -> String {
    format!("guardd-deploy-{environment}-{deployment}-")
}

/// The user's number, where steps are no units of their own by which they are told from his other processes.
pub(crate) fn uid_where_no_unit(user: &str) -> Option<u32> {
    let runner = Runner::here().ok()?;
    if runner.way() == Way::Systemd { None } else { guard_sys::peer::user_id(user) }
}

/// Carries it out on a thread of its own.
pub(crate) fn start(order: Order) {
    let name = format!("deploy {}", order.ward.name);
    let (environment, deployment) = (order.ward.name.clone(), order.deployment.id);
    if let Err(e) = std::thread::Builder::new().name(name).spawn(move || flow::run(order)) {
        // It stays in the ledger as one that runs: the next start rolls it back.
        tracing::error!(environment, deployment, error = %e, "no thread for a deployment");
    }
}
