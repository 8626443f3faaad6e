//! python-dotenv, and compose v1, which uses it.

use super::expand::{Forms, expand};
use super::{Said, Variables};

pub(super) fn read(text: &str) -> Variables {
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut found = Variables::new();
    let mut rest = text.as_str();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return found;
        }
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        let Some((key, value)) = assignment(line) else {
            // A comment, a bare name, or an error that loses the line and nothing else.
            rest = after;
            continue;
        };
        let value_begins = line.len() - value.len();
        let (said, used) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => match quoted(rest.get(value_begins..).unwrap_or_default(), quote) {
                Some((said, used)) => (said, value_begins + used),
                None => (None, line.len()),
            },
            _ => (Some(unquoted(value)), line.len()),
        };
        if let Some(said) = said {
            let said = match said {
                Said::Value(v) => expand(&v, Forms::Braces, &found),
                unclear @ Said::Unclear(_) => unclear,
            };
            found.insert(key.to_owned(), said);
        }
        let used = used.max(1);
        rest = rest.get(used..).and_then(|r| r.split_once('\n')).map_or("", |(_, after)| after);
    }
}

/// The name, and what follows `=` and blanks.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let body = match line.strip_prefix("export").filter(|r| r.starts_with([' ', '\t'])) {
        Some(rest) => rest.trim_start(),
        None => line,
    };
    let (key, value) = match body.strip_prefix('\'') {
        Some(quoted) => {
            let (key, rest) = quoted.split_once('\'')?;
            (key, rest.trim_start().strip_prefix('=')?)
        }
        None => {
            let (key, value) = body.split_once('=')?;
            (key.trim_end(), value)
        }
    };
    let is_key = !key.is_empty() && !key.contains(['#', ' ', '\t']);
    is_key.then(|| (key, value.trim_start_matches([' ', '\t'])))
}

fn unquoted(value: &str) -> Said {
    let mut end = value.len();
    let mut was_blank = false;
    for (at, c) in value.char_indices() {
        if c == '#' && was_blank {
            end = at;
            break;
        }
        was_blank = c.is_whitespace();
    }
    Said::Value(value.get(..end).unwrap_or_default().trim_end().to_owned())
}

/// The value, and how long it was with its quotes; without a value where the rest of the line makes it an error.
/// `None` where the quote is never closed.
fn quoted(text: &str, quote: char) -> Option<(Option<Said>, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    let mut unclear = false;
    while let Some((at, c)) = chars.next() {
        if c == quote {
            let after = text.get(at + 1..).unwrap_or_default();
            let tail = after.split('\n').next().unwrap_or_default().trim_start();
            let said =
                if unclear { Said::Unclear("what it comes to is not certain") } else { Said::Value(value) };
            return Some(((tail.is_empty() || tail.starts_with('#')).then_some(said), at + 1));
        }
        if c != '\\' {
            value.push(c);
            continue;
        }
        match (chars.next().map(|(_, c)| c)?, quote) {
            ('\\', _) => value.push('\\'),
            ('\'', _) => value.push('\''),
            ('"', '"') => value.push('"'),
            ('n', '"') => value.push('\n'),
            ('r', '"') => value.push('\r'),
            ('t', '"') => value.push('\t'),
            ('a' | 'b' | 'f' | 'v', '"') => unclear = true,
            (other, _) => {
                value.push('\\');
                value.push(other);
            }
        }
    }
    None
}
