//! The lines that tell who opened or read sensitive files.

use guard_model::access::Reading;
use guard_model::ledger::Record;

use super::{Fields, LINES_PER_ALERT, actor_fields, notice, yes};
use crate::notice::{Level, Notice};
use crate::text::free;

pub(super) fn notices(record: &Record, readings: &[Reading], missed: Option<&str>) -> Vec<Notice> {
    let mut notices: Vec<Notice> = readings
        .iter()
        .take(LINES_PER_ALERT)
        .filter_map(|reading| {
            let text = format!("{} was opened by {}", reading.path, program(reading));
            Some(Notice { at: reading.last, ..notice(record, Level::Info, fields(reading), text)? })
        })
        .collect();
    if let Some(more) = readings.len().checked_sub(LINES_PER_ALERT).filter(|&n| n > 0) {
        let hint = format!("and {more} more: guardctl who --reads");
        let fields = vec![("more", more.to_string()), ("hint", hint.clone())];
        notices.extend(notice(record, Level::Info, fields, hint));
    }
    if let Some(why) = missed {
        let text = format!("there were more readers of sensitive files, of whom nothing is known: {why}");
        notices.extend(notice(record, Level::Warning, vec![("missed", free(why))], text));
    }
    notices
}

fn fields(reading: &Reading) -> Fields {
    let access: Vec<String> = reading.access.iter().map(ToString::to_string).collect();
    let mut fields = vec![
        ("path", reading.path.clone()),
        ("access", access.join(",")),
        ("times", reading.times.to_string()),
        ("first", reading.first.to_string()),
    ];
    fields.extend(reading.actor.iter().flat_map(actor_fields));
    fields.extend(reading.expected.map(|expected| ("expected", yes(expected))));
    fields
}

fn program(reading: &Reading) -> &str {
    let actor = reading.actor.as_ref();
    actor.and_then(|a| a.exe.as_deref().or(a.comm.as_deref())).unwrap_or("a process that had ended")
}
