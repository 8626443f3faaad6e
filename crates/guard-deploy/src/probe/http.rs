//! One HTTP request. No redirect is followed, no proxy asked, nothing kept.

use std::io::Read;

use super::ANSWER;
use crate::bounded::{Context, Output};

/// Of a body so much is looked at.
const BODY: u64 = 64 << 10;

/// What a server answered.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

pub(super) fn ask(context: &Context, url: &str, expect: u16, body: Option<&str>) -> (bool, String) {
    let answer = match url.starts_with("https://") {
        true => by_curl(context, url),
        false => plain(url, body.is_some()),
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return (false, why),
    };
    let status = answer.status;
    if status != expect {
        return (false, format!("{status}, not {expect}"));
    }
    let Some(wanted) = body else { return (true, status.to_string()) };
    let found = String::from_utf8_lossy(&answer.body);
    match found.contains(wanted) {
        true => (true, format!("{status}, the body is as expected")),
        false if answer.body.len() as u64 >= BODY => {
            (false, format!("{status}, without {wanted:?} in the first 64 KiB of the body"))
        }
        false => (false, format!("{status}, without {wanted:?} in the body")),
    }
}

fn plain(url: &str, wants_body: bool) -> Result<Answer, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(ANSWER))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .max_response_header_size(32 << 10)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent(concat!("guardd/", env!("CARGO_PKG_VERSION")))
        .build()
        .into();
    let answer = agent.get(url).call().map_err(|e| told(&e))?;
    let status = answer.status().as_u16();
    let mut body = Vec::new();
    if wants_body {
        let mut reader = answer.into_body().into_reader().take(BODY);
        if let Err(e) = reader.read_to_end(&mut body) {
            return Err(format!("{status}, but its body cannot be read: {e}"));
        }
    }
    Ok(Answer { status, body })
}

fn told(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => format!("no answer within {} seconds", ANSWER.as_secs()),
        ureq::Error::Io(e) => format!("no answer: {e}"),
        e => format!("no answer: {e}"),
    }
}

/// TLS is curl's: the system's certificates and its updates, for whoever probes by `https`.
fn by_curl(context: &Context, url: &str) -> Result<Answer, String> {
    let seconds = ANSWER.as_secs().to_string();
    let mut command = context.command("curl");
    command
        // Not what the user's ~/.curlrc says; it has to come first.
        .arg("--disable")
        .args(["--silent", "--show-error", "--globoff", "--proto", "=https", "--noproxy", "*"])
        .args(["--max-redirs", "0", "--max-time", &seconds])
        .args(["--user-agent", concat!("guardd/", env!("CARGO_PKG_VERSION"))])
        .args(["--write-out", "\n%{http_code}", "--url", url]);
    let done = context.run(&mut command, ANSWER * 2).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "https is asked by curl, which is not installed".to_owned(),
        _ => format!("cannot run curl: {e}"),
    })?;
    if !done.is_good() {
        return Err(format!("no answer: {}", complaint(&done)));
    }
    // More than what is kept of its output is longer than what is looked at.
    let cut = done.out.iter().rposition(|&b| b == b'\n');
    let status = cut.and_then(|at| done.out.get(at + 1..)).and_then(|s| std::str::from_utf8(s).ok());
    let status = status.and_then(|s| s.trim().parse().ok()).ok_or("an answer that is too long")?;
    let mut body = done.out;
    body.truncate(cut.unwrap_or_default().min(usize::try_from(BODY).unwrap_or(usize::MAX)));
    Ok(Answer { status, body })
}

/// How curl failed: its own line, after which it may say at length where to read on.
fn complaint(done: &Output) -> String {
    let said = String::from_utf8_lossy(&done.err);
    let own = said.lines().find(|line| line.starts_with("curl: ("));
    own.map_or_else(|| format!("curl: {}", done.complaint()), |line| line.chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use super::*;

    /// Ends with the test.
    struct Server {
        child: Child,
        port: String,
    }

    impl Drop for Server {
        fn drop(&mut self) {
            self.child.kill().ok();
            self.child.wait().ok();
        }
    }

    fn has(program: &str) -> bool {
        std::env::split_paths(crate::worker::PATH).any(|dir| dir.join(program).exists())
    }

    /// A server on the loopback that signed its certificate itself, for 127.0.0.1; `certificate.pem` is written to `dir`.
    fn server(dir: &Path) -> Server {
        for (name, status) in [("well", "200 OK"), ("ill", "503 Service Unavailable")] {
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 7\r\nConnection: close\r\n\r\nit: ok\n");
            std::fs::write(dir.join(name), answer).unwrap();
        }
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
            .args(["-subj", "/CN=guardd", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"])
            .args(["-keyout", "key.pem", "-out", "certificate.pem"])
            .current_dir(dir)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut child = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-HTTP"])
            .args(["-key", "key.pem", "-cert", "certificate.pem"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // It says where it listens once it does.
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let port = loop {
            let mut line = String::new();
            assert!(said.read_line(&mut line).unwrap() > 0, "the server ended");
            if let Some(port) = line.strip_prefix("ACCEPT").and_then(|rest| rest.rsplit_once(':')) {
                break port.1.trim().to_owned();
            }
        };
        // Nothing of it waits for a reader.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Server { child, port }
    }

    #[test]
    fn https_is_well_by_certificate_name_and_status() {
        if let Some(missing) = ["curl", "openssl"].into_iter().find(|program| !has(program)) {
            return eprintln!("left out: {missing} is not installed");
        }
        let dir = tempfile::tempdir().unwrap();
        let server = server(dir.path());
        let mut context = crate::bounded::tests::context(dir.path());
        let probe = |context: &Context, host: &str, file: &str, body: Option<&str>| {
            let url = format!("https://{host}:{}/{file}", server.port);
            // On a machine that is busy it may be late, which is no matter of this test.
            (0..30).map(|_| ask(context, &url, 200, body)).find(|(_, why)| !why.contains("curl: (28)"))
        };
        // Nobody vouches for it.
        let (ok, why) = probe(&context, "127.0.0.1", "well", None).unwrap();
        assert!(!ok && why.starts_with("no answer: curl: (60) SSL certificate problem"), "{why}");
        // An own authority is named as curl wants it, among the environment's variables.
        let trusted = dir.path().join("certificate.pem").display().to_string();
        context.variables.insert("CURL_CA_BUNDLE".to_owned(), trusted);
        let well = probe(&context, "127.0.0.1", "well", Some("it: ok")).unwrap();
        assert_eq!(well, (true, "200, the body is as expected".to_owned()));
        assert_eq!(probe(&context, "127.0.0.1", "well", None).unwrap(), (true, "200".to_owned()));
        assert_eq!(probe(&context, "127.0.0.1", "ill", None).unwrap(), (false, "503, not 200".to_owned()));
        let (ok, why) = probe(&context, "127.0.0.1", "well", Some("fine")).unwrap();
        assert!(!ok && why.contains("without \"fine\""), "{why}");
        // It is for another name.
        let (ok, why) = probe(&context, "localhost", "well", None).unwrap();
        assert!(!ok && why.starts_with("no answer: curl: (60) SSL: ") && why.contains("localhost"), "{why}");
    }

    #[test]
    fn without_curl_https_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let mut context = crate::bounded::tests::context(dir.path());
        context.variables.insert("PATH".to_owned(), dir.path().display().to_string());
        let why = "https is asked by curl, which is not installed".to_owned();
        assert_eq!(ask(&context, "https://127.0.0.1:1/", 200, None), (false, why));
    }
}
