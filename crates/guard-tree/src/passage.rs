//! Finding passages: directories that are not protected themselves but have
//! something protected below them.
//!
//! Whether a directory is one is known only from what lies below it, but a walk
//! reports it before. So the unprotected part of a tree is listed (nothing in it is
//! opened but directories) before it is walked.

use std::collections::HashSet;
use std::os::fd::AsFd;

use guard_model::{Class, Policy, RelPath};
use guard_sys::dir::Listing;
use guard_sys::open::How;
use guard_sys::stat::{self, FileType};

use crate::literals::Literals;
use crate::observe::{Control, is_absence, why};
use crate::{Root, TreeError};

/// What a search for passages needs to know.
pub(crate) struct Search<'a> {
    pub(crate) root: &'a Root,
    pub(crate) policy: &'a Policy,
    pub(crate) literals: &'a Literals,
    pub(crate) control: Control<'a>,
}

impl Search<'_> {
    /// The passages at and below `top`, an unprotected or ignored directory. What could not
    /// be listed is added to `skipped`: something protected may be in there.
    pub(crate) fn below(
        &self,
        top: &RelPath,
        class: Class,
        listing: &mut Listing,
        skipped: &mut Vec<(RelPath, String)>,
    ) -> Result<HashSet<RelPath>, TreeError> {
        let mut passages = HashSet::new();
        let mut left = vec![(top.clone(), class)];
        while let Some((dir, class)) = left.pop() {
            if self.control.is_cancelled() {
                return Err(TreeError::Cancelled);
            }
            if !self.policy.descends(&dir, class) {
                continue;
            }
            let fd = match self.root.open_beneath(&dir, How::List) {
                Ok(fd) => fd,
                Err(e) => {
                    if !is_absence(&e) {
                        skipped.push((dir, why("open", &e)));
                    }
                    continue;
                }
            };
            if let Err(e) = listing.read(fd.as_fd()) {
                if !is_absence(&e) {
                    skipped.push((dir, why("list", &e)));
                }
                continue;
            }
            let mut leads_somewhere = false;
            for (name, kind) in listing.iter() {
                let Ok(path) = dir.join(name) else { continue };
                let is_dir = match kind {
                    FileType::Unknown => {
                        stat::child(fd.as_fd(), name).is_ok_and(|s| s.kind == FileType::Directory)
                    }
                    kind => kind == FileType::Directory,
                };
                self.literals.note(name, is_dir);
                match self.policy.child(class, &path, is_dir) {
                    Class::Protected { .. } => leads_somewhere = true,
                    class @ (Class::Unprotected | Class::Ignored) if is_dir => left.push((path, class)),
                    _ => {}
                }
            }
            if leads_somewhere {
                mark(&mut passages, &dir, top);
            }
        }
        Ok(passages)
    }
}

/// `dir` and what is between it and `top` are passages.
fn mark(passages: &mut HashSet<RelPath>, dir: &RelPath, top: &RelPath) {
    let mut at = Some(dir.clone());
    while let Some(path) = at.filter(|p| p.is_within(top)) {
        let above = path.parent();
        if !passages.insert(path) {
            return;
        }
        at = above;
    }
}
