//! Clients that keep no rules: none of them harms the daemon or another client.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use guard_api::method::{GetInfo, GetInterfaceDescription, Status};
use guard_api::{Client, Known};
use serde_json::{Value, json};

use crate::raw::Raw;
use crate::stage::{PLAIN, Stage, run};
use crate::tree::{is_root, root_for, write};
use crate::wait;

/// Another client is served, promptly, and by the same daemon.
#[track_caller]
fn others_are_served(stage: &mut Stage) {
    let clock = Instant::now();
    let told = stage.status();
    assert_eq!(told.daemon.pid, stage.pid());
    assert!(clock.elapsed() < Duration::from_secs(60), "a status took {:?}", clock.elapsed());
    assert!(stage.is_running());
}

fn status_call() -> String {
    json!({"method": "org.guardd.Control.Status", "parameters": {}}).to_string()
}

#[test]
fn what_is_no_message_ends_the_connection_and_nothing_else() {
    let mut stage = Stage::locked(PLAIN);
    let deep = format!("{{\"method\":\"x\",\"parameters\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let nonsense: Vec<Vec<u8>> = vec![
        b"\0".to_vec(),
        b"\0\0\0\0".to_vec(),
        b"hello\0".to_vec(),
        b"\xff\xfe\xfd\0".to_vec(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\0".to_vec(),
        b"null\0".to_vec(),
        b"[]\0".to_vec(),
        b"{}\0".to_vec(),
        b"\"text\"\0".to_vec(),
        b"{\"method\":7}\0".to_vec(),
        b"{\"method\":\"a.b\",\"parameters\":[]}\0".to_vec(),
        b"{\"method\":\"a.b\",\"more\":\"yes\"}\0".to_vec(),
        b"{\"parameters\":{}}\0".to_vec(),
        b"{\"method\":\"org.guardd.Control.Status\"\0".to_vec(),
        (deep + "\0").into_bytes(),
        [b"{\"method\":\"".to_vec(), vec![b'a'; 500_000], b"\"}\0".to_vec()].concat(),
        (0..=255_u8).cycle().take(70_000).collect(),
    ];
    for bytes in nonsense {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
        let mut raw = Raw::connect(&stage.socket());
        raw.send(&bytes);
        raw.stream.shutdown(std::net::Shutdown::Write).ok();
        // Closed without a word, or answered by an error.
        while let Some(reply) = raw.next() {
            assert!(reply["error"].is_string(), "{shown:?} was answered by {reply}");
        }
    }
    others_are_served(&mut stage);
    assert_eq!(stage.all_alerts(), []);
}

#[test]
fn a_message_without_end_is_cut_off() {
    let mut stage = Stage::locked(PLAIN);
    for chunk in [&[b' '; 65536][..], &[b'['; 65536], &[0xff; 65536]] {
        let mut raw = Raw::connect(&stage.socket());
        let mut sent = 0_usize;
        while sent < 32 << 20 && raw.send(chunk) {
            sent += chunk.len();
        }
        assert!(sent < 8 << 20, "it took {sent} bytes");
    }
    others_are_served(&mut stage);
}

#[test]
fn unknown_methods_interfaces_and_parameters_are_told_by_the_standard_errors() {
    let stage = Stage::locked(PLAIN);
    let mut raw = Raw::connect(&stage.socket());
    let mut error = |call: Value| -> (String, Value) {
        assert!(raw.say(call.to_string()));
        let reply = raw.next().expect("it hung up");
        (
            reply["error"].as_str().unwrap_or_else(|| panic!("{call}: {reply}")).to_owned(),
            reply["parameters"].clone(),
        )
    };
    let call = |method: &str, parameters: Value| json!({"method": method, "parameters": parameters});
    let service = "org.varlink.service";
    assert_eq!(
        error(call("org.guardd.Control.Reboot", json!({}))),
        (format!("{service}.MethodNotFound"), json!({"method": "org.guardd.Control.Reboot"}))
    );
    assert_eq!(
        error(call("org.example.Ping", json!({}))),
        (format!("{service}.InterfaceNotFound"), json!({"interface": "org.example"}))
    );
    for method in [
        "",
        ".",
        "Status",
        "org.guardd.Control.",
        "org.guardd.Control",
        "\u{0}x",
        "org.guardd.control.Status",
    ] {
        let (name, _) = error(call(method, json!({})));
        assert!(name.starts_with(service), "{method:?}: {name}");
    }
    for (method, parameters, parameter) in [
        ("Lock", json!({"environment": 7}), "environment"),
        ("Unlock", json!({"reason": [], "maintainer": "a"}), "reason"),
        ("Unlock", json!({"reason": "a", "maintainer": "a", "for_seconds": -1}), "for_seconds"),
        ("Unlock", json!({"reason": "a", "maintainer": "a", "for_seconds": 1.5}), "for_seconds"),
        ("Unlock", json!({"reason": "a", "maintainer": "a", "for_seconds": 1e300}), "for_seconds"),
        ("Check", json!({"quick": "yes"}), "quick"),
        ("Accept", json!({"paths": "compose.yml", "reason": "x"}), "paths"),
        ("Accept", json!({"paths": [7], "reason": "x"}), "paths[0]"),
        ("Accept", json!({}), "paths"),
        ("ShowAlert", json!({}), "id"),
        ("ShowAlert", json!({"id": "1"}), "id"),
        ("ShowAlert", json!({"id": -1}), "id"),
        ("ShowAlert", json!({"id": 18_446_744_073_709_551_616_f64}), "id"),
        ("Log", json!({"limit": {}}), "limit"),
        ("Who", json!({}), "path"),
        ("Who", json!({"path": "\\xzz"}), "path"),
        ("Diff", json!({"path": "../../etc/shadow"}), "path"),
        ("ExportBaseline", json!({"generation": "one"}), "generation"),
    ] {
        let (name, told) = error(call(&format!("org.guardd.Control.{method}"), parameters.clone()));
        assert_eq!(name, format!("{service}.InvalidParameter"), "{method} {parameters}: {told}");
        assert_eq!(told["parameter"], parameter, "{method} {parameters}");
    }
    // The same connection is still good.
    assert!(raw.say(status_call()));
    assert!(raw.next().unwrap()["parameters"]["daemon"].is_object());
}

#[test]
fn introspection_is_what_varlink_wants() {
    let stage = Stage::locked(PLAIN);
    let info = stage.call(&GetInfo {});
    assert_eq!((info.product.as_str(), info.version.as_str()), ("guardd", env!("CARGO_PKG_VERSION")));
    for interface in info.interfaces {
        let idl = stage.call(&GetInterfaceDescription { interface: interface.clone() }).description;
        assert!(idl.contains(&format!("interface {interface}")), "{idl}");
    }
    assert!(matches!(
        stage.refused(&GetInterfaceDescription { interface: "org.example".into() }),
        Known::InterfaceNotFound { .. }
    ));
}

#[test]
fn pipelined_and_one_way_calls_are_answered_in_order() {
    let stage = Stage::locked(PLAIN);
    let mut raw = Raw::connect(&stage.socket());
    let mut all = String::new();
    for n in 0..50 {
        let id = if n % 2 == 0 { "GetInfo" } else { "Nothing" };
        all += &format!("{{\"method\":\"org.varlink.service.{id}\"}}\0");
    }
    all += "{\"method\":\"org.varlink.service.GetInfo\",\"oneway\":true}\0";
    all += &format!("{}\0", status_call());
    assert!(raw.send(&all));
    for n in 0..50 {
        let reply = raw.next().unwrap();
        assert_eq!(reply.get("error").is_some(), n % 2 == 1, "{n}: {reply}");
    }
    assert!(raw.next().unwrap()["parameters"]["daemon"].is_object(), "a one-way call was answered");
}

#[test]
fn whoever_is_slow_or_silent_holds_up_nobody() {
    let mut stage = Stage::locked(PLAIN);
    // Silent, half a message, one byte at a time, half closed.
    let silent: Vec<UnixStream> = (0..10).map(|_| UnixStream::connect(stage.socket()).unwrap()).collect();
    let mut half = Raw::connect(&stage.socket());
    half.send(&status_call()[..20]);
    let mut closed = Raw::connect(&stage.socket());
    closed.say(status_call());
    closed.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(closed.next().unwrap()["parameters"].is_object(), "half closed is no reason to be silent");
    assert!(closed.next().is_none());
    let mut slow = Raw::connect(&stage.socket());
    for byte in status_call().bytes().chain([0]) {
        assert!(slow.send([byte]));
        others_are_quick(&stage);
    }
    assert!(slow.next().unwrap()["parameters"]["daemon"].is_object());
    assert!(half.send(&status_call()[20..]) && half.send([0]));
    assert!(half.next().unwrap()["parameters"]["daemon"].is_object());
    drop(silent);
    others_are_served(&mut stage);
}

#[track_caller]
fn others_are_quick(stage: &Stage) {
    let mut client = Client::connect(&stage.socket()).unwrap();
    client.set_timeout(Some(Duration::from_secs(60)));
    client.call(&Status {}).unwrap();
}

#[test]
fn two_hundred_connections_at_once_leave_room_for_the_next() {
    let mut stage = Stage::locked(PLAIN);
    let all: Vec<UnixStream> = (0..200).map(|_| UnixStream::connect(stage.socket()).unwrap()).collect();
    // The very next one is served, though all the others are still there.
    for _ in 0..20 {
        others_are_served(&mut stage);
    }
    drop(all);
    others_are_served(&mut stage);
    // The same with each of them in the middle of a message.
    let mut all: Vec<Raw> = (0..200).map(|_| Raw::connect(&stage.socket())).collect();
    for raw in &mut all {
        raw.send(b"{\"method\":");
    }
    others_are_served(&mut stage);
    drop(all);
    assert!(stage.check().clean);
}

#[test]
fn a_subscriber_that_never_reads_neither_stops_detection_nor_others() {
    let mut stage = Stage::new(PLAIN);
    for n in 0..400 {
        write(&stage.at(format!("many/f{n}")), "x");
    }
    stage.start();
    stage.lock();
    let watch = json!({"method": "org.guardd.Control.Watch", "parameters": {}, "more": true}).to_string();
    let log =
        json!({"method": "org.guardd.Control.Log", "parameters": {"follow": true}, "more": true}).to_string();
    let mut deaf: Vec<Raw> = (0..6).map(|_| Raw::connect(&stage.socket())).collect();
    for (n, raw) in deaf.iter_mut().enumerate() {
        raw.say(if n % 2 == 0 { &watch } else { &log });
    }
    let events = stage.follow();
    for round in 0..5 {
        for n in 0..400 {
            fs::write(stage.at(format!("many/f{n}")), format!("round {round}")).unwrap();
        }
    }
    others_are_served(&mut stage);
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 400 {
        let record = events.wait_for("findings", |r| !crate::stage::findings_of(r).is_empty());
        seen.extend(crate::stage::findings_of(&record).into_iter().map(|f| f.path));
    }
    // A listener that reads is told everything in order; those that do not are still only there.
    others_are_served(&mut stage);
    assert_eq!(stage.found_paths().len(), 400);
    drop(deaf);
    others_are_served(&mut stage);
}

#[test]
fn whoever_hangs_up_in_the_middle_of_a_stream_is_forgotten() {
    let mut stage = Stage::locked(PLAIN);
    for _ in 0..150 {
        let mut raw = Raw::connect(&stage.socket());
        raw.say(json!({"method": "org.guardd.Control.Watch", "more": true}).to_string());
        assert!(raw.next().unwrap()["continues"].as_bool().unwrap());
    }
    fs::write(stage.at("compose.yml"), "x").unwrap();
    stage.finding("compose.yml");
    others_are_served(&mut stage);
    // None of their descriptors is left.
    wait::until_true("closed connections", || {
        fs::read_dir(format!("/proc/{}/fd", stage.pid())).unwrap().count() < 80
    });
}

#[test]
fn a_check_that_nobody_waits_for_is_ended() {
    let stage = Stage::locked(PLAIN);
    for _ in 0..30 {
        let mut raw = Raw::connect(&stage.socket());
        raw.say(json!({"method": "org.guardd.Control.Check", "more": true}).to_string());
    }
    assert!(stage.check().clean);
}

#[test]
fn strangers_are_refused_and_recorded_with_who_they_are() {
    if !root_for("a caller of another user") {
        return;
    }
    let stage = Stage::locked(PLAIN);
    // The socket lets nobody else in; an intruder may have got hold of it all the same.
    crate::tree::chmod(&stage.socket(), 0o666);
    let socket = stage.socket();
    let guardctl = crate::stage::guardctl_for(&stage);
    for (n, args) in [&["status"][..], &["lock"], &["unlock", "--reason", "x", "--maintainer", "y"], &["log"]]
        .iter()
        .enumerate()
    {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&guardctl).args(*args);
        let done = run(command.env("GUARDD_SOCKET", &socket));
        assert_eq!(done.status.code(), Some(3), "{args:?}: {}", crate::stage::text_of(&done));
        let refused: Vec<_> =
            stage.events("call").into_iter().filter(|c| c.fields["outcome"] == "refused").collect();
        assert_eq!(refused.len(), n + 1);
        let last = refused.last().unwrap();
        assert_eq!(last.fields["peer"]["uid"], 65534);
        assert!(last.fields["peer"]["pid"].as_i64().unwrap() > 1);
        assert_eq!(last.fields["error"], "PermissionDenied");
    }
    assert_eq!(stage.site().generation, Some(1));
    stage.log_line("protection.log", |l| l.contains("65534") && l.contains("refused"));
}

#[test]
fn groups_may_do_what_they_were_given_and_no_more() {
    if !root_for("a caller of another group") {
        return;
    }
    let mut stage = Stage::new(PLAIN);
    let text = stage.daemon_section() + "[daemon.allow]\nack = [\"daemon\"]\n";
    stage.write_config(&(text + &stage.environment_section(crate::stage::ENV, &stage.app(), PLAIN)));
    stage.start();
    stage.lock();
    crate::tree::chmod(&stage.socket(), 0o666);
    fs::write(stage.at("compose.yml"), "x").unwrap();
    stage.finding("compose.yml");
    let id = stage.all_alerts()[0].id.to_string();
    let guardctl = crate::stage::guardctl_for(&stage);
    let as_daemon = |args: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=daemon", "--clear-groups"]).arg(&guardctl).args(args);
        run(command.env("GUARDD_SOCKET", stage.socket())).status.code()
    };
    assert_eq!(as_daemon(&["status"]), Some(0));
    assert_eq!(as_daemon(&["lock"]), Some(3));
    assert_eq!(as_daemon(&["accept", "compose.yml", "--reason", "x"]), Some(3));
    assert_eq!(as_daemon(&["alerts", "ack", &id, "--note", "seen"]), Some(0));
    assert_eq!(stage.open_alerts(), []);
}

#[test]
fn the_socket_is_private_from_the_start() {
    let stage = Stage::locked(PLAIN);
    let mode = crate::tree::mode(&stage.socket());
    // With the group `guardd` on this machine root's socket is its group's too.
    assert!(mode == 0o600 || (is_root() && mode == 0o660), "{mode:o}");
    assert_eq!(fs::read_dir(stage.path("run")).unwrap().count(), 1);
}
