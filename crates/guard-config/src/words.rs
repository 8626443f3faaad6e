//! Names that a configuration may give to things.

use crate::problem::quoted;
use crate::section::{At, Place, Report};

/// The longest name of an environment: it becomes part of file names.
const LONGEST_NAME: usize = 31;

/// The daemon raises alerts about its own files under this name.
const RESERVED: &str = "guardd";

/// The longest group name that Linux's tools make (`groupadd(8)`).
const LONGEST_GROUP: usize = 32;

/// `[a-z][a-z0-9-]{0,30}`, and not [`RESERVED`].
pub(crate) fn environment(place: &Place, report: &Report, name: &str) {
    let fits = name.len() <= LONGEST_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if name == RESERVED {
        report.push(place.problem(
            format!("{} is what alerts about guardd itself are filed under", quoted(name)),
            "give the environment another name, as in `production`".to_owned(),
        ));
        return;
    }
    if fits {
        return;
    }
    let mut better: String = name
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .skip_while(|c| !c.is_ascii_lowercase())
        .take(LONGEST_NAME)
        .collect();
    better.truncate(better.trim_end_matches('-').len());
    let example = if better.is_empty() { "production".to_owned() } else { better };
    report.push(place.problem(
        format!("{} cannot be the name of an environment", quoted(name)),
        format!(
            "use up to {LONGEST_NAME} lower-case letters, digits and hyphens, beginning with a letter, as in `{example}`"
        ),
    ));
}

/// The name of a group, as the system's tools make them.
pub(crate) fn group(report: &Report, name: &At<String>) {
    let v = &name.value;
    let fits = (1..=LONGEST_GROUP).contains(&v.len())
        && !v.starts_with('-')
        && !v.bytes().all(|b| b.is_ascii_digit())
        && v.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b':' | b',' | b'/'));
    if !fits {
        let what = format!("{} cannot be the name of a group", quoted(v));
        report.push(name.place.problem(what, "write a group's name as `getent group` shows it"));
    }
}

/// A systemd unit by its whole name (systemd.unit(5)), or a pattern of such with `*`.
pub(crate) fn unit(report: &Report, name: &At<String>) {
    let v = &name.value;
    let is_of_processes = v.ends_with(".service") || v.ends_with(".scope");
    let fits = is_of_processes
        && !v.starts_with('.')
        && v.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@*".contains(&b));
    if !fits {
        let what = format!("{} cannot be a unit that processes belong to", quoted(v));
        report.push(name.place.problem(
            what,
            "write its whole name as `systemctl status PID` shows it, as in \"docker.service\"",
        ));
    }
}

/// One systemd unit of any kind by its whole name.
pub(crate) fn whole_unit(report: &Report, name: &At<String>) {
    let v = &name.value;
    let has_kind = v.rsplit_once('.').is_some_and(|(stem, kind)| {
        let kinds = ["service", "socket", "timer", "target", "mount", "path", "slice", "scope"];
        !stem.is_empty() && kinds.contains(&kind)
    });
    if !has_kind
        || !v.bytes().all(|b| b.is_ascii_alphanumeric() || b":-_.\\@".contains(&b))
        || v.starts_with('-')
    {
        let what = format!("{} is no unit", quoted(v));
        report.push(name.place.problem(what, "write its whole name, as in \"app.service\""));
    }
}

/// A branch as git-check-ref-format(1) allows it, or a pattern of such with `*`.
pub(crate) fn branch(report: &Report, name: &At<String>) {
    if !is_branch(&name.value) {
        let what = format!("{} cannot be the name of a branch", quoted(&name.value));
        report.push(name.place.problem(what, "write it as `git branch` shows it, as in \"main\""));
    }
}

pub(crate) fn is_branch(name: &str) -> bool {
    name.split('/').all(|p| !p.is_empty() && !p.starts_with('.') && !p.ends_with(".lock"))
        && !name.starts_with('-')
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && name != "@"
        && !name.chars().any(|c| c.is_control() || " ~^:?[\\".contains(c))
}
