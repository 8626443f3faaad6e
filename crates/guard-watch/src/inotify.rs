//! inotify through the `notify` crate, one directory at a time.
//!
//! What that crate lacks is made up for here and in the worker: it watches
//! OPEN and so echoes our own hashing (dropped first thing in the callback), its
//! thread can end without telling (the callback's `Drop` tells), calling it then
//! panics (caught), and it reports an overflow only as a flag.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use notify::event::{
    AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RemoveKind, RenameMode,
};
use notify::{Config, ErrorKind, EventHandler, INotifyWatcher, RecursiveMode, Watcher as _};

use crate::backend::{Backend, Interest, Refusal};
use crate::error::WatchError;
use crate::inbox::{Inbox, News};

/// Runs on notify's thread; never waits.
struct Reader {
    inbox: Arc<Inbox>,
    generation: u64,
    interest: Interest,
}

impl EventHandler for Reader {
    fn handle_event(&mut self, event: notify::Result<Event>) {
        match event {
            // First of all, before any lock: reading files, ours included, is no news.
            Ok(event) if is_reading(event.kind) => {}
            Ok(event) if event.need_rescan() => self.inbox.overflow(),
            Ok(event) => {
                let Some(news) = news_of(event.kind) else { return };
                for path in event.paths {
                    // The directories above the root hold much that is not ours.
                    if self.interest.has(&path) {
                        self.inbox.path(path, news);
                    }
                }
            }
            Err(error) => self.inbox.error(error.to_string()),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.inbox.ended(self.generation);
    }
}

/// True for events that leave everything as it was. The end of writing is not
/// one of them: for a change through a mapping it is the only event there is.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

fn news_of(kind: EventKind) -> Option<News> {
    match kind {
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Metadata(_)) => {
            Some(News::Changed)
        }
        EventKind::Create(CreateKind::File) | EventKind::Remove(RemoveKind::File) => Some(News::File),
        // The two halves came before it.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) => None,
        // Whether a renamed thing is a directory is not told.
        _ => Some(News::Structure),
    }
}

/// One inotify instance with its reader thread.
struct Inotify(INotifyWatcher);

/// A [`crate::backend::Start`].
pub(crate) fn start(
    inbox: &Arc<Inbox>,
    generation: u64,
    interest: Interest,
) -> Result<Box<dyn Backend>, WatchError> {
    let reader = Reader { inbox: Arc::clone(inbox), generation, interest };
    let config = Config::default().with_follow_symlinks(false);
    let watcher = INotifyWatcher::new(reader, config).map_err(WatchError::Backend)?;
    Ok(Box::new(Inotify(watcher)))
}

impl Backend for Inotify {
    fn watch(&mut self, directory: &Path) -> Result<(), Refusal> {
        // notify panics where its thread has ended.
        let watch = AssertUnwindSafe(|| self.0.watch(directory, RecursiveMode::NonRecursive));
        match catch_unwind(watch) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(match error.kind {
                ErrorKind::MaxFilesWatch => Refusal::Limit,
                ErrorKind::PathNotFound | ErrorKind::WatchNotFound => Refusal::Gone,
                ErrorKind::Io(error) if error.kind() == std::io::ErrorKind::NotFound => Refusal::Gone,
                ErrorKind::Io(error) => Refusal::Other(error.to_string()),
                _ => Refusal::Other(error.to_string()),
            }),
            Err(_) => Err(Refusal::Ended),
        }
    }

    fn unwatch(&mut self, directory: &Path) {
        // An error says that there is no such watch, which is what was asked for.
        drop(catch_unwind(AssertUnwindSafe(|| self.0.unwatch(directory))));
    }
}
