//! Reads configuration files and compares them with the machine.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use guard_model::Digest;
use guard_sys::peer;

use crate::config::Config;
use crate::parse::{self, Parsed, Places, SourceFile};
use crate::place;
use crate::problem::{Problem, Problems, quoted, show};
use crate::section::Report;
use crate::trust::{Refused, Trust};

/// Where the configuration is unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/guardd/guardd.toml";

/// The environment variable that names another configuration file.
pub const PATH_VARIABLE: &str = "GUARDD_CONFIG";

/// The directory beside `guardd.toml` whose `*.toml` files hold further environments.
const FURTHER: &str = "environments.d";

/// A configuration that was read and found good.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The SHA-256 over the digests and paths of all files, in the form of
    /// `sha256sum`: `DIGEST  PATH\n` each.
    pub sha256: Digest,
    /// The files as they were read: `guardd.toml`, then those of
    /// `environments.d` by name. Handed to [`parse()`](crate::parse()) they give the same
    /// configuration.
    pub files: Vec<SourceFile>,
    /// What is allowed, and probably not meant: a root that does not exist, a
    /// group that is not known, a file that is not read because of its name.
    pub notices: Vec<Problem>,
}

/// The configuration file: `GUARDD_CONFIG` if it is set and not empty, else
/// [`DEFAULT_PATH`].
#[must_use]
pub fn default_config_path() -> PathBuf {
    chosen_path(std::env::var_os(PATH_VARIABLE).as_deref())
}

fn chosen_path(variable: Option<&OsStr>) -> PathBuf {
    match variable {
        Some(path) if !path.is_empty() => path.into(),
        _ => DEFAULT_PATH.into(),
    }
}

/// Reads the configuration file and the `*.toml` files of `environments.d`
/// beside it, and compares what they say with this machine.
///
/// # Errors
/// Everything that is wrong: what cannot be read, what others could have
/// written, what is no valid configuration, and what does not fit this machine.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    // Fails for an empty path alone, which is then found not to exist.
    let path = &std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut trust = Trust::own();
    let mut problems = Vec::new();
    let mut notices = Vec::new();
    let mut files = Vec::new();
    match trust.read(path) {
        Ok(text) => files.push(SourceFile::new(path.to_owned(), text)),
        Err(refused) => problems.push(refused.into()),
    }
    let main_is_read = !files.is_empty();
    let further = path.parent().unwrap_or(Path::new("")).join(FURTHER);
    match trust.list(&further) {
        Ok(names) => read_further(&mut trust, &further, names, &mut files, &mut problems, &mut notices),
        Err(Refused::Missing(_)) => {}
        // What keeps us from the file keeps us from its neighbour, and is said once.
        Err(Refused::Other(_)) if !main_is_read => {}
        Err(Refused::Other(problem)) => problems.push(problem),
    }

    let (parsed, wrong) = parse::read(main_is_read, &files, place::real);
    problems.extend(wrong);
    check_machine(&mut trust, &parsed, path, &mut problems, &mut notices);
    problems.extend(trust.into_problems());
    match Problems::from_list(Some(path), problems) {
        Some(problems) => Err(problems),
        None => Ok(Loaded { config: parsed.config, sha256: digest(&files), files, notices }),
    }
}

fn read_further(
    trust: &mut Trust,
    directory: &Path,
    names: Vec<OsString>,
    files: &mut Vec<SourceFile>,
    problems: &mut Vec<Problem>,
    notices: &mut Vec<Problem>,
) {
    for name in names {
        let path = directory.join(&name);
        let hidden = name.as_bytes().starts_with(b".");
        if hidden || path.extension() != Some(OsStr::new("toml")) {
            notices.push(Problem {
                file: path,
                line: None,
                key: String::new(),
                what: "this file is not read: its name is hidden or does not end in .toml".to_owned(),
                fix: "rename it if it is meant to be read".to_owned(),
            });
            continue;
        }
        match trust.read(&path) {
            Ok(text) => files.push(SourceFile::new(path, text)),
            Err(refused) => problems.push(refused.into()),
        }
    }
}

/// What only this machine can say: where paths really lead, who may write the
/// programs that are to be run, and which groups there are.
fn check_machine(
    trust: &mut Trust,
    parsed: &Parsed,
    config: &Path,
    problems: &mut Vec<Problem>,
    notices: &mut Vec<Problem>,
) {
    let Places { roots, programs, groups, .. } = &parsed.places;
    let report = Report::default();
    place::compare_identities(&report, &parsed.places);
    problems.extend(report.finish(Default::default));

    for (name, root) in roots {
        if !root.value.is_dir() {
            let what =
                format!("{} is not there now, or is no directory", quoted(&root.value.to_string_lossy()));
            notices.push(root.place.problem(what, format!("create it before `guardctl lock {name}`")));
        } else if place::real(config).starts_with(place::real(&root.value)) {
            let what = format!("{} lies in this root, and cannot be edited while it is sealed", show(config));
            notices.push(root.place.problem(what, "keep guardd's configuration outside of what it protects"));
        }
    }
    for program in programs {
        match trust.program(&program.value) {
            Ok(true) => {}
            Ok(false) => {
                let what = format!("{} is not there now", quoted(&program.value.to_string_lossy()));
                notices.push(program.place.problem(what, "install it, or alerts reach nobody by this way"));
            }
            Err(p) => problems.push(program.place.problem(format!("{}: {}", show(&p.file), p.what), p.fix)),
        }
    }
    for group in groups {
        if peer::group_id(&group.value).is_none() {
            let what = format!("there is no group {}, so this allows nobody", quoted(&group.value));
            notices.push(group.place.problem(what, format!("groupadd --system {}", group.value)));
        }
    }
}

fn digest(files: &[SourceFile]) -> Digest {
    use sha2::Digest as _;
    let mut hash = sha2::Sha256::new();
    for f in files {
        hash.update(f.sha256.to_string());
        hash.update("  ");
        hash.update(f.path.as_os_str().as_bytes());
        hash.update("\n");
    }
    Digest(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_another_file() {
        assert_eq!(chosen_path(None), Path::new(DEFAULT_PATH));
        assert_eq!(chosen_path(Some(OsStr::new(""))), Path::new(DEFAULT_PATH));
        assert_eq!(chosen_path(Some(OsStr::new("/x/y.toml"))), Path::new("/x/y.toml"));
    }
}
