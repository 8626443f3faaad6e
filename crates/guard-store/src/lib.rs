//! What must survive: the ledger, the baselines, the host key, lock files,
//! plans of running operations, and the SQLite index over the ledger.
//!
//! Architecture invariant: everything here lives below the state directory and
//! nothing here looks at a protected tree. What is written is on the disk
//! (fsync of file and directory) when a call returns; what is read is checked
//! against a digest or a chain before it is believed, and hostile bytes end in
//! a typed error. Only small manifests, lock files and checkpoints are signed.

#![forbid(unsafe_code)]

pub mod backup;
pub mod baseline;
mod durable;
pub mod error;
pub mod index;
pub mod keys;
pub mod ledger;
pub mod lock_file;
pub mod plan;
mod private_file;
pub mod quarantine;
pub mod state_dir;

pub use backup::{BackupDraft, BackupError, BackupKeys, Backups};
pub use baseline::{Baseline, BaselineWriter, Committed, EncodedRecords, FullRun, ManifestDraft};
pub use error::StoreError;
pub use index::{Index, RecordFilter};
pub use keys::{HostKey, KeyOrigin, PublicKey};
pub use ledger::{Ledger, LedgerBreak, LedgerHandle, LedgerReader, Opened, VerifyReport, verify_files};
pub use lock_file::{LockFileError, LockFileSeen};
pub use plan::{Plan, PlanHeader, PlanKind, PlanStep, RestoreStep};
pub use private_file::{file_digest, write_private};
pub use quarantine::Case;
pub use state_dir::{StateDir, StatePaths};
