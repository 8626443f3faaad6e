//! Reading a file's content for somebody else, such as a backup.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;

use guard_model::RelPath;
use guard_sys::open::How;
use guard_sys::procfd::reopen;
use guard_sys::stat::{self, FileType};

use crate::{Root, TreeError};

impl Root {
    /// Opens the regular file at `path` to read it, if, and only if, it still is this one (device, inode).
    /// Follows no symbolic link. Whoever reads it has to find out himself whether it changed
    /// meanwhile: by its digest.
    ///
    /// # Errors
    /// [`TreeError::Io`] where it cannot be opened, [`TreeError::NotThisFile`].
    pub fn open_file(&self, path: &RelPath, identity: (u64, u64)) -> Result<File, TreeError> {
        let failed = |operation| {
            move |source: io::Error| TreeError::Io { operation, path: self.absolute(path), source }
        };
        let handle = self.open_beneath(path, How::Locate).map_err(failed("open"))?;
        let stat = stat::of(handle.as_fd()).map_err(failed("stat"))?;
        if stat.identity() != identity || stat.kind != FileType::RegularFile {
            return Err(TreeError::NotThisFile { path: self.absolute(path) });
        }
        reopen(handle.as_fd(), How::Read).map(File::from).map_err(failed("open"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn only_the_very_file_is_opened() {
        let top = tempfile::tempdir().unwrap();
        let root = Root::open(top.path()).unwrap();
        let file = top.path().join("f");
        std::fs::write(&file, "content").unwrap();
        let path = RelPath::from_text("f").unwrap();
        let stat = stat::absolute(&file).unwrap();
        let mut text = String::new();
        root.open_file(&path, stat.identity()).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");

        let ino = std::fs::metadata(&file).unwrap().ino();
        let other = root.open_file(&path, (stat.identity().0, ino + 1));
        assert!(matches!(other, Err(TreeError::NotThisFile { .. })));
        std::fs::rename(&file, top.path().join("g")).unwrap();
        assert!(matches!(root.open_file(&path, stat.identity()), Err(TreeError::Io { .. })));
        std::os::unix::fs::symlink("g", &file).unwrap();
        assert!(root.open_file(&path, stat.identity()).is_err());
        let dir = stat::absolute(top.path()).unwrap();
        assert!(root.open_file(&RelPath::root(), dir.identity()).is_err());
    }
}
