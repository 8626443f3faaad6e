//! Asking on a terminal for what was left out.

use std::io::{self, BufRead, Write};

use crate::failure::Failure;
use crate::terminal::{Terminal, Tone};

/// Something that a command cannot do without.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question<'a> {
    /// What stands before the cursor: `Reason`.
    pub(crate) prompt: &'a str,
    /// The option that would have said it: `--reason`.
    pub(crate) option: &'a str,
    /// A whole command line that is right.
    pub(crate) example: &'a str,
}

/// The given text, or what somebody types; blank is not enough.
///
/// Fails as wrong usage where nobody can be asked, or nothing is said.
pub(crate) fn given_or_asked(
    terminal: Terminal,
    given: Option<String>,
    question: Question<'_>,
) -> Result<String, Failure> {
    if let Some(text) = given.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()) {
        return Ok(text);
    }
    let missing = |why: &str| {
        Failure::usage(format!("{} is missing{why}", question.option))
            .hint(format!("e.g. {}", question.example))
    };
    if !terminal.can_ask {
        return Err(missing(", and there is no terminal to ask on"));
    }
    let mut err = io::stderr().lock();
    for _ in 0..3 {
        let prompt = format!("{} ", terminal.stderr.tone(Tone::Strong, &format!("{}:", question.prompt)));
        let asked = err.write_all(prompt.as_bytes()).and_then(|()| err.flush());
        let mut line = String::new();
        let read = asked.and_then(|()| io::stdin().lock().read_line(&mut line));
        match read {
            Ok(0) => return Err(missing(", and the terminal was closed")),
            Ok(_) if line.trim().is_empty() => {}
            Ok(_) => return Ok(line.trim().to_owned()),
            Err(e) => return Err(missing(&format!(", and the terminal cannot be read: {e}"))),
        }
    }
    Err(missing(""))
}
