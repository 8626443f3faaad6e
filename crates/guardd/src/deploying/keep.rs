//! The backups that deployments can be rolled back to, whatever is made after them.

use guard_model::BackupId;
use guard_model::deploy::DeploymentEnd;
use guard_model::ledger::Event;
use guard_store::backup::Pin;

use super::desk::{Desk, Fault};
use crate::warden::Command;

/// So many good deployments are kept: what stood before each, and what it left.
const KEPT: usize = 3;

/// Pins a backup, and frees those of deployments that are longer ago.
pub(super) fn keep(desk: &Desk, newest: &BackupId) -> Result<(), Fault> {
    let backups = desk.ask(Command::Backups)?.vault.backups;
    let (kept, old) = kept(desk);
    let keep = kept.iter().chain([newest]).map(|id| (id, Pin::Keep));
    let free = old.iter().filter(|id| *id != newest && !kept.contains(id)).map(|id| (id, Pin::Free));
    let mut events = Vec::new();
    for (backup, pin) in keep.chain(free) {
        // One that is gone needs no pin.
        if backups.set_pinned(backup, pin).unwrap_or(false) {
            let (backup, pinned) = (backup.clone(), pin == Pin::Keep);
            events.push(Event::BackupPinned { backup, pinned, by: "guardd".to_owned() });
        }
    }
    desk.tell(events)?;
    Ok(())
}

/// The backups of the last good deployments beside this one, and of those before them.
fn kept(desk: &Desk) -> (Vec<BackupId>, Vec<BackupId>) {
    let past = desk.order.state.deployments.past.iter().rev();
    let good = past.filter(|d| d.ended.as_ref().is_some_and(|e| e.end == DeploymentEnd::Done));
    let (mut kept, mut old): (Vec<BackupId>, Vec<BackupId>) =
        (desk.order.deployment.backup.iter().cloned().collect(), Vec::new());
    for (number, d) in good.enumerate() {
        let ids = d.backup.iter().chain(d.ended.iter().filter_map(|e| e.release.as_ref())).cloned();
        if number + 1 < KEPT { kept.extend(ids) } else { old.extend(ids) }
    }
    (kept, old)
}
