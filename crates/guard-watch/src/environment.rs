//! One environment's worker: takes what the reader collected, keeps the watches
//! right, and hands hints on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use guard_model::RelPath;
use guard_model::ledger::GapCause;

use crate::canary::Canary;
use crate::error::WatchError;
use crate::hint::{EnvId, Hint, WatchReport};
use crate::inbox::{Batch, Inbox, News};
use crate::tree::{Place, RootNow, Tree};

/// Where hints go.
pub(crate) type Sink = Arc<dyn Fn(Hint) + Send + Sync>;

/// A watched environment.
pub(crate) struct Environment {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

struct Shared {
    id: EnvId,
    inbox: Arc<Inbox>,
    tree: Mutex<Tree>,
    canary: Arc<Canary>,
    sink: Sink,
}

impl Environment {
    /// Puts up the watches and starts the worker.
    pub(crate) fn start(
        id: EnvId,
        mut tree: Tree,
        inbox: Arc<Inbox>,
        canary: Arc<Canary>,
        sink: Sink,
    ) -> Result<(Self, WatchReport), WatchError> {
        let report = tree.raise()?;
        let shared = Arc::new(Shared { id, inbox, tree: Mutex::new(tree), canary, sink });
        shared.tell_failures(&report);
        let worker = Arc::clone(&shared);
        let worker = std::thread::Builder::new()
            .name(format!("watch-{}", id.0))
            .spawn(move || worker.run())
            .map_err(WatchError::Thread)?;
        Ok((Self { shared, worker: Some(worker) }, report))
    }

    /// Puts all watches up anew.
    pub(crate) fn rebuild(&self) -> Result<WatchReport, WatchError> {
        let before = self.shared.tree().report();
        let report = self.shared.tree().raise()?;
        if report.failed != before.failed {
            self.shared.tell_failures(&report);
        }
        Ok(report)
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.shared.inbox.stop();
        if let Some(worker) = self.worker.take() {
            if worker.join().is_err() {
                tracing::error!("a watch worker had panicked");
            }
        }
    }
}

impl Shared {
    /// Rebuilds after an overflow are at least this far apart.
    const BREATH: Duration = Duration::from_secs(2);

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn say(&self, hint: Hint) {
        (self.sink)(hint);
    }

    fn gap(&self, cause: GapCause, detail: String) {
        self.say(Hint::Gap { env: Some(self.id), cause, detail });
    }

    fn tell_failures(&self, report: &WatchReport) {
        if let Some((path, why)) = report.failed.first() {
            let detail =
                format!("{} directories cannot be watched, {path} first: {why}", report.failed.len());
            self.gap(GapCause::Backend, detail);
        }
    }

    fn run(&self) {
        let mut overflowed = false;
        let mut rebuilt: Option<Instant> = None;
        loop {
            let due = rebuilt.map(|at| at + Self::BREATH).filter(|_| overflowed);
            let batch = self.inbox.take(due);
            if batch.stop {
                self.tree().lower();
                return;
            }
            overflowed |= batch.overflow;
            self.answer(&batch);
            self.handle(batch);
            let now = Instant::now();
            if overflowed && rebuilt.is_none_or(|at| now >= at + Self::BREATH) {
                overflowed = false;
                rebuilt = Some(now);
                self.raise(GapCause::Overflow, "the queue of events overflowed".to_owned());
            }
        }
    }

    fn answer(&self, batch: &Batch) {
        if batch.paths.keys().any(|path| self.canary.is(path)) {
            for nonce in self.canary.heard(self.id) {
                self.say(Hint::Alive { nonce });
            }
        }
    }

    /// All watches anew, then the gap, so that verifying it is covered.
    fn raise(&self, cause: GapCause, detail: String) {
        let raised = self.tree().raise();
        match raised {
            Ok(report) => {
                self.gap(cause, detail);
                self.tell_failures(&report);
            }
            Err(e) => self.gap(GapCause::Backend, format!("{detail}; watching cannot go on: {e}")),
        }
    }

    fn handle(&self, batch: Batch) {
        for error in batch.errors {
            self.gap(GapCause::Backend, error);
        }
        let mut tree = self.tree();
        if batch.ended == Some(tree.generation()) {
            drop(tree);
            self.raise(GapCause::Backend, "the inotify thread had ended".to_owned());
            return;
        }
        let mut touched = BTreeSet::new();
        let mut dirty = BTreeSet::new();
        let (mut root_touched, mut root_moved) = (false, false);
        for (path, news) in batch.paths {
            match tree.locate(&path) {
                Place::Inside(path) if path.is_root() => {
                    root_touched = true;
                    root_moved |= news == News::Structure;
                }
                Place::Ancestor => {
                    root_touched = true;
                    if news == News::Structure {
                        tree.watch_ancestors();
                    }
                }
                Place::Inside(path) => {
                    let again = news == News::Structure || tree.has_failed(&path);
                    if tree.is_of_interest(&path) {
                        if again {
                            dirty.insert(path.clone());
                        }
                        touched.insert(path);
                    }
                }
                Place::Elsewhere => {}
            }
        }
        let now = if root_touched { tree.root_now() } else { RootNow::Same };
        if root_moved || now != RootNow::Same {
            let root = tree.root().display().to_string();
            drop(tree);
            self.raise(
                GapCause::Root,
                match now {
                    RootNow::Gone => format!("{root} is gone"),
                    RootNow::Same | RootNow::Other => format!("{root} was replaced"),
                },
            );
            return;
        }
        drop(tree);
        if root_touched {
            touched.insert(RelPath::root());
        }
        for path in touched {
            self.say(Hint::Touch { env: self.id, path });
        }
        self.renew(dirty);
    }

    /// Puts the watches right below directories that were made, moved or deleted.
    fn renew(&self, dirty: BTreeSet<RelPath>) {
        if dirty.is_empty() {
            return;
        }
        let mut tree = self.tree();
        let mut tops: Vec<RelPath> = Vec::new();
        for path in dirty {
            if !tops.iter().any(|top| path.is_within(top)) {
                tops.push(path);
            }
        }
        // First down, then up: a directory that was moved keeps its inode, and
        // with it its watch, which goes when the old name is taken down.
        for top in &tops {
            tree.drop_below(top);
        }
        let failed = tree.report().failed.len();
        let standing: Vec<RelPath> = tops.into_iter().filter(|top| tree.cover(top)).collect();
        let report = tree.report();
        drop(tree);
        for path in standing {
            self.say(Hint::Tree { env: self.id, path });
        }
        if report.failed.len() > failed {
            self.tell_failures(&report);
        }
    }
}
