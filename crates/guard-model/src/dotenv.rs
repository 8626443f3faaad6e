//! What the readers of a `.env` file make of it. They disagree in silence, so that one file can give two programs two
//! keys. Five families, as measured with 54 inputs. What a family does in a way that is not certain is said to be
//! unclear, never guessed.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

mod compose;
mod expand;
mod python;
mod raw;
mod shell;
mod systemd;

/// A family of readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dialect {
    /// docker compose v2 and later: `.env`, `--env-file` and `env_file`.
    Compose,
    /// python-dotenv, and compose v1.
    PythonDotenv,
    /// `docker run --env-file`, and compose's `format: raw`.
    DockerRun,
    /// `set -a; . file` of a POSIX shell or bash.
    Shell,
    /// `EnvironmentFile=` of systemd.
    Systemd,
}

impl Dialect {
    /// All there are.
    pub const ALL: [Self; 5] =
        [Self::Compose, Self::PythonDotenv, Self::DockerRun, Self::Shell, Self::Systemd];

    /// As it is written.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Compose => "compose",
            Self::PythonDotenv => "python-dotenv",
            Self::DockerRun => "docker-run",
            Self::Shell => "shell",
            Self::Systemd => "systemd",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// There is no such reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a reader of .env files: compose, python-dotenv, docker-run, shell, systemd")]
pub struct NotADialect;

impl FromStr for Dialect {
    type Err = NotADialect;

    fn from_str(text: &str) -> Result<Self, NotADialect> {
        Self::ALL.into_iter().find(|d| d.word() == text).ok_or(NotADialect)
    }
}

/// What a reader takes for the value of a variable. Never shown: values are secrets.
#[derive(Clone, PartialEq, Eq)]
pub enum Said {
    /// This.
    Value(String),
    /// It depends on what is not in the file, or is not certain; why, without the value.
    Unclear(&'static str),
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(…)"),
            Self::Unclear(why) => write!(f, "Unclear({why})"),
        }
    }
}

/// The reader refuses the whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// Counted from 1.
    pub line: usize,
    /// Why, without any value.
    pub why: &'static str,
}

/// What a reader takes from a file.
pub type Variables = BTreeMap<String, Said>;

/// What this reader takes from the file.
///
/// # Errors
/// [`Refused`] where it takes nothing at all.
pub fn read(content: &[u8], dialect: Dialect) -> Result<Variables, Refused> {
    let Ok(text) = std::str::from_utf8(content) else { return not_utf8(content, dialect) };
    if text.contains('\0') {
        let line = text.split('\0').next().map_or(1, |before| before.matches('\n').count() + 1);
        return Err(Refused { line, why: "it holds a NUL byte" });
    }
    let (text, has_mark) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    match dialect {
        Dialect::Compose => compose::read(text),
        Dialect::PythonDotenv => Ok(python::read(text)),
        Dialect::DockerRun => raw::read(text),
        Dialect::Shell => Ok(shell::read(text, has_mark)),
        Dialect::Systemd => Ok(systemd::read(text, has_mark)),
    }
}

fn not_utf8(content: &[u8], dialect: Dialect) -> Result<Variables, Refused> {
    let bad = std::str::from_utf8(content).map_or_else(|e| e.valid_up_to(), |_| 0);
    let line = content.iter().take(bad).filter(|&&b| b == b'\n').count() + 1;
    match dialect {
        Dialect::PythonDotenv | Dialect::DockerRun | Dialect::Systemd => {
            Err(Refused { line, why: "it is not UTF-8" })
        }
        Dialect::Compose | Dialect::Shell => {
            let text = String::from_utf8_lossy(content).into_owned();
            let mut found = read(text.as_bytes(), dialect)?;
            for said in found.values_mut() {
                if matches!(said, Said::Value(v) if v.contains('\u{fffd}')) {
                    *said = Said::Unclear("the value is not UTF-8");
                }
            }
            Ok(found)
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

#[cfg(test)]
mod tests;
