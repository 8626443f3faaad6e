//! Values in a log line: safe in a terminal, and one word where they can be.

use guard_model::path::escape;

/// Free text is cut here, in characters.
pub(crate) const LONGEST: usize = 2000;

/// `text` without anything that steers a terminal. Backslashes stay as they
/// are, because paths come here escaped already.
pub(crate) fn plain(text: &str) -> String {
    let parts: Vec<String> = text.split('\\').map(|part| escape(part.as_bytes())).collect();
    parts.join("\\")
}

/// Free text: [`plain`], and not too long.
pub(crate) fn free(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", plain(text.get(..at).unwrap_or_default())),
        None => plain(text),
    }
}

/// Appends ` key=value`. A value with blanks in it, or an empty one, stands in
/// double quotes; a double quote inside is `\x22`, the same escape that paths use.
pub(crate) fn push_pair(line: &mut String, key: &str, value: &str) {
    let value = plain(value);
    line.push(' ');
    line.push_str(key);
    line.push('=');
    let quoted = value.is_empty() || value.contains(|c: char| c.is_whitespace() || c == '"');
    if quoted {
        line.push('"');
        line.push_str(&value.replace('"', "\\x22"));
        line.push('"');
    } else {
        line.push_str(&value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(value: &str) -> String {
        let mut line = String::new();
        push_pair(&mut line, "k", value);
        line
    }

    #[test]
    fn words_stay_bare_and_the_rest_is_quoted() {
        assert_eq!(pair(".env.prod"), " k=.env.prod");
        assert_eq!(pair("a=b"), " k=a=b");
        assert_eq!(pair(""), " k=\"\"");
        assert_eq!(pair("two words"), " k=\"two words\"");
        assert_eq!(pair("say \"hi\""), " k=\"say \\x22hi\\x22\"");
        assert_eq!(pair("a\u{a0}b"), " k=\"a\u{a0}b\"");
    }

    #[test]
    fn nothing_can_end_a_line_or_steer_a_terminal() {
        assert_eq!(pair("a\nb\x1b[31m\u{202e}"), " k=a\\x0ab\\x1b[31m\\xe2\\x80\\xae");
        // An escaped path stays what it was.
        assert_eq!(pair("a\\x0ab\\\\c"), " k=a\\x0ab\\\\c");
    }

    #[test]
    fn free_text_is_cut() {
        assert_eq!(free(&"ä".repeat(LONGEST + 1)).chars().count(), LONGEST + 1);
        assert_eq!(free("short"), "short");
    }
}
