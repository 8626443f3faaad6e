//! The first look of a lock: what is there, and what of it can be sealed.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use guard_model::baseline::Role;
use guard_model::seal::{Marks, Skip};
use guard_model::{Class, Entry, Kind, Observed, RelPath, Seal, Stamp, Timestamp};
use guard_store::PlanStep;
use guard_tree::{Glancer, Root, Visitor};

use super::lock::OutsideLinks;
use super::now;
use super::originals::{Original, Originals};

/// Every protected entry before sealing, and which of them cannot be sealed.
#[derive(Default)]
pub(super) struct Survey {
    pub(super) originals: Originals,
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

    /// Looks again at each file that is to be sealed. Whoever owns the tree may have linked a
    /// file from outside into it: a name that is moved while the tree is walked is met twice, and one that
    /// is removed between being found and being looked at is not counted, and either hides the name outside.
    /// What cannot be told is left unsealed. The walk `began` then.
    pub(super) fn confirm_links(&mut self, root: &Root, began: Timestamp) {
        let is_to_be_sealed = |path: &RelPath, original: &Original| {
            original.kind == Kind::File && is_sealable(original.role) && self.skip(path, original).is_none()
        };
        let mut names: Vec<Name> = self
            .originals
            .iter()
            .enumerate()
            .filter(|(_, (path, original))| is_to_be_sealed(path, original))
            .map(|(at, (_, original))| (original.identity, at))
            .collect();
        names.sort_unstable();
        let mut walked = Some(began);
        for _ in 0..LINK_LOOKS {
            names = unsteady(root, &self.originals, &names, walked.take());
            if names.is_empty() {
                return;
            }
            std::thread::sleep(SETTLES_IN);
        }
        self.names_inside.extend(names.into_iter().map(|(identity, _)| (identity, 0)));
    }

    /// The files with names outside the root: device and inode, and their names inside, sorted.
    pub(super) fn linked_outside(&self) -> BTreeMap<(u64, u64), Vec<RelPath>> {
        let mut linked: BTreeMap<(u64, u64), Vec<RelPath>> = BTreeMap::new();
        for (path, original) in self.originals.iter() {
            if is_sealable(original.role) && self.skip(path, original) == Some(Skip::HardLinkOutside) {
                linked.entry(original.identity).or_default().push(path.clone());
            }
        }
        linked.values_mut().for_each(|paths| paths.sort());
        linked
    }

    /// What is to be done to seal, sorted by path.
    pub(super) fn steps(&self, seal: Seal) -> impl Iterator<Item = PlanStep> {
        self.originals
            .iter()
            .filter(|(path, o)| is_sealable(o.role) && self.skip(path, o).is_none())
            .map(move |(path, o)| PlanStep::new(path.clone(), o.identity, o.marks, o.marks.under(seal)))
            .filter(|step| step.before() != step.after())
    }
}

/// An inode, and where in the originals one of its names is.
type Name = ((u64, u64), usize);

/// How often what keeps changing is looked at.
const LINK_LOOKS: u32 = 3;
/// Within some milliseconds the kernel may stamp two changes alike: twice the slowest tick.
const SETTLES_IN: Duration = Duration::from_millis(20);

/// Those of `names` (every name found, sorted by inode) of whose inodes two looks cannot say that these are all their
/// names. Making, moving and removing a name stamps the inode's ctime: where that is one and the same at
/// every name in both looks, and had settled before the first, nothing happened in between.
/// Of a file with a single name, the look of the walk, where it is told when that began, is the first.
fn unsteady(root: &Root, originals: &Originals, names: &[Name], walked: Option<Timestamp>) -> Vec<Name> {
    let settled_at =
        |at: Timestamp| at.0.saturating_sub(i64::try_from(SETTLES_IN.as_micros()).unwrap_or(i64::MAX));
    let settled_by = settled_at(now());
    let of_the_walk = |names: &[Name]| match (names, walked) {
        ([(_, at)], Some(began)) => {
            let met = originals.at(*at)?;
            (met.nlink == 1 && micros(met.ctime) <= settled_at(began)).then_some(met.ctime)
        }
        _ => None,
    };
    let look = |glancer: &mut Glancer<'_>, names: &[Name]| -> Option<Stamp> {
        let mut stamp = None;
        for (identity, at) in names {
            let links = glancer.links(originals.path_at(*at)?)?;
            let is_it = links.identity == *identity && usize::try_from(links.count) == Ok(names.len());
            if !is_it || micros(links.ctime) > settled_by || *stamp.get_or_insert(links.ctime) != links.ctime
            {
                return None;
            }
        }
        stamp
    };
    // Directory by directory, so that each is opened once.
    let mut files: Vec<&[Name]> = names.chunk_by(|a, b| a.0 == b.0).collect();
    files.sort_unstable_by_key(|names| names.first().map(|name| name.1));
    let of_some = |files: &[&[Name]]| -> Vec<Name> {
        let mut glancer = Glancer::new(root);
        let first = files.iter().map(|names| of_the_walk(names).or_else(|| look(&mut glancer, names)));
        let first: Vec<Option<Stamp>> = first.collect();
        let both = files.iter().zip(first);
        both.filter(|(names, first)| first.is_none() || look(&mut glancer, names) != *first)
            .flat_map(|(names, _)| names.iter().copied())
            .collect()
    };
    let mut found = Vec::new();
    std::thread::scope(|scope| {
        let (here, there) = files.split_at(files.len() / 2);
        match std::thread::Builder::new().name("links".to_owned()).spawn_scoped(scope, || of_some(there)) {
            Ok(other) => {
                found = of_some(here);
                // Of what nobody looked at to the end nothing can be said.
                found.extend(other.join().unwrap_or_else(|_| there.concat()));
            }
            Err(_) => found = of_some(&files),
        }
    });
    found.sort_unstable();
    found
}

fn micros(stamp: Stamp) -> i64 {
    stamp.sec.saturating_mul(1_000_000).saturating_add(i64::from(stamp.nsec / 1000))
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
        let mut survey = self.found.into_inner().unwrap_or_else(PoisonError::into_inner);
        survey.originals.sort();
        survey
    }
}

impl Visitor for Surveyor {
    type Dir = ();

    fn enter(&self, _dir: &RelPath) {}

    fn expected<'v>(&'v self, _dir: &'v (), _path: &RelPath) -> Option<Cow<'v, Entry>> {
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
        let original = Original { kind: e.kind, identity, marks, nlink: e.nlink, role, ctime: e.ctime };
        survey.originals.push(path, original);
    }

    fn passed_over(&self, _dir: &mut (), path: &RelPath, class: Class) {
        if self.seal != Seal::None && matches!(class, Class::Ignored | Class::Writable) {
            let mut survey = self.found.lock().unwrap_or_else(PoisonError::into_inner);
            survey.holds_writable.extend(path.parent());
        }
    }

    fn leave(&self, _dir: (), _path: &RelPath) {}
}

#[cfg(test)]
mod tests {
    use std::fs;

    use guard_tree::Content;

    use super::*;

    /// What a walk just now found at these paths: the same file, with as many names as it says it has.
    fn met_at(root: &Root, file: &str, paths: [&str; 2]) -> Survey {
        met(root, file, &paths, |_| {}, now())
    }

    /// The same of a walk that began `walked` and told of each what `told` makes of it.
    fn met(root: &Root, file: &str, paths: &[&str], told: fn(&mut Original), walked: Timestamp) -> Survey {
        let path = |text: &str| RelPath::from_text(text).unwrap();
        let Observed::Present(e) = root.observe(&path(file), Content::Skip) else {
            panic!("{file} is not there")
        };
        let mut survey = Survey::default();
        let identity = (e.dev, e.ino);
        for text in paths {
            let mut original = Original {
                kind: e.kind,
                identity,
                marks: Marks::of(&e),
                nlink: e.nlink,
                role: Role::Protected,
                ctime: e.ctime,
            };
            told(&mut original);
            survey.originals.push(path(text), original);
        }
        survey.originals.sort();
        survey.names_inside.insert(identity, u32::try_from(paths.len()).unwrap());
        survey.confirm_links(root, walked);
        survey
    }

    fn skipped(survey: &Survey) -> Vec<Option<Skip>> {
        survey.originals.iter().map(|(path, original)| survey.skip(path, original)).collect()
    }

    #[test]
    fn a_name_that_moved_during_the_walk_hides_none_outside() {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("app");
        fs::create_dir_all(app.join("a")).unwrap();
        fs::write(dir.path().join("theirs"), "x").unwrap();
        fs::hard_link(dir.path().join("theirs"), app.join("a/l")).unwrap();
        fs::write(app.join("one"), "x").unwrap();
        fs::hard_link(app.join("one"), app.join("two")).unwrap();
        let root = Root::open(&app).unwrap();
        // It was met at `z/l`, then moved to `a/l` and met again.
        assert_eq!(skipped(&met_at(&root, "a/l", ["a/l", "z/l"])), [Some(Skip::HardLinkOutside); 2]);
        assert_eq!(skipped(&met_at(&root, "one", ["one", "two"])), [None; 2]);
    }

    #[test]
    fn a_name_that_went_while_it_was_looked_at_hides_none_outside() {
        let dir = tempfile::tempdir().unwrap();
        let app = dir.path().join("app");
        fs::create_dir(&app).unwrap();
        fs::write(app.join("alone"), "x").unwrap();
        let root = Root::open(&app).unwrap();
        let much_later = Timestamp(now().0 + 60_000_000);
        let told =
            |file: &str, told: fn(&mut Original), walked| skipped(&met(&root, file, &[file], told, walked));
        assert_eq!(told("alone", |_| {}, much_later), [None], "one look agrees with the walk");
        assert_eq!(
            told("alone", |_| {}, Timestamp(0)),
            [None],
            "it changed when the walk began, and then no more"
        );
        assert_eq!(
            told("alone", |o| o.ctime.nsec ^= 1, much_later),
            [None],
            "it changed meanwhile, and then no more"
        );

        fs::write(dir.path().join("theirs"), "x").unwrap();
        fs::hard_link(dir.path().join("theirs"), app.join("linked")).unwrap();
        for walked in [much_later, Timestamp(0)] {
            let found = told("linked", |o| o.nlink = 1, walked);
            assert_eq!(found, [Some(Skip::HardLinkOutside)]);
        }
    }
}
