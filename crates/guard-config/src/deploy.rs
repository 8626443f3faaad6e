//! Reads `[environments.NAME.deploy]`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use guard_model::deploy::{Deploy, Probe, Step, Undo};

use crate::keys;
use crate::problem::quoted;
use crate::section::{At, Key, Report, Section};

const SHORT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const LONG: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// The longest name of a step: it becomes part of a unit's name.
const LONGEST_NAME: usize = 31;

/// How an environment is deployed; `None` where the table is not there.
pub(crate) fn deploy(s: Section<'_>) -> Option<Deploy> {
    let run_as = required(&s, keys::RUN_AS).map(|user| checked_user(s.report(), &user)).unwrap_or_default();
    let steps = s.tables(keys::STEPS, step);
    if s.is_present() && steps.is_empty() {
        let fix = format!("add `steps = {}`, or remove the table", keys::STEPS.example);
        s.report().push(s.place_of(keys::STEPS.name).problem("there is no step", fix));
    }
    let rollback = s.tables(keys::ROLLBACK, step);
    for steps in [&steps, &rollback] {
        let mut names = BTreeSet::new();
        for name in steps.iter().flatten().map(|step| &step.name).filter(|name| !name.is_empty()) {
            if !names.insert(name) {
                let what = format!("two steps are called {}", quoted(name));
                s.report().push(s.place().problem(what, "give each step a name of its own"));
            }
        }
    }
    let health = s.tables(keys::HEALTH, probe);
    let found = Deploy {
        run_as,
        steps: steps.into_iter().flatten().collect(),
        rollback: rollback.into_iter().flatten().collect(),
        health: health.into_iter().flatten().collect(),
        stable_for: s.duration(keys::STABLE_FOR, SHORT).map_or(Duration::from_secs(10), |d| d.value),
        deadline: s.duration(keys::DEADLINE, LONG).map_or(Duration::from_secs(300), |d| d.value),
        relock: s.flag(keys::RELOCK).unwrap_or(true),
        opens_window: s.flag(keys::OPENS_WINDOW).unwrap_or(false),
        variables: variables(s.table(keys::VARIABLES)),
    };
    if found.stable_for >= found.deadline {
        let what = "`stable_for` is not shorter than `deadline`: no release could be verified in time";
        s.report().push(s.place_of(keys::STABLE_FOR.name).problem(what, "make `deadline` longer"));
    }
    let is_present = s.is_present();
    s.finish();
    is_present.then_some(found)
}

/// A text that must be there where its table is.
fn required(s: &Section<'_>, key: Key) -> Option<At<String>> {
    let text = s.text(key);
    if s.is_present() && !s.has(key) {
        let fix = format!("add `{} = {}`", key.name, key.example);
        s.report().push(s.place().problem(format!("`{}` is missing", key.name), fix));
    }
    text
}

fn checked_user(report: &Report, user: &At<String>) -> String {
    let v = &user.value;
    let fits = (1..=32).contains(&v.len())
        && !v.starts_with('-')
        && v.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if !fits {
        let what = format!("{} cannot be the name of a user", quoted(v));
        report.push(user.place.problem(what, "write a user's name as `getent passwd` shows it"));
    }
    v.clone()
}

fn step(s: Section<'_>) -> Option<Step> {
    let name = required(&s, keys::STEP_NAME);
    if let Some(name) = &name {
        let v = &name.value;
        let fits = v.len() <= LONGEST_NAME
            && v.starts_with(|c: char| c.is_ascii_lowercase())
            && v.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !fits {
            let fix = "use up to 31 lower-case letters, digits and hyphens, beginning with a letter";
            s.report().push(name.place.problem(format!("{} cannot be a step's name", quoted(v)), fix));
        }
    }
    let run = command(&s, required(&s, keys::RUN));
    let undoes = [
        ("none", Undo::None),
        ("expand-only", Undo::ExpandOnly),
        ("reversible", Undo::Reversible),
        ("irreversible", Undo::Irreversible),
    ];
    let undo = s.choice(keys::UNDO, &undoes).unwrap_or_default();
    let undo_run = command(&s, s.text(keys::UNDO_RUN));
    match (undo, undo_run.is_some()) {
        (Undo::Reversible, false) if !s.has(keys::UNDO_RUN) => {
            let fix = format!("add `undo_run = {}`", keys::UNDO_RUN.example);
            s.report().push(s.place().problem("the step is `reversible`, and it is not said how", fix));
        }
        (Undo::None | Undo::ExpandOnly | Undo::Irreversible, true) => {
            let what = "`undo_run` is only run where `undo` is \"reversible\"";
            s.report().push(s.place_of(keys::UNDO_RUN.name).problem(what, "write `undo = \"reversible\"`"));
        }
        _ => {}
    }
    let deadline = s.duration(keys::STEP_DEADLINE, LONG).map(|d| d.value);
    s.finish();
    Some(Step { name: name?.value, run: run?, undo, undo_run, deadline })
}

fn command(s: &Section<'_>, text: Option<At<String>>) -> Option<String> {
    let text = text?;
    if text.value.trim().is_empty() || text.value.contains('\0') {
        s.report().push(text.place.problem("this is no command line", "write what `sh -c` is to run"));
    }
    Some(text.value)
}

/// One probe: exactly one of `http`, `tcp`, `command`, `compose`.
pub(crate) fn probe(s: Section<'_>) -> Option<Probe> {
    let http = s.text(keys::HTTP);
    let expect = s.number(keys::EXPECT, 100..=599);
    let body = s.text(keys::BODY);
    let tcp = s.text(keys::TCP);
    let line = command(&s, s.text(keys::PROBE_COMMAND));
    let compose = s.choice(keys::COMPOSE_PROBE, &[("healthy", Probe::Compose)]);
    if let Some(url) = http.as_ref().filter(|url| !is_url(&url.value)) {
        let what = format!("{} is no address that can be asked", quoted(&url.value));
        s.report().push(url.place.problem(what, "write it like `http = \"http://127.0.0.1:8888/health\"`"));
    }
    if let Some(address) = tcp.as_ref().filter(|address| !is_address(&address.value)) {
        let what = format!("{} is no host and port", quoted(&address.value));
        s.report().push(address.place.problem(what, "write it like `tcp = \"127.0.0.1:5432\"`"));
    }
    if http.is_none() && (expect.is_some() || body.is_some()) && !s.has(keys::HTTP) {
        let what = "`expect` and `body` are about an answer to `http`";
        s.report().push(s.place().problem(what, "remove them, or add `http`"));
    }
    let kinds = [keys::HTTP, keys::TCP, keys::PROBE_COMMAND, keys::COMPOSE_PROBE];
    let named = kinds.into_iter().filter(|key| s.has(*key)).count();
    if s.is_present() && named != 1 {
        let what = "a probe has exactly one of `http`, `tcp`, `command` and `compose`";
        s.report().push(s.place().problem(what, "write one table for each probe"));
    }
    s.finish();
    let http = http.map(|url| Probe::Http {
        url: url.value,
        expect: expect.and_then(|n| u16::try_from(n.value).ok()).unwrap_or(200),
        body: body.map(|b| b.value),
    });
    http.or(tcp.map(|a| Probe::Tcp { address: a.value }))
        .or(line.map(|command| Probe::Command { command }))
        .or(compose)
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    rest.is_some_and(|rest| {
        !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(|b| b.is_ascii_graphic())
    })
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty()
            && host.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn variables(s: Section<'_>) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for (name, value) in s.named_text(keys::VARIABLE) {
        let fits = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && !name.is_empty();
        if !fits || name.starts_with("GUARDD_") || value.value.contains('\0') {
            let what = format!("{} cannot be a variable for the steps", quoted(&name));
            let fix = "use letters, digits and `_`; those that begin with GUARDD_ are set by guardd";
            s.report().push(value.place.problem(what, fix));
        }
        found.insert(name, value.value);
    }
    found
}
