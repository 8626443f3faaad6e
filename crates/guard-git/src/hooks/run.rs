//! What a hook does when git calls it: does the lock hold a branch that would move?

use std::ffi::OsString;
use std::io::BufRead;
use std::path::Path;

use guard_model::path::escape;
use guard_store::StatePaths;

use super::Hook;
use crate::error::GitError;
use crate::git::{Caller, Git};
use crate::message::{self, Refused};
use crate::standing::{Standing, UnknownState, covers};
use crate::transaction::{Branches, Update, is_zero, short};

mod caller;

use caller::GitCommand;

/// A call of a hook.
#[derive(Debug)]
pub struct Called {
    /// Which.
    pub hook: Hook,
    /// The git that runs it.
    pub git_pid: Option<u32>,
    /// The layout below guardd's state directory.
    pub state: StatePaths,
    /// The environment that guards the repository.
    pub environment: String,
    /// The protected branches at installation, to go by where the lock file cannot be read.
    pub branches: Vec<String>,
    /// The line of standard input that the hook's filter has read already.
    pub line: Option<OsString>,
    /// What git gave the hook.
    pub arguments: Vec<OsString>,
}

/// What git is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing that is locked would change.
    Passes,
    /// Refused, with what the user reads.
    Refused(String),
}

/// Decides a call. `input` is the rest of standard input.
///
/// # Errors
/// [`GitError`]: then nothing is known, and the hook has to refuse.
pub fn called(call: &Called, input: &mut dyn BufRead) -> Result<Verdict, GitError> {
    let git = Git::new(Path::new("."), Caller::Hook)?;
    let lock = Lock { standing: Standing::read(&call.state, &call.environment), call };
    if lock.holds_nothing() {
        return Ok(Verdict::Passes);
    }
    let by = call.git_pid.and_then(GitCommand::of).unwrap_or_default();
    match call.hook {
        Hook::PreCommit | Hook::PreMergeCommit | Hook::PreRebase => on_head(&git, &lock, &by),
        Hook::ReferenceTransaction | Hook::PreReceive => on_updates(&git, &lock, &by, input),
        Hook::PrePush => on_push(&lock, input),
    }
}

/// The lock as far as it is known.
struct Lock<'a> {
    standing: Result<Standing, UnknownState>,
    call: &'a Called,
}

impl Lock<'_> {
    fn holds_nothing(&self) -> bool {
        self.standing.as_ref().is_ok_and(|s| !s.is_locked())
    }

    fn holds(&self, branch: &[u8]) -> bool {
        match &self.standing {
            Ok(standing) => standing.holds(branch),
            Err(_) => covers(&self.call.branches, branch),
        }
    }

    fn refuse(&self, refused: &Refused) -> Verdict {
        Verdict::Refused(match &self.standing {
            Ok(standing) => message::locked(standing, refused),
            Err(e) => message::unknown(&self.call.environment, e, refused),
        })
    }
}

/// A commit, merge or rebase of the branch that HEAD is on.
fn on_head(git: &Git, lock: &Lock<'_>, by: &GitCommand) -> Result<Verdict, GitError> {
    use std::os::unix::ffi::OsStrExt;
    // `git rebase UPSTREAM BRANCH` gives the branch (githooks(5)).
    let named = lock.call.arguments.get(1).filter(|_| lock.call.hook == Hook::PreRebase);
    let branch = match named {
        Some(name) => Some(name.as_bytes().strip_prefix(b"refs/heads/").unwrap_or(name.as_bytes()).to_vec()),
        None => head(git)?,
    };
    let Some(branch) = branch else { return Ok(Verdict::Passes) };
    if !lock.holds(&branch) {
        return Ok(Verdict::Passes);
    }
    let (fate, next) = match lock.call.hook {
        Hook::PreRebase => ("would be rewritten", "nothing was changed".to_owned()),
        Hook::PreMergeCommit => ("would get a merge commit", by.way_out()),
        _ => (
            "would get a commit",
            "on a branch of its own it is fine: git switch -c NAME (what is staged comes along)".to_owned(),
        ),
    };
    Ok(lock.refuse(&Refused { branches: vec![(escape(&branch), fate.to_owned())], next: vec![next] }))
}

/// The branch of HEAD without `refs/heads/`; `None` where HEAD is detached.
fn head(git: &Git) -> Result<Option<Vec<u8>>, GitError> {
    Ok(git.head_branch()?.and_then(|name| name.strip_prefix(b"refs/heads/").map(<[u8]>::to_vec)))
}

fn on_updates(
    git: &Git,
    lock: &Lock<'_>,
    by: &GitCommand,
    input: &mut dyn BufRead,
) -> Result<Verdict, GitError> {
    let repository = Repository { git, by };
    let mut refused = Refused { branches: Vec::new(), next: Vec::new() };
    each_line(lock.call, input, |line| {
        let Some(update) = Update::parse(line) else { return Ok(()) };
        if update.name == b"ORIG_HEAD" && lock.call.hook == Hook::ReferenceTransaction {
            if let Some(branch) = head(git)?
                && lock.holds(&branch)
                && by.would_merge(git)?
            {
                refused.branches.push((escape(&branch), "would be merged into".to_owned()));
                refused.next.push("nothing was changed".to_owned());
            }
            return Ok(());
        }
        if let Some(target) = by.renamed_over().filter(|b| lock.holds(b)) {
            // Git deletes the one branch, then asks for the other, and could not go back from there.
            refused.branches = vec![(escape(target), "would be replaced by another branch".to_owned())];
            refused.next = vec!["nothing was changed".to_owned()];
            return Ok(());
        }
        let Some(branch) = update.branch().filter(|b| lock.holds(b)) else { return Ok(()) };
        if let Some(fate) = update.fate(&repository)? {
            refused.branches.push((escape(branch), update.describe(fate)));
        }
        Ok(())
    })?;
    if refused.branches.is_empty() {
        return Ok(Verdict::Passes);
    }
    if refused.next.is_empty() && lock.call.hook == Hook::ReferenceTransaction {
        refused.next.push(by.way_out());
    }
    Ok(lock.refuse(&refused))
}

/// `LOCAL-REF LOCAL-ID REMOTE-REF REMOTE-ID` for each (githooks(5)).
fn on_push(lock: &Lock<'_>, input: &mut dyn BufRead) -> Result<Verdict, GitError> {
    let mut refused = Refused { branches: Vec::new(), next: Vec::new() };
    each_line(lock.call, input, |line| {
        let mut parts = line.split(|&b| b == b' ');
        let (Some(_), Some(new), Some(name), Some(old)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Ok(());
        };
        let Some(branch) = name.strip_prefix(b"refs/heads/").filter(|b| lock.holds(b)) else { return Ok(()) };
        let fate = match (is_zero(new), is_zero(old)) {
            (true, _) => "would be deleted there".to_owned(),
            (false, true) => format!("would be created there at {}", short(new)),
            (false, false) => format!("would be moved there from {} to {}", short(old), short(new)),
        };
        refused.branches.push((escape(branch), fate));
        Ok(())
    })?;
    if refused.branches.is_empty() {
        return Ok(Verdict::Passes);
    }
    refused
        .next
        .push("nothing was pushed; another branch may be: git push REMOTE HEAD:refs/heads/NAME".to_owned());
    Ok(lock.refuse(&refused))
}

/// The line that the filter has read, then the rest of standard input.
fn each_line(
    call: &Called,
    input: &mut dyn BufRead,
    mut take: impl FnMut(&[u8]) -> Result<(), GitError>,
) -> Result<(), GitError> {
    use std::os::unix::ffi::OsStrExt;
    if let Some(line) = &call.line {
        take(line.as_bytes())?;
    }
    let mut line = Vec::new();
    loop {
        line.clear();
        let n =
            input.read_until(b'\n', &mut line).map_err(GitError::io("read", Path::new("standard input")))?;
        if n == 0 {
            return Ok(());
        }
        take(line.trim_ascii_end())?;
    }
}

/// The repository, asked by git itself: whatever backend keeps its references.
struct Repository<'a> {
    git: &'a Git,
    by: &'a GitCommand,
}

impl Branches for Repository<'_> {
    fn current(&self, name: &[u8]) -> Result<Option<Vec<u8>>, GitError> {
        use std::os::unix::ffi::OsStrExt;
        let name = std::ffi::OsStr::from_bytes(name);
        let format = std::ffi::OsStr::new("--format=%(objectname) %(symref)");
        let out = self.git.output(&[std::ffi::OsStr::new("for-each-ref"), format, name])?;
        let Some(line) = out.split(|&b| b == b'\n').next().filter(|l| !l.is_empty()) else { return Ok(None) };
        let mut parts = line.splitn(2, |&b| b == b' ');
        let id = parts.next().unwrap_or_default();
        Ok(Some(match parts.next().filter(|target| !target.is_empty()) {
            Some(target) => [b"ref:", target].concat(),
            None => id.to_vec(),
        }))
    }

    fn is_packed(&self, name: &[u8], value: &[u8]) -> Result<bool, GitError> {
        if !self.by.packs_references() {
            return Ok(false);
        }
        let path = self.git.path(&["--git-common-dir"])?.join("packed-refs");
        let wanted = [value, b" ", name].concat();
        match std::fs::read(&path) {
            Ok(text) => Ok(text.split(|&b| b == b'\n').any(|line| line == wanted)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(GitError::io("read", &path)(e)),
        }
    }
}
