//! Makes every event fit into a ledger line: findings that are too many go into
//! further records, a single finding that is too large is shortened and says so.

use guard_model::Finding;
use guard_model::ledger::Event;
use sha2::{Digest as _, Sha256};

/// What one event's findings may add up to before they are split, bytes of JSON.
/// Far below the longest line, so that a record is cheap to read and to index.
pub(crate) const FINDINGS_BYTES: usize = 1024 * 1024;

/// Longest single value kept of an extended attribute or a symlink's target in
/// a finding that had to be shortened, bytes.
const KEPT_VALUE: usize = 256;

/// The event with as many findings as fit, and the findings left over in parts.
pub(crate) fn split(mut event: Event) -> (Event, Vec<Vec<Finding>>) {
    let findings = match &mut event {
        Event::AlertOpened { findings, .. }
        | Event::AlertGrew { findings, .. }
        | Event::WindowChange { findings, .. } => findings,
        _ => return (event, Vec::new()),
    };
    let mut parts = parts(std::mem::take(findings)).into_iter();
    *findings = parts.next().unwrap_or_default();
    (event, parts.collect())
}

/// The record that carries a further part of `event`, which became record `seq`.
pub(crate) fn continuation(event: &Event, seq: u64, findings: Vec<Finding>) -> Option<Event> {
    match event {
        Event::AlertOpened { severity, .. } => {
            Some(Event::AlertGrew { alert: seq, severity: *severity, findings })
        }
        Event::AlertGrew { alert, severity, .. } => {
            Some(Event::AlertGrew { alert: *alert, severity: *severity, findings })
        }
        Event::WindowChange { window, .. } => Some(Event::WindowChange { window: *window, findings }),
        _ => None,
    }
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
