//! One environment's worker: takes what the reader collected, keeps the watches
//! right, and hands hints on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use guard_model::RelPath;
use guard_model::failure::chain;
use guard_model::finding::Actor;
use guard_model::ledger::GapCause;

use crate::canary::Canary;
use crate::error::WatchError;
use crate::hint::{EnvId, Hint, WatchReport};
use crate::inbox::{Batch, By, Inbox, News, Told};
use crate::tree::{Place, RootNow, Tree};

/// Where hints go.
pub(crate) type Sink = Arc<dyn Fn(Hint) + Send + Sync>;

/// A watched environment.
pub(crate) struct Environment {
    shared: Arc<Shared>,
    worker: Option<JoinHandle<()>>,
}

/// For each canary, which readers have heard it.
type Ears = [u32; Canary::FILES];

struct Shared {
    id: EnvId,
    root: PathBuf,
    inbox: Arc<Inbox>,
    tree: Mutex<Tree>,
    canary: Arc<Canary>,
    sink: Sink,
}

/// Why all watches have to be put up anew.
type Reason = (GapCause, String);
/// One of each kind.
type Reasons = BTreeMap<u8, Reason>;
/// The kind of the reason that putting them up failed.
const FAILED: u8 = u8::MAX;

impl Environment {
    /// Puts up the watches and starts the worker.
    pub(crate) fn start(
        id: EnvId,
        mut tree: Tree,
        inbox: Arc<Inbox>,
        canary: Arc<Canary>,
        sink: Sink,
    ) -> Result<(Self, WatchReport), WatchError> {
        let mut report = tree.raise()?;
        let absent = tree.absence();
        let shared = {
            let root = tree.root().to_owned();
            Arc::new(Shared { id, root, inbox, tree: Mutex::new(tree), canary, sink })
        };
        shared.tell_failures(&report);
        if let Some(words) = absent {
            report.failed.insert(0, (RelPath::root(), words.clone()));
            shared.gap(GapCause::Root, words);
        }
        if report.adopted {
            // Before anybody compares: a difference that is found then has its actor.
            let waiting = shared.inbox.take(Some(Instant::now()));
            shared.handle(waiting).into_iter().for_each(|(_, why)| shared.inbox.error(why));
        }
        let worker = Arc::clone(&shared);
        let worker = std::thread::Builder::new()
            .name(format!("watch-{}", id.0))
            .spawn(move || worker.run())
            .map_err(WatchError::Thread)?;
        Ok((Self { shared, worker: Some(worker) }, report))
    }

    /// Puts all watches up anew.
    pub(crate) fn rebuild(&self) -> Result<WatchReport, WatchError> {
        let (before, mut report, absent) = {
            let mut tree = self.shared.tree();
            let before = tree.report();
            (before, tree.raise()?, tree.absence())
        };
        self.shared.again();
        if report.failed != before.failed {
            self.shared.tell_failures(&report);
        }
        report.failed.splice(0..0, absent.map(|words| (RelPath::root(), words)));
        Ok(report)
    }

    /// Something was mounted or unmounted there: as if a directory was replaced.
    pub(crate) fn mounted(&self, place: &Path, by: Option<&Arc<Actor>>) {
        if self.shared.root.starts_with(place) {
            self.shared.say(Hint::Mounted { env: self.shared.id, actor: by.cloned() });
        }
        let by = by.map(|actor| By { actor: Arc::clone(actor), closed_only: false });
        self.shared.inbox.path(place.to_owned(), News::Structure, by);
    }

    /// The canaries' directory was made anew.
    pub(crate) fn renew_nest(&self) {
        self.shared.inbox.renew_nest();
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        self.shared.inbox.stop();
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("a watch worker had panicked");
        }
    }
}

impl Shared {
    /// Putting everything up anew happens at most this often, whatever an
    /// intruder does; what happens between is in the gap that is told after.
    const BREATH: Duration = Duration::from_secs(2);
    /// In a storm batches are this far apart, so that paths coalesce; what comes
    /// after a quiet moment is handled at once.
    const LULL: Duration = Duration::from_millis(1);

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
        let detail = match report.failed.as_slice() {
            [] => return,
            [(path, why)] => format!("{path} cannot be watched: {why}"),
            [(path, why), more @ ..] => {
                format!("{path} and {} more directories cannot be watched: {why}", more.len())
            }
        };
        self.gap(GapCause::Backend, detail);
    }

    fn run(&self) {
        let mut reasons = Reasons::default();
        let mut raised: Option<Instant> = None;
        let mut last = Instant::now();
        let mut ears = Ears::default();
        loop {
            std::thread::sleep(Self::LULL.saturating_sub(last.elapsed()));
            let due = raised.map(|at| at + Self::BREATH).filter(|_| !reasons.is_empty());
            let batch = self.inbox.take(due);
            if batch.stop {
                self.tree().lower();
                return;
            }
            last = Instant::now();
            let heard = batch.canaries.clone();
            for (cause, detail) in self.handle(batch) {
                // The first one of a kind explains those that follow.
                reasons.entry(cause as u8).or_insert((cause, detail));
            }
            // After the hints that came along with it.
            self.answer(&mut ears, heard);
            if !reasons.is_empty() && raised.is_none_or(|at| at.elapsed() >= Self::BREATH) {
                self.raise(&mut reasons);
                raised = Some(Instant::now());
            }
        }
    }

    /// A canary counts once every reader has heard it.
    fn answer(&self, ears: &mut Ears, heard: BTreeSet<(usize, u8)>) {
        if heard.is_empty() {
            return;
        }
        let all = self.tree().readers();
        for (number, reader) in heard {
            let Some(ears) = ears.get_mut(number) else { continue };
            *ears |= 1 << reader;
            if *ears & all == all {
                *ears = 0;
                for nonce in self.canary.heard(self.id, number) {
                    self.say(Hint::Alive { nonce });
                }
            }
        }
    }

    /// Pings under way may have gone to readers that are no more.
    fn again(&self) {
        if let Err(error) = self.canary.again(self.id) {
            tracing::warn!(%error, "the canary cannot be touched again");
        }
    }

    /// All watches anew, then the gaps, so that verifying them is covered. The
    /// reasons are kept where that fails, and it is tried again.
    fn raise(&self, reasons: &mut Reasons) {
        let raised = self.tree().raise();
        match raised {
            Ok(report) => {
                self.again();
                for (cause, detail) in std::mem::take(reasons).into_values() {
                    self.gap(cause, detail);
                }
                self.tell_failures(&report);
            }
            Err(error) => {
                let cause = GapCause::Backend;
                if reasons.insert(FAILED, (cause, "nothing was watched for a while".to_owned())).is_none() {
                    self.gap(cause, format!("nothing is watched: {}", chain(&error)));
                }
            }
        }
    }

    /// Hands on what the batch tells, and returns why all watches have to be put
    /// up anew, where they have to.
    fn handle(&self, batch: Batch) -> Vec<Reason> {
        let mut touched = BTreeMap::new();
        let mut dirty = BTreeSet::new();
        let mut reasons = Vec::new();
        {
            let mut tree = self.tree();
            let mut nest = batch.nest;
            let (mut root_touched, mut root_moved, mut root_by) = (false, false, None);
            for (path, Told { news, by, complete }) in batch.paths {
                match tree.locate(&path) {
                    Place::Inside(path) if !path.is_root() => {
                        if tree.is_of_interest(&path) {
                            if news == News::Structure || tree.has_failed(&path) {
                                dirty.insert(path.clone());
                            }
                            touched.insert(path, (by, complete));
                        }
                    }
                    Place::Inside(_) | Place::Above => {
                        root_touched = true;
                        root_by = by.or(root_by);
                        root_moved |= news == News::Structure;
                    }
                    Place::Canaries => nest |= news == News::Structure,
                    Place::Elsewhere => {}
                }
            }
            if nest {
                tree.watch_canaries();
            }
            if root_touched {
                touched.insert(RelPath::root(), (root_by, false));
                reasons.extend(root_reason(&tree, root_moved));
            }
            if batch.ended == Some(tree.generation()) {
                reasons.push((GapCause::Backend, "a reader of events had ended".to_owned()));
            }
        }
        reasons.extend(batch.errors.into_iter().next().map(|error| (GapCause::Backend, error)));
        if batch.overflow {
            reasons.push((GapCause::Overflow, "the queue of events overflowed".to_owned()));
        }
        for (path, (by, complete)) in touched {
            self.say(Hint::Touch { env: self.id, path, actor: by.map(|by| by.actor), complete });
        }
        self.renew(dirty);
        reasons
    }

    /// Puts the watches right below directories that were made, moved or deleted.
    fn renew(&self, dirty: BTreeSet<RelPath>) {
        if dirty.is_empty() {
            return;
        }
        let mut tree = self.tree();
        let mut tops: Vec<RelPath> = Vec::new();
        // In order, so a directory comes right before what is below it, but for
        // names like `a-b` between `a` and `a/b`, which only cost a second look.
        for path in dirty {
            if !tops.last().is_some_and(|top| path.is_within(top)) {
                tops.push(path);
            }
        }
        // First down, then up: a directory that was moved keeps its inode, and
        // with it its watch, which goes when the old name is taken down.
        for top in &tops {
            tree.forget(top);
        }
        let (failures, readers) = (tree.failures(), tree.readers());
        let standing: Vec<RelPath> = tops.into_iter().filter(|top| tree.cover(top)).collect();
        let report = (tree.failures() > failures).then(|| tree.report());
        let has_more_readers = tree.readers() != readers;
        drop(tree);
        if has_more_readers {
            self.again();
        }
        for path in standing {
            self.say(Hint::Tree { env: self.id, path });
        }
        if let Some(report) = report {
            self.tell_failures(&report);
        }
    }
}

/// Why the root's watches cannot be relied on any more. A directory above it
/// that was moved takes them down even where it came back.
fn root_reason(tree: &Tree, moved: bool) -> Option<Reason> {
    let root = tree.root().display();
    let words = match tree.root_now() {
        RootNow::Same if !moved => return None,
        RootNow::Same => format!("{root}, or a directory above it, was moved away and back or mounted over"),
        RootNow::Other => format!("{root} is another directory than before"),
        RootNow::Gone => format!("{root} is not there, or no directory"),
    };
    Some((GapCause::Root, words))
}
