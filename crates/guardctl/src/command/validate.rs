//! Validate: the gates, and reports of them for CI systems.

use std::path::{Path, PathBuf};

use guard_api::Exit;
use guard_api::method::Validate;
use guard_api::wire::Verdict;

use super::look;
use crate::ctl::{Ctl, Outcome};
use crate::failure::Failure;
use crate::safe::pretty_json;
use crate::view::gates;

/// Where reports go.
pub(crate) struct Reports {
    pub(crate) junit: Option<PathBuf>,
    pub(crate) sarif: Option<PathBuf>,
}

pub(crate) fn validate(ctl: &mut Ctl, environment: Option<String>, reports: &Reports) -> Outcome {
    let answer = ctl.call_long("validate", &Validate { environment })?;
    let r = &answer.value;
    // What the daemon makes of its gates is not believed where they say otherwise.
    let holds = |v: Verdict| matches!(v, Verdict::Pass | Verdict::Waived);
    let passed = r.passed && !r.gates.is_empty() && r.gates.iter().all(|g| holds(g.verdict));
    if let Some(path) = &reports.junit {
        write(path, &gates::junit(r))?;
    }
    if let Some(path) = &reports.sarif {
        write(path, &(pretty_json(&gates::sarif(r)) + "\n"))?;
    }
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&gates::text(look(ctl), r))?;
    }
    Ok(if passed { Exit::Done } else { Exit::Findings })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot write {}: {e}", path.display())))
}
