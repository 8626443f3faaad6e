//! JSON: syntax, a byte order mark, keys that occur twice.

use std::collections::HashSet;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::finding::Remark;

const RULE: &str = "json";

/// Checks one document.
pub(super) fn check(content: &[u8]) -> Vec<Remark> {
    if content.starts_with(b"\xef\xbb\xbf") {
        return vec![
            Remark::error(RULE, 1, "it begins with a byte order mark, which JSON readers refuse")
                .at_column(1)
                .expected("save it as UTF-8 without a byte order mark"),
        ];
    }
    one(content, 0).into_iter().collect()
}

/// Checks one document a line.
pub(super) fn check_lines(content: &[u8]) -> Vec<Remark> {
    let lines = content.split(|&b| b == b'\n').zip(0_u64..);
    lines.filter(|(line, _)| !line.trim_ascii().is_empty()).filter_map(|(line, at)| one(line, at)).collect()
}

/// Checks JSON with comments and trailing commas, which are blanked first: positions stay.
pub(super) fn check_with_comments(content: &[u8]) -> Vec<Remark> {
    one(&without_comments(content), 0).into_iter().collect()
}

fn one(content: &[u8], before: u64) -> Option<Remark> {
    let error = serde_json::from_slice::<Shape>(content).err()?;
    let (line, column) = (error.line() as u64, error.column() as u64);
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_owned();
    let mut remark = Remark::error(RULE, before + line.max(1), what.clone()).at_column(column.max(1));
    if let Some(rest) = what.strip_prefix("expected ") {
        remark = remark.expected(rest.to_owned());
    } else if what.contains("trailing comma") {
        remark = remark.expected("no comma after the last element");
    }
    Some(remark)
}

/// Any JSON, of which only the keys are looked at.
struct Shape;

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Look)
    }
}

struct Look;

impl<'de> Visitor<'de> for Look {
    type Value = Shape;
    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
        Ok(Shape)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape)
    }
    fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
        Ok(Shape)
    }
    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Shape, A::Error> {
        while list.next_element::<Shape>()?.is_some() {}
        Ok(Shape)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(A::Error::custom(format_args!(
                    "the key {key:?} occurs twice: readers take one of the values"
                )));
            }
            keys.insert(key);
            map.next_value::<Shape>()?;
        }
        Ok(Shape)
    }
}

/// The text with comments and commas before a closing bracket as blanks.
fn without_comments(content: &[u8]) -> Vec<u8> {
    let mut out = content.to_vec();
    if out.starts_with(b"\xef\xbb\xbf") {
        out.splice(..3, *b"   ");
    }
    let mut at = 0;
    let mut comma: Option<usize> = None;
    while at < out.len() {
        match (out[at], out.get(at + 1)) {
            (b'"', _) => {
                comma = None;
                at += 1;
                while at < out.len() && out[at] != b'"' && out[at] != b'\n' {
                    at += if out[at] == b'\\' { 2 } else { 1 };
                }
            }
            (b'/', Some(b'/')) => {
                while at < out.len() && out[at] != b'\n' {
                    out[at] = b' ';
                    at += 1;
                }
                continue;
            }
            (b'/', Some(b'*')) => {
                let end =
                    out[at + 2..].windows(2).position(|w| w == b"*/").map_or(out.len(), |n| at + 2 + n + 2);
                out[at..end].iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b' ');
                at = end;
                continue;
            }
            (b',', _) => comma = Some(at),
            (b']' | b'}', _) => {
                if let Some(comma) = comma.take() {
                    out[comma] = b' ';
                }
            }
            (b, _) if b.is_ascii_whitespace() => {}
            _ => comma = None,
        }
        at += 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones_pass() {
        for good in ["{}", "[1, 2.5, \"a\", null, true]", "{\"a\": {\"b\": []}}", "\"x\"", "1e5"] {
            assert_eq!(check(good.as_bytes()), [], "{good}");
        }
        assert_eq!(check_with_comments(b"// c\n{\"a\": \"//no\", /* x\n */ \"b\": [1, 2,], // y\n}\n"), []);
        assert_eq!(check_lines(b"{}\n\n[1]\n"), []);
    }

    #[test]
    fn bad_ones_are_told_with_their_place() {
        let remark = &check(b"{\n  \"a\": 1,\n}\n")[0];
        assert_eq!((remark.line, remark.column), (Some(3), Some(1)));
        assert_eq!(remark.message, "trailing comma");
        let remark = &check(b"{\"a\": 1, \"a\": 2}")[0];
        assert!(remark.message.contains("occurs twice"), "{}", remark.message);
        assert_eq!(check_lines(b"{}\n{\n")[0].line, Some(2));
        assert_eq!(check_with_comments(b"{\n// c\n\"a\" 1}")[0].line, Some(3));
        for bad in
            [&b""[..], b"{", b"{'a': 1}", b"[1 2]", b"\xff", b"\xef\xbb\xbf{}", b"nul", b"{} {}", b"NaN"]
        {
            assert_eq!(check(bad).len(), 1, "{}", bad.escape_ascii());
        }
        let deep = "[".repeat(100_000);
        assert_eq!(check(deep.as_bytes()).len(), 1);
    }

    #[test]
    fn comments_that_never_end_end() {
        for odd in [&b"/*"[..], b"/", b"\"\\", b"{/* ", b"//", b","] {
            check_with_comments(odd);
        }
    }
}
