//! How the daemon and its environments stand.

use serde::{Deserialize, Serialize};

use super::{BackupState, Skipped};
use crate::Time;

/// Counts of what is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Everything that is not a directory.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

/// A maintenance window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Ledger number of its opening.
    pub id: u64,
    /// Who called.
    pub by: String,
    /// Who answers for it.
    pub maintainer: String,
    /// Why.
    pub reason: String,
    /// When it opened.
    pub since: Time,
    /// When it ends by itself.
    pub until: Time,
}

/// Why hints may have been lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GapCause {
    /// guardd was not running.
    Down,
    /// The kernel's event queue overflowed.
    Overflow,
    /// The watch backend reported an error, or could not add a watch.
    Backend,
    /// The backend did not answer in time.
    Deaf,
    /// The root was gone, renamed or mounted over.
    Root,
    /// Said by a later daemon.
    #[serde(other)]
    Unknown,
}

/// A span of time in which hints may have been lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Ledger number of its opening.
    pub id: u64,
    /// Why.
    pub cause: GapCause,
    /// From when.
    pub since: Time,
    /// Until when; `None` while not yet re-verified.
    pub until: Option<Time>,
    /// More for people.
    pub detail: Option<String>,
    /// What was re-verified.
    pub verified: Option<String>,
    /// Differences that it brought.
    #[serde(default)]
    pub found: u64,
}

/// How an environment is watched.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WatchState {
    /// `inotify`, `fanotify`, `none`.
    pub backend: String,
    /// Why it is `inotify` where `fanotify`, which tells who did it, was wanted.
    #[serde(default)]
    pub instead: Option<String>,
    /// Why processes that end at once may have no name: exec events are not to be had, or not any more, or nobody is
    /// named at all. `None` where they have, and where the backend names nobody.
    #[serde(default)]
    pub nameless: Option<String>,
    /// How many directories have a watch.
    #[serde(default)]
    pub directories: u64,
    /// Those open, and the last few that were closed.
    #[serde(default)]
    pub gaps: Vec<Gap>,
    /// What cannot be watched or read, and why.
    #[serde(default)]
    pub skipped: Vec<Skipped>,
    /// Literal patterns that match nothing.
    #[serde(default)]
    pub unmatched: Vec<String>,
    /// How it is told who reads sensitive files; `None` where there are none.
    #[serde(default)]
    pub reads: Option<ReadState>,
}

/// How it is told who reads sensitive files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ReadState {
    /// `audit`, `fanotify` or `none`.
    pub by: String,
    /// Files that are followed.
    pub files: u64,
    /// Why nothing, or not everything, is followed.
    pub why: Option<String>,
    /// The configuration says who is expected: anybody else is an alert.
    #[serde(default)]
    pub expects: bool,
    /// What cannot be seen.
    #[serde(default)]
    pub blind: Vec<String>,
    /// Why it is not told by audit, which sees more.
    #[serde(default)]
    pub instead: Option<String>,
}

/// The last time every protected file was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rehash {
    /// When it ended.
    pub finished_at: Time,
    /// Files read.
    pub files: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
}

/// The seal: `none`, `read-only` or `immutable`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SealState {
    /// What the configuration wants.
    pub asked: String,
    /// What the file system allowed.
    pub done: String,
    /// Entries left as they are, or sealed less than the others.
    #[serde(default)]
    pub unsealed: u64,
    /// Why it is less than what was asked for.
    #[serde(default)]
    pub why: Option<String>,
    /// Each sealed entry's mode and flags are looked at again at least this often, milliseconds;
    /// `None` while nothing is sealed, or until the first round is done.
    #[serde(default)]
    pub every_ms: Option<u64>,
}

/// How an environment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Changes are alerts.
    Locked,
    /// Changes are recorded under a window, or it was never locked.
    Unlocked,
    /// An operation runs.
    Busy,
    /// An operation failed and could not be undone.
    NeedsOperator,
    /// Said by a later daemon.
    #[serde(other)]
    Unknown,
}

/// One environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Its name.
    pub name: String,
    /// Its canonical root, escaped.
    #[serde(default)]
    pub root: String,
    /// How it stands.
    pub state: State,
    /// The running operation's name.
    pub operation: Option<String>,
    /// The baseline's number; `None` where it was never locked.
    pub generation: Option<u64>,
    /// Since when it is in this state.
    pub since: Option<Time>,
    /// Who brought it there.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// The open maintenance window.
    pub window: Option<Window>,
    /// What the baseline holds.
    pub protected: Totals,
    /// The seal; `None` where it was never locked.
    pub seal: Option<SealState>,
    /// How it is watched.
    pub watch: WatchState,
    /// The last rehash.
    pub last_rehash: Option<Rehash>,
    /// The last one that read what the disk holds, past the page cache.
    #[serde(default)]
    pub last_deep_rehash: Option<Rehash>,
    /// Every protected file is read again at least this often, seconds.
    #[serde(default)]
    pub rehash_seconds: u64,
    /// When the next rehash is due.
    pub next_rehash_at: Option<Time>,
    /// Where [`rehash_seconds`](Self::rehash_seconds) is not met, how often they are really read: what the last rehash took, seconds.
    #[serde(default)]
    pub rehash_overdue_seconds: Option<u64>,
    /// Alerts that nobody has looked at.
    pub alerts_open: u64,
    /// Its backups.
    #[serde(default)]
    pub backups: Option<BackupState>,
}

/// A place in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Head {
    /// A record's number; 0 for an empty ledger.
    pub seq: u64,
    /// SHA-256 of its line, in hexadecimal.
    pub hash: String,
}

/// A way out for alerts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sink {
    /// Its name.
    pub name: String,
    /// It takes what it gets.
    pub healthy: bool,
    /// Why not.
    pub error: Option<String>,
    /// Records it has not delivered yet.
    #[serde(default)]
    pub behind: u64,
}

/// The daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Daemon {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// The user it runs as.
    #[serde(default)]
    pub uid: u32,
    /// When it started.
    pub started_at: Time,
    /// The configuration file in force.
    pub config: Option<String>,
    /// Everything that is not as it should be, in words.
    #[serde(default)]
    pub degraded: Vec<String>,
    /// Alerts about guardd itself that nobody has looked at: its files, its keys, its ledger.
    #[serde(default)]
    pub alerts_open: u64,
    /// The ways out for alerts.
    #[serde(default)]
    pub sinks: Vec<Sink>,
    /// Where the ledger stands.
    #[serde(default)]
    pub ledger: Head,
}
