//! The ledger's format: one JSON object a line, each holding the SHA-256 of the
//! line before it, with signed checkpoints.
//!
//! Edit, removal, insertion and reordering break the chain at a line that
//! [`Verifier`] names. Removal of the tail leaves a chain that is whole, so it
//! is found only by comparing with a head remembered elsewhere.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::access::Reading;
use crate::alert::{Session, Severity};
use crate::backup::{BackupId, BackupKind};
use crate::baseline::Totals;
use crate::deploy::{DeploymentEnd, DeploymentKind, Force, Image, Phase};
use crate::entry::Digest;
use crate::finding::Finding;
use crate::put_back::{PutBackStop, Standing};
use crate::seal::Seal;
use crate::time::Timestamp;

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts up by one from 1.
    pub seq: u64,
    /// When it was written, by the wall clock, which may have been set back.
    pub at: Timestamp,
    /// SHA-256 of the previous line without its newline; zeros for the first.
    pub prev: Digest,
    /// The environment it concerns; `None` for the daemon as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// Who called a method, by the kernel's word (SO_PEERCRED).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Effective user id.
    pub uid: u32,
    /// Login user id, where set (`/proc/PID/loginuid`).
    pub login_uid: Option<u32>,
    /// Process id.
    pub pid: i32,
    /// Login name of `login_uid` or else `uid`, escaped.
    pub name: Option<String>,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (uid {})", self.uid),
            None => write!(f, "uid {}", self.uid),
        }
    }
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As asked.
    Done,
    /// Not permitted, wrong state, busy.
    Refused,
    /// Tried and failed.
    Failed,
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
    /// The backend did not answer its canary in time.
    Deaf,
    /// The root was gone, renamed or mounted over.
    Root,
}

/// How a maintenance window ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowEnd {
    /// Somebody locked.
    Lock,
    /// Its time was up.
    Timer,
    /// Its time was up while guardd was down.
    WhileDown,
    /// The deployment that it was for, or that ran in it, ended.
    Deployment,
}

impl WindowEnd {
    /// Nobody asked for the lock: what changed was reviewed by nobody.
    #[must_use]
    pub fn is_by_clock(self) -> bool {
        matches!(self, Self::Timer | Self::WhileDown)
    }
}

/// A change while a deployment ran, by whoever is not known to be an outsider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The deployment.
    pub deployment: u64,
    /// Nobody is known to have made it, or a container engine did; else one of its own steps did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub assumed: bool,
}

/// How a backup was proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proving {
    /// It was decrypted, and every byte compared.
    Verify,
    /// It was restored into a private directory and compared there, attributes and all.
    Drill,
}

/// What a ledger record says happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The daemon started.
    DaemonStarted {
        /// Its version.
        version: String,
        /// Its process id.
        pid: u32,
        /// The kernel's boot id.
        boot_id: String,
        /// False where the last run left no `daemon_stopped`.
        after_clean_stop: bool,
    },
    /// The daemon stopped in order.
    DaemonStopped {
        /// Signal or cause.
        reason: String,
    },
    /// A configuration was read.
    Configuration {
        /// SHA-256 of its files.
        sha256: Digest,
        /// Applied, or refused whole.
        accepted: bool,
        /// Why it was refused.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        problems: Vec<String>,
    },
    /// A mutating or refused call.
    Call {
        /// The Varlink method.
        method: String,
        /// Who called.
        peer: Peer,
        /// How it ended.
        outcome: Outcome,
        /// The error's name and text; or, of a call that was done, what it told that has to be remembered.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A baseline was committed and the environment is locked by it.
    Locked {
        /// The baseline's number.
        generation: u64,
        /// SHA-256 of its `manifest.json`.
        baseline: Digest,
        /// Who, as [`Peer`] displays, or `guardd`.
        by: String,
        /// Why.
        reason: String,
        /// What was asked for and what was done.
        seal: Seal,
        /// What it holds.
        totals: Totals,
        /// Entries left unsealed.
        unsealed: u64,
    },
    /// `lock` on a locked environment put seal and lock file right.
    LockRepaired {
        /// Who.
        by: String,
        /// Entries whose mode was put right.
        repaired: u64,
    },
    /// The environment was unlocked: a maintenance window opened.
    WindowOpened {
        /// Who called.
        by: String,
        /// Who answers for it.
        maintainer: String,
        /// Why.
        reason: String,
        /// When it ends by the wall clock.
        until: Timestamp,
        /// When it ends by the boot-time clock, in microseconds since boot.
        until_boot_us: u64,
        /// The boot that clock belongs to.
        boot_id: String,
    },
    /// A change inside a window.
    WindowChange {
        /// Ledger number of the `window_opened`.
        window: u64,
        /// The deployment that explains it, where one ran.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deployment: Option<Explained>,
        /// What changed.
        findings: Vec<Finding>,
    },
    /// A window ended.
    WindowClosed {
        /// Ledger number of the `window_opened`.
        window: u64,
        /// How.
        how: WindowEnd,
        /// Paths that differ between the baselines before and after.
        changed: u64,
    },
    /// An alert; its id is this record's number.
    AlertOpened {
        /// How bad.
        severity: Severity,
        /// One line for people.
        title: String,
        /// The first findings.
        findings: Vec<Finding>,
        /// Who was logged in.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        sessions: Vec<Session>,
    },
    /// More findings joined an alert.
    AlertGrew {
        /// The alert.
        alert: u64,
        /// The severity from now on.
        severity: Severity,
        /// The further findings.
        findings: Vec<Finding>,
    },
    /// Somebody looked.
    AlertAcknowledged {
        /// The alert.
        alert: u64,
        /// Who.
        by: String,
        /// What they say.
        note: String,
    },
    /// Paths of an alert are no difference any more.
    AlertSettled {
        /// The alert.
        alert: u64,
        /// Escaped paths.
        paths: Vec<String>,
        /// `accepted`, `put back`, `as before`, `became baseline N`.
        how: String,
        /// True where a person decided it.
        reviewed: bool,
    },
    /// Findings became part of a new baseline.
    Accepted {
        /// The new baseline's number.
        generation: u64,
        /// SHA-256 of its `manifest.json`.
        baseline: Digest,
        /// Who.
        by: String,
        /// Why.
        reason: String,
        /// Escaped paths.
        paths: Vec<String>,
        /// What the new baseline holds.
        totals: Totals,
    },
    /// Paths were brought back to what they should be: expected from now on in the inodes named.
    Restored {
        /// Who asked for it, or `guardd` by itself.
        by: String,
        /// The backup that it was brought back from; `None` for the current baseline.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// What stands there now. Additions that were taken away are in `quarantined` alone.
        paths: Vec<Standing>,
    },
    /// What stood in the way or should not be there was taken away, and kept.
    Quarantined {
        /// Who asked for it, or `guardd` by itself.
        by: String,
        /// The directory below `quarantine/` that holds it.
        place: String,
        /// Escaped; of a directory its own path.
        paths: Vec<String>,
        /// Bytes kept.
        bytes: u64,
    },
    /// guardd puts something back no more, until a person has looked.
    PutBackStopped(PutBackStop),
    /// Sensitive files were opened or read.
    Accessed {
        /// By whom, each reader of each path once.
        readings: Vec<Reading>,
        /// Why there were more of which nothing else is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missed: Option<String>,
    },
    /// Hints may have been lost; its id is this record's number.
    GapOpened {
        /// Why.
        cause: GapCause,
        /// From when; at the latest this record's time.
        since: Timestamp,
        /// More for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
    /// A gap was re-verified.
    GapClosed {
        /// The gap.
        gap: u64,
        /// What was re-verified.
        verified: String,
        /// Findings that it brought.
        found: u64,
    },
    /// Every protected file was read again.
    RehashFinished {
        /// Files read.
        files: u64,
        /// Bytes read.
        bytes: u64,
        /// Wall time, milliseconds.
        duration_ms: u64,
        /// Paths that differ.
        findings: u64,
        /// What the devices hold was read, past the page cache.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        deep: bool,
    },
    /// An operation was found half-done at start.
    Recovered {
        /// Which.
        operation: String,
        /// `finished` or `undone`, and what that meant.
        how: String,
    },
    /// A backup was made.
    BackupCreated {
        /// Which.
        backup: BackupId,
        /// SHA-256 of its `manifest.json`.
        manifest: Digest,
        /// Why it was made.
        kind: BackupKind,
        /// Who asked for it.
        by: String,
        /// What they say.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        note: Option<String>,
        /// The baseline that it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        generation: Option<u64>,
        /// What it holds.
        totals: Totals,
        /// Files whose content it does not hold.
        missing: u64,
        /// Bytes that were written for it; the rest is shared with earlier ones.
        written: u64,
    },
    /// Backups went, by retention or because somebody asked.
    BackupPruned {
        /// Which.
        backups: Vec<BackupId>,
        /// Packs that went with them.
        packs: u64,
        /// Their bytes.
        bytes: u64,
        /// Who.
        by: String,
    },
    /// Every byte of a backup was decrypted and compared.
    BackupVerified {
        /// Which.
        backup: BackupId,
        /// By reading alone, or by restoring it.
        how: Proving,
        /// Regular files in it.
        files: u64,
        /// Bytes that were read.
        bytes: u64,
        /// What is wrong with it, the first few; empty where it is good.
        problems: Vec<String>,
        /// Wall time, milliseconds.
        duration_ms: u64,
        /// Who asked for it.
        by: String,
    },
    /// A backup is kept until further notice, or no longer.
    BackupPinned {
        /// Which.
        backup: BackupId,
        /// Kept, or freed.
        pinned: bool,
        /// Who.
        by: String,
    },
    /// Backups are encrypted to another recovery key from now on.
    BackupKey {
        /// The recovery key's recipient, as age writes it.
        recipient: String,
        /// The one before, where there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        replaced: Option<String>,
        /// Who.
        by: String,
    },
    /// A deployment, or the rollback of one, began; its id is this record's number.
    DeploymentStarted {
        /// Which of both.
        kind: DeploymentKind,
        /// Who asked for it.
        by: String,
        /// Why.
        reason: String,
        /// What is deployed, as it was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<String>,
        /// What it skips, because somebody said so.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        force: Vec<Force>,
        /// It was locked when it began.
        #[serde(default)]
        locked: bool,
        /// It is locked afterwards.
        relock: bool,
        /// Of a rollback: the backup that it brings back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<BackupId>,
    },
    /// A part of a deployment begins. Durable before it acts.
    DeploymentPhase {
        /// The deployment.
        deployment: u64,
        /// Which part.
        phase: Phase,
        /// The step's name, where it is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
    },
    /// What a part of a deployment brought.
    DeploymentResult {
        /// The deployment.
        deployment: u64,
        /// Which part.
        phase: Phase,
        /// The step, gate or probe, where it is one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<String>,
        /// Is it as it should be?
        ok: bool,
        /// What there is to say, for people.
        told: String,
        /// Wall time, milliseconds.
        duration_ms: u64,
    },
    /// The backup and the images that a deployment would be rolled back to.
    DeploymentSecured {
        /// The deployment.
        deployment: u64,
        /// The backup of the tree before the first step.
        backup: BackupId,
        /// The commit that stood there, where the root is a git work tree.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<String>,
        /// The images that ran.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        images: Vec<Image>,
    },
    /// A deployment ended.
    DeploymentEnded {
        /// The deployment.
        deployment: u64,
        /// How.
        end: DeploymentEnd,
        /// In one line, for people.
        why: String,
        /// The commit that stands there now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision_after: Option<String>,
        /// Paths that differ from before.
        changed: u64,
        /// The images that run now.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        images: Vec<Image>,
        /// The backup of what it left.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        release: Option<BackupId>,
        /// Wall time, milliseconds.
        duration_ms: u64,
    },
    /// An alert's way out fails or works again.
    Sink {
        /// Which.
        sink: String,
        /// Works again, or fails.
        healthy: bool,
        /// The error.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// The chain up to here, signed.
    Checkpoint {
        /// SSHSIG armour over [`checkpoint_text`], namespace `guardd-ledger`.
        signature: String,
    },
    /// Written by another version of guardd.
    #[serde(other)]
    Unknown,
}

impl Event {
    /// The event's name, as the ledger's `event` field has it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::DaemonStarted { .. } => "daemon_started",
            Self::DaemonStopped { .. } => "daemon_stopped",
            Self::Configuration { .. } => "configuration",
            Self::Call { .. } => "call",
            Self::Locked { .. } => "locked",
            Self::LockRepaired { .. } => "lock_repaired",
            Self::WindowOpened { .. } => "window_opened",
            Self::WindowChange { .. } => "window_change",
            Self::WindowClosed { .. } => "window_closed",
            Self::AlertOpened { .. } => "alert_opened",
            Self::AlertGrew { .. } => "alert_grew",
            Self::AlertAcknowledged { .. } => "alert_acknowledged",
            Self::AlertSettled { .. } => "alert_settled",
            Self::Accepted { .. } => "accepted",
            Self::Restored { .. } => "restored",
            Self::Quarantined { .. } => "quarantined",
            Self::PutBackStopped(_) => "put_back_stopped",
            Self::Accessed { .. } => "accessed",
            Self::GapOpened { .. } => "gap_opened",
            Self::GapClosed { .. } => "gap_closed",
            Self::RehashFinished { .. } => "rehash_finished",
            Self::Recovered { .. } => "recovered",
            Self::BackupCreated { .. } => "backup_created",
            Self::BackupPruned { .. } => "backup_pruned",
            Self::BackupVerified { .. } => "backup_verified",
            Self::BackupPinned { .. } => "backup_pinned",
            Self::BackupKey { .. } => "backup_key",
            Self::DeploymentStarted { .. } => "deployment_started",
            Self::DeploymentPhase { .. } => "deployment_phase",
            Self::DeploymentResult { .. } => "deployment_result",
            Self::DeploymentSecured { .. } => "deployment_secured",
            Self::DeploymentEnded { .. } => "deployment_ended",
            Self::Sink { .. } => "sink",
            Self::Checkpoint { .. } => "checkpoint",
            Self::Unknown => "unknown",
        }
    }
}

/// What a checkpoint with this number and predecessor signs.
#[must_use]
pub fn checkpoint_text(seq: u64, prev: &Digest) -> String {
    format!("{seq} {prev}\n")
}

/// SHA-256 of a line without its newline.
#[must_use]
pub fn line_hash(line: &[u8]) -> Digest {
    Digest(Sha256::digest(line).into())
}

/// A place in the chain: the last record's number and its line's hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The last record's number; 0 for an empty ledger.
    pub seq: u64,
    /// Its line's hash; zeros for an empty ledger.
    pub hash: Digest,
}

impl Default for Head {
    fn default() -> Self {
        Self { seq: 0, hash: Digest([0; 32]) }
    }
}

/// Where and how a ledger is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Not a record.
    #[error("after record {after}: the line is not a ledger record ({why})")]
    NotARecord {
        /// The last good record.
        after: u64,
        /// The parser's words.
        why: String,
    },
    /// A record is missing, doubled or out of order.
    #[error("after record {after}: record {found} stands where record {} belongs", after + 1)]
    Sequence {
        /// The last good record.
        after: u64,
        /// The number found.
        found: u64,
    },
    /// The line before was edited, or this one was put in.
    #[error("record {after} or {}: the chain is broken, the earlier line was edited or the later one forged", after + 1)]
    Chain {
        /// The last record whose number is right.
        after: u64,
    },
}

/// Follows a ledger line by line.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    head: Head,
}

impl Verifier {
    /// Starts in the middle, after a head that is known to be good.
    #[must_use]
    pub fn after(head: Head) -> Self {
        Self { head }
    }

    /// The last good record.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// Takes the next line, without its newline.
    ///
    /// # Errors
    /// [`Broken`], after which the head stays at the last good record.
    pub fn feed(&mut self, line: &[u8]) -> Result<Record, Broken> {
        let after = self.head.seq;
        let record: Record =
            serde_json::from_slice(line).map_err(|e| Broken::NotARecord { after, why: e.to_string() })?;
        if Some(record.seq) != after.checked_add(1) {
            return Err(Broken::Sequence { after, found: record.seq });
        }
        if record.prev != self.head.hash {
            return Err(Broken::Chain { after });
        }
        self.head = Head { seq: record.seq, hash: line_hash(line) };
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(n: u64) -> Vec<Vec<u8>> {
        let mut head = Head::default();
        (0..n)
            .map(|i| {
                let record = Record {
                    seq: head.seq + 1,
                    at: Timestamp(i64::try_from(i).unwrap()),
                    prev: head.hash,
                    environment: Some("production".into()),
                    event: Event::DaemonStopped { reason: format!("SIGTERM {i}") },
                };
                let line = serde_json::to_vec(&record).unwrap();
                head = Head { seq: record.seq, hash: line_hash(&line) };
                line
            })
            .collect()
    }

    fn verify(lines: &[Vec<u8>]) -> Result<Head, Broken> {
        let mut v = Verifier::default();
        for l in lines {
            v.feed(l)?;
        }
        Ok(v.head())
    }

    #[test]
    fn a_whole_chain_verifies() {
        assert_eq!(verify(&lines(5)).unwrap().seq, 5);
    }

    #[test]
    fn an_event_is_named_as_it_is_written() {
        let events = [
            Event::DaemonStopped { reason: String::new() },
            Event::AlertSettled { alert: 1, paths: vec![], how: String::new(), reviewed: false },
            Event::Checkpoint { signature: String::new() },
            Event::Sink { sink: String::new(), healthy: true, error: None },
        ];
        for event in events {
            assert_eq!(serde_json::to_value(&event).unwrap()["event"], event.name());
        }
    }

    #[test]
    fn unknown_events_keep_the_chain() {
        let line = br#"{"seq":1,"at":"2026-01-01T00:00:00Z","prev":"0000000000000000000000000000000000000000000000000000000000000000","event":"from_the_future","x":1}"#;
        assert_eq!(Verifier::default().feed(line).unwrap().event, Event::Unknown);
    }

    proptest! {
        #[test]
        fn any_edit_removal_or_swap_before_the_end_is_found(i in 0usize..9, j in 0usize..200, bit in 0u8..8) {
            let good = lines(10);
            let mut edited = good.clone();
            let at = j % edited[i].len();
            edited[i][at] ^= 1 << bit;
            prop_assert!(verify(&edited).is_err());
            let mut removed = good.clone();
            removed.remove(i);
            prop_assert!(verify(&removed).is_err());
            let mut swapped = good.clone();
            swapped.swap(i, i + 1);
            prop_assert!(verify(&swapped).is_err());
        }

        #[test]
        fn hostile_lines_are_refused(line: Vec<u8>) { prop_assert!(Verifier::default().feed(&line).is_err()); }
    }
}
