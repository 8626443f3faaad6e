//! Values out of a sensitive file: assignments on lines (dotenv, INI, TOML, flat
//! YAML and JSON), the leaves of JSON and YAML, passwords inside of addresses,
//! the lines of private keys, and the file that is one value.

use crate::check::yaml::{self, Node};

/// A value in the clear, for as long as it takes to make a digest of it.
pub(super) struct Value {
    pub(super) key: String,
    pub(super) text: Vec<u8>,
}

/// Deeper than any configuration goes.
const DEEPEST: usize = 64;

/// Every value of a file, by whatever it could be read as; some of them twice.
pub(super) fn values(file: &str, content: &[u8]) -> Vec<Value> {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    let mut found = Vec::new();
    let name = file.to_ascii_lowercase();
    if name.ends_with(".json") {
        if let Ok(value) = serde_json::from_slice(content) {
            json(&mut found, "", &value);
        }
    } else if (name.ends_with(".yml") || name.ends_with(".yaml"))
        && let Ok((Some(node), _)) = yaml::read(content)
    {
        yaml_leaves(&mut found, "", &node, 0);
    }
    by_line(&mut found, content);
    if found.is_empty() {
        one_value(&mut found, content);
    }
    let inside: Vec<Value> = found.iter().flat_map(in_address).collect();
    found.extend(inside);
    found
}

fn json(found: &mut Vec<Value>, key: &str, value: &serde_json::Value) {
    match value {
        serde_json::Value::String(text) => {
            found.push(Value { key: key.to_owned(), text: text.as_bytes().to_vec() });
        }
        serde_json::Value::Array(list) => list.iter().for_each(|v| json(found, key, v)),
        serde_json::Value::Object(map) => map.iter().for_each(|(k, v)| json(found, &below(key, k), v)),
        _ => {}
    }
}

fn yaml_leaves(found: &mut Vec<Value>, key: &str, node: &Node, depth: usize) {
    if depth > DEEPEST {
        return;
    }
    match node {
        Node::Scalar(text, _) => {
            found.push(Value { key: key.to_owned(), text: text.trim().as_bytes().to_vec() })
        }
        Node::List(list, _) => list.iter().for_each(|n| yaml_leaves(found, key, n, depth + 1)),
        Node::Map(pairs, _) => {
            for (k, v) in pairs {
                yaml_leaves(found, &below(key, k.text().unwrap_or_default()), v, depth + 1);
            }
        }
        Node::Alias(_) => {}
    }
}

fn below(key: &str, name: &str) -> String {
    if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") }
}

/// `KEY=VALUE`, `key = "value"`, `"key": "value",`, and what a private key is made of.
fn by_line(found: &mut Vec<Value>, content: &[u8]) {
    let mut in_private_key = false;
    for line in content.split(|&b| b == b'\n') {
        let line = line.trim_ascii();
        if line.windows(5).any(|w| w == b"-----") {
            in_private_key = line.windows(16).any(|w| w == b"PRIVATE KEY-----") && contains(line, b"BEGIN ");
            continue;
        }
        if in_private_key {
            let text = line.strip_suffix(b"\\n").unwrap_or(line);
            found.push(Value { key: "private key".to_owned(), text: text.to_vec() });
            continue;
        }
        if line.is_empty() || line.starts_with(b"#") || line.starts_with(b"//") {
            continue;
        }
        assignment(found, line.strip_prefix(b"export ").unwrap_or(line));
    }
}

fn assignment(found: &mut Vec<Value>, line: &[u8]) {
    let Some(at) = line.iter().zip(1..).position(|(&b, next)| {
        // A colon of an address is none of YAML's.
        b == b'=' || b == b':' && line.get(next).is_none_or(u8::is_ascii_whitespace)
    }) else {
        return;
    };
    let (key, value) = (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default());
    let key = key.trim_ascii();
    let key = key.strip_prefix(b"- ").unwrap_or(key).trim_ascii();
    let key = String::from_utf8_lossy(unquoted(key)).into_owned();
    if key.is_empty() || key.len() > 200 || key.contains(char::is_whitespace) {
        return;
    }
    let value = value.trim_ascii();
    let value = value.strip_suffix(b",").unwrap_or(value).trim_ascii_end();
    let mut take = |text: &[u8]| found.push(Value { key: key.clone(), text: text.to_vec() });
    match value.first() {
        Some(quote @ (b'"' | b'\'')) => {
            let inside = value.get(1..).unwrap_or_default();
            let end = closing(inside, *quote);
            let text = inside.get(..end).unwrap_or_default();
            take(text);
            if text.contains(&b'\\') {
                take(&unescaped(text));
            }
        }
        _ => {
            take(value);
            // A comment for some readers, part of the value for others: both are looked for.
            for mark in [&b" #"[..], b"\t#"] {
                if let Some(end) = value.windows(2).position(|w| w == mark) {
                    take(value.get(..end).unwrap_or_default().trim_ascii_end());
                }
            }
        }
    }
}

/// Where the quote ends, or the line does.
fn closing(text: &[u8], quote: u8) -> usize {
    let mut escaped = false;
    for (at, &b) in text.iter().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b if b == quote => return at,
            _ => {}
        }
    }
    text.len()
}

fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&b) = bytes.next() {
        out.push(if b == b'\\' { bytes.next().copied().unwrap_or(b) } else { b });
    }
    out
}

fn unquoted(text: &[u8]) -> &[u8] {
    let inside = |q: &[u8]| text.strip_prefix(q).and_then(|t| t.strip_suffix(q));
    inside(b"\"").or_else(|| inside(b"'")).unwrap_or(text)
}

/// A file that holds a value and nothing else, as Docker's secrets are.
fn one_value(found: &mut Vec<Value>, content: &[u8]) {
    let text = content.trim_ascii();
    if !text.is_empty() && !text.contains(&b'\n') && !text.starts_with(b"#") {
        found.push(Value { key: String::new(), text: text.to_vec() });
    }
}

/// `scheme://user:password@host`, and `?password=…` and its kin.
fn in_address(value: &Value) -> Vec<Value> {
    let text = &value.text;
    let Some(at) = text.windows(3).position(|w| w == b"://") else { return Vec::new() };
    let rest = text.get(at + 3..).unwrap_or_default();
    let mut found = Vec::new();
    let host_end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b'#')).unwrap_or(rest.len());
    // A password with a slash in it that nobody encoded: the last @ ends it all the same.
    let user_end = rest.iter().rposition(|&b| b == b'@').filter(|&e| e < host_end || contains(rest, b":"));
    if let Some(user) = user_end.and_then(|end| rest.get(..end)) {
        let password = match user.iter().position(|&b| b == b':') {
            Some(colon) => user.get(colon + 1..).unwrap_or_default(),
            None => user,
        };
        for text in [password.to_vec(), percent_decoded(password)] {
            found.push(Value { key: format!("{} (password)", value.key), text });
        }
    }
    if let Some(query) = rest.iter().position(|&b| b == b'?').and_then(|q| rest.get(q + 1..)) {
        for pair in query.split(|&b| b == b'&' || b == b'#') {
            if let Some(equals) = pair.iter().position(|&b| b == b'=') {
                let name = String::from_utf8_lossy(pair.get(..equals).unwrap_or_default()).into_owned();
                let raw = pair.get(equals + 1..).unwrap_or_default();
                for text in [raw.to_vec(), percent_decoded(raw)] {
                    found.push(Value { key: format!("{} ({name})", value.key), text });
                }
            }
        }
    }
    found
}

fn percent_decoded(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        let code = text.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match code.filter(|_| b == b'%').and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(b);
                at += 1;
            }
        }
    }
    out
}

/// The value as an address, a Kubernetes secret, or a JSON string has it, where that is another text.
pub(super) fn other_forms(text: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    let safe = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    if !text.iter().all(safe) {
        let mut encoded = Vec::with_capacity(text.len() * 3);
        for b in text {
            if safe(b) {
                encoded.push(*b);
            } else {
                encoded.extend_from_slice(format!("%{b:02X}").as_bytes());
            }
        }
        forms.push(encoded);
    }
    if text.iter().any(|b| matches!(b, b'"' | b'\\')) {
        let escaped = text.iter().flat_map(|&b| [Some(b'\\').filter(|_| matches!(b, b'"' | b'\\')), Some(b)]);
        forms.push(escaped.flatten().collect());
    }
    // Whole groups of three bytes: what comes after the value may change the last characters.
    let whole = text.get(..text.len() / 3 * 3).unwrap_or_default();
    if whole.len() >= 9 {
        forms.push(base64(whole));
    }
    forms
}

/// RFC 4648, of whole groups.
fn base64(bytes: &[u8]) -> Vec<u8> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = Vec::with_capacity(bytes.len() / 3 * 4);
    for group in bytes.chunks_exact(3) {
        let bits = group.iter().fold(0_usize, |all, &b| all << 8 | usize::from(b));
        out.extend([18, 12, 6, 0].iter().filter_map(|shift| ALPHABET.get(bits >> shift & 63)));
    }
    out
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(file: &str, content: &str) -> Vec<(String, String)> {
        let mut found: Vec<(String, String)> = values(file, content.as_bytes())
            .into_iter()
            .map(|v| (v.key, String::from_utf8(v.text).unwrap()))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    fn has(file: &str, content: &str, key: &str, text: &str) {
        let found = pairs(file, content);
        assert!(found.contains(&(key.to_owned(), text.to_owned())), "{found:?}");
    }

    #[test]
    fn assignments_of_every_kind() {
        has(".env", "\u{feff}export A='b c' # d\r\n", "A", "b c");
        has(".env", "A=b #c\n", "A", "b");
        has(".env", "A=b #c\n", "A", "b #c");
        has(".env", "A=\"a\\\"b\"\n", "A", "a\"b");
        has("x.toml", "[db]\npassword = \"p w\"\n", "password", "p w");
        has("x.ini", "pass: word\n", "pass", "word");
        has("x", "  \"token\": \"t\",\n", "token", "t");
        assert_eq!(pairs(".env", "# A=b\n\n"), []);
    }

    #[test]
    fn leaves_of_json_and_yaml() {
        has("a.json", "{\"db\":{\"pw\":[\"x\",1]}}", "db.pw", "x");
        has("a.yml", "db:\n  pw: >-\n    x\n    y\n", "db.pw", "x y");
        has("a.yaml", "a: [b, c]\n", "a", "c");
    }

    #[test]
    fn what_hides_in_an_address() {
        has(".env", "URL=postgres://app:p%40ss@db/app\n", "URL (password)", "p@ss");
        has(".env", "URL=redis://:p/w@db/0\n", "URL (password)", "p/w");
        has(".env", "DSN=https://abc@sentry.example/1\n", "DSN (password)", "abc");
        has(".env", "URL=https://x/y?sig=a%2Bb&c=d\n", "URL (sig)", "a+b");
    }

    #[test]
    fn keys_and_files_of_one_value() {
        let key = format!("-----BEGIN {0}-----\nMIIabc\n-----END {0}-----\n", "PRIVATE KEY");
        assert_eq!(pairs("k.pem", &key), [("private key".to_owned(), "MIIabc".to_owned())]);
        assert_eq!(pairs("k.pem", &key.replace("PRIVATE KEY", "CERTIFICATE")), []);
        assert_eq!(pairs("secrets/db", "hunter2\n"), [(String::new(), "hunter2".to_owned())]);
    }
}
