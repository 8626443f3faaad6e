//! Who goes on with what was replaced: a process that has it open for writing, or a container into which the
//! file was mounted by itself. Both keep the old inode and see nothing of what was put back.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;

use guard_model::RelPath;
use guard_model::path::escape;
use guard_sys::mounts;
use guard_sys::writers::Writer;
use guard_tree::Root;

use super::{How, RestoreDone, Wish};

/// Processes that one remark names.
const NAMED: usize = 3;

/// Files that are mounted by themselves in other mount namespaces, with the processes that live there.
pub(super) fn mounted_elsewhere(root: &Root, wishes: &[Wish]) -> BTreeMap<RelPath, Vec<String>> {
    let replaced: Vec<&Wish> =
        wishes.iter().filter(|w| w.found.is_some() && matches!(w.how, How::Make | How::Link)).collect();
    let mut found: BTreeMap<RelPath, Vec<String>> = BTreeMap::new();
    if replaced.is_empty() {
        return found;
    }
    let Some((device, base)) = on_its_file_system(root) else { return found };
    let by_place: BTreeMap<Vec<u8>, &RelPath> = replaced
        .iter()
        .map(|w| {
            let mut place = base.clone();
            place.push(b'/');
            place.extend_from_slice(w.path.as_bytes());
            (place, &w.path)
        })
        .collect();
    for namespace in mounts::elsewhere() {
        for mount in namespace.mounts.iter().filter(|m| m.device == device) {
            if let Some(path) = by_place.get(&mount.root) {
                let who = format!("{} (pid {})", escape(&namespace.name), namespace.pid);
                found.entry((*path).clone()).or_default().push(who);
            }
        }
    }
    found
}

/// The root's device as the mount table writes it, and its path from the top of its file system, without a slash at
/// the end.
fn on_its_file_system(root: &Root) -> Option<(Vec<u8>, Vec<u8>)> {
    let path = root.path().as_os_str().as_bytes();
    let is_above = |point: &[u8]| {
        path.strip_prefix(point)
            .is_some_and(|rest| point == b"/" || rest.is_empty() || rest.starts_with(b"/"))
    };
    let all = mounts::Table::open().and_then(|mut table| table.read()).ok()?;
    // The last one at the longest place is the one on top.
    let mut best: Option<mounts::Mount> = None;
    for mount in all.into_iter().filter(|m| is_above(&m.point)) {
        if best.as_ref().is_none_or(|b| mount.point.len() >= b.point.len()) {
            best = Some(mount);
        }
    }
    let mount = best?;
    let below = if mount.point == b"/" { path } else { path.strip_prefix(mount.point.as_slice())? };
    let mut base = if mount.root == b"/" { Vec::new() } else { mount.root };
    base.extend_from_slice(below);
    while base.last() == Some(&b'/') {
        base.pop();
    }
    Some((mount.device, base))
}

/// What is to be said of the paths that were put back.
pub(super) fn remarks(
    wishes: &[Wish],
    done: &RestoreDone,
    mounted: BTreeMap<RelPath, Vec<String>>,
) -> Vec<(RelPath, String)> {
    let is_done = |path: &RelPath| done.done.iter().any(|(p, how)| p == path && *how != How::Adjust);
    let replaced: BTreeMap<(u64, u64), &Wish> =
        wishes.iter().filter(|w| is_done(&w.path)).filter_map(|w| Some((w.found?, w))).collect();
    let identities: Vec<(u64, u64)> = replaced.keys().copied().collect();
    let mut open: BTreeMap<&RelPath, Vec<String>> = BTreeMap::new();
    if !identities.is_empty() {
        for writer in guard_sys::writers::who(&identities) {
            let wish =
                replaced.get(&writer.identity).filter(|wish| is_the_old_one(wish.found_names, &writer));
            if let Some(wish) = wish {
                let by = format!("{} (pid {})", escape(&writer.name), writer.pid);
                open.entry(&wish.path).or_default().push(by);
            }
        }
    }
    let mut said: Vec<(RelPath, String)> = open
        .into_iter()
        .map(|(path, who)| {
            (path.clone(), format!("still open for writing, in the old inode, by {}", few(&who)))
        })
        .collect();
    said.extend(mounted.into_iter().filter(|(path, _)| is_done(path)).map(|(path, who)| {
        let why = format!(
            "mounted by itself where {} runs, which goes on with the old inode: recreate that container",
            few(&who)
        );
        (path, why)
    }));
    said
}

/// Does it hold what stood there with so many names? The number of an inode that nobody holds any more is given to
/// the next file at once, and that one has a name.
fn is_the_old_one(names: u32, holder: &Writer) -> bool {
    holder.names == 0 || names > 1
}

fn few(who: &[String]) -> String {
    let mut text = who.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    if who.len() > NAMED {
        text.push_str(&format!(" and {} more", who.len() - NAMED));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_only_has_the_number_of_the_old_one_is_another() {
        let holder = |names| Writer { identity: (1, 2), names, pid: 3, name: b"vi".to_vec() };
        assert!(is_the_old_one(1, &holder(0)), "what was replaced is held, and has no name left");
        assert!(!is_the_old_one(1, &holder(1)), "its only name is gone: this is another file");
        assert!(is_the_old_one(2, &holder(1)), "it had another name");
    }
}
