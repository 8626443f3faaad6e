//! docker compose v2 and later (compose-go's reader).

use super::expand::{Forms, expand};
use super::{Refused, Said, Variables};

pub(super) fn read(text: &str) -> Result<Variables, Refused> {
    let text = text.replace("\r\n", "\n");
    let mut reader = Reader { text: &text, at: 0, found: Variables::new() };
    while reader.skip_to_statement() {
        reader.statement()?;
    }
    Ok(reader.found)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    found: Variables,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn refused(&self, why: &'static str) -> Refused {
        let before = self.text.get(..self.at).unwrap_or_default();
        Refused { line: before.matches('\n').count() + 1, why }
    }

    /// Past blanks and comments; false at the end.
    fn skip_to_statement(&mut self) -> bool {
        loop {
            let rest = self.rest();
            self.at += rest.len() - rest.trim_start().len();
            let rest = self.rest();
            if !rest.starts_with('#') {
                return !rest.is_empty();
            }
            self.at += rest.find('\n').map_or(rest.len(), |n| n + 1);
        }
    }

    fn statement(&mut self) -> Result<(), Refused> {
        let mut rest = self.rest();
        if let Some(after) = rest.strip_prefix("export").filter(|r| r.starts_with([' ', '\t'])) {
            rest = after.trim_start_matches([' ', '\t']);
            self.at = self.text.len() - rest.len();
        }
        let end = rest.find(['=', ':', '\n']).unwrap_or(rest.len());
        let key = rest.get(..end).unwrap_or_default().trim_end();
        let is_key = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
        if key.is_empty() || !key.chars().all(is_key) {
            return Err(self.refused("a line is no assignment"));
        }
        let is_bare = rest.get(end..).is_none_or(|r| r.is_empty() || r.starts_with('\n'));
        self.at += (end + 1).min(rest.len());
        if is_bare {
            self.set(key, Said::Unclear("it takes a variable from outside the file"));
            return Ok(());
        }
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let said = self.value()?;
        self.set(key, said);
        Ok(())
    }

    fn set(&mut self, key: &str, said: Said) {
        // Such names are dropped.
        if !key.starts_with(|c: char| c.is_ascii_digit()) {
            self.found.insert(key.to_owned(), said);
        }
    }

    fn value(&mut self) -> Result<Said, Refused> {
        let rest = self.rest();
        let Some(quote) = rest.chars().next().filter(|c| matches!(c, '"' | '\'')) else {
            let line = rest.split('\n').next().unwrap_or_default();
            self.at += (line.len() + 1).min(rest.len());
            let value = line.split(" #").next().unwrap_or_default().trim_end();
            return Ok(expand(value, Forms::Compose, &self.found));
        };
        let mut value = String::new();
        let mut is_escaped = false;
        for (at, c) in rest.char_indices().skip(1) {
            match (c, is_escaped) {
                ('\\', false) => is_escaped = true,
                (c, true) => {
                    is_escaped = false;
                    if c != quote {
                        value.push('\\');
                    }
                    value.push(c);
                }
                (c, false) if c == quote => {
                    self.at += at + 1;
                    return Ok(match quote {
                        '"' => self.double_quoted(&value),
                        _ => Said::Value(value),
                    });
                }
                (c, false) => value.push(c),
            }
        }
        Err(self.refused("a quote is never closed"))
    }

    fn double_quoted(&self, text: &str) -> Said {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match (c, c == '\\') {
                (_, true) => match chars.next() {
                    Some('n') => out.push('\n'),
                    Some('r') => out.push('\r'),
                    Some('t') => out.push('\t'),
                    // Kept from being expanded.
                    Some('$') => out.push_str("$$"),
                    _ => return Said::Unclear("what it comes to is not certain"),
                },
                (c, false) => out.push(c),
            }
        }
        expand(&out, Forms::Compose, &self.found)
    }
}
