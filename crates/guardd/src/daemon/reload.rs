//! A new configuration is applied whole or refused whole; and what the daemon
//! says of itself.

use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use guard_api::method::ReloadReply;
use guard_api::{Known, Time, wire};
use guard_config::{Config, Daemon as Settings, Loaded, Problems};
use guard_model::baseline::LockState;
use guard_model::ledger::Event;
use guard_model::path::escape;

use super::selfwatch::{ENVIRONMENT as GUARDD, SelfWatch};
use super::{Guards, Start, accepted, append, environments, notify_commands};
use crate::failure::chain;
use crate::operations::now;
use crate::server::{Authority, Daemon, Describe, Reloader, Rules};
use crate::ward::House;
use crate::warden::Message;

/// What is to be said in every status as long as a configuration is in force.
pub(super) struct Standing(Mutex<Vec<String>>);

impl Standing {
    pub(super) fn of(start: &Start) -> Self {
        let refused = start.refused.is_some().then(|| {
            "the configuration is refused; the last accepted one is in force: guardd check-config tells why"
                .to_owned()
        });
        Self(Mutex::new(refused.into_iter().collect()))
    }

    fn replace(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What answers `Reload`.
pub(super) fn reloader(
    start: &Start,
    guards: &Arc<Mutex<Guards>>,
    myself: &Arc<SelfWatch>,
    standing: &Arc<Standing>,
    readers: Option<u32>,
    server: Weak<Daemon>,
) -> Reloader {
    let reload = Reload {
        path: start.config_path.clone(),
        settings: start.config.daemon.clone(),
        guards: Arc::clone(guards),
        myself: Arc::clone(myself),
        standing: Arc::clone(standing),
        readers,
        server,
    };
    Box::new(move || reload.run())
}

struct Reload {
    path: Option<std::path::PathBuf>,
    settings: Settings,
    guards: Arc<Mutex<Guards>>,
    myself: Arc<SelfWatch>,
    standing: Arc<Standing>,
    readers: Option<u32>,
    server: Weak<Daemon>,
}

fn refused(message: &str, hint: &str) -> Known {
    Known::Refused { message: message.to_owned(), hint: Some(hint.to_owned()), anyway: false }
}

impl Reload {
    fn run(&self) -> Result<ReloadReply, Known> {
        let path = self.path.as_ref().ok_or_else(|| {
            refused("this daemon has no configuration file", "stop it and start it with what is wanted")
        })?;
        let server =
            self.server.upgrade().ok_or_else(|| refused("guardd is stopping", "wait for its start"))?;
        let mut guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = match guard_config::load(path) {
            Ok(loaded) => loaded,
            Err(problems) => {
                append(&guards.house, not_accepted(path, &problems));
                return Err(Known::ConfigurationRefused { problems: on_wire(&problems) });
            }
        };
        self.check_settings(&loaded.config.daemon)?;
        check_locked(&guards, &loaded.config)?;
        let changed = self.apply(&mut guards, &server, &loaded)?;
        append(
            &guards.house,
            Event::Configuration { sha256: loaded.sha256, accepted: true, problems: Vec::new() },
        );
        if let Err(e) = accepted::keep_files(&guards.house, &loaded.files) {
            tracing::error!(error = %chain(&e), "the accepted configuration cannot be kept");
        }
        self.myself.accept_configuration();
        self.standing.replace();
        let environments = guards.handles().into_keys().collect();
        Ok(ReloadReply { sha256: loaded.sha256.to_string(), environments, changed })
    }

    /// What only a restart can change.
    fn check_settings(&self, new: &Settings) -> Result<(), Known> {
        let old = &self.settings;
        let fixed = [
            ("state_dir", old.state_dir == new.state_dir),
            ("runtime_dir", old.runtime_dir == new.runtime_dir),
            ("log_dir", old.log_dir == new.log_dir),
            ("watch", old.watch == new.watch),
        ];
        match fixed.iter().find(|(_, same)| !same) {
            Some((key, _)) => Err(refused(
                &format!("daemon.{key} cannot be changed while guardd runs; nothing was applied"),
                "systemctl restart guardd applies it",
            )),
            None => Ok(()),
        }
    }

    fn apply(&self, guards: &mut Guards, server: &Daemon, loaded: &Loaded) -> Result<Vec<String>, Known> {
        let config = &loaded.config;
        let failed = |e: &dyn std::error::Error| Known::Failed { message: chain(e), hint: None };
        let mut changed = Vec::new();
        let gone: Vec<String> =
            guards.running.keys().filter(|n| config.environment(n).is_none()).cloned().collect();
        for name in gone {
            guards.release(&name);
            changed.push(format!("{name} is not guarded any more"));
        }
        for environment in &config.environments {
            match guards.running.get(&environment.name) {
                Some((handle, _)) => {
                    handle.send(Message::Configure(Box::new(environment.clone())));
                }
                None => {
                    let handle = guards.take_up(environment.clone(), None).map_err(|e| failed(&e))?;
                    handle.send(Message::Begin);
                    changed.push(format!("{} is guarded from now on", environment.name));
                }
            }
        }
        guards.house.sinks.set_notify(&notify_commands(config)).map_err(|e| failed(&e))?;
        server.set_rules(Rules {
            authority: Authority::new(self.readers, &config.daemon.allow),
            window_max: config.daemon.window_max,
        });
        server.set_wardens(guards.handles());
        Ok(changed)
    }
}

/// A locked environment keeps its root, patterns and seal, and its guard.
fn check_locked(guards: &Guards, config: &Config) -> Result<(), Known> {
    for name in guards.running.keys() {
        let state = guards
            .house
            .index()
            .environment_state(name)
            .map_err(|e| Known::Failed { message: chain(&e), hint: None })?;
        let (LockState::Locked, Some(current)) = (state.state, &state.baseline) else { continue };
        let unlock = format!("guardctl unlock {name} first");
        let Some(written) = config.environment(name) else {
            return Err(refused(
                &format!("{name} is locked and cannot be removed; nothing was applied"),
                &unlock,
            ));
        };
        let opened = guards
            .house
            .baseline(name, current.generation, &current.digest)
            .map_err(|e| Known::Failed { message: chain(&e), hint: None })?;
        if let Some(what) = environments::difference(written, opened.manifest()) {
            let message =
                format!("{what} of {name} cannot be changed while it is locked; nothing was applied");
            return Err(refused(&message, &unlock));
        }
    }
    Ok(())
}

fn not_accepted(path: &std::path::Path, problems: &Problems) -> Event {
    let text = std::fs::read(path).unwrap_or_default();
    Event::Configuration {
        sha256: guard_model::ledger::line_hash(&text),
        accepted: false,
        problems: problems.as_slice().iter().map(ToString::to_string).collect(),
    }
}

fn on_wire(problems: &Problems) -> Vec<wire::Problem> {
    problems
        .as_slice()
        .iter()
        .map(|p| wire::Problem {
            file: escape(p.file.as_os_str().as_bytes()),
            line: p.line.map(u64::from),
            key: p.key.clone(),
            what: p.what.clone(),
            fix: p.fix.clone(),
        })
        .collect()
}

/// What the daemon says of itself in `status`.
pub(super) fn describer(start: &Start, house: &Arc<House>, standing: &Arc<Standing>) -> Describe {
    let (house, standing) = (Arc::clone(house), Arc::clone(standing));
    let started_at = Time(now().0);
    let config = start.config_path.as_ref().map(|p| escape(p.as_os_str().as_bytes()));
    Box::new(move || {
        let health = house.ledger.health();
        let mut degraded = standing.all();
        degraded.extend(health.write_error.map(|e| format!("the ledger cannot be written: {e}")));
        degraded.extend(health.index_error.map(|e| format!("the index lags behind: {e}")));
        degraded.extend(health.disturbed.iter().map(|b| format!("the ledger was tampered with: {b}")));
        let sinks: Vec<wire::Sink> = house
            .sinks
            .health()
            .into_iter()
            .map(|s| wire::Sink { name: s.name, healthy: s.healthy, error: s.error, behind: s.waiting })
            .collect();
        degraded.extend(sinks.iter().filter(|s| !s.healthy).map(|s| {
            let why = s.error.as_deref().unwrap_or("no reason known");
            format!("alert sink {} fails, {} records wait: {why}", s.name, s.behind)
        }));
        let alerts_open = house.index().open_alerts(GUARDD).unwrap_or_else(|error| {
            degraded.push(format!("the alerts about guardd itself cannot be counted: {error}"));
            0
        });
        let head = house.ledger.head();
        wire::Daemon {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uid: guard_sys::peer::own_uid(),
            started_at,
            config: config.clone(),
            degraded,
            alerts_open,
            sinks,
            ledger: wire::Head { seq: head.seq, hash: head.hash.to_string() },
        }
    })
}
