//! Takes the keys of one file after another and puts the [`Config`] together.

use std::collections::BTreeMap;
use std::num::NonZeroU8;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guard_model::Seal;
use guard_model::policy::{PatternText, Policy};

use crate::config::{ALLOWED_COMMANDS, Backup, Config, Daemon, Environment, OnTamper, Readers, Watch};
use crate::deploy;
use crate::duration;
use crate::keys;
use crate::parse::{Parsed, Places};
use crate::patterns;
use crate::place;
use crate::problem::{quoted, show};
use crate::section::{At, Key, Place, Report, Section};
use crate::validation;
use crate::words;

const SECOND: Duration = Duration::from_secs(1);
const WEEK: Duration = Duration::from_secs(7 * 86_400);
const MONTH: Duration = Duration::from_secs(30 * 86_400);

/// The only version of the format so far.
const VERSION: u32 = 1;

/// More environments than one daemon can watch with care. Each has a warden of
/// its own, and each root is compared with every other.
const MOST_ENVIRONMENTS: usize = 256;

/// What has been read so far.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    daemon: Daemon,
    environments: Vec<Draught>,
    places: Places,
}

/// An environment and what it still has to be compared with.
#[derive(Debug)]
struct Draught {
    environment: Environment,
    place: Place,
    window_default: Option<At<Duration>>,
}

impl Draft {
    /// Reads `guardd.toml` itself.
    pub(crate) fn main_file(&mut self, file: &Section<'_>) {
        if !version(file) && !file.has(keys::VERSION) {
            let fix = format!("begin the file with `version = {VERSION}`");
            file.report().push(file.place_of("version").problem("the version is missing", fix));
        }
        self.daemon(file.table(keys::DAEMON));
        self.environments(file.table(keys::ENVIRONMENTS));
    }

    /// Reads a file of `environments.d`.
    pub(crate) fn further_file(&mut self, file: &Section<'_>) {
        version(file);
        let daemon = file.table(keys::DAEMON);
        if daemon.is_present() {
            file.report().push(
                daemon
                    .place()
                    .problem("the daemon's own settings stand in guardd.toml alone", "move this table there"),
            );
        } else {
            daemon.finish();
        }
        self.environments(file.table(keys::ENVIRONMENTS));
    }

    fn daemon(&mut self, s: Section<'_>) {
        let d = &mut self.daemon;
        for (key, dir) in [
            (keys::STATE_DIR, &mut d.state_dir),
            (keys::RUNTIME_DIR, &mut d.runtime_dir),
            (keys::LOG_DIR, &mut d.log_dir),
        ] {
            let given = s.text(key).and_then(|t| place::absolute(s.report(), &t));
            let at = given.unwrap_or_else(|| At { value: dir.clone(), place: s.place_of(key.name) });
            dir.clone_from(&at.value);
            self.places.own_dirs.push(at);
        }
        let watches = [
            ("auto", Watch::Auto),
            ("inotify", Watch::Inotify),
            ("fanotify", Watch::Fanotify),
            ("none", Watch::None),
        ];
        d.watch = s.choice(keys::WATCH, &watches).unwrap_or_default();
        if let Some(max) = s.duration(keys::WINDOW_MAX, SECOND..=WEEK) {
            d.window_max = max.value;
        }
        let allow = s.table(keys::ALLOW);
        for command in ALLOWED_COMMANDS {
            let Some(groups) = allow.texts(keys::allow(command)) else { continue };
            for g in &groups {
                words::group(s.report(), g);
            }
            d.allow.insert(command.to_owned(), groups.iter().map(|g| g.value.clone()).collect());
            self.places.groups.extend(groups);
        }
        allow.finish();
        s.finish();
    }

    fn environments(&mut self, s: Section<'_>) {
        for (name, section) in s.named_tables("NAME") {
            words::environment(&section.place(), s.report(), &name);
            self.environment(name, section);
        }
    }

    fn environment(&mut self, name: String, s: Section<'_>) {
        let report = s.report();
        let root = s.text(keys::ROOT);
        if root.is_none() && !s.has(keys::ROOT) {
            let fix = format!("add `root = {}`", keys::ROOT.example);
            report.push(s.place().problem("the environment has no `root`", fix));
        }
        let root = root.and_then(|t| place::absolute(report, &t));
        let policy = policy(&s, root.as_ref());
        let seals = [("immutable", Seal::Immutable), ("read-only", Seal::ReadOnly), ("none", Seal::None)];
        let reactions = [("alert", OnTamper::Alert), ("restore", OnTamper::Restore)];

        let mut e = Environment::new(name, PathBuf::new(), policy);
        e.seal = s.choice(keys::SEAL, &seals).unwrap_or(e.seal);
        e.rehash = s.duration(keys::REHASH, SECOND..=WEEK).map_or(e.rehash, |d| d.value);
        e.deep_rehash = s.duration(keys::DEEP_REHASH, SECOND..=MONTH).map_or(e.deep_rehash, |d| d.value);
        (e.pace, e.pace_max) = paces(&s, (e.pace, e.pace_max));
        e.on_tamper = s.choice(keys::ON_TAMPER, &reactions).unwrap_or(e.on_tamper);
        let branches = s.texts(keys::BRANCHES).unwrap_or_default();
        for b in &branches {
            words::branch(report, b);
        }
        e.branches = branches.into_iter().map(|b| b.value).collect();
        let window_default = s.duration(keys::WINDOW_DEFAULT, SECOND..=WEEK);
        e.backup = self.backup(s.table(keys::BACKUP));
        e.notify = self.notify(s.table(keys::NOTIFY));
        e.readers = readers(s.table(keys::READERS));
        e.validate = self.validators(s.table(keys::GIT));
        e.deploy = deploy::deploy(s.table(keys::DEPLOY));
        e.validation = validation::validation(s.table(keys::VALIDATION));
        e.compose = validation::compose(s.table(keys::COMPOSE));
        let place = s.place();
        s.finish();

        if let Some(root) = root {
            e.root.clone_from(&root.value);
            self.places.roots.push((e.name.clone(), root));
        }
        self.environments.push(Draught { environment: e, place, window_default });
    }

    fn validators(&mut self, s: Section<'_>) -> BTreeMap<String, Vec<String>> {
        let table = s.table(keys::VALIDATE);
        let mut out = BTreeMap::new();
        for (pattern, command) in table.named_texts(keys::VALIDATOR) {
            let name = PatternText { protect: vec![pattern.clone()], ..PatternText::default() };
            if Policy::new(name).is_err() {
                let place = table.place_of(&pattern);
                let what = format!("{} is no pattern of paths", quoted(&pattern));
                table.report().push(place.problem(what, "write it like those of `protect`, as in \"*.py\""));
            }
            let Some(first) = command.first() else {
                let place = table.place_of(&pattern);
                table.report().push(place.problem("the command is empty", "name an absolute program"));
                continue;
            };
            let program = At { value: first.value.clone(), place: first.place.clone() };
            self.places.programs.extend(place::absolute(table.report(), &program));
            out.insert(pattern, command.into_iter().map(|w| w.value).collect());
        }
        s.finish();
        out
    }

    fn backup(&mut self, s: Section<'_>) -> Backup {
        let mut b = Backup::default();
        if let Some(keep) = s.number(keys::KEEP, 1..=10_000) {
            b.keep = keep.value;
        }
        if let Some(dir) = s.text(keys::DIR).and_then(|t| place::absolute(s.report(), &t)) {
            b.dir = Some(dir.value.clone());
            self.places.own_dirs.push(dir);
        }
        s.finish();
        b
    }

    fn notify(&mut self, s: Section<'_>) -> Vec<String> {
        let command = s.texts(keys::COMMAND);
        if s.is_present() && command.is_none() && !s.has(keys::COMMAND) {
            let fix = format!("add `command = {}`, or remove the table", keys::COMMAND.example);
            s.report().push(s.place().problem("the table has no `command`", fix));
        }
        if command.as_ref().is_some_and(Vec::is_empty) {
            s.report().push(s.place_of(keys::COMMAND.name).problem(
                "the command is empty",
                format!("write the program and its arguments, as in `command = {}`", keys::COMMAND.example),
            ));
        }
        let command = command.unwrap_or_default();
        if let Some(path) = command.first().and_then(|p| place::absolute(s.report(), p)) {
            self.places.programs.push(path);
        }
        for argument in command.iter().filter(|a| a.value.contains('\0')) {
            let what = "an argument cannot hold a NUL byte";
            s.report().push(argument.place.problem(what, "remove the `\\u0000`"));
        }
        s.finish();
        command.into_iter().map(|c| c.value).collect()
    }

    /// Compares values with each other. `real` says where a path leads.
    pub(crate) fn compare(&mut self, report: &Report, real: impl Fn(&Path) -> PathBuf) {
        for Draught { environment, window_default, .. } in &mut self.environments {
            let max = self.daemon.window_max;
            match window_default {
                Some(d) if d.value > max => {
                    let what =
                        format!("{} is longer than `daemon.window_max`", quoted(&duration::show(d.value)));
                    let fix = format!("write {} or less, or raise `daemon.window_max`", duration::show(max));
                    report.push(d.place.problem(what, fix));
                }
                Some(d) => environment.window_default = d.value,
                None => environment.window_default = environment.window_default.min(max),
            }
        }
        if let Some(first_too_many) = self.environments.get(MOST_ENVIRONMENTS) {
            let place =
                Place { line: None, key: keys::ENVIRONMENTS.name.to_owned(), ..first_too_many.place.clone() };
            report.push(place.problem(
                format!("there are more than {MOST_ENVIRONMENTS} environments"),
                "guard fewer, larger trees",
            ));
            // Comparing each with every other could take hours.
            self.places.roots.clear();
            return;
        }
        self.environments.sort_by(|a, b| a.environment.name.cmp(&b.environment.name));
        for pair in self.environments.windows(2) {
            if let [first, second] = pair
                && first.environment.name == second.environment.name
            {
                let there = match first.place.line {
                    Some(line) => format!("{}:{line}", show(&first.place.file)),
                    None => show(&first.place.file),
                };
                report.push(second.place.problem(
                    format!("this environment stands in {there} too"),
                    "give one of the two another name, or remove it",
                ));
            }
        }
        place::compare(report, &self.places, real);
        place::socket_fits(report, &self.daemon, &self.places);
    }

    pub(crate) fn finish(self) -> Parsed {
        let environments = self.environments.into_iter().map(|d| d.environment).collect();
        Parsed { config: Config { daemon: self.daemon, environments }, places: self.places }
    }
}

/// Checks `version`; false where there is none that can be read.
fn version(file: &Section<'_>) -> bool {
    let Some(v) = file.number(keys::VERSION, 0..=u32::MAX) else { return false };
    if v.value != VERSION {
        let what = format!("this guardd knows version {VERSION} of the configuration, not {}", v.value);
        file.report().push(v.place.problem(what, format!("write `version = {VERSION}`")));
    }
    true
}

/// `pace` and `pace_max`, which is no slower.
fn paces(s: &Section<'_>, (pace, pace_max): (NonZeroU8, NonZeroU8)) -> (NonZeroU8, NonZeroU8) {
    let asked = |key| s.number(key, 1..=100);
    let percent = |n: &At<u32>| u8::try_from(n.value).ok().and_then(NonZeroU8::new);
    let (slow, fast) = (asked(keys::PACE), asked(keys::PACE_MAX));
    let pace = slow.as_ref().and_then(percent).unwrap_or(pace);
    let Some(most) = fast else { return (pace, pace_max) };
    let pace_max = percent(&most).unwrap_or(pace_max);
    if pace_max < pace {
        let what = format!("{pace_max} is less than `pace`, which is {pace}");
        s.report()
            .push(most.place.problem(what, format!("write a number from {pace} to 100, or lower `pace`")));
    }
    (pace, pace_max)
}

/// Who is expected to open sensitive files, where anybody is named.
fn readers(s: Section<'_>) -> Option<Readers> {
    let exe = s.texts(keys::EXE).unwrap_or_default();
    let exe = exe.iter().filter_map(|text| Some(place::absolute(s.report(), text)?.value)).collect();
    let units = s.texts(keys::UNIT).unwrap_or_default();
    for unit in &units {
        words::unit(s.report(), unit);
    }
    let found = Readers { exe, unit: units.into_iter().map(|u| u.value).collect() };
    let is_named = s.is_present();
    s.finish();
    is_named.then_some(found)
}

/// The policy of the environment in `s`; where patterns are bad, of none.
fn policy(s: &Section<'_>, root: Option<&At<PathBuf>>) -> Policy {
    let list = |key: Key| -> Vec<At<String>> { s.texts(key).unwrap_or_default() };
    let lists = patterns::Lists {
        protect: list(keys::PROTECT),
        ignore: list(keys::IGNORE),
        writable: list(keys::WRITABLE),
        sensitive: list(keys::SENSITIVE),
    };
    patterns::compile(s.report(), &lists, root.map(|r| r.value.as_path()))
}
