//! Looking at the application: probes, gates and images, told a [`Line`] at a time.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guard_model::deploy::{Compose, Probe, Validation};
use serde::{Deserialize, Serialize};

use super::line::{Line, write};
use super::{step, verify};
use crate::bounded::Context;
use crate::child::{End, when_taken_back};
use crate::compose::{self, Tag, Watched};
use crate::{gates, probe};

/// What a child looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// Asks all probes again and again until everything was well for long enough: [`Line::Probed`] for each, then one
    /// [`Line::Verified`].
    Verify {
        /// What must answer.
        probes: Vec<Probe>,
        /// The project whose containers are watched.
        compose: Option<Compose>,
        /// So long everything must be well without a break, milliseconds.
        stable_ms: u64,
        /// Then it is over, milliseconds.
        deadline_ms: u64,
        /// Between two rounds, milliseconds.
        interval_ms: u64,
    },
    /// Asks all probes once: [`Line::Probed`] for each.
    Probe {
        /// What must answer.
        probes: Vec<Probe>,
        /// The project whose containers are looked at.
        compose: Option<Compose>,
    },
    /// Looks at what must hold before a deployment: [`Line::Gate`] for each.
    Gates {
        /// What is configured.
        validation: Validation,
        /// The environment's project.
        compose: Option<Compose>,
        /// A deployment's own probes, which have to answer before, too.
        health: Vec<Probe>,
    },
    /// Asks a program: one [`Line::Answer`].
    Ask {
        /// Its name, looked up in [`super::PATH`].
        program: String,
        /// Its arguments.
        arguments: Vec<String>,
        /// Variables beside the usual ones.
        variables: BTreeMap<String, String>,
        /// It has to be done within, milliseconds.
        within_ms: u64,
    },
    /// Says which images run: [`Line::Image`] for each.
    Images {
        /// The environment's project.
        compose: Compose,
    },
    /// Gives each image that runs a tag of ours, so that no prune takes it: [`Line::Image`] for each.
    Pin {
        /// The environment's project.
        compose: Compose,
        /// What the tags begin with: `guardd-keep/ENV:ID-`.
        prefix: String,
    },
    /// Gives references back to the images that they meant.
    Repin {
        /// Which.
        tags: Vec<Tag>,
    },
    /// Takes tags of ours away; the images go where nothing else holds them.
    Unpin {
        /// `guardd-keep/ENV`: only tags of it go.
        repository: String,
        /// Beginnings of the tags that stay, as `ID-`.
        keep: Vec<String>,
    },
}

/// Set when standard input closes: whoever gave the order is gone.
static TAKEN_BACK: AtomicBool = AtomicBool::new(false);

/// Looks, and tells. It ends early when its order is taken back.
///
/// # Errors
/// What is seen cannot be told.
pub(super) fn run(
    look: &Look,
    root: &Path,
    environment: &BTreeMap<String, String>,
    out: &mut dyn Write,
) -> io::Result<u8> {
    when_taken_back(|| TAKEN_BACK.store(true, Ordering::Relaxed))?;
    let context = Context {
        root: root.to_owned(),
        variables: step::variables(environment),
        stop: &TAKEN_BACK,
        began: Instant::now(),
    };
    tell(&context, look, out)?;
    match context.is_stopped() {
        true => Ok(1),
        false => write(out, &Line::Done).map(|()| 0),
    }
}

/// Does the looking; everything but [`Line::Done`].
pub(crate) fn tell(context: &Context, look: &Look, out: &mut dyn Write) -> io::Result<()> {
    match look {
        Look::Verify { probes, compose, stable_ms, deadline_ms, interval_ms } => {
            let span = verify::Span {
                stable: Duration::from_millis(*stable_ms),
                deadline: Duration::from_millis(*deadline_ms),
                interval: Duration::from_millis((*interval_ms).max(10)),
            };
            verify::run(context, probes, compose.as_ref(), span, out)
        }
        Look::Probe { probes, compose } => {
            let own = Compose::default();
            let mut watched = probe::project(probes, compose.as_ref(), &own).map(Watched::new);
            for seen in probe::all(context, probes, watched.as_mut()) {
                write(out, &verify::probed(context, &seen))?;
            }
            Ok(())
        }
        Look::Gates { validation, compose, health } => {
            gates::tell(context, validation, compose.as_ref(), health, &mut |gate| {
                write(out, &Line::Gate(gate))
            })
        }
        Look::Ask { program, arguments, variables, within_ms } => {
            let mut command = context.command(program);
            command.args(arguments).envs(variables);
            let line = match context.run(&mut command, Duration::from_millis(*within_ms)) {
                Ok(done) => answer(&done),
                Err(e) => Line::Failed { what: format!("run {program}"), why: e.to_string() },
            };
            write(out, &line)
        }
        Look::Images { compose } => all(compose::images(context, compose), "tell which images run", out),
        Look::Pin { compose, prefix } => {
            all(compose::pin(context, compose, prefix), "keep the images that run", out)
        }
        Look::Repin { tags } => compose::repin(context, tags, &mut |line| write(out, &line)),
        Look::Unpin { repository, keep } => {
            compose::unpin(context, repository, keep, &mut |line| write(out, &line))
        }
    }
}

/// Of an answer so much is passed on, bytes.
const ANSWER: usize = 16 << 10;

fn answer(done: &crate::bounded::Output) -> Line {
    let code = match done.end {
        End::Exited(code) => Some(code),
        End::Late | End::Stopped => None,
    };
    let said = done.out.get(..done.out.len().min(ANSWER)).unwrap_or_default();
    Line::Answer {
        code,
        out: String::from_utf8_lossy(said).into_owned(),
        is_cut: said.len() < done.out.len(),
        complaint: done.complaint(),
    }
}

fn all(found: Result<Vec<Line>, String>, what: &str, out: &mut dyn Write) -> io::Result<()> {
    match found {
        Ok(lines) => lines.iter().try_for_each(|line| write(out, line)),
        Err(why) => write(out, &Line::Failed { what: what.to_owned(), why }),
    }
}
