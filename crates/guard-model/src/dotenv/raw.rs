//! `docker run --env-file`, and compose's `format: raw`: a line is a line.

use super::{Refused, Said, Variables};

pub(super) fn read(text: &str) -> Result<Variables, Refused> {
    let mut found = Variables::new();
    for (line, number) in text.split('\n').zip(1_usize..) {
        let line = line.strip_suffix('\r').unwrap_or(line).trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, said) = match line.split_once('=') {
            Some((name, value)) => (name, Said::Value(value.to_owned())),
            None => (line.trim_end(), Said::Unclear("it takes a variable from outside the file")),
        };
        if name.is_empty() {
            return Err(Refused { line: number, why: "a line has no name before its `=`" });
        }
        if name.contains(char::is_whitespace) {
            return Err(Refused { line: number, why: "a name has a blank in it" });
        }
        found.insert(name.to_owned(), said);
    }
    Ok(found)
}
