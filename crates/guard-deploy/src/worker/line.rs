//! What a child says, a line of JSON at a time, and how the daemon hears it: every byte of it may be hostile.

use std::io::{self, Write};

use guard_model::deploy::Gate;
use guard_model::path::escape;
use serde::{Deserialize, Serialize};

/// One line of a child that looks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    /// A probe was asked once.
    Probed {
        /// As [`guard_model::deploy::Probe`] shows itself.
        probe: String,
        /// It was well.
        ok: bool,
        /// What was seen.
        evidence: String,
        /// Since the child began, milliseconds.
        after_ms: u64,
    },
    /// How a verification ended.
    Verified {
        /// Everything was well for long enough without a break.
        well: bool,
        /// What was seen; where not well, why.
        why: String,
        /// Since the child began, milliseconds.
        after_ms: u64,
    },
    /// One gate.
    Gate(Gate),
    /// The image of a container.
    Image {
        /// The compose service.
        service: String,
        /// The reference that it is configured with.
        image: String,
        /// `sha256:` and 64 hexadecimal digits.
        id: String,
        /// The container's id, hexadecimal.
        container: String,
        /// The tag of ours that keeps the image, once it has one.
        kept_as: Option<String>,
    },
    /// What a program answered.
    Answer {
        /// Its exit code; `None` where it did not end in time.
        code: Option<i32>,
        /// What it printed: neither escaped nor to be shown, only to be read.
        out: String,
        /// It printed more.
        is_cut: bool,
        /// How it failed, for people.
        complaint: String,
    },
    /// Something could not be done; the others were tried.
    Failed {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
    /// It did all that it was told to.
    Done,
}

/// A line is longer than any that a child of ours writes, or is none.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Too long.
    #[error("a line of {0} bytes, more than {LONGEST}")]
    Long(usize),
    /// Not what a child of ours writes.
    #[error("a line that cannot be read")]
    Json(#[source] serde_json::Error),
    /// A field is not what it has to be.
    #[error("a line whose {0} cannot be one")]
    Field(&'static str),
}

/// Bytes of a line at most.
pub const LONGEST: usize = 256 << 10;

/// Characters of a text at most; the rest is cut.
const LONGEST_TEXT: usize = 4000;

/// Reads what a child wrote. Texts come out escaped and cut; what is acted upon has the form that it has to have.
///
/// # Errors
/// [`LineError`], which counts as if the child had failed.
pub fn read_line(text: &str) -> Result<Line, LineError> {
    if text.len() > LONGEST {
        return Err(LineError::Long(text.len()));
    }
    let mut line: Line = serde_json::from_str(text).map_err(LineError::Json)?;
    match &mut line {
        Line::Probed { probe, evidence, .. } => [probe, evidence].into_iter().for_each(tame),
        Line::Verified { why, .. } => tame(why),
        Line::Gate(gate) => {
            [&mut gate.gate, &mut gate.subject, &mut gate.evidence, &mut gate.by_hand]
                .into_iter()
                .for_each(tame);
        }
        Line::Image { service, image, id, container, kept_as } => {
            let checks = [
                (is_service(service), "service"),
                (is_reference(image), "image"),
                (is_id(id), "image id"),
                (is_hex(container) && container.len() <= 64, "container"),
                (kept_as.as_deref().is_none_or(is_reference), "tag"),
            ];
            if let Some((_, what)) = checks.into_iter().find(|(good, _)| !good) {
                return Err(LineError::Field(what));
            }
        }
        Line::Answer { complaint, .. } => tame(complaint),
        Line::Failed { what, why } => [what, why].into_iter().for_each(tame),
        Line::Done => {}
    }
    Ok(line)
}

fn tame(text: &mut String) {
    // Line by line, so that what is kept of a log still reads as lines.
    let mut out = text.lines().map(|l| escape(l.as_bytes())).collect::<Vec<_>>().join("\n");
    if let Some((at, _)) = out.char_indices().nth(LONGEST_TEXT) {
        out.truncate(at);
        out.push('…');
    }
    *text = out;
}

/// A name that compose allows for a service.
#[must_use]
pub fn is_service(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=200).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('-')
}

/// An image's reference.
#[must_use]
pub fn is_reference(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':' | b'@');
    (1..=300).contains(&text.len()) && text.bytes().all(good) && !text.starts_with('-')
}

/// An image's id.
#[must_use]
pub fn is_id(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|hex| hex.len() == 64 && is_hex(hex))
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Writes a line, at once. What is not ASCII or steers a terminal is escaped by JSON or by the reader.
pub(crate) fn write(out: &mut dyn Write, line: &Line) -> io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.write_all(&text)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_model::deploy::Verdict;

    #[test]
    fn lines_survive_the_way() {
        let lines = [
            Line::Probed { probe: "p".into(), ok: true, evidence: "200".into(), after_ms: 7 },
            Line::Verified { well: false, why: "two\nlines".into(), after_ms: 9 },
            Line::Gate(Gate {
                gate: "variable".into(),
                subject: "KEY".into(),
                verdict: Verdict::Fail,
                evidence: "not set".into(),
                by_hand: "grep".into(),
            }),
            Line::Image {
                service: "web".into(),
                image: "app:1".into(),
                id: format!("sha256:{}", "0a".repeat(32)),
                container: "0a1b".into(),
                kept_as: None,
            },
            Line::Done,
        ];
        for line in lines {
            let mut out = Vec::new();
            write(&mut out, &line).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.matches('\n').count(), 1);
            assert_eq!(read_line(text.trim_end()).unwrap(), line);
        }
    }

    #[test]
    fn hostile_lines_are_harmless() {
        let text =
            r#"{"line":"probed","probe":"\u001b[2J","ok":true,"evidence":"a\u0000\u202e","after_ms":1}"#;
        match read_line(text).unwrap() {
            Line::Probed { probe, evidence, .. } => {
                assert!(!probe.contains('\u{1b}') && !evidence.contains(['\0', '\u{202e}']));
            }
            other => panic!("{other:?}"),
        }
        let image = |service: &str, image: &str, id: &str| {
            read_line(
                &serde_json::json!({"line": "image", "service": service, "image": image, "id": id, "container": "a",
                    "kept_as": null})
                .to_string(),
            )
        };
        let id = format!("sha256:{}", "a".repeat(64));
        assert!(image("web", "app:1", &id).is_ok());
        assert!(image("--all", "app:1", &id).is_err());
        assert!(image("web", "--force", &id).is_err());
        assert!(image("web", "a b", &id).is_err());
        assert!(image("web", "app:1", "sha256:zz").is_err());
        assert!(matches!(read_line(&"x".repeat(LONGEST + 1)), Err(LineError::Long(_))));
        assert!(read_line("{}").is_err() && read_line("").is_err() && read_line("{\"line\":\"?\"}").is_err());
        let long =
            serde_json::json!({"line": "verified", "well": true, "why": "é".repeat(20_000), "after_ms": 1});
        match read_line(&long.to_string()).unwrap() {
            Line::Verified { why, .. } => assert_eq!(why.chars().count(), LONGEST_TEXT + 1),
            other => panic!("{other:?}"),
        }
    }
}
