//! The watcher: environments by number, and the canary.

use std::collections::BTreeSet;
use std::collections::btree_map::{BTreeMap, Entry};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guard_model::Policy;

use crate::backend::Start;
use crate::canary::{Canary, Nest};
use crate::environment::{Environment, Sink};
use crate::error::WatchError;
use crate::hint::{EnvId, Hint, WatchReport};
use crate::inbox::Inbox;
use crate::keeper::{Keeper, Kept};
use crate::mounts::Mounts;
use crate::tree::{Ground, Tree};

/// Watches environments and hands hints to one sink.
///
/// All methods may block for as long as a walk over the environment's
/// directories takes (some 50 µs a directory); none may be called from within
/// the sink. Dropping it ends all watching.
pub struct Watcher {
    canary: Arc<Canary>,
    sink: Sink,
    environments: Arc<Environments>,
    start: Start,
    keeper: Option<Arc<dyn Keeper>>,
    _mounts: Option<Mounts>,
}

/// Which of the kernel's interfaces to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Source {
    /// fanotify, which tells who did it; for each environment where that cannot be had, inotify,
    /// with the reason in its report.
    #[default]
    Best,
    /// inotify.
    Inotify,
}

type Environments = Mutex<BTreeMap<EnvId, Arc<Environment>>>;

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").field("canary", &self.canary).finish_non_exhaustive()
    }
}

impl Watcher {
    /// Starts with no environments. The sink is called from the environments'
    /// worker threads, several at once; while it blocks, that environment's
    /// hints wait, and coalesce.
    ///
    /// # Errors
    /// Where `canary_dir` cannot be made or written.
    pub fn start(
        canary_dir: &Path,
        source: Source,
        sink: impl Fn(Hint) + Send + Sync + 'static,
    ) -> Result<Self, WatchError> {
        let start = match source {
            Source::Best => crate::fanotify::start,
            Source::Inotify => crate::inotify::start,
        };
        Self::start_by(canary_dir, Arc::new(sink), start)
    }

    pub(crate) fn start_by(canary_dir: &Path, sink: Sink, start: Start) -> Result<Self, WatchError> {
        let canary = Arc::new(Canary::new(canary_dir)?);
        let environments: Arc<Environments> = Arc::default();
        let told = Arc::downgrade(&environments);
        let mounts = Mounts::watch(move |place, by| {
            let Some(environments) = told.upgrade() else { return };
            lock(&environments).values().for_each(|e| e.mounted(place, by));
        });
        let mounts = mounts
            .inspect_err(|error| tracing::error!(%error, "mounts are not followed; rehashes find what is mounted over a path"))
            .ok();
        Ok(Self { canary, sink, environments, start, keeper: None, _mounts: mounts })
    }

    /// What environments are watched by outlives this process with this keeper.
    #[must_use]
    pub fn kept_by(self, keeper: Arc<dyn Keeper>) -> Self {
        Self { keeper: Some(keeper), ..self }
    }

    fn environments(&self) -> MutexGuard<'_, BTreeMap<EnvId, Arc<Environment>>> {
        lock(&self.environments)
    }

    /// Watches every directory of `root` (absolute and canonical) that the
    /// policy descends into. The watches stand when it returns. Directories that
    /// cannot be watched are in the report, and are told as one
    /// [`Hint::Gap`] too.
    ///
    /// A root that is not there, or is no directory, is in the report as `.`; it
    /// is waited for, and told as a gap ([`guard_model::ledger::GapCause::Root`])
    /// now and when it appears.
    ///
    /// # Errors
    /// Where the number is in use, the path is not absolute, or no inotify
    /// instance can be had.
    pub fn add_environment(
        &self,
        env: EnvId,
        root: &Path,
        policy: Arc<Policy>,
    ) -> Result<WatchReport, WatchError> {
        self.add(env, root, policy, None)
    }

    /// The same by what an earlier process left under `name`, if it did, and leaving it so for the next one. What
    /// happened since that process ended has been told when this returns, with who did it; `adopted` in the report
    /// says that this was so.
    ///
    /// # Errors
    /// As [`Watcher::add_environment`].
    pub fn add_kept_environment(
        &self,
        env: EnvId,
        root: &Path,
        policy: Arc<Policy>,
        name: &str,
    ) -> Result<WatchReport, WatchError> {
        let kept = self.keeper.clone().map(|keeper| Kept { name: name.to_owned(), keeper });
        self.add(env, root, policy, kept)
    }

    fn add(
        &self,
        env: EnvId,
        root: &Path,
        policy: Arc<Policy>,
        kept: Option<Kept>,
    ) -> Result<WatchReport, WatchError> {
        if !root.is_absolute() {
            return Err(WatchError::Relative(root.to_owned()));
        }
        if self.environments().contains_key(&env) {
            return Err(WatchError::Twice(env));
        }
        let inbox = Arc::new(Inbox::default());
        let tree = Tree::new(Ground {
            // Rebuilt from its components, so that event paths compare equal.
            root: root.components().collect(),
            policy,
            canaries: self.canary.directory().to_owned(),
            inbox: Arc::clone(&inbox),
            start: self.start,
            kept,
        });
        let (environment, report) =
            Environment::start(env, tree, inbox, Arc::clone(&self.canary), Arc::clone(&self.sink))?;
        match self.environments().entry(env) {
            Entry::Vacant(vacant) => vacant.insert(Arc::new(environment)),
            Entry::Occupied(_) => return Err(WatchError::Twice(env)),
        };
        Ok(report)
    }

    /// Ends watching an environment; hints that were under way may still come
    /// until it returns.
    pub fn remove_environment(&self, env: EnvId) {
        let removed = self.environments().remove(&env);
        drop(removed);
        for nonce in self.canary.without(env) {
            (self.sink)(Hint::Alive { nonce });
        }
    }

    /// Takes all of an environment's watches down and puts them up anew, with a
    /// new inotify instance and thread. What happened meanwhile is not told:
    /// verify afterwards. Failures that an earlier report named do not make a
    /// new gap.
    ///
    /// # Errors
    /// Where there is no such environment, or no inotify instance can be had.
    pub fn rebuild(&self, env: EnvId) -> Result<WatchReport, WatchError> {
        let environment = self.environments().get(&env).cloned().ok_or(WatchError::Unknown(env))?;
        environment.rebuild()
    }

    /// Touches the canary. [`Hint::Alive`] with `nonce` follows once the event
    /// came through every environment; at once where there is none.
    ///
    /// # Errors
    /// Where the canary's file cannot be opened.
    pub fn ping(&self, nonce: u64) -> Result<(), WatchError> {
        let environments: BTreeMap<EnvId, Arc<Environment>> = self.environments().clone();
        if environments.is_empty() {
            (self.sink)(Hint::Alive { nonce });
            return Ok(());
        }
        if self.canary.nest()? == Nest::New {
            environments.values().for_each(|e| e.renew_nest());
        }
        self.canary.touch(nonce, environments.keys().copied().collect::<BTreeSet<_>>())
    }
}

fn lock(environments: &Environments) -> MutexGuard<'_, BTreeMap<EnvId, Arc<Environment>>> {
    environments.lock().unwrap_or_else(PoisonError::into_inner)
}
