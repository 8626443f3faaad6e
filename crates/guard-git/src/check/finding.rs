//! What a check says.

use guard_model::path::escape;
use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Worth knowing; stops nothing.
    Warning,
    /// Stops the commit.
    Error,
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, escaped, relative to the top of the repository.
    pub path: String,
    /// From 1.
    pub line: Option<u64>,
    /// In characters, from 1.
    pub column: Option<u64>,
    /// Which check: `json`, `dotenv`, `private-key`, …
    pub rule: String,
    /// How bad.
    pub level: Level,
    /// What is wrong, on one line.
    pub message: String,
    /// What was expected, or what to do.
    pub expected: Option<String>,
    /// The line itself, escaped and cut; never one that holds a secret.
    pub source: Option<String>,
}

/// What was not checked, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unchecked {
    /// The file, escaped; `None` where it is about all of them.
    pub path: Option<String>,
    /// What: `syntax`, `values of sensitive files`, …
    pub what: String,
    /// Why not.
    pub why: String,
}

/// All of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// By path and line.
    pub findings: Vec<Finding>,
    /// By path.
    pub unchecked: Vec<Unchecked>,
    /// Files whose syntax was checked.
    pub checked: u64,
    /// Files that were looked at at all.
    pub files: u64,
}

/// Longest line that is shown.
const LONGEST_LINE: usize = 160;

impl Report {
    /// True where something stops a commit.
    #[must_use]
    pub fn stops(&self) -> bool {
        self.findings.iter().any(|f| f.level == Level::Error)
    }

    /// Something that concerns no single file could not be checked.
    pub fn could_not(&mut self, what: &str, why: &str) {
        let (what, why) = (what.to_owned(), escape(why.as_bytes()));
        self.unchecked.push(Unchecked { path: None, what, why });
    }

    pub(crate) fn sort(&mut self) {
        self.findings
            .sort_by(|a, b| (&a.path, a.line, a.column, &a.rule).cmp(&(&b.path, b.line, b.column, &b.rule)));
        self.unchecked.sort_by(|a, b| (&a.path, &a.what).cmp(&(&b.path, &b.what)));
    }
}

/// A place in a text and what is wrong there, before it is known in which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remark {
    pub(crate) line: Option<u64>,
    pub(crate) column: Option<u64>,
    pub(crate) rule: &'static str,
    pub(crate) level: Level,
    pub(crate) message: String,
    pub(crate) expected: Option<String>,
    /// False where the line must not be shown.
    pub(crate) shows_line: bool,
}

impl Remark {
    pub(crate) fn error(
        rule: &'static str,
        line: impl Into<Option<u64>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            line: line.into(),
            column: None,
            rule,
            level: Level::Error,
            message: message.into(),
            expected: None,
            shows_line: true,
        }
    }

    pub(crate) fn warning(
        rule: &'static str,
        line: impl Into<Option<u64>>,
        message: impl Into<String>,
    ) -> Self {
        Self { level: Level::Warning, ..Self::error(rule, line, message) }
    }

    pub(crate) fn at_column(self, column: impl Into<Option<u64>>) -> Self {
        Self { column: column.into(), ..self }
    }

    pub(crate) fn expected(self, what: impl Into<String>) -> Self {
        Self { expected: Some(what.into()), ..self }
    }

    pub(crate) fn hidden(self) -> Self {
        Self { shows_line: false, ..self }
    }

    /// As a finding of a file with this content.
    pub(crate) fn of(self, path: &[u8], content: &[u8]) -> Finding {
        let source = self.line.filter(|_| self.shows_line).and_then(|line| {
            let at = usize::try_from(line).ok()?.checked_sub(1)?;
            let text = escape(content.split(|&b| b == b'\n').nth(at)?.trim_ascii_end());
            Some(cut(&text))
        });
        Finding {
            path: escape(path),
            line: self.line,
            column: self.column,
            rule: self.rule.to_owned(),
            level: self.level,
            message: cut(&escape(self.message.as_bytes())),
            expected: self.expected.map(|e| escape(e.as_bytes())),
            source,
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST_LINE) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}
