//! systemd's `EnvironmentFile=` (env-file.c).

use super::{Said, Variables, is_name};

pub(super) fn read(text: &str, has_mark: bool) -> Variables {
    let text = text.replace("\r\n", "\n");
    let mut found = Variables::new();
    // A byte order mark becomes part of the first name, which then is none.
    let mut rest = match has_mark {
        true => text.split_once('\n').map_or("", |(_, after)| after),
        false => text.as_str(),
    };
    while !rest.is_empty() {
        rest = rest.trim_start_matches([' ', '\t', '\n', '\r']);
        if rest.starts_with(['#', ';']) {
            rest = after_comment(rest);
            continue;
        }
        let line = rest.split('\n').next().unwrap_or_default();
        let Some((key, _)) = line.split_once('=') else {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        };
        let after_sign = rest.get(key.len() + 1..).unwrap_or_default();
        let (value, used) = value(after_sign);
        let key = key.trim_end();
        if is_name(key) {
            found.insert(key.to_owned(), Said::Value(value));
        }
        rest = after_sign.get(used..).unwrap_or_default();
    }
    found
}

/// Before systemd 254 a backslash at the end of a comment takes the next line along; that what comes after is unset
/// is what is assumed here, since it must not be relied on.
fn after_comment(text: &str) -> &str {
    let mut is_escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            '\n' if !is_escaped => return text.get(at + 1..).unwrap_or_default(),
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    ""
}

/// The value, and how much of the text it takes up.
fn value(text: &str) -> (String, usize) {
    let mut out = String::new();
    // Blanks count when something follows them.
    let mut blanks = String::new();
    let mut chars = text.char_indices().peekable();
    // Before the value, and again after a closing quote: blanks are skipped, and a quote opens.
    let mut is_before = true;
    while let Some((at, c)) = chars.next() {
        match c {
            '\n' => return (out, at + 1),
            ' ' | '\t' | '\r' => {
                if !is_before {
                    blanks.push(c);
                }
            }
            '\'' | '"' if is_before => quoted(&mut chars, c, &mut out),
            '\\' => {
                is_before = false;
                out.push_str(&std::mem::take(&mut blanks));
                match chars.next() {
                    Some((_, '\n')) | None => {}
                    Some((_, c)) => out.push(c),
                }
            }
            c => {
                is_before = false;
                out.push_str(&std::mem::take(&mut blanks));
                out.push(c);
            }
        }
    }
    (out, text.len())
}

fn quoted(chars: &mut std::iter::Peekable<std::str::CharIndices<'_>>, quote: char, out: &mut String) {
    while let Some((_, c)) = chars.next() {
        if c == quote {
            return;
        }
        if c != '\\' || quote == '\'' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some((_, c @ ('"' | '\\' | '`' | '$'))) => out.push(c),
            Some((_, '\n')) | None => {}
            Some((_, other)) => out.extend(['\\', other]),
        }
    }
}
