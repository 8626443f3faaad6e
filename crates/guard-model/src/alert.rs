//! Alerts: findings that were not authorised, raised together.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::compare::Change;
use crate::finding::Finding;
use crate::time::Timestamp;

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Something to look at by day.
    Warning,
    /// A protected entry changed.
    High,
    /// A sensitive entry, the seal, the lock file, the root or guardd itself.
    Critical,
}

impl Severity {
    /// The syslog priority for journald (syslog(3)).
    #[must_use]
    pub fn syslog_priority(self) -> u8 {
        match self {
            Self::Warning => 4,
            Self::High => 3,
            Self::Critical => 2,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::High => "high",
            Self::Critical => "critical",
        })
    }
}

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertStatus {
    /// Nobody has looked.
    Open,
    /// Somebody has looked and left a note; the difference may still stand.
    Acknowledged,
    /// Looked at, and no difference stands any more.
    Resolved,
}

impl fmt::Display for AlertStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Acknowledged => "acknowledged",
            Self::Resolved => "resolved",
        })
    }
}

/// Somebody who was logged in when an alert opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Login name, escaped.
    pub user: String,
    /// Terminal, escaped.
    pub tty: String,
    /// Remote host, escaped; empty for a local login.
    pub host: String,
    /// When the session began.
    pub since: Option<Timestamp>,
}

/// An alert with everything known of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Unique on this host: the number of the ledger record that opened it.
    pub id: u64,
    /// The environment's name.
    pub environment: String,
    /// How bad.
    pub severity: Severity,
    /// Where it stands.
    pub status: AlertStatus,
    /// When the first finding was observed.
    pub opened_at: Timestamp,
    /// One line for people.
    pub title: String,
    /// In the order they were observed; the latest one of a path counts.
    pub findings: Vec<Finding>,
    /// Who was logged in when it opened.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// What happened to it since: acknowledgements, acceptance, "became baseline N".
    #[serde(default)]
    pub notes: Vec<Note>,
    /// Escaped paths that are no difference any more.
    #[serde(default)]
    pub settled: Vec<String>,
    /// True once a person has looked.
    #[serde(default)]
    pub reviewed: bool,
}

impl Alert {
    /// The findings that are still a difference, as far as anybody knows.
    pub fn standing(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|f| f.is_difference() && !self.settled.contains(&f.path))
    }
}

/// A remark on an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at: Timestamp,
    /// Who, as `user (uid N)` or `guardd`.
    pub by: String,
    /// What.
    pub text: String,
}

/// How bad a finding is.
#[must_use]
pub fn severity_of(finding: &Finding, sensitive: bool) -> Severity {
    let grave = [Change::Seal, Change::LockFile, Change::Root, Change::Mount];
    if sensitive || finding.change.iter().any(|c| grave.contains(c)) {
        Severity::Critical
    } else if finding.change.iter().all(|c| matches!(c, Change::Mtime | Change::Inode | Change::Links)) {
        Severity::Warning
    } else {
        Severity::High
    }
}

/// The one line that a person reads at 3 a.m. about a first finding.
#[must_use]
pub fn title_of(finding: &Finding) -> String {
    let what = match finding.change.as_slice() {
        [Change::Created] => "appeared".to_owned(),
        [Change::Deleted] => "was deleted".to_owned(),
        [Change::Read] => match finding.actor.as_ref().and_then(|a| a.exe.as_ref().or(a.comm.as_ref())) {
            Some(program) => format!("was opened by {program}, which is not expected to"),
            None => "was opened by a process that had ended before it could be asked who it is".to_owned(),
        },
        list => {
            let words: Vec<String> = list.iter().map(ToString::to_string).collect();
            format!("changed ({})", words.join(", "))
        }
    };
    format!("{} {what}", finding.path)
}

/// When does an alert stop taking in further findings?
///
/// Times are microseconds of a clock that never goes back.
#[derive(Debug, Clone, Copy)]
pub struct Coalescing {
    opened: u64,
    last: u64,
}

impl Coalescing {
    /// No further finding for this long closes an alert's group.
    pub const QUIET_US: u64 = 2_000_000;
    /// However busy it is, the group closes this long after it opened.
    pub const LONGEST_US: u64 = 60_000_000;

    /// A group whose first finding came at `now`.
    #[must_use]
    pub fn open(now: u64) -> Self {
        Self { opened: now, last: now }
    }

    /// Whether a finding at `now` still belongs to the group; if so it is counted in.
    pub fn takes(&mut self, now: u64) -> bool {
        let fits = now.saturating_sub(self.last) <= Self::QUIET_US
            && now.saturating_sub(self.opened) <= Self::LONGEST_US;
        if fits {
            self.last = now;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quiet_closes_a_group() {
        let mut c = Coalescing::open(0);
        assert!(c.takes(2_000_000));
        assert!(c.takes(4_000_000));
        assert!(!c.takes(6_000_001));
    }

    proptest! {
        #[test]
        fn no_group_is_longer_than_a_minute(steps in prop::collection::vec(0u64..2_000_000, 1..200)) {
            let (mut c, mut now) = (Coalescing::open(7), 7);
            for s in steps {
                now += s;
                prop_assert_eq!(c.takes(now), now - 7 <= Coalescing::LONGEST_US);
                if now - 7 > Coalescing::LONGEST_US { break; }
            }
        }
    }
}
