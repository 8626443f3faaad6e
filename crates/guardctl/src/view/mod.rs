//! What was answered, as text for people. Pure: answers in, text out.
//!
//! Architecture invariant: every string of an answer goes through
//! [`crate::safe`] on its way into text.

pub(crate) mod alert;
pub(crate) mod backup;
pub(crate) mod baseline;
pub(crate) mod deployment;
pub(crate) mod finding;
pub(crate) mod gates;
pub(crate) mod outcome;
pub(crate) mod path;
pub(crate) mod reads;
pub(crate) mod record;
pub(crate) mod restore;
pub(crate) mod status;

use guard_api::Time;

use crate::terminal::Paint;

/// What every view needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    /// Colours.
    pub(crate) paint: Paint,
    /// For "3 h ago".
    pub(crate) now: Time,
}

/// A heading over a part of the output.
pub(crate) fn heading(look: Look, text: &str) -> String {
    format!("\n{}\n", look.paint.tone(crate::terminal::Tone::Strong, text))
}

/// Can this path be typed as it is shown, in a shell and beneath its root?
pub(crate) fn is_plain(path: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-+@%/:,=".contains(c);
    !path.is_empty() && !path.starts_with('-') && path.chars().all(allowed)
}

/// The path as a word of a POSIX shell, where it has no escapes.
pub(crate) fn shell_word(path: &str) -> String {
    if is_plain(path) {
        path.to_owned()
    } else {
        format!("'{}'", crate::safe::safe(path).replace('\'', "'\\''"))
    }
}
