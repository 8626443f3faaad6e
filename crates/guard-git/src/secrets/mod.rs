//! Secrets in what is about to be committed: files of secrets, private keys, the
//! tokens of well-known services, and values of the environment's sensitive files. Lines that were there before are left
//! alone. No finding shows the secret or its line.

pub mod allow;
mod tokens;

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::check::{Finding, Level, is_dotenv, is_template};
use crate::values::{Match, SHORTEST};
use guard_model::path::escape;

/// A secret that was found, with what an allowance names it by.
pub(crate) struct Leak {
    pub(crate) rule: &'static str,
    pub(crate) level: Level,
    pub(crate) line: Option<u64>,
    pub(crate) column: Option<u64>,
    pub(crate) message: String,
    pub(crate) expected: String,
    /// The beginning of the SHA-256 of a token: long enough to name it, useless to find it.
    pub(crate) fingerprint: Option<String>,
}

impl Leak {
    pub(crate) fn finding(self, path: &[u8]) -> Finding {
        let fingerprint = self.fingerprint.map(|f| format!(" [{f}]")).unwrap_or_default();
        Finding {
            path: escape(path),
            line: self.line,
            column: self.column,
            rule: self.rule.to_owned(),
            level: self.level,
            message: format!("{}{fingerprint}", self.message),
            expected: Some(self.expected),
            source: None,
        }
    }
}

/// Looks at one file; `before` is what it replaces. Gives each line that was not there before to `new_line`, with its
/// number.
pub(crate) fn search<'a>(
    path: &[u8],
    content: &'a [u8],
    before: Option<&[u8]>,
    mut new_line: impl FnMut(u64, &'a [u8]),
) -> Vec<Leak> {
    let mut found: Vec<Leak> = env_file(path, content).into_iter().collect();
    if is_binary(content) {
        return found;
    }
    let known: HashSet<&[u8]> = before.unwrap_or_default().split(|&b| b == b'\n').collect();
    for (line, number) in content.split(|&b| b == b'\n').zip(1_u64..) {
        if line.len() < SHORTEST || known.contains(line) {
            continue;
        }
        new_line(number, line);
        for token in tokens::find(line) {
            found.push(Leak {
                rule: token.rule,
                level: Level::Error,
                line: Some(number),
                column: Some(token.at as u64 + 1),
                message: format!("{}, {} characters", token.what, token.text.len()),
                expected: "take it out, and make it invalid where it is valid: it was in a file that others may have".to_owned(),
                fingerprint: Some(fingerprint(token.text)),
            });
        }
    }
    found
}

/// A file of secrets that is in the repository already, and that this commit leaves as it is: worth knowing with every
/// commit, but no reason to refuse one that is about something else.
pub(crate) fn tracked(path: &[u8], content: &[u8]) -> Option<Leak> {
    let leak = env_file(path, content)?;
    Some(Leak {
        level: Level::Warning,
        message: format!("{} since before this commit", leak.message),
        ..leak
    })
}

/// A value of a sensitive file. The fingerprint is that of its name: one of the value could be tried out.
pub(crate) fn sensitive_value(line: u64, found: &Match) -> Leak {
    let whose = match found.key.as_str() {
        "" => format!("the value that is in {}", found.file),
        key => format!("the value of {key} in {}", found.file),
    };
    Leak {
        rule: "sensitive-value",
        level: Level::Error,
        line: Some(line),
        column: Some(found.column),
        message: format!("{whose}, which the environment keeps secret"),
        expected: "take it out and let the program read it from there; if it was ever pushed, change it"
            .to_owned(),
        fingerprint: Some(fingerprint(format!("{}\n{}", found.file, found.key).as_bytes())),
    }
}

/// A `.env` with values in it.
fn env_file(path: &[u8], content: &[u8]) -> Option<Leak> {
    if !is_env_file(path) {
        return None;
    }
    let has_value = |line: &[u8]| {
        let line = line.trim_ascii();
        !line.starts_with(b"#")
            && line.iter().position(|&b| b == b'=').is_some_and(|at| at > 0 && line.len() > at + 1)
    };
    content.split(|&b| b == b'\n').any(has_value).then(|| Leak {
        rule: "env-file",
        level: Level::Error,
        line: None,
        column: None,
        message: "a file of values that belong to one installation is in the repository".to_owned(),
        expected: "git rm --cached it and name it in .gitignore; a template without values may be called .env.example".to_owned(),
        fingerprint: None,
    })
}

/// Is this the name of a file of secrets?
pub(crate) fn is_env_file(path: &[u8]) -> bool {
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path);
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    is_dotenv(&name) && !is_template(&name)
}

/// The first 16 hexadecimal digits of a token's SHA-256.
fn fingerprint(token: &[u8]) -> String {
    hex::encode(Sha256::digest(token)).get(..16).unwrap_or_default().to_owned()
}

/// Git's own rule: a zero byte in the first 8000.
pub(crate) fn is_binary(content: &[u8]) -> bool {
    content.iter().take(8000).any(|&b| b == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_left_alone() {
        let key = format!("key = '{}{}'\n", "AKIA", "ABCDEFGHIJKLMNOP");
        assert_eq!(search(b"a.py", key.as_bytes(), None, |_, _| {}).len(), 1);
        assert_eq!(search(b"a.py", format!("x\n{key}").as_bytes(), Some(key.as_bytes()), |_, _| {}).len(), 0);
        let found = search(b"a.py", format!("x\n{key}").as_bytes(), Some(b"x\n"), |_, _| {});
        assert_eq!((found[0].line, found[0].column), (Some(2), Some(8)));
        let shown = found.into_iter().next().unwrap().finding(b"a.py");
        assert!(!format!("{shown:?}").contains("ABCDEFGHIJKLMNOP"));
    }

    #[test]
    fn new_lines_are_given_with_their_numbers() {
        let mut given = Vec::new();
        search(b"a", b"short\nlong enough\nanother one\n", Some(b"another one\n"), |n, l| given.push((n, l)));
        assert_eq!(given, [(2, &b"long enough"[..])]);
        search(b"a", b"\0 long enough\n", None, |_, _| panic!("binary"));
    }

    #[test]
    fn a_value_is_named_and_never_shown() {
        let found = Match { line: 9, column: 3, file: ".env".to_owned(), key: "PW".to_owned() };
        let shown = sensitive_value(4, &found).finding(b"a.py");
        assert_eq!((shown.line, shown.column, shown.source.as_deref()), (Some(4), Some(3), None));
        assert!(shown.message.starts_with("the value of PW in .env, which the environment keeps secret ["));
    }

    #[test]
    fn files_of_secrets() {
        assert_eq!(search(b"a/.env.prod", b"# c\nPW=x\n", None, |_, _| {}).len(), 1);
        for (path, text) in
            [(&b".env"[..], &b"# PW=x\nPW=\n"[..]), (b".env.example", b"PW=x\n"), (b"env.py", b"PW=1\n")]
        {
            assert_eq!(search(path, text, None, |_, _| {}).len(), 0, "{}", path.escape_ascii());
        }
    }
}
