//! What a deployment works with: the warden, the ledger, its log, and children that run as another user.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guard_api::{CallError, Known};
use guard_deploy::run::{Ended, Job, LookError, Runner, Stream};
use guard_deploy::worker::{Line, Look, Spec, Work as Child};
use guard_model::BackupId;
use guard_model::deploy::{Deploy, Image, Phase, Step};
use guard_model::ledger::{Event, Record};
use tokio::sync::oneshot;

use super::log::{Log, Source};
use super::{Order, unit_prefix};
use crate::failure::chain;
use crate::operations::millis;
use crate::warden::{Command, Message, put};
use crate::work_tree::WorkTree;

/// What asks git takes no longer.
const GIT: Duration = Duration::from_secs(120);

/// Why a deployment goes no further.
#[derive(Debug)]
pub(super) enum Fault {
    /// guardd stops: the next start goes on.
    Gone,
    /// Something failed, in words for people.
    Failed(String),
}

/// guardd stops; the ledger says that the deployment runs, and the next start goes on.
pub(super) struct Gone;

impl Fault {
    /// What failed, as long as guardd goes on.
    pub(super) fn why(self) -> Result<String, Gone> {
        match self {
            Self::Gone => Err(Gone),
            Self::Failed(why) => Ok(why),
        }
    }
}

impl From<Gone> for Fault {
    fn from(Gone: Gone) -> Self {
        Self::Gone
    }
}

pub(super) fn failed(why: impl Into<String>) -> Fault {
    Fault::Failed(why.into())
}

impl From<Known> for Fault {
    fn from(known: Known) -> Self {
        Self::Failed(CallError::from(known).to_string())
    }
}

/// See the module.
pub(super) struct Desk {
    pub(super) order: Order,
    pub(super) deploy: Deploy,
    runner: Runner,
    pub(super) log: Log,
    /// It is being rolled back, which nobody cancels.
    goes_back: AtomicBool,
}

impl Desk {
    pub(super) fn new(order: Order) -> Result<Self, Fault> {
        let deploy = order.config.deploy.clone();
        let deploy = deploy.ok_or_else(|| failed("how to deploy is not configured any more"))?;
        let runner = Runner::here().map_err(|e| failed(format!("this program cannot be found: {e}")))?;
        let log = Log::open(&order.ward.house.state_dir, &order.ward.name, order.deployment.id)
            .map_err(|e| failed(e.to_string()))?;
        Ok(Self { order, deploy, runner, log, goes_back: AtomicBool::new(false) })
    }

    pub(super) fn id(&self) -> u64 {
        self.order.deployment.id
    }

    /// Did somebody cancel it?
    pub(super) fn is_cancelled(&self) -> bool {
        self.order.stop.load(Ordering::Relaxed)
    }

    /// From here on nobody cancels it any more.
    pub(super) fn go_back(&self) {
        self.goes_back.store(true, Ordering::Relaxed);
    }

    /// Asks the warden, as nobody else may while the deployment runs.
    pub(super) fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<T, Known>>) -> Command,
    ) -> Result<T, Fault> {
        let command = |reply| Command::ByDeployment(self.id(), Box::new(command(reply)));
        let answer = put(&self.order.warden, command).ok_or(Fault::Gone)?;
        Ok(answer.blocking_recv().map_err(|_| Fault::Gone)??)
    }

    /// Writes into the ledger; durable when it returns, and the warden knows.
    pub(super) fn tell(&self, events: Vec<Event>) -> Result<Vec<Record>, Fault> {
        let records = self
            .order
            .ward
            .append(events)
            .map_err(|e| failed(format!("the ledger cannot be written: {}", chain(&e))))?;
        self.order.warden.send(Message::Recorded(records.clone())).map_err(|_| Fault::Gone)?;
        Ok(records)
    }

    /// A part begins: in the ledger before it acts.
    pub(super) fn begin(&mut self, phase: Phase, step: Option<&str>) -> Result<Instant, Fault> {
        let step = step.map(str::to_owned);
        self.log.at(phase, step.as_deref());
        self.tell(vec![Event::DeploymentPhase { deployment: self.id(), phase, step: step.clone() }])?;
        let d = &mut self.order.deployment;
        d.phase = Some(phase);
        if let (Phase::Step, Some(step)) = (phase, &step) {
            d.begun.push(step.clone());
        }
        self.log.says(&match step {
            Some(step) => format!("{phase} {step}"),
            None => phase.to_string(),
        });
        Ok(Instant::now())
    }

    /// What a part brought.
    pub(super) fn end(
        &mut self,
        phase: Phase,
        step: Option<&str>,
        since: Instant,
        outcome: Result<&str, &str>,
    ) -> Result<(), Fault> {
        let told = outcome.unwrap_or_else(|why| why).to_owned();
        self.log.at(phase, step);
        self.log.says(&told);
        let duration_ms = millis(since.elapsed());
        let (deployment, step, ok) = (self.id(), step.map(str::to_owned), outcome.is_ok());
        self.tell(vec![Event::DeploymentResult { deployment, phase, step, ok, told, duration_ms }])?;
        Ok(())
    }

    /// What a part brought, where that decides how it goes on.
    pub(super) fn conclude(
        &mut self,
        phase: Phase,
        step: Option<&str>,
        since: Instant,
        outcome: Result<String, Fault>,
    ) -> Result<(), Fault> {
        match outcome {
            Ok(told) => self.end(phase, step, since, Ok(&told)),
            Err(fault) => {
                let why = fault.why()?;
                self.end(phase, step, since, Err(&why))?;
                Err(failed(why))
            }
        }
    }

    /// What it would be rolled back to is known, and in the ledger.
    pub(super) fn secured(
        &mut self,
        backup: BackupId,
        revision: Option<String>,
        images: Vec<Image>,
    ) -> Result<(), Fault> {
        self.tell(vec![Event::DeploymentSecured {
            deployment: self.id(),
            backup: backup.clone(),
            revision: revision.clone(),
            images: images.clone(),
        }])?;
        let d = &mut self.order.deployment;
        d.backup = Some(backup);
        d.revision_before = revision;
        d.images_before = images;
        Ok(())
    }

    /// Runs a configured step; what it prints goes to the log.
    pub(super) fn run_step(&mut self, phase: Phase, step: &Step, line: &str) -> Result<Ended, Fault> {
        let child = Child::Step { run: line.to_owned() };
        let deadline = step.deadline.unwrap_or(self.deploy.deadline);
        self.log.at(phase, Some(&step.name));
        let mut log = std::mem::take(&mut self.log);
        let mut heard = |stream, piece: &[u8]| {
            log.printed(if stream == Stream::Out { Source::Out } else { Source::Err }, piece);
        };
        let ended = self.with_job(&step.name, &self.deploy.run_as, child, deadline, |runner, job, stop| {
            runner.run(job, stop, &mut heard).map_err(|e| failed(chain(&e)))
        });
        log.flush();
        self.log = log;
        ended
    }

    /// Runs a child that looks at the application as the configured user.
    pub(super) fn look(
        &self,
        name: &str,
        look: Look,
        deadline: Duration,
        heard: &mut dyn FnMut(Line),
    ) -> Result<(), Fault> {
        self.look_as(&self.deploy.run_as, name, look, deadline, heard).map_err(failed)
    }

    fn look_as(
        &self,
        user: &str,
        name: &str,
        look: Look,
        deadline: Duration,
        heard: &mut dyn FnMut(Line),
    ) -> Result<(), String> {
        self.with_job(name, user, Child::Look(Box::new(look)), deadline, |runner, job, stop| {
            runner.look(job, stop, heard).map_err(|e| match e {
                LookError::Stopped => "it was cancelled".to_owned(),
                other => chain(&other),
            })
        })
    }

    /// Asks git about the root, as its owner.
    pub(super) fn ask_git<T>(
        &self,
        ask: impl FnOnce(&mut WorkTree<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let mut looker =
            |user: &str, look: Look, heard: &mut dyn FnMut(Line)| self.look_as(user, "git", look, GIT, heard);
        WorkTree::new(&self.order.root, &mut looker).and_then(|mut tree| ask(&mut tree))
    }

    fn with_job<T>(
        &self,
        name: &str,
        user: &str,
        work: Child,
        deadline: Duration,
        run: impl FnOnce(&Runner, &Job<'_>, &AtomicBool) -> T,
    ) -> T {
        let spec = Spec { directory: self.order.root.clone(), environment: self.variables(), work };
        let unit = format!("{}{name}", unit_prefix(&self.order.ward.name, self.id()));
        let job = Job { unit: &unit, user, spec: &spec, deadline };
        let never = AtomicBool::new(false);
        let stop = if self.goes_back.load(Ordering::Relaxed) { &never } else { &*self.order.stop };
        run(&self.runner, &job, stop)
    }

    /// Ends what a guardd that is gone had started.
    pub(super) fn end_left_over(&self) -> Result<(), Fault> {
        let prefix = unit_prefix(&self.order.ward.name, self.id());
        self.runner.end_left_over(&prefix).map_err(|e| failed(chain(&e)))
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let (order, d) = (&self.order, &self.order.deployment);
        let mut all = self.deploy.variables.clone();
        let mut put = |name: &str, value: String| all.insert(name.to_owned(), value);
        put("GUARDD_ENVIRONMENT", order.ward.name.clone());
        put("GUARDD_ROOT", order.root.display().to_string());
        put("GUARDD_DEPLOYMENT", d.id.to_string());
        put("GUARDD_REVISION", d.revision.clone().unwrap_or_default());
        put("GUARDD_REVISION_BEFORE", d.revision_before.clone().unwrap_or_default());
        all
    }
}
