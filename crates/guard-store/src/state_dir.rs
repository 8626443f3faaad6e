//! The state directory: its layout, its modes, and the lock that lets one
//! daemon at a time work on it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::durable;
use crate::error::StoreError;

/// Where everything lies below a state directory. Reading by these paths takes
/// no lock, so it works beside a running daemon and without one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatePaths {
    base: PathBuf,
}

impl StatePaths {
    /// The layout below `base`, which need not exist.
    #[must_use]
    pub fn new(base: &Path) -> Self {
        Self { base: base.to_owned() }
    }

    /// The state directory itself, 0711.
    #[must_use]
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// Ledger files, 0700.
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.base.join("ledger")
    }

    /// The host's private key, 0700.
    #[must_use]
    pub fn keys(&self) -> PathBuf {
        self.base.join("keys")
    }

    /// What anybody may read to verify signatures, 0755.
    #[must_use]
    pub fn public(&self) -> PathBuf {
        self.base.join("public")
    }

    /// Lock files, 0755.
    #[must_use]
    pub fn locks(&self) -> PathBuf {
        self.base.join("locks")
    }

    /// One environment's lock file.
    ///
    /// # Errors
    /// [`StoreError::BadName`].
    pub fn lock_file(&self, environment: &str) -> Result<PathBuf, StoreError> {
        Ok(self.locks().join(format!("{}.lock", checked_name(environment)?)))
    }

    /// Baselines of every environment, 0700.
    #[must_use]
    pub fn baselines(&self) -> PathBuf {
        self.base.join("baseline")
    }

    /// Baselines of one environment, 0700.
    ///
    /// # Errors
    /// [`StoreError::BadName`].
    pub fn baselines_of(&self, environment: &str) -> Result<PathBuf, StoreError> {
        Ok(self.baselines().join(checked_name(environment)?))
    }

    /// The directory of one generation, 0700.
    ///
    /// # Errors
    /// [`StoreError::BadName`].
    pub fn generation(&self, environment: &str, generation: u64) -> Result<PathBuf, StoreError> {
        Ok(self.baselines_of(environment)?.join(generation.to_string()))
    }

    /// Backups of every environment that has them here, 0700.
    #[must_use]
    pub fn backups(&self) -> PathBuf {
        self.base.join("backups")
    }

    /// Plans of operations that are under way, 0700.
    #[must_use]
    pub fn plans(&self) -> PathBuf {
        self.base.join("plans")
    }

    /// What was set aside as evidence, 0700.
    #[must_use]
    pub fn quarantine(&self) -> PathBuf {
        self.base.join("quarantine")
    }

    /// What the steps of deployments printed, 0700.
    #[must_use]
    pub fn deployments(&self) -> PathBuf {
        self.base.join("deployments")
    }

    /// What the steps of one environment's deployments printed, 0700.
    ///
    /// # Errors
    /// [`StoreError::BadName`].
    pub fn deployments_of(&self, environment: &str) -> Result<PathBuf, StoreError> {
        Ok(self.deployments().join(checked_name(environment)?))
    }

    /// Cursors of the alert sinks, 0700.
    #[must_use]
    pub fn sinks(&self) -> PathBuf {
        self.base.join("sinks")
    }

    /// The SQLite index.
    #[must_use]
    pub fn index(&self) -> PathBuf {
        self.base.join("guardd.db")
    }

    /// The file whose lock a daemon holds; its text is the daemon's pid.
    #[must_use]
    pub fn daemon_lock(&self) -> PathBuf {
        self.base.join("daemon.lock")
    }

    fn tree(&self) -> [(PathBuf, u32); 11] {
        [
            (self.base.clone(), 0o711),
            (self.locks(), 0o755),
            (self.public(), 0o755),
            (self.ledger(), 0o700),
            (self.keys(), 0o700),
            (self.baselines(), 0o700),
            (self.backups(), 0o700),
            (self.plans(), 0o700),
            (self.quarantine(), 0o700),
            (self.sinks(), 0o700),
            (self.deployments(), 0o700),
        ]
    }
}

/// The state directory of a running daemon: laid out, with the right modes,
/// and locked against a second daemon until the last clone is dropped.
#[derive(Debug, Clone)]
pub struct StateDir {
    paths: StatePaths,
    _lock: Arc<File>,
}

impl StateDir {
    /// Makes what is missing, sets the modes, and takes the lock.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where another daemon holds it, [`StoreError::NotOurs`]
    /// where a directory belongs to another user, [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        DirBuilder::new().recursive(true).create(path).map_err(StoreError::io("make", path))?;
        let base = path.canonicalize().map_err(StoreError::io("find", path))?;
        let paths = StatePaths::new(&base);
        for (dir, mode) in paths.tree() {
            make_dir(&dir, mode)?;
        }
        durable::sync_dir(&base)?;
        if let Some(Err(error)) = base.parent().map(durable::sync_dir) {
            // Not ours, and perhaps not readable for us; then it was there before.
            tracing::debug!(error = error.with_causes(), "cannot make the state directory's name durable");
        }
        let lock = take_lock(&paths)?;
        for dir in [base, paths.locks(), paths.public(), paths.keys(), paths.plans()] {
            remove_unfinished(&dir);
        }
        Ok(Self { paths, _lock: Arc::new(lock) })
    }

    /// Where everything lies.
    #[must_use]
    pub fn paths(&self) -> &StatePaths {
        &self.paths
    }

    /// The state directory itself, canonical.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.paths.base()
    }
}

impl std::ops::Deref for StateDir {
    type Target = StatePaths;
    fn deref(&self) -> &StatePaths {
        &self.paths
    }
}

/// Removes files that a crash left before they got their names. They only take space: what could not
/// be removed is no reason not to start.
fn remove_unfinished(dir: &Path) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    for entry in
        entries.filter(|e| e.file_name().as_encoded_bytes().ends_with(durable::UNFINISHED.as_bytes()))
    {
        if entry.file_type().is_ok_and(|kind| kind.is_file())
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "cannot remove what was not finished");
        }
    }
}

/// Makes a directory of ours if it is missing and gives it exactly `mode`.
pub(crate) fn make_dir(path: &Path, mode: u32) -> Result<(), StoreError> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(StoreError::io("make", path)(e));
        }
        _ => {}
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle: File =
        rustix::fs::open(path, flags, Mode::empty()).map_err(StoreError::sys("open", path))?.into();
    let meta = handle.metadata().map_err(StoreError::io("examine", path))?;
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != us {
        return Err(StoreError::NotOurs { path: path.to_owned(), owner: meta.uid(), us });
    }
    if meta.mode() & 0o7777 != mode {
        rustix::fs::fchmod(&handle, Mode::from_raw_mode(mode))
            .map_err(StoreError::sys("set the mode of", path))?;
    }
    Ok(())
}

fn take_lock(paths: &StatePaths) -> Result<File, StoreError> {
    let path = paths.daemon_lock();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let read = (&file).take(32).read_to_string(&mut text);
            let pid = read.ok().and_then(|_| text.trim().parse().ok());
            return Err(StoreError::InUse { path: paths.base().to_owned(), pid });
        }
        Err(e) => return Err(StoreError::sys("lock", &path)(e)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(pid.as_bytes()))
        .map_err(StoreError::io("write", &path))?;
    Ok(file)
}

/// Refuses names that are no plain file name, or would hide or confuse one.
pub(crate) fn checked_name(name: &str) -> Result<&str, StoreError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let starts_well = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    if starts_well && name.len() <= 64 && name.chars().all(plain) {
        Ok(name)
    } else {
        Err(StoreError::BadName { name: name.to_owned() })
    }
}
