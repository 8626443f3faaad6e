//! The client against servers that do as they should, and against all others.

#![expect(clippy::unwrap_used, reason = "a failed test says where")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use guard_api::method::{Check, ShowAlert, Status, VerifyLog, Watch};
use guard_api::{Call, Client, ClientError, Exit, REPLY_CAP};

const SHORT: Duration = Duration::from_millis(150);
const LONG: Duration = Duration::from_secs(30);

struct Server {
    _dir: tempfile::TempDir,
    socket: PathBuf,
    thread: JoinHandle<()>,
}

/// Serves one connection with `serve`, which gets the stream and the first call.
fn server(serve: impl FnOnce(&mut UnixStream, Call) + Send + 'static) -> Server {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let call = next_call(&mut stream);
        serve(&mut stream, call);
    });
    Server { _dir: dir, socket, thread }
}

fn next_call(stream: &mut UnixStream) -> Call {
    let mut message = Vec::new();
    BufReader::with_capacity(1, &mut *stream).read_until(0, &mut message).unwrap();
    Call::parse(&message[..message.len() - 1]).unwrap()
}

/// Sends text with `~` for the NUL.
fn say(stream: &mut UnixStream, text: &str) {
    stream.write_all(text.replace('~', "\0").as_bytes()).unwrap();
}

/// Until the client is gone.
fn wait_for_hangup(stream: &mut UnixStream) {
    while matches!(stream.read(&mut [0; 64]), Ok(n) if n > 0) {}
}

fn failure(server: &Server, timeout: Duration) -> ClientError {
    let mut client = Client::connect_within(&server.socket, Some(timeout)).unwrap();
    client.call(&Status {}).unwrap_err()
}

#[test]
fn a_reply_torn_into_single_bytes() {
    let s = server(|stream, call| {
        assert_eq!(call.method, "org.guardd.Control.Status");
        assert!(!call.more);
        let reply = "{\"parameters\":{\"daemon\":{\"version\":\"1\",\"pid\":1,\"started_at\":\"2026-01-01T00:00:00Z\"},\"environments\":[]}}\0";
        for byte in reply.as_bytes() {
            stream.write_all(&[*byte]).unwrap();
        }
    });
    let mut client = Client::connect(&s.socket).unwrap();
    let status = client.call(&Status {}).unwrap();
    assert_eq!(status.daemon.version, "1");
    s.thread.join().unwrap();
}

#[test]
fn a_stream_ends_with_the_reply_that_does_not_continue() {
    let s = server(|stream, call| {
        assert!(call.more);
        say(
            stream,
            r#"{"parameters":{"progress":{"phase":"read","done":1,"total":null},"result":null},"continues":true}~"#,
        );
        let result = r#"{"parameters":{"result":{"ok":true,"records":3,"head":{"seq":3,"hash":"00"},"checkpoints":1}}}~"#;
        say(stream, result);
        // The connection is good for a second call.
        assert_eq!(next_call(stream).method, "org.guardd.Control.VerifyLog");
        say(stream, result);
    });
    let mut client = Client::connect(&s.socket).unwrap();
    let steps: Vec<_> = client.call_more(&VerifyLog {}).unwrap().map(Result::unwrap).collect();
    assert_eq!(steps.len(), 2);
    assert_eq!(steps[0].progress.as_ref().unwrap().done, 1);
    assert!(steps[1].result.as_ref().unwrap().ok);
    assert!(client.call(&VerifyLog {}).unwrap().result.unwrap().ok);
    s.thread.join().unwrap();
}

#[test]
fn an_error_ends_a_call_and_the_connection_goes_on() {
    let s = server(|stream, _| {
        say(stream, r#"{"error":"org.guardd.Control.UnknownAlert","parameters":{"id":7}}~"#);
        next_call(stream);
        say(stream, r#"{"error":"org.example.Strange"}~"#);
    });
    let mut client = Client::connect(&s.socket).unwrap();
    let e = client.call(&ShowAlert { id: 7 }).unwrap_err();
    assert_eq!((e.to_string().as_str(), e.exit()), ("there is no alert 7", Exit::Usage));
    let mut replies = client.call_more(&Check::default()).unwrap();
    assert_eq!(replies.next().unwrap().unwrap_err().exit(), Exit::Failed);
    assert!(replies.next().is_none());
}

#[test]
fn an_unfinished_stream_blocks_further_calls() {
    let s = server(|stream, _| {
        say(stream, r#"{"parameters":{"head":{"seq":1,"hash":"00"}},"continues":true}~"#);
        wait_for_hangup(stream);
    });
    let mut client = Client::connect(&s.socket).unwrap();
    let first = client.call_more(&Watch::default()).unwrap().next().unwrap().unwrap();
    assert_eq!(first.head.unwrap().seq, 1);
    assert!(matches!(client.call(&Status {}), Err(ClientError::OutOfStep)));
}

#[test]
fn closed_before_and_within_a_reply() {
    for text in ["", "{\"parameters\":{"] {
        let s = server(move |stream, _| say(stream, text));
        let e = failure(&s, LONG);
        assert!(matches!(e, ClientError::Closed { .. }), "{e}");
        assert_eq!(e.exit(), Exit::Unreachable);
    }
}

#[test]
fn garbage() {
    for text in [
        "HTTP/1.1 400 Bad Request\r\n\r\n~",
        "~",
        "[]~",
        "7~",
        r#"{"parameters":[]}~"#,
        r#"{"continues":1}~"#,
    ] {
        let s = server(move |stream, _| say(stream, text));
        let e = failure(&s, LONG);
        assert!(matches!(e, ClientError::Frame { .. }), "{text}: {e}");
    }
}

#[test]
fn another_versions_reply() {
    let s = server(|stream, _| say(stream, r#"{"parameters":{"hello":"world"}}~"#));
    let e = failure(&s, LONG);
    assert!(matches!(&e, ClientError::Unexpected { method, .. } if method.ends_with("Status")), "{e}");
}

#[test]
fn an_endless_reply_is_cut_at_the_cap() {
    let s = server(|stream, _| {
        let chunk = [b'x'; 65536];
        let mut sent = 0;
        // Ends by the client hanging up, well before this.
        while sent < 4 * REPLY_CAP && stream.write_all(&chunk).is_ok() {
            sent += chunk.len();
        }
        assert!(sent < 2 * REPLY_CAP);
    });
    let e = failure(&s, LONG);
    assert!(matches!(e, ClientError::Frame { .. }), "{e}");
    s.thread.join().unwrap();
}

#[test]
fn silence_and_dripping_both_end_at_the_deadline() {
    let silent = server(|stream, _| wait_for_hangup(stream));
    let dripping = server(|stream, _| {
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    for s in [silent, dripping] {
        let begun = Instant::now();
        let e = failure(&s, SHORT);
        assert!(matches!(e, ClientError::TimedOut { .. }), "{e}");
        assert!(begun.elapsed() >= SHORT && begun.elapsed() < LONG);
        s.thread.join().unwrap();
    }
}

#[test]
fn a_daemon_that_does_not_accept() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let _listener = UnixListener::bind(&socket).unwrap();
    let mut held = Vec::new();
    let e = loop {
        match Client::connect_within(&socket, Some(SHORT)) {
            Ok(client) => held.push(client),
            Err(e) => break e,
        }
        assert!(held.len() < 10_000);
    };
    assert!(matches!(e, ClientError::TimedOut { .. }), "{e}");
}

#[test]
fn nothing_to_connect_to() {
    let dir = tempfile::tempdir().unwrap();
    let stale = dir.path().join("stale");
    drop(UnixListener::bind(&stale).unwrap());
    let plain = dir.path().join("plain");
    std::fs::write(&plain, "").unwrap();
    for path in [stale, plain, dir.path().join("none"), dir.path().join("x".repeat(200))] {
        let e = Client::connect(&path).unwrap_err();
        assert!(matches!(e, ClientError::Connect { .. }), "{e}");
        assert_eq!(e.exit(), Exit::Unreachable);
    }
}

#[test]
fn an_error_said_before_a_refused_call_is_heard() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        say(
            &mut stream,
            r#"{"error":"org.guardd.Control.Refused","parameters":{"message":"too many connections","hint":null,"anyway":false}}~"#,
        );
    });
    let mut client = Client::connect(&socket).unwrap();
    thread.join().unwrap();
    let e = client.call(&Status {}).unwrap_err();
    assert_eq!(e.to_string(), "too many connections");
    assert_eq!(e.exit(), Exit::Refused);
}
