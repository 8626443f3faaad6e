//! Reads `[environments.NAME.validate]` and `[environments.NAME.compose]`.

use std::time::Duration;

use guard_model::RelPath;
use guard_model::deploy::{Compose, Port, Validation};

use crate::deploy;
use crate::keys;
use crate::problem::quoted;
use crate::section::{At, Key, Section};
use crate::words;

const HOUR: Duration = Duration::from_secs(3600);
const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// What must hold before a deployment; `None` where the table is not there.
pub(crate) fn validation(s: Section<'_>) -> Option<Validation> {
    let default = Validation::default();
    let mut found = Validation {
        env_files: paths(&s, keys::ENV_FILES),
        required: texts(
            &s,
            keys::REQUIRED,
            is_variable,
            "cannot be the name of a variable",
            "letters, digits and `_`",
        ),
        readers: parsed(&s, keys::DOTENV_READERS, "use compose, python-dotenv, docker-run, shell or systemd"),
        units: Vec::new(),
        probes: s.tables(keys::PROBES, deploy::probe).into_iter().flatten().collect(),
        ports: parsed::<Port>(&s, keys::PORTS, "write a number from 1 to 65535, or that and `/udp`"),
        backup_max_age: default.backup_max_age,
    };
    for unit in s.texts(keys::UNITS).unwrap_or_default() {
        words::whole_unit(s.report(), &unit);
        found.units.push(unit.value);
    }
    if !s.has(keys::DOTENV_READERS) {
        found.readers = default.readers;
    } else if found.readers.is_empty() {
        let what = "nobody is named who reads the files";
        s.report().push(s.place_of(keys::DOTENV_READERS.name).problem(what, "name at least one reader"));
    }
    found.readers.sort();
    found.readers.dedup();
    if !found.required.is_empty() && found.env_files.is_empty() {
        let what = "`required` names variables, and no file is named that sets them";
        let fix = format!("add `env_files = {}`", keys::ENV_FILES.example);
        s.report().push(s.place_of(keys::REQUIRED.name).problem(what, fix));
    }
    if let Some(age) = s.duration(keys::BACKUP_MAX_AGE, HOUR..=YEAR) {
        found.backup_max_age = age.value;
    }
    let is_present = s.is_present();
    s.finish();
    is_present.then_some(found)
}

/// Which compose project it is; `None` where the table is not there.
pub(crate) fn compose(s: Section<'_>) -> Option<Compose> {
    let project = s.text(keys::PROJECT).map(|name| {
        let v = &name.value;
        let fits = v.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && v.len() <= 100
            && v.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-'));
        if !fits {
            let what = format!("{} cannot be the name of a compose project", quoted(v));
            let fix = "use lower-case letters, digits, `_` and `-`, beginning with a letter or digit";
            s.report().push(name.place.problem(what, fix));
        }
        name.value
    });
    let found = Compose {
        files: paths(&s, keys::FILES),
        env_files: paths(&s, keys::ENV_FILES),
        project,
        services: texts(
            &s,
            keys::SERVICES,
            is_service,
            "cannot be the name of a service",
            "the name as the compose file has it",
        ),
    };
    let is_present = s.is_present();
    s.finish();
    is_present.then_some(found)
}

/// Paths below the root.
fn paths(s: &Section<'_>, key: Key) -> Vec<String> {
    let mut out = Vec::new();
    for path in s.texts(key).unwrap_or_default() {
        let is_below = RelPath::from_bytes(path.value.as_bytes()).is_ok_and(|p| !p.is_root());
        if !is_below || path.value.starts_with('-') {
            let what = format!("{} is no path below the root", quoted(&path.value));
            s.report().push(path.place.problem(what, "write it relative to `root`, without `.` and `..`"));
        }
        out.push(path.value);
    }
    out
}

fn texts(s: &Section<'_>, key: Key, fits: fn(&str) -> bool, wrong: &str, fix: &str) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for text in s.texts(key).unwrap_or_default() {
        if !fits(&text.value) {
            s.report()
                .push(text.place.problem(format!("{} {wrong}", quoted(&text.value)), format!("use {fix}")));
        }
        if !out.contains(&text.value) {
            out.push(text.value);
        }
    }
    out
}

fn parsed<T: std::str::FromStr>(s: &Section<'_>, key: Key, fix: &str) -> Vec<T> {
    let read = |text: At<String>| match text.value.parse() {
        Ok(found) => Some(found),
        Err(_) => {
            let what = format!("{} is not known here", quoted(&text.value));
            s.report().push(text.place.problem(what, fix));
            None
        }
    };
    s.texts(key).unwrap_or_default().into_iter().filter_map(read).collect()
}

fn is_variable(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn is_service(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}
