//! A finding: one difference between baseline and observation.

use serde::{Deserialize, Serialize};

use crate::compare::Change;
use crate::entry::Entry;
use crate::time::Timestamp;

/// How far an actor can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Read while the process still lived.
    Verified,
    /// The process had ended; only part could be read.
    Exited,
    /// Nothing certain.
    Unknown,
}

/// Who made a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Process id in guardd's namespace.
    pub pid: i32,
    /// Its name (proc(5), `comm`), escaped: at most 15 bytes, chosen by itself.
    #[serde(default)]
    pub comm: Option<String>,
    /// The executable, escaped.
    pub exe: Option<String>,
    /// The command line, escaped, arguments joined by spaces.
    pub cmdline: Option<String>,
    /// Real user id.
    pub uid: Option<u32>,
    /// Login user id, `None` where never set.
    pub login_uid: Option<u32>,
    /// When the process started.
    pub started_at: Option<Timestamp>,
    /// Ancestors, nearest first.
    #[serde(default)]
    pub parents: Vec<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Container id.
    pub container: Option<String>,
    /// How far to believe this.
    pub confidence: Confidence,
}

/// One difference between what a path should be and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Escaped; relative to the root (`.` the root itself), absolute where it lies outside.
    pub path: String,
    /// When guardd observed it.
    pub at: Timestamp,
    /// What differs; never empty.
    pub change: Vec<Change>,
    /// What was expected; `None` for an addition.
    pub before: Option<Entry>,
    /// What is there; `None` for a deletion or where nothing could be read.
    pub after: Option<Entry>,
    /// Who did it, where known.
    pub actor: Option<Actor>,
    /// True once the original has been put back.
    #[serde(default)]
    pub restored: bool,
    /// More for people, such as why an entry could not be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Finding {
    /// Is something different until it is put right or accepted? A read leaves nothing behind.
    #[must_use]
    pub fn is_difference(&self) -> bool {
        self.change != [Change::Read]
    }
}
impl Actor {
    /// Does what is known of this one hold for `later`, too, which did something to the same path a moment after and had
    /// ended when it was asked? Process numbers go round before one is used again, which takes longer than a moment.
    #[must_use]
    pub fn is_fuller_than(&self, later: &Self) -> bool {
        self.pid == later.pid
            && self.confidence == Confidence::Verified
            && later.confidence != Confidence::Verified
    }
}
