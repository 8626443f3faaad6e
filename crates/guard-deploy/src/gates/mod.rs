//! Gates that are looked at as the environment's user: what the application needs, and how it is now. Whatever cannot be
//! looked at is unknown, never passed.

mod env;
mod ports;
mod services;
mod units;

use std::io;

use guard_model::deploy::{Compose, Gate, Probe, Validation, Verdict};

use crate::bounded::Context;
use crate::{compose, probe};

/// Tells one gate.
pub(crate) type Tell<'a> = dyn FnMut(Gate) -> io::Result<()> + 'a;

/// What a gate says of one subject.
pub(crate) fn gate(gate: &str, subject: &str, verdict: Verdict, evidence: String, by_hand: String) -> Gate {
    Gate { gate: gate.to_owned(), subject: subject.to_owned(), verdict, evidence, by_hand }
}

/// Looks at everything and tells it as it is known.
pub(crate) fn tell(
    context: &Context,
    validation: &Validation,
    compose: Option<&Compose>,
    health: &[Probe],
    tell: &mut Tell<'_>,
) -> io::Result<()> {
    env::files(context, validation, tell)?;
    let mut containers = Vec::new();
    if let Some(compose) = compose {
        configuration(context, compose, tell)?;
        containers = services::all(context, compose, tell)?;
    }
    units::all(context, &validation.units, tell)?;
    ports::all(context, validation, &containers, tell)?;
    let mut probes = health.to_vec();
    probes.extend(validation.probes.iter().filter(|p| !health.contains(p)).cloned());
    let own = Compose::default();
    let pinned = compose.unwrap_or(&own);
    let mut watched = probes.contains(&Probe::Compose).then(|| compose::Watched::new(pinned));
    for seen in probe::all(context, &probes, watched.as_mut()) {
        let verdict = if seen.ok { Verdict::Pass } else { Verdict::Fail };
        let by_hand = match &seen.probe {
            Probe::Http { url, .. } => format!("curl -i {}", quoted(url)),
            Probe::Tcp { address } => {
                format!("nc -vz {}", quoted(&address.replace(':', " ")).trim_matches('\''))
            }
            Probe::Command { command } => command.clone(),
            Probe::Compose => compose::by_hand(pinned, "ps --all"),
        };
        tell(gate("probe", &seen.probe.to_string(), verdict, seen.evidence, by_hand))?;
    }
    Ok(())
}

/// `docker compose config -q`, where every warning that a variable is not set is a failure.
fn configuration(context: &Context, compose: &Compose, tell: &mut Tell<'_>) -> io::Result<()> {
    let by_hand = compose::by_hand(compose, "config -q");
    let mut arguments = compose::arguments(context, compose);
    arguments.extend(["config", "--quiet"].map(str::to_owned));
    let done = match context.run(context.command("docker").args(&arguments), compose::ASKING) {
        Ok(done) => done,
        Err(e) => {
            let evidence = match e.kind() {
                io::ErrorKind::NotFound => "docker is not installed".to_owned(),
                _ => format!("cannot run docker: {e}"),
            };
            return tell(gate("compose", "", Verdict::Unknown, evidence, by_hand));
        }
    };
    let unset = unset_variables(&String::from_utf8_lossy(&done.err));
    let (verdict, evidence) = match (done.is_good(), unset.as_slice()) {
        (true, []) => (Verdict::Pass, "the compose files are valid".to_owned()),
        (true, unset) => (Verdict::Fail, format!("not set: {}", unset.join(", "))),
        (false, _) => match done.end {
            crate::child::End::Exited(code) if code < 125 => (Verdict::Fail, done.complaint()),
            _ => (Verdict::Unknown, done.complaint()),
        },
    };
    tell(gate("compose", "", verdict, evidence, by_hand))
}

/// The names in compose's warnings `The "NAME" variable is not set`.
fn unset_variables(said: &str) -> Vec<String> {
    let mut found: Vec<String> = said
        .lines()
        .filter(|l| l.contains("variable is not set"))
        .map(|l| match l.split_once("The ").map(|(_, rest)| rest.trim_start_matches(['\\', '"'])) {
            Some(rest) => rest.split(['\\', '"', ' ']).next().unwrap_or_default().to_owned(),
            None => "a variable".to_owned(),
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

/// A word as a shell takes it.
pub(crate) fn quoted(text: &str) -> String {
    shlex::try_quote(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composes_warnings_name_what_is_not_set() {
        let said = "time=\"2026-11-22T08:00:00Z\" level=warning msg=\"The \\\"B\\\" variable is not set. Defaulting to a blank string.\"\n\
            time=\"x\" level=warning msg=\"The \\\"A_1\\\" variable is not set. Defaulting to a blank string.\"\n\
            time=\"x\" level=warning msg=\"The \\\"B\\\" variable is not set. Defaulting to a blank string.\"\n\
            time=\"x\" level=warning msg=\"the attribute `version` is obsolete\"\n\
            The \"C\" variable is not set. Defaulting to a blank string.\n";
        assert_eq!(unset_variables(said), ["A_1", "B", "C"]);
    }

    #[test]
    fn without_docker_it_is_unknown() {
        let dir = tempfile::tempdir().unwrap();
        let mut context = crate::bounded::tests::context(dir.path());
        context.variables.insert("PATH".to_owned(), dir.path().display().to_string());
        let mut told = Vec::new();
        configuration(&context, &Compose::default(), &mut |g| {
            told.push(g);
            Ok(())
        })
        .unwrap();
        assert_eq!(told[0].verdict, Verdict::Unknown);
        assert!(told[0].evidence.contains("not installed"), "{told:?}");
    }
}
