//! An environment's backups, as its warden keeps them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};

use guard_api::Known;
use guard_api::wire::{BackupState, Proven};
use guard_model::ledger::Event;
use guard_model::{BackupId, Policy, Severity};
use guard_store::backup::{Backups, Remembered};
use guard_store::index::AlertScope;
use guard_tree::Root;

use super::Warden;
use super::troubles::Topic;
use crate::comparer::Expectation;
use crate::operations::backup::{BackedUp, Cause, OnNoBackup, Safety, Vault};
use crate::operations::{OperationError, Work};
use crate::sessions::alert;
use crate::ward::Ward;
use crate::wire::time;

/// The backups that were opened, and the `backup.dir` that they were opened by.
pub(super) type Opened = Option<(Option<PathBuf>, Arc<Backups>)>;

/// What making and reading backups needs, beside the warden.
pub(crate) struct BackupView {
    pub(crate) ward: Ward,
    pub(crate) vault: Vault,
    /// Or why there is none to back up now.
    pub(crate) root: Result<Arc<Root>, Known>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) expectation: Option<Expectation>,
    pub(crate) generation: Option<u64>,
}

impl BackupView {
    /// Backs up the tree as it stands.
    pub(crate) fn store(&self, root: &Root, cause: Cause, work: &Work) -> Result<BackedUp, OperationError> {
        self.vault.store_tree(&self.ward, root, &self.policy, self.expectation.as_ref(), cause, work)
    }
}

impl Warden {
    pub(super) fn backup_view(&mut self) -> Result<BackupView, Known> {
        let vault = self.vault().map_err(|why| Known::Failed {
            message: format!("backups cannot be kept: {why}"),
            hint: Some("put that right; guardd tries again at the next command".to_owned()),
        })?;
        // What an operation is changing is neither the tree before it nor the one after.
        let root = match &self.running {
            Some(running) => {
                Err(Known::Busy { environment: self.ward.name.clone(), operation: running.name.to_owned() })
            }
            None => self.root_in_place(),
        };
        Ok(BackupView {
            ward: self.ward.clone(),
            vault,
            root,
            policy: self.policy(),
            expectation: self.expectation(),
            generation: self.state.baseline.as_ref().map(|b| b.generation),
        })
    }

    /// For `status`.
    pub(super) fn backup_state(&self) -> Option<BackupState> {
        let known = &self.state.backups;
        let proven = |p: &guard_model::state::Proven| Proven {
            id: p.id.to_string(),
            at: time(p.at),
            files: p.files,
            bytes: p.bytes,
        };
        let keys = self.ward.house.backup_keys.as_ref().ok();
        Some(BackupState {
            kept: known.known.len() as u64,
            keep: self.config.backup.keep.into(),
            newest: known.newest.as_ref().map(|n| n.id.to_string()),
            newest_kind: known.newest.as_ref().map(|n| n.kind.to_string()),
            newest_at: known.newest.as_ref().map(|n| time(n.at)),
            last_verified: known.last_verified.as_ref().map(proven),
            last_drill: known.last_drill.as_ref().map(proven),
            recovery_key: keys.and_then(|k| k.read().unwrap_or_else(PoisonError::into_inner).recovery()),
        })
    }

    /// Opens the backups, if that has not been done, or `backup.dir` is another by now.
    pub(super) fn vault(&mut self) -> Result<Vault, String> {
        let keep = self.config.backup.keep;
        if let Some((dir, backups)) = &self.backups
            && *dir == self.config.backup.dir
        {
            return Ok(Vault { backups: Arc::clone(backups), keep });
        }
        let opened = self.open_backups();
        match &opened {
            Ok(backups) => {
                self.troubles.end(Topic::Backups);
                self.backups = Some((self.config.backup.dir.clone(), Arc::clone(backups)));
                self.compare_with_ledger(backups);
            }
            Err(why) => {
                tracing::error!(environment = self.ward.name, why, "backups cannot be kept");
                self.troubles.begin(Topic::Backups, format!("backups cannot be kept: {why}"));
            }
        }
        opened.map(|backups| Vault { backups, keep })
    }

    /// The backup that an operation makes first.
    pub(super) fn safety(&mut self, on_no_backup: OnNoBackup) -> Safety {
        Safety { vault: self.vault(), on_no_backup }
    }

    fn open_backups(&self) -> Result<Arc<Backups>, String> {
        let house = &self.ward.house;
        let keys = house.backup_keys.clone()?;
        let known = &self.state.backups;
        let remembered = Remembered { manifests: known.known.clone(), last_number: known.last_number };
        Backups::open(
            &house.state_dir,
            self.config.backup.dir.as_deref(),
            &self.ward.name,
            &house.machine_id,
            keys,
            house.public.clone(),
            remembered,
        )
        .map(Arc::new)
        .map_err(|e| e.with_causes())
    }

    /// A backup that was made just before a crash is told to the ledger, and so is one that stands again or still
    /// though the ledger was told that it goes; one that the ledger knows and that is gone is an alert.
    fn compare_with_ledger(&mut self, backups: &Backups) {
        let Ok(listed) = backups.list() else { return };
        let there: BTreeSet<&BackupId> = listed.iter().map(|b| &b.id).collect();
        let gone: Vec<String> = self
            .state
            .backups
            .known
            .keys()
            .filter(|id| !there.contains(id))
            .map(ToString::to_string)
            .collect();
        let mut events = Vec::new();
        if !gone.is_empty() {
            let title = format!("backups are gone that nobody removed by guardd: {}", gone.join(", "));
            self.troubles.begin(Topic::BackupsGone, title.clone());
            let unresolved = self.ward.house.index().alerts(Some(&self.ward.name), AlertScope::Unresolved);
            // Said once, not at each start.
            if !unresolved.is_ok_and(|alerts| alerts.iter().any(|a| a.title == title)) {
                events.push(alert(Severity::High, title, Vec::new()));
            }
        }
        let known = &self.state.backups.known;
        for backup in listed.into_iter().filter(|b| !known.contains_key(&b.id)) {
            if let Ok((m, manifest)) = backup.manifest {
                events.push(Event::BackupCreated {
                    backup: m.id,
                    manifest,
                    kind: m.kind,
                    by: m.by,
                    note: m.note,
                    generation: m.generation,
                    totals: m.totals,
                    missing: m.missing,
                    written: 0,
                });
            }
        }
        self.record(events);
    }
}
