//! systemd units, for applications without containers.

use std::collections::BTreeMap;
use std::io;

use guard_model::deploy::Verdict;

use super::{Tell, gate, quoted};
use crate::bounded::Context;
use crate::compose::ASKING;

/// What systemd says of a unit.
pub(super) type Properties = BTreeMap<String, String>;

/// Asks systemd for what the gates need to know of a unit.
///
/// # Errors
/// Why it could not be told.
pub(super) fn properties(context: &Context, unit: &str) -> Result<Properties, String> {
    let wanted = "LoadState,ActiveState,SubState,Result,Type,NRestarts,MainPID,NeedDaemonReload";
    let mut command = context.command("systemctl");
    command.args(["show", "--no-pager", &format!("--property={wanted}"), "--", unit]);
    let done = context.run(&mut command, ASKING).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => "there is no systemd here".to_owned(),
        _ => format!("cannot run systemctl: {e}"),
    })?;
    if !done.is_good() {
        return Err(format!("systemctl: {}", done.complaint()));
    }
    let text = String::from_utf8_lossy(&done.out);
    Ok(text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

pub(super) fn all(context: &Context, units: &[String], tell: &mut Tell<'_>) -> io::Result<()> {
    for unit in units {
        let (verdict, evidence) = match properties(context, unit) {
            Ok(found) => judge(&found),
            Err(why) => (Verdict::Unknown, why),
        };
        tell(gate("unit", unit, verdict, evidence, format!("systemctl status {}", quoted(unit))))?;
    }
    Ok(())
}

fn judge(found: &Properties) -> (Verdict, String) {
    let of = |name: &str| found.get(name).map_or("", String::as_str);
    if of("LoadState") != "loaded" {
        return (Verdict::Fail, format!("systemd has no such unit ({})", of("LoadState")));
    }
    let state = format!("{} ({})", of("ActiveState"), of("SubState"));
    let is_done = of("Type") == "oneshot" && of("ActiveState") == "inactive" && of("Result") == "success";
    if of("ActiveState") != "active" && !is_done {
        return (Verdict::Fail, format!("{state}, result {}", of("Result")));
    }
    if of("NeedDaemonReload") == "yes" {
        return (Verdict::Fail, format!("{state}, but its file changed: systemctl daemon-reload"));
    }
    let restarts = match of("NRestarts") {
        "" | "0" => String::new(),
        n => format!(", restarted {n} times by systemd"),
    };
    (Verdict::Pass, format!("{state}{restarts}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Verdict {
        judge(&text.lines().filter_map(|l| l.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect()).0
    }

    #[test]
    fn active_units_pass() {
        let active =
            "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=0\nNeedDaemonReload=no";
        assert_eq!(judged(active), Verdict::Pass);
        assert_eq!(judged(&active.replace("Reload=no", "Reload=yes")), Verdict::Fail);
        assert_eq!(judged("LoadState=not-found\nActiveState=inactive"), Verdict::Fail);
        assert_eq!(
            judged("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code"),
            Verdict::Fail
        );
        assert_eq!(judged("LoadState=loaded\nActiveState=activating\nSubState=auto-restart"), Verdict::Fail);
        assert_eq!(
            judged("LoadState=loaded\nActiveState=inactive\nType=oneshot\nResult=success"),
            Verdict::Pass
        );
        assert_eq!(
            judged("LoadState=loaded\nActiveState=inactive\nType=simple\nResult=success"),
            Verdict::Fail
        );
        assert_eq!(judged(""), Verdict::Fail);
    }
}
