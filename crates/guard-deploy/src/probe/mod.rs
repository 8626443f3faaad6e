//! Probes: what answers when the application is well, asked once.

mod http;
mod tcp;

use std::time::Duration;

use guard_model::deploy::{Compose, Probe};

use crate::bounded::Context;
use crate::compose::Watched;

/// A server has so long to answer.
pub(crate) const ANSWER: Duration = Duration::from_secs(5);

/// A command has so long to end.
pub(crate) const COMMAND: Duration = Duration::from_secs(10);

/// What one look at one probe came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) probe: Probe,
    pub(crate) ok: bool,
    pub(crate) evidence: String,
}

/// Asks every probe at the same time. `containers` is asked for the compose project, where a probe or the environment
/// has one; it remembers what it saw before.
pub(crate) fn all(context: &Context, probes: &[Probe], containers: Option<&mut Watched>) -> Vec<Seen> {
    std::thread::scope(|scope| {
        let asked: Vec<_> = probes
            .iter()
            .filter(|p| **p != Probe::Compose)
            .map(|probe| (probe, scope.spawn(move || one(context, probe))))
            .collect();
        let compose = containers.map(|watched| {
            let (ok, evidence) = watched.look(context);
            Seen { probe: Probe::Compose, ok, evidence }
        });
        let answered = asked.into_iter().map(|(probe, thread)| {
            let (ok, evidence) =
                thread.join().unwrap_or_else(|_| (false, "the look at it broke off".to_owned()));
            Seen { probe: probe.clone(), ok, evidence }
        });
        answered.chain(compose).collect()
    })
}

/// Whether containers belong to the application: a probe says so, or the configuration.
pub(crate) fn project<'a>(
    probes: &[Probe],
    compose: Option<&'a Compose>,
    own: &'a Compose,
) -> Option<&'a Compose> {
    match compose {
        Some(compose) => Some(compose),
        None => probes.contains(&Probe::Compose).then_some(own),
    }
}

fn one(context: &Context, probe: &Probe) -> (bool, String) {
    match probe {
        Probe::Http { url, expect, body } => http::ask(context, url, *expect, body.as_deref()),
        Probe::Tcp { address } => tcp::ask(address),
        Probe::Command { command } => {
            match context.run(context.command("/bin/sh").args(["-c", command]), COMMAND) {
                Ok(done) if done.is_good() => (true, "exit code 0".to_owned()),
                Ok(done) => (false, done.complaint()),
                Err(e) => (false, format!("cannot run a shell: {e}")),
            }
        }
        // Containers are asked together.
        Probe::Compose => (false, "no compose project is configured".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    /// Answers every connection with this text.
    fn server(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // A whole request is in one packet here.
                let mut request = [0; 2048];
                assert!(stream.read(&mut request).is_ok_and(|read| read > 0));
                stream.write_all(answer).ok();
            }
        });
        address
    }

    fn http(address: &str, expect: u16, body: Option<&str>) -> (bool, String) {
        let context = crate::bounded::tests::context(std::path::Path::new("/"));
        let url = format!("http://{address}/health");
        one(&context, &Probe::Http { url, expect, body: body.map(str::to_owned) })
    }

    #[test]
    fn an_answer_is_well_by_status_and_body() {
        let good = server(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nit: ok\n");
        assert_eq!(http(&good, 200, None), (true, "200".to_owned()));
        assert_eq!(http(&good, 200, Some("ok")), (true, "200, the body is as expected".to_owned()));
        let (ok, evidence) = http(&good, 200, Some("fine"));
        assert!(!ok && evidence.contains("without") && !evidence.contains("it:"), "{evidence}");
        let (ok, evidence) = http(&good, 204, None);
        assert!(!ok && evidence == "200, not 204", "{evidence}");
        let bad = server(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        assert_eq!(http(&bad, 200, None), (false, "503, not 200".to_owned()));
        assert!(http(&bad, 503, None).0);
    }

    #[test]
    fn a_redirect_is_not_followed() {
        let target = server(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        let answer = format!(
            "HTTP/1.1 302 Found\r\nLocation: http://{target}/\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        let moved = server(answer.leak().as_bytes());
        assert_eq!(http(&moved, 200, None), (false, "302, not 200".to_owned()));
        assert!(http(&moved, 302, None).0);
    }

    #[test]
    fn an_endless_body_is_cut() {
        let mut text = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        text.extend(vec![b'x'; 300_000]);
        text.extend(b"ok");
        let endless = server(text.leak());
        let (ok, evidence) = http(&endless, 200, Some("ok"));
        assert!(!ok && evidence.contains("64 KiB"), "{evidence}");
        assert!(http(&endless, 200, Some("xxx")).0);
    }

    #[test]
    fn what_is_no_http_is_told() {
        let odd = server(b"SSH-2.0-OpenSSH\r\n");
        assert!(!http(&odd, 200, None).0);
        let (ok, evidence) = http("127.0.0.1:1", 200, None);
        assert!(!ok && evidence.to_lowercase().contains("refused"), "{evidence}");
    }

    #[test]
    fn connections_are_accepted_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        assert_eq!(tcp::ask(&address), (true, "a connection was accepted".to_owned()));
        drop(listener);
        assert!(!tcp::ask(&address).0);
        assert!(!tcp::ask("nonsense").0);
    }

    #[test]
    fn a_command_says_by_its_status() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("well"), "").unwrap();
        let context = crate::bounded::tests::context(dir.path());
        let ask = |command: &str| one(&context, &Probe::Command { command: command.to_owned() });
        assert_eq!(ask("test -e well"), (true, "exit code 0".to_owned()));
        assert_eq!(ask("echo why >&2; exit 4"), (false, "exit code 4: why".to_owned()));
    }
}
