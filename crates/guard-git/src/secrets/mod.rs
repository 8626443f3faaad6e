//! Secrets in what is about to be committed: files of secrets, private keys,
//! and the tokens of well-known services. Lines that were there before are left
//! alone. No finding shows the secret or its line.

pub mod allow;
mod tokens;

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use crate::check::{Finding, Level, is_dotenv, is_template};
use guard_model::path::escape;

/// A secret that was found, with what an allowance names it by.
pub(crate) struct Leak {
    pub(crate) rule: &'static str,
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
            level: Level::Error,
            message: format!("{}{fingerprint}", self.message),
            expected: Some(self.expected),
            source: None,
        }
    }
}

/// Looks at one file; `before` is what it replaces.
pub(crate) fn search(path: &[u8], content: &[u8], before: Option<&[u8]>) -> Vec<Leak> {
    let mut found: Vec<Leak> = env_file(path, content).into_iter().collect();
    if is_binary(content) {
        return found;
    }
    let known: HashSet<&[u8]> = before.unwrap_or_default().split(|&b| b == b'\n').collect();
    for (line, number) in content.split(|&b| b == b'\n').zip(1_u64..) {
        if line.len() < tokens::SHORTEST || known.contains(line) {
            continue;
        }
        for token in tokens::find(line) {
            found.push(Leak {
                rule: token.rule,
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

/// A `.env` with values in it.
fn env_file(path: &[u8], content: &[u8]) -> Option<Leak> {
    let name =
        String::from_utf8_lossy(path.rsplit(|&b| b == b'/').next().unwrap_or(path)).to_ascii_lowercase();
    if !is_dotenv(&name) || is_template(&name) {
        return None;
    }
    let has_value = |line: &[u8]| {
        let line = line.trim_ascii();
        !line.starts_with(b"#")
            && line.iter().position(|&b| b == b'=').is_some_and(|at| at > 0 && line.len() > at + 1)
    };
    content.split(|&b| b == b'\n').any(has_value).then(|| Leak {
        rule: "env-file",
        line: None,
        column: None,
        message: "a file of values that belong to one installation is in the repository".to_owned(),
        expected: "git rm --cached it and name it in .gitignore; a template without values may be called .env.example".to_owned(),
        fingerprint: None,
    })
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
        assert_eq!(search(b"a.py", key.as_bytes(), None).len(), 1);
        assert_eq!(search(b"a.py", format!("x\n{key}").as_bytes(), Some(key.as_bytes())).len(), 0);
        let found = search(b"a.py", format!("x\n{key}").as_bytes(), Some(b"x\n"));
        assert_eq!((found[0].line, found[0].column), (Some(2), Some(8)));
        let shown = found.into_iter().next().unwrap().finding(b"a.py");
        assert!(!format!("{shown:?}").contains("ABCDEFGHIJKLMNOP"));
    }

    #[test]
    fn files_of_secrets() {
        assert_eq!(search(b"a/.env.prod", b"# c\nPW=x\n", None).len(), 1);
        for (path, text) in
            [(&b".env"[..], &b"# PW=x\nPW=\n"[..]), (b".env.example", b"PW=x\n"), (b"env.py", b"PW=1\n")]
        {
            assert_eq!(search(path, text, None).len(), 0, "{}", path.escape_ascii());
        }
    }
}
