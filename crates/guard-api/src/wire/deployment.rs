//! Deployments and what their steps print.

use serde::{Deserialize, Serialize};

use crate::time::Time;

/// One deployment, or the rollback of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// Ledger number of its `deployment_started`.
    pub id: u64,
    /// The environment's name.
    pub environment: String,
    /// `deploy` or `rollback`.
    pub kind: String,
    /// When it began.
    pub since: Time,
    /// Who asked for it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What was asked to be deployed.
    pub revision: Option<String>,
    /// The commit that stood there before.
    pub revision_before: Option<String>,
    /// The commit that stood there afterwards.
    pub revision_after: Option<String>,
    /// What it skipped: `lock`, `integrity`, `validate`, `health`.
    pub force: Vec<String>,
    /// The part under way, or the last one.
    pub phase: Option<String>,
    /// The step under way, or the last one.
    pub step: Option<String>,
    /// The backup of what stood there before.
    pub backup: Option<String>,
    /// The backup of what it left.
    pub release: Option<String>,
    /// `done`, `refused`, `rolled-back` or `needs-operator`; `None` while it runs.
    pub end: Option<String>,
    /// Why it ended so.
    pub why: Option<String>,
    /// Paths that differ from before.
    pub changed: u64,
    /// Wall time, milliseconds; `None` while it runs.
    pub duration_ms: Option<u64>,
}

/// A line of a deployment's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentLine {
    /// When.
    pub at: Time,
    /// The part that it belongs to.
    pub phase: Option<String>,
    /// The step.
    pub step: Option<String>,
    /// Who said it: `guardd`, or a step on its `out` or `err`.
    pub source: String,
    /// Escaped.
    pub text: String,
}

/// What a part of a deployment brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentResult {
    /// When it ended.
    pub at: Time,
    /// Which part.
    pub phase: String,
    /// The step, gate or probe.
    pub step: Option<String>,
    /// Is it as it should be?
    pub ok: bool,
    /// What there is to say.
    pub told: String,
    /// Wall time, milliseconds.
    pub duration_ms: u64,
}

/// A step that a deployment would run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its name.
    pub name: String,
    /// The command line.
    pub run: String,
    /// `none`, `expand-only`, `reversible` or `irreversible`.
    pub undo: String,
    /// How it is undone.
    pub undo_run: Option<String>,
    /// How long it may take, seconds.
    pub deadline_seconds: u64,
}

/// What a deployment would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentPlan {
    /// The environment's name.
    pub environment: String,
    /// What would be deployed.
    pub revision: Option<String>,
    /// The user that everything would run as.
    pub run_as: String,
    /// It would be unlocked for as long as the deployment runs.
    pub opens_window: bool,
    /// It would be locked afterwards.
    pub relock: bool,
    /// In order.
    pub steps: Vec<PlannedStep>,
    /// Of a rollback, after the files are back.
    pub rollback: Vec<PlannedStep>,
    /// What must answer.
    pub health: Vec<String>,
    /// So long without a break, seconds.
    pub stable_seconds: u64,
    /// Why it would not begin; empty where it would.
    pub held_up: Vec<String>,
}
