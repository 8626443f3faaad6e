//! One line on stderr that tells how far a long operation is.

use std::io::{self, Write};

use guard_api::wire::Progress;

use crate::quantity::count;
use crate::safe::Safe;

/// The line; shown only on a terminal.
#[derive(Debug)]
pub(crate) struct Line {
    on: bool,
    shown: bool,
}

impl Line {
    pub(crate) fn new(on: bool) -> Self {
        Self { on, shown: false }
    }

    /// Replaces what it said.
    pub(crate) fn show(&mut self, progress: &Progress) {
        if self.on {
            // Return to column one and clear to the end of the line (ECMA-48 EL).
            write(&format!("\r\x1b[K  {}", text(progress)));
            self.shown = true;
        }
    }

    /// Leaves nothing behind.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            write("\r\x1b[K");
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

fn text(p: &Progress) -> String {
    // A phase is one word; a longer one would wrap the line, which cannot be cleared then.
    let phase: String = p.phase.chars().take(20).collect();
    let phase = Safe(&phase);
    match p.total {
        Some(total) if total > 0 => {
            let share = u128::from(p.done) * 100 / u128::from(total);
            format!("{phase}  {} / {}  {}%", count(p.done), count(total), share.min(100))
        }
        _ => format!("{phase}  {}", count(p.done)),
    }
}

#[expect(clippy::let_underscore_must_use, reason = "progress that cannot be shown is no failure")]
fn write(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_progress_stays_a_line() {
        let p = |phase: &str, done, total| Progress { phase: phase.into(), done, total };
        assert_eq!(text(&p("read", 12_345, Some(45_000))), "read  12,345 / 45,000  27%");
        assert_eq!(text(&p("walk", 7, None)), "walk  7");
        assert_eq!(text(&p("x", u64::MAX, Some(1))), "x  18,446,744,073,709,551,615 / 1  100%");
        assert_eq!(text(&p("x", 1, Some(0))), "x  1");
        let long = text(&p(&"\x1b[2J\n".repeat(99), 0, None));
        assert!(!long.contains(['\x1b', '\n']) && long.len() < 80, "{long}");
    }
}
