//! One HTTP request. No redirect is followed, no proxy asked, nothing kept.

use std::io::Read;

use super::ANSWER;
use crate::bounded::Context;

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
        return Err(format!("no answer: curl: {}", done.complaint()));
    }
    // More than what is kept of its output is longer than what is looked at.
    let cut = done.out.iter().rposition(|&b| b == b'\n');
    let status = cut.and_then(|at| done.out.get(at + 1..)).and_then(|s| std::str::from_utf8(s).ok());
    let status = status.and_then(|s| s.trim().parse().ok()).ok_or("an answer that is too long")?;
    let mut body = done.out;
    body.truncate(cut.unwrap_or_default().min(usize::try_from(BODY).unwrap_or(usize::MAX)));
    Ok(Answer { status, body })
}
