//! What a compose file says about directories that containers write to, and
//! about files that hold secrets.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use guard_model::RelPath;

use super::yaml::{Document, Node};

/// A path of the host that a service sees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mount {
    pub(super) service: String,
    /// Relative to the root that is looked at.
    pub(super) source: RelPath,
    /// Where the service sees it.
    pub(super) target: String,
}

/// What was found in one compose file.
#[derive(Debug, Default)]
pub(super) struct Compose {
    pub(super) services: usize,
    /// Mounts of paths below the root that are not read-only.
    pub(super) written: Vec<Mount>,
    /// `env_file`s and file secrets below the root.
    pub(super) secrets: Vec<RelPath>,
    /// Mounts whose source is only known when variables are: service and source.
    pub(super) unresolved: Vec<(String, String)>,
}

/// Where a compose file stands: what its relative and absolute paths mean.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stand<'a> {
    pub(super) root: &'a Path,
    pub(super) directory: &'a RelPath,
}

/// Reads a compose file; the parser's complaint where it is no YAML.
pub(super) fn read(text: &str, stand: Stand<'_>) -> Result<Compose, String> {
    let doc = Document::read(text)?;
    let mut out = Compose::default();
    let Some(top) = doc.top() else { return Ok(out) };
    if let Some(services) = doc.get(top, "services") {
        for (name, service) in doc.pairs(services) {
            out.services += 1;
            for mount in doc.get(service, "volumes").map_or(&[][..], |v| doc.list(v)) {
                volume(&doc, *mount, name, stand, &mut out);
            }
            for path in env_files(&doc, service) {
                out.secrets.extend(stand.below(&path));
            }
        }
    }
    if let Some(secrets) = doc.get(top, "secrets") {
        for (_, secret) in doc.pairs(secrets) {
            let file = doc.get(secret, "file").and_then(|f| doc.text(f));
            out.secrets.extend(file.and_then(|f| stand.below(f)));
        }
    }
    out.written.sort();
    out.written.dedup();
    out.secrets.sort();
    out.secrets.dedup();
    Ok(out)
}

/// One entry of `volumes`, in its short (`./data:/var/lib/x:rw`) or long form.
fn volume(doc: &Document, node: Node, service: &str, stand: Stand<'_>, out: &mut Compose) {
    let field = |key| doc.get(node, key).and_then(|n| doc.text(n));
    let (source, target, read_only) = match doc.text(node) {
        Some(short) => {
            let mut parts = split_short(short).into_iter();
            let (Some(source), Some(target)) = (parts.next(), parts.next()) else { return };
            let read_only = parts.next().is_some_and(|mode| mode.split(',').any(|m| m == "ro"));
            (source, target, read_only)
        }
        None => {
            if field("type") != Some("bind") {
                return;
            }
            let (Some(source), Some(target)) = (field("source"), field("target")) else { return };
            (source.to_owned(), target.to_owned(), field("read_only") == Some("true"))
        }
    };
    if read_only {
        return;
    }
    let Some(source) = without_variables(&source) else {
        out.unresolved.push((service.to_owned(), source));
        return;
    };
    // A name without a slash is a volume that Docker keeps elsewhere.
    if !source.starts_with(['.', '/']) && doc.text(node).is_some() {
        return;
    }
    if let Some(source) = stand.below(&source) {
        out.written.push(Mount { service: service.to_owned(), source, target });
    }
}

/// `SOURCE:TARGET:MODE` at its colons, but not at those within `${…:-…}`.
fn split_short(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut braces = 0_usize;
    for c in text.chars() {
        match c {
            '{' => braces += 1,
            '}' => braces = braces.saturating_sub(1),
            ':' if braces == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(last) = parts.last_mut() {
            last.push(c);
        }
    }
    parts
}

/// The text with every `${NAME:-default}` replaced by its default; `None` where
/// a variable has none.
fn without_variables(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (inside, tail) = after.strip_prefix('{')?.split_once('}')?;
        let default = inside.split_once(":-").or_else(|| inside.split_once('-'))?.1;
        if default.contains('$') {
            return None;
        }
        out.push_str(default);
        rest = tail;
    }
    out.push_str(rest);
    Some(out)
}

/// `env_file` as text, as a list of text, or as a list of maps with `path`.
fn env_files(doc: &Document, service: Node) -> Vec<String> {
    let Some(node) = doc.get(service, "env_file") else { return Vec::new() };
    let one =
        |n: Node| doc.text(n).or_else(|| doc.get(n, "path").and_then(|p| doc.text(p))).map(str::to_owned);
    match doc.list(node) {
        [] => one(node).into_iter().collect(),
        items => items.iter().filter_map(|n| one(*n)).collect(),
    }
}

impl Stand<'_> {
    /// A path as the compose file writes it, if it lies below the root.
    fn below(self, path: &str) -> Option<RelPath> {
        let mut parts: Vec<&[u8]> = Vec::new();
        let relative = if path.starts_with('/') {
            Path::new(path).strip_prefix(self.root).ok()?.as_os_str().as_bytes()
        } else if path.starts_with('~') || path.contains('$') {
            return None;
        } else {
            parts.extend(self.directory.as_bytes().split(|&b| b == b'/').filter(|p| !p.is_empty()));
            path.as_bytes()
        };
        for part in relative.split(|&b| b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop()?;
                }
                name => parts.push(name),
            }
        }
        RelPath::from_bytes(&parts.join(&b'/')).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str, directory: &str) -> Result<Compose, String> {
        let directory = RelPath::from_text(directory).unwrap_or_default();
        read(text, Stand { root: Path::new("/srv/app"), directory: &directory })
    }

    fn written(text: &str) -> Vec<String> {
        let c = at(text, "deploy").unwrap();
        c.written.iter().map(|m| format!("{} {} {}", m.service, m.source, m.target)).collect()
    }

    #[test]
    fn short_and_long_volumes() {
        let text = r#"
x-logs: &logs
  volumes: ["./logs:/var/log/app"]
services:
  db:
    image: postgres
    volumes:
      - ../data/db:/var/lib/postgresql/data
      - named:/x
      - ./conf:/etc/postgresql:ro
      - ./z:/z:ro,z
      - ./rw:/rw:rw
      - /srv/elsewhere:/x
      - /srv/app/deploy/absolute:/x
      - /srv/application:/x
      - ~/home:/x
      - ../../outside:/x
      - ${DATA:-./default}/x:/x
      - ${DATA}:/x
      - /anonymous
      - 5
      - null
      - [a, b]
  app:
    volumes:
      - type: bind
        source: ./media
        target: /app/media
      - type: bind
        source: ./static
        target: /app/static
        read_only: true
      - type: volume
        source: named
        target: /x
      - type: bind
        source: plain
        target: /plain
  worker:
    <<: *logs
  broken: 7
  volumes: {a: b}
"#;
        assert_eq!(
            written(text),
            [
                "app deploy/media /app/media",
                "app deploy/plain /plain",
                "db data/db /var/lib/postgresql/data",
                "db deploy/absolute /x",
                "db deploy/default/x /x",
                "db deploy/rw /rw",
                "worker deploy/logs /var/log/app",
            ]
        );
        let c = at(text, ".").unwrap();
        assert_eq!(c.unresolved, [("db".to_owned(), "${DATA}".to_owned())]);
        assert_eq!(c.services, 5);
    }

    #[test]
    fn secrets() {
        let text = "services:\n  a:\n    env_file: .env.prod\n  b:\n    env_file:\n      - ./b.env\n      - path: ../c.env\n        required: false\n      - /etc/d.env\nsecrets:\n  s:\n    file: secrets/s.txt\n  t:\n    external: true\n";
        let c = at(text, "x").unwrap();
        let paths: Vec<_> = c.secrets.iter().map(ToString::to_string).collect();
        assert_eq!(paths, ["c.env", "x/.env.prod", "x/b.env", "x/secrets/s.txt"]);
    }

    #[test]
    fn what_is_no_compose_file() {
        for text in ["", "[]", "5", "services: 5", "services: [a]", "services: {a: }", "a: &a {services: *a}"]
        {
            assert!(written(text).is_empty(), "{text}");
        }
        assert!(at("services: {", ".").is_err());
    }

    proptest! {
        #[test]
        fn never_panics(volume: String, directory in "[a-z/.]{0,10}") {
            let quoted = volume.replace('\'', "''");
            let text = format!("services:\n  a:\n    env_file: '{quoted}'\n    volumes:\n      - '{quoted}'\n");
            drop(at(&text, &directory));
        }
    }
}
