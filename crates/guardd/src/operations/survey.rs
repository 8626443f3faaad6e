//! The first look of a lock: what is there, and what of it can be sealed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use guard_model::baseline::Role;
use guard_model::seal::{Marks, Skip, sealed};
use guard_model::{Class, Entry, Kind, Observed, RelPath, Seal};
use guard_store::PlanStep;
use guard_tree::Visitor;

use super::lock::OutsideLinks;

/// One entry as it was before sealing.
pub(super) struct Original {
    pub(super) kind: Kind,
    pub(super) identity: (u64, u64),
    pub(super) marks: Marks,
    pub(super) nlink: u32,
    pub(super) role: Role,
    /// The xattrs, where sealing changes them (an access ACL).
    pub(super) xattrs: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// Every protected entry before sealing, and which of them cannot be sealed.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) originals: HashMap<RelPath, Original>,
    pub(super) holds_writable: HashSet<RelPath>,
    pub(super) names_inside: HashMap<(u64, u64), u32>,
    pub(super) entries: u64,
}

impl Survey {
    pub(super) fn skip(&self, path: &RelPath, original: &Original) -> Option<Skip> {
        match original.kind {
            Kind::Symlink => Some(Skip::Symlink),
            Kind::File => {
                let inside = self.names_inside.get(&original.identity).copied().unwrap_or(1);
                (original.nlink > inside).then_some(Skip::HardLinkOutside)
            }
            Kind::Directory => self.holds_writable.contains(path).then_some(Skip::HoldsWritable),
            _ => Some(Skip::Special),
        }
    }

    /// The files with names outside the root: device and inode, and their names inside, sorted.
    pub(super) fn linked_outside(&self) -> BTreeMap<(u64, u64), Vec<RelPath>> {
        let mut linked: BTreeMap<(u64, u64), Vec<RelPath>> = BTreeMap::new();
        for (path, original) in &self.originals {
            if is_sealable(original.role) && self.skip(path, original) == Some(Skip::HardLinkOutside) {
                linked.entry(original.identity).or_default().push(path.clone());
            }
        }
        linked.values_mut().for_each(|paths| paths.sort());
        linked
    }

    pub(super) fn steps(&self, seal: Seal) -> Vec<PlanStep> {
        let mut steps: Vec<PlanStep> = self
            .originals
            .iter()
            .filter(|(path, o)| is_sealable(o.role) && self.skip(path, o).is_none())
            .map(|(path, o)| PlanStep::new(path.clone(), o.identity, o.marks, o.marks.under(seal)))
            .filter(|step| step.before() != step.after())
            .collect();
        steps.sort_by(|a, b| a.path.cmp(&b.path));
        steps
    }
}

pub(super) fn is_sealable(role: Role) -> bool {
    matches!(role, Role::Protected | Role::Sensitive)
}

/// First pass: what is there, without reading content.
pub(super) struct Surveyor {
    pub(super) seal: Seal,
    pub(super) outside_links: OutsideLinks,
    pub(super) found: Mutex<Survey>,
}

impl Surveyor {
    pub(super) fn into_survey(self) -> Survey {
        self.found.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visitor for Surveyor {
    type Dir = ();

    fn enter(&self, _dir: &RelPath) {}

    fn expected(&self, _dir: &(), _path: &RelPath) -> Option<Entry> {
        None
    }

    fn found(&self, _dir: &mut (), path: RelPath, _class: Class, role: Role, observed: Observed) {
        let mut survey = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        survey.entries += 1;
        let (Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. }) = observed else { return };
        if self.seal == Seal::None && self.outside_links == OutsideLinks::Leave {
            return;
        }
        if role == Role::WritableTop {
            survey.holds_writable.extend(path.parent());
        }
        let identity = (e.dev, e.ino);
        if e.nlink > 1 && e.kind != Kind::Directory {
            *survey.names_inside.entry(identity).or_default() += 1;
        }
        let marks = Marks::of(&e);
        let changes_acl = sealed(&e, Seal::ReadOnly).xattrs != e.xattrs;
        let xattrs = changes_acl.then_some(e.xattrs);
        let original = Original { kind: e.kind, identity, marks, nlink: e.nlink, role, xattrs };
        survey.originals.insert(path, original);
    }

    fn passed_over(&self, _dir: &mut (), path: &RelPath, class: Class) {
        if self.seal != Seal::None && matches!(class, Class::Ignored | Class::Writable) {
            let mut survey = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            survey.holds_writable.extend(path.parent());
        }
    }

    fn leave(&self, _dir: (), _path: &RelPath) {}
}
