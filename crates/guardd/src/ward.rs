//! What a warden and its operations share: the ways to what survives.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, RwLock};

use guard_alert::Sinks;
use guard_model::baseline::{LockFile, LockState};
use guard_model::ledger::{Event, Head, Record};
use guard_model::path::escape;
use guard_model::state::EnvironmentState;
use guard_model::{Change, Digest, Finding, Severity};
use guard_store::{
    BackupKeys, Baseline, HostKey, Index, LedgerHandle, LockFileSeen, PlanHeader, PlanKind, PublicKey,
    StateDir, StoreError,
};

use guard_tree::Root;

use crate::failure::chain;
use crate::operations::now;
use crate::sessions::alert;

/// The daemon's common things, one for the whole process.
pub(crate) struct House {
    pub(crate) state_dir: Arc<StateDir>,
    pub(crate) key: Arc<HostKey>,
    pub(crate) public: PublicKey,
    pub(crate) ledger: LedgerHandle,
    pub(crate) sinks: Arc<Sinks>,
    pub(crate) boot_id: String,
    pub(crate) machine_id: String,
    /// What backups are encrypted to, or why there is no such key.
    pub(crate) backup_keys: Result<Arc<RwLock<BackupKeys>>, String>,
}

impl House {
    /// The index, as of the last durable record.
    pub(crate) fn index(&self) -> &Index {
        self.ledger.index()
    }

    /// A generation of an environment's baseline, verified. Where its records are
    /// damaged they are made anew from what else is signed, which is an alert.
    pub(crate) fn baseline(
        &self,
        name: &str,
        generation: u64,
        digest: &Digest,
    ) -> Result<Baseline, StoreError> {
        let dir = self.state_dir.generation(name, generation)?;
        let open = || Baseline::open(&dir, digest, &self.public);
        open().or_else(|damage| match guard_store::baseline::repair(&dir, digest, &self.public) {
            Ok(repaired) => {
                self.tell_repaired(name, &dir, &repaired, &damage);
                open()
            }
            Err(_) => Err(damage),
        })
    }

    fn tell_repaired(&self, name: &str, dir: &Path, repaired: &[&str], damage: &StoreError) {
        let why = chain(damage);
        tracing::error!(environment = name, why, "a baseline was damaged and is made anew");
        let paths: Vec<String> =
            repaired.iter().map(|file| escape(dir.join(file).as_os_str().as_bytes())).collect();
        let found = paths.iter().map(|path| Finding {
            path: path.clone(),
            at: now(),
            change: vec![Change::Content],
            before: None,
            after: None,
            actor: None,
            restored: true,
            note: Some(why.clone()),
        });
        let opened = alert(
            Severity::Critical,
            format!("the baseline was damaged and made anew: {}", repaired.join(", ")),
            found.collect(),
        );
        let told = self.ledger.append(Some(name.to_owned()), vec![opened]).and_then(|records| {
            let settled = |alert| Event::AlertSettled {
                alert,
                paths,
                how: "made anew as it was signed".to_owned(),
                reviewed: false,
            };
            let alert = records.first().map(|r| r.seq);
            self.ledger.append(Some(name.to_owned()), alert.map(settled).into_iter().collect())
        });
        if let Err(e) = told {
            tracing::error!(error = %chain(&e), "the ledger cannot be written");
        }
    }

    /// Told whenever the ledger grew.
    pub(crate) fn grown(&self) -> Arc<tokio::sync::Notify> {
        let notify = Arc::new(tokio::sync::Notify::new());
        let told = Arc::clone(&notify);
        self.ledger.on_commit(move |_| told.notify_waiters());
        notify
    }
}

/// One environment's name with the house it stands in.
#[derive(Clone)]
pub(crate) struct Ward {
    pub(crate) name: String,
    pub(crate) house: Arc<House>,
}

impl Ward {
    /// Writes events of this environment; durable when it returns.
    pub(crate) fn append(&self, events: Vec<Event>) -> Result<Vec<Record>, StoreError> {
        self.house.ledger.append(Some(self.name.clone()), events)
    }

    /// The head of a plan that is made now.
    pub(crate) fn plan_header(
        &self,
        kind: PlanKind,
        generation: u64,
        root: &Root,
        by: &str,
        reason: &str,
    ) -> PlanHeader {
        PlanHeader {
            environment: self.name.clone(),
            kind,
            generation,
            at: now(),
            by: by.to_owned(),
            reason: reason.to_owned(),
            root: escape(root.path().as_os_str().as_bytes()),
            root_identity: root.identity(),
        }
    }

    /// Writes the lock file that says what `state` says.
    pub(crate) fn write_lock_file(
        &self,
        state: &EnvironmentState,
        root: &Path,
        branches: &[String],
        ledger: Head,
    ) -> Result<Option<LockFileSeen>, StoreError> {
        let Some(baseline) = &state.baseline else { return Ok(None) };
        let file = LockFile {
            environment: self.name.clone(),
            state: state.state,
            generation: baseline.generation,
            baseline: baseline.digest,
            machine_id: self.house.machine_id.clone(),
            since: state.since.unwrap_or_else(crate::operations::now),
            by: state.by.clone().unwrap_or_default(),
            reason: state.reason.clone().unwrap_or_default(),
            root: escape(root.as_os_str().as_bytes()),
            branches: branches.to_vec(),
            ledger,
        };
        guard_store::lock_file::write(&self.house.state_dir, &file, &self.house.key).map(Some)
    }

    /// True where the ledger says that the environment is locked.
    pub(crate) fn is_locked(state: &EnvironmentState) -> bool {
        state.state == LockState::Locked
    }
}
