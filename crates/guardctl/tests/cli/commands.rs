//! Every command against a daemon that answers well: what people see, what
//! programs get, what the daemon was asked, and the exit code.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixtures::*;
use crate::support::{Fake, at, endless, guardctl, replies, reply};

fn progress(phase: &str, done: u64) -> Value {
    json!({ "progress": { "phase": phase, "done": done, "total": 100 }, "result": null })
}

fn result(r: Value) -> Value {
    json!({ "progress": null, "result": r })
}

/// For people and for programs.
fn both(fake: &Fake, name: &str, args: &[&str]) {
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
            "degraded": ["the durable write failed: no space left on device"],
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
    let sealed = json!({ "asked": "immutable", "done": "read-only", "unsealed": 14 });
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
    let overdue = with(window(), json!({ "until": at(-90) }));
    let late = json!({ "name": "late", "state": "busy", "operation": "lock", "window": overdue, "root": "/srv/late" });
    let broken = with(locked(), json!({ "name": "zeta", "state": "needs_operator", "root": "/srv/z" }));
    let strange = with(locked(), json!({ "name": "zz", "state": "dreaming", "root": "/srv/zz" }));
    let environments = [bad, with(locked(), late), unlocked, never, broken, strange];
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
        "seal": { "asked": "immutable", "done": "read-only", "unsealed": 2_009 }, "skipped": left,
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

/// One of each event, the daemon's own without an environment.
fn records() -> Vec<Value> {
    let peer = json!({ "uid": 1000, "login_uid": 1000, "pid": 77, "name": "anna" });
    let totals = json!({ "files": 12_345, "directories": 1_203, "bytes": 1_300_000_000 });
    let six = json!([changed(), created(), deleted(), changed(), created(), deleted()]);
    let call = "org.guardd.Control.Unlock";
    let own = Value::Null;
    let events = [
        (
            "daemon_started",
            json!({ "version": "0.1.0", "pid": 812, "after_clean_stop": false, "environment": own }),
        ),
        ("configuration", json!({ "sha256": "00", "accepted": true, "environment": own })),
        (
            "configuration",
            json!({ "accepted": false, "problems": ["line 3: no", "line 4: no"], "environment": own }),
        ),
        ("call", json!({ "method": call, "peer": peer, "outcome": "refused", "error": "PermissionDenied" })),
        (
            "locked",
            json!({
                "generation": 7, "by": "anna (uid 1000)", "reason": "release", "seal": "read-only", "totals": totals
            }),
        ),
        ("lock_repaired", json!({ "by": "anna", "repaired": 2 })),
        (
            "window_opened",
            json!({ "by": "root (uid 0)", "maintainer": "anna", "reason": "mail", "until": at(1800) }),
        ),
        ("window_change", json!({ "window": 7, "findings": [changed()] })),
        ("window_closed", json!({ "window": 7, "how": "timer", "changed": 1 })),
        (
            "alert_opened",
            json!({
                "severity": "critical", "title": ".env.prod changed (content, size)", "findings": [changed()]
            }),
        ),
        ("alert_grew", json!({ "alert": 10, "severity": "critical", "findings": six })),
        ("alert_acknowledged", json!({ "alert": 10, "by": "anna (uid 1000)", "note": "my deploy" })),
        ("alert_settled", json!({ "alert": 10, "paths": ["scripts"], "how": "restored", "reviewed": false })),
        ("accepted", json!({ "generation": 8, "by": "anna", "reason": "rotated", "paths": ["a", "b"] })),
        ("gap_opened", json!({ "cause": "overflow", "since": at(-20), "detail": "queue of 16384" })),
        ("gap_closed", json!({ "gap": 15, "verified": "metadata of everything", "found": 0 })),
        (
            "rehash_finished",
            json!({ "files": 12_345, "bytes": 1_300_000_000, "duration_ms": 4_170, "findings": 0 }),
        ),
        ("recovered", json!({ "operation": "lock", "how": "undone" })),
        (
            "sink",
            json!({ "sink": "journald", "healthy": false, "error": "no such file", "environment": own }),
        ),
        ("sink", json!({ "sink": "journald", "healthy": true, "environment": own })),
        ("checkpoint", json!({ "signature": "-----BEGIN SSH SIGNATURE-----", "environment": own })),
        ("daemon_stopped", json!({ "reason": "SIGTERM", "environment": own })),
        ("from_the_future", json!({ "x": [1, 2] })),
    ];
    (1..).zip(events).map(|(seq, (event, fields))| record(seq, event, fields)).collect()
}

#[test]
fn log() {
    let fake = Fake::always(|| reply(json!({ "records": records(), "lost": null })));
    fake.run(&["log", "production", "-n", "7"]).golden("log");
    let few = Fake::always(|| reply(json!({ "records": [records()[5]], "lost": null })));
    few.run(&["log", "--json"]).golden("log.json");
    Fake::always(|| reply(json!({ "records": [] }))).run(&["log"]).golden("log-none");
}

#[test]
fn log_follow_and_watch_go_on_until_the_daemon_ends() {
    let (first, alert) = (records()[4].clone(), records()[9].clone());
    let then = alert.clone();
    let log = move || {
        replies([json!({ "records": [first.clone()] }), json!({ "records": [then.clone()], "lost": 3 })])
    };
    both(&Fake::always(log), "log-follow", &["log", "--follow"]);
    let watch = move || {
        replies([
            json!({ "head": { "seq": 9, "hash": "00" } }),
            json!({ "record": alert.clone() }),
            json!({ "lost": 12 }),
            json!({ "record": record(14, "gap_opened", json!({ "cause": "deaf", "since": at(-3) })) }),
        ])
    };
    both(&Fake::always(watch), "watch", &["watch", "production"]);
}

#[test]
fn silence_does_not_end_a_watch() {
    let checkpoint = || json!({ "record": record(10, "checkpoint", json!({ "environment": null })) });
    let fake = Fake::always(move || endless([json!({ "head": { "seq": 9, "hash": "00" } }), checkpoint()]));
    let mut command = guardctl(&fake.socket(), &["watch", "--timeout", "1s"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("checkpoint signed"), "{line}");
    // Longer than the timeout, and still there.
    std::thread::sleep(Duration::from_millis(1_300));
    assert!(child.try_wait().unwrap().is_none());
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn log_verify() {
    let head = json!({ "seq": 321, "hash": "ab".repeat(32) });
    let r = json!({ "ok": true, "records": 321, "head": head, "checkpoints": 4, "broken": null, "truncated": null });
    let broken = "after record 17: the chain is broken";
    let bad = json!({ "ok": false, "broken": broken, "truncated": "the lock file remembers record 400" });
    let bad = with(r.clone(), bad);
    let good = Fake::always(move || replies([progress("verify", 100), result(r.clone())]));
    both(&good, "log-verify", &["log", "verify"]);
    both(&Fake::always(move || reply(result(bad.clone()))), "log-verify-broken", &["log", "verify"]);
}

fn head() -> Value {
    json!({
        "seq": 321, "hash": "ab".repeat(32), "at": at(0), "machine_id": "0123",
        "signature": "-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"
    })
}

#[test]
fn log_export() {
    let fake = Fake::new(|call| {
        if call.parameters["head_only"] == true {
            return reply(json!({ "lines": [], "head": head() }));
        }
        let raw = "{\"seq\":2,\"text\":\"exactly as it is\"}";
        replies([
            json!({ "lines": ["{\"seq\":1}", raw] }),
            json!({ "lines": ["{\"seq\":3}"], "head": head() }),
        ])
    });
    fake.run(&["log", "export"]).golden("log-export");
    both(&fake, "log-export-head", &["log", "export", "--head"]);
    let headless = Fake::always(|| reply(json!({ "lines": ["{}"], "head": null })));
    headless.run(&["log", "export"]).golden("log-export-without-head");
    // Byte for byte, or the hashes would not fit any more.
    let raw = Fake::always(|| reply(json!({ "lines": ["{\"a\":  \"\u{9b}\u{202e}\"}"], "head": head() })));
    assert_eq!(raw.run(&["log", "export"]).stdout(), "{\"a\":  \"\u{9b}\u{202e}\"}\n");
}

#[test]
fn baseline_list() {
    let b = |n: u64, seconds: i64, current: bool| {
        json!({
            "environment": "production", "generation": n, "created_at": at(seconds), "by": "anna (uid 1000)",
            "reason": format!("release {n}"), "digest": "ab".repeat(32),
            "protected": { "files": 12_345, "directories": 7, "bytes": 1_300_000_000 }, "current": current
        })
    };
    let fake =
        Fake::always(move || reply(json!({ "baselines": [b(6, -726_000, false), b(7, -72_600, true)] })));
    both(&fake, "baseline-list", &["baseline", "list"]);
    let none = Fake::always(|| reply(json!({ "baselines": [] })));
    none.run(&["baseline", "list"]).golden("baseline-list-none");
}

/// `data` comes from base64(1).
fn part(file: &str, size: u64, data: &str) -> Value {
    let whose = json!({ "environment": "production", "generation": 7, "root": "/srv/app" });
    with(whose, json!({ "file": file, "size": size, "data": data }))
}

/// `ab  a/b\xffc\n`
fn sums() -> [Value; 2] {
    [part("SHA256SUMS", 10, "YWIgIA=="), part("SHA256SUMS", 10, "YS9i/2MK")]
}

#[test]
fn baseline_export() {
    let ran =
        Fake::always(|| replies(sums())).run(&["baseline", "export", "production", "--generation", "7"]);
    // Bytes that are no UTF-8 go out as they are.
    assert_eq!(ran.output.stdout, b"ab  a/b\xffc\n");
    assert_eq!(ran.code(), 0);
    let text = || reply(part("SHA256SUMS", 8, "YWIgIGEvYgo="));
    both(&Fake::always(text), "baseline-export", &["baseline", "export"]);
    let cut = || reply(part("SHA256SUMS", 11, "YWIgIGEvYgo="));
    Fake::always(cut).run(&["baseline", "export"]).golden("baseline-export-cut");
}

#[test]
fn baseline_export_to_a_directory() {
    let fake = Fake::always(|| {
        let [first, second] = sums();
        replies([first, second, part("allowed_signers", 0, "")])
    });
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("new/baseline");
    let ran = fake.run(&["baseline", "export", "--to", to.to_str().unwrap()]);
    assert_eq!(ran.code(), 0, "{}", ran.stderr());
    assert_eq!(std::fs::read(to.join("SHA256SUMS")).unwrap(), b"ab  a/b\xffc\n");
    assert_eq!(std::fs::read(to.join("allowed_signers")).unwrap(), b"");
    assert!(ran.stderr().contains("ssh-keygen -Y verify"), "{}", ran.stderr());
    // What is there is evidence and stays.
    let again = fake.run(&["baseline", "export", "--to", to.to_str().unwrap()]);
    assert_eq!(again.code(), 5);
    assert!(again.stderr().contains("File exists"), "{}", again.stderr());
    let json = fake.run(&["baseline", "export", "--json", "--to", dir.path().join("json").to_str().unwrap()]);
    json.golden_stdout("baseline-export-to.json");
}

#[test]
fn a_file_name_of_the_daemon_never_leaves_the_directory() {
    for name in ["../evil", "/tmp/evil", "", ".", "a/b", ".hidden"] {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let fake = Fake::always(move || reply(part(name, 0, "")));
        let ran = fake.run(&["baseline", "export", "--to", to.to_str().unwrap()]);
        assert_eq!(ran.code(), 5, "{name}");
        assert_eq!(std::fs::read_dir(&to).unwrap().count(), 0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
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
