//! What the ledger says of an environment's deployments: a fold over its records.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::backup::BackupId;
use crate::deploy::{DeploymentEnd, DeploymentKind, Force, Image, Phase};
use crate::ledger::{Event, Record};
use crate::time::Timestamp;

/// One deployment, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Ledger number of its `deployment_started`.
    pub id: u64,
    /// Deployment or rollback.
    pub kind: DeploymentKind,
    /// When it began.
    pub since: Timestamp,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What is deployed.
    pub revision: Option<String>,
    /// What git said before.
    pub revision_before: Option<String>,
    /// What it skips.
    pub force: Vec<Force>,
    /// It was locked when it began.
    #[serde(default)]
    pub locked: bool,
    /// It is locked afterwards.
    pub relock: bool,
    /// Of a rollback: the backup that it brings back.
    pub to: Option<BackupId>,
    /// The part under way, or the last one.
    pub phase: Option<Phase>,
    /// The step under way, or the last one.
    pub step: Option<String>,
    /// How often a rollback was begun: one that is cut short each time is not tried for ever.
    #[serde(default)]
    pub rollbacks: u32,
    /// The steps that were begun, in order.
    #[serde(default)]
    pub begun: Vec<String>,
    /// The probes that failed before the first step: what they say afterwards proves nothing.
    #[serde(default)]
    pub failed_before: Vec<String>,
    /// What it would be rolled back to.
    pub backup: Option<BackupId>,
    /// The images that ran before.
    #[serde(default)]
    pub images_before: Vec<Image>,
    /// How it ended, once it has.
    pub ended: Option<Ended>,
}

/// How a deployment ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// How.
    pub end: DeploymentEnd,
    /// In one line.
    pub why: String,
    /// What git said afterwards.
    pub revision_after: Option<String>,
    /// Paths that differ from before.
    pub changed: u64,
    /// The images that ran afterwards.
    pub images: Vec<Image>,
    /// The backup of what it left.
    pub release: Option<BackupId>,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
}

impl Deployment {
    /// Has anything been changed that a rollback has to undo?
    #[must_use]
    pub fn has_acted(&self) -> bool {
        self.phase.is_some_and(|phase| phase >= Phase::Step)
    }

    /// Was it verified, so that only its record is missing?
    #[must_use]
    pub fn is_verified(&self) -> bool {
        self.phase == Some(Phase::Relock)
    }

    /// Did it end well?
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.ended.as_ref().is_some_and(|e| e.end == DeploymentEnd::Done)
    }

    /// What stood before it, and what it left.
    fn backups(&self) -> impl Iterator<Item = &BackupId> {
        self.backup.iter().chain(self.ended.iter().filter_map(|e| e.release.as_ref()))
    }
}

/// An environment's deployments.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Deployments {
    /// The one that runs, or ran when guardd was ended.
    pub running: Option<Deployment>,
    /// The last ones that ended, oldest first; all of them stay in the ledger.
    pub past: Vec<Deployment>,
    /// One could neither be finished nor rolled back: which, and why. Cleared by a good one, or by a lock.
    pub needs_operator: Option<(u64, String)>,
    /// Backups that guardd pinned for them; those that somebody else pinned are that person's business.
    pub pinned: BTreeSet<BackupId>,
}

impl Deployments {
    /// Past ones that are kept for listings; whatever is kept to be rolled back is among them.
    pub const LISTED: usize = 50;
    /// So many good ones can be rolled back.
    pub const KEPT: usize = 3;
    /// Who pins backups for them, as the ledger says it.
    pub const PINNED_BY: &str = "guardd";

    /// Those that somebody may go back over, the newest first: the one that runs, the one that needs an operator, and
    /// the last good ones. Their backups and the images that ran before them are kept. One that failed and was rolled
    /// back takes no good one's place.
    pub fn kept(&self) -> impl Iterator<Item = &Deployment> {
        // One that is verified is good, and only its record is missing.
        let counted = self.running.as_ref().is_some_and(Deployment::is_verified);
        let mut good = Self::KEPT - usize::from(counted);
        let failed = self.needs_operator.as_ref().map(|(id, _)| *id);
        let past = self.past.iter().rev().filter(move |d| {
            let is_kept = d.is_done() && good > 0;
            good -= usize::from(is_kept);
            is_kept || Some(d.id) == failed
        });
        self.running.iter().chain(past)
    }

    /// The backups of those that are [`Deployments::kept`]: what stood before each, and what it left.
    #[must_use]
    pub fn kept_backups(&self) -> BTreeSet<BackupId> {
        self.kept().flat_map(Deployment::backups).cloned().collect()
    }

    /// A deployment of that id.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&Deployment> {
        self.running.iter().chain(&self.past).find(|d| d.id == id)
    }

    /// The newest that left a release of its own.
    #[must_use]
    pub fn last_done(&self) -> Option<&Deployment> {
        self.past.iter().rev().find(|d| d.is_done())
    }

    /// Can such an event change anything here?
    #[must_use]
    pub fn hears(event: &Event) -> bool {
        matches!(
            event,
            Event::DeploymentStarted { .. }
                | Event::DeploymentPhase { .. }
                | Event::DeploymentResult { .. }
                | Event::DeploymentSecured { .. }
                | Event::DeploymentEnded { .. }
                | Event::BackupPinned { .. }
                | Event::BackupPruned { .. }
                | Event::Locked { .. }
        )
    }

    /// Takes in one record of the environment.
    pub fn apply(&mut self, record: &Record) {
        if !Self::hears(&record.event) {
            return;
        }
        match &record.event {
            Event::DeploymentStarted { kind, by, reason, revision, force, locked, relock, to } => {
                self.running = Some(Deployment {
                    id: record.seq,
                    kind: *kind,
                    since: record.at,
                    by: by.clone(),
                    reason: reason.clone(),
                    revision: revision.clone(),
                    revision_before: None,
                    force: force.clone(),
                    locked: *locked,
                    relock: *relock,
                    to: to.clone(),
                    phase: None,
                    step: None,
                    rollbacks: 0,
                    begun: Vec::new(),
                    failed_before: Vec::new(),
                    backup: None,
                    images_before: Vec::new(),
                    ended: None,
                });
            }
            Event::DeploymentEnded { .. } => self.end(record),
            Event::BackupPinned { backup, pinned: true, by } if by == Self::PINNED_BY => {
                self.pinned.insert(backup.clone());
            }
            Event::BackupPinned { backup, .. } => {
                self.pinned.remove(backup);
            }
            Event::BackupPruned { backups, .. } => self.pinned.retain(|id| !backups.contains(id)),
            // Whoever locks has looked, and says that this is how it should be.
            Event::Locked { .. } => self.needs_operator = None,
            event => {
                if let Some(running) = &mut self.running {
                    running.apply(event);
                }
            }
        }
    }

    fn end(&mut self, record: &Record) {
        let Event::DeploymentEnded {
            deployment,
            end,
            why,
            revision_after,
            changed,
            images,
            release,
            duration_ms,
        } = &record.event
        else {
            return;
        };
        let Some(mut ended) = self.running.take_if(|d| d.id == *deployment) else { return };
        match end {
            DeploymentEnd::NeedsOperator => self.needs_operator = Some((*deployment, why.clone())),
            DeploymentEnd::Done | DeploymentEnd::RolledBack => self.needs_operator = None,
            DeploymentEnd::Refused => {}
        }
        ended.ended = Some(Ended {
            at: record.at,
            end: *end,
            why: why.clone(),
            revision_after: revision_after.clone(),
            changed: *changed,
            images: images.clone(),
            release: release.clone(),
            duration_ms: *duration_ms,
        });
        self.past.push(ended);
        while self.past.len() > Self::LISTED {
            let kept: Vec<u64> = self.kept().map(|d| d.id).collect();
            let oldest = self.past.iter().position(|d| !kept.contains(&d.id)).unwrap_or(0);
            self.past.remove(oldest);
        }
    }
}

impl Deployment {
    fn apply(&mut self, event: &Event) {
        match event {
            Event::DeploymentPhase { deployment, phase, step } if *deployment == self.id => {
                self.phase = Some(*phase);
                self.step.clone_from(step);
                match (phase, step) {
                    (Phase::Step, Some(step)) => self.begun.push(step.clone()),
                    (Phase::RollBack, _) => self.rollbacks += 1,
                    _ => {}
                }
            }
            Event::DeploymentResult {
                deployment,
                phase: Phase::Preflight,
                step: Some(probe),
                ok: false,
                ..
            } if *deployment == self.id => {
                self.failed_before.push(probe.clone());
            }
            Event::DeploymentSecured { deployment, backup, revision, images } if *deployment == self.id => {
                self.backup = Some(backup.clone());
                self.revision_before.clone_from(revision);
                self.images_before.clone_from(images);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Digest;

    fn record(seq: u64, event: Event) -> Record {
        Record { seq, at: Timestamp(0), prev: Digest([0; 32]), environment: Some("site".into()), event }
    }

    fn started() -> Event {
        Event::DeploymentStarted {
            kind: DeploymentKind::Deploy,
            by: "me".into(),
            reason: "because".into(),
            revision: Some("main".into()),
            force: vec![],
            locked: true,
            relock: true,
            to: None,
        }
    }

    fn ended(deployment: u64, end: DeploymentEnd) -> Event {
        Event::DeploymentEnded {
            deployment,
            end,
            why: "so".into(),
            revision_after: None,
            changed: 3,
            images: vec![],
            release: None,
            duration_ms: 5,
        }
    }

    #[test]
    fn what_was_begun_is_known_when_guardd_was_killed() {
        let mut all = Deployments::default();
        all.apply(&record(7, started()));
        assert!(!all.running.as_ref().is_some_and(Deployment::has_acted));
        let phase = |phase, step: Option<&str>| Event::DeploymentPhase {
            deployment: 7,
            phase,
            step: step.map(Into::into),
        };
        all.apply(&record(8, phase(Phase::Backup, None)));
        all.apply(&record(9, phase(Phase::Step, Some("fetch"))));
        all.apply(&record(10, phase(Phase::Step, Some("up"))));
        let running = all.running.clone().unwrap_or_else(|| panic!("it runs"));
        assert!(running.has_acted() && !running.is_verified());
        assert_eq!(running.begun, ["fetch", "up"]);
        all.apply(&record(11, ended(7, DeploymentEnd::RolledBack)));
        assert_eq!((all.running.as_ref(), all.past.len()), (None, 1));
        assert_eq!(all.last_done(), None);
    }

    #[test]
    fn who_has_to_look_is_said_until_a_lock_or_a_good_one() {
        let mut all = Deployments::default();
        all.apply(&record(1, started()));
        all.apply(&record(2, ended(1, DeploymentEnd::NeedsOperator)));
        assert_eq!(all.needs_operator, Some((1, "so".into())));
        all.apply(&record(3, started()));
        all.apply(&record(4, ended(3, DeploymentEnd::Refused)));
        assert!(all.needs_operator.is_some());
        all.apply(&record(5, started()));
        all.apply(&record(6, ended(5, DeploymentEnd::Done)));
        assert_eq!(all.needs_operator, None);
        assert_eq!(all.last_done().map(|d| d.id), Some(5));
    }

    #[test]
    fn listings_stay_short() {
        let mut all = Deployments::default();
        for n in 0..200 {
            all.apply(&record(2 * n + 1, started()));
            all.apply(&record(2 * n + 2, ended(2 * n + 1, DeploymentEnd::Done)));
        }
        assert_eq!(all.past.len(), Deployments::LISTED);
        assert_eq!(all.past.last().map(|d| d.id), Some(399));
    }

    fn phase(deployment: u64, phase: Phase) -> Event {
        Event::DeploymentPhase { deployment, phase, step: None }
    }

    /// A deployment with a backup of that number, begun by record 10 times that.
    fn begin(all: &mut Deployments, number: u64) {
        let id = 10 * number;
        all.apply(&record(id, started()));
        let backup = BackupId::new(number, Timestamp(0));
        all.apply(&record(
            id + 1,
            Event::DeploymentSecured { deployment: id, backup, revision: None, images: vec![] },
        ));
    }

    fn went(all: &mut Deployments, number: u64, end: DeploymentEnd) {
        begin(all, number);
        all.apply(&record(10 * number + 2, ended(10 * number, end)));
    }

    fn kept(all: &Deployments) -> Vec<u64> {
        all.kept().map(|d| d.id / 10).collect()
    }

    #[test]
    fn one_that_failed_takes_no_good_ones_place() {
        let mut all = Deployments::default();
        for number in 1..=4 {
            went(&mut all, number, DeploymentEnd::Done);
        }
        for number in 5..=9 {
            went(&mut all, number, DeploymentEnd::RolledBack);
        }
        assert_eq!(kept(&all), [4, 3, 2]);
        // While it runs nobody knows whether it is good.
        begin(&mut all, 10);
        assert_eq!(kept(&all), [10, 4, 3, 2]);
        all.apply(&record(105, phase(100, Phase::Relock)));
        assert_eq!(kept(&all), [10, 4, 3]);
        let sequences: Vec<u64> = all.kept_backups().iter().map(BackupId::sequence).collect();
        assert_eq!(sequences, [3, 4, 10]);
        all.apply(&record(106, ended(100, DeploymentEnd::NeedsOperator)));
        assert_eq!(kept(&all), [10, 4, 3, 2]);
    }

    #[test]
    fn however_many_are_refused_the_good_ones_stay_known() {
        let mut all = Deployments::default();
        went(&mut all, 1, DeploymentEnd::Done);
        for number in 2..=200 {
            went(&mut all, number, DeploymentEnd::Refused);
        }
        assert_eq!((kept(&all), all.past.len()), (vec![1], Deployments::LISTED));
        assert_eq!(all.last_done().map(|d| d.id), Some(10));
    }

    #[test]
    fn what_a_person_pins_is_not_guardds_to_free() {
        let pin = |number, pinned, by: &str| {
            let backup = BackupId::new(number, Timestamp(0));
            Event::BackupPinned { backup, pinned, by: by.to_owned() }
        };
        let mut all = Deployments::default();
        all.apply(&record(1, pin(1, true, Deployments::PINNED_BY)));
        all.apply(&record(2, pin(2, true, "operator")));
        all.apply(&record(3, pin(3, true, Deployments::PINNED_BY)));
        all.apply(&record(4, pin(3, false, "operator")));
        assert_eq!(all.pinned, BTreeSet::from([BackupId::new(1, Timestamp(0))]));
    }
}
