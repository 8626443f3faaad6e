//! What the environments' states were, where the ledger cannot tell any more.
//!
//! Whoever destroys the ledger must not thereby end the guard of what is locked:
//! each lock file says, signed, how its environment stood, and each generation of
//! a baseline is signed, too. Where they know more than the ledger it is written
//! into the new chain, on the safe side: what was unlocked is locked again.

use std::collections::BTreeSet;
use std::path::Path;

use guard_model::baseline::{LockFile, LockState};
use guard_model::ledger::Event;
use guard_model::state::EnvironmentState;
use guard_store::{Baseline, lock_file};

use crate::failure::chain;
use crate::operations::now;
use crate::ward::House;

/// Is there a signed baseline though the ledger has not begun? Then it was taken away.
pub(super) fn is_ledger_missing(house: &House) -> bool {
    house.ledger.head().seq == 0 && !names_in(&house.state_dir.baselines(), "").is_empty()
}

/// Writes into the ledger what else is known of each environment.
pub(super) fn from_what_is_signed(house: &House) {
    let mut names: BTreeSet<String> = names_in(&house.state_dir.baselines(), "").into_iter().collect();
    names.extend(names_in(&house.state_dir.locks(), ".lock"));
    for name in names {
        let known = house.index().environment_state(&name).unwrap_or_default();
        let events = restored(house, &name, &known);
        if events.is_empty() {
            continue;
        }
        tracing::warn!(environment = name, "its state was taken from what is signed beside the ledger");
        if let Err(e) = house.ledger.append(Some(name), events) {
            tracing::error!(error = %chain(&e), "the ledger cannot be written");
        }
    }
}

/// Names of the entries of a directory that end so, without the ending.
fn names_in(dir: &Path, ending: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.strip_suffix(ending).map(str::to_owned)).collect()
}

fn restored(house: &House, name: &str, known: &EnvironmentState) -> Vec<Event> {
    let Ok(path) = house.state_dir.lock_file(name) else { return Vec::new() };
    let said = lock_file::read_verified(&path, &house.public).ok().map(|(said, _)| said);
    let known_generation = known.baseline.as_ref().map_or(0, |b| b.generation);
    let (from, baseline, state, by, reason) = match said {
        Some(LockFile { generation, .. }) if generation < known_generation => return Vec::new(),
        Some(said) if said.generation == known_generation && said.state == known.state => return Vec::new(),
        Some(said) => {
            let dir = house.state_dir.generation(name, said.generation);
            let baseline = dir.and_then(|d| Baseline::open(&d, &said.baseline, &house.public));
            ("its lock file", baseline.map_err(|_| said.clone()), said.state, said.by, said.reason)
        }
        None if known_generation > 0 => return Vec::new(),
        None => match newest_signed(house, name) {
            Some(baseline) => {
                let (by, reason) = (baseline.manifest().by.clone(), baseline.manifest().reason.clone());
                ("its newest baseline", Ok(baseline), LockState::Locked, by, reason)
            }
            None => return Vec::new(),
        },
    };
    let (generation, digest, seal, totals, unsealed) = match &baseline {
        Ok(b) => {
            let unsealed =
                b.iter().flatten().filter(|r| r.skip.is_some_and(|s| b.manifest().lists(s))).count() as u64;
            (b.manifest().generation, b.digest(), b.manifest().seal_done, b.manifest().totals, unsealed)
        }
        // It is locked all the same; that its baseline is damaged is told by whoever needs it.
        Err(said) => (
            said.generation,
            said.baseline,
            guard_model::Seal::None,
            guard_model::baseline::Totals::default(),
            0,
        ),
    };
    let how = format!("the ledger does not know its state: taken from {from}, baseline {generation}");
    let mut events = vec![
        Event::Recovered { operation: "ledger".to_owned(), how },
        Event::Locked {
            generation,
            baseline: digest,
            by: by.clone(),
            reason: reason.clone(),
            seal,
            totals,
            unsealed,
        },
    ];
    if state == LockState::Unlocked {
        // When its window was to end is not known any more: now.
        events.push(Event::WindowOpened {
            by: by.clone(),
            maintainer: by,
            reason,
            until: now(),
            until_boot_us: guard_sys::clock::boottime_micros(),
            boot_id: house.boot_id.clone(),
        });
    }
    events
}

fn newest_signed(house: &House, name: &str) -> Option<Baseline> {
    let generations = guard_store::baseline::generations(&house.state_dir, name).ok()?;
    generations.into_iter().rev().find_map(|generation| {
        let dir = house.state_dir.generation(name, generation).ok()?;
        Baseline::open_signed(&dir, &house.public).ok()
    })
}
