//! Alert lines on standard output, for a guardd in the foreground.

use std::io::{IsTerminal, Write};
use std::path::Path;

use guard_model::ledger::Record;

use crate::error::OutletError;
use crate::kinds::Log;
use crate::notice::{Level, Notice};
use crate::outlet::Outlet;
use crate::render::Renderer;

/// What goes to `security-alerts.log`, to people.
pub(crate) struct Terminal {
    out: Box<dyn Write + Send>,
    colour: bool,
    renderer: Renderer,
}

impl Terminal {
    /// Standard output, coloured where it is a terminal and NO_COLOR is not set
    /// (no-color.org: any value but the empty one).
    pub(crate) fn new() -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let out = std::io::stdout();
        Self { colour: wanted && out.is_terminal(), out: Box::new(out), renderer: Renderer::default() }
    }
}

impl Outlet for Terminal {
    type Piece = Notice;

    fn pieces(&mut self, record: &Record) -> Vec<Notice> {
        alerts(self.renderer.notices(record))
    }

    fn undurable(&self, record: &Record) -> Vec<Notice> {
        alerts(Renderer::undurable(record))
    }

    fn deliver(&mut self, piece: &Notice) -> Result<(), OutletError> {
        let mut line = piece.line();
        if self.colour {
            line = coloured(piece.level, &line);
        }
        line.push('\n');
        let written = self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|e| OutletError::io("write to", Path::new("standard output"), e))
    }
}

fn alerts(mut notices: Vec<Notice>) -> Vec<Notice> {
    notices.retain(|n| n.kind.logs.contains(&Log::SecurityAlerts));
    notices
}

/// The whole line in the colour of its level, plain where it is routine.
fn coloured(level: Level, line: &str) -> String {
    let colour = match level {
        Level::Critical => "1;31",
        Level::High => "31",
        Level::Warning => "33",
        Level::Notice | Level::Info => return line.to_owned(),
    };
    format!("\x1b[{colour}m{line}\x1b[0m")
}
