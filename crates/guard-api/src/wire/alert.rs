//! Alerts, and what the ledger tells.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Finding;
use crate::Time;

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
    /// Said by a later daemon.
    #[serde(other)]
    Unknown,
}

/// Where an alert stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertStatus {
    /// Nobody has looked.
    Open,
    /// Somebody has looked; the difference may still stand.
    Acknowledged,
    /// Looked at, and no difference stands any more.
    Resolved,
    /// Said by a later daemon.
    #[serde(other)]
    Unknown,
}

/// Somebody who was logged in when an alert opened. All text is escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Login name.
    pub user: String,
    /// Terminal.
    pub tty: String,
    /// Remote host; empty for a local login.
    pub host: String,
    /// When the session began.
    pub since: Option<Time>,
}

/// A remark on an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// When.
    pub at: Time,
    /// Who, as `user (uid N)` or `guardd`.
    pub by: String,
    /// What.
    pub text: String,
}

/// Findings that were not authorised, raised together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Unique on this host.
    pub id: u64,
    /// The environment's name.
    pub environment: String,
    /// How bad.
    pub severity: Severity,
    /// Where it stands.
    pub status: AlertStatus,
    /// When the first finding was observed.
    pub opened_at: Time,
    /// One line for people.
    pub title: String,
    /// In the order observed; the latest of a path counts; cut short where too many.
    pub findings: Vec<Finding>,
    /// How many there are.
    #[serde(default)]
    pub findings_total: u64,
    /// Who was logged in when it opened.
    #[serde(default)]
    pub sessions: Vec<Session>,
    /// What happened to it since.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// Escaped paths that are no difference any more.
    #[serde(default)]
    pub settled: Vec<String>,
    /// A person has looked.
    #[serde(default)]
    pub reviewed: bool,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Counts up by one from 1.
    pub seq: u64,
    /// When it was written.
    pub at: Time,
    /// SHA-256 of the line before, in hexadecimal.
    pub prev: String,
    /// The environment; `None` for the daemon as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// What happened: `locked`, `alert_opened`, `gap_opened`, …
    pub event: String,
    /// The event's own fields.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// One thing that happened to a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathEvent {
    /// The ledger record that says so.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// The record's event.
    pub event: String,
    /// The alert it belongs to.
    pub alert: Option<u64>,
    /// The maintenance window it belongs to.
    pub window: Option<u64>,
    /// The deployment that explains it.
    pub deployment: Option<u64>,
    /// It was made while that deployment ran, and nobody is known to have made it. Absent without one.
    pub assumed: Option<bool>,
    /// Who is responsible by the ledger's word.
    pub by: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// What differed.
    pub finding: Option<Finding>,
}
