//! The daemon from start to stop, in the order in which it happens.

mod accepted;
mod backup_keys;
mod environments;
mod heartbeat;
mod reload;
mod restore;
mod selfwatch;
mod signals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use guard_alert::{SinkConfig, SinkHealth, Sinks};
use guard_config::{Config, Problems, SourceFile};
use guard_model::ledger::Event;
use guard_model::{Digest, Timestamp};
use guard_store::{BackupKeys, HostKey, Ledger, LedgerHandle, Opened, RecordFilter, StateDir, StoreError};
use sd_notify::NotifyState;

use crate::failure::chain;
use crate::operations::now;
use crate::server::{Authority, BindError, Listener};
use crate::ward::{House, Ward};
use crate::warden::{Commission, Message, Warden, WardenHandle};
use crate::watching::Watching;
pub(crate) use accepted::last_accepted;
pub(crate) use heartbeat::DownGap;
use heartbeat::{DownSince, Heartbeat};
use selfwatch::SelfWatch;

/// What to run.
pub(crate) struct Start {
    pub(crate) config: Config,
    /// SHA-256 over the configuration's files.
    pub(crate) sha256: Digest,
    /// The configuration's files; empty in the foreground without one.
    pub(crate) files: Vec<SourceFile>,
    /// Where a reload reads it again; `None` where there is no file.
    pub(crate) config_path: Option<PathBuf>,
    /// Why this is not what is written there now: the last accepted one is used.
    pub(crate) refused: Option<Problems>,
    /// Alerts on the terminal, environments locked at once.
    pub(crate) foreground: bool,
}

/// Why the daemon does not run, or ended other than asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DaemonError {
    #[error("cannot use the state directory")]
    Store(#[from] StoreError),
    #[error("cannot make the control socket")]
    Bind(#[from] BindError),
    #[error("cannot start the alert sinks")]
    Alert(#[from] guard_alert::AlertError),
    #[error("cannot start watching")]
    Watch(#[from] guard_watch::WatchError),
    #[error("cannot {operation}")]
    Io {
        operation: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot make {}", path.display())]
    MakeDir {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the {0} ended by itself")]
    Ended(String),
}

impl DaemonError {
    /// An [`std::io::Error`] as this error.
    fn io(operation: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }
}

/// The group whose members may read.
const READERS: &str = "guardd";

/// Runs until told to stop.
pub(crate) fn run(start: Start) -> Result<(), DaemonError> {
    let state_dir = Arc::new(StateDir::open(&start.config.daemon.state_dir)?);
    if let Err(error) = crate::operations::drill::clear_leftovers(&state_dir) {
        tracing::error!(error = %chain(&error), "what a drill restored could not be removed");
    }
    let (house, ledger, last_record) = open_house(&start, &state_dir)?;
    let down = DownSince::read(&state_dir, last_record);
    let house = Arc::new(house);
    let was_clean = down.was_clean(&house);
    announce(&house, &start, was_clean);

    let canary = state_dir.base().join("canary");
    let watching = Arc::new(Watching::start(&canary, start.config.daemon.watch)?);
    let chosen = environments::in_force(&start.config, &house);
    for event in chosen.events {
        append(&house, event);
    }
    let mut guards = Guards { house: Arc::clone(&house), watching, running: BTreeMap::new(), next_id: 0 };
    for environment in chosen.environments {
        // Walking a big tree takes longer than systemd waits by default.
        tell_systemd(&[NotifyState::ExtendTimeoutUsec(120_000_000)]);
        guards.take_up(environment, down.gap(was_clean))?;
    }
    guards.watching.drop_unclaimed();

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(DaemonError::io("start the runtime"))?;
    let result = runtime.block_on(serve(&start, &house, guards));
    runtime.shutdown_timeout(Duration::from_secs(2));

    let reason = match &result {
        Ok(why) => why.clone(),
        Err(e) => chain(e),
    };
    append(&house, Event::DaemonStopped { reason });
    DownSince::write(&state_dir);
    for late in house.sinks.shutdown(Duration::from_secs(3)) {
        tracing::warn!(sink = late.name, waiting = late.waiting, "goes on after the next start");
    }
    ledger.stop()?;
    result.map(|_| ())
}

/// Opens what survives: key, ledger, index, sinks. With it the time of the last run's last record.
fn open_house(
    start: &Start,
    state_dir: &Arc<StateDir>,
) -> Result<(House, Ledger, Option<Timestamp>), DaemonError> {
    let key = HostKey::load_or_create(state_dir)?;
    let (ledger, opened, broken) = open_ledger(state_dir, &key)?;
    let handle = ledger.handle();
    let sinks = start_sinks(start, state_dir, handle.clone())?;
    let house = House {
        public: key.public(),
        key: Arc::new(key),
        state_dir: Arc::clone(state_dir),
        ledger: handle,
        sinks,
        boot_id: guard_sys::clock::boot_id().unwrap_or_default(),
        machine_id: guard_sys::clock::machine_id().unwrap_or_default(),
        backup_keys: BackupKeys::load_or_create(state_dir, now())
            .map(|keys| Arc::new(RwLock::new(keys)))
            .map_err(|e| e.with_causes()),
    };
    let last = house.index().recent(1, &RecordFilter::default()).unwrap_or_default();
    let is_missing = restore::is_ledger_missing(&house);
    let of_files = selfwatch::at_start(&house, &opened, broken.as_ref(), is_missing);
    for event in of_files.into_iter().chain(backup_keys::at_start(&house)) {
        append(&house, event);
    }
    if broken.is_some() || is_missing {
        restore::from_what_is_signed(&house);
    }
    Ok((house, ledger, last.first().map(|r| r.at)))
}

fn open_ledger(
    state_dir: &StateDir,
    key: &HostKey,
) -> Result<(Ledger, Opened, Option<guard_store::LedgerBreak>), DaemonError> {
    match Ledger::open(state_dir, key.clone(), now) {
        Ok((ledger, opened)) => Ok((ledger, opened, None)),
        Err(StoreError::LedgerBroken(broken)) => {
            tracing::error!(%broken, "the ledger is not what was written; a new chain begins");
            let (ledger, opened) = Ledger::open_after_break(state_dir, key.clone(), now, &broken)?;
            Ok((ledger, opened, Some(*broken)))
        }
        Err(e) => Err(e.into()),
    }
}

fn start_sinks(start: &Start, state_dir: &StateDir, ledger: LedgerHandle) -> Result<Arc<Sinks>, DaemonError> {
    let log_dir = &start.config.daemon.log_dir;
    let mut config = SinkConfig::new(log_dir, &state_dir.sinks());
    // Where systemd runs, a journald that is not there yet will be.
    let journald = Path::new(guard_sys::journal::SOCKET).exists() || sd_notify::booted().unwrap_or(false);
    config.journal = !start.foreground && journald;
    config.terminal = start.foreground;
    config.notify = notify_commands(&start.config);
    let health_to = ledger.clone();
    let on_health = move |health: SinkHealth| {
        let SinkHealth { name: sink, healthy, error, .. } = health;
        health_to.append_then(None, vec![Event::Sink { sink, healthy, error }], |result| {
            if let Err(e) = result {
                tracing::error!(error = %chain(&e), "a sink's health could not be recorded");
            }
        });
    };
    Ok(Arc::new(Sinks::start(ledger, config, on_health)?))
}

fn notify_commands(config: &Config) -> BTreeMap<String, Vec<String>> {
    config
        .environments
        .iter()
        .filter(|e| !e.notify.is_empty())
        .map(|e| (e.name.clone(), e.notify.clone()))
        .collect()
}

/// Says in the ledger that the daemon started, and by which configuration.
fn announce(house: &House, start: &Start, was_clean: bool) {
    let problems =
        start.refused.iter().flat_map(|p| p.as_slice()).map(ToString::to_string).collect::<Vec<_>>();
    let events = vec![
        Event::DaemonStarted {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            boot_id: house.boot_id.clone(),
            after_clean_stop: was_clean,
        },
        Event::Configuration { sha256: start.sha256, accepted: problems.is_empty(), problems },
    ];
    if let Some(refused) = &start.refused {
        tracing::error!(%refused, "the configuration is refused; guarding by the last accepted one");
    }
    if let Err(e) = house.ledger.append(None, events) {
        // A full disk must not keep the guard from starting.
        tracing::error!(error = %chain(&e), "the ledger cannot be written");
    }
    if let Err(e) = accepted::keep(house, start) {
        tracing::error!(error = %chain(&e), "the accepted configuration cannot be kept");
    }
}

/// Appends an event of the daemon as a whole; a failure is logged.
fn append(house: &House, event: Event) {
    let environment = match &event {
        Event::AlertOpened { .. } | Event::AlertSettled { .. } => Some(selfwatch::ENVIRONMENT.to_owned()),
        _ => None,
    };
    if let Err(e) = house.ledger.append(environment, vec![event]) {
        tracing::error!(error = %chain(&e), "the ledger cannot be written");
    }
}

fn tell_systemd(states: &[NotifyState<'_>]) {
    if let Err(e) = sd_notify::notify(states) {
        tracing::warn!(error = %e, "systemd cannot be told");
    }
}

/// The wardens that run.
pub(crate) struct Guards {
    house: Arc<House>,
    watching: Arc<Watching>,
    running: BTreeMap<String, (WardenHandle, JoinHandle<()>)>,
    next_id: u32,
}

impl Guards {
    /// Starts to guard an environment; it is guarded when this returns.
    fn take_up(
        &mut self,
        config: guard_config::Environment,
        down: Option<DownGap>,
    ) -> Result<WardenHandle, DaemonError> {
        let name = config.name.clone();
        let id = guard_watch::EnvId(self.next_id);
        self.next_id += 1;
        let commission = Commission {
            ward: Ward { name: name.clone(), house: Arc::clone(&self.house) },
            id,
            config,
            watching: Arc::clone(&self.watching),
            down,
        };
        let (warden, handle) =
            Warden::take_up(commission).map_err(DaemonError::io("start the threads of an environment"))?;
        let thread = std::thread::Builder::new()
            .name(format!("warden {name}"))
            .spawn(move || warden.run())
            .map_err(DaemonError::io("start a warden"))?;
        self.running.insert(name, (handle.clone(), thread));
        Ok(handle)
    }

    /// Ends guarding an environment that is not locked.
    fn release(&mut self, name: &str) {
        if let Some((handle, thread)) = self.running.remove(name) {
            handle.send(Message::Stop);
            self.watching.forget(handle.id);
            join(name, thread);
        }
    }

    fn handles(&self) -> BTreeMap<String, WardenHandle> {
        self.running.iter().map(|(name, (handle, _))| (name.clone(), handle.clone())).collect()
    }

    /// The name of a warden whose thread has ended though nobody told it to.
    fn ended(&self) -> Option<&str> {
        self.running.iter().find(|(_, (_, thread))| thread.is_finished()).map(|(name, _)| name.as_str())
    }

    fn stop(&mut self) {
        for (handle, _) in self.running.values() {
            handle.send(Message::Stop);
        }
        for (name, (handle, thread)) in std::mem::take(&mut self.running) {
            join(&name, thread);
            self.watching.leave(handle.id);
        }
    }
}

fn join(name: &str, thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!(environment = name, "the warden had panicked");
    }
}

/// From the socket to the signal that ends it; why it ended.
async fn serve(start: &Start, house: &Arc<House>, guards: Guards) -> Result<String, DaemonError> {
    // Before anybody can know that we run.
    let mut asked = signals::Signals::new().map_err(DaemonError::io("listen for signals"))?;
    let runtime_dir = &start.config.daemon.runtime_dir;
    make_runtime_dir(runtime_dir)?;
    let readers = guard_sys::peer::group_id(READERS).filter(|_| !start.foreground);
    let listener = Listener::bind(&runtime_dir.join("control.sock"), readers)?;
    let handles = guards.handles();
    let guards = Arc::new(Mutex::new(guards));
    let myself = Arc::new(SelfWatch::new(Arc::clone(house), start));
    let rules = crate::server::Rules {
        authority: Authority::new(readers, &start.config.daemon.allow),
        window_max: start.config.daemon.window_max,
    };
    let standing = Arc::new(reload::Standing::of(start));
    let daemon = Arc::new_cyclic(|daemon| crate::server::Daemon {
        house: Arc::clone(house),
        rules: RwLock::new(rules),
        wardens: Mutex::new(handles.clone()),
        describe: reload::describer(start, house, &standing),
        reload: reload::reloader(start, &guards, &myself, &standing, readers, daemon.clone()),
        budgets: crate::server::Budgets::default(),
        grown: house.grown(),
    });

    if start.foreground {
        lock_all(&daemon).await?;
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut server = tokio::spawn(crate::server::serve(listener, Arc::clone(&daemon), stopped));
    tell_systemd(&[NotifyState::Ready]);
    handles.values().for_each(|w| {
        w.send(Message::Begin);
    });
    let stopping = Arc::new(AtomicBool::new(false));
    let heartbeat = Heartbeat::start(Arc::clone(&guards), Arc::clone(house), Arc::clone(&stopping))?;
    let watcher = myself.start(Arc::clone(&stopping))?;

    let mut look = tokio::time::interval(Duration::from_secs(1));
    let why = loop {
        tokio::select! {
            signal = asked.next() => match signal {
                signals::Asked::Stop(name) => break Ok(name.to_owned()),
                signals::Asked::Reload => {
                    if let Err(refused) = tokio::task::block_in_place(|| (daemon.reload)()) {
                        tracing::error!(?refused, "the configuration is refused");
                    }
                }
                signals::Asked::Reopen => house.sinks.reopen(),
            },
            ended = &mut server => {
                let why = match ended {
                    Ok(Ok(())) => "control server".to_owned(),
                    Ok(Err(e)) => format!("control server ({e})"),
                    Err(e) => format!("control server ({e})"),
                };
                break Err(DaemonError::Ended(why));
            }
            _ = look.tick() => {
                let ended = guards.lock().unwrap_or_else(PoisonError::into_inner).ended().map(str::to_owned);
                if let Some(name) = ended {
                    break Err(DaemonError::Ended(format!("warden of {name}")));
                }
                if heartbeat.is_finished() || watcher.is_finished() {
                    break Err(DaemonError::Ended("heartbeat or self-watch".to_owned()));
                }
            }
        }
    };
    asked.next_stop_forces_the_exit();
    tell_systemd(&[NotifyState::Stopping]);
    stopping.store(true, Ordering::Relaxed);
    heartbeat.thread().unpark();
    watcher.thread().unpark();
    // The receiver is gone where the server ended first.
    stop.send(true).ok();
    if why.is_ok() {
        // Clients get their last replies, but none may hold up the stop.
        tokio::time::timeout(Duration::from_secs(2), &mut server).await.ok();
    }
    tokio::task::block_in_place(|| guards.lock().unwrap_or_else(PoisonError::into_inner).stop());
    why
}

fn make_runtime_dir(path: &Path) -> Result<(), DaemonError> {
    use std::os::unix::fs::DirBuilderExt;
    // systemd made it with its mode already; in the foreground it is our own.
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .map_err(|source| DaemonError::MakeDir { path: path.to_owned(), source })
}

/// In the foreground everything is locked at once.
async fn lock_all(daemon: &Arc<crate::server::Daemon>) -> Result<(), DaemonError> {
    for warden in daemon.handles() {
        let order = |reply| crate::warden::LockOrder {
            by: crate::server::own_name(),
            reason: "guardd run --root".to_owned(),
            // Whoever tries it out on a full disk still wants it watched.
            options: crate::operations::lock::LockOptions {
                on_no_backup: crate::operations::backup::OnNoBackup::GoOn,
                ..crate::operations::lock::LockOptions::default()
            },
            how: guard_model::ledger::WindowEnd::Lock,
            work: crate::operations::Work::shared(),
            reply,
        };
        let result = warden.ask(|reply| crate::warden::Command::Lock(order(reply))).await;
        match result {
            Ok(locked) => tell_locked(&warden, &locked),
            Err(e) => return Err(DaemonError::Ended(format!("lock of {} ({e:?})", warden.name))),
        }
    }
    Ok(())
}

/// What a foreground daemon says before it falls silent.
#[expect(clippy::print_stdout, reason = "the foreground daemon talks to its terminal")]
fn tell_locked(warden: &WardenHandle, locked: &guard_api::wire::LockResult) {
    let root = guard_model::path::escape(std::os::unix::ffi::OsStrExt::as_bytes(warden.root.as_os_str()));
    println!(
        "guarding {root}: {} files, {} directories; changes are shown here, Ctrl-C ends it",
        locked.protected.files, locked.protected.directories
    );
    if locked.repaired.is_some() {
        println!(
            "  against the baseline of an earlier run: what changed since is in `guardctl alerts`;\n  `guardctl unlock` and `guardctl lock` begin anew"
        );
    }
    for s in &locked.skipped {
        println!("  not fully covered: {}: {}", s.path, s.why);
    }
    for w in &locked.warnings {
        println!("  warning: {w}");
    }
}
