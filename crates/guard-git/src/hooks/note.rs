//! The note of an installation: what was here before, so that it can be given back.

use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::layout::Layout;
use crate::error::GitError;

/// `guardd/install.json` in the common directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) format: u32,
    /// The environment that guards the repository; `None` where only contents are checked.
    pub(super) environment: Option<String>,
    pub(super) state_dir: PathBuf,
    /// The protected branches as they were at installation.
    pub(super) branches: Vec<String>,
    /// The program that the hooks call.
    pub(super) program: PathBuf,
    /// Where the hooks are.
    pub(super) directory: PathBuf,
    /// True where we made that directory.
    pub(super) made_directory: bool,
    pub(super) hooks: Vec<Kept>,
    /// What of `config` was changed.
    pub(super) config: Option<ConfigChange>,
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    pub(super) name: String,
    /// SHA-256 of ours.
    pub(super) sha256: String,
    /// True where a previous one waits beside it.
    pub(super) previous: bool,
}

/// How `core.hooksPath` came to point at us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ConfigChange {
    /// The repository's own value before; `None` where it came from elsewhere.
    pub(super) value_before: Option<String>,
    /// The directory that our hooks pass on to.
    pub(super) called: String,
    /// SHA-256 of `config` after our change: while it is that, the very bytes from before are put back.
    pub(super) sha256_after: String,
}

/// The name that a previous hook waits under.
pub(super) fn previous_name(hook: &str) -> String {
    format!("{hook}.before-guardd")
}

impl Note {
    pub(super) fn path(layout: &Layout) -> PathBuf {
        layout.own().join("install.json")
    }

    /// Where `config` is kept as it was.
    pub(super) fn config_before(layout: &Layout) -> PathBuf {
        layout.own().join("config.before")
    }

    pub(super) fn read(layout: &Layout) -> Result<Option<Self>, GitError> {
        let path = Self::path(layout);
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(GitError::io("read", &path)(e)),
        };
        serde_json::from_slice(&text).map(Some).map_err(|source| GitError::Note { path, source })
    }

    pub(super) fn write(&self, layout: &Layout) -> Result<(), GitError> {
        let path = Self::path(layout);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| GitError::Note { path: path.clone(), source })?;
        replace(&path, &text, 0o644)
    }

    pub(super) fn hook(&self, name: &str) -> Option<&Kept> {
        self.hooks.iter().find(|h| h.name == name)
    }
}

/// Writes a file under another name and renames it: git never sees half a hook.
pub(super) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), GitError> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let new = path.with_file_name(name);
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        // What the umask took away of it; a hook has to be executable.
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    write().map_err(|e| {
        std::fs::remove_file(&new).ok();
        GitError::io("write", path)(e)
    })
}

pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// The digest of a file, `None` where there is none.
pub(super) fn digest_of(path: &Path) -> Result<Option<String>, GitError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(digest(&bytes))),
        // `core.hooksPath=/dev/null`, which is no directory, is a way to have no hooks.
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(e) => Err(GitError::io("read", path)(e)),
    }
}
