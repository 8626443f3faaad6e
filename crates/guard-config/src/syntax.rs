//! What is no TOML, said in words.

use crate::problem::Problem;
use crate::section::{Place, Report, Source};

/// Reports the parser's first complaint about each line; those after it are
/// mostly about what the parser took the rest of the line for.
pub(crate) fn report(source: &Source<'_>, errors: &[toml::de::Error], report: &Report) {
    let mut lines = Vec::new();
    for problem in errors.iter().map(|e| problem(source, e)) {
        if !lines.contains(&problem.line) {
            lines.push(problem.line);
            report.push(problem);
        }
    }
}

/// A complaint with its line and what to do.
fn problem(source: &Source<'_>, error: &toml::de::Error) -> Problem {
    let line = error.span().map(|span| source.line(&span));
    let place = Place { file: source.file.clone(), line, key: String::new() };
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    place.problem(format!("not TOML: {message}"), fix(&message))
}

fn fix(message: &str) -> &'static str {
    const FIXES: [(&str, &str); 8] = [
        ("duplicate key", "remove one of the two, or merge them"),
        ("must be quoted", "put the text in quotes"),
        ("escaped value", "write every backslash twice, or put the text in single quotes"),
        ("unclosed table", "close the name of the table with `]`"),
        ("unclosed array", "close the list with `]`"),
        ("invalid basic string", "close the text with a quote on the same line"),
        ("missing comma", "put a comma between the two"),
        ("with no value", "write `key = value`"),
    ];
    let known = FIXES.iter().find(|(words, _)| message.contains(words));
    known.map_or(
        "write lines of the form `key = value`, with text in quotes and lists in brackets",
        |(_, f)| f,
    )
}
