//! Gates: what must hold before a deployment.

use serde::{Deserialize, Serialize};

/// What one gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It does not hold, and somebody said by name that it need not.
    Waived,
    /// It could not be told, which counts as not holding; also what a later daemon says and this version does not know.
    #[serde(other)]
    Unknown,
}

/// Something that must hold before a deployment, and whether it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// What is looked at: `lock`, `integrity`, `variable`, `compose`, `service`, `probe`, …
    pub gate: String,
    /// Which one of its kind; empty where there is one only.
    pub subject: String,
    /// Whether it holds.
    pub verdict: Verdict,
    /// What was seen, for people; never a value of a sensitive file.
    pub evidence: String,
    /// How to look by hand.
    pub by_hand: String,
}

/// What a validation came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidateResult {
    /// The environment's name.
    pub environment: String,
    /// Every gate holds.
    pub passed: bool,
    /// All gates, in the order in which they were looked at.
    pub gates: Vec<Gate>,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
}
