//! How an environment stands, learnt by anybody from its signed lock file.

use std::path::PathBuf;

use guard_model::baseline::{LockFile, LockState};
use guard_store::{LockFileError, PublicKey, StatePaths, StoreError, lock_file};

/// How an environment stands, from a lock file that is genuine and this machine's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Line 1 of the lock file.
    pub lock: LockFile,
}

/// Why it cannot be known how an environment stands. It counts as locked then.
#[derive(Debug, thiserror::Error)]
pub enum UnknownState {
    /// No public key to verify with.
    #[error("the host's public key cannot be read")]
    Key(#[source] StoreError),
    /// Missing, unreadable, malformed or forged.
    #[error(transparent)]
    LockFile(#[from] LockFileError),
    /// The name cannot be that of an environment.
    #[error(transparent)]
    Name(StoreError),
    /// A genuine lock file that was copied here from elsewhere.
    #[error("the lock file {} is another machine's ({found})", path.display())]
    OtherMachine {
        /// The file.
        path: PathBuf,
        /// The machine id that it names.
        found: String,
    },
    /// This machine has no identity to compare with.
    #[error("this machine's id cannot be read")]
    NoMachineId(#[source] guard_sys::clock::ClockError),
}

impl Standing {
    /// Reads and verifies `locks/ENV.lock` by the key in `public/`. Takes no
    /// lock and needs neither a daemon nor any right.
    ///
    /// # Errors
    /// [`UnknownState`].
    pub fn read(state: &StatePaths, environment: &str) -> Result<Self, UnknownState> {
        let path = state.lock_file(environment).map_err(UnknownState::Name)?;
        let key = PublicKey::load(state).map_err(UnknownState::Key)?;
        let (lock, _) = lock_file::read_verified(&path, &key)?;
        let here = guard_sys::clock::machine_id().map_err(UnknownState::NoMachineId)?;
        if lock.machine_id != here {
            return Err(UnknownState::OtherMachine { path, found: lock.machine_id });
        }
        Ok(Self { lock })
    }

    /// True while changes are alerts.
    #[must_use]
    pub fn is_locked(&self) -> bool {
        self.lock.state == LockState::Locked
    }

    /// Does the lock hold this branch (`main`, without `refs/heads/`)?
    #[must_use]
    pub fn holds(&self, branch: &[u8]) -> bool {
        self.is_locked() && covers(&self.lock.branches, branch)
    }
}

/// Is the branch one of these? `*` stands for any text; no pattern at all means every branch, as
/// a deployment may then come from any.
#[must_use]
pub fn covers(branches: &[String], branch: &[u8]) -> bool {
    branches.is_empty()
        || branches.iter().any(|pattern| guard_model::wildcard::fits(pattern.as_bytes(), branch))
}

/// The environments of which there are lock files, by name.
#[must_use]
pub fn environments(state: &StatePaths) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(state.locks())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.strip_suffix(".lock").map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|&n| n.to_owned()).collect()
    }

    #[test]
    fn a_star_stands_for_any_text() {
        let branches = list(&["main", "release/*", "*-hotfix-*"]);
        for held in ["main", "release/1", "release/a/b", "release/", "a-hotfix-", "x/y-hotfix-z"] {
            assert!(covers(&branches, held.as_bytes()), "{held}");
        }
        for free in ["mains", "amain", "release", "feature", "", "hotfix-"] {
            assert!(!covers(&branches, free.as_bytes()), "{free}");
        }
    }

    #[test]
    fn no_branch_named_means_every_branch() {
        assert!(covers(&[], b"anything"));
        assert!(covers(&[], b"\xff\n"));
    }

    #[test]
    fn many_stars_end() {
        let pattern = list(&[&"*a".repeat(60)]);
        assert!(!covers(&pattern, "a".repeat(59).as_bytes()));
        assert!(covers(&pattern, "a".repeat(600).as_bytes()));
    }
}
