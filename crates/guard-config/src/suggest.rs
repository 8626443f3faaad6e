//! What was probably meant.

use std::collections::BTreeMap;

use crate::section::Key;

/// How alike two words must be (Jaro-Winkler) before one is offered for the other.
const ALIKE: f64 = 0.82;

/// What other tools call the same thing.
const ELSEWHERE: [(&str, &str); 16] = [
    ("exclude", "ignore"),
    ("excludes", "ignore"),
    ("excluded", "ignore"),
    ("include", "protect"),
    ("includes", "protect"),
    ("paths", "protect"),
    ("files", "protect"),
    ("path", "root"),
    ("dir", "root"),
    ("directory", "root"),
    ("secret", "sensitive"),
    ("secrets", "sensitive"),
    ("interval", "rehash"),
    ("scan_interval", "rehash"),
    ("retention", "keep"),
    ("mode", "seal"),
];

/// What to write instead of the unknown key `name` in the table `section`,
/// both by their names in the reference.
pub(crate) fn for_key(section: &str, name: &str, known: &BTreeMap<String, Key>) -> String {
    let here: Vec<&str> = known.keys().filter_map(|k| last_of(k, section)).collect();
    let elsewhere = ELSEWHERE.iter().find(|(theirs, _)| *theirs == name).map(|(_, ours)| *ours);
    if let Some(ours) = elsewhere.filter(|ours| here.contains(ours)) {
        return format!("did you mean `{ours}`?");
    }
    let wanted = elsewhere.unwrap_or(name);
    // The least nested one, where several tables have it.
    let tables = known.keys().filter_map(|k| k.rsplit_once('.').filter(|(_, last)| *last == wanted));
    if let Some((table, _)) = tables.min_by_key(|(table, _)| table.split('.').count()) {
        return format!("`{wanted}` belongs in the table `[{table}]`");
    }
    match closest(name, &here) {
        Some(ours) => format!("did you mean `{ours}`?"),
        None if here.len() == 1 => format!("remove it; the only key here is {}", list(&here)),
        None => format!("remove it; the keys here are {}", list(&here)),
    }
}

/// What to write instead of a word that is none of `words`.
pub(crate) fn for_value(text: &str, words: &[&str]) -> String {
    match closest(text, words) {
        Some(word) => format!("did you mean \"{word}\"? The choices are {}", list(words)),
        None => format!("write one of {}", list(words)),
    }
}

pub(crate) fn closest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let text = text.to_lowercase().replace('_', "-");
    words
        .iter()
        .map(|w| (strsim::jaro_winkler(&text, &w.replace('_', "-")), *w))
        .filter(|(score, _)| *score >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, w)| w)
}

/// The last part of a key that stands directly in `section`.
fn last_of<'a>(key: &'a str, section: &str) -> Option<&'a str> {
    let rest = if section.is_empty() { key } else { key.strip_prefix(section)?.strip_prefix('.')? };
    (!rest.contains('.')).then_some(rest)
}

fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        Some((last, _)) => last.clone(),
        None => "none".to_owned(),
    }
}
