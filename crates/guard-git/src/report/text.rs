//! For people: one finding a line as compilers write it, then what was not checked.

use std::collections::BTreeMap;

use crate::check::{Level, Report};

/// So many unchecked files of one kind are named.
const NAMED: usize = 3;

/// The report as text.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for f in &report.findings {
        let place = match (f.line, f.column) {
            (Some(line), Some(column)) => format!("{}:{line}:{column}", f.path),
            (Some(line), None) => format!("{}:{line}", f.path),
            _ => f.path.clone(),
        };
        let level = if f.level == Level::Error { "error" } else { "warning" };
        out.push_str(&format!("{place}: {level}: {} [{}]\n", f.message, f.rule));
        if let Some(source) = &f.source {
            out.push_str(&format!("    {source}\n"));
        }
        if let Some(expected) = &f.expected {
            out.push_str(&format!("    expected: {expected}\n"));
        }
    }
    let mut unchecked: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for u in &report.unchecked {
        unchecked.entry((&u.what, &u.why)).or_default().extend(u.path.as_deref());
    }
    for ((what, why), paths) in unchecked {
        let named: Vec<&str> = paths.iter().take(NAMED).copied().collect();
        let more = paths.len().saturating_sub(NAMED);
        let names = match (named.is_empty(), more) {
            (true, _) => String::new(),
            (false, 0) => format!(": {}", named.join(", ")),
            (false, more) => format!(": {} and {more} more", named.join(", ")),
        };
        out.push_str(&format!("unchecked: {what}, as {why}{names}\n"));
    }
    out
}
