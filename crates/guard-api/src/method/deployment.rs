//! Methods about deployments.

use serde::{Deserialize, Serialize};

use super::Method;
use crate::wire::{Deployment, DeploymentLine, DeploymentPlan, DeploymentResult, Finding};

/// Makes a new release. The deployment goes on when the caller hangs up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// What to deploy, given to the steps as `GUARDD_REVISION`.
    pub revision: Option<String>,
    /// Why.
    pub reason: Option<String>,
    /// What to skip: `lock`, `integrity`, `validate`, `health`. Wants a reason.
    #[serde(default)]
    pub force: Vec<String>,
    /// Only say what would be done.
    pub plan: Option<bool>,
}

/// A reply to [`Deploy`], [`Rollback`] and [`AttachDeployment`]: first the deployment as it began, then lines, then the
/// deployment as it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentStep {
    /// The deployment, in the first and in the last reply.
    pub deployment: Option<Deployment>,
    /// What it said meanwhile.
    pub lines: Vec<DeploymentLine>,
    /// Where only a plan was asked for.
    pub plan: Option<DeploymentPlan>,
}

/// Brings an earlier release back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollback {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// The deployment whose release is brought back; what stood before the last one where left out.
    pub to: Option<u64>,
    /// Why.
    pub reason: Option<String>,
}

/// Follows the deployment that runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachDeployment {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
}

/// Stops the deployment that runs; it is rolled back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
}
/// The reply to [`Cancel`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelReply {
    /// The deployment that is stopped.
    pub id: u64,
}

/// The deployment that runs and the last ones, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDeployments {
    /// All where left out.
    pub environment: Option<String>,
}
/// The reply to [`ListDeployments`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListDeploymentsReply {
    /// Oldest first.
    pub deployments: Vec<Deployment>,
}

/// One deployment with everything that is known of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowDeployment {
    /// May be left out where there is exactly one.
    pub environment: Option<String>,
    /// Which.
    pub id: u64,
}
/// The reply to [`ShowDeployment`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShowDeploymentReply {
    /// The deployment.
    pub deployment: Deployment,
    /// What its parts brought.
    pub results: Vec<DeploymentResult>,
    /// The last lines of its log.
    pub lines: Vec<DeploymentLine>,
    /// The first changes that count as its own though nobody is known to have made them, or a container engine did.
    #[serde(default)]
    pub assumed: Vec<Finding>,
    /// All of those.
    #[serde(default)]
    pub assumed_total: u64,
}

method!(Deploy, "org.guardd.Control.Deploy", DeploymentStep);
method!(Rollback, "org.guardd.Control.Rollback", DeploymentStep);
method!(AttachDeployment, "org.guardd.Control.AttachDeployment", DeploymentStep);
method!(Cancel, "org.guardd.Control.Cancel", CancelReply);
method!(ListDeployments, "org.guardd.Control.ListDeployments", ListDeploymentsReply);
method!(ShowDeployment, "org.guardd.Control.ShowDeployment", ShowDeploymentReply);
