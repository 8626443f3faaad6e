//! The directories above a root: whoever may rename one of them replaces the root.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use guard_model::Change;
use guard_model::baseline::Ancestor;
use guard_model::path::{escape, unescape};
use guard_sys::stat;

/// The directories from `/` down to the root's parent, as they are now.
/// One that cannot be read is left out; its absence is then a difference.
pub(crate) fn of(root: &Path) -> Vec<Ancestor> {
    let mut above: Vec<Ancestor> = root.ancestors().skip(1).filter_map(read).collect();
    above.reverse();
    above
}

fn read(path: &Path) -> Option<Ancestor> {
    let meta = path.symlink_metadata().ok().filter(std::fs::Metadata::is_dir)?;
    Some(Ancestor {
        path: escape(path.as_os_str().as_bytes()),
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        ino: meta.ino(),
    })
}

fn is_mount_point(escaped: &str) -> bool {
    let Some(path) = unescape(escaped) else { return false };
    stat::absolute(Path::new(OsStr::from_bytes(&path))).is_ok_and(|now| now.is_mount_point)
}

/// How the directories above the root differ from those recorded at lock.
pub(crate) fn differences(recorded: &[Ancestor], now: &[Ancestor]) -> Vec<(String, Vec<Change>)> {
    recorded
        .iter()
        .filter_map(|old| {
            let mut change = Vec::new();
            match now.iter().find(|new| new.path == old.path) {
                None => change.push(Change::Deleted),
                Some(new) => {
                    if new.ino != old.ino {
                        change.push(Change::Inode);
                        if is_mount_point(&old.path) {
                            change.push(Change::Mount);
                        }
                    }
                    if new.mode != old.mode {
                        change.push(Change::Mode);
                    }
                    if (new.uid, new.gid) != (old.uid, old.gid) {
                        change.push(Change::Owner);
                    }
                }
            }
            if change.is_empty() {
                return None;
            }
            change.push(Change::Root);
            Some((old.path.clone(), change))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_widened_or_replaced_ancestor_is_a_difference() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("srv/app");
        std::fs::create_dir_all(&root).unwrap();
        let before = of(&root);
        assert!(before.first().is_some_and(|a| a.path == "/"));
        assert!(before.last().is_some_and(|a| a.path.ends_with("/srv")));
        assert!(differences(&before, &of(&root)).is_empty());

        std::fs::rename(dir.path().join("srv"), dir.path().join("old")).unwrap();
        std::fs::create_dir_all(&root).unwrap();
        let found = differences(&before, &of(&root));
        assert_eq!(found.len(), 1);
        assert!(found[0].1.contains(&Change::Inode) && found[0].1.contains(&Change::Root));
    }
}
