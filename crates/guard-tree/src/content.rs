//! The bytes of one small file.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;

use guard_model::RelPath;
use guard_sys::open::How;
use guard_sys::procfd;
use guard_sys::stat::{self, FileType};

use crate::{Root, TreeError};

impl Root {
    /// What the regular file at `path` holds; `None` where something else or nothing is there, or it holds more than
    /// `most` bytes.
    ///
    /// # Errors
    /// [`TreeError::Io`] where it cannot be read.
    pub fn content_of(&self, path: &RelPath, most: u64) -> Result<Option<Vec<u8>>, TreeError> {
        let failed = |operation| move |source| TreeError::Io { operation, path: self.absolute(path), source };
        let handle = self.open_beneath(path, How::Locate).map_err(failed("open"))?;
        let stat = stat::of(handle.as_fd()).map_err(failed("stat"))?;
        if stat.kind != FileType::RegularFile || stat.size > most {
            return Ok(None);
        }
        let file = File::from(procfd::reopen(handle.as_fd(), How::Read).map_err(failed("open"))?);
        let mut bytes = Vec::new();
        file.take(most.saturating_add(1)).read_to_end(&mut bytes).map_err(failed("read"))?;
        Ok((bytes.len() as u64 <= most).then_some(bytes))
    }
}
