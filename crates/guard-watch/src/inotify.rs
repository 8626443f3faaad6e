//! inotify through the `notify` crate, one directory at a time.
//!
//! What that crate lacks is made up for here and in the worker:
//! - It watches OPEN and so echoes our own hashing: dropped first thing in the callback.
//! - Its thread can end without telling: the callback's `Drop` tells. Calling it
//!   then panics: caught.
//! - For each directory that goes it compares the path of every directory it
//!   has (0.2 µs each): with 15,000 directories it is deaf for half a minute
//!   after an `rm -rf`. So a large tree has up to [`SHARES`] of it, each with a
//!   share of the directories, and the same `rm -rf` makes nobody wait.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use notify::event::{
    AccessKind, AccessMode, CreateKind, Event, EventKind, ModifyKind, RemoveKind, RenameMode,
};
use notify::{Config, ErrorKind, EventHandler, INotifyWatcher, RecursiveMode, Watcher as _};

use crate::backend::{Backend, Interest, Kind, Refusal};
use crate::canary;
use crate::error::WatchError;
use crate::inbox::{Inbox, News};

/// inotify instances for one environment, at most.
const SHARES: usize = 16;
/// Up to so many directories one instance will do.
const ALONE: usize = 1024;
/// Instances beyond the first one of each environment, in the whole process: a
/// user has 128 by default (`/proc/sys/fs/inotify/max_user_instances`), which
/// further environments and other programs need too.
const EXTRAS: usize = 48;

static EXTRAS_TAKEN: AtomicUsize = AtomicUsize::new(0);

/// A claim on one of the [`EXTRAS`].
struct Extra;

impl Extra {
    fn claim() -> Option<Self> {
        let more = |taken| (taken < EXTRAS).then_some(taken + 1);
        EXTRAS_TAKEN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self)
    }
}

impl Drop for Extra {
    fn drop(&mut self) {
        EXTRAS_TAKEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs on notify's thread; never waits.
struct Reader {
    inbox: Arc<Inbox>,
    generation: u64,
    share: u8,
    interest: Interest,
    /// False until its thread runs: what never began cannot end.
    runs: Arc<AtomicBool>,
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
                        match is_complete(event.kind) {
                            true => self.inbox.complete(path, news, None),
                            false => self.inbox.path(path, news, None),
                        }
                    }
                }
            }
            Err(error) => self.inbox.error(error.to_string()),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.runs.load(Ordering::Acquire) {
            self.inbox.ended(self.generation);
        }
    }
}

/// True for events that leave everything as it was. The end of writing is not
/// one of them: for a change through a mapping it is the only event there is.
fn is_reading(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}

/// Nothing more need be on its way.
fn is_complete(kind: EventKind) -> bool {
    matches!(kind, EventKind::Access(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_)))
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
struct Instance {
    watcher: INotifyWatcher,
    /// False where the canaries could not be watched (the limit on watches), so
    /// that it cannot be asked to hear one.
    hears: bool,
    _extra: Option<Extra>,
}

enum Share {
    Unmade,
    Made(Instance),
    /// There can be no more instances; the first one stands in for good.
    Refused,
}

/// The directories of one environment, shared out.
struct Instances {
    first: Instance,
    /// By the hash of a directory's path. Those that were watched before the
    /// tree was large are with the first one.
    shares: [Share; SHARES - 1],
    /// Watches put up and not taken down, about.
    watches: usize,
    inbox: Arc<Inbox>,
    generation: u64,
    interest: Interest,
}

struct Inotify {
    instances: Mutex<Instances>,
    /// Why it is not fanotify, where that was wanted.
    instead: Option<String>,
}

/// A [`crate::backend::Start`].
pub(crate) fn start(
    inbox: &Arc<Inbox>,
    generation: u64,
    interest: Interest,
) -> Result<Box<dyn Backend>, WatchError> {
    start_instead(inbox, generation, interest, None)
}

/// The same where fanotify was wanted and cannot be had.
pub(crate) fn start_instead(
    inbox: &Arc<Inbox>,
    generation: u64,
    interest: Interest,
    instead: Option<String>,
) -> Result<Box<dyn Backend>, WatchError> {
    let first = instance(inbox, generation, &interest, 0, None).map_err(WatchError::Backend)?;
    let shares = [const { Share::Unmade }; SHARES - 1];
    let inbox = Arc::clone(inbox);
    let instances = Instances { first, shares, watches: 0, inbox, generation, interest };
    Ok(Box::new(Inotify { instances: Mutex::new(instances), instead }))
}

fn instance(
    inbox: &Arc<Inbox>,
    generation: u64,
    interest: &Interest,
    share: u8,
    extra: Option<Extra>,
) -> notify::Result<Instance> {
    let runs = Arc::new(AtomicBool::new(false));
    let reader = Reader {
        inbox: Arc::clone(inbox),
        generation,
        share,
        interest: interest.clone(),
        runs: Arc::clone(&runs),
    };
    let mut watcher = INotifyWatcher::new(reader, Config::default().with_follow_symlinks(false))?;
    inbox.started(generation);
    runs.store(true, Ordering::Release);
    let hears = watch(&mut watcher, &interest.canaries).is_ok();
    Ok(Instance { watcher, hears, _extra: extra })
}

/// Which of the shares a directory falls to.
fn number_of(directory: &Path) -> usize {
    let mut hasher = DefaultHasher::new();
    directory.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHARES as u64).unwrap_or(0)
}

impl Instances {
    /// The share beyond the first that this directory falls to, if it does.
    fn share_of(&mut self, directory: &Path) -> Option<&mut Share> {
        self.shares.get_mut(number_of(directory).checked_sub(1)?)
    }

    /// The instance to watch this directory by.
    fn instance_for(&mut self, directory: &Path) -> &mut Instance {
        let is_large = self.watches >= ALONE;
        if is_large && matches!(self.share_of(directory), Some(Share::Unmade)) {
            let made = self.make(number_of(directory));
            if let Some(share) = self.share_of(directory) {
                *share = made;
            }
        }
        // Not by `share_of`, whose borrow would hold `first` as well.
        match number_of(directory).checked_sub(1).and_then(|i| self.shares.get_mut(i)) {
            Some(Share::Made(instance)) => instance,
            _ => &mut self.first,
        }
    }

    fn make(&self, number: usize) -> Share {
        let (Some(extra), Ok(number)) = (Extra::claim(), u8::try_from(number)) else { return Share::Refused };
        match instance(&self.inbox, self.generation, &self.interest, number, Some(extra)) {
            Ok(instance) => Share::Made(instance),
            Err(error) => {
                tracing::warn!(%error, "fewer inotify instances than wanted; raise /proc/sys/fs/inotify/max_user_instances");
                Share::Refused
            }
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Instance> {
        let shares = self.shares.iter_mut().filter_map(|share| match share {
            Share::Made(instance) => Some(instance),
            _ => None,
        });
        std::iter::once(&mut self.first).chain(shares)
    }
}

impl Inotify {
    fn instances(&self) -> MutexGuard<'_, Instances> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Backend for Inotify {
    fn watch(&self, directory: &Path, _: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
        let mut instances = self.instances();
        watch(&mut instances.instance_for(directory).watcher, directory)?;
        instances.watches += 1;
        Ok(())
    }

    fn watch_itself(&self, _: &Path) -> Result<(), Refusal> {
        // The watch on what holds it tells.
        Ok(())
    }

    fn unwatch(&self, directory: &Path) {
        let mut instances = self.instances();
        // From before the tree was large, or from after.
        unwatch(&mut instances.first.watcher, directory);
        if let Some(Share::Made(instance)) = instances.share_of(directory) {
            unwatch(&mut instance.watcher, directory);
        }
        instances.watches = instances.watches.saturating_sub(1);
    }

    fn watch_canaries(&mut self) -> Result<(), Refusal> {
        let mut instances = self.instances();
        let canaries = instances.interest.canaries.clone();
        let mut outcome = Ok(());
        for instance in instances.all() {
            let watched = watch(&mut instance.watcher, &canaries);
            instance.hears |= watched.is_ok();
            outcome = outcome.and(watched);
        }
        outcome
    }

    fn readers(&self) -> u32 {
        let hears = |share: &Share| matches!(share, Share::Made(instance) if instance.hears);
        let instances = self.instances();
        let first = u32::from(instances.first.hears);
        let shares = (1u32..).zip(&instances.shares);
        shares.filter(|(_, s)| hears(s)).fold(first, |mask, (bit, _)| mask | 1 << bit)
    }

    fn kind(&self) -> Kind {
        Kind::Inotify { instead: self.instead.clone() }
    }
}

fn unwatch(watcher: &mut INotifyWatcher, directory: &Path) {
    // An error says that there is no such watch, which is what was asked for.
    drop(catch_unwind(AssertUnwindSafe(|| watcher.unwatch(directory))));
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
