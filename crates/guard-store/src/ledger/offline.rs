//! Reads records from the ledger's files beside or without a daemon. Nothing is verified: that is `verify_files`.

use guard_model::ledger::Record;

use crate::error::StoreError;
use crate::ledger::segments::Segment;
use crate::state_dir::StatePaths;

/// Gives `each` the records of `environment` whose event has one of these names, oldest first. A line that is no record
/// is passed over; where there is no ledger there are none.
///
/// # Errors
/// [`StoreError::Io`] where a file of the ledger cannot be read.
pub fn each_of(
    state: &StatePaths,
    environment: &str,
    events: &[&str],
    mut each: impl FnMut(&Record),
) -> Result<(), StoreError> {
    let segments = match Segment::list(&state.ledger()) {
        Err(e) if e.is_not_found() => return Ok(()),
        listed => listed?,
    };
    for segment in segments {
        let mut lines = segment.lines()?;
        while let Some(line) = lines.next_line().map_err(StoreError::io("read", &segment.path))? {
            if !line.ended {
                break;
            }
            // Most are of other kinds; a name that stands elsewhere in the line costs one parse.
            if !events.iter().any(|name| memchr::memmem::find(line.text, name.as_bytes()).is_some()) {
                continue;
            }
            let Ok(record) = serde_json::from_slice::<Record>(line.text) else { continue };
            if record.environment.as_deref() == Some(environment) && events.contains(&record.event.name()) {
                each(&record);
            }
        }
    }
    Ok(())
}
