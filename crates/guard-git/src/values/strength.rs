//! Which values are looked for. One that is short or ordinary would be found
//! where nobody copied it, and could be had by guessing and asking.

use super::SHORTEST;

/// How easily a value is met by chance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strength {
    /// Looked for wherever it stands.
    Strong,
    /// Looked for as a word of its own.
    Fair,
}

/// From here on a value that is not made of words is found anywhere.
const LONG: usize = 16;

/// What keys of secrets have in their name.
const SECRET: [&str; 16] = [
    "pass",
    "pwd",
    "secret",
    "token",
    "key",
    "credential",
    "auth",
    "private",
    "salt",
    "pepper",
    "signature",
    "sig",
    "dsn",
    "cookie",
    "webhook",
    "(password)",
];

/// What keys have in their name that only tell of a secret.
const ABOUT: [&str; 26] = [
    "file",
    "path",
    "dir",
    "name",
    "id",
    "host",
    "port",
    "user",
    "username",
    "algorithm",
    "expiry",
    "expires",
    "lifetime",
    "timeout",
    "ttl",
    "age",
    "header",
    "prefix",
    "hashers",
    "backend",
    "class",
    "url",
    "uri",
    "endpoint",
    "public",
    "length",
];

/// Ordinary words of configurations, and the passwords that everybody tries first.
const ORDINARY: [&str; 36] = [
    "true",
    "false",
    "production",
    "development",
    "staging",
    "testing",
    "localhost",
    "password",
    "passw0rd",
    "changeme",
    "postgres",
    "postgresql",
    "minioadmin",
    "username",
    "database",
    "application",
    "undefined",
    "disabled",
    "enabled",
    "required",
    "internal",
    "external",
    "example",
    "default",
    "administrator",
    "qwertyuiop",
    "letmein",
    "iloveyou",
    "12345678",
    "123456789",
    "1234567890",
    "0123456789",
    "abcdefgh",
    "placeholder",
    "redacted",
    "same-origin",
];

/// Does the key's name say that its value is a secret?
pub(super) fn names_a_secret(key: &str) -> bool {
    let lower = key.to_ascii_lowercase();
    let last = lower.rsplit(['_', '-', '.', ' ']).next().unwrap_or_default();
    // A file that is one value has no key.
    key.is_empty() || SECRET.iter().any(|word| lower.contains(word)) && !ABOUT.contains(&last)
}

/// Is the value looked for, and how? `None` where it is too short or too ordinary.
pub(super) fn of(key: &str, text: &[u8]) -> Option<Strength> {
    if text.len() < SHORTEST || !text.iter().all(|b| (0x20..0x7f).contains(b) || *b >= 0x80) {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let lower = String::from_utf8_lossy(&lower);
    if is_ordinary(&lower) || distinct(text) < 5 || is_reference(&lower) {
        return None;
    }
    let kinds = Kinds::of(text);
    if names_a_secret(key) {
        return match (kinds.is_words(), text.len()) {
            // A passphrase is long; a word or two is the name of something.
            (true, length) => (length >= LONG).then_some(Strength::Fair),
            (false, length) if length >= LONG => Some(Strength::Strong),
            // Dates and numbers of telephones.
            (false, _) if kinds.letters == 0 && kinds.others < 2 => None,
            (false, _) => Some(Strength::Fair),
        };
    }
    // Nothing says that it is a secret but that nobody could have made it up.
    let alphabet =
        text.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'_' | b'-'));
    let random =
        kinds.digits >= 2 && kinds.letters >= 4 && distinct(text) >= 10 && kinds.changes * 4 >= text.len();
    (text.len() >= 20 && alphabet && random).then_some(Strength::Strong)
}

fn is_ordinary(lower: &str) -> bool {
    ORDINARY.contains(&lower)
        || [
            "changeme",
            "change-me",
            "change_me",
            "placeholder",
            "your-",
            "your_",
            "xxxx",
            "insert-",
            "<",
            "${",
            "{{",
        ]
        .iter()
        .any(|mark| lower.contains(mark))
}

/// A path, an address, a host, a dotted name: it tells where something is. A secret inside of it is taken out of it.
fn is_reference(lower: &str) -> bool {
    let plain = |part: &str| {
        part.chars().all(|c| c.is_ascii_lowercase() || matches!(c, '-' | '_' | '*')) && !part.is_empty()
    };
    lower.contains("://")
        || lower.starts_with(['/', '~']) && !lower.contains(['=', '+'])
        || lower.starts_with("./")
        || lower.contains('.') && lower.split('.').all(plain)
        || lower.contains(',') && lower.split(',').all(|p| p.trim().split('.').all(plain))
}

fn distinct(text: &[u8]) -> usize {
    let mut seen = [false; 256];
    text.iter().for_each(|&b| seen[usize::from(b)] = true);
    seen.iter().filter(|&&s| s).count()
}

#[derive(Default)]
struct Kinds {
    letters: usize,
    upper: usize,
    digits: usize,
    others: usize,
    /// How often one kind follows another.
    changes: usize,
}

impl Kinds {
    fn of(text: &[u8]) -> Self {
        let mut kinds = Self::default();
        let kind = |b: &u8| match b {
            b'a'..=b'z' => 0,
            b'A'..=b'Z' => 1,
            b'0'..=b'9' => 2,
            _ => 3,
        };
        let mut before = None;
        for b in text {
            let now = kind(b);
            kinds.changes += usize::from(before.is_some_and(|k| k != now));
            before = Some(now);
            match now {
                0 => kinds.letters += 1,
                1 => (kinds.letters, kinds.upper) = (kinds.letters + 1, kinds.upper + 1),
                2 => kinds.digits += 1,
                _ => kinds.others += usize::from(!matches!(b, b'-' | b'_' | b'.' | b' ' | b':' | b'/')),
            }
        }
        kinds
    }

    /// Words as people write them, with what separates them.
    fn is_words(&self) -> bool {
        self.digits == 0 && self.others == 0 && (self.upper <= 1 || self.upper == self.letters)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strength(key: &str, text: &str) -> Option<Strength> {
        of(key, text.as_bytes())
    }

    #[test]
    fn secrets_are_looked_for() {
        for (key, text) in [
            ("SECRET_KEY", "django-insecure-)k#0&$x!(@z"),
            ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            ("db.password", "f00dcafe12345678f00dcafe"),
            ("SENTRY", "d41d8cd98f00b204e9800998ecf8427e"),
            ("private key", "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7"),
        ] {
            assert_eq!(strength(key, text), Some(Strength::Strong), "{key}");
        }
        for (key, text) in [
            ("DB_PASSWORD", "hunter2hunter2"),
            ("", "tr0ub4dor&3"),
            ("PASSPHRASE", "correct horse battery staple"),
            ("DATABASE_URL (password)", "not-a-password!1"),
        ] {
            assert!(strength(key, text).is_some(), "{key}");
        }
    }

    #[test]
    fn what_everybody_writes_is_not() {
        for (key, text) in [
            ("DEBUG", "true"),
            ("DB_PASSWORD", "hunter2"),
            ("DB_PASSWORD", "changeme"),
            ("DB_PASSWORD", "postgres"),
            ("SECRET_KEY", "your-secret-key-change-me-in-production-please"),
            ("SECRET_KEY", "${SECRET_KEY}"),
            ("API_KEY", "aaaaaaaaaaaaaaaa"),
            ("PASSWORD", "20260101"),
            ("SECRET_NAME", "backend-secrets"),
            ("AUTH_CLASS", "django.contrib.auth.backends.ModelBackend"),
            ("PASSWORD_FILE", "/run/secrets/db-password"),
            ("AUTH_URL", "https://login.example.org/oauth2"),
            ("ALLOWED_HOSTS", "shop.example.org,www.example.org"),
            ("DJANGO_SETTINGS_MODULE", "backend.app.settings_production"),
            ("TITLE", "A shop for everything and everybody"),
            ("IMAGE", "registry.example.org/team/backend:2026-01-02"),
        ] {
            assert_eq!(strength(key, text), None, "{key}");
        }
    }

    #[test]
    fn a_key_that_tells_of_a_secret_names_none() {
        for key in ["SECRET_KEY", "db.password", "X-Auth-Token", "", "URL (password)"] {
            assert!(names_a_secret(key), "{key}");
        }
        for key in ["PASSWORD_FILE", "TOKEN_LIFETIME", "KEY_ID", "HOST", "PUBLIC"] {
            assert!(!names_a_secret(key), "{key}");
        }
    }
}
