//! Who opens sensitive files: recorded always, and an alert where somebody does who is not expected to.
//!
//! What is read leaves nothing behind that could be looked at again: the kernel's word is all there is, so these are
//! no touches. guardd's own reading is never told ([`guard_watch::Readers`]).

use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;

use guard_api::wire::ReadState;
use guard_config::Readers as Expected;
use guard_model::access::{Reader, Reading, Readings};
use guard_model::alert::{Coalescing, title_of};
use guard_model::baseline::Role;
use guard_model::ledger::Event;
use guard_model::path::escape;
use guard_model::wildcard;
use guard_model::{Actor, Alert, Change, Finding, Kind, RelPath, Severity};
use guard_watch::{Accessed, ReadBy, ReadHint, Readers};

use super::{Message, Warden};
use crate::operations::now;
use crate::ward::Ward;

/// Files followed at most: each keeps its inode in the kernel's memory.
const FILES: usize = 4096;
/// How often at most it is asked whether somebody has looked at an alert, microseconds.
const ASKED_AGAIN_US: u64 = 1_000_000;
/// What could not be followed is tried again at this distance, microseconds.
const AGAIN_US: u64 = 60_000_000;
/// The same where whoever told has ended.
const SOON_US: u64 = 1_000_000;

/// What is followed, and what is on its way to the ledger.
#[derive(Debug, Default)]
pub(super) struct Reads {
    readers: Option<Readers>,
    /// Why nothing, or not everything, is followed.
    why_not: Option<String>,
    /// When all files are followed anew, where something failed.
    again_us: Option<u64>,
    gathered: Readings,
    missed: Option<String>,
    /// Who is on an alert that nobody has looked at, for which path, with the alert's number.
    raised: HashMap<(String, Reader), u64>,
    group: Option<(u64, Severity, Coalescing)>,
    /// When it was last asked whether somebody has looked at such an alert, microseconds.
    asked_us: u64,
}

impl Reads {
    /// Takes up what the open alerts say.
    pub(super) fn from_alerts(alerts: &[Alert]) -> Self {
        let mut reads = Self::default();
        reads.know(alerts);
        reads
    }

    pub(super) fn know(&mut self, alerts: &[Alert]) {
        for alert in alerts.iter().filter(|a| !a.reviewed) {
            for f in alert.findings.iter().filter(|f| !f.is_difference()) {
                self.raised.insert((f.path.clone(), Reader::of(f.actor.as_ref())), alert.id);
            }
        }
    }

    /// The alert that the reader of this reading is on.
    fn alert_of(&self, reading: &Reading) -> Option<u64> {
        self.raised.get(&(reading.path.clone(), Reader::of(reading.actor.as_ref()))).copied()
    }
}

impl Warden {
    /// Follows every sensitive file of the baseline.
    pub(super) fn follow_reads(&mut self) {
        self.reads.again_us = None;
        self.reads.why_not = None;
        let wanted = self.held.as_ref().filter(|held| !held.policy.text().sensitive.is_empty());
        let (Some(held), Some(_)) = (wanted, &self.root) else {
            self.reads.readers = None;
            return;
        };
        let is_wanted = |role, kind| role == Role::Sensitive && kind == Kind::File;
        // What cannot be read of the baseline cannot be compared either, which is said where it is.
        let records = held.baseline.iter().flatten().filter(|r| is_wanted(r.role, r.entry.kind));
        let files: Vec<RelPath> = records.map(|r| r.path).take(FILES + 1).collect();
        if !files.is_empty() && self.reads.readers.is_none() {
            let myself = self.myself.clone();
            // The warden is gone only when the daemon stops.
            let started = Readers::start(&self.name_of_reads(), move |hint| {
                myself.send(Message::Reads(hint)).ok();
            });
            match started {
                Ok(readers) => self.reads.readers = Some(readers),
                Err(e) => {
                    self.reads.why_not = Some(format!("no fanotify group: {e}"));
                    return;
                }
            }
        }
        files.iter().for_each(|path| self.follow_reads_of(path));
    }

    /// What stands at a path may be another file than before: follows it, if it is sensitive.
    pub(super) fn follow_reads_again(&mut self, path: &RelPath) {
        // First of all: it is asked of every path that is observed.
        if self.reads.readers.is_none() {
            return;
        }
        if self.held.as_ref().is_some_and(|held| held.policy.classify(path, false).is_sensitive()) {
            self.follow_reads_of(path);
        }
    }

    fn follow_reads_of(&mut self, path: &RelPath) {
        let (Some(readers), Some(root)) = (&self.reads.readers, &self.root) else { return };
        // What is not there, or is no file, is somebody else's finding.
        let Ok(file) = root.locate_file(path) else { return };
        let failed = match readers.files() < FILES {
            true => readers
                .follow(path, &root.path().join(path.as_path()), file.as_fd())
                .err()
                .map(|e| format!("{path}: {e}")),
            false => Some(format!("there are more than {FILES} sensitive files")),
        };
        if let Some(why) = failed {
            self.reads.why_not = Some(format!("not every file is followed: {why}"));
            self.reads.again_us = Some(guard_sys::clock::boottime_micros().saturating_add(AGAIN_US));
        }
    }

    /// Tells what is ours from what is another guardd's on this machine, also at the next start.
    fn name_of_reads(&self) -> String {
        let whose = format!("{:?} {}", self.ward.house.state_dir.path(), self.ward.name);
        let digest = guard_model::ledger::line_hash(whose.as_bytes()).to_string();
        digest.get(..16).unwrap_or_default().to_owned()
    }

    pub(super) fn heard_of_reads(&mut self, hint: ReadHint) {
        match hint {
            ReadHint::Accessed(all) => {
                let readings: Vec<Reading> = all.into_iter().map(|one| self.reading(one)).collect();
                self.raise_reads(&readings);
                let now_us = guard_sys::clock::boottime_micros();
                readings.into_iter().for_each(|reading| self.reads.gathered.add(reading, now_us));
            }
            ReadHint::Missed(why) => self.reads.missed = Some(why),
            ReadHint::Ended(why) => {
                tracing::error!(environment = self.ward.name, why, "reads are not heard of any more");
                self.reads.readers = None;
                self.reads.missed = Some(why.clone());
                self.reads.why_not = Some(why);
                // By other means, perhaps.
                self.reads.again_us = Some(guard_sys::clock::boottime_micros().saturating_add(SOON_US));
            }
        }
    }

    fn reading(&self, told: Accessed) -> Reading {
        let at = now();
        let expected = self.config.readers.as_ref().map(|e| is_expected(e, told.by.as_deref()));
        // Whoever searches for a secret may have it on the command line.
        let actor = told.by.map(|by| Actor { cmdline: None, ..by.actor.as_ref().clone() });
        Reading {
            path: told.path.to_string(),
            access: told.access.into_iter().collect(),
            times: told.times.max(1),
            first: at,
            last: at,
            expected,
            actor,
        }
    }

    /// Those who are not expected, and not yet on an alert that nobody has looked at.
    fn raise_reads(&mut self, readings: &[Reading]) {
        if !Ward::is_locked(&self.state) {
            return;
        }
        let mut findings: Vec<Finding> = Vec::new();
        for reading in readings.iter().filter(|r| r.expected == Some(false)) {
            if self.is_unheard_of(reading) {
                let key = (reading.path.clone(), Reader::of(reading.actor.as_ref()));
                // Until the alert has a number.
                self.reads.raised.insert(key, 0);
                findings.push(finding(reading));
            }
        }
        // Who is not known, or had ended before that could be proven, may be somebody who is expected.
        let expected = self.config.readers.as_ref().map(|e| e.exe.as_slice()).unwrap_or_default();
        let is_stranger = |exe: &str| expected.iter().all(|e| escape(e.as_os_str().as_bytes()) != exe);
        let exe_of = |f: &Finding| f.actor.as_ref().and_then(|a| a.exe.clone());
        let grave = findings.iter().any(|f| exe_of(f).is_some_and(|exe| is_stranger(&exe)));
        let severity = if grave { Severity::Critical } else { Severity::Warning };
        let Some(first) = findings.first() else { return };
        let now_us = guard_sys::clock::boottime_micros();
        let grows = self.reads.group.as_mut().and_then(|(alert, worst, group)| {
            *worst = severity.max(*worst);
            group.takes(now_us).then_some((*alert, *worst))
        });
        let event = match grows {
            Some((alert, severity)) => Event::AlertGrew { alert, severity, findings: findings.clone() },
            None => crate::sessions::alert(severity, title_of(first), findings.clone()),
        };
        let records = self.record(vec![event]);
        let alert = records.first().and_then(guard_model::state::alert_of);
        let Some(alert) = alert else { return };
        if grows.is_none() {
            self.reads.group = Some((alert, severity, Coalescing::open(now_us)));
        }
        for f in &findings {
            self.reads.raised.insert((f.path.clone(), Reader::of(f.actor.as_ref())), alert);
        }
    }

    /// Is this reader on no alert, or on one that somebody has looked at?
    fn is_unheard_of(&mut self, reading: &Reading) -> bool {
        let Some(alert) = self.reads.alert_of(reading) else {
            return self.reads.raised.len() < Readings::READERS;
        };
        let now_us = guard_sys::clock::boottime_micros();
        if now_us.saturating_sub(self.reads.asked_us) < ASKED_AGAIN_US {
            return false;
        }
        self.reads.asked_us = now_us;
        let is_reviewed = matches!(self.ward.house.index().alert(alert), Ok(Some(alert)) if alert.reviewed);
        if is_reviewed {
            self.reads.raised.retain(|_, known| *known != alert);
            self.reads.group = None;
        }
        is_reviewed
    }

    /// Records what is due, and follows again what could not be followed.
    pub(super) fn tell_reads_in_time(&mut self) {
        let now_us = guard_sys::clock::boottime_micros();
        if self.reads.again_us.is_some_and(|at| at <= now_us) {
            self.follow_reads();
        }
        if self.reads.gathered.has_due(now_us) || self.reads.missed.is_some() {
            let due = self.reads.gathered.take_due(now_us);
            self.record_reads(due);
        }
    }

    /// The daemon stops: what was gathered is told now.
    pub(super) fn tell_all_reads(&mut self) {
        self.reads.readers = None;
        let all = self.reads.gathered.take_all();
        self.record_reads(all);
    }

    fn record_reads(&mut self, readings: Vec<Reading>) {
        let uncounted = match self.reads.gathered.take_uncounted() {
            0 => None,
            n => Some(format!("{n} times by more readers than are told apart")),
        };
        let missed = self.reads.missed.take().or(uncounted);
        if !readings.is_empty() || missed.is_some() {
            self.record(vec![Event::Accessed { readings, missed }]);
        }
    }

    /// What stands of it, where anything is sensitive.
    pub(super) fn read_state(&self) -> Option<ReadState> {
        self.held.as_ref().filter(|held| !held.policy.text().sensitive.is_empty())?;
        let files = self.reads.readers.as_ref().map_or(0, Readers::files);
        let readers = self.reads.readers.as_ref();
        let by = readers.map_or("none", Readers::by);
        Some(ReadState {
            by: by.to_owned(),
            files: files as u64,
            why: self.reads.why_not.clone(),
            instead: readers.and_then(Readers::instead).map(str::to_owned),
            expects: self.config.readers.is_some(),
            blind: readers.map(Readers::blind).unwrap_or_default(),
        })
    }

    /// What is wrong with it, where somebody relies on it.
    pub(super) fn read_trouble(&self) -> Option<String> {
        let why = self.reads.why_not.as_ref().filter(|_| self.config.readers.is_some())?;
        Some(format!("who reads sensitive files is not told: {why}"))
    }
}

fn is_expected(expected: &Expected, by: Option<&ReadBy>) -> bool {
    let Some(by) = by else { return false };
    let unit = by
        .service
        .as_deref()
        .is_some_and(|unit| expected.unit.iter().any(|p| wildcard::fits(p.as_bytes(), unit.as_bytes())));
    unit || by.executable.is_some_and(|executable| {
        let is_that = |m: std::fs::Metadata| (m.dev(), m.ino()) == executable;
        expected.exe.iter().any(|program| std::fs::metadata(program).is_ok_and(is_that))
    })
}

fn finding(reading: &Reading) -> Finding {
    Finding {
        path: reading.path.clone(),
        at: reading.last,
        change: vec![Change::Read],
        before: None,
        after: None,
        actor: reading.actor.clone(),
        restored: false,
        note: None,
    }
}
