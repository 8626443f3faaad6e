//! Are the keys that backups are encrypted to those that the ledger knows? Whoever exchanges the
//! recovery key's public half gets to read what is backed up from then on.

use std::sync::PoisonError;

use guard_model::ledger::Event;
use guard_model::{Change, Severity};
use guard_store::RecordFilter;
use guard_store::backup::{HOST_IDENTITY, RECOVERY_RECIPIENT};

use super::selfwatch;
use crate::ward::House;

/// What is to be told of the keys as they were found at start.
pub(super) fn at_start(house: &House) -> Vec<Event> {
    let Ok(keys) = &house.backup_keys else { return Vec::new() };
    let keys = keys.read().unwrap_or_else(PoisonError::into_inner);
    let mut events = Vec::new();
    let environments = house.index().environments().unwrap_or_default();
    if keys.created() && environments.iter().any(|(_, state)| !state.backups.known.is_empty()) {
        let title = "the host's key for backups was gone; a new one was made, with which those from before do \
                     not open";
        events.push(alert(house, title, HOST_IDENTITY, Change::Deleted));
    }
    let of_keys = RecordFilter { events: vec!["backup_key".to_owned()], ..RecordFilter::default() };
    let last = house.index().recent(1, &of_keys).unwrap_or_default();
    let known = last.into_iter().find_map(|record| match record.event {
        Event::BackupKey { recipient, .. } => Some(recipient),
        _ => None,
    });
    match (known, keys.recovery()) {
        (Some(known), Some(now)) if known != now => {
            let title = format!("backups would be encrypted to another recovery key than was made: {now}");
            events.push(alert(house, &title, RECOVERY_RECIPIENT, Change::Content));
        }
        (Some(_), None) => {
            let title = "the recovery key's public half is gone: backups are encrypted to this host alone";
            events.push(alert(house, title, RECOVERY_RECIPIENT, Change::Deleted));
        }
        (None, Some(now)) => {
            let title = format!("there is a recovery key for backups that the ledger does not know: {now}");
            events.push(alert(house, &title, RECOVERY_RECIPIENT, Change::Created));
        }
        _ => {}
    }
    events
}

fn alert(house: &House, title: &str, file: &str, change: Change) -> Event {
    let path = house.state_dir.keys().join(file);
    crate::sessions::alert(
        Severity::Critical,
        title.to_owned(),
        vec![selfwatch::finding(&path, change, None)],
    )
}
