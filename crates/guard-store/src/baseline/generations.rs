//! Which generations of a baseline there are, and which may go.

use std::path::Path;

use crate::durable;
use crate::error::StoreError;
use crate::state_dir::{StateDir, StatePaths};

/// Generations kept beside the current one, by default.
pub const KEEP: usize = 10;

/// The generations of an environment that are there, oldest first.
///
/// # Errors
/// [`StoreError::BadName`], [`StoreError::Io`].
pub fn generations(state: &StatePaths, environment: &str) -> Result<Vec<u64>, StoreError> {
    let dir = state.baselines_of(environment)?;
    let mut found: Vec<u64> = names(&dir)?
        .iter()
        .filter_map(|name| name.parse().ok().filter(|n: &u64| n.to_string() == *name))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// The number that the next generation gets. The ledger may know a higher one:
/// take the larger.
///
/// # Errors
/// [`StoreError::BadName`], [`StoreError::Io`].
pub fn next_generation(state: &StatePaths, environment: &str) -> Result<u64, StoreError> {
    Ok(generations(state, environment)?.last().map_or(1, |n| n.saturating_add(1)))
}

/// Removes generations but the current one and the last `keep` others; answers which.
///
/// # Errors
/// [`StoreError::BadName`], [`StoreError::Io`].
pub fn prune(state: &StateDir, environment: &str, keep: usize, current: u64) -> Result<Vec<u64>, StoreError> {
    let dir = state.baselines_of(environment)?;
    remove_leftovers(&dir)?;
    let mut others = generations(state, environment)?;
    others.retain(|&n| n != current);
    others.truncate(others.len().saturating_sub(keep));
    for generation in &others {
        remove(&dir, *generation)?;
    }
    if !others.is_empty() {
        durable::sync_dir(&dir)?;
    }
    Ok(others)
}

/// Removes a generation that was never committed, or what there is of it.
///
/// # Errors
/// [`StoreError::BadName`], [`StoreError::Io`].
pub fn discard(state: &StateDir, environment: &str, generation: u64) -> Result<(), StoreError> {
    let dir = state.baselines_of(environment)?;
    remove_leftovers(&dir)?;
    if dir.join(generation.to_string()).symlink_metadata().is_ok() {
        remove(&dir, generation)?;
        durable::sync_dir(&dir)?;
    }
    Ok(())
}

/// Removes what a crash left of generations being made or removed.
///
/// # Errors
/// [`StoreError::BadName`], [`StoreError::Io`].
pub fn remove_unfinished(state: &StateDir, environment: &str) -> Result<(), StoreError> {
    remove_leftovers(&state.baselines_of(environment)?)
}

fn remove(dir: &Path, generation: u64) -> Result<(), StoreError> {
    // First out of the way as a whole: half a generation would look like damage.
    let path = dir.join(generation.to_string());
    let gone = dir.join(format!("{generation}.old"));
    std::fs::rename(&path, &gone).map_err(StoreError::io("rename", &path))?;
    std::fs::remove_dir_all(&gone).map_err(StoreError::io("remove", &gone))
}

/// Removes what a crash left of a generation being made or removed.
pub(super) fn remove_leftovers(dir: &Path) -> Result<(), StoreError> {
    for name in names(dir)? {
        let number = name.strip_suffix(".tmp").or_else(|| name.strip_suffix(".old"));
        if number.is_some_and(|n| n.parse::<u64>().is_ok()) {
            let path = dir.join(&name);
            std::fs::remove_dir_all(&path).map_err(StoreError::io("remove", &path))?;
        }
    }
    Ok(())
}

fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let failed = || StoreError::io("list", dir);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(failed()(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        found.extend(entry.map_err(failed())?.file_name().into_string().ok());
    }
    Ok(found)
}
