//! Makes every event fit into a ledger line: findings and paths that are too many go into
//! further records, a single finding that is too large is shortened and says so.

use guard_model::ledger::{Event, Explained};
use guard_model::{Finding, Severity};
use sha2::{Digest as _, Sha256};

/// What one event's findings may add up to before they are split, bytes of JSON.
/// Far below the longest line, so that a record is cheap to read and to index.
pub(crate) const FINDINGS_BYTES: usize = 1024 * 1024;

/// Longest single value kept of an extended attribute or a symlink's target in
/// a finding that had to be shortened, bytes.
const KEPT_VALUE: usize = 256;

/// An event that fits, and what comes after it.
pub(crate) struct Split {
    pub(crate) first: Event,
    pub(crate) rest: Vec<Rest>,
}

/// A further part of an event.
pub(crate) enum Rest {
    /// Joins an alert; `None` is the alert that the first part opens.
    Alert(Option<u64>, Severity, Vec<Finding>),
    /// Belongs to a window.
    Window(u64, Option<Explained>, Vec<Finding>),
    /// Further paths of an alert that are settled.
    Settled(u64, Vec<String>, String, bool),
}

impl Rest {
    /// The event that carries it; `first` is the number of the record before.
    pub(crate) fn into_event(self, first: u64) -> Event {
        match self {
            Self::Alert(alert, severity, findings) => {
                Event::AlertGrew { alert: alert.unwrap_or(first), severity, findings }
            }
            Self::Window(window, deployment, findings) => {
                Event::WindowChange { window, deployment, findings }
            }
            Self::Settled(alert, paths, how, reviewed) => Event::AlertSettled { alert, paths, how, reviewed },
        }
    }
}

/// Splits an event whose findings are too many for one line.
pub(crate) fn split(mut event: Event) -> Split {
    let cut = |findings: &mut Vec<Finding>| {
        let mut parts = parts(std::mem::take(findings)).into_iter();
        *findings = parts.next().unwrap_or_default();
        parts
    };
    let rest = match &mut event {
        Event::AlertOpened { findings, severity, .. } => {
            cut(findings).map(|part| Rest::Alert(None, *severity, part)).collect()
        }
        Event::AlertGrew { alert, findings, severity } => {
            cut(findings).map(|part| Rest::Alert(Some(*alert), *severity, part)).collect()
        }
        Event::WindowChange { window, deployment, findings } => {
            cut(findings).map(|part| Rest::Window(*window, *deployment, part)).collect()
        }
        Event::AlertSettled { alert, paths, how, reviewed } => {
            let mut parts = parts_of_paths(std::mem::take(paths)).into_iter();
            *paths = parts.next().unwrap_or_default();
            parts.map(|part| Rest::Settled(*alert, part, how.clone(), *reviewed)).collect()
        }
        Event::Accepted { paths, .. } => {
            // One baseline is accepted once. The alerts' own `alert_settled` name every path.
            let mut parts = parts_of_paths(std::mem::take(paths)).into_iter();
            *paths = parts.next().unwrap_or_default();
            let more: usize = parts.map(|part| part.len()).sum();
            if more > 0 {
                paths.push(format!("(and {more} more)"));
            }
            Vec::new()
        }
        _ => Vec::new(),
    };
    Split { first: event, rest }
}

fn parts_of_paths(paths: Vec<String>) -> Vec<Vec<String>> {
    let mut parts = vec![Vec::new()];
    let mut size = 0;
    for path in paths {
        // Quotes and the doubled backslashes of JSON.
        size += path.len() * 2 + 3;
        if size > FINDINGS_BYTES {
            parts.push(Vec::new());
            size = path.len() * 2 + 3;
        }
        if let Some(part) = parts.last_mut() {
            part.push(path);
        }
    }
    parts
}

fn parts(findings: Vec<Finding>) -> Vec<Vec<Finding>> {
    let mut parts = Vec::new();
    let mut part = Vec::new();
    let mut size = 0;
    for mut finding in findings {
        let mut weight = weight_of(&finding);
        if weight > FINDINGS_BYTES {
            shorten(&mut finding);
            weight = weight_of(&finding);
        }
        if size + weight > FINDINGS_BYTES && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            size = 0;
        }
        size += weight;
        part.push(finding);
    }
    parts.push(part);
    parts
}

fn weight_of(finding: &Finding) -> usize {
    let mut counter = Counter(0);
    // Counting does not fail, and what has no JSON form fails when it is written.
    serde_json::to_writer(&mut counter, finding).unwrap_or_default();
    counter.0
}

struct Counter(usize);

impl std::io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Puts digests in the place of long values. Names of attributes are bounded by
/// the kernel (`XATTR_LIST_MAX`, 64 KiB together), their number by that too.
fn shorten(finding: &mut Finding) {
    for entry in [&mut finding.before, &mut finding.after].into_iter().flatten() {
        let mut together = Sha256::new();
        for (name, value) in &mut entry.xattrs {
            together.update((name.len() as u64).to_le_bytes());
            together.update(&name);
            together.update((value.len() as u64).to_le_bytes());
            together.update(&value);
            shorten_value(value);
        }
        if entry.xattrs.len() > KEPT_VALUE {
            entry.xattrs.truncate(KEPT_VALUE);
            let digest = format!("sha256:{}", hex::encode(together.finalize()));
            entry.xattrs.push((b"guardd.all-attributes".to_vec(), digest.into_bytes()));
            entry.xattrs.sort();
        }
        if let Some(target) = &mut entry.target {
            shorten_value(target);
        }
    }
    let said = "extended attributes are too large to record whole; digests stand in their place";
    finding.note = Some(match finding.note.take() {
        Some(note) => format!("{}; {said}", note.chars().take(4096).collect::<String>()),
        None => said.to_owned(),
    });
    if let Some(actor) = &mut finding.actor {
        for text in [&mut actor.exe, &mut actor.cmdline].into_iter().flatten() {
            *text = text.chars().take(4096).collect();
        }
        actor.parents.truncate(KEPT_VALUE);
        for parent in &mut actor.parents {
            *parent = parent.chars().take(KEPT_VALUE).collect();
        }
    }
}

fn shorten_value(value: &mut Vec<u8>) {
    if value.len() > KEPT_VALUE {
        *value = format!("sha256:{}", hex::encode(Sha256::digest(&*value))).into_bytes();
    }
}
