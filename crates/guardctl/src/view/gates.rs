//! Gates: as a table, as JUnit's XML and as SARIF.

use std::collections::BTreeSet;

use guard_api::wire::{Gate, ValidateResult, Verdict};
use serde_json::{Value, json};

use super::Look;
use crate::quantity::{counted, len, milliseconds};
use crate::safe::{Safe, safe};
use crate::table::{Cell, Table};
use crate::terminal::Tone;

/// The table, with how to look by hand at what does not hold.
pub(crate) fn text(look: Look, r: &ValidateResult) -> String {
    let total = len(&r.gates);
    let open: Vec<&Gate> = r.gates.iter().filter(|g| !holds(g)).collect();
    let verdict = match (open.len() as u64, r.passed && total > 0) {
        (0, true) => look.paint.tone(Tone::Good, "ready"),
        (0, false) => look.paint.tone(Tone::Bad, "not ready"),
        (n, _) => {
            look.paint.tone(Tone::Bad, &format!("not ready, {n} of {} do not hold", counted(total, "gate")))
        }
    };
    let mut out = format!("{}: {verdict} ({})\n", Safe(&r.environment), milliseconds(r.duration_ms));
    out.push_str(&table(look, &r.gates));
    if !open.is_empty() {
        out.push_str(&super::heading(look, "by hand"));
        let mut told = BTreeSet::new();
        for gate in open {
            if !gate.by_hand.is_empty() && told.insert(&gate.by_hand) {
                out.push_str(&format!("  {}\n", safe(&gate.by_hand)));
            }
        }
    }
    out
}

/// A table of gates.
pub(crate) fn table(look: Look, gates: &[Gate]) -> String {
    let mut table = Table::headed(&["GATE", "SUBJECT", "VERDICT", "EVIDENCE"]);
    for gate in gates {
        let (tone, word) = word(gate.verdict);
        // One gate, one line; the rest of a long evidence is in --json.
        let first = gate.evidence.lines().next().unwrap_or_default();
        let subject = if gate.subject.is_empty() { "-".to_owned() } else { safe(&gate.subject) };
        table.row([safe(&gate.gate).into(), subject.into(), Cell::toned(tone, word), safe(first).into()]);
    }
    table.render(look.paint)
}

fn word(verdict: Verdict) -> (Tone, &'static str) {
    match verdict {
        Verdict::Pass => (Tone::Good, "pass"),
        Verdict::Fail => (Tone::Bad, "fail"),
        Verdict::Waived => (Tone::Warn, "waived"),
        Verdict::Unknown => (Tone::Bad, "unknown"),
    }
}

fn holds(gate: &Gate) -> bool {
    matches!(gate.verdict, Verdict::Pass | Verdict::Waived)
}

fn named(gate: &Gate) -> String {
    match gate.subject.is_empty() {
        true => gate.gate.clone(),
        false => format!("{} {}", gate.gate, gate.subject),
    }
}

/// JUnit's XML: a case for each gate. What could not be told is an error, not a failure; both fail the suite.
pub(crate) fn junit(r: &ValidateResult) -> String {
    let count = |wanted: Verdict| r.gates.iter().filter(|g| g.verdict == wanted).count();
    let mut cases = String::new();
    for gate in &r.gates {
        let detail = format!("{}\nby hand: {}", gate.evidence, gate.by_hand);
        let inside = match gate.verdict {
            Verdict::Pass => String::new(),
            Verdict::Waived => format!("<skipped message=\"{}\"/>", xml(&gate.evidence)),
            Verdict::Fail => {
                format!("<failure message=\"{}\">{}</failure>", xml(&gate.evidence), xml(&detail))
            }
            Verdict::Unknown => {
                format!("<error message=\"{}\">{}</error>", xml(&gate.evidence), xml(&detail))
            }
        };
        cases.push_str(&format!(
            "    <testcase classname=\"guardd.{}.{}\" name=\"{}\">{inside}</testcase>\n",
            xml(&r.environment),
            xml(&gate.gate),
            xml(&named(gate))
        ));
    }
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"guardctl validate {}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{}.{:03}\">\n{cases}  </testsuite>\n</testsuites>\n",
        xml(&r.environment),
        r.gates.len(),
        count(Verdict::Fail),
        count(Verdict::Unknown),
        count(Verdict::Waived),
        r.duration_ms / 1000,
        r.duration_ms % 1000,
    )
}

fn xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push('\n'),
            // XML 1.0 cannot say them at all.
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// SARIF 2.1.0: a result for each gate that does not hold; what could not be told is a notification as well.
pub(crate) fn sarif(r: &ValidateResult) -> Value {
    let open = || r.gates.iter().filter(|g| !holds(g));
    let rules: BTreeSet<&str> = open().map(|g| g.gate.as_str()).collect();
    let results: Vec<Value> = open()
        .map(|g| {
            let text = match g.verdict {
                Verdict::Unknown => format!("{} could not be told: {}", named(g), g.evidence),
                _ => format!("{} does not hold: {}", named(g), g.evidence),
            };
            json!({
                "ruleId": g.gate,
                "level": "error",
                "message": {"text": text},
                // The same gate in the next run.
                "partialFingerprints": {"guardd/v1": format!("{}/{}/{}", r.environment, g.gate, g.subject)},
                "locations": [{"logicalLocations": [{"fullyQualifiedName": format!("{}/{}", r.environment, named(g))}]}],
            })
        })
        .collect();
    let notifications: Vec<Value> = open()
        .filter(|g| g.verdict == Verdict::Unknown)
        .map(|g| json!({"level": "error", "message": {"text": format!("{}: {}", named(g), g.evidence)}}))
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "guardctl validate", "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|id| json!({"id": id})).collect::<Vec<_>>(),
            }},
            "invocations": [{"executionSuccessful": notifications.is_empty(), "toolExecutionNotifications": notifications}],
            "results": results,
        }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> ValidateResult {
        let gate = |gate: &str, subject: &str, verdict, evidence: &str| Gate {
            gate: gate.to_owned(),
            subject: subject.to_owned(),
            verdict,
            evidence: evidence.to_owned(),
            by_hand: "look <there>".to_owned(),
        };
        ValidateResult {
            environment: "production".to_owned(),
            passed: false,
            gates: vec![
                gate("lock", "", Verdict::Pass, "locked"),
                gate("variable", "KEY", Verdict::Fail, "a < b & \"c\" \u{1b}"),
                gate("port", "80", Verdict::Unknown, "no list"),
                gate("integrity", "", Verdict::Waived, "3 differ"),
            ],
            duration_ms: 1_234,
        }
    }

    #[test]
    fn reports_say_what_does_not_hold() {
        let xml = junit(&result());
        assert!(
            xml.contains("tests=\"4\" failures=\"1\" errors=\"1\" skipped=\"1\" time=\"1.234\""),
            "{xml}"
        );
        assert!(xml.contains("message=\"a &lt; b &amp; &quot;c&quot; \u{fffd}\""), "{xml}");
        let log = sarif(&result());
        let run = &log["runs"][0];
        assert_eq!(run["results"].as_array().map(Vec::len), Some(2));
        assert_eq!(run["results"][0]["ruleId"], "variable");
        assert_eq!(run["invocations"][0]["executionSuccessful"], false);
    }
}
