//! SARIF 2.1.0 (OASIS), as code scanning takes it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use sha2::{Digest, Sha256};

use crate::check::{Finding, Level, Report};

/// The report as a SARIF log. What was not checked is a notification of the run, never a pass.
#[must_use]
pub fn sarif(report: &Report) -> Value {
    let rules: BTreeSet<&str> = report.findings.iter().map(|f| f.rule.as_str()).collect();
    let rules: Vec<&str> = rules.into_iter().collect();
    let results: Vec<Value> = report
        .findings
        .iter()
        .map(|f| {
            let mut place = json!({"artifactLocation": {"uri": uri(&f.path)}});
            if let (Some(line), Some(object)) = (f.line, place.as_object_mut()) {
                let mut region = json!({"startLine": line});
                if let (Some(column), Some(region)) = (f.column, region.as_object_mut()) {
                    region.insert("startColumn".to_owned(), column.into());
                }
                object.insert("region".to_owned(), region);
            }
            let text = match &f.expected {
                Some(expected) => format!("{}; expected: {expected}", f.message),
                None => f.message.clone(),
            };
            json!({
                "ruleId": f.rule,
                "ruleIndex": rules.iter().position(|r| *r == f.rule),
                // The same finding in the next run: whatever line it has moved to.
                "partialFingerprints": {"guardd/v1": fingerprint(f)},
                "level": if f.level == Level::Error { "error" } else { "warning" },
                "message": {"text": text},
                "locations": [{"physicalLocation": place}],
            })
        })
        .collect();
    let notifications: Vec<Value> = report
        .unchecked
        .iter()
        .map(|u| {
            let text = format!("{} not checked: {}", u.what, u.why);
            let places: Vec<Value> = u
                .path
                .iter()
                .map(|p| json!({"physicalLocation": {"artifactLocation": {"uri": uri(p)}}}))
                .collect();
            json!({"level": "note", "message": {"text": text}, "locations": places})
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "guardd", "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|r| rule(r)).collect::<Vec<_>>(),
            }},
            "invocations": [{"executionSuccessful": true, "toolExecutionNotifications": notifications}],
            "results": results,
        }],
    })
}

/// What a rule is about. Those without a line here check the syntax of the language that they are named for.
fn rule(id: &str) -> Value {
    let text = match id {
        "env-file" => "A file of values that belong to one installation",
        "token" => "The token of a well-known service",
        "private-key" => "A private key",
        "sensitive-value" => "The value of a sensitive file of the environment",
        "allow-list" => "The list of allowed findings itself",
        "own" => "A validator of the environment's own",
        other => return json!({"id": other, "shortDescription": {"text": format!("Syntax: {other}")}}),
    };
    json!({"id": id, "shortDescription": {"text": text}})
}

/// A digest of what makes it this finding.
fn fingerprint(finding: &Finding) -> String {
    let parts = [
        finding.rule.as_str(),
        &finding.path,
        &finding.message,
        finding.source.as_deref().unwrap_or_default(),
    ];
    hex::encode(Sha256::digest(parts.join("\n"))).get(..32).unwrap_or_default().to_owned()
}

/// A path as a relative URI reference (RFC 3986): what is not unreserved is `%XX`.
fn uri(path: &str) -> String {
    let bytes = guard_model::path::unescape(path).unwrap_or_else(|| path.as_bytes().to_vec());
    bytes
        .iter()
        .map(|&b| match b {
            b'/' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            b if b.is_ascii_alphanumeric() => char::from(b).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}
