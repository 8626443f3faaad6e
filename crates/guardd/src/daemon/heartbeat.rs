//! Is everything alive? systemd hears of it only while it is, and the time of
//! the last beat tells the next start how long nobody watched.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use guard_model::Timestamp;
use guard_model::ledger::{Event, GapCause};
use guard_store::{RecordFilter, StateDir};
use sd_notify::NotifyState;

use super::{DaemonError, Guards, tell_systemd};
use crate::operations::now;
use crate::ward::House;
use crate::warden::Message;

/// The time between two beats, unless systemd's watchdog wants it shorter.
const EVERY: Duration = Duration::from_secs(5);
/// Within this everything must have answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// The file whose time of change is the last beat.
const FILE: &str = "heartbeat";

/// Since when nobody watched.
pub(super) struct DownSince(Option<Timestamp>);

impl DownSince {
    /// The last run's last sign of life: its last beat or its last record, whichever
    /// is later and not yet to come. Nothing before the first run.
    pub(super) fn read(state_dir: &StateDir, last_record: Option<Timestamp>) -> Self {
        let beat = std::fs::metadata(state_dir.base().join(FILE)).and_then(|m| m.modified()).ok();
        let micros = |t: SystemTime| t.duration_since(UNIX_EPOCH).ok().map(|d| d.as_micros());
        let beat = beat.and_then(micros).and_then(|us| i64::try_from(us).ok()).map(Timestamp);
        let now = now();
        let signs = [beat, last_record].into_iter().flatten();
        let (past, future): (Vec<_>, Vec<_>) = signs.partition(|at| *at <= now);
        // Where the clock was set back, all that is known is that it was before now.
        Self(past.into_iter().max().or(future.first().map(|_| now)))
    }

    /// A beat, now.
    pub(super) fn write(state_dir: &StateDir) {
        let path = state_dir.base().join(FILE);
        let beat = File::options().create(true).truncate(false).write(true).open(&path);
        if let Err(e) = beat.and_then(|f| f.set_modified(SystemTime::now())) {
            tracing::debug!(error = %e, path = %path.display(), "the heartbeat cannot be kept");
        }
    }

    /// The gap that this start ends; to be asked before the start is recorded.
    pub(super) fn gap(&self, was_clean: bool) -> Option<DownGap> {
        let how = if was_clean { "it was stopped in order" } else { "it was killed, or the power failed" };
        Some(DownGap { since: self.0?, how })
    }

    /// Did the last run end in order? True as well where there was none.
    pub(super) fn was_clean(&self, house: &House) -> bool {
        let filter = RecordFilter {
            events: vec!["daemon_started".to_owned(), "daemon_stopped".to_owned()],
            ..RecordFilter::default()
        };
        match house.index().recent(1, &filter) {
            Ok(last) => last.first().is_none_or(|r| matches!(r.event, Event::DaemonStopped { .. })),
            Err(_) => false,
        }
    }
}

/// The span in which nobody watched, and how it began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DownGap {
    pub(crate) since: Timestamp,
    pub(crate) how: &'static str,
}

/// Beats until told to stop.
pub(super) struct Heartbeat {
    guards: Arc<Mutex<Guards>>,
    house: Arc<House>,
    stopping: Arc<AtomicBool>,
    nonce: u64,
    pulses: BTreeMap<String, u64>,
    was_alive: bool,
}

impl Heartbeat {
    pub(super) fn start(
        guards: Arc<Mutex<Guards>>,
        house: Arc<House>,
        stopping: Arc<AtomicBool>,
    ) -> Result<JoinHandle<()>, DaemonError> {
        let beat = Self { guards, house, stopping, nonce: 0, pulses: BTreeMap::new(), was_alive: true };
        std::thread::Builder::new()
            .name("heartbeat".to_owned())
            .spawn(move || beat.run())
            .map_err(DaemonError::io("start the heartbeat"))
    }

    fn run(mut self) {
        // A third of what systemd waits, so that one late beat is no alarm.
        let every = sd_notify::watchdog_enabled().map_or(EVERY, |w| (w / 3).min(EVERY));
        while !self.stopping.load(Ordering::Relaxed) {
            self.beat();
            // Unparked early when the daemon stops.
            std::thread::park_timeout(every);
        }
    }

    fn beat(&mut self) {
        let silent = self.who_is_silent();
        if silent.is_empty() {
            tell_systemd(&[NotifyState::Watchdog]);
            DownSince::write(&self.house.state_dir);
        } else if self.was_alive {
            tracing::error!(silent = silent.join(", "), "does not answer");
        }
        self.was_alive = silent.is_empty();
    }

    /// Sends a ping through everything and waits for the answers.
    fn who_is_silent(&mut self) -> Vec<String> {
        self.nonce += 1;
        let mut answers = Vec::new();
        let (watching, handles) = {
            let guards = self.guards.lock().unwrap_or_else(PoisonError::into_inner);
            (Arc::clone(&guards.watching), guards.handles())
        };
        for (name, warden) in &handles {
            let (reply, answer) = tokio::sync::oneshot::channel();
            warden.send(Message::Ping(reply));
            answers.push((name.clone(), warden.clone(), answer));
        }
        let (ledger_reply, ledger_answer) = std::sync::mpsc::sync_channel(1);
        self.house.ledger.append_then(None, Vec::new(), move |_| {
            // Nobody waits any more where the answer came too late.
            ledger_reply.send(()).ok();
        });
        let pinged = watching.ping(self.nonce).is_ok();

        let deadline = Instant::now() + PATIENCE;
        let mut silent = Vec::new();
        for (name, warden, mut answer) in answers {
            let answered = wait_until(deadline, || answer.try_recv().is_ok());
            let pulse = warden.pulse();
            // One long file is read: bytes are progress, too.
            let moved = self.pulses.insert(name.clone(), pulse).is_none_or(|before| before != pulse);
            if !answered && !moved {
                silent.push(format!("the warden of {name}"));
            }
        }
        if !wait_until(deadline, || ledger_answer.try_recv().is_ok()) {
            silent.push("the ledger".to_owned());
        }
        let nonce = self.nonce;
        if !(pinged && wait_until(deadline, || watching.last_alive() >= nonce)) {
            silent.push("the watcher".to_owned());
            for warden in handles.values() {
                warden.send(Message::Gap(GapCause::Deaf, "the watcher did not answer its canary".to_owned()));
            }
        }
        silent
    }
}

fn wait_until(deadline: Instant, mut done: impl FnMut() -> bool) -> bool {
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
