//! The vocabulary of guardd and every pure decision: how two entries compare,
//! which paths a policy protects, what a sealed entry looks like, how findings
//! become alerts, and the formats of ledger and baseline.
//!
//! Architecture invariant: nothing here touches a file system, a clock, a
//! thread or a socket. Time comes in as an argument, bytes come in as slices.

#![forbid(unsafe_code)]

pub mod access;
pub mod alert;
pub mod backup;
pub mod baseline;
pub mod compare;
pub mod deploy;
pub mod deployments;
pub mod dotenv;
pub mod entry;
pub mod failure;
pub mod finding;
pub mod ledger;
pub mod path;
pub mod policy;
pub mod put_back;
pub mod retention;
pub mod seal;
pub mod state;
pub mod time;
pub mod whose;
pub mod wildcard;

pub use alert::{Alert, AlertStatus, Severity};
pub use backup::{BackupEntry, BackupId, BackupKind};
pub use compare::{Change, compare};
pub use entry::{Digest, Entry, Kind, Observed, Stamp};
pub use finding::{Actor, Confidence, Finding};
pub use path::RelPath;
pub use policy::{Class, Policy};
pub use seal::Seal;
pub use time::Timestamp;
