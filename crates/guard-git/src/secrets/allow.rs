//! `.guardd-allow.toml` at the top of the repository: findings that are known,
//! each with a reason and a day on which the allowance ends.

use guard_model::RelPath;
use guard_model::policy::{PatternText, Policy};

use crate::check::{Finding, Level};

/// The file.
pub const NAME: &str = ".guardd-allow.toml";

/// What the file allows.
#[derive(Debug, Default)]
pub struct AllowList {
    allowances: Vec<Allowance>,
    /// What is wrong with the file itself.
    pub problems: Vec<Finding>,
}

#[derive(Debug)]
struct Allowance {
    rule: String,
    path: Policy,
    fingerprint: Option<String>,
    until: String,
}

impl AllowList {
    /// Reads it; what is wrong with it becomes a finding of its own, and allows nothing.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            // Its syntax is checked like any other file's.
            Err(_) => return list,
        };
        for key in table.keys().filter(|k| *k != "allow") {
            list.problem(format!("unknown key {key:?}"), "[[allow]]");
        }
        let entries = table.get("allow").and_then(toml::Value::as_array).cloned().unwrap_or_default();
        for (entry, number) in entries.iter().zip(1..) {
            match one(entry) {
                Ok(allowance) => list.allowances.push(allowance),
                Err(what) => list.problem(
                    format!("allowance {number}: {what}"),
                    "rule, path, reason and until (YYYY-MM-DD), and for a token its fingerprint",
                ),
            }
        }
        list
    }

    fn problem(&mut self, message: String, expected: &str) {
        self.problems.push(Finding {
            path: NAME.to_owned(),
            line: None,
            column: None,
            rule: "allow-list".to_owned(),
            level: Level::Error,
            message,
            expected: Some(expected.to_owned()),
            source: None,
        });
    }

    /// Is this finding allowed today (`YYYY-MM-DD`)? `Err` says when the allowance for it ended.
    ///
    /// # Errors
    /// The day on which it ended.
    pub fn allows(
        &self,
        rule: &str,
        path: &[u8],
        fingerprint: Option<&str>,
        today: &str,
    ) -> Result<bool, String> {
        let mut ended = None;
        for a in self.allowances.iter().filter(|a| a.rule == rule && a.covers(path)) {
            if a.fingerprint.as_deref().is_some_and(|f| Some(f) != fingerprint) {
                continue;
            }
            if a.until.as_str() >= today {
                return Ok(true);
            }
            ended = Some(a.until.clone());
        }
        ended.map_or(Ok(false), Err)
    }
}

impl Allowance {
    fn covers(&self, path: &[u8]) -> bool {
        RelPath::from_bytes(path).is_ok_and(|p| self.path.classify(&p, false).is_protected())
    }
}

fn one(entry: &toml::Value) -> Result<Allowance, String> {
    let table = entry.as_table().ok_or("it is no table")?;
    let known = ["rule", "path", "fingerprint", "reason", "until"];
    if let Some(key) = table.keys().find(|k| !known.contains(&k.as_str())) {
        return Err(format!("unknown key {key:?}"));
    }
    let text = |key: &str| {
        let value = table
            .get(key)
            .and_then(|v| v.as_str().map(str::to_owned).or_else(|| v.as_datetime().map(ToString::to_string)));
        value.filter(|v| !v.trim().is_empty()).ok_or_else(|| format!("`{key}` is missing"))
    };
    text("reason")?;
    let until = text("until")?;
    let is_day = until.len() == 10
        && until
            .bytes()
            .zip(0..)
            .all(|(b, i)| if matches!(i, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
    if !is_day {
        return Err(format!("`until` is {until:?}, not a day"));
    }
    let pattern = PatternText { protect: vec![text("path")?], ..PatternText::default() };
    let path = Policy::new(pattern).map_err(|_| "`path` is no pattern".to_owned())?;
    let fingerprint = table.get("fingerprint").and_then(toml::Value::as_str).map(str::to_owned);
    Ok(Allowance { rule: text("rule")?, path, fingerprint, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "[[allow]]\nrule = \"token\"\npath = \"tests/\"\nfingerprint = \"ab\"\nreason = \"of the tests\"\nuntil = 2027-01-31\n";

    #[test]
    fn an_allowance_ends() {
        let list = AllowList::parse(GOOD);
        assert_eq!(list.problems, []);
        assert_eq!(list.allows("token", b"tests/a", Some("ab"), "2027-01-31"), Ok(true));
        assert_eq!(list.allows("token", b"tests/a", Some("ab"), "2027-02-01"), Err("2027-01-31".to_owned()));
        assert_eq!(list.allows("token", b"tests/a", Some("cd"), "2026-01-01"), Ok(false));
        assert_eq!(list.allows("token", b"src/a", Some("ab"), "2026-01-01"), Ok(false));
        assert_eq!(list.allows("private-key", b"tests/a", None, "2026-01-01"), Ok(false));
    }

    #[test]
    fn one_without_reason_or_end_allows_nothing() {
        for line in [
            "reason = \"of the tests\"\n",
            "until = 2027-01-31\n",
            "path = \"tests/\"\n",
            "rule = \"token\"\n",
        ] {
            let list = AllowList::parse(&GOOD.replace(line, ""));
            assert_eq!((list.allowances.len(), list.problems.len()), (0, 1), "{line}");
        }
        assert_eq!(AllowList::parse(&GOOD.replace("2027-01-31", "\"soon\"")).problems.len(), 1);
        assert_eq!(AllowList::parse("alow = 1\n").problems.len(), 1);
    }
}
