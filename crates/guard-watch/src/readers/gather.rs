//! What is read within a moment, told together.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guard_model::RelPath;
use guard_model::access::Access;
use rustix::event::Timespec;

use super::{Accessed, By, ReadHint, Sink};

/// What is read in this span is told together.
const LULL: Duration = Duration::from_millis(20);
/// Processes and files told apart in such a span; more is [`ReadHint::Missed`].
const APART: usize = 256;

pub(super) struct Gathered {
    by_reader: HashMap<(RelPath, Option<i32>), Accessed>,
    missed: Option<String>,
    told: Instant,
    sink: Sink,
}

impl Gathered {
    pub(super) fn new(sink: Sink) -> Self {
        Self { by_reader: HashMap::new(), missed: None, told: Instant::now(), sink }
    }

    /// How long to wait for more before what there is has to be told; `None` for ever.
    pub(super) fn until_told(&self) -> Option<Timespec> {
        let left = LULL.saturating_sub(self.told.elapsed());
        let waits = self.missed.is_some() || !self.by_reader.is_empty();
        waits.then(|| Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) })
    }

    /// Takes in one access; who it was is asked only where there is room for the answer.
    pub(super) fn add(
        &mut self,
        path: RelPath,
        pid: Option<i32>,
        access: impl IntoIterator<Item = Access>,
        times: u64,
        by: impl FnOnce() -> Option<Arc<By>>,
    ) {
        let key = (path, pid);
        if self.by_reader.len() >= APART && !self.by_reader.contains_key(&key) {
            self.miss("they came faster than they could be told apart");
            return;
        }
        let by = by();
        let path = key.0.clone();
        let none = Accessed { path, access: BTreeSet::new(), times: 0, by: None };
        let told = self.by_reader.entry(key).or_insert(none);
        told.access.extend(access);
        told.times += times;
        // A program may have become another one, or ended: the fuller answer counts.
        if told.by.as_ref().is_none_or(|known| known.executable.is_none()) {
            told.by = by.or(told.by.take());
        }
    }

    pub(super) fn miss(&mut self, why: &str) {
        self.missed.get_or_insert_with(|| why.to_owned());
    }

    pub(super) fn tell_in_time(&mut self) {
        if self.told.elapsed() >= LULL {
            self.tell();
        }
    }

    pub(super) fn tell(&mut self) {
        self.told = Instant::now();
        if !self.by_reader.is_empty() {
            (self.sink)(ReadHint::Accessed(self.by_reader.drain().map(|(_, told)| told).collect()));
        }
        if let Some(why) = self.missed.take() {
            (self.sink)(ReadHint::Missed(why));
        }
    }

    /// Tells what there is, and that nothing more comes.
    pub(super) fn end(&mut self, why: String) {
        self.tell();
        (self.sink)(ReadHint::Ended(why));
    }
}
