//! One line of news, before it takes the form of a sink.

use std::fmt;

use guard_model::entry::Digest;
use guard_model::{Severity, Timestamp};

use crate::kinds::Kind;
use crate::text::push_pair;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Routine.
    Info,
    /// Somebody changed a state.
    Notice,
    /// Look at it by day.
    Warning,
    /// A protected entry changed.
    High,
    /// Look at it now.
    Critical,
}

impl Level {
    /// The syslog priority (syslog(3)).
    pub(crate) fn priority(self) -> u8 {
        match self {
            Self::Info => 6,
            Self::Notice => 5,
            Self::Warning => Severity::Warning.syslog_priority(),
            Self::High => Severity::High.syslog_priority(),
            Self::Critical => Severity::Critical.syslog_priority(),
        }
    }
}

impl From<Severity> for Level {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Warning => Self::Warning,
            Severity::High => Self::High,
            Severity::Critical => Self::Critical,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Info => "info",
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::High => "high",
            Self::Critical => "critical",
        })
    }
}

/// One line of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notice {
    /// When it happened.
    pub(crate) at: Timestamp,
    pub(crate) level: Level,
    /// `None` for the daemon as a whole.
    pub(crate) environment: Option<String>,
    pub(crate) kind: &'static Kind,
    /// In the order in which they are shown.
    pub(crate) fields: Vec<(&'static str, String)>,
    /// A sentence for people, without the environment.
    pub(crate) message: String,
    /// The ledger record that it comes from.
    pub(crate) record: u64,
    /// SHA-256 of the ledger line before that record.
    pub(crate) previous: Digest,
    /// It is not in the ledger yet, because that could not be written.
    pub(crate) undurable: bool,
}

impl Notice {
    /// The line, without its end.
    pub(crate) fn line(&self) -> String {
        let environment = self.environment.as_deref().unwrap_or("-");
        let mut line = format!("{} {} {environment} {}", self.at, self.level, self.kind.name);
        for (key, value) in &self.fields {
            push_pair(&mut line, key, value);
        }
        if self.undurable {
            push_pair(&mut line, "undurable", "yes");
        }
        line
    }
}
