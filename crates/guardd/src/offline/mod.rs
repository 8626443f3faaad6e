//! What works without a daemon, by the state directory alone: for cron, for
//! rescue systems, and for the day guardd is removed.

pub(crate) mod check;
pub(crate) mod unseal;
pub(crate) mod verify;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use guard_api::Exit;
use guard_model::baseline::{LockFile, Manifest};
use guard_model::path::unescape;
use guard_model::put_back::Overlay;
use guard_store::{Baseline, PublicKey, StatePaths, lock_file};
use guard_tree::Root;

use crate::Failure;

/// A state directory that is only read.
pub(crate) struct State {
    pub(crate) paths: StatePaths,
    pub(crate) key: PublicKey,
}

impl State {
    pub(crate) fn open(dir: &Path) -> Result<Self, Failure> {
        let paths = StatePaths::new(dir);
        let key = PublicKey::load(&paths).map_err(|e| {
            Failure::of(Exit::Failed, &e)
                .hint(format!("is {} guardd's state directory? (--state-dir)", dir.display()))
        })?;
        Ok(Self { paths, key })
    }

    /// Every environment that has a lock file.
    pub(crate) fn environments(&self) -> Result<Vec<String>, Failure> {
        let locks = self.paths.locks();
        let read = std::fs::read_dir(&locks)
            .map_err(|e| Failure::new(Exit::Failed, format!("cannot read {}: {e}", locks.display())))?;
        let mut names: Vec<String> = read
            .flatten()
            .filter_map(|e| e.file_name().to_str().and_then(|n| n.strip_suffix(".lock")).map(str::to_owned))
            .collect();
        names.sort();
        Ok(names)
    }

    /// The environment that is meant: the named one, or the only one.
    pub(crate) fn chosen(&self, name: Option<&str>) -> Result<String, Failure> {
        if let Some(name) = name {
            return Ok(name.to_owned());
        }
        let mut all = self.environments()?;
        match (all.pop(), all.is_empty()) {
            (Some(only), true) => Ok(only),
            (None, _) => Err(Failure::new(Exit::Refused, "no environment was ever locked here")),
            (Some(last), false) => {
                all.push(last);
                Err(Failure::new(Exit::Usage, format!("name one of the environments: {}", all.join(", "))))
            }
        }
    }

    /// The lock file of an environment, verified.
    pub(crate) fn lock_file(&self, environment: &str) -> Result<LockFile, Failure> {
        let path = self.paths.lock_file(environment).map_err(|e| Failure::of(Exit::Usage, &e))?;
        let (said, _) =
            lock_file::read_verified(&path, &self.key).map_err(|e| Failure::of(Exit::Failed, &e))?;
        Ok(said)
    }

    /// What was put back since that baseline was made, by the ledger's word.
    pub(crate) fn overlay(&self, environment: &str) -> Result<Overlay, Failure> {
        let mut overlay = Overlay::default();
        guard_store::ledger::each_of(&self.paths, environment, &Overlay::EVENTS, |r| overlay.apply(r))
            .map_err(|e| Failure::of(Exit::Failed, &e))?;
        Ok(overlay)
    }

    /// The baseline that a lock file names, verified.
    pub(crate) fn baseline(&self, said: &LockFile) -> Result<Baseline, Failure> {
        let dir = self
            .paths
            .generation(&said.environment, said.generation)
            .map_err(|e| Failure::of(Exit::Failed, &e))?;
        Baseline::open(&dir, &said.baseline, &self.key).map_err(|e| Failure::of(Exit::Failed, &e))
    }
}

/// The locked root, or where it is mounted now.
pub(crate) fn open_root(manifest: &Manifest, elsewhere: Option<&PathBuf>) -> Result<Root, Failure> {
    let recorded = unescape(&manifest.root).map(|bytes| PathBuf::from(OsString::from_vec(bytes)));
    let path = elsewhere.cloned().or(recorded).unwrap_or_default();
    Root::open(&path).map_err(|e| {
        Failure::of(Exit::Failed, &e).hint("--root names the directory where the tree is mounted now")
    })
}
