//! The last accepted configuration, kept for a start with a bad one.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use guard_config::{Config, SourceFile, parse};
use serde::{Deserialize, Serialize};

use super::{DaemonError, Start};
use crate::ward::House;

const FILE: &str = "accepted-configuration.json";
/// Bytes; a configuration has many files of at most a megabyte each.
const LONGEST: u64 = 64 << 20;

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
    let path = place(house);
    let text = serde_json::to_vec(&kept)
        .map_err(|e| DaemonError::Io { operation: "keep the configuration", source: e.into() })?;
    guard_store::write_private(&path, &text).map_err(DaemonError::Store)
}

/// Where the configuration that was accepted last is kept.
pub(super) fn place(house: &House) -> PathBuf {
    house.state_dir.base().join(FILE)
}

/// The configuration that was accepted last, where that at `refused` is no good;
/// `None` where there is none or it is no good either.
///
/// It lies in the state directory that the refused one names, as far as it can
/// be read at all; else where systemd says; else at the default place.
pub(crate) fn last_accepted(refused: &Path) -> Option<(Config, Vec<SourceFile>)> {
    let by_systemd = std::env::var_os("STATE_DIRECTORY").map(PathBuf::from);
    let places = [state_dir_in(refused), by_systemd, Some(guard_config::Daemon::default().state_dir)];
    places.into_iter().flatten().find_map(|dir| last(&dir))
}

/// The state directory that a configuration names, whatever else is wrong with it.
fn state_dir_in(path: &Path) -> Option<PathBuf> {
    let mut text = String::new();
    File::open(path).ok()?.take(LONGEST).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix("state_dir")?.trim_start().strip_prefix('=')?.trim_start();
        let quote = value.chars().next().filter(|q| ['"', '\''].contains(q))?;
        let (named, _) = value.strip_prefix(quote)?.split_once(quote)?;
        Some(PathBuf::from(named)).filter(|dir| dir.is_absolute())
    })
}

/// What a state directory holds, if nobody but root or we can have put it there
/// and it is about that very directory.
fn last(state_dir: &Path) -> Option<(Config, Vec<SourceFile>)> {
    let mut text = Vec::new();
    let file = File::open(state_dir.join(FILE)).ok()?;
    let meta = file.metadata().ok()?;
    let ours = [0, guard_sys::peer::own_uid()].contains(&meta.uid()) && meta.mode() & 0o022 == 0;
    if !meta.is_file() || !ours {
        return None;
    }
    file.take(LONGEST).read_to_end(&mut text).ok()?;
    let kept: Kept = serde_json::from_slice(&text).ok()?;
    let files: Vec<SourceFile> =
        kept.files.into_iter().map(|(path, text)| SourceFile::new(path, text)).collect();
    let config = parse(&files).ok()?;
    let same = config.daemon.state_dir.canonicalize().ok() == state_dir.canonicalize().ok();
    same.then_some((config, files))
}
