//! Text from elsewhere, made harmless for a terminal.
//!
//! Whatever the daemon sends may hold what an intruder wrote: file names,
//! command lines, reasons. Control characters would drive the terminal, and
//! bidirectional controls would make text read as other text.

use std::fmt::{self, Write as _};

use serde::Serialize;

/// Displays as the text with everything that steers a terminal as `\xNN` or `\u{NNNN}`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Safe<'a>(pub(crate) &'a str);

impl fmt::Display for Safe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0;
        while let Some((at, c)) = rest.char_indices().find(|(_, c)| steers(*c)) {
            let (plain, tail) = rest.split_at(at);
            f.write_str(plain)?;
            match u32::from(c) {
                n @ 0..=0x7f => write!(f, "\\x{n:02x}")?,
                n => write!(f, "\\u{{{n:x}}}")?,
            }
            rest = tail.get(c.len_utf8()..).unwrap_or_default();
        }
        f.write_str(rest)
    }
}

/// The same as a string.
pub(crate) fn safe(text: &str) -> String {
    Safe(text).to_string()
}

/// Does this character do more than show itself?
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// JSON on several lines, without a newline at its end; what steers a terminal is written as `\uNNNN`,
/// which means the same.
pub(crate) fn pretty_json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).map(|text| steerless_json(&text, true)).unwrap_or_default()
}

/// JSON on one line, likewise.
pub(crate) fn line_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).map(|text| steerless_json(&text, false)).unwrap_or_default()
}

/// JSON text as it is, with what steers a terminal as `\uNNNN`. Outside of strings JSON has no such
/// character but line ends, which are kept with `lines`; inside, serde escapes line ends itself.
pub(crate) fn steerless_json(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if !steers(c) || (lines && c == '\n') {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string does not fail.
                if write!(out, "\\u{unit:04x}").is_err() {
                    return out;
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_is_shown_and_what_does_not_is_kept() {
        assert_eq!(safe("größe 漢字 a\\x0a"), "größe 漢字 a\\x0a");
        assert_eq!(safe("\u{1b}[2J\r\n\u{7f}"), "\\x1b[2J\\x0d\\x0a\\x7f");
        assert_eq!(safe("\u{9b}31m"), "\\u{9b}31m");
        assert_eq!(safe("a\u{202e}b"), "a\\u{202e}b");
        assert_eq!(safe(""), "");
    }

    #[test]
    fn json_means_the_same_afterwards() {
        let hostile = "\u{1b}\u{9b}\u{7f}\u{202e}\u{e0001}\n\"\\";
        let value = serde_json::json!({ hostile: [hostile] });
        for text in [pretty_json(&value), line_json(&value)] {
            assert!(text.chars().all(|c| c == '\n' || !steers(c)), "{text:?}");
            assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
        }
        assert!(!line_json(&value).contains('\n'));
    }
}
