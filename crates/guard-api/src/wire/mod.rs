//! The types of the interface, field for field as the IDL has them.
//!
//! Enumerations know one value more, `Unknown`, for what a later daemon says;
//! unknown fields are ignored. An absent value is written as `null`.

mod access;
mod alert;
mod backup;
mod deployment;
mod finding;
mod gate;
mod restore;
mod result;
mod status;
mod values;

pub use access::{Access, Reading};
pub use alert::{Alert, AlertStatus, Note, PathEvent, Record, Session, Severity};
pub use backup::{Backup, BackupProof, BackupProofState, BackupProofs, BackupResult, BackupState, Proven};
pub use deployment::{Deployment, DeploymentLine, DeploymentPlan, DeploymentResult, PlannedStep};
pub use finding::{Actor, Change, Confidence, Entry, Finding, Kind};
pub use gate::{Gate, ValidateResult, Verdict};
pub use restore::{Content, FileDiff, FileDiffKind, RestoreResult, RestoreStep};
pub use result::{
    Baseline, CheckResult, DiffResult, LockResult, Problem, Progress, SignedHead, Skipped, UnlockResult,
    VerifyResult,
};
pub use status::{
    Daemon, Environment, Gap, GapCause, Head, ReadState, Rehash, SealState, Sink, State, Totals, WatchState,
    Window,
};
pub use values::ValueMatch;
