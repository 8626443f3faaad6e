//! Proves that hints still come through: a file that is touched, and whose
//! event must arrive by every environment's whole way.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::error::WatchError;
use crate::hint::EnvId;

/// The canary's file and the pings that are under way.
#[derive(Debug)]
pub(crate) struct Canary {
    directory: PathBuf,
    file: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Device and inode of the directory that is watched.
    watched: Option<(u64, u64)>,
    /// For each nonce the environments that have not answered yet.
    pending: BTreeMap<u64, BTreeSet<EnvId>>,
}

/// Whether the directory is still the one that is watched.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Nest {
    Same,
    New,
}

impl Canary {
    const FILE: &str = "canary";
    /// Unanswered pings that are remembered; older ones have long been a gap.
    const PENDING: usize = 64;

    /// Makes the file ready in `directory`, which is made if it is missing.
    pub(crate) fn new(directory: &Path) -> Result<Self, WatchError> {
        std::fs::create_dir_all(directory).map_err(|e| WatchError::io("make the directory", directory, e))?;
        let directory = directory.canonicalize().map_err(|e| WatchError::io("resolve", directory, e))?;
        let canary = Self { file: directory.join(Self::FILE), directory, state: Mutex::default() };
        canary.nest()?;
        canary.open()?;
        Ok(canary)
    }

    /// The directory to watch.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The file whose events are the answer.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    fn open(&self) -> Result<File, WatchError> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&self.file)
            .map_err(|e| WatchError::io("open", &self.file, e))
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

    /// Touches the file. Only its times change, so this works on a full disk.
    pub(crate) fn touch(&self, nonce: u64, environments: BTreeSet<EnvId>) -> Result<(), WatchError> {
        let mut state = self.lock();
        state.pending.insert(nonce, environments);
        while state.pending.len() > Self::PENDING {
            state.pending.pop_first();
        }
        drop(state);
        self.open()?
            .set_modified(SystemTime::now())
            .map_err(|e| WatchError::io("set the time of", &self.file, e))
    }

    /// The file's event came through `env`: the nonces that are thereby answered.
    pub(crate) fn heard(&self, env: EnvId) -> Vec<u64> {
        let mut answered = Vec::new();
        self.lock().pending.retain(|nonce, waiting| {
            waiting.remove(&env);
            if waiting.is_empty() {
                answered.push(*nonce);
            }
            !waiting.is_empty()
        });
        answered
    }
}
