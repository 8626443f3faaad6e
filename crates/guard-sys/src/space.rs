//! Room on a file system.

use std::io;
use std::path::Path;

/// Bytes that this process may still write where `path` lies.
///
/// # Errors
/// statvfs(3)'s.
pub fn free(path: &Path) -> io::Result<u64> {
    let found = rustix::fs::statvfs(path)?;
    let blocks = if rustix::process::geteuid().is_root() { found.f_bfree } else { found.f_bavail };
    Ok(blocks.saturating_mul(found.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_where_there_is_a_file_system() {
        assert!(free(Path::new("/")).is_ok());
        assert!(free(Path::new("/nonexistent")).is_err());
    }
}
