//! Proves that hints still come through: a file that is touched, and whose
//! event must arrive by every environment's whole way. Pings take turns with a
//! few files, so that a late event of one ping does not answer the next.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::error::WatchError;
use crate::hint::EnvId;

const PREFIX: &str = "canary-";

/// The number of the canary that `path` names in `directory`.
pub(crate) fn number_of(path: &Path, directory: &Path) -> Option<usize> {
    let name = path.strip_prefix(directory).ok()?.to_str()?;
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The canaries' directory and the pings that are under way.
#[derive(Debug)]
pub(crate) struct Canary {
    directory: PathBuf,
    files: [PathBuf; Self::FILES],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Device and inode of the directory that is watched.
    watched: Option<(u64, u64)>,
    /// Pings so far.
    pings: usize,
    pending: BTreeMap<u64, Pending>,
}

#[derive(Debug)]
struct Pending {
    /// The file that was touched, as an index.
    file: usize,
    /// The environments that have not answered yet.
    environments: BTreeSet<EnvId>,
}

/// Whether the directory is still the one that is watched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Nest {
    Same,
    New,
}

impl Canary {
    /// Pings until a file comes round again.
    pub(crate) const FILES: usize = 8;
    /// Unanswered pings that are remembered; older ones have long been a gap.
    const PENDING: usize = 64;

    /// Makes the file ready in `directory`, which is made if it is missing.
    pub(crate) fn new(directory: &Path) -> Result<Self, WatchError> {
        std::fs::create_dir_all(directory).map_err(|e| WatchError::io("make the directory", directory, e))?;
        let directory = directory.canonicalize().map_err(|e| WatchError::io("resolve", directory, e))?;
        let files = std::array::from_fn(|i| directory.join(format!("{PREFIX}{i}")));
        let canary = Self { files, directory, state: Mutex::default() };
        canary.nest()?;
        for file in &canary.files {
            open(file)?;
        }
        Ok(canary)
    }

    /// The directory to watch.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that the directory is there; tells whether it has to be watched anew.
    pub(crate) fn nest(&self) -> Result<Nest, WatchError> {
        let failed = |e| WatchError::io("make the directory", &self.directory, e);
        std::fs::create_dir_all(&self.directory).map_err(failed)?;
        let now = self.directory.metadata().map(|m| (m.dev(), m.ino())).map_err(failed)?;
        let before = self.lock().watched.replace(now);
        Ok(if before == Some(now) { Nest::Same } else { Nest::New })
    }

    /// Touches the next file. Only its times change, so this works on a full disk.
    pub(crate) fn touch(&self, nonce: u64, environments: BTreeSet<EnvId>) -> Result<(), WatchError> {
        let mut state = self.lock();
        let file = state.pings % Self::FILES;
        state.pings = state.pings.wrapping_add(1);
        state.pending.insert(nonce, Pending { file, environments });
        while state.pending.len() > Self::PENDING {
            state.pending.pop_first();
        }
        drop(state);
        self.flutter(file)
    }

    /// Touches what `env` has not heard, once more: it lost some of its ears.
    pub(crate) fn again(&self, env: EnvId) -> Result<(), WatchError> {
        let missed: BTreeSet<usize> = {
            let state = self.lock();
            let waiting = state.pending.values().filter(|ping| ping.environments.contains(&env));
            waiting.map(|ping| ping.file).collect()
        };
        missed.into_iter().try_for_each(|file| self.flutter(file))
    }

    fn flutter(&self, file: usize) -> Result<(), WatchError> {
        let Some(path) = self.files.get(file) else { return Ok(()) };
        open(path)?.set_modified(SystemTime::now()).map_err(|e| WatchError::io("set the time of", path, e))
    }

    /// All of `env`'s readers heard this canary: the nonces that are thereby answered.
    pub(crate) fn heard(&self, env: EnvId, number: usize) -> Vec<u64> {
        self.answered(env, |file| file == number)
    }

    /// `env` is not waited for any more: the nonces that are thereby answered.
    pub(crate) fn without(&self, env: EnvId) -> Vec<u64> {
        self.answered(env, |_| true)
    }

    fn answered(&self, env: EnvId, counts: impl Fn(usize) -> bool) -> Vec<u64> {
        let mut answered = Vec::new();
        self.lock().pending.retain(|nonce, ping| {
            let done = counts(ping.file) && ping.environments.remove(&env) && ping.environments.is_empty();
            if done {
                answered.push(*nonce);
            }
            !done
        });
        answered
    }
}

fn open(file: &Path) -> Result<File, WatchError> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
        .open(file)
        .map_err(|e| WatchError::io("open", file, e))
}
