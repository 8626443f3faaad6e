//! Which environments are guarded: those that the configuration names, and
//! those that are locked whatever it names.
//!
//! Whoever may edit the configuration must not be able to end the guard of a
//! locked environment by it: its root, patterns and seal are those that the
//! lock signed until somebody unlocks it.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use guard_config::{Config, Environment};
use guard_model::baseline::{LockState, Manifest};
use guard_model::ledger::Event;
use guard_model::path::unescape;
use guard_model::{Policy, Severity};

use crate::failure::chain;
use crate::sessions::alert;
use crate::ward::House;

/// What is guarded, and what is to be said about it.
pub(super) struct InForce {
    pub(super) environments: Vec<Environment>,
    pub(super) events: Vec<Event>,
}

/// The environments in force.
pub(super) fn in_force(config: &Config, house: &House) -> InForce {
    let mut all = InForce { environments: config.environments.clone(), events: Vec::new() };
    let known = match house.index().environments() {
        Ok(known) => known,
        Err(e) => {
            tracing::error!(error = %chain(&e), "the index cannot be read");
            return all;
        }
    };
    for (name, state) in known {
        let (LockState::Locked, Some(current)) = (state.state, &state.baseline) else { continue };
        let manifest =
            house.baseline(&name, current.generation, &current.digest).map(|b| b.manifest().clone());
        match manifest {
            Ok(manifest) => all.keep_as_locked(&name, &manifest),
            // Its warden says so, too, if it has one.
            Err(e) if config.environment(&name).is_none() => all.events.push(about_configuration(format!(
                "locked environment {name} was removed from the configuration, and its baseline cannot be opened: nothing guards it: {}",
                chain(&e)
            ))),
            Err(e) => {
                tracing::error!(environment = name, error = %chain(&e), "the baseline cannot be opened");
            }
        }
    }
    all
}

impl InForce {
    fn keep_as_locked(&mut self, name: &str, manifest: &Manifest) {
        let (Some(root), Ok(policy)) = (root_of(manifest), Policy::new(manifest.policy.clone())) else {
            return;
        };
        match self.environments.iter_mut().find(|e| e.name == name) {
            Some(written) => {
                if let Some(what) = difference(written, manifest) {
                    self.events.push(about_configuration(format!(
                        "{what} of locked environment {name} was changed in the configuration; the locked one stays in force until unlock"
                    )));
                }
                written.root = root;
            }
            None => {
                self.events.push(about_configuration(format!(
                    "locked environment {name} was removed from the configuration; it is guarded until unlock"
                )));
                let mut kept = Environment::new(name.to_owned(), root, policy);
                kept.seal = manifest.seal;
                self.environments.push(kept);
            }
        }
    }
}

/// What of an environment's configuration is not what its lock signed.
pub(super) fn difference(written: &Environment, manifest: &Manifest) -> Option<&'static str> {
    let root = root_of(manifest)?;
    let written_root = written.root.canonicalize().unwrap_or_else(|_| written.root.clone());
    if written_root != root {
        Some("`root`")
    } else if !written.patterns.is_written_like(&manifest.policy) {
        Some("a pattern")
    } else if written.seal != manifest.seal {
        Some("`seal`")
    } else {
        None
    }
}

fn root_of(manifest: &Manifest) -> Option<PathBuf> {
    unescape(&manifest.root).map(|bytes| PathBuf::from(OsString::from_vec(bytes)))
}

fn about_configuration(title: String) -> Event {
    tracing::warn!("{title}");
    alert(Severity::Critical, title, Vec::new())
}
