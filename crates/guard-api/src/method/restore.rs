//! Putting back.

use serde::{Deserialize, Serialize};

use super::{Method, Step};
use crate::wire::RestoreResult;

/// Brings paths back to what they should be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restore {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// Escaped; each with everything below it, `.` is everything.
    pub paths: Vec<String>,
    /// The backup to take them from; the current baseline says what is right where left out.
    pub from: Option<String>,
    /// Only say what would be done.
    pub plan: Option<bool>,
}

impl Method for Restore {
    const NAME: &'static str = "org.guardd.Control.Restore";
    type Reply = Step<RestoreResult>;
}
