//! `guardd git validate`, and the same checks in `pre-commit`.

use std::io::Write;
use std::path::Path;

use guard_api::Exit;
use guard_git::check::{Checker, Level, Options, OwnValidator, Report};
use guard_git::contents::{self, Selection};
use guard_git::secrets::allow::{self, AllowList};
use guard_git::values::Compare;
use guard_git::{Caller, Git, GitError, report};

use super::cli::Validate;
use super::failed;
use super::values::Daemon;
use crate::Failure;

/// Looks at a selection of a repository's files.
pub(super) fn look(git: &Git, selection: &Selection, environment: Option<&str>) -> Result<Report, GitError> {
    // Both read the whole index, which may be long: at the same time.
    let (blobs, tracked) = std::thread::scope(|scope| {
        let tracked =
            (*selection == Selection::Staged).then(|| scope.spawn(|| contents::tracked_env_files(git)));
        (contents::list(git, selection), tracked.and_then(|t| t.join().ok()))
    });
    let (blobs, mut tracked) = (blobs?, tracked.transpose()?.unwrap_or_default());
    tracked.retain(|t| blobs.iter().all(|b| b.path != t.path));
    let beside = |path: &[u8]| {
        use std::os::unix::ffi::OsStrExt;
        let on_disk = || {
            let top = git.path(&["--show-toplevel"]).ok()?;
            std::fs::read(top.join(Path::new(std::ffi::OsStr::from_bytes(path)))).ok()
        };
        contents::one(git, selection, path).or_else(on_disk)
    };
    let allowed = || match contents::one(git, selection, allow::NAME.as_bytes()) {
        Some(text) => AllowList::parse(&String::from_utf8_lossy(&text)),
        None => AllowList::default(),
    };
    let today: String = crate::operations::now().to_string().chars().take(10).collect();
    let (own, why_not) = match environment {
        Some(name) => own_validators(name),
        None => (Vec::new(), None),
    };
    let mut daemon = environment.map(Daemon::of);
    let values = daemon.as_mut().map(|d| d as &mut dyn Compare);
    let mut checker = Checker::new(Options { own, allowed: &allowed, today, beside: &beside, values });
    if let Some(why) = why_not {
        checker.could_not("own validators", &why);
    }
    contents::read(git, &blobs, |blob, now, before| checker.file(blob, now, before))?;
    contents::read(git, &tracked, |blob, now, _| checker.tracked(&blob.path, now))?;
    Ok(checker.finish())
}

/// The validators that the configuration names; why they are not known, where it cannot be read.
fn own_validators(environment: &str) -> (Vec<OwnValidator>, Option<String>) {
    let path = guard_config::default_config_path();
    match guard_config::load(&path) {
        Ok(loaded) => {
            let found =
                loaded.config.environment(environment).map(|e| e.validate.clone()).unwrap_or_default();
            let own = found.into_iter().map(|(pattern, command)| OwnValidator { pattern, command }).collect();
            (own, None)
        }
        Err(_) => {
            (Vec::new(), Some(format!("the configuration {} cannot be read by this user", path.display())))
        }
    }
}

/// `guardd git validate`.
pub(super) fn run(asked: &Validate) -> Result<Exit, Failure> {
    // Called by a pre-receive hook: what is pushed is in a quarantine that only git's variables lead to.
    let caller = if std::env::var_os("GIT_QUARANTINE_PATH").is_some() { Caller::Hook } else { Caller::User };
    let git = Git::new(&asked.dir, caller).map_err(|e| failed(&e))?;
    let selection = match &asked.rev {
        None => Selection::Staged,
        Some(rev) => match rev.split_once("..") {
            Some((from, to)) if !from.is_empty() && !to.is_empty() && !to.starts_with('.') => {
                Selection::Range(from.to_owned(), to.to_owned())
            }
            _ => Selection::Commit(rev.clone()),
        },
    };
    let environment = asked.environment.clone().or_else(|| guard_git::hooks::guarded_by(&asked.dir));
    let mut found = look(&git, &selection, environment.as_deref()).map_err(|e| failed(&e))?;
    if environment.is_none() {
        found.could_not(
            "values of sensitive files",
            "no environment guards this repository: --environment names one",
        );
    }
    let text = if asked.json {
        let mut json = serde_json::json!(found);
        if let Some(object) = json.as_object_mut() {
            object.insert("ok".to_owned(), (!found.stops()).into());
        }
        format!("{json}\n")
    } else if asked.sarif {
        format!("{:#}\n", report::sarif(&found))
    } else if asked.junit {
        report::junit(&found)
    } else {
        format!("{}{}\n", report::text(&found), summary(&found))
    };
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|e| Failure::new(Exit::Failed, format!("cannot write the report: {e}")))?;
    Ok(if found.stops() { Exit::Findings } else { Exit::Done })
}

/// How it went, in one line.
pub(super) fn summary(found: &Report) -> String {
    let errors = found.findings.iter().filter(|f| f.level == Level::Error).count();
    let warnings = found.findings.len() - errors;
    format!(
        "{} files, {} with a syntax to check: {errors} errors, {warnings} warnings, {} not checked",
        found.files,
        found.checked,
        found.unchecked.len()
    )
}
