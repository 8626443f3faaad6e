//! The commands: from arguments to a call and from its answer to output.

mod alerts;
mod backup;
mod baseline;
mod deployment;
mod environment;
mod log;
mod offline;
mod restore;
mod validate;
mod watch;

use crate::arguments::Command;
use crate::ctl::{Ctl, Outcome};
use crate::view::Look;
use environment::Unlock;

/// Does what was asked for.
pub(crate) fn dispatch(ctl: &mut Ctl, command: Command) -> Outcome {
    match command {
        Command::Status { environment } => environment::status(ctl, environment.as_deref()),
        Command::Watch { environment } => watch::watch(ctl, environment),
        Command::Alerts { command, list } => alerts::dispatch(ctl, command, list),
        Command::Who { reads: true, place } => environment::who_reads(ctl, &place),
        Command::Who { reads: false, place } => environment::who(ctl, &place),
        Command::Log { command, show } => log::dispatch(ctl, command, show),
        Command::Lock { environment, reason, anyway, break_links } => {
            environment::lock(ctl, environment, reason, anyway, break_links)
        }
        Command::Unlock { environment, reason, maintainer, length, anyway } => {
            environment::unlock(ctl, Unlock { environment, reason, maintainer, length, anyway })
        }
        Command::Deploy(asked) => deployment::deploy(ctl, asked),
        Command::Rollback(asked) => deployment::rollback(ctl, asked),
        Command::Cancel { environment } => deployment::cancel(ctl, environment),
        Command::Deployments { command, list } => deployment::dispatch(ctl, command, list),
        Command::Check { environment, quick } => environment::check(ctl, environment, quick),
        Command::Validate { environment, junit, sarif } => {
            validate::validate(ctl, environment, &validate::Reports { junit, sarif })
        }
        Command::Diff { place } => environment::diff(ctl, &place),
        Command::Accept { place, reason } => environment::accept(ctl, &place, reason),
        Command::Restore { place, all, from, plan } => restore::restore(ctl, &place, all, from, plan),
        Command::Baseline { command } => baseline::dispatch(ctl, command),
        Command::Backup { command } => backup::dispatch(ctl, command),
        Command::Reload => environment::reload(ctl),
        Command::Init { arguments } => offline::run_guardd(ctl, &["init"], arguments),
        Command::CheckConfig { arguments } => offline::run_guardd(ctl, &["check-config"], arguments),
        Command::Git { arguments } => offline::run_guardd(ctl, &["git"], arguments),
    }
}

fn look(ctl: &Ctl) -> Look {
    Look { paint: ctl.paint(), now: crate::ctl::now() }
}
