//! The configuration as the daemon uses it: every value checked, every default filled in.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use guard_model::Seal;
use guard_model::deploy::{Compose, Deploy, Validation};
use guard_model::policy::{PatternText, Policy};

/// A whole configuration. No environment at all is valid: the daemon then
/// idles and says so.
#[derive(Debug, Clone)]
pub struct Config {
    /// The `[daemon]` table.
    pub daemon: Daemon,
    /// The `[environments.NAME]` tables of all files, sorted by name; names are
    /// unique and no root lies in another.
    pub environments: Vec<Environment>,
}

impl Config {
    /// The environment of that name.
    #[must_use]
    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments.iter().find(|e| e.name == name)
    }
}

/// What concerns the daemon as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Daemon {
    /// Where ledger, baselines, keys and plans live. Absolute.
    pub state_dir: PathBuf,
    /// Where the control socket is made. Absolute.
    pub runtime_dir: PathBuf,
    /// Where the log files are written. Absolute.
    pub log_dir: PathBuf,
    /// Which of the kernel's notifications to use.
    pub watch: Watch,
    /// The longest maintenance window that `unlock --for` may ask for.
    pub window_max: Duration,
    /// Command name (one of [`ALLOWED_COMMANDS`]) to the groups that may call
    /// it besides the daemon's own uid.
    pub allow: BTreeMap<String, Vec<String>>,
}

/// The commands that `[daemon.allow]` can give to a group. Reading is not among
/// them: whoever may connect to the socket may read.
pub const ALLOWED_COMMANDS: [&str; 10] =
    ["accept", "ack", "backup", "cancel", "deploy", "lock", "reload", "restore", "rollback", "unlock"];

impl Daemon {
    /// The groups that may call this command besides the daemon's own uid.
    #[must_use]
    pub fn groups_allowed(&self, command: &str) -> &[String] {
        self.allow.get(command).map_or(&[], Vec::as_slice)
    }
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/guardd".into(),
            runtime_dir: "/run/guardd".into(),
            log_dir: "/var/log/guardd".into(),
            watch: Watch::Auto,
            window_max: Duration::from_secs(8 * 3600),
            allow: BTreeMap::new(),
        }
    }
}

/// Which of the kernel's notifications to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Watch {
    /// The best that this kernel and these rights give.
    #[default]
    Auto,
    /// inotify(7).
    Inotify,
    /// fanotify(7).
    Fanotify,
    /// None: the periodic rehash alone.
    None,
}

impl fmt::Display for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Inotify => "inotify",
            Self::Fanotify => "fanotify",
            Self::None => "none",
        })
    }
}

/// What follows an alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnTamper {
    /// Nothing else.
    #[default]
    Alert,
    /// The original is put back.
    Restore,
}

impl fmt::Display for OnTamper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alert => "alert",
            Self::Restore => "restore",
        })
    }
}

/// One protected tree.
#[derive(Debug, Clone)]
pub struct Environment {
    /// `[a-z][a-z0-9-]{0,30}`.
    pub name: String,
    /// The directory, absolute and as written: without `.`, `..` or doubled
    /// slashes, but not yet canonical, and it need not exist.
    pub root: PathBuf,
    /// The patterns as written, which is what a lock signs.
    pub patterns: PatternText,
    /// The same, compiled.
    pub policy: Arc<Policy>,
    /// How hard the locked tree is to change, if the file system can.
    pub seal: Seal,
    /// Every protected file's content is read again at least this often.
    pub rehash: Duration,
    /// The same, as the disk holds it, past the page cache.
    pub deep_rehash: Duration,
    /// The most of one processor that a rehash uses, in percent from 1 to 100.
    pub pace: NonZeroU8,
    /// The same where `rehash` could not be met with that; not less.
    pub pace_max: NonZeroU8,
    /// What follows an alert.
    pub on_tamper: OnTamper,
    /// Git branches that a deployment may come from; empty means any.
    pub branches: Vec<String>,
    /// How backups are kept.
    pub backup: Backup,
    /// The command that gets each alert as JSON on its standard input: an
    /// absolute program and its arguments; empty means none.
    pub notify: Vec<String>,
    /// How long a maintenance window is where `unlock` is not told; at most
    /// [`Daemon::window_max`].
    pub window_default: Duration,
    /// Who is expected to open sensitive files; `None` means that nobody's reading is an alert.
    pub readers: Option<Readers>,
    /// Validators of what is committed: a pattern of paths, and the command that gets the content.
    pub validate: BTreeMap<String, Vec<String>>,
    /// How it is deployed; `None` where it is not by guardd.
    pub deploy: Option<Deploy>,
    /// What must hold before a deployment, beside what guardd knows by itself.
    pub validation: Option<Validation>,
    /// Which compose project it runs; `None` where it runs none.
    pub compose: Option<Compose>,
}

impl Environment {
    /// An environment that protects everything below `root`, with the defaults
    /// of the configuration file.
    #[must_use]
    pub fn new(name: String, root: PathBuf, policy: Policy) -> Self {
        Self {
            name,
            root,
            patterns: policy.text().clone(),
            policy: Arc::new(policy),
            seal: Seal::Immutable,
            rehash: Duration::from_secs(300),
            deep_rehash: Duration::from_secs(86_400),
            pace: const { NonZeroU8::new(25).unwrap() },
            pace_max: const { NonZeroU8::new(100).unwrap() },
            on_tamper: OnTamper::default(),
            branches: Vec::new(),
            backup: Backup::default(),
            notify: Vec::new(),
            window_default: Duration::from_secs(30 * 60),
            readers: None,
            validate: BTreeMap::new(),
            deploy: None,
            validation: None,
            compose: None,
        }
    }
}

/// Who is expected to open sensitive files. Anybody else is an alert.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readers {
    /// Programs, absolute.
    pub exe: Vec<PathBuf>,
    /// systemd units, `*` for any characters.
    pub unit: Vec<String>,
}

/// How backups of an environment are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backup {
    /// How many are kept before the oldest goes.
    pub keep: u32,
    /// Where; `None` means below [`Daemon::state_dir`].
    pub dir: Option<PathBuf>,
}

impl Default for Backup {
    fn default() -> Self {
        Self { keep: 10, dir: None }
    }
}
