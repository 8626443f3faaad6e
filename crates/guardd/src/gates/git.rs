//! The git work tree: nothing in it that no commit has, and at the commit that the last deployment left.
//!
//! Git is asked by a child as the repository's owner, and runs nothing of the repository's own: no hook, no fsmonitor, and
//! none of the filters that its configuration names.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;

use guard_deploy::worker::{Line, Look};
use guard_model::deploy::{Gate, Verdict};
use guard_model::path::escape;
use guard_model::{Class, RelPath};

use super::{Subject, child, gate, owner};

/// Git is done by then, milliseconds.
const WITHIN_MS: u64 = 60_000;

/// `None` where the root is no repository.
pub(super) fn work_tree(subject: &Subject, stop: &AtomicBool) -> Option<Gate> {
    // Whatever it is: git itself says whether it is a repository.
    std::fs::symlink_metadata(subject.root.join(".git")).ok()?;
    let (verdict, evidence) = match look(subject, stop) {
        Ok(found) => found,
        Err(why) => (Verdict::Unknown, why),
    };
    Some(gate("git", "", verdict, evidence, "git status --short && git rev-parse HEAD".to_owned()))
}

fn look(subject: &Subject, stop: &AtomicBool) -> Result<(Verdict, String), String> {
    let asking = Asking { subject, user: owner(subject)?, stop };
    let head = asking.git(&["rev-parse", "--verify", "HEAD"], &[])?;
    let head = head.trim().to_owned();
    if head.len() < 40 || !head.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("git names no commit".to_owned());
    }
    let filters = asking.filters()?;
    let mut arguments = vec!["status", "--porcelain=v1", "-z", "--untracked-files=normal", "--no-renames"];
    arguments.push("--ignore-submodules=dirty");
    let status = asking.git(&arguments, &filters)?;
    let dirty = dirty(&status, |path, is_dir| subject.config.policy.classify(path, is_dir));
    let short = head.get(..12).unwrap_or(&head);
    if let Some(first) = dirty.first() {
        let filtered = if filters.is_empty() { "" } else { " (filters of the repository are not run)" };
        let more = if dirty.len() > 1 { format!(" and {} more", dirty.len() - 1) } else { String::new() };
        let what = format!("at {short}, and differs from that commit: {first}{more}{filtered}");
        return Ok((Verdict::Fail, what));
    }
    Ok(match &subject.recorded {
        Some(recorded) if *recorded != head => {
            let was = recorded.get(..12).unwrap_or(recorded);
            (Verdict::Fail, format!("clean, but at {short}: the last deployment left it at {was}"))
        }
        Some(_) => (Verdict::Pass, format!("clean, at {short} as the last deployment left it")),
        None => (Verdict::Pass, format!("clean, at {short}")),
    })
}

struct Asking<'a> {
    subject: &'a Subject,
    user: String,
    stop: &'a AtomicBool,
}

impl Asking<'_> {
    /// What git prints; `settings` win over the repository's.
    fn git(&self, arguments: &[&str], settings: &[String]) -> Result<String, String> {
        match self.answer(arguments, settings)? {
            (Some(0), out, false, _) => Ok(out),
            (Some(0), _, true, _) => Err("git says more than can be looked at".to_owned()),
            (_, _, _, complaint) => Err(format!("git: {complaint}")),
        }
    }

    fn answer(
        &self,
        arguments: &[&str],
        settings: &[String],
    ) -> Result<(Option<i32>, String, bool, String), String> {
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
        child::run(self.subject, &self.user, look, self.stop, &mut |line| match line {
            Line::Answer { code, out, is_cut, complaint } => found = Ok((code, out, is_cut, complaint)),
            Line::Failed { what, why } => found = Err(format!("cannot {what}: {why}")),
            _ => {}
        })?;
        found
    }

    /// Settings that name programs by which git changes contents.
    fn filters(&self) -> Result<Vec<String>, String> {
        let asked =
            ["config", "--name-only", "-z", "--get-regexp", r"^filter\..*\.(clean|smudge|process|required)$"];
        match self.answer(&asked, &[])? {
            (Some(0), out, false, _) => {
                Ok(out.split('\0').filter(|n| !n.is_empty()).map(str::to_owned).collect())
            }
            // There are none.
            (Some(1), _, _, _) => Ok(Vec::new()),
            (Some(0), _, true, _) => Err("the repository has too many filters".to_owned()),
            (_, _, _, complaint) => Err(format!("git: {complaint}")),
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
