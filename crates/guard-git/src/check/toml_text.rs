//! TOML.

use super::finding::Remark;

const RULE: &str = "toml";

/// Every mistake that the parser finds, not only the first.
pub(super) fn check(content: &[u8]) -> Vec<Remark> {
    let text = match std::str::from_utf8(content) {
        Ok(text) => text,
        Err(e) => {
            let line = line_of(content, e.valid_up_to());
            return vec![Remark::error(RULE, line, "it is not UTF-8, which TOML has to be")];
        }
    };
    let (_, errors) = toml::de::DeTable::parse_recoverable(text);
    errors
        .iter()
        .map(|e| {
            let at = e.span().map_or(0, |s| s.start);
            let line_start = text.get(..at).unwrap_or_default().rfind('\n').map_or(0, |n| n + 1);
            let column = text.get(line_start..at).unwrap_or_default().chars().count() as u64 + 1;
            let message = e.message();
            let (what, expected) = match message.split_once(", expected ") {
                Some((what, expected)) => (what, Some(expected)),
                None => (message, None),
            };
            let remark =
                Remark::error(RULE, line_of(content, at), what.replace('\n', "; ")).at_column(column);
            match expected {
                Some(expected) => remark.expected(expected.to_owned()),
                None => remark,
            }
        })
        .collect()
}

/// The line of a position, from 1.
pub(super) fn line_of(content: &[u8], at: usize) -> u64 {
    content.iter().take(at).filter(|&&b| b == b'\n').count() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_places() {
        assert_eq!(check(b"[a]\nb = 1\n"), []);
        let found = check(b"[a]\nb = \nc = [1,\n");
        assert!(found.iter().any(|r| r.line == Some(2)), "{found:?}");
        assert_eq!(check(b"a = 1\na = 2\n").len(), 1);
        assert_eq!(check(b"a = 1\nb = '\xff'\n").first().and_then(|r| r.line), Some(2));
    }
}
