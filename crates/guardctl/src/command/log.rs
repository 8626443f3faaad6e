//! The ledger: show, verify, export.

use guard_api::Exit;
use guard_api::method::{ExportLog, Log as LogCall, VerifyLog};

use super::{look, offline, watch};
use crate::arguments::{Log, LogShow};
use crate::ctl::{Ctl, Outcome, Wait};
use crate::failure::Failure;
use crate::quantity::counted;
use crate::safe::{Safe, line_json, steerless_json};
use crate::view::{outcome, record};

pub(crate) fn dispatch(ctl: &mut Ctl, command: Option<Log>, show_args: LogShow) -> Outcome {
    match command {
        None if show_args.follow => follow(ctl, show_args),
        None => show(ctl, show_args),
        Some(Log::Verify { file: Some(file), key, head }) => offline::verify(ctl, file, key, head),
        Some(Log::Verify { file: None, .. }) => verify(ctl),
        Some(Log::Export { head: true }) => export_head(ctl),
        Some(Log::Export { head: false }) => export(ctl),
    }
}

fn call(args: LogShow, follow: bool) -> LogCall {
    LogCall { environment: args.environment, limit: Some(args.limit), follow: Some(follow) }
}

fn show(ctl: &mut Ctl, args: LogShow) -> Outcome {
    let mut answer = ctl.call("read the ledger", &call(args, false))?;
    if ctl.json {
        ctl.print_json(&answer.json["records"].take())?;
        return Ok(Exit::Done);
    }
    if answer.value.records.is_empty() {
        ctl.print("no records\n")?;
    }
    for r in &answer.value.records {
        let text = record::line(look(ctl), r);
        ctl.print(&text)?;
    }
    Ok(Exit::Done)
}

fn follow(ctl: &mut Ctl, args: LogShow) -> Outcome {
    ctl.call_stream("follow the ledger", &call(args, true), Wait::ForEver, |ctl, mut answer| {
        for (r, json) in answer.value.records.iter().zip(records(&mut answer.json)) {
            if ctl.json {
                ctl.print_json_line(&json)?;
            } else {
                let text = record::line(look(ctl), r);
                ctl.print(&text)?;
            }
        }
        if let Some(n) = answer.value.lost {
            watch::lost(ctl, n)?;
        }
        ctl.flush()
    })?;
    Err(Failure::new(Exit::Unreachable, "guardd ended the log: it stops")
        .hint("see how it is: systemctl status guardd; then follow again"))
}

fn records(json: &mut serde_json::Value) -> Vec<serde_json::Value> {
    match json["records"].take() {
        serde_json::Value::Array(list) => list,
        _ => Vec::new(),
    }
}

fn verify(ctl: &mut Ctl) -> Outcome {
    let answer = ctl.call_long("verify the ledger", &VerifyLog {})?;
    let r = &answer.value;
    let ok = r.ok && r.broken.is_none() && r.truncated.is_none();
    if ctl.json {
        ctl.print_json(&answer.json)?;
    } else {
        ctl.print(&outcome::verify(look(ctl), r))?;
        if ok {
            ctl.hint(&["somebody with root could have rewritten it whole; compare with a head kept elsewhere: guardctl log export --head"])?;
        } else {
            ctl.hint(&[
                "keep the evidence before anything else: guardctl log export > ledger.jsonl",
                "compare with heads kept elsewhere: journalctl, `log export --head`",
            ])?;
        }
    }
    Ok(if ok { Exit::Done } else { Exit::Findings })
}

fn export_head(ctl: &mut Ctl) -> Outcome {
    let answer = ctl.call("export the head", &ExportLog { head_only: Some(true) })?;
    let Some(head) = &answer.value.head else { return Err(without_head("export the head")) };
    // One line either way, so that heads can be gathered in one file. The text is exactly what is signed.
    let line = match ctl.json {
        true => line_json(&answer.json["head"]),
        false => format!("{} {}", head.seq, Safe(&head.hash)),
    };
    ctl.print(&(line + "\n"))?;
    Ok(Exit::Done)
}

/// The lines go out byte for byte, since their hashes are chained; but a terminal is not for evidence.
fn export(ctl: &mut Ctl) -> Outcome {
    let mut head = None;
    let mut lines = 0u64;
    let method = ExportLog { head_only: Some(false) };
    ctl.call_stream("export the ledger", &method, Wait::Timeout, |ctl, answer| {
        for line in &answer.value.lines {
            lines += 1;
            if ctl.terminal.shows_data {
                ctl.print(&(steerless_json(line, false) + "\n"))?;
            } else {
                ctl.print(line)?;
                ctl.print("\n")?;
            }
        }
        head = answer.value.head.or(head.take());
        Ok(())
    })?;
    let Some(head) = head else { return Err(without_head("export the ledger")) };
    ctl.say(&format!("{}, head {} {}", counted(lines, "record"), head.seq, head.hash))?;
    Ok(Exit::Done)
}

fn without_head(doing: &str) -> Failure {
    Failure::new(Exit::Failed, format!("cannot {doing}: guardd sent no head, so the end may be missing"))
        .hint("try again; if it stays so: guardctl log verify")
}
