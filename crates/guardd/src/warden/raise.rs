//! Findings become alerts, or are recorded under the window.
//!
//! A difference is raised once: as long as a path goes on differing in the same
//! way it brings no second finding, also across a restart, since what was
//! reported is read back from the open alerts.

use std::collections::HashMap;

use guard_model::alert::{Coalescing, severity_of, title_of};
use guard_model::ledger::Event;
use guard_model::{Alert, Digest, Finding, RelPath, Severity, Stamp};

/// What was last reported of a path.
#[derive(Debug, Clone)]
struct Reported {
    /// The alert that holds it; `None` for a change recorded under a window.
    alert: Option<u64>,
    print: Digest,
    /// The same without what sealing and unsealing change.
    core: Digest,
}

/// One environment's findings that still stand, and the alert that is open for more.
#[derive(Debug, Default)]
pub(super) struct Raised {
    by_path: HashMap<String, Reported>,
    group: Option<(u64, Severity, Coalescing)>,
}

/// A finding and whether its path is `sensitive`.
pub(super) type Weighed = (Finding, bool);

impl Raised {
    /// Takes up what the open alerts say.
    pub(super) fn from_alerts(alerts: &[Alert]) -> Self {
        let mut by_path = HashMap::new();
        for alert in alerts {
            for f in alert.standing() {
                by_path.insert(f.path.clone(), Reported::of(Some(alert.id), f));
            }
        }
        Self { by_path, group: None }
    }

    /// Leaves out what was reported already.
    pub(super) fn only_new(&self, findings: Vec<Weighed>) -> Vec<Weighed> {
        findings
            .into_iter()
            .filter(|(f, _)| self.by_path.get(&f.path).is_none_or(|r| r.print != print_of(f)))
            .collect()
    }

    /// Leaves out what was reported already, and under a window also what an alert
    /// held before it opened: giving back the modes changed nothing else of it.
    pub(super) fn only_new_in_window(&self, findings: Vec<Weighed>) -> Vec<Weighed> {
        let held = |f: &Finding| {
            self.by_path.get(&f.path).is_some_and(|r| r.alert.is_some() && r.core == core_of(f))
        };
        self.only_new(findings).into_iter().filter(|(f, _)| !held(f)).collect()
    }

    /// The event that raises `findings` (not empty): a new alert or one that grows.
    pub(super) fn event_for(&mut self, findings: &[Weighed], now_us: u64) -> Event {
        let severity = findings.iter().map(|(f, s)| severity_of(f, *s)).max().unwrap_or(Severity::High);
        let plain = || findings.iter().map(|(f, _)| f.clone()).collect();
        if let Some((alert, worst, group)) = &mut self.group
            && group.takes(now_us)
        {
            *worst = severity.max(*worst);
            return Event::AlertGrew { alert: *alert, severity: *worst, findings: plain() };
        }
        self.group = None;
        let mut title = findings.first().map(|(f, _)| title_of(f)).unwrap_or_default();
        if findings.len() > 1 {
            title = format!("{title} and {} more", findings.len() - 1);
        }
        Event::AlertOpened { severity, title, findings: plain(), sessions: crate::sessions::logged_in() }
    }

    /// What was raised under `alert` is remembered.
    pub(super) fn remember(&mut self, alert: Option<u64>, findings: &[Weighed]) {
        for (f, _) in findings {
            self.by_path.insert(f.path.clone(), Reported::of(alert, f));
        }
    }

    /// From now on further findings join `alert` until it has been quiet.
    pub(super) fn open_group(&mut self, alert: u64, severity: Severity, now_us: u64) {
        self.group = Some((alert, severity, Coalescing::open(now_us)));
    }

    /// The next finding opens an alert of its own.
    pub(super) fn close_group(&mut self) {
        self.group = None;
    }

    /// `path` is no difference any more: the alert that held it, where one did.
    pub(super) fn settle(&mut self, path: &str) -> Option<u64> {
        self.by_path.remove(path).and_then(|r| r.alert)
    }

    pub(super) fn is_reported(&self, path: &str) -> bool {
        self.by_path.contains_key(path)
    }

    /// Every path of the tree that is reported as differing.
    pub(super) fn reported(&self) -> Vec<RelPath> {
        self.by_path.keys().filter_map(|path| RelPath::from_text(path).ok()).collect()
    }

    /// Forgets everything; the alerts that held something, with their paths.
    pub(super) fn clear(&mut self) -> Vec<(u64, Vec<String>)> {
        self.group = None;
        let mut by_alert: HashMap<u64, Vec<String>> = HashMap::new();
        for (path, reported) in self.by_path.drain() {
            if let Some(alert) = reported.alert {
                by_alert.entry(alert).or_default().push(path);
            }
        }
        let mut all: Vec<_> = by_alert.into_iter().collect();
        all.iter_mut().for_each(|(_, paths)| paths.sort());
        all.sort();
        all
    }
}

impl Reported {
    fn of(alert: Option<u64>, finding: &Finding) -> Self {
        Self { alert, print: print_of(finding), core: core_of(finding) }
    }
}

/// What is there, without mode and xattrs (an ACL's mask follows the mode).
fn core_of(finding: &Finding) -> Digest {
    let after = finding.after.clone().map(|mut e| {
        e.ctime = Stamp::default();
        e.mode = 0;
        e.xattrs.clear();
        e
    });
    let text = serde_json::to_vec(&after).unwrap_or_default();
    guard_model::ledger::line_hash(&text)
}

/// What makes two findings of one path the same: how it differs and what is there.
/// ctime is left out, since restoring an mtime or adding a link moves it without a difference.
fn print_of(finding: &Finding) -> Digest {
    let after = finding.after.clone().map(|mut e| {
        e.ctime = Stamp::default();
        e
    });
    let text = serde_json::to_vec(&(&finding.change, after)).unwrap_or_default();
    guard_model::ledger::line_hash(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_model::{Change, Timestamp};

    fn finding(path: &str, change: Change) -> Weighed {
        let f = Finding {
            path: path.into(),
            at: Timestamp(0),
            change: vec![change],
            before: None,
            after: None,
            actor: None,
            restored: false,
            note: None,
        };
        (f, false)
    }

    #[test]
    fn a_difference_is_raised_once_and_again_when_it_differs_otherwise() {
        let mut r = Raised::default();
        let first = vec![finding("a", Change::Mode)];
        let new = r.only_new(first.clone());
        assert_eq!(new.len(), 1);
        r.remember(Some(1), &new);
        assert!(r.only_new(first).is_empty());
        assert_eq!(r.only_new(vec![finding("a", Change::Content)]).len(), 1);
        assert_eq!(r.settle("a"), Some(1));
        assert_eq!(r.only_new(vec![finding("a", Change::Mode)]).len(), 1);
    }

    #[test]
    fn what_an_alert_held_before_the_window_is_no_change_of_the_window() {
        let mut r = Raised::default();
        r.remember(Some(1), &[finding("a", Change::Content)]);
        let unsealed = vec![finding("a", Change::Mode), finding("b", Change::Content)];
        let new = r.only_new_in_window(unsealed);
        assert_eq!(new.iter().map(|(f, _)| f.path.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn later_findings_join_the_open_alert() {
        let mut r = Raised::default();
        let f = vec![finding("a", Change::Mode)];
        assert!(matches!(r.event_for(&f, 0), Event::AlertOpened { .. }));
        r.open_group(5, Severity::High, 0);
        assert!(matches!(r.event_for(&f, 1_000_000), Event::AlertGrew { alert: 5, .. }));
        assert!(matches!(r.event_for(&f, 9_000_000), Event::AlertOpened { .. }));
    }
}
