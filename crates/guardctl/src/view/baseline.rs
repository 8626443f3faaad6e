//! The generations that are kept.

use guard_api::wire::Baseline;

use super::Look;
use crate::quantity::{both, bytes, count};
use crate::safe::safe;
use crate::table::{Cell, Table};
use crate::terminal::Tone;

/// The list.
pub(crate) fn list(look: Look, baselines: &[Baseline]) -> String {
    if baselines.is_empty() {
        return "no baselines: nothing was ever locked\n".to_owned();
    }
    let mut t = Table::headed(&["ENVIRONMENT", "NUMBER", "CREATED", "BY", "FILES", "SIZE", "REASON"]);
    for b in baselines {
        let number = if b.current { format!("{} (holds)", b.generation) } else { b.generation.to_string() };
        t.row([
            safe(&b.environment).into(),
            Cell::toned(if b.current { Tone::Strong } else { Tone::Plain }, number),
            both(b.created_at, look.now).into(),
            safe(&b.by).into(),
            count(b.protected.files).into(),
            bytes(b.protected.bytes).into(),
            safe(&b.reason).into(),
        ]);
    }
    t.render(look.paint)
}
