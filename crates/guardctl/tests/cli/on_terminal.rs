//! guardctl on a terminal: colour, progress, questions. A pseudo terminal plays the user.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::Command;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};

use crate::fixtures::*;
use crate::support::{Fake, HOSTILE, error, guardctl, replies, reply};

/// A terminal: what is typed into it, and everything that was shown on it.
struct Terminal {
    user: File,
    child: std::process::Child,
    shown: String,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&user).unwrap();
        unlockpt(&user).unwrap();
        let name = ptsname(&user, Vec::new()).unwrap().into_string().unwrap();
        let open = || OwnedFd::from(File::options().read(true).write(true).open(&name).unwrap());
        let child = command.stdin(open()).stdout(open()).stderr(open()).spawn().unwrap();
        // The command holds the other ends, and with it they have to go.
        drop(command);
        Self { user: user.into(), child, shown: String::new() }
    }

    /// Reads on until the text is shown.
    fn wait_for(&mut self, text: &str) {
        while !self.shown.contains(text) {
            assert!(self.read(), "{text} is not in {:?}", self.shown);
        }
    }

    fn type_line(&mut self, text: &str) {
        self.user.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // EIO: nobody holds the other end any more.
        match self.user.read(&mut buffer) {
            Ok(0) | Err(_) => false,
            Ok(n) => {
                self.shown.push_str(&String::from_utf8_lossy(&buffer[..n]));
                true
            }
        }
    }

    fn end(mut self) -> (i32, String) {
        while self.read() {}
        (self.child.wait().unwrap().code().unwrap(), self.shown)
    }
}

fn unlocked() -> Value {
    json!({
        "progress": null,
        "result": { "environment": "production", "window": window(), "restored": 1, "skipped": [], "duration_ms": 1 }
    })
}

#[test]
fn it_asks_for_what_is_missing() {
    let fake = Fake::always(|| reply(unlocked()));
    let mut t = Terminal::start(guardctl(&fake.socket(), &["unlock"]));
    t.wait_for("Reason:");
    t.type_line("");
    t.type_line("fix the queue");
    t.wait_for("Maintainer:");
    t.type_line("anna");
    let (code, shown) = t.end();
    assert_eq!(code, 0, "{shown}");
    let call = fake.run(&["status"]).calls.remove(0);
    assert_eq!(call["parameters"]["reason"], "fix the queue");
    assert_eq!(call["parameters"]["maintainer"], "anna");
}

#[test]
fn it_does_not_ask_for_ever() {
    let fake = Fake::always(|| reply(unlocked()));
    let mut t = Terminal::start(guardctl(&fake.socket(), &["alerts", "ack", "7"]));
    for _ in 0..3 {
        t.wait_for("Note:");
        t.type_line("  ");
    }
    let (code, shown) = t.end();
    assert_eq!(code, 2);
    assert!(shown.contains("--note is missing"), "{shown}");
    let mut t = Terminal::start(guardctl(&fake.socket(), &["accept", "a"]));
    t.wait_for("Reason:");
    // Control-D.
    t.user.write_all(b"\x04").unwrap();
    let (code, shown) = t.end();
    assert_eq!(code, 2);
    assert!(shown.contains("the terminal was closed"), "{shown}");
}

#[test]
fn colour_only_where_it_is_wanted() {
    let fake = Fake::always(|| reply(status(&[locked()])));
    let show = |change: &dyn Fn(&mut Command)| {
        let mut command = guardctl(&fake.socket(), &["status"]);
        change(&mut command);
        Terminal::start(command).end().1
    };
    assert!(show(&|_| {}).contains("\x1b[32mLOCKED\x1b[0m"));
    for (name, value) in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let shown = show(&|c| {
            c.env(name, value);
        });
        assert!(shown.contains("LOCKED") && !shown.contains('\x1b'), "{shown:?}");
    }
    // An empty NO_COLOR means nothing (no-color.org).
    assert!(
        show(&|c| {
            c.env("NO_COLOR", "");
        })
        .contains('\x1b')
    );
    let json = Terminal::start(guardctl(&fake.socket(), &["status", "--json"])).end().1;
    assert!(!json.contains('\x1b'), "{json:?}");
}

#[test]
fn progress_is_shown_and_leaves_nothing_behind() {
    let steps = || {
        let progress =
            json!({ "progress": { "phase": "read", "done": 1_234, "total": 5_000 }, "result": null });
        let findings = json!({
            "environment": "production", "generation": 7, "clean": true, "files": 5_000, "bytes": 1, "duration_ms": 1,
            "findings": [], "findings_total": 0
        });
        replies([progress, json!({ "progress": null, "result": findings })])
    };
    let fake = Fake::always(steps);
    let (code, shown) = Terminal::start(guardctl(&fake.socket(), &["check"])).end();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("\r\x1b[K  read  1,234 / 5,000  24%\r\x1b[K"), "{shown:?}");
    let (_, shown) = Terminal::start(guardctl(&fake.socket(), &["check", "--json"])).end();
    assert!(!shown.contains("1,234"), "{shown:?}");
}

/// Exact bytes are for files; on a terminal they must not act.
#[test]
fn evidence_on_a_terminal_is_harmless() {
    let head =
        json!({ "seq": 1, "hash": "00", "at": "2026-01-01T00:00:00Z", "machine_id": "m", "signature": "s" });
    let fake = Fake::new(move |call| match call.split().1 {
        "ExportLog" => reply(json!({ "lines": [format!("{{\"text\":\"{HOSTILE}\"}}")], "head": head })),
        // ESC [ 2 J, newline
        "ExportBaseline" => reply(json!({
            "environment": "p", "generation": 1, "root": "/srv", "file": "SHA256SUMS", "size": 5, "data": "G1sySgo="
        })),
        _ => error("Failed", json!({ "message": HOSTILE, "hint": HOSTILE })),
    });
    for args in [&["log", "export"][..], &["baseline", "export"], &["reload"]] {
        let mut command = guardctl(&fake.socket(), args);
        command.env("NO_COLOR", "1");
        let (_, shown) = Terminal::start(command).end();
        crate::support::assert_harmless(&shown.replace("\r\n", "\n"));
    }
}
