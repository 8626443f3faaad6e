//! Deployments: what would be done, what is said meanwhile, how it ended.

use guard_api::method::ShowDeploymentReply;
use guard_api::wire::{Deployment, DeploymentLine, DeploymentPlan, PlannedStep};

use super::{Look, finding, heading};
use crate::quantity::{counted, milliseconds, relative};
use crate::safe::{Safe, safe};
use crate::table::{Cell, Table};
use crate::terminal::Tone;

/// Longest commit that is shown in a line.
const SHORT: usize = 12;

/// As it begins.
pub(crate) fn begun(look: Look, d: &Deployment) -> String {
    let what = d.revision.as_ref().map(|r| format!(" of {}", Safe(r))).unwrap_or_default();
    let by = Safe(&d.by);
    let line = format!("{}: {} {}{what}, by {by}", Safe(&d.environment), word(d), d.id);
    let mut out = format!("{}\n", look.paint.tone(Tone::Strong, &line));
    if !d.force.is_empty() {
        let skipped = format!("skips {}", safe(&d.force.join(", ")));
        out.push_str(&format!("{}\n", look.paint.tone(Tone::Warn, &skipped)));
    }
    out
}

fn word(d: &Deployment) -> &'static str {
    if d.kind == "rollback" { "rollback" } else { "deployment" }
}

/// What it says meanwhile.
pub(crate) fn lines(look: Look, lines: &[DeploymentLine]) -> String {
    let mut out = String::new();
    for line in lines {
        let text = Safe(&line.text);
        if line.source == "guardd" {
            let phase = line.step.as_ref().or(line.phase.as_ref()).map(|p| safe(p)).unwrap_or_default();
            let text = text.to_string();
            // What begins repeats its own name.
            let told = if text.ends_with(phase.as_str()) { text } else { format!("{phase}: {text}") };
            out.push_str(&format!("{}\n", look.paint.tone(Tone::Strong, &told)));
        } else {
            let text = format!("    {text}");
            let tone = if line.source == "err" { Tone::Dim } else { Tone::Plain };
            out.push_str(&format!("{}\n", look.paint.tone(tone, &text)));
        }
    }
    out
}

/// How it ended.
pub(crate) fn ended(look: Look, d: &Deployment) -> String {
    let end = d.end.as_deref().unwrap_or("runs");
    let took = d.duration_ms.map(|ms| format!(" ({})", milliseconds(ms))).unwrap_or_default();
    let why = d.why.as_deref().map(|w| format!(": {}", Safe(w))).unwrap_or_default();
    let mut out = format!("{} {} {}{why}{took}\n", word(d), d.id, look.paint.tone(tone_of(end), said(end)),);
    if end == "done" && d.changed > 0 {
        out.push_str(&format!("{} changed", counted(d.changed, "path")));
        if let (Some(before), Some(after)) = (&d.revision_before, &d.revision_after) {
            out.push_str(&format!(", {} -> {}", short(before), short(after)));
        }
        out.push('\n');
    }
    let name = safe(&d.environment);
    match end {
        "refused" => out.push_str("nothing was changed\n"),
        "rolled-back" => out.push_str(&format!(
            "everything is as it was before, and verified; guardctl deployments show {} has what was printed\n",
            d.id
        )),
        "needs-operator" => {
            out.push_str("look at it now:\n");
            let mut t = Table::new().indented(2);
            let mut way = |command: String, what: &str| t.row([command.into(), what.into()]);
            way(format!("guardctl deployments show {}", d.id), "what its parts brought, and what was printed");
            way(format!("guardctl rollback {name}"), "tries the rollback again");
            way(format!("guardctl lock {name} --reason …"), "says that it is right as it is");
            out.push_str(&t.render(look.paint));
        }
        _ => {}
    }
    out
}

fn short(commit: &str) -> String {
    safe(&commit.chars().take(SHORT).collect::<String>())
}

fn said(end: &str) -> &str {
    match end {
        "done" => "done",
        "refused" => "refused",
        "rolled-back" => "failed, rolled back",
        "needs-operator" => "NEEDS AN OPERATOR",
        "runs" => "runs",
        _ => "ended",
    }
}

fn tone_of(end: &str) -> Tone {
    match end {
        "done" => Tone::Good,
        "refused" | "rolled-back" | "runs" => Tone::Warn,
        _ => Tone::Bad,
    }
}

/// What would be done.
pub(crate) fn plan(look: Look, p: &DeploymentPlan) -> String {
    let what = p.revision.as_ref().map(|r| format!(" {}", Safe(r))).unwrap_or_default();
    let mut out = format!(
        "{}: this would deploy{what} as {}; nothing was changed\n",
        Safe(&p.environment),
        Safe(&p.run_as)
    );
    let mut order = vec!["look whether everything holds (guardctl validate shows it now)".to_owned()];
    if p.opens_window {
        order.push("unlock, for as long as it takes".to_owned());
    }
    order.push("back up everything protected, and read the backup back".to_owned());
    for step in &p.steps {
        order.push(planned(step));
    }
    order.push(match p.health.len() {
        0 => "NOT verified: no probe is configured (health = [...])".to_owned(),
        _ => format!(
            "until all are well for {} s without a break: {}",
            p.stable_seconds,
            safe(&p.health.join(", "))
        ),
    });
    if p.relock {
        order.push("lock again, with what is there as the new baseline".to_owned());
    }
    for (number, text) in order.iter().enumerate() {
        out.push_str(&format!("  {:>2}. {text}\n", number + 1));
    }
    out.push_str(&heading(look, "Where a step or a probe fails"));
    for step in p.steps.iter().rev().filter(|s| s.undo == "reversible") {
        let run = step.undo_run.as_deref().map(safe).unwrap_or_default();
        out.push_str(&format!("  undo {}: {run}\n", Safe(&step.name)));
    }
    out.push_str("  put every file back as the backup has it; what was added goes to quarantine\n");
    for step in &p.rollback {
        out.push_str(&format!("  {}: {}\n", Safe(&step.name), Safe(&step.run)));
    }
    for step in p.steps.iter().filter(|s| s.undo == "irreversible") {
        let line = format!("  {} CANNOT be undone", Safe(&step.name));
        out.push_str(&format!("{}\n", look.paint.tone(Tone::Bad, &line)));
    }
    for why in &p.held_up {
        let line = format!("it would not begin: {}", Safe(why));
        out.push_str(&format!("\n{}\n", look.paint.tone(Tone::Bad, &line)));
    }
    out
}

fn planned(step: &PlannedStep) -> String {
    let undo = match step.undo.as_str() {
        "none" => String::new(),
        other => format!(" [{}]", safe(other)),
    };
    format!("{}{undo}: {}", Safe(&step.name), Safe(&step.run))
}

/// The deployments, oldest first.
pub(crate) fn list(look: Look, all: &[Deployment]) -> String {
    if all.is_empty() {
        return "no deployment so far\n".to_owned();
    }
    let mut t = Table::headed(&["ID", "ENVIRONMENT", "WHEN", "WHAT", "BY", "END"]);
    for d in all {
        let end = d.end.as_deref().unwrap_or("runs");
        let what = match (&d.revision, d.kind.as_str()) {
            (Some(revision), _) => safe(revision),
            (None, "rollback") => "rollback".to_owned(),
            (None, _) => "-".to_owned(),
        };
        t.row([
            d.id.to_string().into(),
            safe(&d.environment).into(),
            relative(d.since, look.now).into(),
            what.into(),
            safe(&d.by).into(),
            Cell::toned(tone_of(end), said(end)),
        ]);
    }
    t.render(look.paint)
}

/// One deployment.
pub(crate) fn show(look: Look, r: &ShowDeploymentReply) -> String {
    let d = &r.deployment;
    let mut out = begun(look, d);
    if !d.reason.is_empty() {
        out.push_str(&format!("reason: {}\n", Safe(&d.reason)));
    }
    let mut t = Table::new().indented(2);
    for result in &r.results {
        let tone = if result.ok { Tone::Good } else { Tone::Bad };
        let what = match &result.step {
            Some(step) => format!("{} {}", safe(&result.phase), safe(step)),
            None => safe(&result.phase),
        };
        let mark = if result.ok { "ok" } else { "NOT" };
        t.row([
            Cell::toned(tone, mark),
            what.into(),
            milliseconds(result.duration_ms).into(),
            safe(&result.told).into(),
        ]);
    }
    out.push_str(&t.render(look.paint));
    if !r.assumed.is_empty() {
        out.push_str(&heading(
            look,
            "Assumed to be its own: nobody is known to have made it, or a container engine did",
        ));
        out.push_str(&finding::list(look, &r.assumed, r.assumed_total));
    }
    let printed: Vec<&DeploymentLine> = r.lines.iter().filter(|l| l.source != "guardd").collect();
    if !printed.is_empty() {
        out.push_str(&heading(look, "The last that its steps printed"));
        for line in printed {
            let step = line.step.as_deref().map(safe).unwrap_or_default();
            out.push_str(&format!("  {step}: {}\n", Safe(&line.text)));
        }
    }
    if let Some(backup) = &d.backup {
        out.push_str(&format!("backup of what stood before: {}\n", Safe(backup)));
    }
    out.push_str(&ended(look, d));
    out
}
