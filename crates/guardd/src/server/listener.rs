//! The listening socket: made with the right owner and mode, or not at all.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// The control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("another guardd answers at {}", .0.display())]
    InUse(PathBuf),
    #[error("cannot {operation} {}", path.display())]
    Io {
        operation: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A listening socket with its file.
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
    group: Option<u32>,
    identity: (u64, u64),
}

impl Listener {
    /// Makes `path`, mode 0660 of `group`, or 0600 without one.
    ///
    /// The socket is bound in a directory that only we may enter, gets its
    /// owner and mode there, and is then renamed into place, so that nobody can
    /// connect before it is as it should be. A dead daemon's file is replaced.
    pub(crate) fn bind(path: &Path, group: Option<u32>) -> Result<Self, BindError> {
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(BindError::InUse(path.to_owned()));
        }
        Self::make(path, group)
    }

    fn make(path: &Path, group: Option<u32>) -> Result<Self, BindError> {
        let failed = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| BindError::Io { operation, path, source }
        };
        let dir = path.parent().unwrap_or(Path::new("/"));
        let private = dir.join(format!(".making-{}", std::process::id()));
        match std::fs::remove_dir_all(&private) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &private)(e)),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&private).map_err(failed("make", &private))?;
        let made = (|| {
            let inside = private.join("socket");
            let socket = UnixListener::bind(&inside).map_err(failed("bind", &inside))?;
            let mode = if group.is_some() { 0o660 } else { 0o600 };
            std::fs::set_permissions(&inside, Permissions::from_mode(mode))
                .map_err(failed("set the mode of", &inside))?;
            if let Some(gid) = group {
                std::os::unix::fs::chown(&inside, None, Some(gid))
                    .map_err(failed("give to its group", &inside))?;
            }
            std::fs::rename(&inside, path).map_err(failed("rename into place", path))?;
            let meta = path.symlink_metadata().map_err(failed("look at", path))?;
            Ok(Self { socket, path: path.to_owned(), group, identity: (meta.dev(), meta.ino()) })
        })();
        // An empty directory left behind hurts nobody; the next start removes it.
        std::fs::remove_dir_all(&private).ok();
        made
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.socket.accept().await.map(|(stream, _)| stream)
    }

    /// A new socket in place of one whose file is gone or is not ours any more.
    pub(crate) fn replaced(&self) -> Option<Self> {
        let still = self.path.symlink_metadata().is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if still {
            return None;
        }
        match Self::make(&self.path, self.group) {
            Ok(again) => Some(again),
            Err(e) => {
                tracing::error!(error = %crate::failure::chain(&e), "the control socket is gone and cannot be made");
                None
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ours = self.path.symlink_metadata().is_ok_and(|m| (m.dev(), m.ino()) == self.identity);
        if ours {
            // A file that stays refuses connections, which clients understand.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn has_its_mode_from_the_start_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        std::fs::write(&path, "left behind by a dead daemon").unwrap();
        let l = Listener::bind(&path, None).unwrap();
        assert_eq!(path.symlink_metadata().unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(matches!(Listener::bind(&path, None), Err(BindError::InUse(_))));
        assert!(l.replaced().is_none());
        std::fs::remove_file(&path).unwrap();
        let again = l.replaced().unwrap();
        drop(l);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        drop(again);
        assert!(!path.exists());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
