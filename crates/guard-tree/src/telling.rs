//! Telling a visitor what one thread of a scan sees.
//!
//! A small file waits until its content was hashed, beside others; its directory is left after that. What waits is told in
//! the order in which it was seen.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Mutex;

use guard_model::baseline::Role;
use guard_model::{Class, Entry, Observed, RelPath};

use crate::batch::{Batch, Ticket};
use crate::tally::Tally;
use crate::walk::lock;
use crate::{OpenWriters, Progress, Visitor};

/// What was seen at a path.
pub(crate) struct Found {
    pub(crate) path: RelPath,
    pub(crate) class: Class,
    pub(crate) role: Role,
    pub(crate) observed: Observed,
    pub(crate) writers: Option<OpenWriters>,
}

/// Directories that may wait to be left, however little is known of them.
const MOST_OPEN: usize = 32;
/// Bytes, about, that may be kept because a file waits: by the scan, and by its visitor for the entries of directories.
const MOST_KEPT: usize = 2 << 20;
/// What counts for an entry beside its extended attributes.
const ENTRY: usize = 512;

/// Of the first of the directories that are open.
enum Later {
    /// A file that is told with the digest of its content.
    File(Box<Found>, Ticket),
    /// That was all of the directory.
    End,
}

/// A directory that somebody else reads files of, too. `None` where it is the one that this thread entered last.
pub(crate) type Shared<'d, D> = Option<&'d Mutex<D>>;

pub(crate) struct Teller<'s, V: Visitor> {
    visitor: &'s V,
    progress: Option<&'s Progress>,
    pub(crate) tally: Tally,
    /// Those that were entered and not left yet.
    open: VecDeque<(RelPath, V::Dir)>,
    waiting: VecDeque<Later>,
    /// Bytes, about, since something waits.
    kept: usize,
}

impl<'s, V: Visitor> Teller<'s, V> {
    pub(crate) fn new(visitor: &'s V, progress: Option<&'s Progress>) -> Self {
        Self {
            visitor,
            progress,
            tally: Tally::default(),
            open: VecDeque::new(),
            waiting: VecDeque::new(),
            kept: 0,
        }
    }

    pub(crate) fn enter(&mut self, path: &RelPath) {
        let dir = self.visitor.enter(path);
        self.open.push_back((path.clone(), dir));
    }

    /// Is it time to tell what waits, for the room that it takes?
    pub(crate) fn keeps_much(&self) -> bool {
        !self.waiting.is_empty() && (self.open.len() > MOST_OPEN || self.kept > MOST_KEPT)
    }

    /// Has everything been told that was seen?
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty() && self.open.is_empty()
    }

    pub(crate) fn expected(&self, shared: Shared<'_, V::Dir>, path: &RelPath) -> Option<Cow<'_, Entry>> {
        match shared {
            Some(dir) => self.visitor.expected(&lock(dir), path).map(|entry| Cow::Owned(entry.into_owned())),
            None => self.open.back().and_then(|(_, dir)| self.visitor.expected(dir, path)),
        }
    }

    pub(crate) fn passed_over(&mut self, shared: Shared<'_, V::Dir>, path: &RelPath, class: Class) {
        let visitor = self.visitor;
        self.within(shared, |dir| visitor.passed_over(dir, path, class));
    }

    /// Tells it now.
    pub(crate) fn found(&mut self, shared: Shared<'_, V::Dir>, found: Found) {
        self.kept += ENTRY;
        self.tally.count(found.role, &found.observed, self.progress);
        let visitor = self.visitor;
        self.within(shared, |dir| tell(visitor, dir, found));
    }

    /// Tells it, a regular file in the directory entered last, with the digest that the ticket stands for.
    pub(crate) fn found_later(&mut self, found: Found, ticket: Ticket) {
        if self.waiting.is_empty() {
            self.kept = 0;
        }
        self.kept += ENTRY + found.extended();
        self.waiting.push_back(Later::File(Box::new(found), ticket));
    }

    /// That was all of the directory entered last.
    pub(crate) fn leave(&mut self) {
        if !self.waiting.is_empty() {
            self.waiting.push_back(Later::End);
        } else if let Some((path, dir)) = self.open.pop_back() {
            self.visitor.leave(dir, &path);
        }
    }

    /// Tells what need not wait any more.
    pub(crate) fn settle(&mut self, batch: &mut Batch) {
        while let Some(waiting) = self.waiting.pop_front() {
            match waiting {
                Later::File(mut found, ticket) => {
                    let Some(digest) = batch.take(ticket) else {
                        return self.waiting.push_front(Later::File(found, ticket));
                    };
                    if let Observed::Present(entry) = &mut found.observed {
                        entry.sha256 = Some(digest);
                    }
                    self.tally.count(found.role, &found.observed, self.progress);
                    if let Some((_, dir)) = self.open.front_mut() {
                        tell(self.visitor, dir, *found);
                    }
                }
                Later::End => {
                    if let Some((path, dir)) = self.open.pop_front() {
                        self.visitor.leave(dir, &path);
                    }
                }
            }
        }
    }

    /// Hands the directory entered last to those who read its big files.
    pub(crate) fn hand_over(&mut self) -> Option<V::Dir> {
        self.open.pop_back().map(|(_, dir)| dir)
    }

    fn within(&mut self, shared: Shared<'_, V::Dir>, what: impl FnOnce(&mut V::Dir)) {
        match shared {
            Some(dir) => what(&mut lock(dir)),
            None => {
                if let Some((_, dir)) = self.open.back_mut() {
                    what(dir);
                }
            }
        }
    }
}

impl Found {
    /// Bytes of extended attributes.
    fn extended(&self) -> usize {
        match &self.observed {
            Observed::Present(e) => e.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum(),
            _ => 0,
        }
    }
}

fn tell<V: Visitor>(visitor: &V, dir: &mut V::Dir, found: Found) {
    let Found { path, class, role, observed, writers } = found;
    if let Some(writers) = writers
        && let Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. } = &observed
    {
        visitor.writers(dir, &path, (e.dev, e.ino), writers);
    }
    visitor.found(dir, path, class, role, observed);
}

#[cfg(test)]
mod tests {
    use guard_model::{Digest, Kind};
    use guard_sys::stat;
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::lanes::Lanes;
    use crate::observe::entry_of;

    /// Writes down who calls what.
    #[derive(Default)]
    struct Log(Mutex<Vec<String>>);

    impl Visitor for Log {
        type Dir = String;

        fn enter(&self, dir: &RelPath) -> String {
            self.0.lock().unwrap().push(format!("enter {dir}"));
            dir.to_string()
        }

        fn expected<'v>(&'v self, _: &'v String, _: &RelPath) -> Option<Cow<'v, Entry>> {
            None
        }

        fn found(&self, dir: &mut String, path: RelPath, _: Class, _: Role, observed: Observed) {
            let Observed::Present(entry) = observed else { panic!("{path} is not there") };
            self.0.lock().unwrap().push(format!("{dir}: {path} {:?}", entry.sha256));
        }

        fn leave(&self, state: String, dir: &RelPath) {
            assert_eq!(state, dir.to_string());
            self.0.lock().unwrap().push(format!("leave {dir}"));
        }
    }

    fn path(text: &str) -> RelPath {
        RelPath::from_text(text).unwrap()
    }

    fn found(text: &str, xattr: usize) -> Found {
        let entry = entry_of(&stat::absolute(std::path::Path::new("/")).unwrap()).unwrap();
        let entry = Entry { kind: Kind::File, xattrs: vec![(b"user.x".to_vec(), vec![0; xattr])], ..entry };
        let class = Class::Protected { sensitive: false };
        let observed = Observed::Present(entry);
        Found { path: path(text), class, role: Role::Protected, observed, writers: None }
    }

    fn read(batch: &mut Batch, content: &[u8]) -> Ticket {
        batch.slot()[..content.len()].copy_from_slice(content);
        batch.keep(content.len())
    }

    #[test]
    fn what_waits_is_told_in_order_and_in_its_own_directory() {
        let (log, mut batch) = (Log::default(), Batch::new(Lanes::with(16, 7)));
        let mut teller = Teller::new(&log, None);
        for dir in ["a", "b", "c"] {
            teller.enter(&path(dir));
            if dir != "c" {
                let ticket = read(&mut batch, dir.as_bytes());
                teller.found_later(found(&format!("{dir}/file"), 0), ticket);
            }
            teller.found(None, found(&format!("{dir}/link"), 0));
            teller.leave();
            teller.settle(&mut batch);
        }
        assert!(!teller.is_done());
        let told = || std::mem::take(&mut *log.0.lock().unwrap());
        let at_once = ["enter a", "a: a/link None", "enter b", "b: b/link None", "enter c", "c: c/link None"];
        assert_eq!(told(), at_once);
        batch.hash();
        teller.settle(&mut batch);
        let sha256 = |content: &str| Some(Digest(Sha256::digest(content).into()));
        let later = [
            format!("a: a/file {:?}", sha256("a")),
            "leave a".to_owned(),
            format!("b: b/file {:?}", sha256("b")),
            "leave b".to_owned(),
            "leave c".to_owned(),
        ];
        assert_eq!(told(), later);
        assert!(teller.is_done());
        assert_eq!(teller.tally.totals().files, 5);
        teller.enter(&path("d"));
        teller.leave();
        assert_eq!(told(), ["enter d", "leave d"], "nothing waits any more");
    }

    #[test]
    fn it_is_time_to_tell_once_much_is_kept() {
        let (log, mut batch) = (Log::default(), Batch::new(Lanes::with(16, 7)));
        let mut teller = Teller::new(&log, None);
        teller.enter(&path("many"));
        (0..2 * MOST_KEPT / ENTRY).for_each(|n| teller.found(None, found(&format!("many/{n}"), 0)));
        assert!(!teller.keeps_much(), "nothing waits");
        let ticket = read(&mut batch, b"x");
        teller.found_later(found("many/x", 100), ticket);
        assert!(!teller.keeps_much());
        (0..MOST_KEPT / ENTRY).for_each(|n| teller.found(None, found(&format!("many/y{n}"), 0)));
        assert!(teller.keeps_much(), "entries");
        batch.hash();
        teller.settle(&mut batch);
        assert!(!teller.keeps_much());
        let ticket = read(&mut batch, b"x");
        teller.found_later(found("many/z", MOST_KEPT), ticket);
        assert!(teller.keeps_much(), "extended attributes");
        batch.hash();
        teller.settle(&mut batch);
        let ticket = read(&mut batch, b"x");
        teller.found_later(found("many/zz", 0), ticket);
        (0..MOST_OPEN).for_each(|n| {
            assert!(!teller.keeps_much(), "{n}");
            teller.leave();
            teller.enter(&path(&format!("few{n}")));
        });
        assert!(teller.keeps_much(), "directories");
    }
}
