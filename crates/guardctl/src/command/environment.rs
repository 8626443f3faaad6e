//! Commands about an environment as a whole: status, lock, unlock, check, diff, accept, who, reload.

use std::ffi::OsString;
use std::time::Duration;

use guard_api::method::{self, Accept, Check, Diff, Lock, Reads, Reload, Status, Who};
use guard_api::{Exit, Known};

use super::look;
use crate::ask::{Question, given_or_asked};
use crate::ctl::{Ctl, Outcome};
use crate::failure::Failure;
use crate::place::{Place, resolve, without_slash};
use crate::refusal;
use crate::view::{outcome, path, reads, status};

pub(crate) fn status(ctl: &mut Ctl, only: Option<&str>) -> Outcome {
    let mut answer = ctl.call("show the status", &Status {})?;
    if let Some(only) = only {
        let known: Vec<String> = answer.value.environments.iter().map(|e| e.name.clone()).collect();
        if !known.iter().any(|k| k == only) {
            let e = Known::UnknownEnvironment { environment: Some(only.to_owned()), known };
            return Err(refusal::explain("show the status", "", e.into(), None));
        }
        answer.value.environments.retain(|e| e.name == only);
        if let Some(list) = answer.json["environments"].as_array_mut() {
            list.retain(|e| e["name"] == only);
        }
    }
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&status::text(look(ctl), &answer.value))?;
        ctl.hint(&status::hints(&answer.value))?;
    }
    Ok(Exit::Done)
}

pub(crate) fn lock(
    ctl: &mut Ctl,
    environment: Option<String>,
    reason: Option<String>,
    anyway: bool,
    break_links: bool,
) -> Outcome {
    let lock = Lock { environment, reason, anyway: Some(anyway), break_links: Some(break_links) };
    let answer = ctl.call_long("lock", &lock)?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&outcome::lock(look(ctl), &answer.value))?;
    }
    Ok(Exit::Done)
}

/// What was typed after `unlock`.
pub(crate) struct Unlock {
    pub(crate) environment: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) maintainer: Option<String>,
    pub(crate) length: Option<Duration>,
    pub(crate) anyway: bool,
}

pub(crate) fn unlock(ctl: &mut Ctl, typed: Unlock) -> Outcome {
    let Unlock { environment, reason, maintainer, length, anyway } = typed;
    let example = "guardctl unlock ENV --reason 'fix the mail queue' --maintainer anna";
    let reason =
        given_or_asked(ctl.terminal, reason, Question { prompt: "Reason", option: "--reason", example })?;
    let question = Question { prompt: "Maintainer", option: "--maintainer", example };
    let maintainer = given_or_asked(ctl.terminal, maintainer, question)?;
    let for_seconds = length.map(|d| d.as_secs());
    let asked = method::Unlock { environment, reason, maintainer, for_seconds, anyway: Some(anyway) };
    let answer = ctl.call_long("unlock", &asked)?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&outcome::unlock(look(ctl), &answer.value))?;
        ctl.hint(&[outcome::unlock_hint(look(ctl), &answer.value)])?;
    }
    Ok(Exit::Done)
}

pub(crate) fn check(ctl: &mut Ctl, environment: Option<String>, quick: bool) -> Outcome {
    let answer = ctl.call_long("check", &Check { environment, quick: Some(quick) })?;
    let r = &answer.value;
    // What could not be checked is not clean, whatever the daemon says of it.
    let clean = r.clean && r.findings.is_empty() && r.findings_total == 0 && r.skipped.is_empty();
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&outcome::check(look(ctl), r))?;
        if !r.findings.is_empty() {
            ctl.hint(&[format!("attribute by attribute: guardctl diff {}", r.environment)])?;
        }
    }
    Ok(if clean { Exit::Done } else { Exit::Findings })
}

pub(crate) fn diff(ctl: &mut Ctl, typed: &[OsString]) -> Outcome {
    let Place { environment, mut paths } = resolve(ctl, "compare", typed, None)?;
    if paths.len() > 1 {
        let words = paths.join(" ");
        return Err(Failure::usage(format!(
            "{words} is more than one path, and the first word is no environment"
        ))
        .hint("guardctl diff [ENV] [PATH]"));
    }
    let path = paths.pop().map(|p| without_slash(&p));
    let answer = ctl.call_long("compare", &Diff { environment, path })?;
    let r = &answer.value;
    let same = r.findings.is_empty() && r.findings_total == 0 && r.skipped.is_empty();
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&outcome::diff(look(ctl), r))?;
        if !r.findings.is_empty() {
            ctl.hint(&[
                format!("was it meant? guardctl accept {} PATH… --reason TEXT", r.environment),
                format!("was it not? guardctl restore {} PATH…", r.environment),
                format!("who was it? guardctl who {} PATH", r.environment),
            ])?;
        }
    }
    Ok(if same { Exit::Done } else { Exit::Findings })
}

pub(crate) fn accept(ctl: &mut Ctl, typed: &[OsString], reason: Option<String>) -> Outcome {
    let example = "guardctl accept ENV PATH… --reason 'rotated the key'";
    let reason =
        given_or_asked(ctl.terminal, reason, Question { prompt: "Reason", option: "--reason", example })?;
    let Place { environment, paths } = resolve(ctl, "accept", typed, None)?;
    if paths.is_empty() {
        return Err(Failure::usage("name the paths to accept; all open findings are ./")
            .hint(format!("e.g. {example}")));
    }
    let answer = ctl.call("accept", &Accept { environment, paths, reason })?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&outcome::accept(look(ctl), &answer.value))?;
    }
    Ok(Exit::Done)
}

pub(crate) fn who(ctl: &mut Ctl, typed: &[OsString]) -> Outcome {
    let (environment, typed) = match typed {
        [environment, path] => (Some(crate::place::escaped(environment)), path),
        [path] => (None, path),
        _ => return Err(Failure::usage("name a path").hint("guardctl who [ENV] PATH")),
    };
    let word = [typed.clone()];
    // A single relative path needs no environments to be understood.
    let place = if environment.is_none() && !crate::place::escaped(typed).starts_with('/') {
        Place { environment: None, paths: vec![crate::place::escaped(typed)] }
    } else {
        resolve(ctl, "look up the path", &word, environment)?
    };
    let Some(path) = place.paths.into_iter().next() else {
        return Err(Failure::usage("name a path").hint("guardctl who [ENV] PATH"));
    };
    let path = without_slash(path.strip_prefix("./").filter(|p| !p.is_empty()).unwrap_or(&path));
    let answer = ctl.call("look up the path", &Who { environment: place.environment, path })?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&path::text(look(ctl), &answer.value))?;
    }
    Ok(Exit::Done)
}

pub(crate) fn who_reads(ctl: &mut Ctl, typed: &[OsString]) -> Outcome {
    let place = resolve(ctl, "look up who read", typed, None)?;
    let path = place.paths.into_iter().next();
    let path = path.map(|p| without_slash(p.strip_prefix("./").filter(|p| !p.is_empty()).unwrap_or(&p)));
    let answer = ctl.call("look up who read", &Reads { environment: place.environment, path })?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&reads::text(look(ctl), &answer.value))?;
    }
    Ok(Exit::Done)
}

pub(crate) fn reload(ctl: &mut Ctl) -> Outcome {
    let answer = ctl.call("reload", &Reload {})?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&outcome::reload(&answer.value))?;
    }
    Ok(Exit::Done)
}
