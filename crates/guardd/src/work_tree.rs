//! The git work tree at a root: which commit it is at, and what in it no commit has.
//!
//! Git is asked by a child as the repository's owner, and runs nothing of the repository's own: no hook, no fsmonitor, and
//! none of the filters that its configuration names.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use guard_deploy::worker::{Line, Look};
use guard_model::path::escape;
use guard_model::{Class, Policy, RelPath};

/// Git is done by then, milliseconds.
const WITHIN_MS: u64 = 60_000;

/// Has a child look as this user, and hears what it says; else why it did not come to its end.
pub(crate) type Looker<'a> = dyn FnMut(&str, Look, &mut dyn FnMut(Line)) -> Result<(), String> + 'a;

/// The user whose directory this is.
pub(crate) fn owner(root: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(root).map_err(|e| format!("the root cannot be looked at: {e}"))?;
    guard_sys::peer::user_name(meta.uid())
        .ok_or_else(|| format!("the root belongs to uid {}, which is no user's", meta.uid()))
}

/// Is there a repository here? Whatever it is: git itself says whether it is one.
pub(crate) fn is_at(directory: &Path) -> bool {
    std::fs::symlink_metadata(directory.join(".git")).is_ok()
}

/// Is there one here or above?
pub(crate) fn is_in(directory: &Path) -> bool {
    directory.ancestors().any(is_at)
}

/// A work tree to ask about.
pub(crate) struct WorkTree<'a> {
    owner: String,
    looker: &'a mut Looker<'a>,
}

/// What stands in a work tree and is not as its commit has it.
pub(crate) struct Differing {
    /// With git's letters for how, as `M app.py`; escaped.
    pub(crate) paths: Vec<String>,
    /// The repository names filters, which were not run: what they change shows as changed.
    pub(crate) has_filters: bool,
}

impl Differing {
    /// The first few, and how many more.
    pub(crate) fn named(&self, most: usize) -> String {
        let named = self.paths.iter().take(most).cloned().collect::<Vec<_>>().join(", ");
        let more = match self.paths.len().saturating_sub(most) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let filtered = if self.has_filters { " (filters of the repository are not run)" } else { "" };
        format!("{named}{more}{filtered}")
    }
}

/// What git answered.
struct Answer {
    code: Option<i32>,
    out: String,
    is_cut: bool,
    complaint: String,
}

impl<'a> WorkTree<'a> {
    /// # Errors
    /// The owner is nobody's.
    pub(crate) fn new(root: &Path, looker: &'a mut Looker<'a>) -> Result<Self, String> {
        Ok(Self { owner: owner(root)?, looker })
    }

    /// The commit that is checked out.
    ///
    /// # Errors
    /// There is none, or it could not be told.
    pub(crate) fn head(&mut self) -> Result<String, String> {
        let head = self.git(&["rev-parse", "--verify", "HEAD"], &[])?;
        let head = head.trim();
        match matches!(head.len(), 40 | 64) && head.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => Ok(head.to_owned()),
            false => Err("git names no commit".to_owned()),
        }
    }

    /// What differs from the commit, without what is no part of any release: untracked files that are writable, ignored
    /// or sensitive by this policy.
    ///
    /// # Errors
    /// Why it could not be told.
    pub(crate) fn differing(&mut self, policy: &Policy) -> Result<Differing, String> {
        let filters = self.filters()?;
        // A renamed file would be two names in one entry.
        let asked = [
            "status",
            "--porcelain=v1",
            "-z",
            "--untracked-files=normal",
            "--no-renames",
            "--ignore-submodules=dirty",
        ];
        let status = self.git(&asked, &filters)?;
        let paths = dirty(&status, |path, is_dir| policy.classify(path, is_dir));
        Ok(Differing { paths, has_filters: !filters.is_empty() })
    }

    /// Its index is that of the commit that is checked out, whatever was staged.
    ///
    /// # Errors
    /// Why it is not.
    pub(crate) fn reset_index(&mut self) -> Result<(), String> {
        let filters = self.filters()?;
        self.git(&["reset", "--quiet"], &filters).map(drop)
    }

    /// What git prints; `settings` win over the repository's.
    fn git(&mut self, arguments: &[&str], settings: &[String]) -> Result<String, String> {
        match self.answer(arguments, settings)? {
            Answer { code: Some(0), is_cut: true, .. } => {
                Err("git says more than can be looked at".to_owned())
            }
            Answer { code: Some(0), out, .. } => Ok(out),
            Answer { complaint, .. } => Err(format!("git: {complaint}")),
        }
    }

    fn answer(&mut self, arguments: &[&str], settings: &[String]) -> Result<Answer, String> {
        let (variables, before) = guard_git::hardened();
        let mut variables: BTreeMap<String, String> =
            variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        // A name in the repository's configuration can hold anything: not on a command line.
        variables.insert("GIT_CONFIG_COUNT".to_owned(), settings.len().to_string());
        for (number, name) in settings.iter().enumerate() {
            variables.insert(format!("GIT_CONFIG_KEY_{number}"), name.clone());
            variables.insert(format!("GIT_CONFIG_VALUE_{number}"), String::new());
        }
        let look = Look::Ask {
            program: "git".to_owned(),
            arguments: before.iter().chain(arguments).map(|a| (*a).to_owned()).collect(),
            variables,
            within_ms: WITHIN_MS,
        };
        let mut found = Err("git was not asked".to_owned());
        (self.looker)(&self.owner, look, &mut |line| match line {
            Line::Answer { code, out, is_cut, complaint } => {
                found = Ok(Answer { code, out, is_cut, complaint });
            }
            Line::Failed { what, why } => found = Err(format!("cannot {what}: {why}")),
            _ => {}
        })?;
        found
    }

    /// Settings that name programs by which git changes contents.
    fn filters(&mut self) -> Result<Vec<String>, String> {
        let asked =
            ["config", "--name-only", "-z", "--get-regexp", r"^filter\..*\.(clean|smudge|process|required)$"];
        match self.answer(&asked, &[])? {
            Answer { code: Some(0), is_cut: true, .. } => {
                Err("the repository has too many filters".to_owned())
            }
            Answer { code: Some(0), out, .. } => {
                Ok(out.split('\0').filter(|n| !n.is_empty()).map(str::to_owned).collect())
            }
            // There are none.
            Answer { code: Some(1), .. } => Ok(Vec::new()),
            Answer { complaint, .. } => Err(format!("git: {complaint}")),
        }
    }
}

/// What `git status -z` lists, without what is no part of any release: untracked files that are writable, ignored or
/// sensitive here.
fn dirty(status: &str, class: impl Fn(&RelPath, bool) -> Class) -> Vec<String> {
    let mut found = Vec::new();
    for entry in status.split('\0').filter(|e| !e.is_empty()) {
        let (Some(kind), Some(path)) = (entry.get(..2), entry.get(3..)) else {
            found.push(escape(entry.as_bytes()));
            continue;
        };
        if kind == "??" {
            let name = path.trim_end_matches('/');
            let of = RelPath::from_bytes(name.as_bytes()).map(|p| class(&p, name.len() < path.len()));
            let is_apart = of.is_ok_and(|c| {
                matches!(c, Class::Writable | Class::WritableTop | Class::Ignored) || c.is_sensitive()
            });
            if is_apart {
                continue;
            }
        }
        found.push(format!("{} {}", kind.trim(), escape(path.as_bytes())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_commit_has_is_told() {
        let class = |path: &RelPath, _: bool| match path.to_string().as_str() {
            ".env" => Class::Protected { sensitive: true },
            "media" => Class::WritableTop,
            _ => Class::Protected { sensitive: false },
        };
        let status = "?? .env\0?? media/\0?? new.py\0 M app.py\0M  .env\0D  gone\u{1b}\0";
        assert_eq!(dirty(status, class), ["?? new.py", "M app.py", "M .env", "D gone\\x1b"]);
        assert_eq!(dirty("", class), Vec::<String>::new());
        assert_eq!(dirty("x", class), ["x"]);
    }
}
