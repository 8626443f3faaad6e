//! From what was found to what is proposed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use guard_model::policy::{PatternText, Policy};
use guard_model::{Class, RelPath};

use super::compose::{self, Mount, Stand};
use super::names::{self, DirectoryUse, FileUse, Target};
use super::pattern::{self, Cover};
use super::survey::{self, Survey};

/// More single files than this are not listed one by one.
const MOST_LINES: usize = 20;

/// More patterns of secrets than this are not listed.
const MOST_SENSITIVE: usize = 60;

/// A pattern, and why it is proposed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) pattern: String,
    pub(super) why: String,
}

impl Line {
    fn new(pattern: impl Into<String>, why: impl Into<String>) -> Self {
        Self { pattern: pattern.into(), why: why.into() }
    }
}

/// What is proposed.
#[derive(Debug, Default)]
pub(super) struct Choices {
    /// What was found, in words.
    pub(super) found: Vec<String>,
    /// What `protect` would name if it were not to be everything.
    pub(super) protect: Vec<String>,
    pub(super) ignore: Vec<Line>,
    pub(super) writable: Vec<Line>,
    pub(super) sensitive: Vec<Line>,
    pub(super) branch: Option<String>,
    pub(super) notes: Vec<String>,
}

/// Decides on a directory that has been looked at.
pub(super) fn choose(survey: &Survey, root: &Path) -> Choices {
    let mut c = Choices { branch: survey.branch.clone(), ..Choices::default() };
    let mut secrets = Vec::new();
    let mut written = Written::default();
    for (path, what) in &survey.written {
        written.directory(path, (*what).to_owned());
    }
    let mut services = 0;
    for (path, text) in &survey.compose {
        let directory = path.parent().unwrap_or_default();
        match compose::read(text, Stand { root, directory: &directory }) {
            Ok(found) => {
                services += found.services;
                for mount in &found.written {
                    consider(mount, path, root, &mut written, &mut c.notes);
                }
                for (service, source) in found.unresolved {
                    c.notes.push(format!(
                        "{path}: service {} mounts {}, which depends on a variable: if it lies below the root and is written to, add it to `writable`",
                        shown(&service), shown(&source)
                    ));
                }
                secrets.extend(found.secrets);
            }
            Err(e) => c.notes.push(format!(
                "{path} could not be read as YAML, so its volumes are not known: {}",
                shown(&e)
            )),
        }
    }
    single_files(survey, &mut written, &mut c.notes);
    c.writable = written.lines();
    c.ignore = ignored(survey);
    c.sensitive = sensitive(survey, &secrets, &mut c.notes);
    c.found = found(survey, services);
    c.protect = protect(survey);
    remarks(survey, &c.writable, &mut c.notes);
    c
}

/// What the application writes: path to reason. Nothing within another.
#[derive(Debug, Default)]
struct Written {
    directories: BTreeMap<RelPath, String>,
    files: BTreeMap<RelPath, (Cover, String)>,
}

impl Written {
    fn directory(&mut self, path: &RelPath, why: String) {
        let known = self.directories.entry(path.clone()).or_default();
        if known.is_empty() {
            *known = why;
        } else if !known.contains(&why) {
            *known = format!("{known}; {why}");
        }
    }

    fn covers(&self, path: &RelPath) -> bool {
        self.directories.keys().any(|d| path.is_within(d))
    }

    fn lines(self) -> Vec<Line> {
        let outer = |p: &RelPath| !self.directories.keys().any(|d| d != p && p.is_within(d));
        let directories = self.directories.iter().filter(|(p, _)| outer(p));
        let files = self.files.iter().filter(|(p, _)| !self.covers(p));
        directories
            .map(|(p, why)| Line::new(pattern::exact(p, Cover::Directory), why))
            .chain(files.map(|(p, (cover, why))| Line::new(pattern::exact(p, *cover), why)))
            .collect()
    }
}

/// Decides on a path that a container may write to.
fn consider(mount: &Mount, file: &RelPath, root: &Path, written: &mut Written, notes: &mut Vec<String>) {
    let Mount { service, source, target } = mount;
    let says = format!("{file}: service {} sees it as {}", shown(service), shown(target));
    let on_disk = survey::on_disk(root, source);
    if source.is_root() {
        notes.push(format!(
            "{file}: service {} sees the whole directory as {} and may write there; mount it read-only (`:ro`), or name what it writes in `writable`",
            shown(service), shown(target)
        ));
        return;
    }
    let kind = on_disk.symlink_metadata().map(|m| m.file_type()).ok();
    if kind.is_some_and(|k| !k.is_dir()) {
        // Mounted files are mostly configuration that is mounted writable by habit.
        return;
    }
    let named = matches!(names::directory(source.name()), DirectoryUse::Written(_) | DirectoryUse::Data);
    let program = survey::first_program(&on_disk, source);
    match (names::target(target), program) {
        (Target::Data, program) => {
            if let Some(program) = program {
                notes.push(format!("{source}/ is proposed as writable, and holds programs such as {program}: see that they belong there"));
            }
            written.directory(source, says);
        }
        (Target::Named, None) => written.directory(source, says),
        (Target::Other, None) if named => written.directory(source, says),
        _ => notes.push(format!(
            "{source}/ is left protected, though {says} and may write there: mount it read-only (`:ro`), or add {} to `writable`",
            pattern::toml(&pattern::exact(source, Cover::Directory))
        )),
    }
}

/// Databases, logs and sockets outside of directories that are written anyway.
fn single_files(survey: &Survey, written: &mut Written, notes: &mut Vec<String>) {
    for (of, why) in [(FileUse::State, "state in a file"), (FileUse::Log, "a log")] {
        let outside: Vec<_> = survey.files(of).iter().filter(|p| !written.covers(p)).cloned().collect();
        if outside.len() > MOST_LINES {
            notes.push(format!(
                "{} files look like {why}, too many to list: name those that are written in `writable`",
                outside.len()
            ));
            continue;
        }
        for path in outside {
            let name = path.name();
            let alone = name.ends_with(b".pid") || name.ends_with(b".sock") || name.ends_with(b".json");
            let cover = if alone { Cover::File } else { Cover::Siblings };
            written.files.insert(path, (cover, why.to_owned()));
        }
    }
}

fn ignored(survey: &Survey) -> Vec<Line> {
    let mut out = Vec::new();
    let ends = |path: &RelPath, end: &[u8]| path.name().ends_with(end);
    let python = survey.files(FileUse::Source).iter().any(|p| ends(p, b".py"))
        || survey.files(FileUse::Manifest).iter().any(|p| {
            ends(p, b".txt") || ends(p, b"pyproject.toml") || ends(p, b"setup.py") || ends(p, b"Pipfile")
        });
    let mut caches: BTreeSet<&[u8]> = survey.caches.iter().map(Vec::as_slice).collect();
    let bytecode = caches.remove(&b"__pycache__"[..]);
    if python || bytecode {
        out.push(Line::new("__pycache__/", "Python's bytecode, made anew from the sources"));
        out.push(Line::new("*.pyc", "the same"));
    }
    for cache in caches {
        out.push(Line::new(format!("{}/", pattern::literal(cache)), "a tool's cache"));
    }
    let node = survey.files(FileUse::Manifest).iter().any(|p| ends(p, b"package.json"))
        || survey.dependencies.iter().any(|p| p.name() == b"node_modules");
    if node {
        out.push(Line::new("**/node_modules/.cache/", "build tools write here while they run"));
    }
    if !survey.repositories.is_empty() {
        let git =
            "what git commands rewrite; hooks, config and HEAD stay protected, for they run or choose code";
        let same = "the same";
        out.push(Line::new("**/.git/objects/", git));
        for path in ["index", "logs/", "refs/remotes/", "FETCH_HEAD", "ORIG_HEAD", "*.lock"] {
            out.push(Line::new(format!("**/.git/{path}"), same));
        }
    }
    out
}

fn sensitive(survey: &Survey, more: &[RelPath], notes: &mut Vec<String>) -> Vec<Line> {
    let mut out = Vec::new();
    if survey.misnamed.is_empty() {
        out.push(Line::new(".env*", "passwords and tokens"));
    } else {
        // A bare `.env*` would take a Python environment of that name for secrets.
        out.push(Line::new(".env.*", "passwords and tokens"));
    }
    out.push(Line::new("*.pem", "certificates, often with their keys"));
    out.push(Line::new("*.key", "private keys"));
    for directory in &survey.secrets {
        out.push(Line::new(pattern::exact(directory, Cover::Directory), "secrets"));
    }
    let files = survey.files(FileUse::Variables).iter().map(|p| (p, "environment variables"));
    let files = files.chain(survey.files(FileUse::Secret).iter().map(|p| (p, "a key or a password")));
    let mut policy = of_sensitive(&out);
    let mut left = 0_usize;
    for (path, why) in files.chain(more.iter().map(|p| (p, "named as secret in a compose file"))) {
        if policy.classify(path, false).is_sensitive() {
            continue;
        }
        if out.len() >= MOST_SENSITIVE {
            left += 1;
            continue;
        }
        out.push(Line::new(pattern::exact(path, Cover::File), why));
        policy = of_sensitive(&out);
    }
    if left > 0 {
        notes
            .push(format!("{left} more files look like secrets, too many to list: name them in `sensitive`"));
    }
    out
}

fn of_sensitive(lines: &[Line]) -> Policy {
    let sensitive = lines.iter().map(|l| l.pattern.clone()).collect();
    Policy::new(PatternText { sensitive, ..PatternText::default() }).unwrap_or_default()
}

fn found(survey: &Survey, services: usize) -> Vec<String> {
    let mut out = Vec::new();
    for (of, one, many) in [
        (FileUse::Compose, "compose file", "compose files"),
        (FileUse::Variables, "environment file", "environment files"),
        (FileUse::Image, "Dockerfile", "Dockerfiles"),
        (FileUse::Proxy, "web server configuration", "web server configurations"),
        (FileUse::Manifest, "dependency manifest", "dependency manifests"),
        (FileUse::Lock, "dependency lock file", "dependency lock files"),
        (FileUse::Script, "script", "scripts"),
        (FileUse::Secret, "key or password file", "key or password files"),
    ] {
        let (files, count) = (survey.files(of), survey.count(of));
        let extra = match (of, services) {
            (FileUse::Compose, 1) => ", 1 service".to_owned(),
            (FileUse::Compose, 2..) => format!(", {services} services"),
            _ => String::new(),
        };
        if let Some(listed) = first_of(files, count) {
            out.push(format!("{count} {}{extra}: {listed}", if count == 1 { one } else { many }));
        }
    }
    if let Some(listed) = listed(&survey.sources()) {
        out.push(format!("programs in: {listed}"));
    }
    if let Some(listed) = listed(&survey.dependencies) {
        out.push(format!("installed dependencies: {listed}"));
    }
    out
}

/// The first few paths, and how many more there are.
fn listed(paths: &[RelPath]) -> Option<String> {
    first_of(paths, paths.len())
}

fn first_of(paths: &[RelPath], count: usize) -> Option<String> {
    const FEW: usize = 5;
    let first: Vec<_> = paths.iter().take(FEW).map(ToString::to_string).collect();
    match count.saturating_sub(first.len()) {
        _ if first.is_empty() => None,
        0 => Some(first.join(", ")),
        more => Some(format!("{} and {more} more", first.join(", "))),
    }
}

/// The patterns that name what was found.
fn protect(survey: &Survey) -> Vec<String> {
    let directories = survey.sources();
    let within = |p: &RelPath| directories.iter().any(|d| p.is_within(d));
    let mut files: BTreeSet<RelPath> = BTreeSet::new();
    for of in [
        FileUse::Compose,
        FileUse::Variables,
        FileUse::Image,
        FileUse::Proxy,
        FileUse::Manifest,
        FileUse::Lock,
        FileUse::Script,
        FileUse::Source,
        FileUse::Secret,
    ] {
        files.extend(survey.files(of).iter().filter(|p| !within(p)).cloned());
    }
    // Files deeper down stand for the directory that holds them.
    let mut out: BTreeSet<(RelPath, bool)> = directories.iter().map(|d| (d.clone(), true)).collect();
    for f in files {
        let parent = f.parent().unwrap_or_default();
        out.insert(if parent.is_root() { (f, false) } else { (parent, true) });
    }
    out.extend(survey.dependencies.iter().filter(|d| !within(d)).map(|d| (d.clone(), true)));
    if out.len() > 2 * MOST_LINES {
        // Only the first component of each, which is then a directory if there is a second.
        out = out
            .into_iter()
            .map(|(path, is_dir)| {
                let top = path.ancestors_from_root().nth(1);
                top.map_or((path, is_dir), |top| (top, true))
            })
            .collect();
    }
    let cover = |is_dir| if is_dir { Cover::Directory } else { Cover::File };
    let outer = |d: &RelPath| !out.iter().any(|(o, _)| o != d && d.is_within(o));
    out.iter().filter(|(d, _)| outer(d)).map(|(d, is_dir)| pattern::exact(d, cover(*is_dir))).collect()
}

/// What a person should look at.
fn remarks(survey: &Survey, writable: &[Line], notes: &mut Vec<String>) {
    for (directory, program) in &survey.suspect {
        notes.push(format!(
            "{directory}/ is left protected: its name says that the application writes there, but it holds programs, such as {program}"
        ));
    }
    let text = PatternText {
        writable: writable.iter().map(|l| l.pattern.clone()).collect(),
        ..PatternText::default()
    };
    let policy = Policy::new(text).unwrap_or_default();
    let undecided: Vec<RelPath> = survey
        .data
        .iter()
        .filter(|d| d.name() != b"var" && policy.classify(d, true) == Class::Protected { sensitive: false })
        .filter(|d| !writable.iter().any(|l| l.pattern.starts_with(&pattern::exact(d, Cover::Directory))))
        .cloned()
        .collect();
    if let Some(listed) = listed(&undecided) {
        notes
            .push(format!("left protected: {listed}: if the application writes there, add it to `writable`"));
    }
    if !survey.dependencies.is_empty() {
        notes.push(
            "installed dependencies are protected, because intruders change them: install and update them in a maintenance window".to_owned(),
        );
    }
    for directory in &survey.misnamed {
        notes.push(format!(
            "{directory}/ is a Python environment, so `sensitive` has `.env.*` instead of `.env*`"
        ));
    }
    for path in &survey.repositories {
        if path.is_root() {
            notes.push("this is a git work tree: `git pull` changes protected files and belongs in a maintenance window".to_owned());
        }
    }
    if let Some(listed) = listed(&survey.unread) {
        notes.push(format!("could not be looked at: {listed}"));
    }
    if survey.cut {
        notes.push(format!("only the first {} entries were looked at", survey.entries));
    }
    if survey.entries == 0 {
        notes.push("the directory is empty".to_owned());
    }
}

fn shown(text: &str) -> String {
    guard_model::path::escape(text.as_bytes())
}
