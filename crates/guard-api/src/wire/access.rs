//! Who opened or read sensitive files.

use serde::{Deserialize, Serialize};

use super::Actor;
use crate::Time;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Access {
    /// Opened, for reading or for writing.
    Opened,
    /// Read from.
    Read,
    /// Executed.
    Executed,
    /// Said by a later daemon.
    #[serde(other)]
    Unknown,
}

impl Access {
    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Read => "read",
            Self::Executed => "executed",
            Self::Unknown => "unknown",
        }
    }
}

/// What one reader did to one path in one span of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// Escaped, relative to the root.
    pub path: String,
    /// What was done, each once.
    pub access: Vec<Access>,
    /// How often at least.
    pub times: u64,
    /// When it was first done in that span.
    pub first: Time,
    /// When it was last done.
    pub last: Time,
    /// Is the reader among those that the configuration expects? `None` where it names none.
    #[serde(default)]
    pub expected: Option<bool>,
    /// The process that did it last, where the kernel told.
    pub actor: Option<Actor>,
}
