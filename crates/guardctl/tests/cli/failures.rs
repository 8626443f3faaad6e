//! Everything that can go wrong and that a user sees: errors of the daemon,
//! daemons that misbehave, and no daemon at all.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;

use serde_json::{Value, json};

use crate::fixtures::*;
use crate::support::{Answer, Fake, copy_program, error, guardctl, reply, run};

fn refused(name: &str, args: &[&str], golden: &str, parameters: Value) {
    let name = name.to_owned();
    let fake = Fake::new(move |call| match call.split().1 {
        "Status" => reply(status(&[locked()])),
        _ => error(&name, parameters.clone()),
    });
    fake.run(args).golden(golden);
}

#[test]
fn errors_of_the_daemon() {
    let mistyped: &[&str] = &["log", "verfy"];
    refused(
        "UnknownEnvironment",
        mistyped,
        "error-no-subcommand",
        json!({ "environment": "verfy", "known": ["qa"] }),
    );
    let lock: &[&str] = &["lock", "production"];
    let unlock: &[&str] = &["unlock", "production", "--reason", "r", "--maintainer", "m"];
    refused(
        "UnknownEnvironment",
        lock,
        "error-unknown-environment",
        json!({ "environment": "production", "known": ["qa", "staging"] }),
    );
    refused(
        "UnknownEnvironment",
        lock,
        "error-name-one",
        json!({ "environment": null, "known": ["qa", "staging"] }),
    );
    refused("UnknownEnvironment", lock, "error-no-environment", json!({ "environment": null, "known": [] }));
    refused(
        "NotLocked",
        &["accept", "production", "a", "--reason", "r"],
        "error-not-locked",
        json!({ "environment": "production" }),
    );
    refused(
        "AlreadyUnlocked",
        unlock,
        "error-already-unlocked",
        json!({ "environment": "production", "window": window() }),
    );
    refused(
        "AlreadyUnlocked",
        unlock,
        "error-never-locked",
        json!({ "environment": "production", "window": null }),
    );
    refused("Busy", lock, "error-busy", json!({ "environment": "production", "operation": "check" }));
    refused("ReasonRequired", lock, "error-reason", json!({}));
    refused("MaintainerRequired", unlock, "error-maintainer", json!({}));
    refused(
        "NoBaseline",
        &["check"],
        "error-no-baseline",
        json!({ "environment": "production", "generation": null }),
    );
    refused(
        "NoBaseline",
        &["baseline", "export", "--generation", "3"],
        "error-no-generation",
        json!({ "environment": "production", "generation": 3 }),
    );
    refused("UnknownAlert", &["alerts", "show", "99"], "error-unknown-alert", json!({ "id": 99 }));
    let twelve: Vec<String> = (1..=12).map(|n| format!("file{n}")).collect();
    refused(
        "ChangedSinceShown",
        &["accept", "file1", "--reason", "r"],
        "error-changed",
        json!({ "environment": "production", "paths": twelve }),
    );
    refused(
        "InvalidWindow",
        &["unlock", "--reason", "r", "--maintainer", "m", "--for", "9h"],
        "error-window",
        json!({ "asked_seconds": 32_400, "max_seconds": 28_800 }),
    );
    let problems = json!([
        { "file": "/etc/guardd/guardd.toml", "line": 7, "key": "environments.production.seal", "what": "is not a seal", "fix": "seal = \"immutable\"" },
        { "file": "/etc/guardd/environments.d", "line": null, "key": "", "what": "others may write it", "fix": "" }
    ]);
    refused("ConfigurationRefused", &["reload"], "error-configuration", json!({ "problems": problems }));
    refused(
        "Refused",
        lock,
        "error-refused",
        json!({ "message": "app.log is open for writing by pid 7", "hint": "stop it first", "anyway": true }),
    );
    refused(
        "Failed",
        lock,
        "error-failed",
        json!({ "message": "cannot fsync the plan: no space left on device", "hint": "free some space in /var/lib/guardd" }),
    );
    refused(
        "NeedsOperator",
        unlock,
        "error-needs-operator",
        json!({ "message": "3 modes could not be given back", "hint": null }),
    );
    refused("org.varlink.service.PermissionDenied", lock, "error-permission", json!({}));
    refused("org.varlink.service.PermissionDenied", &["log"], "error-permission-read", json!({}));
    refused(
        "org.varlink.service.InvalidParameter",
        &["who", "../x"],
        "error-parameter",
        json!({ "parameter": "path" }),
    );
    refused(
        "org.varlink.service.InterfaceNotFound",
        lock,
        "error-interface",
        json!({ "interface": "org.guardd.Control" }),
    );
    refused("org.varlink.service.ExpectedMore", lock, "error-more", json!({}));
    refused("org.guardd.Control.FromTheFuture", lock, "error-unknown", json!({ "x": 1 }));
}

#[test]
fn errors_as_json() {
    let fake = Fake::always(|| error("Busy", json!({ "environment": "production", "operation": "check" })));
    fake.run(&["lock", "--json"]).golden("error-busy.json");
    let ran = run(std::path::Path::new("/nonexistent/control.sock"), &["status", "--json"]);
    let value: Value = serde_json::from_str(&ran.stderr()).unwrap();
    assert_eq!((value["exit"].as_i64(), ran.code()), (Some(4), 4));
    assert_eq!(ran.stdout(), "");
}

fn info(version: &'static str) -> Answer {
    reply(json!({ "vendor": "guardd", "product": "guardd", "version": version, "url": "", "interfaces": [] }))
}

#[test]
fn another_version_of_the_daemon() {
    let newer = Fake::new(|call| match call.split().1 {
        "GetInfo" => info("9.9.9"),
        _ => error("org.varlink.service.MethodNotFound", json!({ "method": "Reload" })),
    });
    newer.run(&["reload"]).golden("version-method");
    let other = Fake::new(|call| match call.split().1 {
        "GetInfo" => info("9.9.9"),
        _ => reply(json!({ "daemon": { "version": 7 } })),
    });
    other.run(&["status"]).golden("version-reply");
    let stream = Fake::new(|call| match call.split().1 {
        "GetInfo" => info("9.9.9"),
        _ => reply(json!({ "progress": null, "result": null })),
    });
    stream.run(&["check"]).golden("version-no-result");
    // One that does not even say what it is.
    let strange = Fake::always(|| reply(json!({ "hello": "world" })));
    strange.run(&["status"]).golden("version-none");
}

#[test]
fn daemons_that_misbehave() {
    let close = || Answer::Close(Vec::new());
    Fake::always(close).run(&["status"]).golden("broken-closed");
    Fake::always(close).run(&["lock"]).golden("broken-closed-lock");
    Fake::always(|| Answer::Close(b"{\"parameters\":{".to_vec())).run(&["status"]).golden("broken-half");
    let garbage = || Answer::Close(b"SSH-2.0-OpenSSH_9.2p1\r\n\x1b[2J\0".to_vec());
    Fake::always(garbage).run(&["status"]).golden("broken-garbage");
    Fake::always(|| Answer::Close(vec![b'x'; 17 * 1024 * 1024])).run(&["status"]).golden("broken-oversize");
    Fake::always(|| Answer::Hang(Vec::new())).run(&["status", "--timeout", "1s"]).golden("broken-silent");
    let progress = json!({ "parameters": { "progress": { "phase": "read", "done": 1, "total": 2 }, "result": null }, "continues": true });
    let stuck = move || Answer::Hang(format!("{progress}\0").into_bytes());
    Fake::always(stuck).run(&["lock", "--timeout", "1s"]).golden("broken-stuck");
    let watch = || {
        Answer::Close(
            b"{\"parameters\":{\"head\":{\"seq\":1,\"hash\":\"00\"}},\"continues\":true}\0".to_vec(),
        )
    };
    Fake::always(watch).run(&["watch"]).golden("broken-watch");
}

#[test]
fn a_daemon_that_does_not_accept() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let mut held = Vec::new();
    while let Ok(client) =
        guard_api::Client::connect_within(&socket, Some(std::time::Duration::from_millis(100)))
    {
        held.push(client);
    }
    run(&socket, &["status", "--timeout", "1s"]).golden("reach-no-accept");
}

#[test]
fn no_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    run(&socket, &["status"]).golden("reach-missing");
    std::fs::write(&socket, "").unwrap();
    run(&socket, &["status"]).golden("reach-no-socket");
    std::fs::remove_file(&socket).unwrap();
    drop(UnixListener::bind(&socket).unwrap());
    run(&socket, &["status"]).golden("reach-stale");
    let long = dir.path().join("x".repeat(150));
    let ran = run(&long, &["status"]);
    assert_eq!(ran.code(), 4);
    assert!(ran.stderr().contains("File name too long"), "{}", ran.stderr());
    // The option wins over the variable, and a leading unix: in the variable is borne.
    let fake = Fake::always(|| reply(status(&[locked()])));
    assert_eq!(run(&socket, &["status", "--socket", fake.socket().to_str().unwrap()]).code(), 0);
    let mut with_scheme = guardctl(&fake.socket(), &["status"]);
    with_scheme.env("GUARDD_SOCKET", format!("unix:{}", fake.socket().display()));
    assert_eq!(with_scheme.output().unwrap().status.code(), Some(0));
}

/// Whoever runs this, root or not, the client runs as one who may not connect.
#[test]
fn a_socket_that_is_for_others() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let socket = dir.path().join("control.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o000)).unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let as_other = |command: &mut std::process::Command| {
        if is_root {
            command.uid(4_242_424).gid(4_242_424);
        }
        command.output().unwrap()
    };
    // The build directory may be closed to others.
    let binary = dir.path().join("guardctl");
    copy_program(std::path::Path::new(env!("CARGO_BIN_EXE_guardctl")), &binary);
    let mut command = std::process::Command::new(&binary);
    command.arg("status").env_clear().env("GUARDD_SOCKET", &socket);
    let output = as_other(&mut command);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{text}");
    assert!(text.contains("permission denied for "), "{text}");
    assert!(text.contains("the socket is for ") && text.contains("hint: "), "{text}");
    if is_root {
        assert!(text.contains("4242424 is not a member of root"), "{text}");
        assert!(text.contains("hint: become one: sudo usermod --append --groups root 4242424"), "{text}");
        std::fs::create_dir(dir.path().join("closed")).unwrap();
        let closed = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(dir.path().join("closed"), closed).unwrap();
        command.env("GUARDD_SOCKET", dir.path().join("closed/control.sock"));
        let text = String::from_utf8(as_other(&mut command).stderr).unwrap();
        assert!(text.contains("a directory above the socket may not be entered"), "{text}");
    }
}

#[test]
fn wrong_usage() {
    let fake = Fake::always(|| reply(status(&[locked()])));
    let cases: &[(&str, &[&str])] = &[
        ("usage-unlock-reason", &["unlock", "production", "--maintainer", "anna"]),
        ("usage-unlock-maintainer", &["unlock", "production", "--reason", "x"]),
        ("usage-unlock-blank", &["unlock", "production", "--reason", "  ", "--maintainer", "anna"]),
        ("usage-accept-reason", &["accept", "production", "a"]),
        ("usage-accept-nothing", &["accept"]),
        ("usage-ack-note", &["alerts", "ack", "17"]),
        ("usage-ack-id", &["alerts", "ack", "seventeen", "--note", "x"]),
        ("usage-for", &["unlock", "--for", "30", "--reason", "x", "--maintainer", "m"]),
        ("usage-command", &["lokc"]),
        ("usage-baseline", &["baseline", "exprot"]),
        ("usage-later", &["audit", "production"]),
        ("usage-force-reason", &["deploy", "production", "--force", "health"]),
        ("usage-verify-key", &["log", "verify", "--key", "k"]),
    ];
    for (name, args) in cases {
        let ran = fake.run(args);
        ran.golden(name);
        assert_eq!((ran.code(), ran.calls.len()), (2, 0), "{name}");
    }
}
