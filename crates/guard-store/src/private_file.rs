//! Small files that only the daemon may read.

use std::path::Path;

use guard_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::durable;
use crate::error::StoreError;

/// Replaces a file (0600) as a whole; it is on the disk when this returns.
///
/// # Errors
/// [`StoreError::Io`].
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    durable::replace(dir, &name, 0o600, bytes)
}

/// SHA-256 of a regular file's content; links are not followed, fifos not waited for.
///
/// # Errors
/// [`StoreError::Io`], [`StoreError::Damaged`] where it is no regular file.
pub fn file_digest(path: &Path) -> Result<Digest, StoreError> {
    let mut file = durable::open_regular(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let n = std::io::Read::read(&mut file, &mut buffer).map_err(StoreError::io("read", path))?;
        if n == 0 {
            return Ok(Digest(hash.finalize().into()));
        }
        hash.update(buffer.get(..n).unwrap_or_default());
    }
}
