//! The errors a call can end with, and the exit codes they stand for.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::wire::{Problem, Window};

/// How a program that used the interface exits. The numbers are part of the outer contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// 0: done; listings too, whatever they list.
    Done = 0,
    /// 1: findings or violations exist.
    Findings = 1,
    /// 2: usage or configuration error.
    Usage = 2,
    /// 3: refused: not permitted, wrong state, busy, changed since shown.
    Refused = 3,
    /// 4: guardd is not reachable.
    Unreachable = 4,
    /// 5: failed; nothing changed or all undone.
    Failed = 5,
    /// 6: failed; needs an operator.
    NeedsOperator = 6,
}

impl Exit {
    /// The number.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// What a call was answered with instead of a reply: the errors of `org.guardd.Control`,
/// those of `org.varlink.service`, and any other by its name.
///
/// As JSON it is the reply's own fields `error` and `parameters`.
#[derive(Debug, Clone, PartialEq)]
pub enum CallError {
    /// One that this version knows.
    Known(Known),
    /// Said by a later daemon, or with parameters that do not fit.
    Other {
        /// The full name.
        name: String,
        /// Its parameters, an object.
        parameters: Map<String, Value>,
    },
}

/// The errors by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "error", content = "parameters")]
pub enum Known {
    /// There is no such environment, or more than one where none was named.
    #[serde(rename = "org.guardd.Control.UnknownEnvironment")]
    UnknownEnvironment {
        /// What was asked for.
        environment: Option<String>,
        /// What there is.
        known: Vec<String>,
    },
    /// The environment is not locked.
    #[serde(rename = "org.guardd.Control.NotLocked")]
    NotLocked {
        /// Which.
        environment: String,
    },
    /// The environment is unlocked already.
    #[serde(rename = "org.guardd.Control.AlreadyUnlocked")]
    AlreadyUnlocked {
        /// Which.
        environment: String,
        /// By this window; `None` if it was never locked.
        window: Option<Window>,
    },
    /// Another operation runs.
    #[serde(rename = "org.guardd.Control.Busy")]
    Busy {
        /// Where.
        environment: String,
        /// Which.
        operation: String,
    },
    /// A reason has to be given.
    #[serde(rename = "org.guardd.Control.ReasonRequired")]
    ReasonRequired {},
    /// A maintainer has to be named.
    #[serde(rename = "org.guardd.Control.MaintainerRequired")]
    MaintainerRequired {},
    /// There is no baseline, or no such generation.
    #[serde(rename = "org.guardd.Control.NoBaseline")]
    NoBaseline {
        /// Where.
        environment: String,
        /// Which.
        generation: Option<u64>,
    },
    /// There is no such backup.
    #[serde(rename = "org.guardd.Control.UnknownBackup")]
    UnknownBackup {
        /// Where.
        environment: String,
        /// What was asked for; `None` where there is none at all.
        id: Option<String>,
    },
    /// There is no such alert.
    #[serde(rename = "org.guardd.Control.UnknownAlert")]
    UnknownAlert {
        /// Which.
        id: u64,
    },
    /// Paths are not what their findings said any more; nothing was accepted.
    #[serde(rename = "org.guardd.Control.ChangedSinceShown")]
    ChangedSinceShown {
        /// Where.
        environment: String,
        /// Escaped.
        paths: Vec<String>,
    },
    /// The window is longer than `window_max`, or no time at all.
    #[serde(rename = "org.guardd.Control.InvalidWindow")]
    InvalidWindow {
        /// Asked for.
        asked_seconds: u64,
        /// Allowed.
        max_seconds: u64,
    },
    /// The configuration is refused whole; the one before stays in force.
    #[serde(rename = "org.guardd.Control.ConfigurationRefused")]
    ConfigurationRefused {
        /// All of them.
        problems: Vec<Problem>,
    },
    /// Something speaks against it; nothing was changed.
    #[serde(rename = "org.guardd.Control.Refused")]
    Refused {
        /// What.
        message: String,
        /// What to do about it.
        hint: Option<String>,
        /// It can be forced with `anyway`.
        #[serde(default)]
        anyway: bool,
    },
    /// Tried and failed; nothing was changed, or everything was undone.
    #[serde(rename = "org.guardd.Control.Failed")]
    Failed {
        /// What.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Failed and could not be undone: a person has to look.
    #[serde(rename = "org.guardd.Control.NeedsOperator")]
    NeedsOperator {
        /// What.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// No interface of that name.
    #[serde(rename = "org.varlink.service.InterfaceNotFound")]
    InterfaceNotFound {
        /// The name.
        #[serde(default)]
        interface: String,
    },
    /// No method of that name.
    #[serde(rename = "org.varlink.service.MethodNotFound")]
    MethodNotFound {
        /// The name.
        #[serde(default)]
        method: String,
    },
    /// The method is in the interface but not in this service.
    #[serde(rename = "org.varlink.service.MethodNotImplemented")]
    MethodNotImplemented {
        /// The name.
        #[serde(default)]
        method: String,
    },
    /// A parameter has a wrong value or type, or is missing.
    #[serde(rename = "org.varlink.service.InvalidParameter")]
    InvalidParameter {
        /// Its name.
        #[serde(default)]
        parameter: String,
    },
    /// The caller may not call this.
    #[serde(rename = "org.varlink.service.PermissionDenied")]
    PermissionDenied {},
    /// The method has to be called with `more`.
    #[serde(rename = "org.varlink.service.ExpectedMore")]
    ExpectedMore {},
}

impl From<Known> for CallError {
    fn from(known: Known) -> Self {
        Self::Known(known)
    }
}

impl CallError {
    /// From a reply's `error` and `parameters`. Never fails: what does not fit is kept as it came.
    #[must_use]
    pub fn from_parts(name: &str, parameters: Map<String, Value>) -> Self {
        match Known::deserialize(json!({ "error": name, "parameters": &parameters })) {
            Ok(known) => Self::Known(known),
            Err(_) => Self::Other { name: name.to_owned(), parameters },
        }
    }

    /// The reply's `error` and `parameters`.
    #[must_use]
    pub fn into_parts(self) -> (String, Map<String, Value>) {
        let known = match self {
            Self::Known(known) => known,
            Self::Other { name, parameters } => return (name, parameters),
        };
        let Ok(Value::Object(mut both)) = serde_json::to_value(known) else {
            // Strings, numbers and lists of them always serialise.
            return (String::new(), Map::new());
        };
        let name = both.remove("error").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        match both.remove("parameters") {
            Some(Value::Object(parameters)) => (name, parameters),
            _ => (name, Map::new()),
        }
    }

    /// The exit code of a program whose call ended so.
    #[must_use]
    pub fn exit(&self) -> Exit {
        let Self::Known(known) = self else { return Exit::Failed };
        match known {
            Known::UnknownEnvironment { .. }
            | Known::ReasonRequired {}
            | Known::MaintainerRequired {}
            | Known::UnknownAlert { .. }
            | Known::UnknownBackup { .. }
            | Known::InvalidWindow { .. }
            | Known::ConfigurationRefused { .. }
            | Known::InvalidParameter { .. } => Exit::Usage,
            Known::NotLocked { .. }
            | Known::AlreadyUnlocked { .. }
            | Known::Busy { .. }
            | Known::NoBaseline { .. }
            | Known::ChangedSinceShown { .. }
            | Known::Refused { .. }
            | Known::PermissionDenied {}
            | Known::MethodNotFound { .. }
            | Known::MethodNotImplemented { .. }
            | Known::ExpectedMore {} => Exit::Refused,
            // Something listens there, but it is not guardd.
            Known::InterfaceNotFound { .. } => Exit::Unreachable,
            Known::Failed { .. } => Exit::Failed,
            Known::NeedsOperator { .. } => Exit::NeedsOperator,
        }
    }
}

impl std::error::Error for CallError {}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = match self {
            Self::Known(known) => known,
            Self::Other { name, parameters } if parameters.is_empty() => return f.write_str(name),
            Self::Other { name, parameters } => {
                return write!(f, "{name} {}", Value::Object(parameters.clone()));
            }
        };
        match known {
            Known::UnknownEnvironment { environment: Some(name), .. } => {
                write!(f, "there is no environment {name}")
            }
            Known::UnknownEnvironment { environment: None, known } if known.is_empty() => {
                f.write_str("no environment is configured")
            }
            Known::UnknownEnvironment { environment: None, .. } => {
                f.write_str("there is more than one environment, name one")
            }
            Known::NotLocked { environment } => write!(f, "{environment} is not locked"),
            Known::AlreadyUnlocked { environment, window: Some(w) } => {
                write!(
                    f,
                    "{environment} is unlocked already, until {}, by {}: {}",
                    w.until, w.maintainer, w.reason
                )
            }
            Known::AlreadyUnlocked { environment, window: None } => {
                write!(f, "{environment} is not locked and never was")
            }
            Known::Busy { environment, operation } => write!(f, "{environment} is busy: {operation} runs"),
            Known::ReasonRequired {} => f.write_str("a reason has to be given"),
            Known::MaintainerRequired {} => f.write_str("a maintainer has to be named"),
            Known::NoBaseline { environment, generation: Some(n) } => {
                write!(f, "{environment} has no baseline {n}")
            }
            Known::NoBaseline { environment, generation: None } => {
                write!(f, "{environment} has no baseline, it was never locked")
            }
            Known::UnknownBackup { environment, id: None } => write!(f, "{environment} has no backup"),
            Known::UnknownBackup { environment, id: Some(id) } => {
                write!(f, "{environment} has no backup {id}")
            }
            Known::UnknownAlert { id } => write!(f, "there is no alert {id}"),
            Known::ChangedSinceShown { environment, paths } => write!(
                f,
                "{} in {environment} changed since reported, nothing was accepted",
                match paths.as_slice() {
                    [one] => one.clone(),
                    many => format!("{} paths", many.len()),
                }
            ),
            Known::InvalidWindow { asked_seconds: 0, .. } => f.write_str("a window of no time opens nothing"),
            Known::InvalidWindow { asked_seconds, max_seconds } => {
                write!(f, "a window of {asked_seconds} seconds is longer than the {max_seconds} allowed")
            }
            Known::ConfigurationRefused { problems } => write!(
                f,
                "the configuration is refused whole for {} problem{}",
                problems.len(),
                if problems.len() == 1 { "" } else { "s" }
            ),
            Known::Refused { message, .. }
            | Known::Failed { message, .. }
            | Known::NeedsOperator { message, .. } => f.write_str(message),
            Known::InterfaceNotFound { interface } => {
                write!(f, "the interface {interface} is not known there")
            }
            Known::MethodNotFound { method } => write!(f, "the method {method} is not known there"),
            Known::MethodNotImplemented { method } => {
                write!(f, "the method {method} is not implemented there")
            }
            Known::InvalidParameter { parameter } => write!(f, "the parameter {parameter} is not valid"),
            Known::PermissionDenied {} => f.write_str("permission denied"),
            Known::ExpectedMore {} => f.write_str("the method has to be called with `more`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_round_trip() {
        let all = [
            Known::Busy { environment: "p".into(), operation: "lock".into() },
            Known::PermissionDenied {},
            Known::UnknownEnvironment { environment: None, known: vec!["a".into()] },
        ];
        for known in all {
            let e = CallError::Known(known);
            let (name, parameters) = e.clone().into_parts();
            assert!(name.starts_with("org."), "{name}");
            assert_eq!(CallError::from_parts(&name, parameters), e);
        }
    }

    #[test]
    fn unknown_names_and_unfit_parameters_are_kept() {
        let e = CallError::from_parts("org.guardd.Control.Moon", Map::new());
        assert_eq!(e.to_string(), "org.guardd.Control.Moon");
        let mut p = Map::new();
        p.insert("environment".into(), 7.into());
        let e = CallError::from_parts("org.guardd.Control.Busy", p);
        assert!(matches!(&e, CallError::Other { .. }));
        assert_eq!(e.to_string(), r#"org.guardd.Control.Busy {"environment":7}"#);
        assert_eq!(e.exit(), Exit::Failed);
    }

    #[test]
    fn missing_parameters_of_the_service_errors_are_borne() {
        let e = CallError::from_parts("org.varlink.service.PermissionDenied", Map::new());
        assert_eq!(e, CallError::Known(Known::PermissionDenied {}));
        let e = CallError::from_parts("org.varlink.service.MethodNotFound", Map::new());
        assert_eq!(e.exit(), Exit::Refused);
    }
}
