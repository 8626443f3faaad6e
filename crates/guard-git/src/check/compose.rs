//! Compose files: structure, references between their parts, and variables
//! without a value, for which compose puts nothing in silence.

use std::collections::BTreeSet;

use super::finding::Remark;
use super::yaml::{self, Node};

const RULE: &str = "compose";
const TOP: [&str; 9] =
    ["version", "name", "services", "networks", "volumes", "configs", "secrets", "include", "models"];

/// What a compose file says and asks for.
pub(super) struct Checked {
    pub(super) remarks: Vec<Remark>,
    /// False where no `.env` was there to compare variables with, though some are needed.
    pub(super) variables_known: bool,
}

/// Checks a compose file; `known` are the variables of the `.env` beside it.
pub(super) fn check(content: &[u8], known: Option<&BTreeSet<String>>) -> Checked {
    let (top, mut remarks) = match yaml::read(content) {
        Ok(read) => read,
        Err(remark) => return Checked { remarks: vec![remark], variables_known: true },
    };
    let Some(top) = top else {
        remarks.push(Remark::error(RULE, 1, "the file is empty").expected("`services:`"));
        return Checked { remarks, variables_known: true };
    };
    structure(&top, &mut remarks);
    let mut needed = Vec::new();
    variables(&top, &mut needed);
    let mut told = BTreeSet::new();
    for (name, line) in needed.iter().filter(|(name, _)| known.is_some_and(|k| !k.contains(name))) {
        if told.insert(name) {
            let what = format!(
                "${{{name}}} has no default, and .env beside it does not set it: compose puts nothing in its place"
            );
            let fix = format!("{name} in .env, a default (${{{name}:-…}}), or a refusal (${{{name}:?}})");
            remarks.push(Remark::warning(RULE, *line, what).expected(fix));
        }
    }
    Checked { remarks, variables_known: known.is_some() || needed.is_empty() }
}

fn structure(top: &Node, out: &mut Vec<Remark>) {
    if !matches!(top, Node::Map(..)) {
        out.push(Remark::error(RULE, top.line(), "the top is no mapping").expected("`services:`"));
        return;
    }
    for (key, _) in top.pairs() {
        let name = key.text().unwrap_or_default();
        if !TOP.contains(&name) && !name.starts_with("x-") {
            let what = format!("compose knows no {name:?} at the top");
            out.push(
                Remark::error(RULE, key.line(), what).expected(format!("one of {}, or x-…", TOP.join(", "))),
            );
        }
    }
    let services = match top.get("services") {
        None | Some(Node::Alias(_)) => return,
        Some(Node::Map(pairs, _)) => pairs,
        Some(other) => {
            out.push(Remark::error(RULE, other.line(), "`services` is no mapping"));
            return;
        }
    };
    let elsewhere = top.get("include").is_some();
    let names = |node: Option<&Node>| -> BTreeSet<String> {
        references(node).into_iter().map(|(name, _)| name.to_owned()).collect()
    };
    let siblings = names(top.get("services"));
    for (name, service) in services {
        let shown = name.text().unwrap_or_default();
        match service {
            Node::Map(..) => {}
            Node::Alias(_) => continue,
            other => {
                out.push(Remark::error(RULE, other.line(), format!("service {shown:?} is no mapping")));
                continue;
            }
        }
        if elsewhere || service.get("extends").is_some() {
            continue;
        }
        for (other, line) in references(service.get("depends_on")) {
            if !siblings.contains(other) {
                let what = format!("service {shown:?} depends on {other:?}, which is not in this file");
                out.push(Remark::warning(RULE, line, what));
            }
        }
        for kind in ["networks", "secrets", "configs"] {
            let defined = names(top.get(kind));
            for (used, line) in references(service.get(kind)) {
                if used != "default" && !defined.contains(used) {
                    let what =
                        format!("service {shown:?} uses {used:?}, which `{kind}` at the top does not define");
                    out.push(Remark::warning(RULE, line, what));
                }
            }
        }
    }
}

/// Names in a list, or as keys of a mapping.
fn references(node: Option<&Node>) -> Vec<(&str, u64)> {
    match node {
        Some(Node::List(items, _)) => items
            .iter()
            .filter_map(|n| Some((n.text().or_else(|| n.get("source").and_then(Node::text))?, n.line())))
            .collect(),
        Some(Node::Map(pairs, _)) => pairs.iter().filter_map(|(k, _)| Some((k.text()?, k.line()))).collect(),
        _ => Vec::new(),
    }
}

/// Every `$NAME` and `${NAME}` without a default.
fn variables(node: &Node, out: &mut Vec<(String, u64)>) {
    match node {
        Node::Scalar(text, line) => needed_in(text, *line, out),
        Node::List(items, _) => items.iter().for_each(|n| variables(n, out)),
        Node::Map(pairs, _) => pairs.iter().for_each(|(_, v)| variables(v, out)),
        Node::Alias(_) => {}
    }
}

fn needed_in(text: &str, line: u64, out: &mut Vec<(String, u64)>) {
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        rest = rest.get(at + 1..).unwrap_or_default();
        if let Some(after) = rest.strip_prefix('$') {
            rest = after;
            continue;
        }
        let braced = rest.starts_with('{');
        let body = rest.strip_prefix('{').unwrap_or(rest);
        let end = body.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(body.len());
        let (name, tail) = body.split_at(end);
        // With an operator behind it (`:-`, `?`, `+` …) compose has a rule for its absence.
        let plain = !braced || tail.starts_with('}');
        if plain && name.starts_with(|c: char| c == '_' || c.is_ascii_alphabetic()) {
            out.push((name.to_owned(), line));
        }
        rest = tail;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str, known: Option<&[&str]>) -> Vec<String> {
        let known = known.map(|k| k.iter().map(|&s| s.to_owned()).collect());
        let found = check(text.as_bytes(), known.as_ref()).remarks;
        found.into_iter().map(|r| format!("{:?} {}", r.line, r.message)).collect()
    }

    const GOOD: &str = "services:\n  web:\n    image: nginx:${TAG:-1}\n    depends_on: [db]\n    networks: [back]\n  db:\n    image: postgres\n    environment:\n      - PW=${PW}\n      - PRICE=5$$\nnetworks:\n  back:\n";

    #[test]
    fn a_good_one_passes() {
        assert_eq!(messages(GOOD, Some(&["PW"])), Vec::<String>::new());
        assert!(!check(GOOD.as_bytes(), None).variables_known);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let unset = messages(GOOD, Some(&[]));
        assert!(unset.len() == 1 && unset[0].starts_with("Some(9) ${PW} has no default"), "{unset:?}");
        let bad = "service:\n  a: {}\nservices:\n  web: nginx\n  app:\n    depends_on: {dbb: {}}\n    networks: [nope]\n";
        assert_eq!(messages(bad, None).len(), 4);
        for odd in ["", "[]", "services: []", "x", "services:\n  - a"] {
            assert!(!messages(odd, None).is_empty(), "{odd}");
        }
    }
}
