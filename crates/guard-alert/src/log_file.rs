//! A log file: one line, one write(2).

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use guard_model::ledger::Record;

use crate::error::OutletError;
use crate::kinds::Log;
use crate::notice::Notice;
use crate::outlet::Outlet;
use crate::render::Renderer;

/// One of the log files. It follows its path: a file that was renamed, deleted
/// or replaced is left for whatever belongs at the path now.
pub(crate) struct LogFile {
    log: Log,
    path: PathBuf,
    file: Option<File>,
    /// To be opened anew, even where it stands at its path.
    anew: bool,
    /// What is left of a line that the disk had no room for.
    rest: Option<Vec<u8>>,
    renderer: Renderer,
}

impl LogFile {
    /// Mode of a new log file: for root and the group that reads logs.
    const MODE: u32 = 0o640;
    /// Mode of the directory where it has to be made anew.
    const DIRECTORY_MODE: u32 = 0o750;

    pub(crate) fn new(log: Log, directory: &Path) -> Self {
        let path = directory.join(log.file_name());
        Self { log, path, file: None, anew: false, rest: None, renderer: Renderer::default() }
    }

    fn ours(&self, mut notices: Vec<Notice>) -> Vec<Notice> {
        notices.retain(|n| n.kind.logs.contains(&self.log));
        notices
    }

    /// Makes sure that `self.file` is what stands at the path.
    fn open(&mut self) -> Result<&mut File, OutletError> {
        let at_path = self.path.symlink_metadata().ok().map(|m| (m.dev(), m.ino()));
        // Open until the end, so that its inode number cannot come again meanwhile.
        let old = self.file.take();
        let before = old.as_ref().and_then(identity);
        let anew = std::mem::take(&mut self.anew);
        let file = match old {
            Some(old) if !anew && before.is_some() && before == at_path => old,
            old => {
                let file = self.open_anew()?;
                // In another file a line begins at its beginning.
                if before.is_none() || identity(&file) != before {
                    self.rest = None;
                    end_last_line(&file).map_err(|e| OutletError::io("write to", &self.path, e))?;
                }
                drop(old);
                file
            }
        };
        Ok(self.file.insert(file))
    }

    fn open_anew(&self) -> Result<File, OutletError> {
        let failed = |operation, e| OutletError::io(operation, &self.path, e);
        let mut options = OpenOptions::new();
        // Not a fifo's writer, not somebody's terminal, nothing behind a link.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        options.read(true).append(true).mode(Self::MODE).custom_flags(flags.bits().cast_signed());
        let file = match options.open(&self.path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                self.make_directory()?;
                let file = options.create_new(true).open(&self.path).map_err(|e| failed("make", e))?;
                // Whatever the umask is.
                let mode = Permissions::from_mode(Self::MODE);
                file.set_permissions(mode).map_err(|e| failed("set the mode of", e))?;
                file
            }
            opened => opened.map_err(|e| failed("open", e))?,
        };
        if !file.metadata().map_err(|e| failed("look at", e))?.is_file() {
            return Err(OutletError::NotAFile(self.path.clone()));
        }
        Ok(file)
    }

    fn make_directory(&self) -> Result<(), OutletError> {
        let Some(directory) = self.path.parent() else { return Ok(()) };
        let mut builder = std::fs::DirBuilder::new();
        match builder.recursive(true).mode(Self::DIRECTORY_MODE).create(directory) {
            Ok(()) => Ok(()),
            Err(e) => Err(OutletError::io("make the directory", directory, e)),
        }
    }
}

fn identity(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|m| (m.dev(), m.ino()))
}

/// A line that was torn by a full disk and a stop after it must not swallow the next one.
fn end_last_line(mut file: &File) -> io::Result<()> {
    let mut last = [b'\n'];
    if let Some(at) = file.metadata()?.len().checked_sub(1) {
        file.read_at(&mut last, at)?;
    }
    if last == *b"\n" { Ok(()) } else { file.write_all(b"\n") }
}

impl Outlet for LogFile {
    type Piece = Notice;

    fn pieces(&mut self, record: &Record) -> Vec<Notice> {
        let notices = self.renderer.notices(record);
        self.ours(notices)
    }

    fn undurable(&self, record: &Record) -> Vec<Notice> {
        self.ours(Renderer::undurable(record))
    }

    fn deliver(&mut self, piece: &Notice) -> Result<(), OutletError> {
        self.open()?;
        let line = match self.rest.take() {
            Some(rest) => rest,
            None => {
                let mut line = piece.line().into_bytes();
                line.push(b'\n');
                line
            }
        };
        let path = &self.path;
        let Some(file) = self.file.as_mut() else { return Err(OutletError::NotAFile(path.clone())) };
        match file.write(&line) {
            Ok(n) if n == line.len() => Ok(()),
            Ok(n) => {
                self.rest = line.get(n..).map(<[u8]>::to_vec);
                Err(OutletError::io("write the whole line to", path, io::ErrorKind::StorageFull.into()))
            }
            Err(e) => {
                if line.len() < piece.line().len() {
                    self.rest = Some(line);
                }
                Err(OutletError::io("write to", path, e))
            }
        }
    }

    fn settle(&mut self) -> Result<(), OutletError> {
        // Made as soon as guardd runs, so that `tail -f` has something to follow.
        let file = self.open()?;
        let done = file.sync_data();
        done.map_err(|e| OutletError::io("sync", &self.path, e))
    }

    fn reopen(&mut self) {
        self.anew = true;
    }
}
