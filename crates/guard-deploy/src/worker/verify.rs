//! Whether a release is good: everything well, and that for so long without a break. The first good answer says nothing: a
//! container in a crash loop runs most of the time, and a server can be healthy and dead six seconds later.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use guard_model::deploy::{Compose, Probe};

use super::line::{Line, write};
use crate::bounded::Context;
use crate::compose::Watched;
use crate::probe::{self, Seen};

/// How long, and how often.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// So long everything must be well without a break.
    pub(super) stable: Duration,
    /// Then it is over.
    pub(super) deadline: Duration,
    /// Between two rounds.
    pub(super) interval: Duration,
}

pub(super) fn probed(context: &Context, seen: &Seen) -> Line {
    Line::Probed {
        probe: seen.probe.to_string(),
        ok: seen.ok,
        evidence: seen.evidence.clone(),
        after_ms: context.elapsed_ms(),
    }
}

pub(super) fn run(
    context: &Context,
    probes: &[Probe],
    compose: Option<&Compose>,
    span: Span,
    out: &mut dyn Write,
) -> io::Result<()> {
    let own = Compose::default();
    let mut watched = probe::project(probes, compose, &own).map(Watched::new);
    let mut history = History::default();
    let began = Instant::now();
    while !context.is_stopped() {
        let round = Instant::now();
        let seen = probe::all(context, probes, watched.as_mut());
        for one in &seen {
            // Each round, so that a listener who is gone is noticed.
            write(out, &probed(context, one))?;
        }
        // A round counts from its end to the next one's begin: what lies within was not seen.
        history.round(&seen, round, Instant::now());
        let well = history.well_for.is_some_and(|well| well >= span.stable);
        if well || began.elapsed() >= span.deadline {
            let why = match well {
                true => format!("everything was well for {}", seconds(span.stable)),
                false => history.why(span.stable, watched.as_ref().and_then(|w| w.last_words(context))),
            };
            return write(out, &Line::Verified { well, why, after_ms: context.elapsed_ms() });
        }
        let left = span.deadline.saturating_sub(began.elapsed());
        context.wait(span.interval.saturating_sub(round.elapsed()).min(left).max(Duration::from_millis(10)));
    }
    Ok(())
}

/// What has been seen so far.
#[derive(Debug, Default)]
struct History {
    rounds: u32,
    /// Since when everything is well.
    well_since: Option<Instant>,
    well_for: Option<Duration>,
    /// The longest that it was.
    longest: Duration,
    /// By probe: how often it failed, and how at last.
    failures: BTreeMap<String, (u32, String)>,
    /// Those that failed in the last round.
    failing: Vec<String>,
}

impl History {
    fn round(&mut self, seen: &[Seen], began: Instant, ended: Instant) {
        self.rounds += 1;
        self.failing.clear();
        for one in seen.iter().filter(|s| !s.ok) {
            let name = one.probe.to_string();
            let (times, last) = self.failures.entry(name.clone()).or_default();
            *times += 1;
            last.clone_from(&one.evidence);
            self.failing.push(name);
        }
        if !self.failing.is_empty() {
            (self.well_since, self.well_for) = (None, None);
            return;
        }
        let well = began.saturating_duration_since(*self.well_since.get_or_insert(ended));
        self.well_for = Some(well);
        self.longest = self.longest.max(well);
    }

    fn why(&self, stable: Duration, last_words: Option<String>) -> String {
        let told = self.failures.iter().map(|(name, (times, last))| {
            let now = if self.failing.contains(name) { "" } else { ", well at last" };
            format!("{name}: {last} ({times} of {} times{now})", self.rounds)
        });
        let mut lines: Vec<String> = told.collect();
        if self.failing.is_empty() {
            let longest = seconds(self.longest);
            lines.push(format!(
                "it was never well for {} without a break, at most for {longest}",
                seconds(stable)
            ));
        }
        lines.extend(last_words);
        lines.join("\n")
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1}s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::line::read_line;

    fn verify(root: &std::path::Path, command: &str, stable: u64, deadline: u64) -> (bool, String, usize) {
        let context = crate::bounded::tests::context(root);
        let span = Span {
            stable: Duration::from_millis(stable),
            deadline: Duration::from_millis(deadline),
            interval: Duration::from_millis(20),
        };
        let mut out = Vec::new();
        let probe = Probe::Command { command: command.to_owned() };
        run(&context, &[probe], None, span, &mut out).unwrap();
        let lines: Vec<Line> =
            String::from_utf8(out).unwrap().lines().map(|l| read_line(l).unwrap()).collect();
        match lines.last() {
            Some(Line::Verified { well, why, .. }) => (*well, why.clone(), lines.len() - 1),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn well_for_long_enough() {
        let dir = tempfile::tempdir().unwrap();
        let (well, why, rounds) = verify(dir.path(), "true", 100, 60_000);
        assert!(well && why.contains("0.1s"), "{why}");
        assert!(rounds > 1, "one good answer proves nothing");
    }

    #[test]
    fn what_never_answers_is_told_with_its_evidence() {
        let dir = tempfile::tempdir().unwrap();
        let (well, why, _) = verify(dir.path(), "echo it is down; exit 7", 100, 300);
        assert!(!well && why.contains("exit code 7: it is down"), "{why}");
    }

    #[test]
    fn what_flaps_is_not_well() {
        let dir = tempfile::tempdir().unwrap();
        // Good three times, then bad once, for ever.
        let flap = "echo x >> n; test $(( $(wc -l < n) % 4 )) -ne 0 || { echo flap; exit 1; }";
        let (well, why, _) = verify(dir.path(), flap, 5_000, 1_500);
        assert!(!well && why.contains("flap"), "{why}");
    }

    #[test]
    fn what_gets_well_late_is_well() {
        let dir = tempfile::tempdir().unwrap();
        let late = "echo x >> n; test $(wc -l < n) -gt 5";
        let (well, why, rounds) = verify(dir.path(), late, 50, 60_000);
        assert!(well && rounds > 6, "{why}");
    }

    #[test]
    fn a_listener_that_is_gone_ends_it() {
        struct Gone;
        impl Write for Gone {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let context = crate::bounded::tests::context(std::path::Path::new("/"));
        let long = Duration::from_secs(600);
        let span = Span { stable: long, deadline: long, interval: Duration::from_millis(10) };
        let probe = Probe::Command { command: "true".to_owned() };
        assert!(run(&context, &[probe], None, span, &mut Gone).is_err());
    }
}
