//! Telling a visitor what one thread of a scan sees.
//!
//! A small file waits until its content was hashed, beside others; its directory is left after that. What waits is told in
//! the order in which it was seen.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use guard_model::baseline::Role;
use guard_model::{Class, Entry, Observed, RelPath};

use crate::batch::{Batch, Ticket};
use crate::tally::Tally;
use crate::{OpenWriters, Progress, Visitor};

/// What was seen at a path.
pub(crate) struct Found {
    pub(crate) path: RelPath,
    pub(crate) class: Class,
    pub(crate) role: Role,
    pub(crate) observed: Observed,
    pub(crate) writers: Option<OpenWriters>,
}

/// Of the first of the directories that are open.
enum Waiting {
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
    waiting: VecDeque<Waiting>,
}

impl<'s, V: Visitor> Teller<'s, V> {
    pub(crate) fn new(visitor: &'s V, progress: Option<&'s Progress>) -> Self {
        Self { visitor, progress, tally: Tally::default(), open: VecDeque::new(), waiting: VecDeque::new() }
    }

    pub(crate) fn enter(&mut self, path: &RelPath) {
        let dir = self.visitor.enter(path);
        self.open.push_back((path.clone(), dir));
    }

    /// How many directories have not been left.
    pub(crate) fn open(&self) -> usize {
        self.open.len()
    }

    pub(crate) fn expected(&self, shared: Shared<'_, V::Dir>, path: &RelPath) -> Option<Cow<'_, Entry>> {
        match shared {
            Some(dir) => {
                let dir = dir.lock().unwrap_or_else(PoisonError::into_inner);
                self.visitor.expected(&dir, path).map(|entry| Cow::Owned(entry.into_owned()))
            }
            None => self.open.back().and_then(|(_, dir)| self.visitor.expected(dir, path)),
        }
    }

    pub(crate) fn passed_over(&mut self, shared: Shared<'_, V::Dir>, path: &RelPath, class: Class) {
        let visitor = self.visitor;
        self.within(shared, |dir| visitor.passed_over(dir, path, class));
    }

    /// Tells it now.
    pub(crate) fn found(&mut self, shared: Shared<'_, V::Dir>, found: Found) {
        self.tally.count(found.role, &found.observed, self.progress);
        let visitor = self.visitor;
        self.within(shared, |dir| tell(visitor, dir, found));
    }

    /// Tells it, a regular file in the directory entered last, with the digest that the ticket stands for.
    pub(crate) fn found_later(&mut self, found: Found, ticket: Ticket) {
        self.waiting.push_back(Waiting::File(Box::new(found), ticket));
    }

    /// That was all of the directory entered last.
    pub(crate) fn leave(&mut self) {
        if !self.waiting.is_empty() {
            self.waiting.push_back(Waiting::End);
        } else if let Some((path, dir)) = self.open.pop_back() {
            self.visitor.leave(dir, &path);
        }
    }

    /// Tells what need not wait any more.
    pub(crate) fn settle(&mut self, batch: &mut Batch) {
        while let Some(waiting) = self.waiting.front_mut() {
            match waiting {
                Waiting::File(_, ticket) => {
                    let Some(digest) = batch.take(*ticket) else { return };
                    if let Some(Waiting::File(mut found, _)) = self.waiting.pop_front() {
                        if let Observed::Present(entry) = &mut found.observed {
                            entry.sha256 = Some(digest);
                        }
                        self.tally.count(found.role, &found.observed, self.progress);
                        if let Some((_, dir)) = self.open.front_mut() {
                            tell(self.visitor, dir, *found);
                        }
                    }
                }
                Waiting::End => {
                    self.waiting.pop_front();
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
            Some(dir) => what(&mut dir.lock().unwrap_or_else(PoisonError::into_inner)),
            None => {
                if let Some((_, dir)) = self.open.back_mut() {
                    what(dir);
                }
            }
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
