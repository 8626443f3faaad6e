//! `set -a; . file`: a program, of which plain assignments alone are certain.

use super::expand::{Forms, expand};
use super::{Said, Variables, is_name};

const RUNS: Said = Said::Unclear("a shell does not take it for a plain value");

pub(super) fn read(text: &str, has_mark: bool) -> Variables {
    let mut found = Variables::new();
    let mut rest = text;
    // A byte order mark makes the first line something else than an assignment.
    if has_mark {
        rest = rest.split_once('\n').map_or("", |(_, after)| after);
    }
    while !rest.is_empty() {
        let begin = rest.trim_start_matches([' ', '\t', '\n']);
        let body = begin.strip_prefix("export ").map_or(begin, |r| r.trim_start_matches([' ', '\t']));
        let name = body.split_once('=').map(|(name, _)| name).filter(|name| is_name(name));
        let Some(name) = name else {
            if begin.starts_with([';', '&', '|', ')']) {
                // An error of syntax, at which it stops reading.
                return found;
            }
            rest = begin.split_once('\n').map_or("", |(_, after)| after);
            continue;
        };
        let value = body.get(name.len() + 1..).unwrap_or_default();
        let (said, used) = word(value, &found);
        rest = value.get(used..).unwrap_or_default();
        let tail = rest.split('\n').next().unwrap_or_default();
        let is_alone = tail.trim_start_matches([' ', '\t']).is_empty()
            || (tail.starts_with([' ', '\t']) && tail.trim_start_matches([' ', '\t']).starts_with('#'));
        rest = rest.split_once('\n').map_or("", |(_, after)| after);
        // `V=a b` runs b, and sets nothing.
        match (is_alone, said) {
            (true, said) => drop(found.insert(name.to_owned(), said)),
            (false, _) => drop(found.insert(name.to_owned(), RUNS)),
        }
    }
    found
}

/// One word, joined from pieces, and how long it is.
fn word(text: &str, known: &Variables) -> (Said, usize) {
    let mut value = String::new();
    let mut unclear: Option<Said> = None;
    let mut at = 0;
    let mut add = |said: Said| match said {
        Said::Value(v) => value.push_str(&v),
        Said::Unclear(_) => unclear = Some(said),
    };
    while let Some(c) = text.get(at..).and_then(|r| r.chars().next()) {
        let rest = text.get(at + c.len_utf8()..).unwrap_or_default();
        match c {
            ' ' | '\t' | '\n' => break,
            '\'' => match rest.find('\'') {
                Some(end) => {
                    add(Said::Value(rest.get(..end).unwrap_or_default().to_owned()));
                    at += end + 2;
                }
                None => return (RUNS, text.len()),
            },
            '"' => match end_of_double(rest) {
                Some(end) => {
                    add(double_quoted(rest.get(..end).unwrap_or_default(), known));
                    at += end + 2;
                }
                None => return (RUNS, text.len()),
            },
            '\\' => match rest.chars().next() {
                Some('\n') => at += 2,
                Some(c) => {
                    add(Said::Value(c.to_string()));
                    at += 1 + c.len_utf8();
                }
                None => at += 1,
            },
            '`' | ';' | '&' | '|' | '<' | '>' | '(' | ')' => {
                add(RUNS);
                at += 1;
            }
            _ => {
                let stops = [' ', '\t', '\n', '\'', '"', '\\', '`', ';', '&', '|', '<', '>', '(', ')'];
                let piece = text.get(at..).unwrap_or_default();
                let piece = piece.get(..piece.find(stops).unwrap_or(piece.len())).unwrap_or_default();
                add(expand(piece, Forms::Shell, known));
                at += piece.len();
            }
        }
    }
    // A tilde at the beginning, or behind a colon, is somebody's home.
    if text.starts_with('~') {
        unclear = Some(RUNS);
    }
    (unclear.unwrap_or(Said::Value(value)), at)
}

fn end_of_double(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let is_end = c == '"' && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_end.then_some(at)
    })
}

fn double_quoted(text: &str, known: &Variables) -> Said {
    if text.contains('`') || text.contains("$(") {
        return RUNS;
    }
    if !text.contains('\\') {
        return expand(text, Forms::Shell, known);
    }
    if text.contains('$') && !text.contains("\\$") {
        return RUNS;
    }
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('\n') | None => {}
                Some(c @ ('$' | '"' | '\\' | '`')) => out.push(c),
                Some(other) => out.extend(['\\', other]),
            },
            ('$', false) => return RUNS,
            (c, false) => out.push(c),
        }
    }
    Said::Value(out)
}
