//! What is no TOML, said in words.

use std::collections::BTreeSet;

use crate::problem::Problem;
use crate::section::{Place, Report, Source};

/// As many lines of a file as are complained about one by one.
const MOST_LINES: usize = 50;

/// Reports the parser's first complaint about each line; those after it are
/// mostly about what the parser took the rest of the line for.
pub(crate) fn report(source: &Source, errors: &[toml::de::Error], report: &Report) {
    let mut lines = BTreeSet::new();
    for problem in errors.iter().map(|e| problem(source, e)) {
        let Problem { line, .. } = problem;
        if lines.insert(line) && lines.len() <= MOST_LINES {
            report.push(problem);
        }
    }
    if let Some(&line) = lines.iter().nth(MOST_LINES) {
        let place = Place { file: source.file.clone(), line, key: String::new() };
        let what = format!("not TOML, and there are {} such lines", lines.len());
        report.push(place.problem(what, "see that this is a configuration file of guardd"));
    }
}

/// A complaint with its line and what to do.
fn problem(source: &Source, error: &toml::de::Error) -> Problem {
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
