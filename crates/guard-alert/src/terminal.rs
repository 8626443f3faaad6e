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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use guard_model::entry::Digest;
    use guard_model::ledger::Event;
    use guard_model::{Severity, Timestamp};

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn shown(colour: bool) -> String {
        let screen = Screen::default();
        let out = Box::new(screen.clone());
        let mut terminal = Terminal { out, colour, renderer: Renderer::default() };
        let alert =
            |severity| Event::AlertOpened { severity, title: "t".into(), findings: vec![], sessions: vec![] };
        let events =
            [Event::DaemonStopped { reason: "x".into() }, alert(Severity::High), alert(Severity::Warning)];
        for (seq, event) in (1..).zip(events) {
            let record = Record { seq, at: Timestamp(0), prev: Digest([0; 32]), environment: None, event };
            for notice in terminal.pieces(&record) {
                terminal.deliver(&notice).unwrap();
            }
        }
        let bytes = screen.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn alerts_are_shown_and_nothing_else() {
        let plain = "1970-01-01T00:00:00.000000Z high - alert_opened alert=2 title=t\n\
            1970-01-01T00:00:00.000000Z warning - alert_opened alert=3 title=t\n";
        assert_eq!(shown(false), plain);
        let coloured = shown(true);
        assert!(coloured.contains("\x1b[31m1970") && coloured.contains("\x1b[33m1970"), "{coloured:?}");
        assert_eq!(coloured.matches("\x1b[0m\n").count(), 2);
    }
}
