//! What a deployment is configured to do, what has to hold before it, and how it went. Words and pure decisions alone:
//! what runs anything is elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

mod validation;

pub use validation::{NotAPort, Port, Protocol, Validation};

/// One step of a deployment or of its rollback, run by `sh -c` in the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// `[a-z][a-z0-9-]{0,30}`; names the step in records and units.
    pub name: String,
    /// The command line for `sh -c`.
    pub run: String,
    /// What becomes of it when the deployment is rolled back.
    pub undo: Undo,
    /// How it is undone, where [`Undo::Reversible`].
    pub undo_run: Option<String>,
    /// How long it may take; else the deployment's own [`Deploy::deadline`] holds.
    pub deadline: Option<Duration>,
}

/// What becomes of a step when the deployment is rolled back. Files are put back whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// There is nothing to undo beside the files.
    #[default]
    None,
    /// It only added what the previous release does not mind, as a new column.
    ExpandOnly,
    /// `undo_run` undoes it.
    Reversible,
    /// It cannot be undone: said before it begins.
    Irreversible,
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ExpandOnly => "expand-only",
            Self::Reversible => "reversible",
            Self::Irreversible => "irreversible",
        })
    }
}

/// Something that answers when the application is well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// An HTTP request.
    Http {
        /// `http://` or `https://`.
        url: String,
        /// The status that is well.
        expect: u16,
        /// What the body has to hold.
        body: Option<String>,
    },
    /// A connection that is accepted.
    Tcp {
        /// `host:port`.
        address: String,
    },
    /// A command line for `sh -c` that exits with 0.
    Command {
        /// The command line.
        command: String,
    },
    /// Every service of the compose project runs and is healthy, where it has a health check.
    Compose,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, .. } => f.write_str(url),
            Self::Tcp { address } => write!(f, "tcp {address}"),
            Self::Command { command } => write!(f, "command {command}"),
            Self::Compose => f.write_str("compose healthy"),
        }
    }
}

/// Which compose project an environment runs. Paths are relative to its root.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Compose {
    /// The compose files, in order; empty means what compose finds by itself.
    pub files: Vec<String>,
    /// What `--env-file` names; empty means compose's own default.
    pub env_files: Vec<String>,
    /// The project's name, where it is not compose's own choice.
    pub project: Option<String>,
    /// The services that have to run; empty means all that the files name.
    pub services: Vec<String>,
}

/// How an environment is deployed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deploy {
    /// The user that steps and probes run as.
    pub run_as: String,
    /// What makes the new release, in order.
    pub steps: Vec<Step>,
    /// What brings the old release up again, after its files are back.
    pub rollback: Vec<Step>,
    /// What must answer for a release to be good.
    pub health: Vec<Probe>,
    /// So long everything must be well without a break.
    pub stable_for: Duration,
    /// How long each step may take, and how long the verification.
    pub deadline: Duration,
    /// Locks again after a good deployment of what was locked.
    pub relock: bool,
    /// A locked environment is unlocked for the deployment's own time.
    pub opens_window: bool,
    /// Variables of steps, probes and gates beside the usual ones.
    pub variables: BTreeMap<String, String>,
}

/// What is to be deployed: a branch, tag or commit, given to the steps as `GUARDD_REVISION`.
///
/// `[A-Za-z0-9][A-Za-z0-9._/-]*`, so that it is never taken for an option.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Revision(String);

/// The text is no revision.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a revision: it begins with a letter or digit and holds letters, digits and . _ / - only (200 at most)"
)]
pub struct NotARevision;

impl Revision {
    /// As it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Revision {
    type Err = NotARevision;

    fn from_str(text: &str) -> Result<Self, NotARevision> {
        let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'/' | b'-');
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        match begins && text.len() <= 200 && text.bytes().all(good) {
            true => Ok(Self(text.to_owned())),
            false => Err(NotARevision),
        }
    }
}

impl<'de> Deserialize<'de> for Revision {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Which part of a deployment is under way. Each is in the ledger before it acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Everything that must hold is looked at.
    Preflight,
    /// A locked environment is unlocked.
    Window,
    /// The tree is backed up and the backup read back; images are pinned.
    Backup,
    /// A configured step runs.
    Step,
    /// It is looked whether the application is well.
    Verify,
    /// What was done is recorded, and what was locked is locked again.
    Relock,
    /// Steps are undone, the files put back.
    RollBack,
    /// A configured step of the rollback runs.
    RollBackStep,
    /// It is looked whether the application is as well as it was before.
    VerifyRollBack,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preflight => "preflight",
            Self::Window => "window",
            Self::Backup => "backup",
            Self::Step => "step",
            Self::Verify => "verify",
            Self::Relock => "relock",
            Self::RollBack => "roll-back",
            Self::RollBackStep => "roll-back-step",
            Self::VerifyRollBack => "verify-roll-back",
        })
    }
}

/// What kind of change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentKind {
    /// Configured steps make a new release.
    #[default]
    Deploy,
    /// An earlier release is brought back.
    Rollback,
}

impl fmt::Display for DeploymentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deploy => "deployment",
            Self::Rollback => "rollback",
        })
    }
}

/// How a deployment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeploymentEnd {
    /// The new release is there and was verified.
    Done,
    /// A gate did not hold: nothing had been changed.
    Refused,
    /// Everything is as it was before, and was verified.
    RolledBack,
    /// Neither: somebody has to look.
    NeedsOperator,
}

impl fmt::Display for DeploymentEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Done => "done",
            Self::Refused => "refused",
            Self::RolledBack => "rolled-back",
            Self::NeedsOperator => "needs-operator",
        })
    }
}

/// A container image that a release ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The compose service.
    pub service: String,
    /// The reference that is configured.
    pub image: String,
    /// What it led to.
    pub id: String,
}

/// What one gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It does not.
    Fail,
    /// It could not be told, which counts as not holding.
    Unknown,
    /// It does not hold, and somebody said by name that it need not.
    Waived,
}

impl Verdict {
    /// May a deployment go on?
    #[must_use]
    pub fn lets_pass(self) -> bool {
        matches!(self, Self::Pass | Self::Waived)
    }
}

/// Something that must hold before a deployment, and whether it does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gate {
    /// What is looked at: `lock`, `integrity`, `env`, `compose`, `service`, `probe`, `disk`, …
    pub gate: String,
    /// Which one of its kind: a file, variable, service or URL; empty where there is one only.
    pub subject: String,
    /// Whether it holds.
    pub verdict: Verdict,
    /// What was seen, for people; never a value of a sensitive file.
    pub evidence: String,
    /// How to look by hand.
    pub by_hand: String,
}

/// What `--force` may skip. Never another deployment under way, the backup or the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Force {
    /// A locked environment that opens no window is unlocked for the deployment.
    Lock,
    /// The tree differs from its baseline.
    Integrity,
    /// Any other gate.
    Validate,
    /// The new release is not verified, or its probes failed before already.
    Health,
}

impl Force {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Lock, Self::Integrity, Self::Validate, Self::Health];

    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Integrity => "integrity",
            Self::Validate => "validate",
            Self::Health => "health",
        }
    }
}

impl fmt::Display for Force {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// There is no such gate to skip.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a gate that can be skipped: lock, integrity, validate, health")]
pub struct NotForced;

impl FromStr for Force {
    type Err = NotForced;

    fn from_str(text: &str) -> Result<Self, NotForced> {
        Self::ALL.into_iter().find(|f| f.word() == text).ok_or(NotForced)
    }
}

impl Serialize for Force {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for Force {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_no_option_and_no_shell() {
        for good in ["main", "v1.2.3", "release/2026-11", "0a1b2c", "a", "feature/x_y"] {
            assert_eq!(good.parse::<Revision>().map(|r| r.to_string()), Ok(good.to_owned()));
        }
        for bad in
            ["", "-x", "--upload-pack=x", ".hidden", "/abs", "a b", "a;b", "a$b", "a\nb", "ä", "a~1", "a:b"]
        {
            assert_eq!(bad.parse::<Revision>(), Err(NotARevision), "{bad:?}");
        }
        assert!("a".repeat(201).parse::<Revision>().is_err());
        assert!(serde_json::from_str::<Revision>("\"-x\"").is_err());
    }

    #[test]
    fn what_could_not_be_told_does_not_pass() {
        assert!(!Verdict::Unknown.lets_pass() && !Verdict::Fail.lets_pass());
        assert!(Verdict::Pass.lets_pass() && Verdict::Waived.lets_pass());
    }

    #[test]
    fn only_named_gates_are_skipped() {
        for force in Force::ALL {
            assert_eq!(force.word().parse::<Force>(), Ok(force));
        }
        for never in ["backup", "record", "deployment", "all", ""] {
            assert_eq!(never.parse::<Force>(), Err(NotForced));
        }
    }
}
