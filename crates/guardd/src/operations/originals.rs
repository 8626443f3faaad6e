//! Every protected entry as it was before sealing: sorted, and no larger than it must be, since there is one for each
//! entry of a tree as long as a lock takes.

use guard_model::baseline::Role;
use guard_model::seal::Marks;
use guard_model::{Kind, RelPath, Stamp};

/// One entry as it was before sealing.
pub(super) struct Original {
    pub(super) kind: Kind,
    pub(super) identity: (u64, u64),
    pub(super) marks: Marks,
    pub(super) nlink: u32,
    pub(super) role: Role,
    /// Making, moving and removing one of its names changes it.
    pub(super) ctime: Stamp,
}

/// All of them, by path.
#[derive(Default)]
pub(super) struct Originals(Vec<(RelPath, Original)>);

impl Originals {
    /// Takes one more; [`Originals::sort`] before anything is looked up.
    pub(super) fn push(&mut self, path: RelPath, original: Original) {
        self.0.push((path, original));
    }

    pub(super) fn sort(&mut self) {
        self.0.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        self.0.shrink_to_fit();
    }

    pub(super) fn get(&self, path: &RelPath) -> Option<&Original> {
        let at = self.0.binary_search_by(|(p, _)| p.cmp(path)).ok()?;
        self.0.get(at).map(|(_, original)| original)
    }

    /// In the order of their paths.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&RelPath, &Original)> {
        self.0.iter().map(|(path, original)| (path, original))
    }

    /// The one that [`Originals::iter`] gives at this place.
    pub(super) fn at(&self, at: usize) -> Option<&Original> {
        self.0.get(at).map(|(_, original)| original)
    }

    /// Its path.
    pub(super) fn path_at(&self, at: usize) -> Option<&RelPath> {
        self.0.get(at).map(|(path, _)| path)
    }
}
