//! Mounts that come and go: no event of inotify tells of them, so the mount
//! table is waited for.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use guard_sys::mounts::{Mount, Table, Woken};

/// A thread that waits for the mount table.
#[derive(Debug)]
pub(crate) struct Mounts {
    /// Closing it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Mounts {
    /// Calls `changed` with each place where something was mounted or unmounted.
    pub(crate) fn watch(changed: impl Fn(&Path) + Send + 'static) -> io::Result<Self> {
        let mut table = Table::open()?;
        let known = table.read()?.into_iter().collect();
        let (reader, stop) = io::pipe()?;
        let thread = std::thread::Builder::new()
            .name("watch-mounts".to_owned())
            .spawn(move || follow(table, known, &reader, &changed))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that waits for mounts had panicked");
        }
    }
}

fn follow(mut table: Table, mut known: BTreeSet<Mount>, stop: &PipeReader, changed: &impl Fn(&Path)) {
    loop {
        let now: io::Result<Vec<Mount>> = match table.wait(stop.as_fd()) {
            Ok(Woken::Other) => return,
            Ok(Woken::Changed) => table.read(),
            Err(e) => Err(e),
        };
        let now: BTreeSet<Mount> = match now {
            Ok(mounts) => mounts.into_iter().collect(),
            Err(error) => {
                tracing::error!(%error, "mounts are not followed any more; rehashes find what is mounted over a path");
                return;
            }
        };
        let places: BTreeSet<PathBuf> = known
            .symmetric_difference(&now)
            .map(|mount| PathBuf::from(OsStr::from_bytes(&mount.point)))
            .collect();
        places.iter().for_each(|place| changed(place));
        known = now;
    }
}
