//! All sinks together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use guard_model::ledger::Record;

use crate::bell::Bell;
use crate::command::Notify;
use crate::cursor::{Cursor, Place};
use crate::error::AlertError;
use crate::feed::{Feed, Source};
use crate::health::{SinkHealth, Status};
use crate::journald::Journald;
use crate::kinds::Log;
use crate::log_file::LogFile;
use crate::outlet::Outlet;
use crate::terminal::Terminal;
use crate::worker::{OnHealth, Patience, Worker};

/// Which sinks there are.
#[derive(Debug, Clone)]
pub struct SinkConfig {
    /// Where the log files are.
    pub log_dir: PathBuf,
    /// Where each sink keeps its place in the ledger: `state_dir/sinks`.
    pub cursors: PathBuf,
    /// Entries to journald.
    pub journal: bool,
    /// journald's socket.
    pub journal_socket: PathBuf,
    /// Alert lines on standard output.
    pub terminal: bool,
    /// For each environment the command that gets its alerts, with arguments.
    pub notify: BTreeMap<String, Vec<String>>,
    /// How long such a command may take, and when it is tried again.
    pub patience: NotifyPatience,
}

/// The times of notify commands.
#[derive(Debug, Clone, Copy)]
pub struct NotifyPatience {
    /// A command that runs longer is killed with its process group. 30 s.
    pub deadline: Duration,
    /// Pause after the first failure, doubled by each further one. 5 s.
    pub first_pause: Duration,
    /// No pause is longer. 5 min.
    pub longest_pause: Duration,
}

impl Default for NotifyPatience {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(30),
            first_pause: Duration::from_secs(5),
            longest_pause: Duration::from_secs(300),
        }
    }
}

impl SinkConfig {
    /// Log files only.
    #[must_use]
    pub fn new(log_dir: &Path, cursors: &Path) -> Self {
        Self {
            log_dir: log_dir.to_owned(),
            cursors: cursors.to_owned(),
            journal: false,
            journal_socket: PathBuf::from(guard_sys::journal::SOCKET),
            terminal: false,
            notify: BTreeMap::new(),
            patience: NotifyPatience::default(),
        }
    }
}

/// The running sinks. Dropping them ends them without waiting for what is left.
pub struct Sinks {
    feed: Arc<Feed>,
    config: SinkConfig,
    boot: String,
    on_health: OnHealth,
    running: Arc<Mutex<Vec<Running>>>,
}

struct Running {
    bell: Arc<Bell>,
    status: Arc<Status>,
    thread: Option<JoinHandle<()>>,
    /// The environment and command of a notify sink.
    notify: Option<(String, Vec<String>)>,
}

impl std::fmt::Debug for Sinks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sinks").field("health", &self.health()).finish_non_exhaustive()
    }
}

const QUICK: Patience = Patience {
    // A journald that reads again has room for some ten entries at a time.
    first: Duration::from_millis(5),
    longest: Duration::from_secs(2),
    grace: Duration::from_secs(1),
};

impl Sinks {
    /// Starts a thread for each sink. A sink goes on after the record that it
    /// delivered last; one that is new begins with the next record, or with the
    /// first there is where no sink has ever run here.
    ///
    /// `on_health` is called from a sink's thread when that sink has failed for a
    /// while, and when it works again; it may append to the ledger.
    ///
    /// # Errors
    /// Where the cursors' directory cannot be made, or no thread can be had. A
    /// sink that does not work is no error: see [`Sinks::health`].
    pub fn start(
        ledger: impl Source,
        config: SinkConfig,
        on_health: impl Fn(SinkHealth) + Send + Sync + 'static,
    ) -> Result<Self, AlertError> {
        let failed =
            |source| AlertError::Io { operation: "make the directory", path: config.cursors.clone(), source };
        std::fs::create_dir_all(&config.cursors).map_err(failed)?;
        let boot = guard_sys::clock::boot_id().unwrap_or_else(|error| {
            tracing::warn!(%error, "without a boot id, sinks repeat a little after each start");
            format!("unknown-{}", guard_sys::clock::wall_micros())
        });
        let sinks = Self {
            feed: Arc::new(Feed::new(Box::new(ledger))),
            config,
            boot,
            on_health: Arc::new(on_health),
            running: Arc::default(),
        };
        let unplaced = sinks.place_of_new_sinks();
        let bells = Arc::downgrade(&sinks.running);
        sinks.feed.on_commit(Box::new(move || {
            if let Some(running) = bells.upgrade() {
                lock(&running).iter().for_each(|r| r.bell.ring());
            }
        }));
        for log in Log::ALL {
            let name = format!("log:{}", log.file_name().trim_end_matches(".log"));
            sinks.spawn(name, QUICK, unplaced, |_| LogFile::new(log, &sinks.config.log_dir))?;
        }
        if sinks.config.journal {
            let outlet = Journald::new(&sinks.config.journal_socket)?;
            sinks.spawn("journald".to_owned(), QUICK, unplaced, |_| outlet)?;
        }
        if sinks.config.terminal {
            sinks.spawn("terminal".to_owned(), QUICK, unplaced, |_| Terminal::new())?;
        }
        for (environment, command) in &sinks.config.notify {
            sinks.spawn_notify(environment, command, unplaced)?;
        }
        Ok(sinks)
    }

    fn running(&self) -> MutexGuard<'_, Vec<Running>> {
        lock(&self.running)
    }

    /// Where sinks without a place begin: see [`Sinks::start`].
    fn place_of_new_sinks(&self) -> u64 {
        let known = std::fs::read_dir(&self.config.cursors).into_iter().flatten().flatten();
        let any = known.into_iter().any(|entry| Cursor::read(&entry.path(), &self.boot).is_some());
        if any { self.feed.head() } else { 0 }
    }

    fn spawn<O: Outlet>(
        &self,
        name: String,
        patience: Patience,
        unplaced: u64,
        outlet: impl FnOnce(&Arc<Bell>) -> O,
    ) -> Result<(), AlertError> {
        let bell = Arc::new(Bell::default());
        let cursor = self.cursor(&name, unplaced);
        let status = Arc::new(Status::new(name.clone(), cursor.delivered().seq));
        let worker = Worker {
            outlet: outlet(&bell),
            feed: Arc::clone(&self.feed),
            bell: Arc::clone(&bell),
            status: Arc::clone(&status),
            cursor,
            patience,
            on_health: Arc::clone(&self.on_health),
        };
        let thread =
            std::thread::Builder::new().name(name).spawn(move || worker.run()).map_err(AlertError::Thread)?;
        self.running().push(Running { bell, status, thread: Some(thread), notify: None });
        Ok(())
    }

    fn spawn_notify(&self, environment: &str, command: &[String], unplaced: u64) -> Result<(), AlertError> {
        let times = self.config.patience;
        let patience =
            Patience { first: times.first_pause, longest: times.longest_pause, grace: Duration::ZERO };
        self.spawn(format!("notify:{environment}"), patience, unplaced, |bell| {
            Notify::new(environment.to_owned(), command.to_vec(), times.deadline, Arc::clone(bell))
        })?;
        if let Some(last) = self.running().last_mut() {
            last.notify = Some((environment.to_owned(), command.to_vec()));
        }
        Ok(())
    }

    fn cursor(&self, name: &str, unplaced: u64) -> Cursor {
        if name == "terminal" {
            // Nobody reads yesterday's lines on today's terminal.
            return Cursor::volatile(self.feed.head());
        }
        let path = self.config.cursors.join(file_name(name));
        let head = self.feed.head();
        let place = match Cursor::read(&path, &self.boot) {
            Some(place) if place.seq <= head => place,
            Some(place) => {
                tracing::warn!(sink = name, at = place.seq, head, "the ledger is shorter than it was");
                Place { seq: head, pieces: 0 }
            }
            None => Place { seq: unplaced, pieces: 0 },
        };
        Cursor::open(&path, self.boot.clone(), place)
    }

    /// Opens the log files anew, after logrotate has moved them (SIGUSR1). Sinks
    /// that wait before trying again try at once.
    pub fn reopen(&self) {
        self.running().iter().for_each(|r| r.bell.reopen());
    }

    /// Sends records that could not be made durable, marked as such. They come
    /// once more, unmarked, after the ledger has taken them.
    pub fn undurable(&self, records: Vec<Record>) {
        for record in records {
            let record = Arc::new(record);
            self.running().iter().for_each(|r| r.bell.undurable(Arc::clone(&record)));
        }
    }

    /// Changes the notify commands, after a reload of the configuration. A
    /// command that runs is left to end within its deadline.
    ///
    /// # Errors
    /// Where no thread can be had.
    pub fn set_notify(&self, notify: &BTreeMap<String, Vec<String>>) -> Result<(), AlertError> {
        let kept: Vec<String> = {
            let mut running = self.running();
            let stays =
                |r: &Running| r.notify.as_ref().is_none_or(|(env, command)| notify.get(env) == Some(command));
            running.iter().filter(|r| !stays(r)).for_each(|r| r.bell.stop(Instant::now()));
            running.retain(stays);
            running.iter().filter_map(|r| r.notify.as_ref().map(|(env, _)| env.clone())).collect()
        };
        for (environment, command) in notify.iter().filter(|(env, _)| !kept.contains(env)) {
            self.spawn_notify(environment, command, self.feed.head())?;
        }
        Ok(())
    }

    /// How each sink does.
    #[must_use]
    pub fn health(&self) -> Vec<SinkHealth> {
        let head = self.feed.head();
        self.running().iter().map(|r| r.status.health(head)).collect()
    }

    /// Lets every sink deliver what there is, but not beyond `deadline` from now,
    /// and ends them. A sink that hangs in the kernel is left behind.
    ///
    /// Returns the sinks that are not done; they go on after the next start.
    pub fn shutdown(&self, deadline: Duration) -> Vec<SinkHealth> {
        let end = Instant::now() + deadline;
        let mut running = std::mem::take(&mut *self.running());
        running.iter().for_each(|r| r.bell.stop(end));
        // A command that is killed still has to be reaped.
        let last = end + Duration::from_millis(500);
        while running.iter().any(|r| r.thread.as_ref().is_some_and(|t| !t.is_finished()))
            && Instant::now() < last
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        for r in &mut running {
            if let Some(thread) = r.thread.take_if(|t| t.is_finished())
                && thread.join().is_err()
            {
                tracing::error!(sink = r.status.name(), "a sink had panicked");
            }
        }
        let head = self.feed.head();
        running.iter().map(|r| r.status.health(head)).filter(|h| h.waiting > 0).collect()
    }
}

impl Drop for Sinks {
    fn drop(&mut self) {
        self.running().iter().for_each(|r| r.bell.stop(Instant::now()));
    }
}

fn lock(running: &Mutex<Vec<Running>>) -> MutexGuard<'_, Vec<Running>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sink's name as a file name: letters, digits, `-`, `_` and `.` stay, the
/// first `:` becomes `-`, and everything else becomes its bytes in hexadecimal.
fn file_name(sink: &str) -> String {
    let mut name = String::new();
    for b in sink.replacen(':', "-", 1).bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => name.push(char::from(b)),
            b => name.push_str(&format!("%{b:02x}")),
        }
    }
    name
}
