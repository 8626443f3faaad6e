//! What is said of a value, which is never the value.

use serde::{Deserialize, Serialize};

/// A line that holds a value of a sensitive file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueMatch {
    /// From 1.
    pub line: u64,
    /// Where in it the value begins, bytes from 1.
    pub column: u64,
    /// Relative to the root, escaped.
    pub file: String,
    /// Whose value it is, escaped; empty where the whole file is the value.
    pub key: String,
}
