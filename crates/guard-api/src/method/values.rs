//! Values of sensitive files in somebody's lines.

use serde::{Deserialize, Serialize};

use super::{Method, base64};
use crate::wire::ValueMatch;

/// Which lines hold a value of a sensitive file.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindValues {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// The lines, each ended by a newline.
    #[serde(with = "base64")]
    pub data: Vec<u8>,
}
/// The reply to [`FindValues`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindValuesReply {
    /// In the order of the lines.
    pub matches: Vec<ValueMatch>,
    /// Values that were looked for.
    pub values: u64,
    /// Values of keys that name a secret, too short or too ordinary to be looked for.
    pub left_out: u64,
    /// Sensitive files whose values could not be read, each with the reason.
    #[serde(default)]
    pub unread: Vec<String>,
}

impl Method for FindValues {
    const NAME: &'static str = "org.guardd.Control.FindValues";
    type Reply = FindValuesReply;
}

impl std::fmt::Debug for FindValues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What somebody is about to commit may be a secret: it is in no message.
        let bytes = self.data.len();
        f.debug_struct("FindValues").field("environment", &self.environment).field("bytes", &bytes).finish()
    }
}
