//! The way from the kernel's hints to the wardens.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use guard_config::Watch;
use guard_model::Policy;
use guard_watch::{EnvId, Hint, Source, WatchError, Watcher};

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
            Hint::Touch { env, path, actor } => {
                tell(&env, Message::Touch(path, actor));
            }
            Hint::Tree { env, path } => {
                tell(&env, Message::Tree(path));
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

/// The watcher, or its absence by configuration.
pub(crate) struct Watching {
    watcher: Option<Watcher>,
    wanted: Watch,
    listeners: Arc<Listeners>,
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
        Ok(Self { watcher, wanted, listeners })
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
        match watcher.add_environment(id, root, policy) {
            Ok(report) => WatchReport {
                backend: report.backend,
                is_second_best: self.wanted == Watch::Fanotify && report.instead.is_some(),
                instead: report.instead,
                directories: report.directories as u64,
                failed: report.failed,
                none: None,
            },
            Err(e) => WatchReport { backend: "none", none: Some(chain(&e)), ..WatchReport::default() },
        }
    }

    /// Stops watching an environment.
    pub(crate) fn forget(&self, id: EnvId) {
        if let Some(watcher) = &self.watcher {
            watcher.remove_environment(id);
        }
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
