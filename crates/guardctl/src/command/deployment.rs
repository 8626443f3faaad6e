//! Deployments: begin, follow, stop, list.

use guard_api::method::{
    AttachDeployment, Cancel, Deploy, DeploymentStep, ListDeployments, Rollback, ShowDeployment,
};
use guard_api::wire::Deployment;
use guard_api::{Exit, Method};

use super::look;
use crate::arguments;
use crate::ctl::{Answer, Ctl, Outcome, Wait};
use crate::failure::Failure;
use crate::view::deployment as view;

pub(crate) fn deploy(ctl: &mut Ctl, asked: arguments::Deploy) -> Outcome {
    let environment = asked.environment;
    if asked.attach {
        return follow(ctl, "follow a deployment", &AttachDeployment { environment });
    }
    if !asked.force.is_empty() && asked.reason.as_deref().is_none_or(|r| r.trim().is_empty()) {
        return Err(Failure::usage("--force wants a reason")
            .hint("add --reason TEXT: it is in the record and in the alert"));
    }
    let method = Deploy {
        environment,
        revision: asked.revision,
        reason: asked.reason,
        force: asked.force,
        plan: Some(asked.plan),
    };
    follow(ctl, "deploy", &method)
}

pub(crate) fn rollback(ctl: &mut Ctl, asked: arguments::Rollback) -> Outcome {
    let arguments::Rollback { environment, to, reason } = asked;
    follow(ctl, "roll back", &Rollback { environment, to, reason })
}

/// Shows what a deployment says until it has ended.
fn follow<M: Method<Reply = DeploymentStep>>(ctl: &mut Ctl, doing: &str, method: &M) -> Outcome {
    let mut exit = Exit::Failed;
    let mut is_first = true;
    ctl.call_stream(doing, method, Wait::ForEver, |ctl, Answer { json, value }| {
        if let Some(plan) = &value.plan {
            exit = if plan.held_up.is_empty() { Exit::Done } else { Exit::Refused };
        }
        if let Some(end) = value.deployment.as_ref().and_then(|d| d.end.as_deref()) {
            exit = exit_of(end);
        }
        if ctl.json {
            return ctl.print_json_line(&json);
        }
        if let Some(plan) = &value.plan {
            return ctl.print(&view::plan(look(ctl), plan));
        }
        if let Some(deployment) = &value.deployment {
            if std::mem::take(&mut is_first) && deployment.end.is_none() {
                ctl.print(&view::begun(look(ctl), deployment))?;
                ctl.hint(&hints(deployment))?;
            }
            if deployment.end.is_some() {
                ctl.print(&view::ended(look(ctl), deployment))?;
            }
        }
        ctl.print(&view::lines(look(ctl), &value.lines))
    })?;
    Ok(exit)
}

fn hints(d: &Deployment) -> Vec<String> {
    vec![format!(
        "Ctrl-C leaves it running: `guardctl deploy --attach {0}` follows it, `guardctl cancel {0}` stops it",
        d.environment
    )]
}

fn exit_of(end: &str) -> Exit {
    match end {
        "done" => Exit::Done,
        "refused" => Exit::Refused,
        "rolled-back" => Exit::Failed,
        _ => Exit::NeedsOperator,
    }
}

pub(crate) fn cancel(ctl: &mut Ctl, environment: Option<String>) -> Outcome {
    let answer = ctl.call("cancel", &Cancel { environment })?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&format!("deployment {} is stopped and rolled back\n", answer.value.id))?;
        ctl.hint(&["`guardctl deploy --attach` shows how it ends".to_owned()])?;
    }
    Ok(Exit::Done)
}

pub(crate) fn dispatch(
    ctl: &mut Ctl,
    command: Option<arguments::Deployments>,
    list: arguments::DeploymentList,
) -> Outcome {
    match command {
        None => self::list(ctl, list.environment),
        Some(arguments::Deployments::Show { id }) => show(ctl, id),
    }
}

fn list(ctl: &mut Ctl, environment: Option<String>) -> Outcome {
    let answer = ctl.call("list deployments", &ListDeployments { environment })?;
    if ctl.json {
        ctl.print_json(answer.json.get("deployments").unwrap_or(&answer.json))?;
    } else {
        ctl.print(&view::list(look(ctl), &answer.value.deployments))?;
    }
    Ok(Exit::Done)
}

fn show(ctl: &mut Ctl, id: u64) -> Outcome {
    // Numbers are the ledger's, so each is there once whatever the environment.
    let all = ctl.call("list deployments", &ListDeployments { environment: None })?.value.deployments;
    let environment = all.into_iter().find(|d| d.id == id).map(|d| d.environment);
    let answer = ctl.call("show a deployment", &ShowDeployment { environment, id })?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&view::show(look(ctl), &answer.value))?;
    }
    Ok(Exit::Done)
}
