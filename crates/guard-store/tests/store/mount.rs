//! Small file systems that can be filled, and whose power can be cut.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use crate::support::{bash, is_root};

/// A small file system, unmounted when dropped.
pub(crate) struct Mount {
    temp: tempfile::TempDir,
}

impl Mount {
    /// `None`, and the reason printed, where this process may not mount.
    pub(crate) fn tmpfs(size: &str) -> Option<Self> {
        Self::new(|dir| format!("mount -t tmpfs -o size={size} guard-store-test {}", dir.display()))
    }

    pub(crate) fn ext4(size: &str) -> Option<Self> {
        Self::new(|dir| {
            let image = dir.with_extension("img");
            format!(
                "truncate -s {size} {image} && mkfs.ext4 -q -m 0 -F {image} && mount -o loop {image} {dir}",
                image = image.display(),
                dir = dir.display()
            )
        })
    }

    fn new(line: impl Fn(&Path) -> String) -> Option<Self> {
        if !is_root() {
            println!("skipped: mounting a small file system needs root");
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("disk");
        std::fs::create_dir(&dir).unwrap();
        match bash(temp.path(), &line(&dir)) {
            Ok(_) => Some(Self { temp }),
            Err(e) => {
                println!("skipped: this machine does not let us mount ({e})");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.temp.path().join("disk")
    }

    /// Fills the disk to the last block, as another program's log would.
    pub(crate) fn fill(&self) {
        let mut file = std::fs::File::create(self.path().join("somebody-elses.log")).unwrap();
        let mut size = 1024 * 1024;
        while size > 0 {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
            size /= 16;
        }
        file.sync_all().unwrap_or_default();
    }

    pub(crate) fn make_room(&self) {
        std::fs::remove_file(self.path().join("somebody-elses.log")).unwrap();
    }

    /// Takes the disk away in the middle of everything: nothing more is written,
    /// not even the journal (`EXT4_IOC_SHUTDOWN`, `NOLOGFLUSH`). False, and the
    /// reason printed, where that cannot be done here.
    pub(crate) fn cut_power(&self) -> bool {
        let script = "import fcntl, os, struct, sys; \
                      fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        match bash(&self.path(), &format!("python3 -c \"{script}\" .")) {
            Ok(_) => true,
            Err(e) => {
                println!("skipped: cannot shut the file system down ({e})");
                false
            }
        }
    }

    /// The disk comes back, as after a boot. It is a copy: while a mount namespace of somebody else holds the old mount,
    /// the kernel would give the file system that was shut down again.
    pub(crate) fn restore_power(&self) {
        let script = "umount disk && cp --sparse=always disk.img next.img && mv next.img disk.img && mount -o loop disk.img disk";
        bash(self.temp.path(), script).unwrap();
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily, because a test that failed leaves files open.
        if let Err(e) = bash(self.temp.path(), "umount --lazy disk") {
            println!("{e}");
        }
    }
}
