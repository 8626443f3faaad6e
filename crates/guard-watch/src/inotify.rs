//! inotify through the `notify` crate, one directory at a time.
//!
//! What that crate lacks is made up for here and in the worker:
//! - It watches OPEN and so echoes our own hashing: dropped first thing in the callback.
//! - Its thread can end without telling: the callback's `Drop` tells. Calling it
//!   then panics: caught.
//! - For each directory that goes it compares the path of every directory it
//!   has (0.2 µs each): with 15,000 directories it is deaf for half a minute
//!   after an `rm -rf`. So there are up to [`SHARES`] of it, each with a share of
//!   the directories, which makes the same `rm -rf` cost a second of one core.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use notify::event::{
    AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RemoveKind, RenameMode,
};
use notify::{Config, ErrorKind, EventHandler, INotifyWatcher, RecursiveMode, Watcher as _};

use crate::backend::{Backend, Interest, Refusal};
use crate::canary;
use crate::error::WatchError;
use crate::inbox::{Inbox, News};

/// inotify instances for one environment, of the 128 that a user may have by
/// default (`/proc/sys/fs/inotify/max_user_instances`). A small tree has fewer,
/// because one is made only when the first directory falls to it.
const SHARES: usize = 16;

/// Runs on notify's thread; never waits.
struct Reader {
    inbox: Arc<Inbox>,
    generation: u64,
    share: u8,
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
                    if let Some(canary) = canary::number_of(&path, &self.interest.canaries) {
                        self.inbox.canary(canary, self.share);
                    } else if self.interest.has(&path) {
                        // The directories above the root hold much that is not ours.
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
enum Share {
    Unmade,
    Made(INotifyWatcher),
    /// The kernel gave no instance; the first share stands in for good.
    Refused,
}

/// The directories of one environment, shared out.
struct Inotify {
    /// The first one is always made.
    shares: [Share; SHARES],
    inbox: Arc<Inbox>,
    generation: u64,
    interest: Interest,
}

/// A [`crate::backend::Start`].
pub(crate) fn start(
    inbox: &Arc<Inbox>,
    generation: u64,
    interest: Interest,
) -> Result<Box<dyn Backend>, WatchError> {
    let shares = [const { Share::Unmade }; SHARES];
    let mut inotify = Inotify { shares, inbox: Arc::clone(inbox), generation, interest };
    let first = inotify.reader(0).map_err(WatchError::Backend)?;
    if let Some(share) = inotify.shares.first_mut() {
        *share = Share::Made(first);
    }
    Ok(Box::new(inotify))
}

impl Inotify {
    fn reader(&self, share: u8) -> notify::Result<INotifyWatcher> {
        let (inbox, interest) = (Arc::clone(&self.inbox), self.interest.clone());
        self.inbox.started(self.generation);
        let reader = Reader { inbox, generation: self.generation, share, interest };
        INotifyWatcher::new(reader, Config::default().with_follow_symlinks(false))
    }

    /// The instance that this directory falls to.
    fn share_of(&mut self, directory: &Path) -> Option<&mut INotifyWatcher> {
        let mut hasher = DefaultHasher::new();
        directory.hash(&mut hasher);
        let number = u8::try_from(hasher.finish() % SHARES as u64).unwrap_or(0);
        let index = usize::from(number);
        if matches!(self.shares.get(index), Some(Share::Unmade)) {
            let made = self.make(number);
            if let Some(share) = self.shares.get_mut(index) {
                *share = made;
            }
        }
        let index = if matches!(self.shares.get(index), Some(Share::Made(_))) { index } else { 0 };
        match self.shares.get_mut(index) {
            Some(Share::Made(watcher)) => Some(watcher),
            _ => None,
        }
    }

    fn make(&self, number: u8) -> Share {
        match self.reader(number) {
            Ok(mut watcher) => {
                // Where this fails the canary stays silent, which is what it is for.
                if let Err(refusal) = watch(&mut watcher, &self.interest.canaries) {
                    tracing::warn!(?refusal, "the canaries cannot be watched");
                }
                Share::Made(watcher)
            }
            Err(error) => {
                tracing::warn!(%error, "fewer inotify instances than wanted; raise /proc/sys/fs/inotify/max_user_instances");
                Share::Refused
            }
        }
    }
}

impl Backend for Inotify {
    fn watch(&mut self, directory: &Path) -> Result<(), Refusal> {
        self.share_of(directory).map_or(Err(Refusal::Ended), |watcher| watch(watcher, directory))
    }

    fn unwatch(&mut self, directory: &Path) {
        if let Some(watcher) = self.share_of(directory) {
            // An error says that there is no such watch, which is what was asked for.
            drop(catch_unwind(AssertUnwindSafe(|| watcher.unwatch(directory))));
        }
    }

    fn watch_canaries(&mut self) -> Result<(), Refusal> {
        for share in &mut self.shares {
            if let Share::Made(watcher) = share {
                watch(watcher, &self.interest.canaries)?;
            }
        }
        Ok(())
    }

    fn readers(&self) -> u32 {
        let bits = (0u32..).zip(&self.shares).filter(|(_, share)| matches!(share, Share::Made(_)));
        bits.fold(0, |mask, (bit, _)| mask | 1 << bit)
    }
}

fn watch(watcher: &mut INotifyWatcher, directory: &Path) -> Result<(), Refusal> {
    // notify panics where its thread has ended.
    match catch_unwind(AssertUnwindSafe(|| watcher.watch(directory, RecursiveMode::NonRecursive))) {
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
