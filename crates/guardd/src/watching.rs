//! The way from the kernel's hints to the wardens.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use guard_config::Watch;
use guard_model::Policy;
use guard_sys::fd_store;
use guard_watch::{EnvId, Hint, Keeper, Source, WatchError, Watcher};

use crate::failure::chain;
use crate::warden::{Message, WardenHandle, WatchReport};

/// Who hears hints: the wardens, and whoever asked whether the watcher lives.
#[derive(Default)]
struct Listeners {
    wardens: Mutex<BTreeMap<EnvId, WardenHandle>>,
    alive: Mutex<u64>,
}

impl Listeners {
    fn hear(&self, hint: Hint) {
        let wardens = self.wardens.lock().unwrap_or_else(PoisonError::into_inner);
        // A warden that has ended is the supervisor's business, not the watcher's.
        let tell = |env: &EnvId, message| wardens.get(env).map(|w| w.send(message));
        match hint {
            Hint::Touch { env, path, actor, complete } => {
                tell(&env, if complete { Message::Touch(path, actor) } else { Message::Stir(path, actor) });
            }
            Hint::Tree { env, path } => {
                tell(&env, Message::Tree(path));
            }
            Hint::Mounted { env, actor } => {
                tell(&env, Message::Mounted(actor));
            }
            Hint::Gap { env: Some(env), cause, detail } => {
                tell(&env, Message::Gap(cause, detail));
            }
            Hint::Gap { env: None, cause, detail } => {
                for warden in wardens.values() {
                    warden.send(Message::Gap(cause, detail.clone()));
                }
            }
            Hint::Alive { nonce } => {
                let mut alive = self.alive.lock().unwrap_or_else(PoisonError::into_inner);
                *alive = nonce.max(*alive);
            }
        }
    }
}

/// systemd's file descriptor store: what environments are watched by waits there for the next start.
struct Store {
    /// What the last process left, until it is asked for.
    received: Mutex<HashMap<String, OwnedFd>>,
}

impl Store {
    fn received(&self) -> MutexGuard<'_, HashMap<String, OwnedFd>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper for Store {
    fn take(&self, name: &str) -> Option<OwnedFd> {
        self.received().remove(name)
    }

    fn keep(&self, name: &str, group: BorrowedFd<'_>) {
        forget(name);
        if let Err(error) = fd_store::keep(name, group) {
            tracing::warn!(%error, name, "not kept for the next start, which will be a gap");
        }
    }
}

fn forget(name: &str) {
    if let Err(error) = fd_store::forget(name) {
        tracing::warn!(%error, name, "what is watched by cannot be taken out of systemd's store");
    }
}

/// What is left for the next start stands for this root and these patterns alone: had they changed meanwhile, what
/// it watched would not be all that is to be watched.
fn name_in_store(environment: &str, root: &Path, policy: &Policy) -> String {
    let what = format!("{:?} {:?}", root.as_os_str().as_bytes(), policy.text());
    let digest = guard_model::ledger::line_hash(what.as_bytes()).to_string();
    format!("watch-{environment}-{}", digest.get(..16).unwrap_or_default())
}

/// The watcher, or its absence by configuration.
pub(crate) struct Watching {
    watcher: Option<Watcher>,
    wanted: Watch,
    listeners: Arc<Listeners>,
    store: Arc<Store>,
    /// Under which name each environment is in the store.
    stored: Mutex<BTreeMap<EnvId, String>>,
}

impl Watching {
    /// Starts the watcher; with `watch = "none"` there is none.
    pub(crate) fn start(canary_dir: &Path, wanted: Watch) -> Result<Self, WatchError> {
        let listeners = Arc::<Listeners>::default();
        let ears = Arc::clone(&listeners);
        let source = match wanted {
            Watch::Auto | Watch::Fanotify => Some(Source::Best),
            Watch::Inotify => Some(Source::Inotify),
            Watch::None => None,
        };
        let watcher = source
            .map(|source| Watcher::start(canary_dir, source, move |hint| ears.hear(hint)))
            .transpose()?;
        let store = Arc::new(Store { received: Mutex::new(fd_store::received().into_iter().collect()) });
        let watcher = watcher.map(|watcher| watcher.kept_by(Arc::clone(&store) as Arc<dyn Keeper>));
        Ok(Self { watcher, wanted, listeners, store, stored: Mutex::default() })
    }

    /// From now on this warden hears its hints.
    pub(crate) fn introduce(&self, warden: WardenHandle) {
        self.listeners.wardens.lock().unwrap_or_else(PoisonError::into_inner).insert(warden.id, warden);
    }

    /// Watches an environment, anew if it was watched before.
    pub(crate) fn watch(&self, id: EnvId, root: &Path, policy: Arc<Policy>) -> WatchReport {
        let Some(watcher) = &self.watcher else {
            let none =
                Some("watch = \"none\" in the configuration: the rehash alone finds changes".to_owned());
            return WatchReport { backend: "none", none, ..WatchReport::default() };
        };
        watcher.remove_environment(id);
        let name = {
            let wardens = self.listeners.wardens.lock().unwrap_or_else(PoisonError::into_inner);
            wardens.get(&id).map(|w| name_in_store(&w.name, root, &policy)).unwrap_or_default()
        };
        self.store_under(id, Some(name.clone()));
        let added = watcher.add_kept_environment(id, root, policy, &name);
        if added.as_ref().is_ok_and(|report| report.backend != "fanotify") {
            // It was there once, and would only fill up.
            forget(&name);
        }
        match added {
            Ok(report) => WatchReport {
                adopted: report.adopted,
                backend: report.backend,
                is_second_best: self.wanted == Watch::Fanotify && report.instead.is_some(),
                instead: report.instead,
                memory: report.memory,
                directories: report.directories as u64,
                failed: report.failed,
                none: None,
            },
            Err(e) => WatchReport { backend: "none", none: Some(chain(&e)), ..WatchReport::default() },
        }
    }

    /// An environment is in the store under this name from now on, or not at all.
    fn store_under(&self, id: EnvId, name: Option<String>) {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &name {
            Some(name) => stored.insert(id, name.clone()),
            None => stored.remove(&id),
        };
        if let Some(before) = before.filter(|before| Some(before) != name.as_ref()) {
            forget(&before);
        }
    }

    /// Every environment has asked for what the last process left: what is left now fits none.
    pub(crate) fn drop_unclaimed(&self) {
        for (name, _) in self.store.received().drain() {
            tracing::info!(name, "what an earlier start was watching by is of no use any more");
            forget(&name);
        }
    }

    /// guardd stops: what it watches by waits for the next start.
    pub(crate) fn leave(&self, id: EnvId) {
        if let Some(watcher) = &self.watcher {
            watcher.remove_environment(id);
        }
    }

    /// Stops watching an environment, also over the next start.
    pub(crate) fn forget(&self, id: EnvId) {
        if let Some(watcher) = &self.watcher {
            watcher.remove_environment(id);
        }
        self.store_under(id, None);
        self.listeners.wardens.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }

    /// Sends `nonce` through the whole way.
    pub(crate) fn ping(&self, nonce: u64) -> Result<(), WatchError> {
        match &self.watcher {
            Some(watcher) => watcher.ping(nonce),
            None => {
                self.listeners.hear(Hint::Alive { nonce });
                Ok(())
            }
        }
    }

    /// The last nonce that came through.
    pub(crate) fn last_alive(&self) -> u64 {
        *self.listeners.alive.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
