//! Children that look, as another user.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use guard_deploy::run::{Job, Runner};
use guard_deploy::worker::{Line, Look, Spec, Work};

use super::Subject;
use crate::failure::chain;

/// All looking is done by then.
const DEADLINE: Duration = Duration::from_secs(300);

/// Tells the units of different looks apart.
static LOOKS: AtomicU64 = AtomicU64::new(0);

/// Has a child look, and hears what it says.
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
    runner.look(&job, stop, heard).map_err(|e| chain(&e))
}
