//! A child that looks: what it says becomes lines, and nothing of it is believed to be well-formed.

use std::sync::atomic::AtomicBool;

use guard_model::path::escape;

use super::{End, Job, RunError, Runner, Stream};
use crate::worker::line::LONGEST;
use crate::worker::{Line, LineError, read_line};

/// A child that looked did not come to its end, or cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It could not be run.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It said what no child of ours says.
    #[error("a look said what it cannot say")]
    Nonsense(#[source] LineError),
    /// It failed.
    #[error("a look as {user} failed (exit code {code}): {last}")]
    Failed {
        /// The user that it ran as.
        user: String,
        /// Its status.
        code: i32,
        /// The last that it complained about, escaped.
        last: String,
    },
    /// Its time was up.
    #[error("a look as {user} did not end within {seconds} seconds")]
    Late {
        /// The user that it ran as.
        user: String,
        /// How long it had.
        seconds: u64,
    },
    /// Somebody asked for its end.
    #[error("it was stopped")]
    Stopped,
}

/// Bytes of a child's complaints that are kept.
const COMPLAINTS: usize = 4096;

impl Runner {
    /// Runs a child that looks to its end. `heard` gets what it says, a line at a time; after nonsense nothing more.
    ///
    /// # Errors
    /// [`LookError`].
    pub fn look(
        &self,
        job: &Job<'_>,
        stop: &AtomicBool,
        heard: &mut dyn FnMut(Line),
    ) -> Result<(), LookError> {
        let (mut lines, mut complaints) = (Lines::default(), Vec::new());
        let ended = self.run(job, stop, &mut |stream, piece| match stream {
            Stream::Out => lines.take(piece, heard),
            Stream::Err if complaints.len() < COMPLAINTS => complaints.extend_from_slice(piece),
            Stream::Err => {}
        })?;
        if let Some(nonsense) = lines.wrong {
            return Err(LookError::Nonsense(nonsense));
        }
        let user = job.user.to_owned();
        match ended.end {
            End::Exited(0) => Ok(()),
            End::Exited(code) => {
                let said = String::from_utf8_lossy(&complaints);
                let last = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
                Err(LookError::Failed { user, code, last: escape(last.as_bytes()) })
            }
            End::Late => Err(LookError::Late { user, seconds: job.deadline.as_secs() }),
            End::Stopped => Err(LookError::Stopped),
        }
    }
}

/// Puts lines together from pieces.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    wrong: Option<LineError>,
}

impl Lines {
    fn take(&mut self, piece: &[u8], heard: &mut dyn FnMut(Line)) {
        if self.wrong.is_some() {
            return;
        }
        self.rest.extend_from_slice(piece);
        while let Some(end) = self.rest.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            match read_line(&String::from_utf8_lossy(line.trim_ascii_end())) {
                Ok(line) => heard(line),
                Err(e) => {
                    self.wrong = Some(e);
                    return;
                }
            }
        }
        if self.rest.len() > LONGEST {
            self.wrong = Some(LineError::Long(self.rest.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_become_lines_and_nonsense_ends_it() {
        let mut lines = Lines::default();
        let mut heard = Vec::new();
        for piece in ["{\"li", "ne\":\"done\"}\n{\"line\":\"do", "ne\"}\n"] {
            lines.take(piece.as_bytes(), &mut |l| heard.push(l));
        }
        assert!(heard.len() == 2 && lines.wrong.is_none());
        lines.take(b"{\"line\":\"evil\"}\n{\"line\":\"done\"}\n", &mut |l| heard.push(l));
        assert!(lines.wrong.is_some());
        assert_eq!(heard.len(), 2, "nothing is heard after nonsense");
        let mut endless = Lines::default();
        endless.take(&vec![b'x'; LONGEST + 1], &mut |l| heard.push(l));
        assert!(endless.wrong.is_some());
    }
}
