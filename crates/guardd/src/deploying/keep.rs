//! What deployments can be rolled back to stays, whatever is made after them: their backups, and the images that ran before.

use guard_model::BackupId;
use guard_model::deployments::Deployments;
use guard_model::ledger::Event;
use guard_store::backup::Pin;

use super::desk::{Desk, Fault, failed};
use crate::failure::chain;
use crate::warden::Command;

/// Pins the backups of the deployments that are kept and this one, and frees those that were pinned for others.
pub(super) fn keep(desk: &Desk, newest: &BackupId) -> Result<(), Fault> {
    let backups = desk.ask(Command::Backups)?.vault.backups;
    let deployments = deployments(desk)?;
    let mut kept = deployments.kept_backups();
    kept.insert(newest.clone());
    let keep = kept.iter().map(|id| (id, Pin::Keep));
    let free = deployments.pinned.difference(&kept).map(|id| (id, Pin::Free));
    let mut events = Vec::new();
    for (backup, pin) in keep.chain(free) {
        // One that is gone needs no pin.
        if backups.set_pinned(backup, pin).unwrap_or(false) {
            let (backup, pinned) = (backup.clone(), pin == Pin::Keep);
            events.push(Event::BackupPinned { backup, pinned, by: Deployments::PINNED_BY.to_owned() });
        }
    }
    desk.tell(events)?;
    Ok(())
}

/// The deployments whose images are kept.
pub(super) fn kept(desk: &Desk) -> Result<Vec<u64>, Fault> {
    Ok(deployments(desk)?.kept().map(|d| d.id).collect())
}

/// As the ledger has them now.
fn deployments(desk: &Desk) -> Result<Deployments, Fault> {
    let state = desk.order.ward.house.index().environment_state(&desk.order.ward.name);
    Ok(state.map_err(|e| failed(format!("the index cannot be read: {}", chain(&e))))?.deployments)
}
