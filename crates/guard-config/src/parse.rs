//! The text of configuration files to a [`Config`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use guard_model::Digest;
use toml::de::DeTable;

use crate::blame;
use crate::config::Config;
use crate::draft::Draft;
use crate::problem::{Problem, Problems};
use crate::section::{At, Key, Report, Section, Source};
use crate::syntax;

/// One configuration file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it was read from.
    pub path: PathBuf,
    /// The SHA-256 of its bytes.
    pub sha256: Digest,
    /// Its text.
    pub text: String,
}

impl SourceFile {
    /// A file of that name and text.
    #[must_use]
    pub fn new(path: PathBuf, text: String) -> Self {
        use sha2::Digest as _;
        let sha256 = Digest(sha2::Sha256::digest(text.as_bytes()).into());
        Self { path, sha256, text }
    }
}

/// What was read, with where its parts stand.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) config: Config,
    pub(crate) places: Places,
}

/// Where values stand that are checked against the machine, or against each other.
#[derive(Debug, Default)]
pub(crate) struct Places {
    /// `state_dir`, `runtime_dir`, `log_dir` and every `backup.dir`.
    pub(crate) own_dirs: Vec<At<PathBuf>>,
    /// Every environment's name and root.
    pub(crate) roots: Vec<(String, At<PathBuf>)>,
    /// Every `notify.command`'s program.
    pub(crate) programs: Vec<At<PathBuf>>,
    /// Every group in `[daemon.allow]`.
    pub(crate) groups: Vec<At<String>>,
}

/// Validates configuration texts by themselves, without looking at this machine.
/// The first is `guardd.toml`, which must say `version`; the others come from
/// `environments.d` and may hold environments only.
///
/// This is how a configuration that was accepted earlier is taken up again:
/// nothing that happens to the file system can refuse it.
///
/// # Errors
/// Everything that is wrong with any of the files; that there is none, too.
pub fn parse(files: &[SourceFile]) -> Result<Config, Problems> {
    let (parsed, mut problems) = read(true, files, Path::to_owned);
    if files.is_empty() {
        problems.push(blame::no_file());
    }
    match Problems::from_list(files.first().map(|f| f.path.as_path()), problems) {
        None => Ok(parsed.config),
        Some(problems) => Err(problems),
    }
}

/// Every key that the reader knows, by its name in the reference.
pub(crate) fn known_keys() -> BTreeMap<String, Key> {
    let report = Report::default();
    let text = "[environments.e]\n";
    let source = Source::new(Path::new(""), text);
    let (table, _) = DeTable::parse_recoverable(text);
    let mut draft = Draft::default();
    draft.main_file(&Section::root(&source, &report, table.get_ref()));
    report.asked()
}

/// The configuration as far as it could be read, and what is wrong with it.
/// `main_first` is false where `guardd.toml` itself could not be read; `real`
/// says where a path leads.
pub(crate) fn read(
    main_first: bool,
    files: &[SourceFile],
    real: impl Fn(&Path) -> PathBuf,
) -> (Parsed, Vec<Problem>) {
    let report = Report::default();
    let mut draft = Draft::default();
    for (i, file) in files.iter().enumerate() {
        let source = Source::new(&file.path, &file.text);
        let (table, errors) = DeTable::parse_recoverable(&file.text);
        if !errors.is_empty() {
            syntax::report(&source, &errors, &report);
            continue;
        }
        let section = Section::root(&source, &report, table.get_ref());
        if main_first && i == 0 {
            draft.main_file(&section);
        } else {
            draft.further_file(&section);
        }
        section.finish();
    }
    draft.compare(&report, real);
    (draft.finish(), report.finish(known_keys))
}
