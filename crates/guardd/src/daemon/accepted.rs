//! The last accepted configuration, kept for a start with a bad one.

use std::path::{Path, PathBuf};

use guard_config::{Config, SourceFile, parse};
use serde::{Deserialize, Serialize};

use super::{DaemonError, Start};
use crate::ward::House;

const FILE: &str = "accepted-configuration.json";

#[derive(Serialize, Deserialize)]
struct Kept {
    files: Vec<(PathBuf, String)>,
}

/// Keeps the configuration that was accepted.
pub(super) fn keep(house: &House, start: &Start) -> Result<(), DaemonError> {
    if start.refused.is_some() || start.files.is_empty() {
        return Ok(());
    }
    keep_files(house, &start.files)
}

/// Keeps the files of a configuration that was accepted by a reload.
pub(super) fn keep_files(house: &House, files: &[SourceFile]) -> Result<(), DaemonError> {
    let kept = Kept { files: files.iter().map(|f| (f.path.clone(), f.text.clone())).collect() };
    let path = house.state_dir.base().join(FILE);
    let text = serde_json::to_vec(&kept)
        .map_err(|e| DaemonError::Io { operation: "keep the configuration", source: e.into() })?;
    guard_store::write_private(&path, &text).map_err(DaemonError::Store)
}

/// The configuration that was accepted last by a daemon with the default state
/// directory; `None` where there is none or it is no good either. Which state
/// directory a refused configuration means cannot be known.
pub(crate) fn last_accepted() -> Option<(Config, Vec<SourceFile>)> {
    last(&guard_config::Daemon::default().state_dir)
}

fn last(state_dir: &Path) -> Option<(Config, Vec<SourceFile>)> {
    let text = std::fs::read(state_dir.join(FILE)).ok()?;
    let kept: Kept = serde_json::from_slice(&text).ok()?;
    let files: Vec<SourceFile> =
        kept.files.into_iter().map(|(path, text)| SourceFile::new(path, text)).collect();
    parse(&files).ok().map(|config| (config, files))
}
