//! The deployment that runs, as its environment's warden knows it: who may begin one, and what waits for its end.
//! How it goes is [`crate::deploying`]'s business.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use guard_api::Known;
use guard_api::wire::{DeploymentPlan, PlannedStep};
use guard_model::BackupId;
use guard_model::deploy::{Deploy, DeploymentKind, Force, Revision, Step};
use guard_model::ledger::Event;
use guard_model::whose::Marks;

use super::Warden;
use super::commands::{Refusal, Reply, answer};
use crate::deploying::{self, Order, Start};
use crate::failure::chain;
use crate::ward::Ward;

/// A deployment that somebody wishes, or the rollback of one.
pub(crate) struct DeploymentWish {
    pub(crate) kind: DeploymentKind,
    pub(crate) by: String,
    pub(crate) reason: String,
    pub(crate) revision: Option<Revision>,
    pub(crate) force: Vec<Force>,
    /// Of a rollback: the deployment whose release is brought back; `None` for what stood before the last one.
    pub(crate) to: Option<u64>,
    /// Answered as soon as it has begun.
    pub(crate) reply: Reply<Begun>,
}

/// A deployment that began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begun {
    pub(crate) id: u64,
}

/// The one that runs.
pub(super) struct Deploying {
    /// What tells its processes from others.
    pub(super) marks: Marks,
    stop: Arc<AtomicBool>,
    /// guardd was ended while it ran, and nobody carries it out yet.
    is_cut_short: bool,
}

impl Warden {
    /// Nobody else changes anything while a deployment runs.
    pub(super) fn no_deployment(&self) -> Result<(), Refusal> {
        match &self.state.deployments.running {
            None => Ok(()),
            Some(running) => {
                let operation = format!("{} {}", running.kind, running.id);
                Err(Known::Busy { environment: self.ward.name.clone(), operation })
            }
        }
    }

    pub(super) fn begin_deployment(&mut self, wish: DeploymentWish) {
        let started = self.ready_to_deploy(&wish).and_then(|(deploy, to)| {
            let relock = deploy.relock && self.state.baseline.is_some();
            let started = Event::DeploymentStarted {
                kind: wish.kind,
                by: wish.by,
                reason: wish.reason,
                revision: wish.revision.map(|r| r.to_string()),
                force: wish.force,
                locked: Ward::is_locked(&self.state),
                relock,
                to,
            };
            // What is not in the ledger is not begun; nor is it written later, when nobody waits for it.
            let records = self.ward.append(vec![started]).map_err(|e| Known::Failed {
                message: chain(&e),
                hint: Some("make room on the disk that holds the state directory".to_owned()),
            })?;
            self.take_in(&records);
            Ok(records.first().map_or(0, |record| record.seq))
        });
        match started {
            Ok(id) => {
                self.know_running_deployment(Start::New);
                self.run_deployment(Start::New);
                answer(wish.reply, Ok(Begun { id }));
            }
            Err(refusal) => answer(wish.reply, Err(refusal)),
        }
    }

    /// What a deployment would do. Why it would not begin is part of it.
    pub(super) fn plan_deployment(
        &mut self,
        revision: Option<Revision>,
        force: Vec<Force>,
    ) -> Result<DeploymentPlan, Refusal> {
        let deploy = self.deploy_config()?;
        let held_up = self.may_deploy(&force).err().map(|why| guard_api::CallError::from(why).to_string());
        let planned = |step: &Step| PlannedStep {
            name: step.name.clone(),
            run: step.run.clone(),
            undo: step.undo.to_string(),
            undo_run: step.undo_run.clone(),
            deadline_seconds: step.deadline.unwrap_or(deploy.deadline).as_secs(),
        };
        Ok(DeploymentPlan {
            environment: self.ward.name.clone(),
            revision: revision.map(|r| r.to_string()),
            opens_window: Ward::is_locked(&self.state),
            relock: deploy.relock && self.state.baseline.is_some(),
            steps: deploy.steps.iter().map(planned).collect(),
            rollback: deploy.rollback.iter().map(planned).collect(),
            health: deploy.health.iter().map(ToString::to_string).collect(),
            stable_seconds: deploy.stable_for.as_secs(),
            held_up: held_up.into_iter().collect(),
            run_as: deploy.run_as,
        })
    }

    fn deploy_config(&self) -> Result<Deploy, Refusal> {
        self.config.deploy.clone().ok_or_else(|| Known::Refused {
            message: format!("{} has no deployment configured", self.ward.name),
            hint: Some("describe it in [environments.NAME.deploy] of the configuration".to_owned()),
            anyway: false,
        })
    }

    /// How it is deployed, and which backup a rollback brings back.
    fn ready_to_deploy(&mut self, wish: &DeploymentWish) -> Result<(Deploy, Option<BackupId>), Refusal> {
        let deploy = self.deploy_config()?;
        if wish.kind == DeploymentKind::Rollback {
            self.is_quiet()?;
            let to = self.rollback_target(wish.to)?;
            return Ok((deploy, Some(to)));
        }
        self.may_deploy(&wish.force)?;
        Ok((deploy, None))
    }

    /// Nothing else runs, and nothing has to be put right first.
    fn is_quiet(&self) -> Result<(), Refusal> {
        self.no_deployment()?;
        self.is_free()?;
        self.root_in_place()?;
        if let Some(message) = &self.left_out.needs_operator {
            let hint = Some("put the cause right and restart guardd".to_owned());
            return Err(Known::NeedsOperator { message: message.clone(), hint });
        }
        Ok(())
    }

    fn may_deploy(&self, force: &[Force]) -> Result<(), Refusal> {
        self.is_quiet()?;
        let name = &self.ward.name;
        if let Some((id, why)) = &self.state.deployments.needs_operator {
            return Err(Known::NeedsOperator {
                message: format!("deployment {id} needs an operator: {why}"),
                hint: Some(format!(
                    "`guardctl rollback {name}` tries again; or put it right by hand, and `guardctl lock {name}` says so"
                )),
            });
        }
        let opens = self.config.deploy.as_ref().is_some_and(|d| d.opens_window);
        if Ward::is_locked(&self.state) && !opens && !force.contains(&Force::Lock) {
            return Err(Known::Refused {
                message: format!("{name} is locked, and its deployments open no window of their own"),
                hint: Some(format!(
                    "unlock it first: guardctl unlock {name} --reason TEXT --maintainer NAME; or set opens_window = true in [environments.{name}.deploy]"
                )),
                anyway: false,
            });
        }
        Ok(())
    }

    /// The backup that a rollback brings back.
    fn rollback_target(&mut self, to: Option<u64>) -> Result<BackupId, Refusal> {
        let hint = |text: &str| Some(text.to_owned());
        let none = |message: String| Known::Refused {
            message,
            hint: hint("`guardctl deployments` lists them; `guardctl restore --from` brings back any backup"),
            anyway: false,
        };
        let deployments = &self.state.deployments;
        let found = match to {
            None => {
                let failed = deployments.needs_operator.as_ref().and_then(|(id, _)| deployments.get(*id));
                let last = failed.or_else(|| deployments.last_done());
                last.and_then(|d| d.backup.clone()).ok_or("there is no deployment to roll back".to_owned())
            }
            Some(id) => match deployments.get(id) {
                None => Err(format!("there is no deployment {id}")),
                Some(d) => d
                    .ended
                    .as_ref()
                    .and_then(|e| e.release.clone())
                    .ok_or(format!("deployment {id} left no release to go back to")),
            },
        };
        let backup = found.map_err(none)?;
        let vault = self.vault().map_err(|why| Known::Failed { message: why, hint: None })?;
        match vault.backups.find(&backup.to_string()) {
            Ok(_) => Ok(backup),
            Err(e) => Err(none(format!("its backup {backup} is not there any more: {}", e.with_causes()))),
        }
    }

    pub(super) fn cancel_deployment(&self) -> Result<u64, Refusal> {
        match (&self.deploying, &self.state.deployments.running) {
            (Some(deploying), Some(running)) => {
                deploying.stop.store(true, Ordering::Relaxed);
                Ok(running.id)
            }
            _ => Err(Known::Refused {
                message: format!("no deployment of {} runs", self.ward.name),
                hint: Some("`guardctl deployments` lists those that ran".to_owned()),
                anyway: false,
            }),
        }
    }

    /// From now on changes are told apart by who made them.
    pub(super) fn know_running_deployment(&mut self, start: Start) {
        let Some(running) = &self.state.deployments.running else { return };
        let pid = i32::try_from(std::process::id()).unwrap_or(0);
        let run_as = self.config.deploy.as_ref().map(|d| d.run_as.as_str());
        let marks = Marks {
            unit_prefix: deploying::unit_prefix(&self.ward.name, running.id),
            daemon_pid: pid,
            step_uid: run_as.and_then(deploying::uid_where_no_unit),
        };
        let is_cut_short = start == Start::Resume;
        self.deploying = Some(Deploying { marks, stop: Arc::default(), is_cut_short });
    }

    /// One that was cut short goes on, or back.
    pub(super) fn resume_deployment(&mut self) {
        // One that somebody began already is none of that.
        let cut_short = self.deploying.as_mut().map(|d| std::mem::take(&mut d.is_cut_short));
        if cut_short == Some(true) {
            self.run_deployment(Start::Resume);
        }
    }

    pub(super) fn forget_ended_deployment(&mut self) {
        if self.state.deployments.running.is_none() {
            self.deploying = None;
        }
    }

    fn run_deployment(&self, start: Start) {
        let (Some(deploying), Some(running)) = (&self.deploying, &self.state.deployments.running) else {
            return;
        };
        let root: PathBuf = self.root.as_ref().map_or(self.config.root.clone(), |r| r.path().to_owned());
        deploying::start(Order {
            ward: self.ward.clone(),
            warden: self.myself.clone(),
            config: self.config.clone(),
            root,
            state: self.state.clone(),
            deployment: running.clone(),
            stop: Arc::clone(&deploying.stop),
            start,
        });
    }
}
