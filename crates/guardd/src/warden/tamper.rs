//! What guardd puts back by itself, where `on_tamper` says so: what differs in a locked environment, once its alert is
//! durable. It does not fight for ever: see [`PutBackLimits`].

use std::collections::BTreeMap;
use std::sync::Arc;

use guard_config::OnTamper;
use guard_model::ledger::Event;
use guard_model::put_back::{MayPutBack, Overlay, PutBackLimits, PutBackStop};
use guard_model::{Change, Finding, RelPath, Severity};
use guard_store::backup::Unpacking;
use guard_store::{Index, RecordFilter, StoreError};

use super::outcomes::Finished;
use super::troubles::Topic;
use super::{Running, Warden};
use crate::failure::{chain, is_out_of_space};
use crate::operations::restore::{RestoreDone, RestoreTask, Scope, Wanted};
use crate::operations::{OperationError, Work};
use crate::ward::Ward;

/// What waits to be put back, and how often that was done.
#[derive(Debug, Default)]
pub(super) struct Tamper {
    limits: PutBackLimits,
    /// Differing paths, and from when on (boot-time clock, microseconds) they may be put back.
    waiting: BTreeMap<RelPath, u64>,
    /// guardd puts something back right now.
    pub(super) is_running: bool,
}

/// For want of space nothing is tried again sooner: not as often as a fight would be stopped.
const SPACE_US: u64 = 20_000_000;

/// What somebody replaced at the very moment is tried again after so long.
const AGAIN_US: u64 = 50_000;

impl Tamper {
    /// When something is to be put back next.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.waiting.values().min().copied()
    }
}

impl Warden {
    fn puts_back(&self) -> bool {
        self.config.on_tamper == OnTamper::Restore && Ward::is_locked(&self.state)
    }

    /// These findings are on an alert.
    pub(super) fn raised_tampering<'a>(&mut self, findings: impl Iterator<Item = &'a Finding>) {
        if !self.puts_back() {
            return;
        }
        let now = guard_sys::clock::boottime_micros();
        let elsewhere = [Change::Root, Change::LockFile];
        for finding in findings.filter(|f| !f.change.iter().any(|c| elsewhere.contains(c))) {
            if let Ok(path) = RelPath::from_text(&finding.path) {
                self.tamper.waiting.entry(path).or_insert(now);
            }
        }
    }

    /// Everything that is reported as differing is to be put back: after a start, a reload, an acknowledgement.
    pub(super) fn reconsider_tampering(&mut self) {
        if !self.puts_back() {
            return;
        }
        self.reconsider_at(guard_sys::clock::boottime_micros());
    }

    fn reconsider_at(&mut self, at: u64) {
        let reported = self.raised.reported();
        for path in reported {
            self.tamper.waiting.entry(path).or_insert(at);
        }
    }

    /// Puts back what is due, if nothing else is going on.
    pub(super) fn put_back_in_time(&mut self) {
        if self.tamper.waiting.is_empty() {
            return;
        }
        if !self.puts_back() {
            self.tamper.waiting.clear();
            return;
        }
        let is_free = self.running.is_none()
            && !self.observing
            && !self.guard.root_away
            && self.left_out.needs_operator.is_none();
        let (true, Some(root), Some(expectation)) = (is_free, self.root.clone(), self.expectation()) else {
            return;
        };
        if self.state.put_back_stops.iter().any(|s| s.path.is_none()) {
            self.tamper.waiting.clear();
            return;
        }
        let now = guard_sys::clock::boottime_micros();
        let paths = self.due_paths(now);
        if paths.is_empty() {
            return;
        }
        if self.tamper.limits.round(now) == MayPutBack::No {
            let most = PutBackLimits::ROUNDS_MOST;
            return self.stop_putting_back(None, format!("it was put right {most} times within a minute"));
        }
        let contents = match self.vault() {
            Ok(vault) => Arc::new(Unpacking::of(vault.backups)),
            Err(why) => {
                self.tamper.waiting.clear();
                self.troubles.begin(Topic::PutBack, format!("nothing can be put back: {why}"));
                return;
            }
        };
        self.tamper.limits.count(&paths, now);
        let task = RestoreTask {
            ward: self.ward.clone(),
            root,
            policy: self.policy(),
            standing: Some(expectation.clone()),
            expectation,
            wanted: Wanted::Baseline,
            scope: Scope::Exactly(paths),
            contents,
            safety: None,
            generation: self.state.baseline.as_ref().map_or(0, |b| b.generation),
            by: "guardd".to_owned(),
            reason: "on_tamper".to_owned(),
            work: Work::shared(),
        };
        // Scans go on: what they say of a path meanwhile is looked at again before it is believed.
        self.running = Some(Running { name: "restore", work: Arc::clone(&task.work) });
        self.tamper.is_running = true;
        self.spawn(move || Finished::PutBack { result: task.run() });
    }

    /// The waiting paths that may be put back now. One that was put back too often is not, and said.
    fn due_paths(&mut self, now: u64) -> Vec<RelPath> {
        let due: Vec<RelPath> =
            self.tamper.waiting.iter().filter(|(_, at)| **at <= now).map(|(p, _)| p.clone()).collect();
        let mut paths = Vec::new();
        for path in due {
            let text = path.to_string();
            if self.state.put_back_stops.iter().any(|s| s.path.as_ref() == Some(&text)) {
                self.tamper.waiting.remove(&path);
                continue;
            }
            match self.tamper.limits.path(&path, now) {
                MayPutBack::Now => {
                    self.tamper.waiting.remove(&path);
                    paths.push(path);
                }
                MayPutBack::At(later) => {
                    self.tamper.waiting.insert(path, later);
                }
                MayPutBack::No => {
                    self.tamper.waiting.remove(&path);
                    let most = PutBackLimits::PATH_MOST;
                    self.stop_putting_back(
                        Some(&path),
                        format!("{text} was put back {most} times within a minute"),
                    );
                }
            }
        }
        paths
    }

    /// guardd put something back, or could not.
    pub(super) fn put_back_ended(&mut self, result: Result<RestoreDone, OperationError>) {
        self.tamper.is_running = false;
        match result {
            Ok(mut done) => {
                self.take_in_restored(&mut done);
                let again = guard_sys::clock::boottime_micros().saturating_add(AGAIN_US);
                for path in &done.raced {
                    self.tamper.waiting.insert(path.clone(), again);
                }
                let space = guard_sys::clock::boottime_micros().saturating_add(SPACE_US);
                for path in &done.starved {
                    self.tamper.waiting.entry(path.clone()).or_insert(space);
                }
                for (path, remark) in &done.remarks {
                    tracing::warn!(environment = self.ward.name, %path, remark, "put back");
                }
                let failed: Vec<String> = done
                    .left
                    .iter()
                    .filter(|(path, _)| !done.raced.contains(path))
                    .map(|(path, why)| format!("{path}: {why}"))
                    .collect();
                match failed.as_slice() {
                    [] => self.troubles.end(Topic::PutBack),
                    [first, rest @ ..] => {
                        let more =
                            if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
                        let why = format!("not put back: {first}{more}");
                        tracing::warn!(environment = self.ward.name, why, "on_tamper");
                        self.troubles.begin(Topic::PutBack, why);
                    }
                }
                if done.quarantine_full {
                    self.stop_putting_back(None, "its quarantine is full".to_owned());
                }
            }
            Err(e) => {
                let why = format!("nothing could be put back: {}", chain(&e));
                tracing::error!(environment = self.ward.name, why, "on_tamper");
                if matches!(e, OperationError::QuarantineFull { .. }) {
                    self.stop_putting_back(None, format!("its quarantine is full: {}", chain(&e)));
                } else if is_out_of_space(&e) {
                    let space = guard_sys::clock::boottime_micros().saturating_add(SPACE_US);
                    self.reconsider_at(space);
                }
                self.troubles.begin(Topic::PutBack, why);
            }
        }
        self.take_deferred();
    }

    /// No more of `path`, or of anything, until a person has looked: that is a critical alert.
    fn stop_putting_back(&mut self, path: Option<&RelPath>, why: String) {
        let what = path.map_or_else(|| "anything".to_owned(), ToString::to_string);
        if path.is_none() {
            self.tamper.waiting.clear();
        }
        let title = format!("guardd does not put back {what} any more: {why}");
        let alert = self.raise_apart(Severity::Critical, title, Vec::new());
        let stop = PutBackStop { path: path.map(ToString::to_string), alert: alert.unwrap_or(0), why };
        self.record(vec![Event::PutBackStopped(stop)]);
    }

    /// Once a second: has anybody looked at why it was stopped?
    pub(super) fn see_acknowledged_stops(&mut self) {
        if self.state.put_back_stops.is_empty() {
            return;
        }
        let Ok(known) = self.ward.house.index().environment_state(&self.ward.name) else { return };
        let stops = std::mem::take(&mut self.state.put_back_stops);
        let (stay, over): (Vec<_>, Vec<_>) =
            stops.into_iter().partition(|s| known.put_back_stops.contains(s));
        self.state.put_back_stops = stay;
        for stop in &over {
            match stop.path.as_deref().map(RelPath::from_text) {
                Some(Ok(path)) => self.tamper.limits.forgive(Some(&path)),
                _ => self.tamper.limits.forgive(None),
            }
        }
        if !over.is_empty() {
            self.reconsider_tampering();
        }
    }

    /// A person put this right by hand: it counts anew.
    pub(super) fn forgive(&mut self, path: &RelPath) {
        self.tamper.limits.forgive(Some(path));
    }

    /// What is not put back any more, for `status`.
    pub(super) fn put_back_stops(&self) -> Vec<String> {
        let stops = self.state.put_back_stops.iter();
        stops
            .map(|s| {
                let what = s.path.as_deref().unwrap_or("anything");
                let (why, alert) = (&s.why, s.alert);
                format!(
                    "{what} is not put back any more: {why}; guardctl alerts ack {alert} lets it begin again"
                )
            })
            .collect()
    }
}

/// Records read at once.
const PAGE: u64 = 100;

/// What was put back since the baseline was made, by the ledger's word.
pub(super) fn overlay_of(index: &Index, environment: &str) -> Result<Overlay, StoreError> {
    let mut newest_first = Vec::new();
    let mut filter = RecordFilter {
        environment: Some(environment.to_owned()),
        events: Overlay::EVENTS.map(str::to_owned).to_vec(),
        ..RecordFilter::default()
    };
    'all: loop {
        let page = index.recent(PAGE, &filter)?;
        filter.before = page.last().map(|record| record.seq);
        let is_last = (page.len() as u64) < PAGE;
        for record in page {
            let is_baseline = record.event.name() != "restored";
            newest_first.push(record);
            if is_baseline {
                break 'all;
            }
        }
        if is_last {
            break;
        }
    }
    let mut overlay = Overlay::default();
    newest_first.iter().rev().for_each(|record| overlay.apply(record));
    Ok(overlay)
}
