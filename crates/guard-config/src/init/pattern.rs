//! Paths as patterns that match them and nothing else, and patterns as TOML.

use guard_model::RelPath;
use guard_model::path::escape;

/// What a pattern is to cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cover {
    /// The file itself.
    File,
    /// The file, and those whose names begin with its name: rotated logs, journals.
    Siblings,
    /// The directory and all below it.
    Directory,
}

/// The pattern for exactly this path, anchored at the root. Bytes that are not
/// UTF-8 become `?`, which matches any one byte.
pub(super) fn exact(path: &RelPath, cover: Cover) -> String {
    let end = match cover {
        Cover::File => "",
        Cover::Siblings => "*",
        Cover::Directory => "/",
    };
    format!("/{}{end}", literal(path.as_bytes()))
}

/// A name or path with every character that means something in a pattern made literal.
pub(super) fn literal(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '{' | '}' | '\\' | '!' | ',') {
                out.push('\\');
            }
            out.push(c);
        }
        out.extend(chunk.invalid().iter().map(|_| '?'));
    }
    out
}

/// A text as TOML on one line, safe in a terminal.
pub(super) fn toml(text: &str) -> String {
    if text.contains('\\')
        && !text.contains('\'')
        && escape(text.replace('\\', "").as_bytes()) == text.replace('\\', "")
    {
        return format!("'{text}'");
    }
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // What `escape` would not leave as it is steers a terminal.
            c if escape(c.encode_utf8(&mut [0; 4]).as_bytes()).starts_with('\\') => {
                out.push_str(&format!("\\U{:08X}", u32::from(c)));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use guard_model::policy::{Class, PatternText, Policy};
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            proptest::collection::vec(
                any::<u8>().prop_filter("part of a name", |b| !matches!(b, 0 | b'/')),
                1..20
            ),
            "[-*?\\[\\]{}!,\\\\'\"#\n\u{202e}é ]{1,12}".prop_map(String::into_bytes),
        ]
        .prop_filter("a name", |n| !matches!(n.as_slice(), b"." | b".."))
    }

    proptest! {
        #[test]
        fn a_pattern_matches_its_path(names in proptest::collection::vec(name(), 1..4)) {
            let path = RelPath::from_bytes(&names.join(&b'/')).unwrap();
            for cover in [Cover::File, Cover::Siblings, Cover::Directory] {
                let text = PatternText { writable: vec![exact(&path, cover)], ..PatternText::default() };
                let policy = Policy::new(text).unwrap();
                let is_dir = cover == Cover::Directory;
                let class = policy.classify(&path, is_dir);
                prop_assert!(matches!(class, Class::Writable | Class::WritableTop), "{path} {class:?}");
                let other = RelPath::from_bytes(b"another/path").unwrap();
                prop_assert!(path.as_bytes().len() < 13 || policy.classify(&other, is_dir).is_protected());
            }
        }

        #[test]
        fn toml_gives_the_text_back(text: String) {
            let line = format!("x = {}\n", toml(&text));
            prop_assert!(!line.trim_end().chars().any(char::is_control));
            let table: toml::Table = line.parse().unwrap();
            prop_assert_eq!(table["x"].as_str(), Some(text.as_str()));
        }
    }
}
