//! Paths beneath a root: raw bytes inside, safe text outside.

use std::borrow::Cow;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path relative to an environment's root.
///
/// Invariant: empty (the root itself), or components joined by single slashes,
/// none of which is empty, `.` or `..`, and none of which holds a NUL byte.
/// Joining it to the root can therefore never name anything outside the root
/// except through a symbolic link, which guard-tree refuses to follow.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RelPath(Box<[u8]>);

/// Why bytes or text are not a path beneath a root.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Starts with a slash.
    #[error("the path is absolute; write it relative to the root")]
    Absolute,
    /// Has an empty component, `.` or `..`.
    #[error("the path has an empty component, `.` or `..`")]
    Component,
    /// Holds a NUL byte.
    #[error("the path holds a NUL byte")]
    Nul,
    /// A backslash that starts neither `\\` nor `\xNN`.
    #[error("the path has a backslash that starts neither `\\\\` nor `\\xNN`")]
    Escape,
}

impl RelPath {
    /// The root itself, written `.`.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes raw bytes; `.` and the empty string are the root.
    ///
    /// # Errors
    /// [`PathError`] where the bytes are not a path beneath a root.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.is_empty() || bytes == b"." {
            return Ok(Self::root());
        }
        if bytes.starts_with(b"/") {
            return Err(PathError::Absolute);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        if bytes.split(|&b| b == b'/').any(|c| matches!(c, b"" | b"." | b"..")) {
            return Err(PathError::Component);
        }
        Ok(Self(bytes.into()))
    }

    /// Reads the escaped text that [`fmt::Display`] writes.
    ///
    /// # Errors
    /// [`PathError`] where the text is not an escaped path beneath a root.
    pub fn from_text(text: &str) -> Result<Self, PathError> {
        Self::from_bytes(&unescape(text).ok_or(PathError::Escape)?)
    }

    /// The raw bytes; empty for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a path to hand to the kernel, relative to the root; `.` for the root.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        if self.is_root() { Path::new(".") } else { Path::new(std::ffi::OsStr::from_bytes(&self.0)) }
    }

    /// True for the root itself.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory that holds this entry; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let cut = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0.get(..cut).unwrap_or_default().into()))
    }

    /// The last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    /// This directory's child of that name.
    ///
    /// # Errors
    /// [`PathError`] where `name` is not a single plain component.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        if name.contains(&b'/') || matches!(name, b"" | b"." | b"..") {
            return Err(PathError::Component);
        }
        if name.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut bytes = Vec::with_capacity(self.0.len() + 1 + name.len());
        if !self.is_root() {
            bytes.extend_from_slice(&self.0);
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// True for `other` itself and everything below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        match self.0.strip_prefix(&*other.0) {
            Some(rest) => other.is_root() || rest.is_empty() || rest.starts_with(b"/"),
            None => false,
        }
    }

    /// Every directory from the root down to this entry's parent.
    pub fn ancestors_from_root(&self) -> impl Iterator<Item = Self> + '_ {
        let root = (!self.is_root()).then(Self::root);
        let cuts = self.0.iter().enumerate().filter(|&(_, &b)| b == b'/').map(|(i, _)| i);
        root.into_iter().chain(cuts.map(|i| Self(self.0.get(..i).unwrap_or_default().into())))
    }

    /// As it is shown: the root is `.`.
    fn escaped(&self) -> Cow<'_, str> {
        if self.is_root() { ".".into() } else { escaped(&self.0) }
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.escaped())
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RelPath({self})")
    }
}

impl Serialize for RelPath {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.escaped())
    }
}

impl<'de> Deserialize<'de> for RelPath {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        Self::from_text(&text).map_err(serde::de::Error::custom)
    }
}

/// Hostile bytes as text that is lossless and safe in a terminal, a log line
/// and JSON: valid printable UTF-8 stays, the backslash becomes `\\`, and
/// control characters, invisible direction marks and invalid bytes become
/// `\xNN` byte by byte.
#[must_use]
pub fn escape(bytes: &[u8]) -> String {
    escaped(bytes).into_owned()
}

fn escaped(bytes: &[u8]) -> Cow<'_, str> {
    if bytes.iter().all(|&b| matches!(b, b' '..=b'~') && b != b'\\') {
        // Nearly every path there is.
        return String::from_utf8_lossy(bytes);
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_control() || steers_text(c) => {
                    push_hex(&mut out, c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                c => out.push(c),
            }
        }
        push_hex(&mut out, chunk.invalid());
    }
    out.into()
}

/// Characters that show nothing themselves and change how others are shown
/// (Unicode bidirectional controls, line and paragraph separators, BOM).
#[must_use]
pub fn steers_text(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

fn push_hex(out: &mut String, bytes: &[u8]) {
    for b in bytes {
        out.push_str("\\x");
        out.push_str(&hex::encode([*b]));
    }
}

/// The inverse of [`escape`]; `None` where a backslash starts no known escape.
#[must_use]
pub fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        if b != b'\\' {
            out.push(b);
            rest = tail;
        } else if let Some(tail) = tail.strip_prefix(b"\\") {
            out.push(b'\\');
            rest = tail;
        } else {
            let digits = tail.strip_prefix(b"x")?.get(..2)?;
            out.extend(hex::decode(digits).ok()?);
            rest = tail.get(3..)?;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hostile_names_become_safe_text() {
        let p = RelPath::from_bytes(b"a\nb/\x1b[31m\\\xff/\xe2\x80\xaex").unwrap();
        assert_eq!(p.to_string(), "a\\x0ab/\\x1b[31m\\\\\\xff/\\xe2\\x80\\xaex");
        assert_eq!(RelPath::from_text(&p.to_string()).unwrap(), p);
    }

    #[test]
    fn what_leaves_the_root_is_refused() {
        for bad in ["/etc", "a//b", "../x", "a/..", "a/./b", "a/"] {
            assert!(RelPath::from_bytes(bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(RelPath::from_bytes(b"a\0"), Err(PathError::Nul));
        assert_eq!(RelPath::from_text("a\\q"), Err(PathError::Escape));
    }

    #[test]
    fn family() {
        let p = RelPath::from_text("a/bc/d").unwrap();
        assert_eq!(p.parent().unwrap().to_string(), "a/bc");
        assert_eq!(p.name(), b"d");
        let up: Vec<_> = p.ancestors_from_root().map(|a| a.to_string()).collect();
        assert_eq!(up, [".", "a", "a/bc"]);
        assert!(p.is_within(&RelPath::from_text("a/bc").unwrap()));
        assert!(!p.is_within(&RelPath::from_text("a/b").unwrap()));
        assert!(p.is_within(&RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
    }

    proptest! {
        #[test]
        fn escape_is_lossless(bytes: Vec<u8>) {
            let text = escape(&bytes);
            prop_assert!(!text.chars().any(char::is_control));
            prop_assert_eq!(unescape(&text), Some(bytes));
        }

        #[test]
        fn what_unescapes_is_told_apart_again(text: String) {
            if let Some(bytes) = unescape(&text) {
                prop_assert_eq!(unescape(&escape(&bytes)), Some(bytes));
            }
        }
    }
}
