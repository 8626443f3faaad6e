//! `.env` files: not one format but five, and the readers disagree in silence.
//!
//! Families, as measured with 54 inputs: compose v2 and later; python-dotenv and
//! compose v1; `docker run --env-file` and compose's `format: raw`; bash's
//! `set -a; . file`; systemd's `EnvironmentFile=`. No value is ever shown.

use std::collections::{BTreeMap, BTreeSet};

use super::finding::Remark;

const RULE: &str = "dotenv";

/// Checks a file.
pub(super) fn check(content: &[u8]) -> Vec<Remark> {
    let text = match std::str::from_utf8(content) {
        Ok(text) => text,
        Err(e) => {
            let line = super::toml_text::line_of(content, e.valid_up_to());
            return vec![error(
                line,
                "it is not UTF-8: python-dotenv, docker run --env-file and systemd refuse the whole file",
                "UTF-8",
            )];
        }
    };
    let mut reader = Reader { out: Vec::new(), seen: BTreeMap::new(), quotes_told: false, crlf_told: false };
    let text = match text.strip_prefix('\u{feff}') {
        Some(rest) => {
            reader.warn(1, "it begins with a byte order mark: bash and systemd lose the first variable");
            rest
        }
        None => text,
    };
    let mut lines = text.split('\n').zip(1_u64..);
    while let Some((line, number)) = lines.next() {
        let Some(quote) = reader.line(line, number) else { continue };
        // A quoted value that goes on: up to the line that closes it.
        if lines.by_ref().any(|(more, _)| closing(more, quote).is_some()) {
            reader.warn(
                number,
                "the value goes over several lines: docker run --env-file cuts it after the first",
            );
        } else {
            let what = "the quote is never closed: compose refuses the whole file, systemd takes all the rest for the value";
            reader.out.push(error(number, what, &format!("a closing {quote}")));
        }
    }
    reader.out
}

/// The names that a file sets.
pub(super) fn names(content: &[u8]) -> BTreeSet<String> {
    String::from_utf8_lossy(content)
        .trim_start_matches('\u{feff}')
        .lines()
        .filter_map(|l| l.trim_start().trim_start_matches("export ").split_once('='))
        .map(|(name, _)| name.trim().to_owned())
        .filter(|n| is_name(n))
        .collect()
}

fn error(line: u64, what: &str, expected: &str) -> Remark {
    Remark::error(RULE, line, what).expected(expected).hidden()
}

struct Reader {
    out: Vec<Remark>,
    seen: BTreeMap<String, u64>,
    quotes_told: bool,
    crlf_told: bool,
}

impl Reader {
    fn warn(&mut self, line: u64, what: &str) {
        self.out.push(Remark::warning(RULE, line, what).hidden());
    }

    /// Checks one line; the quote where its value is not closed in it.
    fn line(&mut self, raw: &str, number: u64) -> Option<char> {
        let line = raw.strip_suffix('\r').unwrap_or(raw);
        if line.len() != raw.len() && !self.crlf_told {
            self.crlf_told = true;
            self.warn(number, "lines end in CR LF: bash makes the carriage return part of every value");
        }
        let start = line.trim_start();
        if start.is_empty() || start.starts_with('#') {
            if start.ends_with('\\') {
                self.warn(number, "the comment ends in a backslash: systemd before 254 takes the next line for a part of it");
            }
            return None;
        }
        if start.starts_with(';') {
            let what = "`;` begins a comment for systemd alone: compose refuses the whole file";
            self.out.push(error(number, what, "# for comments"));
            return None;
        }
        let body = match start.strip_prefix("export ") {
            Some(rest) => {
                self.warn(
                    number,
                    "`export`: docker run --env-file refuses the whole file, systemd ignores the line",
                );
                rest.trim_start()
            }
            None => start,
        };
        let Some((name, value)) = body.split_once('=') else {
            self.no_assignment(body, number);
            return None;
        };
        if name.ends_with(char::is_whitespace) || value.starts_with([' ', '\t']) {
            self.warn(number, "blanks around `=`: bash sets nothing, docker run --env-file refuses the file");
        }
        let name = name.trim();
        if !is_name(name) {
            self.warn(number, "this is no name of a variable for bash and systemd, which do not set it");
        }
        if let Some(before) = self.seen.insert(name.to_owned(), number) {
            self.warn(
                number,
                &format!("{name} is set twice, first in line {before}: every reader takes the last one"),
            );
        }
        self.value(value.trim_start_matches([' ', '\t']), number)
    }

    fn no_assignment(&mut self, body: &str, number: u64) {
        match body.split_once(':') {
            Some((name, _)) if is_name(name.trim()) => {
                let what = "`NAME: value` is read by compose alone; docker run --env-file refuses the file, the others see no variable";
                self.out.push(error(number, what, "NAME=value"));
            }
            _ if is_name(body.trim()) => self.warn(
                number,
                "a name without `=`: compose and docker take the host's value, python-dotenv none, bash and systemd nothing",
            ),
            _ => self.out.push(error(number, "this is no assignment", "NAME=value")),
        }
    }

    fn value(&mut self, value: &str, number: u64) -> Option<char> {
        let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            self.unquoted(value, number);
            return None;
        };
        if !self.quotes_told {
            self.quotes_told = true;
            self.warn(
                number,
                "quotes: docker run --env-file and compose's `format: raw` keep them as part of the value",
            );
        }
        let inside = value.get(1..).unwrap_or_default();
        let Some(end) = closing(inside, quote) else { return Some(quote) };
        let (inside, after) =
            (inside.get(..end).unwrap_or_default(), inside.get(end + 1..).unwrap_or_default());
        match after.trim_start() {
            "" => {}
            tail if tail.starts_with('#') => self
                .warn(number, "a comment after a quoted value: systemd and docker run --env-file make it part of the value"),
            _ => self.warn(
                number,
                "text after the closing quote: bash and systemd join it, compose cuts it off, python-dotenv drops the line",
            ),
        }
        if quote == '"' {
            self.expansions(inside, number);
            if inside.contains("\\n") || inside.contains("\\t") {
                self.warn(number, "`\\n` in double quotes: compose and python-dotenv make it a newline, bash and systemd keep two characters");
            }
        } else if inside.contains("\\'") {
            self.warn(number, "`\\'` in single quotes: compose and python-dotenv take it for a quote, bash for an error, systemd keeps the backslash");
        }
        None
    }

    fn unquoted(&mut self, value: &str, number: u64) {
        let body = value.trim_end();
        let plain = body.split_once(" #").map_or(body, |(v, _)| v.trim_end());
        if plain.len() != body.len() || body.contains("\t#") {
            self.warn(
                number,
                "a comment behind the value: docker run --env-file and systemd make it part of the value",
            );
        }
        if plain.contains([' ', '\t']) {
            self.warn(
                number,
                "an unquoted value with blanks: bash runs what follows the first one as a command",
            );
        }
        if plain.contains(['"', '\'']) {
            self.warn(number, "quotes within the value: bash takes them away, the others keep them");
        }
        if plain.ends_with('\\') {
            self.warn(
                number,
                "a backslash at the end: bash and systemd go on with the next line, the others do not",
            );
        }
        if plain.contains([';', '&', '|', '<', '>', '(', ')']) && !plain.contains("$(") {
            self.warn(
                number,
                "a character that ends the value for bash, or is an error there, unless it is quoted",
            );
        }
        self.expansions(plain, number);
    }

    fn expansions(&mut self, text: &str, number: u64) {
        let names = |at: usize| {
            let next = text.get(at + 1..).and_then(|r| r.chars().next());
            next.is_some_and(|c| c == '{' || c == '_' || c.is_ascii_alphabetic())
        };
        if text.contains("$(") || text.contains('`') {
            let what = "`$(…)` or a backtick: bash executes it, the others take it for text";
            self.out.push(error(number, what, "single quotes"));
        } else if text.contains("$$") {
            self.warn(
                number,
                "`$$`: compose makes it one `$`, bash its process number, the others keep both",
            );
        } else if text.match_indices('$').any(|(at, _)| names(at)) {
            self.warn(number, "`$NAME` in the value: compose v2 and bash put a variable in its place (nothing, where none is set), the others keep it");
        }
    }
}

/// Where the quote is closed, but for escaped ones.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let is_end = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        is_end.then_some(at)
    })
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit())
        && !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    #[test]
    fn what_all_read_alike_passes() {
        assert_eq!(check(b"# c\n\nA=b\nLONG_NAME=a-b_c.d/e:f,g@h+i%\nEMPTY=\n"), []);
    }

    #[test]
    fn each_disagreement_names_its_readers() {
        let rows: [(&str, &str); 17] = [
            ("V=a b", "bash runs"),
            ("V=a #c", "systemd make it part"),
            ("V=\"a\"b", "python-dotenv drops"),
            ("V=a\"b\"", "bash takes them away"),
            ("V=a$Xb", "compose v2 and bash"),
            ("V=a$$b", "process number"),
            ("V=`id`", "bash executes"),
            ("V=\"a\\nb\"", "two characters"),
            ("V=a\\", "next line"),
            ("export V=a", "systemd ignores"),
            ("V = a", "bash sets nothing"),
            ("V: a", "compose alone"),
            ("V", "host's value"),
            (";c", "compose refuses"),
            ("V=\"a", "never closed"),
            ("V=a\r", "carriage return"),
            ("V=django-insecure-)k#0&$x!(@z", "compose v2 and bash"),
        ];
        for (text, words) in rows {
            let found = check(text.as_bytes());
            assert!(found.iter().any(|r| r.message.contains(words)), "{text:?}: {found:?}");
            assert!(found.iter().all(|r| !r.shows_line), "a value would be shown");
        }
    }

    #[test]
    fn what_breaks_a_reader_is_an_error() {
        for text in [&b"V=\"a\n"[..], b";c\n", b"V=$(id)\n", b"A=\xff\n", b"just text\n"] {
            assert!(check(text).iter().any(|r| r.level == Level::Error), "{}", text.escape_ascii());
        }
        assert_eq!(check(b"A=1\nB=2\nA=3\n").first().and_then(|r| r.line), Some(3));
        assert!(check(b"A=\"x\ny\"\nB=1\n").iter().any(|r| r.message.contains("several lines")));
    }

    #[test]
    fn names_are_found() {
        let found = names(b"\xef\xbb\xbfA=1\nexport B=2\n# C=3\n D = 4\n");
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["A", "B", "D"]);
    }
}
