//! guardd's own files: configuration, unit, binaries, keys. A change of them is
//! an alert like any other, under the name of the daemon itself.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use guard_model::ledger::Event;
use guard_model::path::escape;
use guard_model::{Change, Digest, Finding, Severity};
use guard_store::index::RebuildCause;
use guard_store::{KeyOrigin, LedgerBreak, Opened};

use super::{DaemonError, Start, append};
use crate::operations::now;
use crate::sessions::alert;
use crate::ward::House;

/// The name under which alerts about the daemon itself stand; no environment may have it.
pub(crate) const ENVIRONMENT: &str = "guardd";

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// What was found when the state was opened, as events.
pub(super) fn at_start(
    house: &House,
    opened: &Opened,
    broken: Option<&LedgerBreak>,
    is_ledger_missing: bool,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut found = |title: String, path: PathBuf, change: Change| {
        let finding = finding(&path, change, None);
        events.push(alert(Severity::Critical, title, vec![finding]));
    };
    if let Some(broken) = broken {
        let title = format!("the ledger was tampered with: {broken}");
        found(title, broken.file.clone(), Change::Content);
    }
    if is_ledger_missing {
        let title = "the ledger is gone, though there are baselines of locked environments".to_owned();
        found(title, house.state_dir.ledger(), Change::Deleted);
    }
    match house.key.origin() {
        KeyOrigin::Created | KeyOrigin::Loaded => {}
        KeyOrigin::Replaced { lost } => {
            let title = format!(
                "the host key ({lost}) is gone and was replaced: what it signed cannot be verified any more"
            );
            found(title, house.state_dir.keys().join("host"), Change::Deleted);
        }
        KeyOrigin::PublicRepaired { files } => {
            let title = format!("{} had been altered and was put right", files.join(", "));
            found(title, house.state_dir.public(), Change::Content);
        }
    }
    if let Some(first) = opened.verified.as_ref().and_then(|report| report.first_broken()) {
        found(format!("the ledger was tampered with: {first}"), first.file.clone(), Change::Content);
    }
    if let Some(cause @ (RebuildCause::OtherLedger | RebuildCause::Damaged(_))) = &opened.index.rebuilt {
        let title = format!("the index was not the ledger's and was made anew ({cause:?})");
        found(title, house.state_dir.index(), Change::Content);
    }
    if let Some(torn) = &opened.torn_tail {
        events.push(Event::Recovered {
            operation: "ledger".to_owned(),
            how: format!(
                "{} bytes of an unfinished record after {} were cut off and kept in {}",
                torn.bytes,
                torn.after,
                escape(torn.saved_as.as_os_str().as_bytes())
            ),
        });
    }
    if let Some(why) = &opened.index.in_memory {
        tracing::error!(why, "the index cannot be kept on disk");
    }
    events
}

/// What a file looked like: where nothing is, `None`.
type Seen = Option<(Stat, Digest)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    identity: (u64, u64),
    ctime: (i64, i64),
    mode: u32,
    owner: (u32, u32),
}

/// Watches guardd's own files.
pub(crate) struct SelfWatch {
    house: Arc<House>,
    files: Mutex<BTreeMap<PathBuf, Seen>>,
    config_path: Option<PathBuf>,
}

impl SelfWatch {
    pub(super) fn new(house: Arc<House>, start: &Start) -> Self {
        let watch = Self { house, files: Mutex::default(), config_path: start.config_path.clone() };
        let seen = watch.paths().into_iter().map(|p| (p.clone(), look(&p, None))).collect();
        *watch.files() = seen;
        watch
    }

    pub(super) fn start(self: &Arc<Self>, stopping: Arc<AtomicBool>) -> Result<JoinHandle<()>, DaemonError> {
        let watch = Arc::clone(self);
        std::thread::Builder::new()
            .name("self-watch".to_owned())
            .spawn(move || {
                while !stopping.load(Ordering::Relaxed) {
                    watch.check();
                    std::thread::park_timeout(EVERY);
                }
            })
            .map_err(DaemonError::io("start the self-watch"))
    }

    /// The configuration was read and accepted as it is: it is what is expected from now on.
    pub(super) fn accept_configuration(&self) {
        let mut files = self.files();
        for path in self.configuration() {
            let seen = look(&path, None);
            files.insert(path, seen);
        }
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Seen>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The configuration's files, those that were added later among them.
    fn configuration(&self) -> Vec<PathBuf> {
        let Some(main) = &self.config_path else { return Vec::new() };
        let further = main.parent().unwrap_or(Path::new("/")).join("environments.d");
        // The kept one would be used where the other is no good.
        let mut all = vec![main.clone(), super::accepted::place(&self.house)];
        all.extend(names_in(&further).into_iter().filter(|p| p.extension().is_some_and(|e| e == "toml")));
        all
    }

    fn paths(&self) -> Vec<PathBuf> {
        let mut all = self.configuration();
        if let Ok(own) = std::env::current_exe() {
            all.extend(own.parent().map(|dir| dir.join("guardctl")));
            all.push(own);
        }
        if self.config_path.is_some() {
            for dir in ["/usr/lib/systemd/system", "/etc/systemd/system", "/run/systemd/system"] {
                let unit = Path::new(dir).join("guardd.service");
                all.extend(names_in(&unit.with_extension("service.d")));
                all.push(unit);
            }
        }
        let (keys, public) = (self.house.state_dir.keys(), self.house.state_dir.public());
        all.extend(guard_store::backup::KEY_FILES.map(|name| keys.join(name)));
        all.extend([keys.join("host"), public.join("host.pub"), public.join("allowed_signers")]);
        all
    }

    /// Looks at every file; raises what differs, once for each difference.
    fn check(&self) {
        let mut files = self.files();
        let mut found = Vec::new();
        let mut paths = self.paths();
        paths.extend(files.keys().cloned());
        paths.sort();
        paths.dedup();
        for path in paths {
            let before = files.get(&path).copied().flatten();
            let known = files.contains_key(&path);
            let seen = look(&path, before);
            let change = match (before, seen) {
                (None, Some(_)) => Some(Change::Created),
                (Some(_), None) => Some(Change::Deleted),
                (Some((_, a)), Some((_, b))) if a != b => Some(Change::Content),
                (Some((a, _)), Some((b, _))) if a.mode != b.mode => Some(Change::Mode),
                (Some((a, _)), Some((b, _))) if a.owner != b.owner => Some(Change::Owner),
                _ => None,
            };
            if let Some(change) = change {
                found.push(finding(&path, change, Some("one of guardd's own files".to_owned())));
            }
            if !known || before != seen {
                files.insert(path, seen);
            }
        }
        drop(files);
        if found.is_empty() {
            return;
        }
        let names: Vec<&str> = found.iter().map(|f| f.path.as_str()).collect();
        let title = format!("guardd's own files changed: {}", names.join(", "));
        append(&self.house, alert(Severity::Critical, title, found));
    }
}

pub(super) fn finding(path: &Path, change: Change, note: Option<String>) -> Finding {
    Finding {
        path: escape(path.as_os_str().as_bytes()),
        at: now(),
        change: vec![change],
        before: None,
        after: None,
        actor: None,
        restored: false,
        note,
    }
}

/// What is in a directory; nothing where it is not there.
fn names_in(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

/// A file as it is; read only where it differs from `before` in its attributes.
fn look(path: &Path, before: Seen) -> Seen {
    let meta = std::fs::symlink_metadata(path).ok()?;
    let stat = Stat {
        identity: (meta.dev(), meta.ino()),
        ctime: (meta.ctime(), meta.ctime_nsec()),
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
    };
    if let Some((old, digest)) = before.filter(|(old, _)| *old == stat) {
        return Some((old, digest));
    }
    let digest = if meta.is_file() {
        guard_store::file_digest(path).unwrap_or(Digest([0; 32]))
    } else {
        let target = std::fs::read_link(path).unwrap_or_default();
        guard_model::ledger::line_hash(target.as_os_str().as_bytes())
    };
    Some((stat, digest))
}
