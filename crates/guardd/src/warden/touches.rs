//! Touched paths waiting to be observed: each once, hot ones not too often.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use guard_model::{Actor, RelPath};

/// How far to look when a path is observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reach {
    /// The entry alone: a scan has listed what is below it already.
    Entry,
    /// A directory that is new, gone or replaced brings everything below it.
    IfReplaced,
    /// Everything below, too: the directory was out of sight for a while.
    Below,
}

/// What proves that a file's content is what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Proof {
    /// Metadata that did not move: for what the kernel told of, since what changes content moves it.
    Metadata,
    /// What its device holds: for what a scan found amiss, which may show nowhere else.
    Device,
}

/// A path to observe.
#[derive(Debug, Clone)]
pub(super) struct Touched {
    pub(super) path: RelPath,
    pub(super) reach: Reach,
    pub(super) proof: Proof,
    /// Who touched it last, where known.
    pub(super) actor: Option<Arc<Actor>>,
}

#[derive(Debug)]
struct Waiting {
    /// Not to be looked at before.
    due_us: u64,
    reach: Reach,
    proof: Proof,
    actor: Option<Arc<Actor>>,
}

/// The set of touched paths, and when the content of some was last read.
///
/// Times are microseconds of a clock that never goes back.
#[derive(Debug, Default)]
pub(super) struct Touches {
    waiting: BTreeMap<RelPath, Waiting>,
    recent: HashMap<RelPath, u64>,
}

impl Touches {
    /// A path's content is read at most once in this span, that is 4 times a
    /// second; its last state always.
    pub(super) const PAUSE_US: u64 = 250_000;

    /// What may be changing still is left alone for so long: within it a file system need not tell two changes apart, and
    /// most of what writes a file is done.
    pub(super) const REST_US: u64 = 20_000;

    /// Paths handed out at once: bounds the memory and the delay of one batch.
    const BATCH: usize = 1024;

    /// Of several who touched a path before it is observed, the last one known is kept.
    pub(super) fn add(&mut self, path: RelPath, reach: Reach, actor: Option<Arc<Actor>>) {
        self.wait(path, reach, Proof::Metadata, actor, 0);
    }

    /// The same for what somebody may be changing still: it is looked at a moment later, or as soon as it is
    /// [added](Self::add).
    pub(super) fn await_rest(&mut self, path: RelPath, actor: Option<Arc<Actor>>, now: u64) {
        self.wait(path, Reach::IfReplaced, Proof::Metadata, actor, now.saturating_add(Self::REST_US));
    }

    /// What was looked at too soon after a change to show another one.
    pub(super) fn look_again(&mut self, path: RelPath, now: u64) {
        self.wait(path, Reach::Entry, Proof::Metadata, None, now.saturating_add(Self::REST_US));
    }

    /// What a scan found amiss, or anybody before.
    pub(super) fn suspect(&mut self, path: RelPath) {
        self.wait(path, Reach::Entry, Proof::Device, None, 0);
    }

    fn wait(&mut self, path: RelPath, reach: Reach, proof: Proof, actor: Option<Arc<Actor>>, due_us: u64) {
        let waiting = self.waiting.entry(path).or_insert(Waiting { due_us, reach, proof, actor: None });
        // The first of many does not wait for the last: it may go on for ever.
        waiting.due_us = due_us.min(waiting.due_us);
        waiting.reach = reach.max(waiting.reach);
        waiting.proof = proof.max(waiting.proof);
        let is_same = |known: &Arc<Actor>| actor.as_ref().is_some_and(|later| known.is_fuller_than(later));
        if !waiting.actor.as_ref().is_some_and(is_same) {
            waiting.actor = actor.or(waiting.actor.take());
        }
    }

    /// The paths due at `now`.
    pub(super) fn take(&mut self, now: u64) -> Vec<Touched> {
        self.recent.retain(|_, at| now.saturating_sub(*at) < Self::PAUSE_US);
        let due: Vec<RelPath> = self
            .waiting
            .iter()
            .filter(|(path, waiting)| waiting.due_us <= now && !self.recent.contains_key(*path))
            .take(Self::BATCH)
            .map(|(path, _)| path.clone())
            .collect();
        due.into_iter()
            .filter_map(|path| {
                let Waiting { reach, proof, actor, .. } = self.waiting.remove(&path)?;
                Some(Touched { path, reach, proof, actor })
            })
            .collect()
    }

    /// The content of `path` was read.
    pub(super) fn was_read(&mut self, path: RelPath, now: u64) {
        self.recent.insert(path, now);
    }

    /// When the next path is due: `None` where nothing waits.
    pub(super) fn next_due(&self, now: u64) -> Option<u64> {
        let mut earliest: Option<u64> = None;
        for (path, waiting) in &self.waiting {
            let read_again = self.recent.get(path).map_or(0, |at| at.saturating_add(Self::PAUSE_US));
            let due = waiting.due_us.max(read_again).max(now);
            if due == now {
                return Some(now);
            }
            earliest = Some(earliest.map_or(due, |e| e.min(due)));
        }
        earliest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::from_text(text).unwrap()
    }

    fn taken(t: &mut Touches, now: u64) -> Vec<RelPath> {
        t.take(now).into_iter().map(|touched| touched.path).collect()
    }

    #[test]
    fn a_hot_path_waits_and_its_last_state_is_seen() {
        let mut t = Touches::default();
        t.add(path("hot"), Reach::Entry, None);
        t.add(path("hot"), Reach::Entry, None);
        assert_eq!(taken(&mut t, 0), [path("hot")]);
        t.was_read(path("hot"), 0);
        t.add(path("hot"), Reach::Entry, None);
        t.add(path("cold"), Reach::Entry, None);
        assert_eq!(taken(&mut t, 1000), [path("cold")]);
        assert_eq!(t.next_due(1000), Some(Touches::PAUSE_US));
        assert_eq!(taken(&mut t, Touches::PAUSE_US), [path("hot")]);
        assert_eq!(t.next_due(Touches::PAUSE_US), None);
    }

    #[test]
    fn who_ended_meanwhile_keeps_its_name_and_gives_it_to_nobody() {
        let actor = |pid, confidence| {
            let text = format!(r#"{{"pid":{pid},"parents":[],"confidence":"{confidence}"}}"#);
            serde_json::from_str::<Actor>(&text).map(Arc::new).unwrap()
        };
        let mut t = Touches::default();
        let named = |t: &mut Touches| t.take(0).pop().and_then(|touched| touched.actor).unwrap();
        t.add(path("f"), Reach::Entry, Some(actor(7, "verified")));
        t.add(path("f"), Reach::Entry, Some(actor(7, "unknown")));
        assert_eq!(*named(&mut t), *actor(7, "verified"));
        t.add(path("f"), Reach::Entry, Some(actor(7, "verified")));
        t.add(path("f"), Reach::Entry, Some(actor(8, "unknown")));
        assert_eq!(*named(&mut t), *actor(8, "unknown"));
    }

    #[test]
    fn the_farther_reach_wins() {
        let mut t = Touches::default();
        t.add(path("d"), Reach::Below, None);
        t.add(path("d"), Reach::Entry, None);
        assert_eq!(t.take(0).into_iter().map(|t| t.reach).collect::<Vec<_>>(), [Reach::Below]);
    }

    #[test]
    fn what_may_be_changing_is_left_alone_for_a_moment_and_no_longer() {
        let mut t = Touches::default();
        t.await_rest(path("f"), None, 1000);
        t.await_rest(path("f"), None, 15_000);
        t.await_rest(path("g"), None, 15_000);
        assert!(taken(&mut t, 15_000).is_empty());
        assert_eq!(t.next_due(15_000), Some(1000 + Touches::REST_US));
        // Somebody closed it.
        t.add(path("g"), Reach::Entry, None);
        assert_eq!(t.next_due(15_000), Some(15_000));
        assert_eq!(taken(&mut t, 15_000), [path("g")]);
        assert_eq!(taken(&mut t, 1000 + Touches::REST_US), [path("f")]);
    }

    #[test]
    fn batches_are_bounded() {
        let mut t = Touches::default();
        for i in 0..3000 {
            t.add(path(&format!("f{i}")), Reach::Entry, None);
        }
        assert_eq!(t.take(0).len(), Touches::BATCH);
        assert_eq!(t.next_due(5), Some(5));
    }
}
