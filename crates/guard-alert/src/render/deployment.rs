//! What is said of deployments.

use std::fmt::Display;

use guard_model::deploy::DeploymentEnd;
use guard_model::ledger::{Event, Record};

use super::Level;

/// Level and text of a record about a deployment, its fields handed to `put`; `None` for any other.
pub(super) fn words(
    record: &Record,
    put: &mut dyn FnMut(&'static str, &dyn Display),
) -> Option<(Level, String)> {
    Some(match &record.event {
        Event::DeploymentStarted { kind, by, reason, revision, force, to, .. } => {
            put("deployment", &record.seq);
            put("kind", kind);
            put("by", by);
            put("reason", reason);
            if let Some(revision) = revision {
                put("revision", revision);
            }
            let forced: Vec<&str> = force.iter().map(|f| f.word()).collect();
            if !forced.is_empty() {
                put("force", &forced.join(","));
            }
            if let Some(to) = to {
                put("to", to);
            }
            let what = revision.as_ref().map(|r| format!(" of {r}")).unwrap_or_default();
            let level = if forced.is_empty() { Level::Notice } else { Level::Warning };
            (level, format!("{kind} {}{what} began, by {by}: {reason}", record.seq))
        }
        Event::DeploymentPhase { deployment, phase, step } => {
            put("deployment", deployment);
            put("phase", phase);
            if let Some(step) = step {
                put("step", step);
            }
            let step = step.as_ref().map(|s| format!(" {s}")).unwrap_or_default();
            (Level::Info, format!("deployment {deployment}: {phase}{step}"))
        }
        Event::DeploymentResult { deployment, phase, step, ok, told, duration_ms } => {
            put("deployment", deployment);
            put("phase", phase);
            if let Some(step) = step {
                put("step", step);
            }
            put("ok", if *ok { &"yes" } else { &"no" });
            put("told", told);
            put("duration_ms", duration_ms);
            let step = step.as_ref().map(|s| format!(" {s}")).unwrap_or_default();
            let level = if *ok { Level::Info } else { Level::Warning };
            (level, format!("deployment {deployment}: {phase}{step}: {told}"))
        }
        Event::DeploymentSecured { deployment, backup, revision, images } => {
            put("deployment", deployment);
            put("backup", backup);
            if let Some(revision) = revision {
                put("revision_before", revision);
            }
            put("images", &images.len());
            (Level::Info, format!("deployment {deployment} would be rolled back to backup {backup}"))
        }
        Event::DeploymentEnded {
            deployment,
            end,
            why,
            revision_after,
            changed,
            release,
            duration_ms,
            ..
        } => {
            put("deployment", deployment);
            put("end", end);
            put("why", why);
            if let Some(after) = revision_after {
                put("revision_after", after);
            }
            put("changed", changed);
            if let Some(release) = release {
                put("release", release);
            }
            put("duration_ms", duration_ms);
            let level = match end {
                DeploymentEnd::Done => Level::Notice,
                DeploymentEnd::Refused | DeploymentEnd::RolledBack => Level::Warning,
                DeploymentEnd::NeedsOperator => Level::Critical,
            };
            (level, format!("deployment {deployment} ended, {end}: {why}"))
        }
        _ => return None,
    })
}
