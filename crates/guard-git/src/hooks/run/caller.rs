//! The git that runs a hook, by its command line.
//!
//! Whoever runs it can lie there. All that rests on it is when a refusal comes
//! and what it advises; and that packing references is not taken for deleting
//! them, which the packed file itself has to bear out.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::error::GitError;
use crate::git::Git;

/// A git command line, taken apart.
#[derive(Debug, Default)]
pub(super) struct GitCommand {
    subcommand: Vec<u8>,
    arguments: Vec<Vec<u8>>,
}

/// Options of git itself that take a value of their own.
const WITH_VALUE: [&[u8]; 8] = [
    b"-C",
    b"-c",
    b"--git-dir",
    b"--work-tree",
    b"--namespace",
    b"--super-prefix",
    b"--config-env",
    b"--exec-path",
];

/// Options of merge that take a value of their own.
const MERGE_WITH_VALUE: [&[u8]; 9] = [
    b"-m",
    b"-F",
    b"--file",
    b"-s",
    b"--strategy",
    b"-X",
    b"--strategy-option",
    b"--into-name",
    b"--cleanup",
];

impl GitCommand {
    /// The command of a process; `None` where it cannot be read.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self::parse(&std::fs::read(format!("/proc/{pid}/cmdline")).ok()?))
    }

    fn parse(cmdline: &[u8]) -> Self {
        let mut words = cmdline.split(|&b| b == 0).skip(1);
        while let Some(word) = words.next() {
            if WITH_VALUE.contains(&word) {
                words.next();
            } else if !word.starts_with(b"-") {
                let arguments = words.map(<[u8]>::to_vec).filter(|w| !w.is_empty()).collect();
                return Self { subcommand: word.to_vec(), arguments };
            }
        }
        Self::default()
    }

    fn has(&self, option: &str) -> bool {
        self.arguments.iter().any(|a| a == option.as_bytes())
    }

    /// Moves references into `packed-refs` and removes their files.
    pub(super) fn packs_references(&self) -> bool {
        matches!(self.subcommand.as_slice(), b"pack-refs" | b"gc" | b"maintenance")
    }

    /// The branch whose name `git branch --move` gives to another one.
    pub(super) fn renamed_over(&self) -> Option<&[u8]> {
        let moves = ["-m", "-M", "--move"].iter().any(|o| self.has(o));
        let names: Vec<&Vec<u8>> = self.arguments.iter().filter(|a| !a.starts_with(b"-")).collect();
        match names.as_slice() {
            [from, to] if moves && self.subcommand == b"branch" && from != to => Some(to.as_slice()),
            [to] if moves && self.subcommand == b"branch" => Some(to.as_slice()),
            _ => None,
        }
    }

    /// A merge that would change the branch: not one that only stages, nor one of what is merged already.
    pub(super) fn would_merge(&self, git: &Git) -> Result<bool, GitError> {
        if self.subcommand != b"merge" || self.has("--squash") || self.has("--no-commit") {
            return Ok(false);
        }
        let mut words = self.arguments.iter();
        while let Some(word) = words.next() {
            if MERGE_WITH_VALUE.contains(&word.as_slice()) {
                words.next();
            } else if !word.starts_with(b"-") {
                let words = ["merge-base", "--is-ancestor"].map(OsStr::new);
                let question = [words[0], words[1], OsStr::from_bytes(word), OsStr::new("HEAD")];
                // `Err` is what is no commit: git itself will say so.
                if let Ok(None) = git.line(&question) {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// What a refused user does next.
    pub(super) fn way_out(&self) -> String {
        match self.subcommand.as_slice() {
            b"commit" => "on a branch of its own it is fine: git switch -c NAME (what is staged comes along)"
                .to_owned(),
            name @ (b"cherry-pick" | b"revert" | b"am" | b"rebase" | b"merge") => {
                let name = String::from_utf8_lossy(name);
                format!("the branch has not moved; git {name} --abort gives the work tree back")
            }
            b"reset" if self.has("--hard") || self.has("--merge") || self.has("--keep") => {
                "the branch has not moved; git reset --hard gives the work tree back".to_owned()
            }
            b"reset" => "the branch has not moved; git reset gives the index back".to_owned(),
            _ => "the branch has not moved".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> GitCommand {
        GitCommand::parse(words.join("\0").as_bytes())
    }

    #[test]
    fn the_subcommand_is_found_behind_options() {
        let merge =
            parse(&["/usr/bin/git", "-C", "/srv", "-c", "a=b", "--no-pager", "merge", "--squash", "x", ""]);
        assert_eq!(merge.subcommand, b"merge");
        assert_eq!(merge.arguments, [b"--squash".to_vec(), b"x".to_vec()]);
        assert!(parse(&["git", "pack-refs", "--all"]).packs_references());
        assert!(!parse(&["git", "branch", "-D", "pack-refs"]).packs_references());
        assert_eq!(parse(&["git", "branch", "-M", "a", "main"]).renamed_over(), Some(&b"main"[..]));
        assert_eq!(parse(&["git", "branch", "-m", "main"]).renamed_over(), Some(&b"main"[..]));
        assert_eq!(parse(&["git", "branch", "-D", "main"]).renamed_over(), None);
        assert_eq!(parse(&["git"]).subcommand, b"");
        assert_eq!(GitCommand::parse(b"").subcommand, b"");
    }

    #[test]
    fn the_way_out_fits_what_was_done() {
        assert!(parse(&["git", "cherry-pick", "x"]).way_out().contains("git cherry-pick --abort"));
        assert!(parse(&["git", "reset", "--hard", "x"]).way_out().contains("git reset --hard"));
        assert!(parse(&["git", "update-ref", "x"]).way_out().ends_with("has not moved"));
    }
}
