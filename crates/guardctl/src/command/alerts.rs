//! Alerts: list, show, acknowledge.

use guard_api::Exit;
use guard_api::method::{AcknowledgeAlert, ListAlerts, ShowAlert};

use super::look;
use crate::arguments::{AlertList, Alerts};
use crate::ask::{Question, given_or_asked};
use crate::ctl::{Ctl, Outcome};
use crate::view::alert;

pub(crate) fn dispatch(ctl: &mut Ctl, command: Option<Alerts>, list_args: AlertList) -> Outcome {
    match command {
        None => list(ctl, list_args),
        Some(Alerts::List(args)) => list(ctl, args),
        Some(Alerts::Show { id }) => show(ctl, id),
        Some(Alerts::Ack { id, note }) => ack(ctl, id, note),
    }
}

fn list(ctl: &mut Ctl, args: AlertList) -> Outcome {
    let AlertList { environment, all } = args;
    let mut answer = ctl.call("list alerts", &ListAlerts { environment, all: Some(all) })?;
    let alerts = &answer.value.alerts;
    if ctl.json {
        ctl.print_json(&answer.json["alerts"].take())?;
    } else {
        ctl.print(&alert::list(look(ctl), alerts, all))?;
        if let Some(first) = alerts.first() {
            ctl.hint(&[format!("everything known of one: guardctl alerts show {}", first.id)])?;
        }
    }
    Ok(Exit::Done)
}

fn show(ctl: &mut Ctl, id: u64) -> Outcome {
    let answer = ctl.call("show the alert", &ShowAlert { id })?;
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&alert::show(look(ctl), &answer.value))?;
        ctl.hint(&alert::hints(&answer.value.alert))?;
    }
    Ok(Exit::Done)
}

fn ack(ctl: &mut Ctl, id: u64, note: Option<String>) -> Outcome {
    let example = format!("guardctl alerts ack {id} --note 'my deploy, forgot to unlock'");
    let question = Question { prompt: "Note", option: "--note", example: &example };
    let note = given_or_asked(ctl.terminal, note, question)?;
    let mut answer = ctl.call("acknowledge the alert", &AcknowledgeAlert { id, note })?;
    if ctl.json {
        ctl.print_json(&answer.json["alert"].take())?;
    } else {
        ctl.print(&alert::acknowledged(look(ctl), &answer.value.alert))?;
    }
    Ok(Exit::Done)
}
