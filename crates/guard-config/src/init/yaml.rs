//! A YAML document as nodes that point at each other by number.
//!
//! Aliases stay pointers, so a document of a few lines cannot grow into
//! gigabytes, and whoever follows pointers counts the steps.

use saphyr_parser::{Event, Parser};

/// A place in a [`Document`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node(usize);

#[derive(Debug)]
enum Value {
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

/// The first document of a YAML text.
#[derive(Debug, Default)]
pub(super) struct Document {
    values: Vec<Value>,
}

/// A collection that is still open.
#[derive(Debug)]
enum Open {
    List(Node, Vec<Node>),
    Map(Node, Vec<(Node, Node)>, Option<Node>),
}

/// As many merges (`<<: *other`) as are followed from one map to the next.
const MOST_MERGES: usize = 8;

impl Document {
    /// Reads the first document; the parser's complaint where it is no YAML.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut doc = Self::default();
        let mut open: Vec<Open> = Vec::new();
        // Anchor number to the node it names.
        let mut anchors: Vec<(usize, Node)> = Vec::new();
        for event in Parser::new_from_str(text) {
            let (event, _) = event.map_err(|e| e.to_string())?;
            let (value, anchor, more) = match event {
                Event::Scalar(text, _, anchor, _) => (Value::Scalar(text.into_owned()), anchor, None),
                Event::SequenceStart(anchor, _) => (Value::List(Vec::new()), anchor, Some(false)),
                Event::MappingStart(anchor, _) => (Value::Map(Vec::new()), anchor, Some(true)),
                Event::Alias(anchor) => {
                    if let Some((_, node)) = anchors.iter().rev().find(|(a, _)| *a == anchor) {
                        put(&mut open, *node);
                    }
                    continue;
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    doc.close(open.pop());
                    continue;
                }
                Event::DocumentEnd => break,
                _ => continue,
            };
            let node = Node(doc.values.len());
            doc.values.push(value);
            if anchor != 0 {
                anchors.push((anchor, node));
            }
            put(&mut open, node);
            match more {
                Some(true) => open.push(Open::Map(node, Vec::new(), None)),
                Some(false) => open.push(Open::List(node, Vec::new())),
                None => {}
            }
        }
        Ok(doc)
    }

    fn close(&mut self, open: Option<Open>) {
        let (Node(at), value) = match open {
            Some(Open::List(node, items)) => (node, Value::List(items)),
            Some(Open::Map(node, pairs, _)) => (node, Value::Map(pairs)),
            None => return,
        };
        if let Some(slot) = self.values.get_mut(at) {
            *slot = value;
        }
    }

    /// The node that holds all others; `None` in an empty document.
    pub(super) fn top(&self) -> Option<Node> {
        (!self.values.is_empty()).then_some(Node(0))
    }

    pub(super) fn text(&self, node: Node) -> Option<&str> {
        match self.values.get(node.0)? {
            Value::Scalar(s) => Some(s),
            _ => None,
        }
    }

    pub(super) fn list(&self, node: Node) -> &[Node] {
        match self.values.get(node.0) {
            Some(Value::List(items)) => items,
            _ => &[],
        }
    }

    /// The pairs written in a map, by their keys as text.
    pub(super) fn pairs(&self, node: Node) -> impl Iterator<Item = (&str, Node)> {
        let pairs: &[(Node, Node)] = match self.values.get(node.0) {
            Some(Value::Map(pairs)) => pairs,
            _ => &[],
        };
        pairs.iter().filter_map(|(k, v)| Some((self.text(*k)?, *v)))
    }

    /// The value of a key, taken from merged maps (`<<`) where the map itself has none.
    pub(super) fn get(&self, node: Node, key: &str) -> Option<Node> {
        let mut maps = vec![node];
        for _ in 0..MOST_MERGES {
            if let Some(found) = maps.iter().find_map(|m| self.pairs(*m).find(|(k, _)| *k == key)) {
                return Some(found.1);
            }
            maps = maps.iter().flat_map(|m| self.merged(*m)).take(64).collect();
        }
        None
    }

    /// The maps that a map takes in: one, or a list of them.
    fn merged(&self, map: Node) -> Vec<Node> {
        let Some((_, value)) = self.pairs(map).find(|(k, _)| *k == "<<") else { return Vec::new() };
        match self.values.get(value.0) {
            Some(Value::List(items)) => items.clone(),
            _ => vec![value],
        }
    }
}

/// Puts a finished node where the innermost open collection expects it.
fn put(open: &mut [Open], node: Node) {
    match open.last_mut() {
        Some(Open::List(_, items)) => items.push(node),
        Some(Open::Map(_, pairs, key)) => match key.take() {
            Some(k) => pairs.push((k, node)),
            None => *key = Some(node),
        },
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn maps_lists_aliases_and_merges() {
        let text = "x: &common\n  volumes: [a, b]\n  user: root\nservices:\n  one:\n    <<: *common\n    user: me\n  two:\n    <<: [*none, *common]\n";
        assert!(Document::read(text).is_err()); // an alias to nothing
        let doc = Document::read(&text.replace("*none, ", "")).unwrap();
        let top = doc.top().unwrap();
        let services = doc.get(top, "services").unwrap();
        let one = doc.get(services, "one").unwrap();
        assert_eq!(doc.text(doc.get(one, "user").unwrap()), Some("me"));
        let two = doc.get(services, "two").unwrap();
        let volumes = doc.get(two, "volumes").unwrap();
        let texts: Vec<_> = doc.list(volumes).iter().map(|n| doc.text(*n).unwrap()).collect();
        assert_eq!(texts, ["a", "b"]);
        assert!(Document::read("").unwrap().top().is_none());
        assert!(Document::read("a: [").is_err());
    }

    #[test]
    fn bombs_stay_small() {
        let mut text = "a0: &a0 [x, x]\n".to_owned();
        for i in 1..60 {
            text += &format!("a{i}: &a{i} [*a{}, *a{}]\n", i - 1, i - 1);
        }
        let doc = Document::read(&text).unwrap();
        assert!(doc.values.len() < 1000);
        let circle = Document::read("a: &a\n  <<: *a\n").unwrap();
        let a = circle.get(circle.top().unwrap(), "a").unwrap();
        assert_eq!(circle.get(a, "nothing"), None);
        let deep = "[".repeat(100_000);
        assert!(Document::read(&deep).is_err());
        let block: String = (0..2000).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
        assert!(Document::read(&block).is_ok());
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-a:{}\\[\\]&*<>|!%#'\" \n\t,]{0,200}") { drop(Document::read(&text)); }

        #[test]
        fn never_panics_on_anything(text: String) { drop(Document::read(&text)); }
    }
}
