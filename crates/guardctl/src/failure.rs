//! What a command ends with when it cannot do its job: what failed, why, and what to do.

use guard_api::Exit;
use serde_json::{Map, Value, json};

use crate::safe::{Safe, line_json, safe};
use crate::terminal::{Paint, Tone};

/// A failure as it is told; boxed, since it travels in every result.
#[derive(Debug, Clone)]
pub(crate) struct Failure(Box<Told>);

#[derive(Debug, Clone)]
struct Told {
    exit: Exit,
    /// The daemon's error, if it was one, with its parameters.
    error: Option<(String, Map<String, Value>)>,
    message: String,
    details: Vec<String>,
    hints: Vec<String>,
}

impl Failure {
    /// A failure of one sentence.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        let (message, details, hints) = (message.into(), Vec::new(), Vec::new());
        Self(Box::new(Told { exit, error: None, message, details, hints }))
    }

    /// Wrong use of the command.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The reader of our output has gone, content: nothing to tell.
    pub(crate) fn silent() -> Self {
        Self::new(Exit::Done, "")
    }

    /// Nothing to tell.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.message.is_empty()
    }

    /// The daemon's error behind it.
    pub(crate) fn caused_by(mut self, name: String, parameters: Map<String, Value>) -> Self {
        self.0.error = Some((name, parameters));
        self
    }

    /// A further line about what is wrong.
    pub(crate) fn detail(mut self, line: impl Into<String>) -> Self {
        self.0.details.push(line.into());
        self
    }

    /// What to do.
    pub(crate) fn hint(mut self, line: impl Into<String>) -> Self {
        self.0.hints.push(line.into());
        self
    }

    /// How the program exits.
    pub(crate) fn exit(&self) -> Exit {
        self.0.exit
    }

    /// For people, with its newline. All of it is made harmless here.
    pub(crate) fn text(&self, paint: Paint) -> String {
        let mut out = format!("{} {}\n", paint.tone(Tone::Bad, "error:"), Safe(&self.0.message));
        for line in &self.0.details {
            out.push_str(&format!("  {}\n", Safe(line)));
        }
        out + &hints(&self.0.hints, paint)
    }

    /// For programs, on one line with its newline.
    pub(crate) fn json(&self) -> String {
        let (name, parameters) = match &self.0.error {
            Some((name, parameters)) => (Some(name), Some(parameters)),
            None => (None, None),
        };
        let value = json!({
            "error": name,
            "parameters": parameters,
            "message": self.0.message,
            "details": self.0.details,
            "hints": self.0.hints,
            "exit": self.0.exit.code(),
        });
        line_json(&value) + "\n"
    }
}

/// Hints after an empty line, each on its own.
pub(crate) fn hints<T: AsRef<str>>(hints: &[T], paint: Paint) -> String {
    let mut out = String::new();
    for (at, hint) in hints.iter().enumerate() {
        let gap = if at == 0 { "\n" } else { "" };
        out.push_str(&format!("{gap}{} {}\n", paint.tone(Tone::Good, "hint:"), safe(hint.as_ref())));
    }
    out
}
