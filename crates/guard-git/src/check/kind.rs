//! What a file is, by its name, and by its first line where the name says nothing.

/// How a file's syntax is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// RFC 8259.
    Json,
    /// JSON with comments, as editors and TypeScript read it.
    JsonWithComments,
    /// One JSON value a line.
    JsonLines,
    /// YAML.
    Yaml,
    /// A compose file.
    Compose,
    /// TOML.
    Toml,
    /// `.env` files.
    Dotenv,
    /// Python.
    Python,
    /// JavaScript, of either kind of module.
    JavaScript,
    /// For bash.
    Bash,
    /// For a POSIX shell.
    Sh,
    /// PHP.
    Php,
    /// nginx's configuration.
    Nginx,
    /// A language for which there is no parser here.
    Unparsed(&'static str),
    /// Nothing that has a syntax to check.
    Other,
}

impl Kind {
    /// By name and first bytes.
    #[must_use]
    pub fn of(path: &[u8], content: &[u8]) -> Self {
        let name = path.rsplit(|&b| b == b'/').next().unwrap_or(path).to_ascii_lowercase();
        let directory = path.get(..path.len() - name.len()).unwrap_or_default();
        let name = String::from_utf8_lossy(&name).into_owned();
        let name = name.as_str();
        if is_dotenv(name) {
            return Self::Dotenv;
        }
        let extension = name.rsplit_once('.').map_or("", |(_, e)| e);
        let is_compose = |stem: &str| {
            stem == "compose"
                || stem.starts_with("compose.")
                || stem.starts_with("compose-")
                || stem.starts_with("docker-compose")
        };
        match extension {
            "yml" | "yaml" if is_compose(name.trim_end_matches(".yml").trim_end_matches(".yaml")) => {
                Self::Compose
            }
            "yml" | "yaml" => Self::Yaml,
            "jsonc" | "code-workspace" => Self::JsonWithComments,
            "json" if has_comments(name, directory) => Self::JsonWithComments,
            "json" | "webmanifest" | "geojson" | "map" => Self::Json,
            "jsonl" | "ndjson" => Self::JsonLines,
            "toml" => Self::Toml,
            "lock" if matches!(name, "cargo.lock" | "poetry.lock" | "uv.lock") => Self::Toml,
            "py" | "pyi" => Self::Python,
            "js" | "mjs" | "cjs" => Self::JavaScript,
            "bash" => Self::Bash,
            "sh" => Self::by_first_line(content).or(Self::Sh),
            "php" | "phtml" => Self::Php,
            "conf" if name.contains("nginx") || contains(directory, b"nginx") => Self::Nginx,
            "ts" | "mts" | "cts" | "tsx" => Self::Unparsed("TypeScript"),
            "jsx" => Self::Unparsed("JSX"),
            "vue" => Self::Unparsed("Vue"),
            "svelte" => Self::Unparsed("Svelte"),
            "rb" => Self::Unparsed("Ruby"),
            "go" => Self::Unparsed("Go"),
            "rs" => Self::Unparsed("Rust"),
            "java" => Self::Unparsed("Java"),
            "sql" => Self::Unparsed("SQL"),
            "css" | "scss" | "less" => Self::Unparsed("CSS"),
            "html" | "htm" => Self::Unparsed("HTML"),
            "xml" | "svg" => Self::Unparsed("XML"),
            "ini" | "cfg" => Self::Unparsed("INI"),
            "tf" | "hcl" => Self::Unparsed("HCL"),
            "" | "in" => Self::by_first_line(content),
            _ => Self::Other,
        }
    }

    fn by_first_line(content: &[u8]) -> Self {
        let Some(rest) = content.strip_prefix(b"#!") else { return Self::Other };
        let line = rest.split(|&b| b == b'\n').next().unwrap_or_default();
        let mut words = line.split(|b| b.is_ascii_whitespace()).filter(|w| !w.is_empty());
        let program = words.next().and_then(|w| w.rsplit(|&b| b == b'/').next()).unwrap_or_default();
        let program = match program {
            b"env" => words.find(|w| !w.starts_with(b"-")).unwrap_or_default(),
            other => other,
        };
        match program {
            b"bash" => Self::Bash,
            b"sh" | b"dash" => Self::Sh,
            b"node" | b"nodejs" => Self::JavaScript,
            b"php" => Self::Php,
            p if p.starts_with(b"python") => Self::Python,
            _ => Self::Other,
        }
    }

    fn or(self, other: Self) -> Self {
        if self == Self::Other { other } else { self }
    }
}

/// `.env`, `.env.production`, `production.env`; not directories' names, and not templates' endings.
#[must_use]
pub fn is_dotenv(name: &str) -> bool {
    (name == ".env" || name.starts_with(".env.") || name.starts_with(".env-") || name.ends_with(".env"))
        && !name.ends_with(".py")
        && !name.ends_with(".js")
        && !name.ends_with(".ts")
        && !name.ends_with(".sh")
        && !name.ends_with(".d")
}

/// `.env.example` and its kin: meant to be in the repository, without values.
#[must_use]
pub fn is_template(name: &str) -> bool {
    let words = ["example", "sample", "template", "dist", "defaults", "tmpl", "tpl"];
    name.to_ascii_lowercase().split(['.', '-', '_']).any(|part| words.contains(&part))
}

fn has_comments(name: &str, directory: &[u8]) -> bool {
    name.starts_with("tsconfig")
        || name.starts_with("jsconfig")
        || name == "devcontainer.json"
        || name == ".eslintrc.json"
        || name == "api-extractor.json"
        || contains(directory, b".vscode/")
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|w| w.eq_ignore_ascii_case(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_it() {
        let rows: [(&str, Kind); 20] = [
            ("a/package.json", Kind::Json),
            ("tsconfig.base.json", Kind::JsonWithComments),
            (".vscode/settings.json", Kind::JsonWithComments),
            ("docker-compose.prod.yml", Kind::Compose),
            ("deploy/compose.yaml", Kind::Compose),
            ("composer.yaml", Kind::Yaml),
            (".github/workflows/ci.yml", Kind::Yaml),
            ("pyproject.toml", Kind::Toml),
            (".env", Kind::Dotenv),
            ("scrapers/x/.env.prod", Kind::Dotenv),
            ("prod.env", Kind::Dotenv),
            ("environment.py", Kind::Python),
            (".env.py", Kind::Python),
            ("A.PY", Kind::Python),
            ("x.mjs", Kind::JavaScript),
            ("nginx/sites/app.conf", Kind::Nginx),
            ("app.conf", Kind::Other),
            ("src/App.tsx", Kind::Unparsed("TypeScript")),
            ("logo.png", Kind::Other),
            ("README", Kind::Other),
        ];
        for (path, kind) in rows {
            assert_eq!(Kind::of(path.as_bytes(), b""), kind, "{path}");
        }
    }

    #[test]
    fn the_first_line_says_it_where_the_name_does_not() {
        assert_eq!(Kind::of(b"bin/run", b"#!/usr/bin/env -S python3 -u\n"), Kind::Python);
        assert_eq!(Kind::of(b"bin/run", b"#! /bin/bash -e\n"), Kind::Bash);
        assert_eq!(Kind::of(b"run.sh", b"#!/bin/bash\n"), Kind::Bash);
        assert_eq!(Kind::of(b"run.sh", b"echo\n"), Kind::Sh);
        assert_eq!(Kind::of(b"\xff", b"#!/bin/sh\n"), Kind::Sh);
        assert_eq!(Kind::of(b"\xff.json", b""), Kind::Json);
    }

    #[test]
    fn templates_are_known() {
        for name in [".env.example", "env.sample.env", ".env.prod.dist", ".env-template"] {
            assert!(is_template(name), "{name}");
        }
        assert!(!is_template(".env.prod"));
    }
}
