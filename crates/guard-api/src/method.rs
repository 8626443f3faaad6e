//! The methods: for each a type that is its parameters and knows its name and reply.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::wire::{
    Alert, Baseline, CheckResult, Daemon, DiffResult, Entry, Environment, Head, LockResult, PathEvent,
    Progress, Reading, Record, SignedHead, UnlockResult, VerifyResult,
};

mod restore;
mod validate;
mod values;

pub use restore::Restore;
pub use validate::Validate;
pub use values::{FindValues, FindValuesReply};

/// A method of the interface; the value is the parameters of one call.
pub trait Method: Serialize + DeserializeOwned {
    /// The full name, as it stands in a call.
    const NAME: &'static str;
    /// The parameters of a reply.
    type Reply: Serialize + DeserializeOwned;
}

/// The full names of all methods of `org.guardd.Control`, in the order of the IDL.
pub const NAMES: [&str; 35] = [
    Status::NAME,
    Lock::NAME,
    Unlock::NAME,
    Check::NAME,
    Diff::NAME,
    Validate::NAME,
    Accept::NAME,
    Restore::NAME,
    Deploy::NAME,
    Rollback::NAME,
    AttachDeployment::NAME,
    Cancel::NAME,
    ListDeployments::NAME,
    ShowDeployment::NAME,
    ListAlerts::NAME,
    ShowAlert::NAME,
    AcknowledgeAlert::NAME,
    Watch::NAME,
    Log::NAME,
    VerifyLog::NAME,
    ExportLog::NAME,
    ExportBaseline::NAME,
    ListBaselines::NAME,
    InitBackup::NAME,
    CreateBackup::NAME,
    ListBackups::NAME,
    VerifyBackup::NAME,
    DrillBackup::NAME,
    PruneBackups::NAME,
    PinBackup::NAME,
    ExportBackup::NAME,
    Reload::NAME,
    Who::NAME,
    Reads::NAME,
    FindValues::NAME,
];

macro_rules! method {
    ($params:ident, $name:literal, $reply:ty) => {
        impl Method for $params {
            const NAME: &'static str = $name;
            type Reply = $reply;
        }
    };
}

mod backup;
mod deployment;
pub use backup::{
    CreateBackup, DrillBackup, ExportBackup, ExportBackupReply, InitBackup, InitBackupReply, ListBackups,
    ListBackupsReply, PinBackup, PinBackupReply, PruneBackups, PruneBackupsReply, VerifyBackup,
};
pub use deployment::{
    AttachDeployment, Cancel, CancelReply, Deploy, DeploymentStep, ListDeployments, ListDeploymentsReply,
    Rollback, ShowDeployment, ShowDeploymentReply,
};

/// A reply of a method that streams progress: progress replies, then one result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
pub struct Step<T> {
    /// Set in every reply but the last.
    pub progress: Option<Progress>,
    /// Set in the last reply.
    pub result: Option<T>,
}

impl<T> Step<T> {
    /// A reply that tells how far it is.
    #[must_use]
    pub fn progress(phase: &str, done: u64, total: Option<u64>) -> Self {
        Self { progress: Some(Progress { phase: phase.to_owned(), done, total }), result: None }
    }

    /// The last reply.
    #[must_use]
    pub fn result(result: T) -> Self {
        Self { progress: None, result: Some(result) }
    }
}

/// How the daemon and its environments stand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {}
/// The reply to [`Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusReply {
    /// The daemon.
    pub daemon: Daemon,
    /// In the order of their names.
    pub environments: Vec<Environment>,
}
method!(Status, "org.guardd.Control.Status", StatusReply);

/// Takes a baseline, seals, guards; or repairs a lock.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// Although something speaks against it.
    pub anyway: Option<bool>,
    /// Give hard-linked files an inode of their own.
    pub break_links: Option<bool>,
}
method!(Lock, "org.guardd.Control.Lock", Step<LockResult>);

/// Opens a maintenance window.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlock {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// Why; an empty one is `ReasonRequired`.
    #[serde(default)]
    pub reason: String,
    /// Who answers for it; an empty one is `MaintainerRequired`.
    #[serde(default)]
    pub maintainer: String,
    /// The window's length; the configured one where left out.
    pub for_seconds: Option<u64>,
    /// Although no backup can be made.
    pub anyway: Option<bool>,
}
method!(Unlock, "org.guardd.Control.Unlock", Step<UnlockResult>);

/// Compares the tree with the baseline now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// Read contents only where metadata differ.
    pub quick: Option<bool>,
}
method!(Check, "org.guardd.Control.Check", Step<CheckResult>);

/// What differs from the last baseline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diff {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// This path and below only, escaped.
    pub path: Option<String>,
}
method!(Diff, "org.guardd.Control.Diff", Step<DiffResult>);

/// Makes the present state of paths with open findings part of a new baseline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accept {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// Escaped; one that ends in a slash stands for all open findings below.
    pub paths: Vec<String>,
    /// Why; an empty one is `ReasonRequired`.
    #[serde(default)]
    pub reason: String,
}
/// The reply to [`Accept`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcceptReply {
    /// The environment's name.
    pub environment: String,
    /// The new baseline's number.
    pub generation: u64,
    /// Escaped.
    pub accepted: Vec<String>,
    /// Anything else that the caller should know.
    #[serde(default)]
    pub warnings: Vec<String>,
}
method!(Accept, "org.guardd.Control.Accept", AcceptReply);

/// Alerts, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAlerts {
    /// All environments where left out.
    pub environment: Option<String>,
    /// Resolved ones too.
    pub all: Option<bool>,
}
/// The reply to [`ListAlerts`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListAlertsReply {
    /// Each with its first findings.
    pub alerts: Vec<Alert>,
}
method!(ListAlerts, "org.guardd.Control.ListAlerts", ListAlertsReply);

/// One alert with its findings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowAlert {
    /// The alert.
    pub id: u64,
}
/// The reply to [`ShowAlert`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowAlertReply {
    /// The alert.
    pub alert: Alert,
    /// Lines of sudo and ssh from the journal, from before it opened.
    #[serde(default)]
    pub journal: Vec<String>,
}
method!(ShowAlert, "org.guardd.Control.ShowAlert", ShowAlertReply);

/// Notes that a person has looked at an alert.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgeAlert {
    /// The alert.
    pub id: u64,
    /// What the person says.
    #[serde(default)]
    pub note: String,
}
/// The reply to [`AcknowledgeAlert`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcknowledgeAlertReply {
    /// The alert as it stands now.
    pub alert: Alert,
}
method!(AcknowledgeAlert, "org.guardd.Control.AcknowledgeAlert", AcknowledgeAlertReply);

/// Live events; needs `more`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// All environments where left out.
    pub environment: Option<String>,
}
/// One reply to [`Watch`]: exactly one of the fields is set.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchReply {
    /// The first reply: what comes after this record will be told.
    pub head: Option<Head>,
    /// A ledger record.
    pub record: Option<Record>,
    /// So many records were not sent since the client did not read.
    pub lost: Option<u64>,
}
method!(Watch, "org.guardd.Control.Watch", WatchReply);

/// Ledger records, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Log {
    /// All environments, and the daemon's own records, where left out.
    pub environment: Option<String>,
    /// The last so many; 100 where left out.
    pub limit: Option<u64>,
    /// With `more`: go on with what comes.
    pub follow: Option<bool>,
}
/// One reply to [`Log`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LogReply {
    /// Oldest first.
    pub records: Vec<Record>,
    /// So many records were not sent since the client did not read.
    pub lost: Option<u64>,
}
method!(Log, "org.guardd.Control.Log", LogReply);

/// Verifies the whole ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyLog {}
method!(VerifyLog, "org.guardd.Control.VerifyLog", Step<VerifyResult>);

/// The signed head, and all lines of the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportLog {
    /// The head alone.
    pub head_only: Option<bool>,
}
/// One reply to [`ExportLog`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportLogReply {
    /// Exactly as they are, without their newlines.
    pub lines: Vec<String>,
    /// Set in the last reply.
    pub head: Option<SignedHead>,
}
method!(ExportLog, "org.guardd.Control.ExportLog", ExportLogReply);

/// The open files of a baseline generation; needs `more`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportBaseline {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// The current one where left out.
    pub generation: Option<u64>,
    /// This file alone.
    pub file: Option<String>,
}
/// One reply to [`ExportBaseline`]: a part of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExportBaselineReply {
    /// The environment's name.
    pub environment: String,
    /// The baseline's number.
    pub generation: u64,
    /// The root that the paths in `SHA256SUMS` are relative to, escaped.
    pub root: String,
    /// The file's name.
    pub file: String,
    /// The whole file's size, bytes.
    pub size: u64,
    /// The next part of it.
    #[serde(with = "base64")]
    pub data: Vec<u8>,
}
method!(ExportBaseline, "org.guardd.Control.ExportBaseline", ExportBaselineReply);

/// The generations kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListBaselines {
    /// All environments where left out.
    pub environment: Option<String>,
}
/// The reply to [`ListBaselines`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListBaselinesReply {
    /// Oldest first.
    pub baselines: Vec<Baseline>,
}
method!(ListBaselines, "org.guardd.Control.ListBaselines", ListBaselinesReply);

/// Reads the configuration again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {}
/// The reply to [`Reload`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReply {
    /// SHA-256 of the configuration's files, in hexadecimal.
    pub sha256: String,
    /// The environments in force.
    pub environments: Vec<String>,
    /// What is different now, in words.
    #[serde(default)]
    pub changed: Vec<String>,
}
method!(Reload, "org.guardd.Control.Reload", ReloadReply);

/// Everything that happened to a path.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// Escaped, relative to the root.
    pub path: String,
}
/// The reply to [`Who`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoReply {
    /// The environment's name.
    pub environment: String,
    /// The path.
    pub path: String,
    /// What the current baseline wants; `None` where it has no such path.
    pub expected: Option<Entry>,
    /// Oldest first.
    pub history: Vec<PathEvent>,
}
method!(Who, "org.guardd.Control.Who", WhoReply);

/// Who opened or read sensitive files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reads {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// Escaped, relative to the root; `None` for all.
    pub path: Option<String>,
}
/// The reply to [`Reads`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadsReply {
    /// The environment's name.
    pub environment: String,
    /// The path that was asked for.
    pub path: Option<String>,
    /// The last ones, oldest first.
    pub reads: Vec<Reading>,
    /// Why there were more of whom nothing is known, oldest first.
    pub missed: Vec<String>,
}
method!(Reads, "org.guardd.Control.Reads", ReadsReply);

/// What the service is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetInfo {}
/// The reply to [`GetInfo`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetInfoReply {
    /// Who makes it.
    pub vendor: String,
    /// `guardd`.
    pub product: String,
    /// Its version.
    pub version: String,
    /// Where to read more.
    pub url: String,
    /// The interfaces it has.
    pub interfaces: Vec<String>,
}
method!(GetInfo, "org.varlink.service.GetInfo", GetInfoReply);

/// The description of an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetInterfaceDescription {
    /// Its name.
    pub interface: String,
}
/// The reply to [`GetInterfaceDescription`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GetInterfaceDescriptionReply {
    /// The IDL.
    pub description: String,
}
method!(GetInterfaceDescription, "org.varlink.service.GetInterfaceDescription", GetInterfaceDescriptionReply);

mod base64 {
    use base64ct::{Base64, Encoding};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&Base64::encode_string(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        Base64::decode_vec(&String::deserialize(d)?).map_err(|_| serde::de::Error::custom("not base64"))
    }
}
