//! Every command against a daemon that answers well: what people see, what
//! programs get, what the daemon was asked, and the exit code.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::fixtures::*;
use crate::support::{Fake, at, guardctl, replies, reply};

pub(crate) fn progress(phase: &str, done: u64) -> Value {
    json!({ "progress": { "phase": phase, "done": done, "total": 100 }, "result": null })
}

pub(crate) fn result(r: Value) -> Value {
    json!({ "progress": null, "result": r })
}

/// For people and for programs.
pub(crate) fn both(fake: &Fake, name: &str, args: &[&str]) {
    fake.run(args).golden(name);
    let json = [args, &["--json"]].concat();
    fake.run(&json).golden(&format!("{name}.json"));
}

#[test]
fn status_when_all_is_well() {
    both(&Fake::always(|| reply(status(&[locked()]))), "status", &["status"]);
}

#[test]
fn status_when_much_is_wrong() {
    let daemon = with(
        daemon(),
        json!({
            "degraded": ["the durable write failed: no space left on device"], "alerts_open": 1,
            "sinks": [{ "name": "security-alerts.log", "healthy": false, "error": "read-only file system", "behind": 3 }]
        }),
    );
    let watch = json!({
        "backend": "inotify", "directories": 1_203,
        "gaps": [
            { "id": 301, "cause": "overflow", "since": at(-40), "until": null, "detail": "queue of 16384", "verified": null, "found": 0 },
            { "id": 290, "cause": "down", "since": at(-4000), "until": at(-3400), "detail": null, "verified": "everything, by a full rehash", "found": 2 }
        ],
        "skipped": [
            { "path": "a", "why": "other file system" }, { "path": "b", "why": "permission denied" },
            { "path": "c", "why": "permission denied" }, { "path": "d", "why": "permission denied" }
        ],
        "unmatched": ["frontend/dist/"]
    });
    let sealed = json!({
        "asked": "immutable", "done": "read-only", "unsealed": 14,
        "why": "the file system has no immutable flag", "every_ms": 31_400
    });
    let bad =
        with(locked(), json!({ "watch": watch, "seal": sealed, "alerts_open": 2, "last_rehash": null }));
    let never = with(
        locked(),
        json!({
            "name": "staging", "root": "/srv/stage", "state": "unlocked", "generation": null, "since": null, "by": null,
            "reason": null, "seal": null, "last_rehash": null, "protected": { "files": 0, "directories": 0, "bytes": 0 },
            "watch": { "backend": "none" }
        }),
    );
    let unlocked = json!({ "name": "qa", "root": "/srv/qa", "state": "unlocked", "window": window() });
    let unlocked =
        with(with(locked(), unlocked), json!({ "watch": { "backend": "none" }, "next_rehash_at": at(-200) }));
    let nameless = "the kernel does not tell of processes: it needs CAP_NET_ADMIN before Linux 6.6";
    let watch = json!({ "backend": "fanotify", "directories": 7, "nameless": nameless });
    let nameless = with(locked(), json!({ "name": "web", "watch": watch }));
    let overdue = with(window(), json!({ "until": at(-90) }));
    let late = json!({ "name": "late", "state": "busy", "operation": "lock", "window": overdue, "root": "/srv/late" });
    let broken = with(
        locked(),
        json!({ "name": "zeta", "state": "needs_operator", "root": "/srv/z", "rehash_overdue_seconds": 1260 }),
    );
    let strange = with(locked(), json!({ "name": "zz", "state": "dreaming", "root": "/srv/zz" }));
    let environments = [bad, with(locked(), late), unlocked, never, nameless, broken, strange];
    let all = json!({ "daemon": daemon, "environments": environments });
    Fake::always(move || reply(all.clone())).run(&["status"]).golden("status-much-wrong");
}

#[test]
fn status_of_one_and_of_none() {
    let two =
        || reply(status(&[locked(), with(locked(), json!({ "name": "staging", "root": "/srv/stage" }))]));
    both(&Fake::always(two), "status-one", &["status", "staging"]);
    Fake::always(two).run(&["status", "stagin"]).golden("status-unknown");
    Fake::always(|| reply(status(&[]))).run(&["status"]).golden("status-none");
}

#[test]
fn lock() {
    let skipped = |path: &str, why: &str| json!({ "path": path, "why": why });
    let mut left: Vec<Value> = (1..=6).map(|n| skipped(&format!("link{n}"), "symbolic link")).collect();
    left.insert(1, skipped("lib", "directory holds ignored or writable entries"));
    let r = json!({
        "environment": "production", "generation": 8, "repaired": null, "changed": 3,
        "protected": { "files": 12_345, "directories": 1, "bytes": 1_300_000_000 },
        "seal": {
            "asked": "immutable", "done": "read-only", "unsealed": 2_009,
            "why": "guardd may not set the immutable flag, which takes CAP_LINUX_IMMUTABLE"
        },
        "skipped": left,
        "unmatched": ["frontend/dist/"], "warnings": ["backend/app.log is open for writing by pid 7 (python3)"],
        "duration_ms": 3_210
    });
    let fake = Fake::always(move || replies([progress("walk", 1), progress("read", 50), result(r.clone())]));
    both(&fake, "lock", &["lock", "production", "--reason", "release 4.2", "--break-links", "--anyway"]);
}

#[test]
fn lock_on_a_locked_environment_repairs() {
    for (name, repaired) in [("lock-repaired", 2), ("lock-whole", 0)] {
        let r = json!({
            "environment": "production", "generation": 7, "repaired": repaired, "changed": null,
            "protected": { "files": 1, "directories": 1, "bytes": 1 },
            "seal": { "asked": "read-only", "done": "read-only", "unsealed": 0 }, "duration_ms": 12
        });
        Fake::always(move || reply(result(r.clone()))).run(&["lock"]).golden(name);
    }
}

#[test]
fn unlock() {
    let r = json!({
        "environment": "production", "window": window(), "restored": 13_001,
        "skipped": [{ "path": "var/x", "why": "it is another file now" }], "duration_ms": 800
    });
    let fake = Fake::always(move || replies([progress("seal", 1), result(r.clone())]));
    let args = [
        "unlock",
        "production",
        "--reason",
        " fix the mail queue ",
        "--maintainer",
        "anna",
        "--for",
        "2h30m",
    ];
    both(&fake, "unlock", &args);
}

fn check_result(clean: bool, findings: Value, skipped: Value) -> Value {
    let total = findings.as_array().map(Vec::len);
    result(json!({
        "environment": "production", "generation": 7, "quick": false, "clean": clean, "files": 12_345,
        "bytes": 1_300_000_000, "duration_ms": 4_170, "findings": findings, "findings_total": total, "skipped": skipped
    }))
}

fn validate_result(passed: bool, gates: Value) -> Value {
    result(json!({ "environment": "production", "passed": passed, "gates": gates, "duration_ms": 2_345 }))
}

fn gate(gate: &str, subject: &str, verdict: &str, evidence: &str, by_hand: &str) -> Value {
    json!({ "gate": gate, "subject": subject, "verdict": verdict, "evidence": evidence, "by_hand": by_hand })
}

#[test]
fn validate() {
    let good = || {
        json!([
            gate("lock", "", "pass", "locked since 2026-11-22, signature good", "guardctl status production"),
            gate(
                "service",
                "web",
                "pass",
                "running and healthy; app:1 (0123456789ab)",
                "docker compose ps --all web"
            ),
        ])
    };
    both(
        &Fake::always(move || replies([progress("hashing", 1), validate_result(true, good())])),
        "validate-ready",
        &["validate", "production"],
    );
    let bad = || {
        json!([
            gate("lock", "", "pass", "never locked", "guardctl status production"),
            gate(
                "variable",
                "SECRET_KEY",
                "fail",
                "compose reads another value than shell: quotes, `$` or `#`",
                "grep -c SECRET_KEY .env"
            ),
            gate("port", "8080", "unknown", "the kernel's list of sockets cannot be read\nmore", "ss -tlnp"),
            gate("integrity", "", "waived", "3 differ", "guardctl check production"),
            gate("new", "thing", "perhaps", "said by a later daemon", ""),
        ])
    };
    let fake = Fake::always(move || reply(validate_result(false, bad())));
    both(&fake, "validate-not-ready", &["validate"]);
    let place = tempfile::tempdir().unwrap();
    let (junit, sarif) = (place.path().join("v.xml"), place.path().join("v.sarif"));
    let ran = fake.run(&["validate", "--junit", junit.to_str().unwrap(), "--sarif", sarif.to_str().unwrap()]);
    assert_eq!(ran.code(), 1);
    assert!(std::fs::read_to_string(junit).unwrap().contains("failures=\"1\" errors=\"2\" skipped=\"1\""));
    let log: Value = serde_json::from_slice(&std::fs::read(sarif).unwrap()).unwrap();
    assert_eq!(log["runs"][0]["results"].as_array().unwrap().len(), 3);
    assert_eq!(fake.run(&["validate", "--junit", "/nonexistent/v.xml"]).code(), 5);
    // A daemon that says "passed" though a gate does not, or none was looked at, is not believed.
    let lie = move || reply(validate_result(true, json!([gate("lock", "", "unknown", "?", "")])));
    assert_eq!(Fake::always(lie).run(&["validate"]).code(), 1);
    assert_eq!(Fake::always(|| reply(validate_result(true, json!([])))).run(&["validate"]).code(), 1);
}

#[test]
fn check() {
    let clean = || replies([progress("read", 1), check_result(true, json!([]), json!([]))]);
    both(&Fake::always(clean), "check-clean", &["check", "production"]);
    let findings = || check_result(false, json!([changed(), created(), deleted(), everything()]), json!([]));
    both(&Fake::always(move || reply(findings())), "check-findings", &["check"]);
    let skipped = || json!([{ "path": "secret", "why": "open: permission denied" }]);
    let unread = move || reply(check_result(false, json!([]), skipped()));
    Fake::always(unread).run(&["check"]).golden("check-unread");
    // A daemon that says "clean" though it could not check everything is not believed.
    let lie = move || reply(check_result(true, json!([]), skipped()));
    Fake::always(lie).run(&["check"]).golden("check-not-believed");
    let mut cut = check_result(false, json!([changed()]), json!([]));
    cut["result"]["findings_total"] = json!(81_234);
    cut["result"]["quick"] = json!(true);
    Fake::always(move || reply(cut.clone())).run(&["check", "--quick"]).golden("check-cut-short");
}

#[test]
fn diff() {
    let r = |findings: Value| {
        let total = findings.as_array().map(Vec::len);
        let environment = json!({ "environment": "production", "generation": 7, "skipped": [] });
        result(with(environment, json!({ "findings": findings, "findings_total": total })))
    };
    let environments = || reply(status(&[locked()]));
    let fake = Fake::new(move |call| match call.split().1 {
        "Status" => environments(),
        _ => reply(r(json!([changed(), created(), deleted(), everything()]))),
    });
    both(&fake, "diff", &["diff", "production", "/srv/app/backend/"]);
    let same = Fake::new(move |call| match call.split().1 {
        "Status" => environments(),
        _ => reply(r(json!([]))),
    });
    same.run(&["diff"]).golden("diff-same");
    same.run(&["diff", "backend"]).golden("diff-path");
    same.run(&["diff", "backend", "frontend"]).golden("diff-two-paths");
}

#[test]
fn diff_of_contents() {
    let content = |size: u64| json!({ "size": size, "sha256": "ab12" });
    let files = json!([
        { "path": "compose.yml", "kind": "text", "before": content(20), "after": content(30), "keys": null, "note": "cut short",
          "unified": "@@ -1 +1 @@\n-services: {}\n+services: {a\\x1b: {}}\n" },
        { "path": ".env.prod", "kind": "keys", "before": content(9), "after": content(9), "unified": null, "note": null,
          "keys": { "GONE": "removed", "TOKEN": "changed" } },
        { "path": "logo.png", "kind": "binary", "before": content(5), "after": null, "unified": null, "keys": null, "note": "not text" }
    ]);
    let fake = Fake::new(move |call| match call.split().1 {
        "Status" => reply(status(&[locked()])),
        _ => reply(result(
            json!({ "environment": "production", "generation": 7, "skipped": [], "findings": [changed()],
            "findings_total": 1, "files": files }),
        )),
    });
    both(&fake, "diff-contents", &["diff", "production"]);
}

#[test]
fn restore() {
    let r = |plan: bool| {
        json!({ "environment": "production", "generation": 7, "from": null, "plan": plan, "steps_total": 4,
            "steps": [
                { "path": ".env.prod", "action": "replace", "change": ["content", "size"], "quarantined": 2048 },
                { "path": "a", "action": "adjust", "change": ["mode"], "quarantined": 0 },
                { "path": "new\\x0a", "action": "remove", "change": ["created"], "quarantined": 17 }
            ],
            "skipped": [{ "path": "run.sock", "why": "is a socket, which only whoever listens on it can make" }],
            "remarks": [{ "path": ".env.prod", "why": "still open for writing, in the old inode, by vi (pid 7)" }],
            "quarantine": if plan { Value::Null } else { json!("production/20261121T222640.000001Z") }, "duration_ms": 12 })
    };
    let fake = move |plan| {
        Fake::new(move |call| match call.split().1 {
            "Status" => reply(status(&[locked()])),
            _ => reply(result(r(plan))),
        })
    };
    both(&fake(true), "restore-plan", &["restore", "production", "--all", "--plan"]);
    both(&fake(false), "restore", &["restore", "production", ".env.prod", "/srv/app/new/", "--from", "17"]);
    fake(false).run(&["restore", "production", "a", "--all"]).golden("restore-both");
    fake(false).run(&["restore", "production"]).golden("restore-nothing");
}

#[test]
fn accept() {
    let fake = Fake::new(|call| match call.split().1 {
        "Status" => reply(status(&[locked()])),
        _ => reply(json!({ "environment": "production", "generation": 8, "accepted": [".env.prod", "a/b"] })),
    });
    both(&fake, "accept", &["accept", "production", ".env.prod", "a/", "--reason", "rotated"]);
    fake.run(&["accept", "/srv/app/", "--reason", "all of it"]).golden("accept-all");
    fake.run(&["accept", "production", "--reason", "r"]).golden("accept-nothing");
}

#[test]
fn alerts_list() {
    let fake = Fake::always(|| {
        let grown = with(alert(18, "acknowledged"), json!({ "severity": "warning", "findings_total": 500 }));
        reply(json!({ "alerts": [alert(17, "open"), grown] }))
    });
    both(&fake, "alerts", &["alerts"]);
    fake.run(&["alerts", "list", "production", "--all"]).golden("alerts-all");
    let none = Fake::always(|| reply(json!({ "alerts": [] })));
    none.run(&["alerts"]).golden("alerts-none");
    none.run(&["alerts", "--all", "--json"]).golden("alerts-none.json");
}

#[test]
fn alerts_show() {
    let notes = json!([{ "at": at(-100), "by": "guardd", "text": "scripts: restored" }]);
    let fake = Fake::always(move || {
        let a = with(alert(17, "open"), json!({ "notes": notes }));
        reply(
            json!({ "alert": a, "journal": ["Nov 21 22:20:01 web sudo[4690]: anna : COMMAND=/usr/bin/vim"] }),
        )
    });
    both(&fake, "alerts-show", &["alerts", "show", "17"]);
    let done = Fake::always(|| {
        let findings =
            json!({ "findings": [changed()], "findings_total": 1, "settled": [".env.prod"], "sessions": [] });
        reply(json!({ "alert": with(alert(17, "resolved"), findings), "journal": [] }))
    });
    done.run(&["alerts", "show", "17"]).golden("alerts-show-resolved");
}

/// Nothing can be compared or accepted there: no command is named that would not work.
#[test]
fn an_alert_about_guardd_itself() {
    let fake = Fake::always(|| {
        let finding = json!({
            "path": "/etc/guardd/guardd.toml", "at": at(-200), "change": ["content"],
            "before": null, "after": null, "actor": null, "restored": false
        });
        let title = "guardd's own files changed: /etc/guardd/guardd.toml";
        let own = json!({
            "environment": "guardd", "title": title, "findings": [finding], "findings_total": 1, "settled": [], "sessions": []
        });
        reply(json!({ "alert": with(alert(18, "open"), own), "journal": [] }))
    });
    fake.run(&["alerts", "show", "18"]).golden("alerts-show-guardd");
}

#[test]
fn alerts_ack() {
    let fake = Fake::always(|| reply(json!({ "alert": alert(17, "acknowledged") })));
    both(&fake, "alerts-ack", &["alerts", "ack", "17", "--note", "my deploy"]);
}

#[test]
fn who() {
    let event = |seq: u64, seconds: i64, event: &str, other: Value| {
        let none = json!({ "alert": null, "window": null, "by": null, "reason": null, "finding": null });
        with(with(none, json!({ "seq": seq, "at": at(seconds), "event": event })), other)
    };
    let fake = Fake::new(move |call| match call.split().1 {
        "Status" => reply(status(&[locked()])),
        _ => reply(json!({
            "environment": "production", "path": ".env.prod", "expected": entry(120, "ab"),
            "history": [
                event(300, -90_000, "window_change", json!({
                    "window": 290, "by": "anna", "reason": "fix the mail queue", "finding": changed()
                })),
                event(310, -80_000, "locked", json!({ "by": "root (uid 0)", "reason": "" })),
                event(320, -200, "alert_opened", json!({ "alert": 320, "finding": changed() })),
            ]
        })),
    });
    both(&fake, "who", &["who", "production", ".env.prod"]);
    fake.run(&["who", "/srv/app/.env.prod"]).golden("who-absolute");
    let nothing = Fake::always(|| {
        reply(json!({ "environment": "production", "path": "x", "expected": null, "history": [] }))
    });
    nothing.run(&["who", "./x/"]).golden("who-nothing");
}

#[test]
fn reload() {
    let changed = || {
        let environments = ["production", "staging"];
        json!({ "sha256": "00", "environments": environments, "changed": ["staging: rehash 5m -> 1m"] })
    };
    both(&Fake::always(move || reply(changed())), "reload", &["reload"]);
    let same = || json!({ "sha256": "00", "environments": [], "changed": [] });
    Fake::always(move || reply(same())).run(&["reload"]).golden("reload-same");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let many: Vec<Value> = (0..5_000).map(|n| record(n, "checkpoint", json!({}))).collect();
    let fake = Fake::always(move || reply(json!({ "records": many })));
    let mut command = guardctl(&fake.socket(), &["log"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(output.stderr.is_empty(), "{:?}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn output_that_cannot_be_written_is_a_failure() {
    let fake = Fake::always(|| reply(status(&[locked()])));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let output = guardctl(&fake.socket(), &["status"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write to standard output"));
}
