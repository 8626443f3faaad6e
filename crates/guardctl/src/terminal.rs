//! What of a terminal there is, and colours for it.

use std::io::IsTerminal;

/// Which ends are terminals, and whether they may be coloured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terminal {
    /// For data.
    pub(crate) stdout: Paint,
    /// For talk.
    pub(crate) stderr: Paint,
    /// Data go to a terminal.
    pub(crate) shows_data: bool,
    /// Progress can be shown.
    pub(crate) shows_progress: bool,
    /// Somebody can be asked.
    pub(crate) can_ask: bool,
}

impl Terminal {
    /// Looks at the three standard streams, `NO_COLOR` and `TERM`.
    pub(crate) fn detect() -> Self {
        let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|t| t.is_empty() || t == "dumb");
        let (input, out, err) = (
            std::io::stdin().is_terminal(),
            std::io::stdout().is_terminal(),
            std::io::stderr().is_terminal(),
        );
        let colour = !set("NO_COLOR") && !dumb;
        Self {
            stdout: Paint { on: out && colour },
            stderr: Paint { on: err && colour },
            shows_data: out,
            shows_progress: err && !dumb,
            can_ask: input && err,
        }
    }
}

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// Nothing.
    Plain,
    /// All is well.
    Good,
    /// Look at it by day.
    Warn,
    /// Look at it now.
    Bad,
    /// Less important.
    Dim,
    /// A heading.
    Strong,
}

/// Paints text, or leaves it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Paint {
    on: bool,
}

impl Paint {
    /// Leaves text as it is.
    #[cfg(test)]
    pub(crate) const OFF: Self = Self { on: false };

    /// The text, which is harmless already, in its colour (ECMA-48 SGR).
    pub(crate) fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "1;31",
            Tone::Dim => "2",
            Tone::Strong => "1",
        };
        if self.on && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
