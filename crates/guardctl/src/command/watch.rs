//! Live events.

use guard_api::Exit;
use guard_api::method::Watch;
use serde_json::json;

use super::look;
use crate::ctl::{Ctl, Outcome, Wait};
use crate::failure::Failure;
use crate::quantity::counted;
use crate::view::record;

pub(crate) fn watch(ctl: &mut Ctl, environment: Option<String>) -> Outcome {
    let whom = environment.clone().unwrap_or_else(|| "all environments".to_owned());
    ctl.call_stream("watch", &Watch { environment }, Wait::ForEver, |ctl, mut answer| {
        let event = &answer.value;
        if event.head.is_some() {
            ctl.say(&format!("watching {whom}; interrupt to end"))?;
        }
        if let Some(n) = event.lost {
            lost(ctl, n)?;
        }
        if let Some(r) = &event.record {
            if ctl.json {
                ctl.print_json_line(&answer.json["record"].take())?;
            } else {
                let text = record::line(look(ctl), r);
                ctl.print(&text)?;
                ctl.flush()?;
            }
        }
        Ok(())
    })?;
    // The daemon ends a watch only where it ends itself.
    Err(Failure::new(Exit::Unreachable, "guardd ended the watch: it stops")
        .hint("see how it is: systemctl status guardd; then watch again"))
}

/// Tells how much was missed, in the stream of data so that no program overlooks it.
pub(crate) fn lost(ctl: &mut Ctl, n: u64) -> Result<(), Failure> {
    if ctl.json {
        ctl.print_json_line(&json!({ "lost": n }))
    } else {
        ctl.print(&format!(
            "         {} not shown, this terminal was too slow: guardctl log\n",
            counted(n, "record")
        ))?;
        ctl.flush()
    }
}
