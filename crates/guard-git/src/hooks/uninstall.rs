//! Takes the hooks away and gives back what was there, byte for byte.

use std::path::{Path, PathBuf};

use super::install::same;
use super::layout::Layout;
use super::note::{Note, digest_of, previous_name, replace};
use crate::error::GitError;

/// What was taken away and given back.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Removed {
    /// Hooks of ours that are gone.
    pub removed: Vec<String>,
    /// Hooks that are what they were before.
    pub given_back: Vec<String>,
    /// What is not as we left it, and was left alone.
    pub left: Vec<PathBuf>,
}

/// Takes the hooks away. What somebody changed since is left alone and named.
///
/// # Errors
/// [`GitError::NotInstalled`], [`GitError::Io`], [`GitError::Note`].
pub fn uninstall(layout: &Layout) -> Result<Removed, GitError> {
    let Some(note) = Note::read(layout)? else {
        return Err(GitError::NotInstalled(layout.common.clone()));
    };
    let mut done = Removed::default();
    if let Some(change) = &note.config {
        give_config_back(layout, &note, change.value_before.as_deref(), &change.sha256_after)?;
    }
    for kept in &note.hooks {
        let path = note.directory.join(&kept.name);
        let waiting = note.directory.join(previous_name(&kept.name));
        let waits = note.config.is_none() && waiting.symlink_metadata().is_ok();
        let now = digest_of(&path)?;
        match now {
            Some(found) if found != kept.sha256 && !kept.sha256.is_empty() => {
                done.left.push(path);
                if waits {
                    done.left.push(waiting);
                }
                continue;
            }
            Some(_) if !kept.sha256.is_empty() => {
                if !waits {
                    remove(&path)?;
                }
                done.removed.push(kept.name.clone());
            }
            _ => {}
        }
        if waits {
            std::fs::rename(&waiting, &path).map_err(GitError::io("give back", &path))?;
            done.given_back.push(kept.name.clone());
        } else if kept.previous {
            done.given_back.push(kept.name.clone());
        }
    }
    if done.left.is_empty() {
        for file in [Note::path(layout), Note::config_before(layout)] {
            remove(&file)?;
        }
        if note.made_directory {
            // Not empty where somebody else put something there.
            std::fs::remove_dir(&note.directory).ok();
        }
        std::fs::remove_dir(layout.own()).ok();
    }
    Ok(done)
}

/// The very bytes where nobody else changed the file since; the value alone where somebody did.
fn give_config_back(
    layout: &Layout,
    note: &Note,
    value: Option<&str>,
    sha256_after: &str,
) -> Result<(), GitError> {
    let config = layout.common.join("config");
    let kept = Note::config_before(layout);
    if digest_of(&config)?.as_deref() == Some(sha256_after) {
        use std::os::unix::fs::PermissionsExt;
        let bytes = std::fs::read(&kept).map_err(GitError::io("read", &kept))?;
        let mode = std::fs::metadata(&config).map_err(GitError::io("examine", &config))?;
        return replace(&config, &bytes, mode.permissions().mode() & 0o7777);
    }
    if !same(&layout.hooks, &note.directory) {
        // Somebody pointed it elsewhere: that is his now.
        return Ok(());
    }
    let file = config.to_string_lossy();
    match value {
        Some(value) => {
            layout.git.output(&["config", "--file", &file, "--replace-all", "core.hooksPath", value])?
        }
        None => layout.git.output(&["config", "--file", &file, "--unset-all", "core.hooksPath"])?,
    };
    Ok(())
}

fn remove(path: &Path) -> Result<(), GitError> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(GitError::io("remove", path)(e)),
        _ => Ok(()),
    }
}
