//! What the child process does: it reads one [`Spec`] as a line of JSON, does what it says, and ends. Its standard input
//! stays open all the while; when that closes, whoever started it is gone or wants it to stop, and it ends with all that
//! it started.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod line;
pub mod look;
pub mod step;
mod verify;

pub use crate::compose::Tag;
pub use line::{Line, LineError, read_line};
pub use look::Look;

/// The search path of everything that is run.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a child is to do, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The environment's root: where everything is run.
    pub directory: PathBuf,
    /// Variables beside those of [`step::variables`].
    pub environment: BTreeMap<String, String>,
    /// What to do.
    pub work: Work,
}

/// What a child is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Runs a command line by `sh -c` and ends with its status; what it prints is passed on.
    Step {
        /// The command line.
        run: String,
    },
    /// Looks at the application and tells what it sees as [`Line`]s.
    Look(Box<Look>),
}

/// Longer than any order is.
const LONGEST_SPEC: u64 = 1 << 20;

/// Reads the order from standard input and carries it out. The status is the child's own.
///
/// # Errors
/// What came is no order, or the work could not be begun.
pub fn run(out: &mut impl Write) -> io::Result<u8> {
    let mut line = String::new();
    io::Read::take(io::stdin().lock(), LONGEST_SPEC).read_line(&mut line)?;
    let spec: Spec = serde_json::from_str(&line).map_err(|e| io::Error::other(format!("no order: {e}")))?;
    std::env::set_current_dir(&spec.directory).map_err(|e| {
        io::Error::new(e.kind(), format!("cannot change to {}: {e}", spec.directory.display()))
    })?;
    out.flush()?;
    match &spec.work {
        Work::Step { run } => step::run(run, &spec.environment),
        Work::Look(look) => look::run(look, &spec.directory, &spec.environment, out),
    }
}
