//! From what was typed to an environment and paths as the interface wants them.
//!
//! The environment may be left out and paths may be absolute, so that what was
//! typed can only be understood with the environments that there are.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use guard_api::method::Status;
use guard_api::wire::Environment;

use crate::ctl::Ctl;
use crate::failure::Failure;

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) environment: Option<String>,
    pub(crate) paths: Vec<String>,
}

/// Understands `[ENV] [PATH…]`. Asks the daemon only where it has to.
pub(crate) fn resolve(
    ctl: &mut Ctl,
    doing: &str,
    typed: &[OsString],
    named: Option<String>,
) -> Result<Place, Failure> {
    let words: Vec<String> = typed.iter().map(|w| escaped(w)).collect();
    let settled = named.is_some() && words.iter().all(|w| !w.starts_with('/'));
    if words.is_empty() || settled {
        return Ok(understand(&[], words, named));
    }
    let status = ctl.call(doing, &Status {})?;
    Ok(understand(&status.value.environments, words, named))
}

fn understand(environments: &[Environment], mut words: Vec<String>, named: Option<String>) -> Place {
    let mut environment = named;
    let first_is_one = words.first().is_some_and(|w| environments.iter().any(|e| e.name == *w));
    // With several environments the first word has to be one, so that a mistyped one is told as such.
    let first_has_to_be = environments.len() > 1 && words.first().is_some_and(|w| !w.starts_with('/'));
    if environment.is_none() && (first_is_one || first_has_to_be) {
        environment = Some(words.remove(0));
    }
    if environment.is_none() {
        let holds = |e: &&Environment| words.first().is_some_and(|w| beneath(&e.root, w).is_some());
        environment = environments.iter().find(holds).map(|e| e.name.clone());
    }
    let root = environments
        .iter()
        .find(|e| environment.as_ref().is_none_or(|name| *name == e.name))
        .map(|e| e.root.as_str());
    let relative = |w: String| match root.and_then(|r| beneath(r, &w)) {
        Some(inside) => inside,
        None => w.strip_prefix("./").filter(|rest| !rest.is_empty()).map(str::to_owned).unwrap_or(w),
    };
    Place { environment, paths: words.into_iter().map(relative).collect() }
}

/// `path` relative to `root`, where it lies there; a slash at its end stays.
fn beneath(root: &str, path: &str) -> Option<String> {
    let root = root.strip_suffix('/').unwrap_or(root);
    let rest = path.strip_prefix(root)?;
    match rest.strip_prefix('/') {
        Some("") => Some("./".to_owned()),
        Some(inside) => Some(inside.to_owned()),
        None if rest.is_empty() && !path.is_empty() => Some(".".to_owned()),
        None => None,
    }
}

/// A path without the slash at its end.
pub(crate) fn without_slash(path: &str) -> String {
    match path.trim_end_matches('/') {
        "" => path.to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// What was typed as text: already escaped text stays (it is copied from
/// guardctl's own output), invalid bytes and control characters become `\xNN`.
pub(crate) fn escaped(typed: &OsStr) -> String {
    let mut out = String::new();
    let push_hex = |out: &mut String, bytes: &[u8]| {
        for b in bytes {
            out.push_str(&format!("\\x{b:02x}"));
        }
    };
    for chunk in typed.as_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() {
                push_hex(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                out.push(c);
            }
        }
        push_hex(&mut out, chunk.invalid());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environments(list: &[(&str, &str)]) -> Vec<Environment> {
        let make = |(name, root): &(&str, &str)| {
            serde_json::from_value(serde_json::json!({
                "name": name, "root": root, "state": "locked", "alerts_open": 0,
                "protected": { "files": 0, "directories": 0, "bytes": 0 }, "watch": { "backend": "inotify" }
            }))
            .unwrap()
        };
        list.iter().map(make).collect()
    }

    fn place(environments: &[Environment], words: &[&str]) -> (Option<String>, Vec<String>) {
        let p = understand(environments, words.iter().map(|w| (*w).to_owned()).collect(), None);
        (p.environment, p.paths)
    }

    fn some(name: &str, paths: &[&str]) -> (Option<String>, Vec<String>) {
        (Some(name.to_owned()), paths.iter().map(|p| (*p).to_owned()).collect())
    }

    #[test]
    fn with_one_environment_its_name_may_be_left_out() {
        let one = environments(&[("production", "/srv/app")]);
        assert_eq!(place(&one, &["production", "a", "b"]), some("production", &["a", "b"]));
        assert_eq!(place(&one, &["a", "./b/"]), (None, vec!["a".into(), "b/".into()]));
        assert_eq!(place(&one, &["/srv/app/a/", "/srv/app"]), some("production", &["a/", "."]));
        assert_eq!(place(&one, &["/srv/application"]), (None, vec!["/srv/application".into()]));
        assert_eq!(place(&one, &["/srv/app/"]), some("production", &["./"]));
    }

    #[test]
    fn with_several_an_absolute_path_tells_which() {
        let two = environments(&[("production", "/srv/app"), ("staging", "/srv/stage")]);
        assert_eq!(place(&two, &["/srv/stage/x"]), some("staging", &["x"]));
        assert_eq!(place(&two, &["staging", "/srv/stage/x"]), some("staging", &["x"]));
        assert_eq!(place(&two, &["prodction", "a"]), some("prodction", &["a"]));
    }

    #[test]
    fn a_root_of_slash() {
        let one = environments(&[("host", "/")]);
        assert_eq!(place(&one, &["/etc/passwd"]), some("host", &["etc/passwd"]));
        assert_eq!(place(&one, &["/"]), some("host", &["./"]));
    }

    #[test]
    fn bytes_and_controls_are_escaped_and_escapes_are_kept() {
        assert_eq!(escaped(OsStr::from_bytes(b"a\nb\xff\\x0ac")), "a\\x0ab\\xff\\x0ac");
        assert_eq!(without_slash("a/"), "a");
        assert_eq!(without_slash("/"), "/");
        assert_eq!(without_slash("./"), ".");
    }
}
