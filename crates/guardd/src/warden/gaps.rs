//! Gaps: spans in which hints may have been lost, until the tree was looked at again.

use std::collections::HashSet;

use guard_model::ledger::{Event, GapCause};
use guard_model::state::EnvironmentState;
use guard_model::{RelPath, Timestamp};

use super::Warden;
use super::scans::ScanKind;

/// The gaps that are open, and what still has to be observed to close some of them.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    open: Vec<OpenGap>,
    closing: Option<Closing>,
}

#[derive(Debug, Clone, Copy)]
struct OpenGap {
    id: u64,
    /// `None` for one that an earlier run left open.
    cause: Option<GapCause>,
    /// The least scan that closes it.
    needs: ScanKind,
    /// Boot-time clock, microseconds: only a scan that began later counts.
    opened_us: u64,
}

#[derive(Debug)]
struct Closing {
    ids: Vec<u64>,
    by: ScanKind,
    found: u64,
    /// Suspects of the scan that are not yet observed again.
    waiting: HashSet<RelPath>,
}

impl Gaps {
    /// Gaps that an earlier run left open.
    pub(super) fn from_state(state: &EnvironmentState) -> Self {
        let open = state
            .gaps
            .iter()
            .filter(|g| g.until.is_none())
            .map(|g| OpenGap { id: g.id, cause: None, needs: ScanKind::Rehash, opened_us: 0 })
            .collect();
        Self { open, closing: None }
    }

    pub(super) fn opened(&mut self, id: u64, cause: GapCause, now_us: u64) {
        let needs = if cause == GapCause::Down { ScanKind::Rehash } else { ScanKind::Sweep };
        self.open.push(OpenGap { id, cause: Some(cause), needs, opened_us: now_us });
    }

    /// Is a gap of this cause open? Then it goes on, and only a scan that begins after now closes it.
    pub(super) fn goes_on(&mut self, cause: GapCause, now_us: u64) -> bool {
        let Some(gap) = self.open.iter_mut().find(|g| g.cause == Some(cause)) else { return false };
        gap.opened_us = now_us;
        if let Some(closing) = &mut self.closing {
            closing.ids.retain(|id| *id != gap.id);
        }
        true
    }

    /// True while a gap waits for a sweep that has not begun since it opened.
    pub(super) fn wants_sweep(&self) -> bool {
        self.closing.is_none() && self.open.iter().any(|g| g.needs == ScanKind::Sweep)
    }

    /// A scan that began at `began_us` brought `suspects`: once they have been
    /// observed, the gaps that it covers are closed.
    pub(super) fn scanned(&mut self, by: ScanKind, began_us: u64, suspects: &[RelPath]) {
        let ids: Vec<u64> =
            self.open.iter().filter(|g| g.needs <= by && g.opened_us <= began_us).map(|g| g.id).collect();
        if !ids.is_empty() {
            let waiting: HashSet<RelPath> = suspects.iter().cloned().collect();
            self.closing = Some(Closing { ids, by, found: waiting.len() as u64, waiting });
        }
    }

    pub(super) fn observed(&mut self, path: &RelPath) {
        if let Some(closing) = &mut self.closing {
            closing.waiting.remove(path);
        }
    }

    /// What closes the gaps whose suspects have all been observed.
    pub(super) fn take_closed(&mut self) -> Vec<Event> {
        match self.closing.take() {
            Some(closing) if closing.waiting.is_empty() => {
                self.open.retain(|g| !closing.ids.contains(&g.id));
                let verified = match closing.by {
                    ScanKind::Sweep => "metadata of every protected entry, content where it differs",
                    ScanKind::Rehash | ScanKind::Deep => "content of every protected file",
                };
                closing
                    .ids
                    .into_iter()
                    .map(|gap| Event::GapClosed { gap, verified: verified.to_owned(), found: closing.found })
                    .collect()
            }
            other => {
                self.closing = other;
                Vec::new()
            }
        }
    }

    /// A new baseline makes what happened before it irrelevant: every gap is covered by it.
    pub(super) fn covered_by_new_baseline(&mut self) -> Vec<Event> {
        self.closing = None;
        self.open
            .drain(..)
            .map(|g| Event::GapClosed {
                gap: g.id,
                verified: "a new baseline was taken".to_owned(),
                found: 0,
            })
            .collect()
    }
}

impl Warden {
    /// Hints were lost just now.
    pub(super) fn hints_lost(&mut self, cause: GapCause, detail: String) {
        let now_us = guard_sys::clock::boottime_micros();
        if self.held.is_some() && !self.gaps.goes_on(cause, now_us) {
            self.open_gap(cause, crate::operations::now(), detail);
        }
    }

    pub(super) fn open_gap(&mut self, cause: GapCause, since: Timestamp, detail: String) {
        let records = self.record(vec![Event::GapOpened { cause, since, detail: Some(detail) }]);
        if let Some(record) = records.first() {
            self.gaps.opened(record.seq, cause, guard_sys::clock::boottime_micros());
        }
    }

    pub(super) fn close_gaps(&mut self) {
        let closed = self.gaps.take_closed();
        self.record(closed);
    }
}
