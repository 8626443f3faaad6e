//! Children that look, as another user.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use guard_deploy::run::{End, Job, Runner, Stream};
use guard_deploy::worker::line::LONGEST;
use guard_deploy::worker::{Line, Look, Spec, Work, read_line};

use super::Subject;
use crate::failure::chain;

/// All looking is done by then.
const DEADLINE: Duration = Duration::from_secs(300);

/// Tells the units of different looks apart.
static LOOKS: AtomicU64 = AtomicU64::new(0);

/// Has a child look, and hears what it says. Nothing that it says is believed to be well-formed.
///
/// # Errors
/// Why it did not come to its end.
pub(super) fn run(
    subject: &Subject,
    user: &str,
    look: Look,
    stop: &AtomicBool,
    heard: &mut dyn FnMut(Line),
) -> Result<(), String> {
    let runner = Runner::here().map_err(|e| format!("this program cannot be found: {e}"))?;
    let number = LOOKS.fetch_add(1, Ordering::Relaxed);
    let unit = format!("guardd-look-{}-{}-{number}", subject.ward.name, std::process::id());
    let environment = subject.config.deploy.as_ref().map(|d| d.variables.clone()).unwrap_or_default();
    let spec = Spec { directory: subject.root.clone(), environment, work: Work::Look(Box::new(look)) };
    let job = Job { unit: &unit, user, spec: &spec, deadline: DEADLINE };
    let (mut lines, mut complaints) = (Lines::default(), Vec::new());
    let ended = runner
        .run(&job, stop, &mut |stream, piece| match stream {
            Stream::Out => lines.take(piece, heard),
            Stream::Err if complaints.len() < 4096 => complaints.extend_from_slice(piece),
            Stream::Err => {}
        })
        .map_err(|e| chain(&e))?;
    if let Some(why) = lines.wrong {
        return Err(why);
    }
    match ended.end {
        End::Exited(0) => Ok(()),
        End::Exited(code) => {
            let said = String::from_utf8_lossy(&complaints);
            let last = said.lines().rev().find(|l| !l.trim().is_empty()).unwrap_or("it said nothing");
            Err(format!(
                "a look as {user} failed (exit code {code}): {}",
                guard_model::path::escape(last.as_bytes())
            ))
        }
        End::Late => Err(format!("a look as {user} did not end within {} seconds", DEADLINE.as_secs())),
        End::Stopped => Err("it was stopped".to_owned()),
    }
}

/// Puts lines together from pieces.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
    wrong: Option<String>,
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
                    self.wrong = Some(format!("a look said what it cannot say: {}", chain(&e)));
                    return;
                }
            }
        }
        if self.rest.len() > LONGEST {
            self.wrong = Some("a look said a line without an end".to_owned());
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
        assert_eq!((heard.len(), lines.wrong.as_deref()), (2, None));
        lines.take(b"{\"line\":\"evil\"}\n{\"line\":\"done\"}\n", &mut |l| heard.push(l));
        assert!(lines.wrong.is_some());
        assert_eq!(heard.len(), 2, "nothing is heard after nonsense");
        let mut endless = Lines::default();
        endless.take(&vec![b'x'; LONGEST + 1], &mut |l| heard.push(l));
        assert!(endless.wrong.is_some());
    }
}
