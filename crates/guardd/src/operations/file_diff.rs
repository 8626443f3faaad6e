//! How the content of files differs from what the baseline says: text line by line, sensitive files by the names of
//! their settings and never by a value, anything else by size and digest.

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use guard_api::wire::{Content, FileDiff, FileDiffKind};
use guard_model::path::steers_text;
use guard_model::{Digest, Entry, Kind, Observed, RelPath};
use guard_tree::Root;
use sha2::{Digest as _, Sha256};
use similar::TextDiff;

use super::restore::Contents;
use crate::comparer::Difference;

/// A file that is longer than this is shown by size and digest.
const MOST: u64 = 1 << 20;
/// Files that are looked into; the others are in the findings all the same.
const FILES: usize = 200;
/// Of all diffs together, bytes.
const SHOWN: usize = 4 << 20;
/// A comparison that takes longer is made coarser.
const PATIENCE: Duration = Duration::from_millis(500);

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// The daemon's own user, or root: no file is closed to it.
    Owner,
    /// Somebody else, who sees what everybody may read.
    Other,
}

/// How the contents of what differs do so.
pub(crate) fn file_diffs(
    root: &Root,
    contents: Option<&dyn Contents>,
    differences: &[Difference],
    reader: Reader,
) -> Vec<FileDiff> {
    let mut room = SHOWN;
    let about_content = differences.iter().filter(|d| {
        let is_file = |e: &Entry| e.kind == Kind::File;
        let now = present(&d.observed);
        let (was, is) = (d.before.as_ref().filter(|e| is_file(e)), now.filter(|e| is_file(e)));
        match (was, is) {
            (Some(was), Some(is)) => is.sha256.is_some() && was.sha256 != is.sha256,
            (None, None) => false,
            _ => true,
        }
    });
    about_content.take(FILES).map(|d| one(root, contents, d, reader, &mut room)).collect()
}

fn present(observed: &Observed) -> Option<&Entry> {
    match observed {
        Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. } => Some(e),
        _ => None,
    }
}

fn one(
    root: &Root,
    contents: Option<&dyn Contents>,
    d: &Difference,
    reader: Reader,
    room: &mut usize,
) -> FileDiff {
    let file = |e: Option<&Entry>| e.filter(|e| e.kind == Kind::File).cloned();
    let (before, after) = (file(d.before.as_ref()), file(present(&d.observed)));
    // A digest of a short secret tells the secret to whoever can guess.
    let hide_digest = d.sensitive && reader != Reader::Owner;
    let told = |e: &Entry| Content {
        size: e.size,
        sha256: e.sha256.filter(|_| !hide_digest).map(|digest| digest.to_string()),
    };
    let mut diff = FileDiff {
        path: d.path.to_string(),
        kind: FileDiffKind::Binary,
        before: before.as_ref().map(told),
        after: after.as_ref().map(told),
        unified: None,
        keys: None,
        note: None,
    };
    let is_open = |e: &Entry| e.mode & 0o004 != 0;
    let closed = [&before, &after].into_iter().flatten().any(|e| !is_open(e));
    if closed && !d.sensitive && reader != Reader::Owner {
        diff.note = Some("not everybody may read it: its lines are shown to root alone".to_owned());
        return diff;
    }
    let old = match before.as_ref().map(|e| recorded(contents, e)).transpose() {
        Ok(old) => old.unwrap_or_default(),
        Err(why) => return FileDiff { note: Some(why), ..diff },
    };
    let new = match after.as_ref().map(|_| current(root, &d.path)).transpose() {
        Ok(new) => new.unwrap_or_default(),
        Err(why) => return FileDiff { note: Some(why), ..diff },
    };
    if d.sensitive {
        match (settings(&old), settings(&new)) {
            (Some(old), Some(new)) => {
                diff.kind = FileDiffKind::Keys;
                let keys = compare(&old, &new);
                if keys.is_empty() {
                    diff.note = Some("no setting differs: only comments, order or spacing".to_owned());
                }
                diff.keys = Some(keys);
            }
            _ => {
                diff.note =
                    Some("sensitive, and not made of KEY=VALUE lines: nothing of it is shown".to_owned())
            }
        }
        return diff;
    }
    let (Some(old), Some(new)) = (as_text(&old), as_text(&new)) else {
        diff.note = Some("not text".to_owned());
        return diff;
    };
    let mut unified = unified(old, new);
    if unified.len() > *room {
        let cut = (0..=*room).rev().find(|at| unified.is_char_boundary(*at)).unwrap_or(0);
        unified.truncate(cut);
        diff.note = Some("cut short".to_owned());
    }
    *room = room.saturating_sub(unified.len());
    diff.kind = FileDiffKind::Text;
    diff.unified = Some(unified);
    diff
}

/// The content that the baseline records, from a backup.
fn recorded(contents: Option<&dyn Contents>, entry: &Entry) -> Result<Vec<u8>, String> {
    let (Some(contents), Some(digest)) = (contents, &entry.sha256) else {
        return Err("no backup can be read".to_owned());
    };
    if entry.size > MOST {
        return Err(format!("longer than {} KiB", MOST >> 10));
    }
    match contents.holds(digest) {
        Ok(true) => {}
        Ok(false) => return Err("no backup holds what it was".to_owned()),
        Err(e) => return Err(format!("the backups cannot be read: {e}")),
    }
    let mut out = Bounded(Vec::new());
    contents.write(digest, &mut out).map_err(|e| format!("the backup cannot be read: {e}"))?;
    if Digest(Sha256::digest(&out.0).into()) != *digest {
        return Err("the backup holds something else than was recorded".to_owned());
    }
    Ok(out.0)
}

fn current(root: &Root, path: &RelPath) -> Result<Vec<u8>, String> {
    match root.content_of(path, MOST) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Err(format!("longer than {} KiB, or another thing by now", MOST >> 10)),
        Err(e) => Err(crate::failure::chain(&e)),
    }
}

struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if (self.0.len() + bytes.len()) as u64 > MOST {
            return Err(std::io::Error::other("longer than was recorded"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn as_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn unified(old: &str, new: &str) -> String {
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(old, new);
    let text = diff.unified_diff().context_radius(3).to_string();
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\t' => out.push(c),
            c if c.is_control() || steers_text(c) => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.push_str(&format!("\\x{byte:02x}"));
                }
            }
            c => out.push(c),
        }
    }
    out
}

/// The settings of a dotenv-like file: names with the digest of their values. `None` where any line is no setting: then
/// what looks like a name may be part of a secret.
fn settings(bytes: &[u8]) -> Option<BTreeMap<String, Digest>> {
    let text = as_text(bytes)?;
    let mut found = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.strip_prefix("export ").unwrap_or(line).split_once('=')?;
        let (name, value) = (name.trim_end(), value.trim_start());
        if !is_name(name, value) {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update(value);
        // A value in quotes may go over several lines, which may look like settings.
        if let Some(quote) = value.chars().next().filter(|c| matches!(c, '"' | '\'' | '`')) {
            let mut rest = value.get(1..).unwrap_or_default();
            while !closes(rest, quote) {
                rest = lines.next()?;
                hash.update(b"\n");
                hash.update(rest);
            }
        }
        found.insert(name.to_owned(), Digest(hash.finalize().into()));
    }
    Some(found)
}

/// Does the quote end in this line?
fn closes(line: &str, quote: char) -> bool {
    let mut escaped = false;
    for c in line.chars() {
        match c {
            '\\' if quote != '\'' => escaped = !escaped,
            c if c == quote && !escaped => return true,
            _ => escaped = false,
        }
    }
    false
}

/// Names that people give to settings. Base64 ends in `=`, too: a name with nothing after it has to be in capitals.
fn is_name(name: &str, value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let in_capitals = name.chars().all(|c| !c.is_ascii_lowercase());
    starts
        && name.len() <= 64
        && name.chars().all(plain)
        && (in_capitals && name.len() <= 40 || !(value.is_empty() || value.starts_with('=')))
}

fn compare(old: &BTreeMap<String, Digest>, new: &BTreeMap<String, Digest>) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    for (name, value) in old {
        match new.get(name) {
            None => keys.insert(name.clone(), "removed".to_owned()),
            Some(now) if now != value => keys.insert(name.clone(), "changed".to_owned()),
            Some(_) => None,
        };
    }
    for name in new.keys().filter(|name| !old.contains_key(*name)) {
        keys.insert(name.clone(), "added".to_owned());
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(old: &str, new: &str) -> Option<Vec<(String, String)>> {
        let (old, new) = (settings(old.as_bytes())?, settings(new.as_bytes())?);
        Some(compare(&old, &new).into_iter().collect())
    }

    #[test]
    fn settings_are_told_by_name_alone() {
        let old = "# c\nA=1\nexport B='x'\nC=\"one\nFAKE=two\n\"\nGONE=\n";
        let new = "A=2\nB='x'\nC=\"one\nFAKE=three\n\"\nNEW=canary\n";
        let told = keys(old, new).unwrap();
        let words: Vec<String> = told.iter().map(|(k, v)| format!("{k} {v}")).collect();
        assert_eq!(words, ["A changed", "C changed", "GONE removed", "NEW added"]);
    }

    #[test]
    fn what_is_no_list_of_settings_tells_nothing() {
        for secret in [
            "c2VjcmV0dG9rZW4=",
            "c2VjcmV0dG9rZW4==",
            "-----BEGIN KEY-----\nMIIB=\n-----END KEY-----",
            "A=1\nhunter2",
            "{\"a\": 1}",
            "A=\"never closed\nSECRET=x",
            "user:pass@host=x",
            "\u{0}A=1",
        ] {
            assert_eq!(keys(secret, "A=1"), None, "{secret}");
        }
    }

    #[test]
    fn lines_are_shown_without_what_steers_a_terminal() {
        let text = unified("a\nb\nc\n", "a\n\u{1b}[31mred\u{202e}\r\nc\n");
        assert!(text.contains("-b\n") && text.contains("+\\x1b[31mred\\xe2\\x80\\xae\\x0d\n"), "{text}");
        assert!(text.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()));
    }
}
