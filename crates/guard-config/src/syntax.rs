//! What is no TOML, said in words.

use crate::problem::Problem;
use crate::section::{Place, Source};

/// The parser's complaint with its line and what to do.
pub(crate) fn problem(source: &Source<'_>, error: &toml::de::Error) -> Problem {
    let line = error.span().map(|span| source.line(&span));
    let place = Place { file: source.file.clone(), line, key: String::new() };
    let message = error.message().lines().collect::<Vec<_>>().join("; ");
    place.problem(format!("not TOML: {message}"), fix(&message))
}

fn fix(message: &str) -> &'static str {
    let knows = |word: &str| message.contains(word);
    if knows("duplicate key") {
        "remove one of the two, or merge them"
    } else {
        "write lines of the form `key = value`, with text in quotes and lists in brackets"
    }
}
