//! YAML: syntax, and keys that occur twice, of which readers take one or refuse both.
//!
//! Read event by event: an alias is never followed, so that no document can
//! blow up, and depth is bounded.

use saphyr_parser::{Event, Parser};

use super::finding::Remark;

const RULE: &str = "yaml";
/// Deeper than any reader of configuration goes.
const DEEPEST: usize = 200;

/// A node with the line that it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    Scalar(String, u64),
    List(Vec<Node>, u64),
    Map(Vec<(Node, Node)>, u64),
    /// An alias of something before, which is not followed.
    Alias(u64),
}

impl Node {
    pub(crate) fn line(&self) -> u64 {
        match self {
            Self::Scalar(_, line) | Self::List(_, line) | Self::Map(_, line) | Self::Alias(line) => *line,
        }
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Scalar(text, _) = self { Some(text) } else { None }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        self.pairs().iter().find(|(k, _)| k.text() == Some(key)).map(|(_, v)| v)
    }

    pub(crate) fn pairs(&self) -> &[(Node, Node)] {
        if let Self::Map(pairs, _) = self { pairs } else { &[] }
    }
}

/// Checks every document of a file.
pub(super) fn check(content: &[u8]) -> Vec<Remark> {
    match read(content) {
        Ok((_, remarks)) => remarks,
        Err(remark) => vec![remark],
    }
}

/// The first document, and what is odd in any; the mistake where it is no YAML.
pub(crate) fn read(content: &[u8]) -> Result<(Option<Node>, Vec<Remark>), Remark> {
    let text = std::str::from_utf8(content).map_err(|e| {
        let line = super::toml_text::line_of(content, e.valid_up_to());
        Remark::error(RULE, line, "it is not UTF-8").expected("YAML in UTF-8")
    })?;
    let mut remarks = Vec::new();
    let mut first = None;
    let mut open: Vec<(Node, Option<Node>)> = Vec::new();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| {
            let place = e.marker();
            Remark::error(RULE, place.line() as u64, e.info().to_owned()).at_column(place.col() as u64 + 1)
        })?;
        let line = span.start.line() as u64;
        let node = match event {
            Event::Scalar(text, ..) => Node::Scalar(text.into_owned(), line),
            Event::Alias(_) => Node::Alias(line),
            Event::SequenceStart(..) | Event::MappingStart(..) if open.len() >= DEEPEST => {
                return Err(Remark::error(RULE, line, format!("it is nested deeper than {DEEPEST} levels")));
            }
            Event::SequenceStart(..) => {
                open.push((Node::List(Vec::new(), line), None));
                continue;
            }
            Event::MappingStart(..) => {
                open.push((Node::Map(Vec::new(), line), None));
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => match open.pop() {
                Some((node, _)) => node,
                None => continue,
            },
            _ => continue,
        };
        match open.last_mut() {
            None => {
                first.get_or_insert(node);
            }
            Some((Node::List(items, _), _)) => items.push(node),
            Some((Node::Map(pairs, _), key)) => match key.take() {
                None => *key = Some(node),
                Some(name) => {
                    remarks.extend(twice(pairs, &name));
                    pairs.push((name, node));
                }
            },
            Some(_) => {}
        }
    }
    Ok((first, remarks))
}

fn twice(pairs: &[(Node, Node)], name: &Node) -> Option<Remark> {
    let text = name.text().filter(|t| *t != "<<")?;
    let (before, _) = pairs.iter().find(|(k, _)| k.text() == Some(text))?;
    let what = format!("the key {text:?} occurs twice, first in line {}", before.line());
    Some(Remark::error(RULE, name.line(), what).expected("each key once"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_places() {
        assert_eq!(check(b"a: 1\nb: [1, 2]\n---\nc: {d: e}\n"), []);
        let found = check(b"a: 1\nb: [1, 2\nc: 3\n");
        assert!(found.len() == 1 && found[0].line >= Some(2), "{found:?}");
        assert_eq!(check(b"a: 1\n\tb: 2\n").len(), 1);
        let twice = check(b"a: 1\nb:\n  c: 1\n  c: 2\na: 3\n");
        assert_eq!(twice.iter().map(|r| r.line).collect::<Vec<_>>(), [Some(4), Some(5)]);
        assert_eq!(check(b"x: &x {a: 1}\ny: {<<: *x}\nz: *x\n"), []);
        assert_eq!(check(b"a: \xff\n").len(), 1);
    }

    #[test]
    fn neither_depth_nor_aliases_blow_up() {
        assert_eq!(check("[".repeat(10_000).as_bytes()).len(), 1);
        let mut bomb = String::from("a0: &a0 [x]\n");
        for i in 1..40 {
            bomb.push_str(&format!("a{i}: &a{i} [*a{0}, *a{0}, *a{0}]\n", i - 1));
        }
        assert_eq!(check(bomb.as_bytes()), []);
    }
}
