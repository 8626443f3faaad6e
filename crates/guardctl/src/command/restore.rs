//! Restore.

use std::ffi::OsString;

use guard_api::Exit;
use guard_api::method::Restore;

use super::look;
use crate::ctl::{Ctl, Outcome};
use crate::failure::Failure;
use crate::place::{Place, resolve};
use crate::view::restore::text;

pub(crate) fn restore(
    ctl: &mut Ctl,
    typed: &[OsString],
    all: bool,
    from: Option<String>,
    plan: bool,
) -> Outcome {
    let Place { environment, mut paths } = resolve(ctl, "restore", typed, None)?;
    match (all, paths.is_empty()) {
        (true, true) => paths.push(".".to_owned()),
        (true, false) => return Err(Failure::usage("--all is every path: name paths, or use --all")),
        (false, true) => {
            return Err(Failure::usage("name the paths to put back, or use --all")
                .hint("e.g. guardctl restore ENV .env.prod, or guardctl restore ENV --all --plan"));
        }
        (false, false) => {}
    }
    let answer = ctl.call_long("restore", &Restore { environment, paths, from, plan: Some(plan) })?;
    let r = &answer.value;
    let is_whole = r.plan || r.skipped.is_empty();
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&text(look(ctl), r))?;
        if r.plan && r.steps_total > 0 {
            ctl.hint(&["the same command without --plan does it".to_owned()])?;
        }
    }
    Ok(if is_whole { Exit::Done } else { Exit::Failed })
}
