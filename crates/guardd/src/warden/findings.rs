//! What the observer reports becomes findings, or settles them.

use std::collections::BTreeMap;
use std::sync::Arc;

use guard_config::OnTamper;
use guard_model::ledger::Event;
use guard_model::{Actor, Finding, Observed, RelPath, Severity};

use super::Warden;
use super::observer::Report;
use super::raise::Weighed;
use super::repository;
use super::told_commands;
use super::touches::Reach;
use super::troubles::Topic;
use crate::comparer::Difference;
use crate::ward::Ward;

impl Warden {
    pub(super) fn take_report(&mut self, report: Report) {
        self.observing = false;
        if let Some(e) = &report.error {
            let why = format!("the baseline cannot be read: {}", crate::failure::chain(e));
            self.troubles.begin(Topic::Baseline, why);
        }
        for (path, actor) in report.suspects {
            self.touches.add(path, Reach::Entry, actor);
        }
        let now_us = guard_sys::clock::boottime_micros();
        report.unsettled.into_iter().for_each(|path| self.touches.look_again(path, now_us));
        report.read.into_iter().for_each(|path| self.touches.was_read(path, now_us));
        // In a burst the observer goes on while this is written down. Not where somebody waits for a moment without
        // observations: a command, or what is to be put back first.
        if self.deferred.is_empty() && self.config.on_tamper == OnTamper::Alert {
            self.observe_touched();
        }
        let seen: Vec<RelPath> =
            report.clean.iter().chain(report.differences.iter().map(|(d, _)| &d.path)).cloned().collect();
        seen.iter().for_each(|path| self.follow_reads_again(path));
        let root = self.root.as_ref().map(|r| r.path().to_owned());
        let mut findings: Vec<Weighed> = report.differences.into_iter().map(weigh).collect();
        told_commands::redact(&mut findings, &self.policy());
        for (finding, ..) in &mut findings {
            let meaning = root.as_deref().and_then(|root| repository::meaning(root, finding));
            finding.note = finding.note.take().or(meaning);
        }
        self.raise(findings);
        self.settle(report.clean.iter().map(ToString::to_string), "as before");
        seen.iter().for_each(|path| self.gaps.observed(path));
        self.take_deferred();
    }

    /// Raises what was not reported yet: as an alert while locked, under the window while unlocked.
    pub(super) fn raise(&mut self, findings: Vec<Weighed>) {
        let locked = Ward::is_locked(&self.state);
        let new = match locked {
            true => self.raised.only_new(findings),
            false => self.raised.only_new_in_window(findings),
        };
        if new.is_empty() {
            return;
        }
        if !locked {
            if let Some(window) = self.state.window.as_ref().map(|w| w.id) {
                self.record_in_window(window, &new);
            }
            return;
        }
        let now_us = guard_sys::clock::boottime_micros();
        let event = self.raised.event_for(&new, now_us);
        let records = self.record(vec![event]);
        let alert = records.first().map(|record| {
            if let Event::AlertOpened { severity, .. } = &record.event {
                self.raised.open_group(record.seq, *severity, now_us);
            }
            guard_model::state::alert_of(record).unwrap_or(record.seq)
        });
        self.raised.remember(alert, &new);
        // Not before it is durable: what becomes of it is told on that alert.
        if alert.is_some() {
            self.raised_tampering(new.iter().map(|(f, _)| f));
        }
    }

    /// Opens an alert of its own about the daemon or the root rather than an entry.
    pub(super) fn raise_apart(
        &mut self,
        severity: Severity,
        title: String,
        findings: Vec<Finding>,
    ) -> Option<u64> {
        let sessions = crate::sessions::logged_in();
        let records = self.record(vec![Event::AlertOpened { severity, title, findings, sessions }]);
        self.raised.close_group();
        records.first().map(|r| r.seq)
    }

    /// Paths that are no difference any more.
    pub(super) fn settle(&mut self, paths: impl Iterator<Item = String>, how: &str) {
        let mut by_alert: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for path in paths {
            if let Some(alert) = self.raised.settle(&path) {
                by_alert.entry(alert).or_default().push(path);
            }
        }
        let events = by_alert
            .into_iter()
            .map(|(alert, paths)| Event::AlertSettled { alert, paths, how: how.to_owned(), reviewed: false })
            .collect();
        self.record(events);
    }
}

/// A difference as a finding of who made it, with whether its path is sensitive.
pub(super) fn weigh((difference, actor): (Difference, Option<Arc<Actor>>)) -> Weighed {
    let sensitive = difference.sensitive;
    let actor = actor.map(Arc::unwrap_or_clone);
    (Finding { actor, ..finding(difference) }, sensitive)
}

/// A difference as a finding, observed just now.
pub(crate) fn finding(difference: Difference) -> Finding {
    let (after, note) = match difference.observed {
        Observed::Present(entry) => (Some(entry), None),
        Observed::Absent => (None, None),
        Observed::Unreadable { entry, why } => (entry, Some(format!("could not be read: {why}"))),
    };
    Finding {
        path: difference.path.to_string(),
        at: crate::operations::now(),
        change: difference.change,
        before: difference.before,
        after,
        actor: None,
        restored: false,
        note,
    }
}
