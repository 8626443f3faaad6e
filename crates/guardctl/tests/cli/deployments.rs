//! Deployments as people see them: what would be done, what is said meanwhile, how it ended.

use serde_json::{Value, json};

use crate::commands::both;
use crate::fixtures::{created, deleted, with};
use crate::support::{Fake, at, replies, reply};

fn deployment() -> Value {
    json!({
        "id": 1207, "environment": "production", "kind": "deploy", "since": at(-40), "by": "anna (uid 1001)",
        "reason": "release 4.2", "revision": "v4.2", "revision_before": "1".repeat(40), "revision_after": null, "force": [],
        "phase": "step", "step": "migrate", "backup": "000012-20261122T015512Z", "release": null, "end": null, "why": null,
        "changed": 0, "duration_ms": null
    })
}

fn ended(end: &str, why: &str) -> Value {
    let more = json!({ "end": end, "why": why, "duration_ms": 41_200, "changed": 7, "revision_after": "2".repeat(40) });
    with(deployment(), more)
}

fn line(phase: &str, step: Option<&str>, source: &str, text: &str) -> Value {
    json!({ "at": at(-30), "phase": phase, "step": step, "source": source, "text": text })
}

fn said() -> Value {
    json!([
        line("preflight", None, "guardd", "preflight"),
        line("preflight", Some("integrity"), "guardd", "holds: 210 files as the baseline has them"),
        line("step", Some("migrate"), "guardd", "step migrate"),
        line("step", Some("migrate"), "out", "applying 0042_orders \\x1b[31m"),
        line("step", Some("migrate"), "err", "warning: slow"),
        line("step", Some("migrate"), "guardd", "done in 3.2 s"),
    ])
}

fn followed(end: &'static str, why: &'static str) -> Fake {
    Fake::always(move || {
        replies([
            json!({ "deployment": deployment(), "lines": [], "plan": null }),
            json!({ "deployment": null, "lines": said(), "plan": null }),
            json!({ "deployment": ended(end, why), "lines": [], "plan": null }),
        ])
    })
}

#[test]
fn how_it_ended_is_said_in_words_and_by_the_exit_code() {
    let asked = ["deploy", "production", "--revision", "v4.2", "--reason", "release 4.2"];
    both(&followed("done", "verified"), "deploy-done", &asked);
    followed("refused", "integrity: 2 paths differ from the baseline").run(&asked).golden("deploy-refused");
    followed("rolled-back", "step migrate: failed with status 1 after 3.2 s")
        .run(&asked)
        .golden("deploy-rolled-back");
    followed("needs-operator", "step up: failed; and the rollback failed")
        .run(&asked)
        .golden("deploy-needs-operator");
}

#[test]
fn a_plan_names_what_cannot_be_undone() {
    let step = |name: &str, run: &str, undo: &str, undo_run: Option<&str>| json!({ "name": name, "run": run, "undo": undo, "undo_run": undo_run, "deadline_seconds": 300 });
    let plan = json!({
        "environment": "production", "revision": "v4.2", "run_as": "deploy", "opens_window": true, "relock": true,
        "steps": [
            step("fetch", "git fetch --all && git checkout --detach $GUARDD_REVISION", "none", None),
            step("migrate", "bin/migrate up", "reversible", Some("bin/migrate down")),
            step("purge", "bin/purge", "irreversible", None),
        ],
        "rollback": [step("up", "docker compose up -d --wait", "none", None)],
        "health": ["http://127.0.0.1:8888/health", "compose healthy"], "stable_seconds": 10, "held_up": []
    });
    let held_up = with(plan.clone(), json!({ "held_up": ["production is locked"], "health": [] }));
    let answer =
        |plan: Value| Fake::always(move || reply(json!({ "deployment": null, "lines": [], "plan": plan })));
    both(&answer(plan), "deploy-plan", &["deploy", "production", "--revision", "v4.2", "--plan"]);
    answer(held_up).run(&["deploy", "production", "--plan"]).golden("deploy-plan-held-up");
}

#[test]
fn lists_and_one_of_them() {
    let rollback = json!({ "id": 1301, "kind": "rollback", "revision": null });
    let forced = json!({ "force": ["health"], "phase": "verify", "step": null });
    let all = json!([
        ended("done", "verified"),
        with(ended("needs-operator", "x"), rollback),
        with(deployment(), forced)
    ]);
    both(&Fake::always(move || reply(json!({ "deployments": all }))), "deployments", &["deployments"]);
    Fake::always(|| reply(json!({ "deployments": [] }))).run(&["deployments"]).golden("deployments-none");
    let result = |phase: &str, step: Option<&str>, ok: bool, told: &str| json!({ "at": at(-30), "phase": phase, "step": step, "ok": ok, "told": told, "duration_ms": 3_200 });
    // Both calls get the same reply, of which each takes its part.
    let shown = json!({
        "deployments": [ended("rolled-back", "step migrate: failed")],
        "deployment": ended("rolled-back", "step migrate: failed"),
        "results": [
            result("preflight", Some("lock"), true, "holds: locked"),
            result("step", Some("migrate"), false, "failed with status 1 after 3.2 s"),
        ],
        "lines": said(), "assumed": [created(), deleted()], "assumed_total": 1_207
    });
    let fake = Fake::always(move || reply(shown.clone()));
    both(&fake, "deployments-show", &["deployments", "show", "1207"]);
    let fake = Fake::always(|| reply(json!({ "id": 1207 })));
    both(&fake, "cancel", &["cancel", "production"]);
}
