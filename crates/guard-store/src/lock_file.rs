//! Lock files: what everybody may read of an environment's state.
//!
//! `locks/ENV.lock` is line 1, a compact JSON object, followed by the SSHSIG
//! armour over line 1 *including its newline*, so that
//! `head -n1 ENV.lock | ssh-keygen -Y verify …` pipes the very bytes signed.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use guard_model::Stamp;
use guard_model::baseline::LockFile;

use crate::durable;
use crate::error::StoreError;
use crate::keys::{HostKey, NAMESPACE_LOCK, PublicKey};
use crate::state_dir::{StateDir, checked_name};

const MAX_BYTES: u64 = 64 * 1024;

/// A lock file's inode as it was seen: anything else at its name is tampering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockFileSeen {
    /// Device number.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Last change of content.
    pub mtime: Stamp,
    /// Last change of the inode.
    pub ctime: Stamp,
}

/// Why a lock file cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum LockFileError {
    /// Nothing is there.
    #[error("there is no lock file {}", .0.display())]
    Missing(std::path::PathBuf),
    /// It could not be read, or no regular file stands at its name.
    #[error("the lock file could not be read")]
    Unreadable(#[source] StoreError),
    /// Not one line of JSON and a signature.
    #[error("the lock file {} is malformed: {why}", path.display())]
    Malformed {
        /// The file.
        path: std::path::PathBuf,
        /// The parser's words.
        why: String,
    },
    /// Not signed by the host key.
    #[error("the lock file {} is not signed by the host key", path.display())]
    BadSignature {
        /// The file.
        path: std::path::PathBuf,
        /// Why not.
        #[source]
        source: StoreError,
    },
    /// A genuine lock file of another environment.
    #[error("the lock file {} belongs to environment {found:?}", path.display())]
    OtherEnvironment {
        /// The file.
        path: std::path::PathBuf,
        /// What it says.
        found: String,
    },
}

/// The mode of a lock file: everybody may read it.
pub const MODE: u32 = 0o644;

/// Replaces `locks/ENV.lock` ([`MODE`]) as a whole and says what stands there now.
///
/// # Errors
/// [`StoreError::BadName`], [`StoreError::Sign`], [`StoreError::Io`].
pub fn write(state: &StateDir, content: &LockFile, key: &HostKey) -> Result<LockFileSeen, StoreError> {
    let name = format!("{}.lock", checked_name(&content.environment)?);
    let mut text =
        serde_json::to_string(content).map_err(|source| StoreError::Json { what: "a lock file", source })?;
    text.push('\n');
    let armour = key.sign(NAMESPACE_LOCK, text.as_bytes())?;
    text.push_str(&armour);
    durable::replace(&state.locks(), &name, MODE, text.as_bytes())?;
    let path = state.locks().join(&name);
    seen_of(&durable::open_regular(&path)?, &path)
}

/// Reads and verifies a lock file.
///
/// # Errors
/// [`LockFileError`]; whatever it is, the file is not as guardd left it.
pub fn read_verified(path: &Path, key: &PublicKey) -> Result<(LockFile, LockFileSeen), LockFileError> {
    let file = match durable::open_regular(path) {
        Ok(file) => file,
        Err(e) if e.is_not_found() => return Err(LockFileError::Missing(path.to_owned())),
        Err(e) => return Err(LockFileError::Unreadable(e)),
    };
    let bytes = durable::read_opened(&file, path, MAX_BYTES).map_err(LockFileError::Unreadable)?;
    let content = parse_verified(path, &bytes, key)?;
    let expected = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".lock"));
    if expected.is_some_and(|name| name != content.environment) {
        return Err(LockFileError::OtherEnvironment { path: path.to_owned(), found: content.environment });
    }
    let seen = seen_of(&file, path).map_err(LockFileError::Unreadable)?;
    Ok((content, seen))
}

/// The inode that stands at a lock file's name now, without reading it.
///
/// # Errors
/// [`StoreError`] where nothing, or no regular file, is there.
pub fn seen(path: &Path) -> Result<LockFileSeen, StoreError> {
    seen_of(&durable::open_regular(path)?, path)
}

fn parse_verified(path: &Path, bytes: &[u8], key: &PublicKey) -> Result<LockFile, LockFileError> {
    let malformed = |why: &str| LockFileError::Malformed { path: path.to_owned(), why: why.to_owned() };
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is not UTF-8"))?;
    let end = text.find('\n').ok_or_else(|| malformed("it has no signature"))?;
    let (line, armour) = text.split_at_checked(end + 1).ok_or_else(|| malformed("it has no signature"))?;
    // The signature first: what nobody signed is not worth parsing.
    key.verify(NAMESPACE_LOCK, line.as_bytes(), armour)
        .map_err(|source| LockFileError::BadSignature { path: path.to_owned(), source })?;
    serde_json::from_str(line).map_err(|e| malformed(&e.to_string()))
}

fn seen_of(file: &File, path: &Path) -> Result<LockFileSeen, StoreError> {
    let meta = file.metadata().map_err(StoreError::io("examine", path))?;
    let stamp = |sec, nsec| Stamp { sec, nsec: u32::try_from(nsec).unwrap_or(0) };
    Ok(LockFileSeen {
        dev: meta.dev(),
        ino: meta.ino(),
        mtime: stamp(meta.mtime(), meta.mtime_nsec()),
        ctime: stamp(meta.ctime(), meta.ctime_nsec()),
    })
}
