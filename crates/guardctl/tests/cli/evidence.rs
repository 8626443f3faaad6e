//! The ledger and the baselines: shown live and afterwards, verified, taken off the host.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::commands::{both, progress, result};
use crate::fixtures::*;
use crate::support::{Fake, at, endless, guardctl, replies, reply};

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
