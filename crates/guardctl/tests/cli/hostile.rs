//! Daemons whose every word is meant to harm a terminal. The replies are made
//! from the IDL, so that no field is forgotten.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};

use guard_api::INTERFACE_IDL;
use serde_json::{Map, Value, json};
use varlink_parser::{IDL, VStruct, VStructOrEnum, VType, VTypeExt};

use crate::support::{Answer, Fake, HOSTILE, assert_harmless, error, reply};

/// A value of a type in which every string is hostile.
fn object(idl: &IDL<'_>, s: &VStruct<'_>, pick: usize) -> Value {
    let fields = s.elts.iter().map(|f| (f.name.to_owned(), value(idl, f.name, &f.vtype, pick)));
    Value::Object(fields.collect())
}

fn is_carrier(name: &str) -> bool {
    matches!(name, "result" | "record" | "head" | "expected")
}

/// A number that is another for each field and each reply, and the same in each run.
fn turn(name: &str, pick: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    (name, pick).hash(&mut hasher);
    usize::try_from(hasher.finish() >> 33).unwrap()
}

/// Another text each time, so that no two are equal.
fn hostile() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{HOSTILE}{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

fn value(idl: &IDL<'_>, name: &str, t: &VTypeExt<'_>, pick: usize) -> Value {
    match t {
        // What carries a reply has to be there; the rest is there or not by turns.
        VTypeExt::Option(_) if !is_carrier(name) && turn(name, pick).is_multiple_of(4) => Value::Null,
        VTypeExt::Option(inner) => value(idl, name, inner, pick),
        VTypeExt::Array(inner) => {
            let length = [2, 1, 0][turn(name, pick) % 3];
            (0..length).map(|_| value(idl, name, inner, pick)).collect()
        }
        // One key that is always there with another value, and one that is another each time:
        // so that what was before and what is after differ in every way.
        VTypeExt::Dict(_) => json!({ HOSTILE: hostile(), hostile(): HOSTILE }),
        VTypeExt::Plain(plain) => match plain {
            VType::Bool => json!(pick.is_multiple_of(2)),
            VType::Int => json!([7, 0, i64::from(i32::MAX)][pick % 3]),
            VType::Float => json!(0.5),
            VType::String if name == "at" || name == "since" || name == "until" || name.ends_with("_at") => {
                json!(
                    ["2026-11-21T22:26:40.000001Z", "@9223372036854775807us", "@-9223372036854775808us"]
                        [pick % 3]
                )
            }
            VType::String if name == "data" => json!("G1sySgo="),
            VType::String if name == "file" => json!("SHA256SUMS"),
            VType::String => json!(hostile()),
            VType::Object => record(idl, pick),
            VType::Struct(s) => object(idl, s, pick),
            VType::Enum(e) => json!(e.elts[pick % e.elts.len()]),
            VType::Typename(name) => match &idl.typedefs[name].elt {
                VStructOrEnum::VStruct(s) => object(idl, s, pick),
                VStructOrEnum::VEnum(e) => json!(e.elts[pick % e.elts.len()]),
            },
        },
    }
}

/// Records of every event, with hostile text and with values of the wrong type.
fn record(idl: &IDL<'_>, pick: usize) -> Value {
    const EVENTS: [&str; 23] = [
        "daemon_started",
        "daemon_stopped",
        "configuration",
        "call",
        "locked",
        "lock_repaired",
        "window_opened",
        "window_change",
        "window_closed",
        "alert_opened",
        "alert_grew",
        "alert_acknowledged",
        "alert_settled",
        "accepted",
        "gap_opened",
        "gap_closed",
        "rehash_finished",
        "recovered",
        "sink",
        "checkpoint",
        HOSTILE,
        "",
        "unknown",
    ];
    const FIELDS: [&str; 33] = [
        "version",
        "pid",
        "after_clean_stop",
        "reason",
        "accepted",
        "problems",
        "method",
        "peer",
        "outcome",
        "error",
        "by",
        "generation",
        "totals",
        "seal",
        "repaired",
        "maintainer",
        "until",
        "window",
        "how",
        "changed",
        "findings",
        "alert",
        "severity",
        "title",
        "note",
        "paths",
        "cause",
        "since",
        "detail",
        "gap",
        "verified",
        "found",
        "sink",
    ];
    let values = [
        json!(HOSTILE),
        json!([HOSTILE]),
        json!({ HOSTILE: HOSTILE, "name": HOSTILE }),
        json!(7),
        json!(null),
        json!(false),
    ];
    let mut map = Map::new();
    for (at, field) in FIELDS.iter().enumerate() {
        map.insert((*field).to_owned(), values[(pick + at) % values.len()].clone());
    }
    for (key, value) in [("seq", json!(9)), ("at", json!("2026-11-21T22:26:40Z")), ("prev", json!(HOSTILE))] {
        map.insert(key.to_owned(), value);
    }
    map.insert("environment".to_owned(), json!(HOSTILE));
    map.insert("peer".to_owned(), json!({ "name": HOSTILE, "uid": HOSTILE }));
    if let VStructOrEnum::VStruct(finding) = &idl.typedefs["Finding"].elt {
        map.insert("findings".to_owned(), json!([object(idl, finding, pick)]));
    }
    map.insert("event".to_owned(), json!(EVENTS[pick % EVENTS.len()]));
    Value::Object(map)
}

const COMMANDS: [&[&str]; 19] = [
    &["status"],
    &["watch"],
    &["alerts"],
    &["alerts", "show", "7"],
    &["alerts", "ack", "7", "--note", "n"],
    &["who", "a"],
    &["log"],
    &["log", "--follow"],
    &["log", "verify"],
    &["log", "export", "--head"],
    &["lock"],
    &["unlock", "--reason", "r", "--maintainer", "m"],
    &["check"],
    &["diff"],
    &["diff", "e", "a"],
    &["accept", "e", "a", "--reason", "r"],
    &["baseline", "list"],
    &["baseline", "export", "--to", "/dev/null/x"],
    &["reload"],
];

#[test]
fn no_reply_drives_the_terminal() {
    for pick in 0..46 {
        let fake = Fake::new(move |call| {
            if !call.method.starts_with("org.guardd.") {
                return error(&format!("org.example.{HOSTILE}"), json!({}));
            }
            let idl = IDL::try_from(INTERFACE_IDL).unwrap_or_else(|e| panic!("{e}"));
            reply(object(&idl, &idl.methods[call.split().1].output, pick))
        });
        for args in COMMANDS {
            for json in [false, true].into_iter().filter(|json| !json || pick.is_multiple_of(4)) {
                let args = if json { [args, &["--json"]].concat() } else { args.to_vec() };
                let ran = fake.run(&args);
                assert_harmless(&ran.stdout());
                assert_harmless(&ran.stderr());
                assert!((0..=6).contains(&ran.code()), "{args:?}: {}", ran.stderr());
                // The reply was understood, and not refused before it could harm.
                let fine =
                    args.contains(&"/dev/null/x") || !ran.stderr().contains("is not what this version knows");
                assert!(fine, "{args:?}: {}", ran.stderr());
                if json && ran.code() < 2 {
                    for line in
                        ran.stdout().lines().filter(|_| args.contains(&"--follow") || args.contains(&"watch"))
                    {
                        serde_json::from_str::<Value>(line).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn no_error_drives_the_terminal() {
    let idl = IDL::try_from(INTERFACE_IDL).unwrap_or_else(|e| panic!("{e}"));
    for (name, e) in &idl.errors {
        for pick in 0..3 {
            let parameters = object(&idl, &e.parm, pick);
            let name = (*name).to_owned();
            let fake = Fake::always(move || error(&name, parameters.clone()));
            for args in [&["lock"][..], &["lock", "--json"]] {
                let ran = fake.run(args);
                assert_harmless(&ran.stdout());
                assert_harmless(&ran.stderr());
                assert!((2..=6).contains(&ran.code()));
            }
        }
    }
    let fake = Fake::always(|| error(&format!("org.example.{HOSTILE}"), json!({ HOSTILE: HOSTILE })));
    let ran = fake.run(&["lock"]);
    assert_harmless(&ran.stderr());
    assert_eq!(ran.code(), 5);
}

/// Bytes that are no message end in exit 4 and a word about it, never in a crash.
#[test]
fn no_bytes_crash_the_client() {
    let stems: [&[u8]; 8] = [
        b"",
        b"\0",
        b"null",
        b"{}",
        b"{\"parameters\":null}",
        b"{\"parameters\":{\"environments\":7}}",
        b"{\"error\":\"\"}",
        b"{\"continues\":true}",
    ];
    for stem in stems {
        for tail in [&b"\0"[..], b"", b"\0\0\0", b"\xff\xfe\0"] {
            let bytes = [stem, tail].concat();
            let fake = Fake::always(move || Answer::Close(bytes.clone()));
            for args in [&["status"][..], &["check"], &["watch"], &["log", "export"]] {
                let ran = fake.run(args);
                assert_harmless(&ran.stderr());
                assert!(
                    matches!(ran.code(), 4 | 5),
                    "{args:?} {stem:?} {tail:?}: {} {}",
                    ran.code(),
                    ran.stderr()
                );
                assert!(ran.stderr().starts_with("error: "), "{}", ran.stderr());
            }
        }
    }
    // Deeper than a parser's stack.
    let deep = [b"{\"parameters\":".repeat(100_000), b"\0".to_vec()].concat();
    assert_eq!(Fake::always(move || Answer::Close(deep.clone())).run(&["status"]).code(), 4);
}
