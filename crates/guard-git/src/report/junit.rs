//! JUnit's XML, as test reports of CI systems take it.

use std::collections::BTreeMap;

use crate::check::{Level, Report};

/// The report as a test suite: a case for each file with findings, a skipped one for each that
/// was not checked, one for all the rest.
#[must_use]
pub fn junit(report: &Report) -> String {
    let mut by_file: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut warnings = String::new();
    for f in &report.findings {
        let line = f.line.map(|l| format!(":{l}")).unwrap_or_default();
        let expected = f.expected.as_ref().map(|e| format!("; expected: {e}")).unwrap_or_default();
        let text = format!("{}{line}: {} [{}]{expected}", f.path, f.message, f.rule);
        match f.level {
            Level::Error => by_file.entry(&f.path).or_default().push(text),
            Level::Warning => warnings.push_str(&format!("{text}\n")),
        }
    }
    let mut cases = String::new();
    for (path, texts) in &by_file {
        let first = texts.first().map(String::as_str).unwrap_or_default();
        cases.push_str(&format!(
            "    <testcase classname=\"guardd\" name=\"{}\"><failure message=\"{}\">{}</failure></testcase>\n",
            xml(path),
            xml(first),
            xml(&texts.join("\n"))
        ));
    }
    for u in &report.unchecked {
        let name = u.path.as_deref().unwrap_or(&u.what);
        let why = format!("{} not checked: {}", u.what, u.why);
        cases.push_str(&format!(
            "    <testcase classname=\"guardd\" name=\"{}\"><skipped message=\"{}\"/></testcase>\n",
            xml(name),
            xml(&why)
        ));
    }
    cases.push_str(&format!(
        "    <testcase classname=\"guardd\" name=\"{} files, {} with a syntax to check\"/>\n",
        report.files, report.checked
    ));
    let tests = by_file.len() + report.unchecked.len() + 1;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n  <testsuite name=\"guardd git validate\" tests=\"{tests}\" failures=\"{}\" errors=\"0\" skipped=\"{}\">\n{cases}    <system-out>{}</system-out>\n  </testsuite>\n</testsuites>\n",
        by_file.len(),
        report.unchecked.len(),
        xml(&warnings)
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
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{Finding, Unchecked};
    use crate::report::{sarif, text};

    fn report() -> Report {
        let finding = |path: &str, level| Finding {
            path: path.to_owned(),
            line: Some(3),
            column: Some(1),
            rule: "json".to_owned(),
            level,
            message: "a < b & \"c\"".to_owned(),
            expected: Some("`,`".to_owned()),
            source: Some("[1 2]".to_owned()),
        };
        Report {
            findings: vec![finding("a b\\xff.json", Level::Error), finding("w", Level::Warning)],
            unchecked: vec![Unchecked {
                path: Some("x.tsx".to_owned()),
                what: "syntax".to_owned(),
                why: "no parser".to_owned(),
            }],
            checked: 2,
            files: 3,
        }
    }

    #[test]
    fn what_was_not_checked_is_in_every_format() {
        let r = report();
        assert!(junit(&r).contains("tests=\"3\" failures=\"1\" errors=\"0\" skipped=\"1\""), "{}", junit(&r));
        assert!(junit(&r).contains("a &lt; b &amp; &quot;c&quot;"));
        let log = sarif(&r);
        assert_eq!(
            log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"],
            "a%20b%FF.json"
        );
        assert_eq!(log["runs"][0]["invocations"][0]["toolExecutionNotifications"][0]["level"], "note");
        let told = text(&r);
        assert!(
            told.contains("a b\\xff.json:3:1: error: a < b & \"c\" [json]\n    [1 2]\n    expected: `,`\n"),
            "{told}"
        );
        assert!(told.ends_with("unchecked: syntax, as no parser: x.tsx\n"), "{told}");
    }
}
