//! Which command lines are told with a finding. Whoever writes a secret may have it among its arguments (`sed -i
//! s/OLD/NEW/ .env.prod`), and the same process makes other findings, too: the temporary file beside it, the time of the
//! directory.

use std::collections::HashSet;

use guard_model::{Actor, Policy, RelPath, Timestamp};

use super::raise::Weighed;

/// A process, by its number and the time at which it began.
type Process = (i32, Option<Timestamp>);

/// Takes the command line out of every finding of a process that changed something sensitive, or whose command line
/// names it.
pub(super) fn redact(findings: &mut [Weighed], policy: &Policy) {
    let process = |by: &Actor| -> Process { (by.pid, by.started_at) };
    let of_secrets: HashSet<Process> = findings
        .iter()
        .filter(|(_, sensitive)| *sensitive)
        .filter_map(|(finding, _)| finding.actor.as_ref().map(process))
        .collect();
    for (finding, sensitive) in findings {
        let Some(by) = finding.actor.as_mut() else { continue };
        let names = || by.cmdline.as_deref().is_some_and(|line| names_something_sensitive(line, policy));
        if *sensitive || of_secrets.contains(&process(by)) || names() {
            by.cmdline = None;
        }
    }
}

/// Does a word of the command line name something sensitive? From which directory it is meant nobody knows: each end
/// of a path counts as one from the root.
fn names_something_sensitive(line: &str, policy: &Policy) -> bool {
    if policy.text().sensitive.is_empty() {
        return false;
    }
    let between_words = |c: char| c.is_whitespace() || "'\"`=:,;|&<>(){}[]".contains(c);
    line.split(between_words).filter(|word| !word.is_empty()).any(|word| {
        let word = word.trim_matches('/').trim_start_matches("./");
        let after_slashes = word.match_indices('/').map(|(at, _)| word.get(at + 1..).unwrap_or_default());
        std::iter::once(word).chain(after_slashes).any(|end| {
            RelPath::from_text(end)
                .is_ok_and(|path| !path.is_root() && policy.classify(&path, false).is_sensitive())
        })
    })
}

#[cfg(test)]
mod tests {
    use guard_model::policy::PatternText;

    use super::*;

    fn policy(protect: &[&str], sensitive: &[&str]) -> Policy {
        let all = |texts: &[&str]| texts.iter().map(|&t| t.to_owned()).collect();
        let text = PatternText { protect: all(protect), sensitive: all(sensitive), ..PatternText::default() };
        Policy::new(text).unwrap()
    }

    #[test]
    fn commands_that_name_a_secret_are_known() {
        let policy = policy(&[], &[".env*", "config/keys/"]);
        for line in [
            "sed -i s/old/new/ .env.prod",
            "sed -i s/old/new/ /srv/app/.env.prod",
            "sh -c echo TOKEN=abc>>/srv/app/backend/.env",
            "python3 -c open('.env.prod','a').write('abc')",
            "tee ./config/keys/host",
            "cp --target=config/keys/host abc",
            "vim /srv/app/config/keys/host/",
            "docker run --volume /srv/app/.env:/x abc",
        ] {
            assert!(names_something_sensitive(line, &policy), "{line}");
        }
        for line in
            ["sed -i s/False/True/ settings.py", "env FOO=1 make", "ls -la /", "", "cat keys/host // ."]
        {
            assert!(!names_something_sensitive(line, &policy), "{line}");
        }
    }

    #[test]
    fn what_is_sensitive_is_so_wherever_else_is_not_protected() {
        assert!(names_something_sensitive("sed -i x .env", &policy(&["backend/"], &[".env"])));
        assert!(!names_something_sensitive("sed -i x .env", &policy(&[], &[])));
    }
}
