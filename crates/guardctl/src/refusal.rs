//! The daemon's errors in words: what failed, why, and what to do.

use guard_api::wire::Problem;
use guard_api::{CallError, Known};

use crate::failure::Failure;
use crate::quantity;

/// How many paths or environments are named.
const SHOWN: usize = 10;

/// An error reply to `method`, called in order to do what `doing` says.
pub(crate) fn explain(doing: &str, method: &str, e: CallError, version: Option<&str>) -> Failure {
    let exit = e.exit();
    let why = reason(&e);
    let (name, parameters) = e.clone().into_parts();
    let failure = Failure::new(exit, format!("cannot {doing}: {why}")).caused_by(name, parameters);
    match e {
        CallError::Known(known) => advise(failure, method, &known, version),
        CallError::Other { .. } => {
            failure.hint("this guardctl does not know that error; install guardd's own version")
        }
    }
}

/// The error's own words, but for those that are better said here.
fn reason(e: &CallError) -> String {
    match e {
        CallError::Known(Known::AlreadyUnlocked { environment, window: Some(w) }) => {
            format!("{environment} is unlocked already, until {}", quantity::absolute(w.until))
        }
        CallError::Known(Known::InvalidWindow { asked_seconds, max_seconds }) if *asked_seconds > 0 => {
            format!(
                "a window of {} is longer than the {} that the configuration allows",
                quantity::span(*asked_seconds),
                quantity::span(*max_seconds)
            )
        }
        CallError::Known(Known::PermissionDenied {}) => "guardd does not permit it to this user".to_owned(),
        other => other.to_string(),
    }
}

fn advise(failure: Failure, method: &str, known: &Known, version: Option<&str>) -> Failure {
    match known {
        Known::UnknownEnvironment { known, .. } if known.is_empty() => {
            failure.hint("write one: guardctl init DIR; then: guardctl reload")
        }
        Known::UnknownEnvironment { known, .. } => {
            let failure = failure.hint(format!("environments: {}", few(known)));
            match method.rsplit('.').next() {
                Some("ListAlerts") => failure.hint("subcommands of alerts: list, show, ack"),
                Some("Log") => failure.hint("subcommands of log: verify, export"),
                _ => failure,
            }
        }
        Known::NotLocked { environment } => failure.hint(format!("lock it: guardctl lock {environment}")),
        Known::AlreadyUnlocked { environment, window: Some(w) } => failure
            .detail(format!("opened by {} for {}: {}", w.by, w.maintainer, w.reason))
            .hint(format!("end that window: guardctl lock {environment}")),
        Known::AlreadyUnlocked { environment, window: None } => {
            failure.hint(format!("lock it for the first time: guardctl lock {environment}"))
        }
        Known::Busy { environment, .. } => {
            failure.hint(format!("try again when it is done; how far it is: guardctl status {environment}"))
        }
        Known::ReasonRequired {} => failure.hint("say why: --reason TEXT"),
        Known::MaintainerRequired {} => failure.hint("say who answers for it: --maintainer NAME"),
        Known::NoBaseline { environment, generation: None } => {
            failure.hint(format!("take one: guardctl lock {environment}"))
        }
        Known::NoBaseline { environment, generation: Some(_) } => {
            failure.hint(format!("those that there are: guardctl baseline list {environment}"))
        }
        Known::UnknownBackup { id: None, .. } => failure.hint("make one: guardctl backup create"),
        Known::UnknownBackup { .. } => failure.hint("those that there are: guardctl backup list"),
        Known::UnknownAlert { .. } => failure.hint("those that there are: guardctl alerts list --all"),
        Known::ChangedSinceShown { environment, paths } => {
            let more = paths.len().saturating_sub(SHOWN);
            let failure = paths.iter().take(SHOWN).fold(failure, |f, p| f.detail(p.clone()));
            let failure = if more > 0 { failure.detail(format!("and {more} more")) } else { failure };
            failure.hint(format!("look again before accepting: guardctl diff {environment}"))
        }
        Known::InvalidWindow { max_seconds, .. } => failure.hint(format!(
            "ask for {} at most, or raise window_max in the configuration",
            quantity::span(*max_seconds)
        )),
        Known::ConfigurationRefused { problems } => {
            let failure = problems.iter().fold(failure, |f, p| {
                let key = if p.key.is_empty() { String::new() } else { format!("{}: ", p.key) };
                let f = f.detail(format!("{}: {key}{}", place(p), p.what));
                if p.fix.is_empty() { f } else { f.detail(format!("  fix: {}", p.fix)) }
            });
            failure.hint("the configuration before stays in force; try again: guardctl check-config")
        }
        Known::Refused { hint, anyway, .. } => {
            let failure = optional(failure, hint.as_deref());
            if *anyway { failure.hint("to do it all the same: --anyway") } else { failure }
        }
        Known::Failed { hint, .. } => {
            optional(failure.detail("nothing was changed, or everything was undone"), hint.as_deref())
        }
        Known::NeedsOperator { hint, .. } => optional(
            failure.detail("it could not be undone: a person has to look"),
            Some(
                hint.as_deref()
                    .unwrap_or("how it stands: guardctl status; what happened: journalctl -u guardd -n 50"),
            ),
        ),
        Known::PermissionDenied {} => {
            let failure = failure.hint("run it as root, or as the user that guardd runs as: sudo guardctl …");
            match allow_key(method) {
                Some(key) => failure.hint(format!(
                    "or allow it to a group, in guardd.toml under [daemon.allow]: {key} = [\"GROUP\"]"
                )),
                // Not for the group, and given to nobody.
                None if method.ends_with(".ExportBaseline") || method.ends_with(".ListBaselines") => failure,
                None => failure.hint("or become a member of the group guardd, which may read"),
            }
        }
        Known::MethodNotFound { .. } | Known::MethodNotImplemented { .. } => {
            let own = env!("CARGO_PKG_VERSION");
            let theirs = version.map_or("another version".to_owned(), |v| format!("version {v}"));
            failure
                .detail(format!("guardd there is {theirs}, this guardctl is {own}"))
                .hint("install the same version of both, then: systemctl restart guardd")
        }
        Known::InterfaceNotFound { .. } => failure
            .hint("what listens there is not guardd; name another socket with --socket or GUARDD_SOCKET"),
        Known::InvalidParameter { parameter } if matches!(parameter.as_str(), "path" | "paths") => failure
            .hint("write paths relative to the environment's root, as guardctl prints them; . is the root"),
        Known::InvalidParameter { .. } | Known::ExpectedMore {} => failure,
    }
}

/// The key of `[daemon.allow]` that gives this method to groups; none for methods that only read.
fn allow_key(method: &str) -> Option<&'static str> {
    match method.rsplit('.').next()? {
        "Lock" => Some("lock"),
        "Unlock" => Some("unlock"),
        "Accept" => Some("accept"),
        "AcknowledgeAlert" => Some("ack"),
        "Reload" => Some("reload"),
        "Restore" => Some("restore"),
        "Deploy" => Some("deploy"),
        "Rollback" => Some("rollback"),
        "Cancel" => Some("cancel"),
        "InitBackup" | "CreateBackup" | "VerifyBackup" | "DrillBackup" | "PruneBackups" | "PinBackup"
        | "ListBackups" | "ExportBackup" => Some("backup"),
        _ => None,
    }
}

fn optional(failure: Failure, hint: Option<&str>) -> Failure {
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn place(p: &Problem) -> String {
    match p.line {
        Some(line) => format!("{}:{line}", p.file),
        None => p.file.clone(),
    }
}

fn few(names: &[String]) -> String {
    let more = names.len().saturating_sub(SHOWN);
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
}
