//! Which paths of an environment are protected.
//!
//! Patterns are relative to the root. One with a slash inside is anchored there;
//! a bare name matches at any depth; a trailing slash demands a directory. A
//! pattern that matches a directory covers everything below it. `*` and `?` do
//! not cross a slash, `**` does. Order of strength: `writable`, then
//! `sensitive`, then `ignore`, then `protect`.

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::path::RelPath;

/// The patterns as written, which is also the form that a lock signs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PatternText {
    /// Empty means everything.
    pub protect: Vec<String>,
    /// Left alone.
    pub ignore: Vec<String>,
    /// Neither compared nor sealed, but for the directory's own identity.
    pub writable: Vec<String>,
    /// Protected with more care; implies protection.
    pub sensitive: Vec<String>,
    /// Protected without being asked for, unless `ignore` says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub implied: Vec<String>,
}

/// What of a git repository at the root decides which code it has, and what runs there.
pub const OF_A_REPOSITORY: [&str; 6] =
    [".git/HEAD", ".git/refs/", ".git/packed-refs", ".git/reftable/", ".git/config", ".git/hooks/"];

impl PatternText {
    /// True where somebody wrote the same: what is implied differs between versions of guardd.
    #[must_use]
    pub fn is_written_like(&self, other: &Self) -> bool {
        (&self.protect, &self.ignore, &self.writable, &self.sensitive)
            == (&other.protect, &other.ignore, &other.writable, &other.sensitive)
    }
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing written.
    #[error("the pattern is empty")]
    Empty,
    /// Starts with `!`.
    #[error("negated patterns are not supported; name what is meant instead")]
    Negated,
    /// Leads out of the root.
    #[error("the pattern has an empty component, `.` or `..`; write it relative to the root")]
    Component,
    /// Not a glob.
    #[error("not a pattern: {0}")]
    Glob(String),
}

/// What a policy says of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Compared, hashed and sealed.
    Protected {
        /// Matches `sensitive`.
        sensitive: bool,
    },
    /// A `writable` path's own top directory: its identity, mode and owner are compared.
    WritableTop,
    /// Below a writable directory (or a writable file): not compared.
    Writable,
    /// Matches `ignore`: not compared, but a sensitive entry may lie below.
    Ignored,
    /// Covered by no `protect` pattern, but something protected may lie below.
    Unprotected,
}

impl Class {
    /// Compared and hashed.
    #[must_use]
    pub fn is_protected(self) -> bool {
        matches!(self, Self::Protected { .. })
    }

    /// Matches `sensitive`.
    #[must_use]
    pub fn is_sensitive(self) -> bool {
        matches!(self, Self::Protected { sensitive: true })
    }
}

#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    directory_only: bool,
    /// Matched against the whole relative path, or against the name alone.
    anchored: bool,
    matcher: GlobMatcher,
    /// For anchored patterns: a matcher for each leading part, to know where to descend.
    prefixes: Vec<GlobMatcher>,
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() || text == "/" {
            return Err(PatternError::Empty);
        }
        if text.starts_with('!') {
            return Err(PatternError::Negated);
        }
        let body = text.strip_prefix('/').unwrap_or(text);
        let core = body.strip_suffix('/').unwrap_or(body);
        if core.split('/').any(|c| matches!(c, "" | "." | "..")) {
            return Err(PatternError::Component);
        }
        let anchored = text.starts_with('/') || core.contains('/');
        let mut prefixes = Vec::new();
        if anchored {
            for (at, _) in core.match_indices('/') {
                prefixes.push(glob(core.get(..at).unwrap_or_default())?);
            }
        }
        Ok(Self {
            text: text.to_owned(),
            directory_only: body.ends_with('/'),
            anchored,
            matcher: glob(core)?,
            prefixes,
        })
    }

    fn matches(&self, path: &RelPath, is_dir: bool) -> bool {
        if self.directory_only && !is_dir {
            return false;
        }
        let subject = if self.anchored { path.as_bytes() } else { path.name() };
        self.matcher.is_match(os(subject))
    }

    /// Could something below this directory match, though the directory does not?
    fn may_match_below(&self, dir: &RelPath) -> bool {
        if !self.anchored || dir.is_root() || self.text.contains("**") {
            return true;
        }
        let depth = dir.as_bytes().split(|&b| b == b'/').count();
        depth
            .checked_sub(1)
            .and_then(|i| self.prefixes.get(i))
            .is_some_and(|m| m.is_match(os(dir.as_bytes())))
    }
}

fn glob(text: &str) -> Result<GlobMatcher, PatternError> {
    GlobBuilder::new(text)
        .literal_separator(true)
        .backslash_escape(true)
        .build()
        .map(|g| g.compile_matcher())
        .map_err(|e| PatternError::Glob(e.kind().to_string()))
}

fn os(bytes: &[u8]) -> &std::path::Path {
    use std::os::unix::ffi::OsStrExt;
    std::path::Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// A compiled policy: decides the [`Class`] of any path. The default, without
/// any pattern, protects everything.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    text: PatternText,
    protect: Vec<Pattern>,
    ignore: Vec<Pattern>,
    writable: Vec<Pattern>,
    sensitive: Vec<Pattern>,
    implied: Vec<Pattern>,
}

impl Policy {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// Every bad pattern with the list it stands in, its index there and why.
    pub fn new(text: PatternText) -> Result<Self, Vec<(&'static str, usize, PatternError)>> {
        let mut bad = Vec::new();
        let mut list = |name: &'static str, texts: &[String]| {
            let mut out = Vec::new();
            for (i, t) in texts.iter().enumerate() {
                match Pattern::parse(t) {
                    Ok(p) => out.push(p),
                    Err(e) => bad.push((name, i, e)),
                }
            }
            out
        };
        let protect = list("protect", &text.protect);
        let ignore = list("ignore", &text.ignore);
        let writable = list("writable", &text.writable);
        let sensitive = list("sensitive", &text.sensitive);
        let implied = list("implied", &text.implied);
        if bad.is_empty() {
            Ok(Self { text, protect, ignore, writable, sensitive, implied })
        } else {
            Err(bad)
        }
    }

    /// The patterns as written.
    #[must_use]
    pub fn text(&self) -> &PatternText {
        &self.text
    }

    /// The class of the root itself.
    #[must_use]
    pub fn root_class(&self) -> Class {
        if self.protect.is_empty() { Class::Protected { sensitive: false } } else { Class::Unprotected }
    }

    /// The class of `path`, whose parent directory has class `parent`.
    #[must_use]
    pub fn child(&self, parent: Class, path: &RelPath, is_dir: bool) -> Class {
        let hit = |list: &[Pattern]| list.iter().any(|p| p.matches(path, is_dir));
        match parent {
            Class::Writable | Class::WritableTop => return Class::Writable,
            Class::Protected { sensitive: true } if !hit(&self.writable) => {
                return Class::Protected { sensitive: true };
            }
            _ => {}
        }
        if hit(&self.writable) {
            return if is_dir { Class::WritableTop } else { Class::Writable };
        }
        if hit(&self.sensitive) {
            return Class::Protected { sensitive: true };
        }
        if parent == Class::Ignored || hit(&self.ignore) {
            return Class::Ignored;
        }
        if parent.is_protected() || hit(&self.protect) || hit(&self.implied) {
            return Class::Protected { sensitive: false };
        }
        Class::Unprotected
    }

    /// The class of `path`, deciding every directory above it in turn.
    #[must_use]
    pub fn classify(&self, path: &RelPath, is_dir: bool) -> Class {
        let mut class = self.root_class();
        for dir in path.ancestors_from_root().skip(1) {
            class = self.child(class, &dir, true);
        }
        if path.is_root() { class } else { self.child(class, path, is_dir) }
    }

    /// Must a walk go into this directory of class `class`?
    #[must_use]
    pub fn descends(&self, dir: &RelPath, class: Class) -> bool {
        let below = |list: &[Pattern]| list.iter().any(|p| p.may_match_below(dir));
        match class {
            Class::Protected { .. } => true,
            Class::Writable | Class::WritableTop => false,
            Class::Ignored => below(&self.sensitive),
            Class::Unprotected => below(&self.protect) || below(&self.sensitive) || below(&self.implied),
        }
    }

    /// The indices of patterns that `path` matches by itself, as (list, index):
    /// what a literal that never comes up matched nothing.
    pub fn hits(&self, path: &RelPath, is_dir: bool) -> impl Iterator<Item = (&'static str, usize)> + '_ {
        let path = path.clone();
        [
            ("protect", &self.protect),
            ("ignore", &self.ignore),
            ("writable", &self.writable),
            ("sensitive", &self.sensitive),
        ]
        .into_iter()
        .flat_map(|(name, list)| list.iter().enumerate().map(move |(i, p)| (name, i, p)))
        .filter(move |(_, _, p)| p.matches(&path, is_dir))
        .map(|(name, i, _)| (name, i))
    }

    /// The `protect`, `writable` and `sensitive` patterns without glob characters:
    /// those of which a user expects that something is there.
    pub fn literals(&self) -> impl Iterator<Item = (&'static str, usize, &str)> {
        [("protect", &self.protect), ("writable", &self.writable), ("sensitive", &self.sensitive)]
            .into_iter()
            .flat_map(|(name, list)| list.iter().enumerate().map(move |(i, p)| (name, i, p.text.as_str())))
            .filter(|(_, _, text)| !text.contains(['*', '?', '[', '{']))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(protect: &[&str], ignore: &[&str], writable: &[&str], sensitive: &[&str]) -> Policy {
        let own = |l: &[&str]| l.iter().map(|&s| s.to_owned()).collect();
        Policy::new(PatternText {
            protect: own(protect),
            ignore: own(ignore),
            writable: own(writable),
            sensitive: own(sensitive),
            implied: Vec::new(),
        })
        .unwrap()
    }

    #[test]
    fn what_is_implied_yields_to_ignore_alone() {
        let own = |l: &[&str]| l.iter().map(|&s| s.to_owned()).collect::<Vec<_>>();
        let text = PatternText {
            protect: own(&["app/"]),
            ignore: own(&[".git/refs/remotes/"]),
            implied: own(&OF_A_REPOSITORY),
            ..PatternText::default()
        };
        let p = Policy::new(text.clone()).unwrap();
        for path in
            [".git/HEAD", ".git/refs/heads/main", ".git/packed-refs", ".git/hooks/pre-commit", ".git/config"]
        {
            assert_eq!(class(&p, path), PLAIN, "{path}");
        }
        assert_eq!(class(&p, ".git/refs/remotes/origin/main"), Class::Ignored);
        assert_eq!(class(&p, ".git/index"), Class::Unprotected);
        assert_eq!(class(&p, "sub/.git/HEAD"), Class::Unprotected);
        assert!(p.descends(&RelPath::from_text(".git").unwrap(), Class::Unprotected));
        assert_eq!(p.literals().count(), 1, "nobody expects that it is there");
        let before = PatternText { implied: Vec::new(), ..text.clone() };
        assert!(text.is_written_like(&before) && text != before);
        assert_eq!(
            serde_json::from_str::<PatternText>(&serde_json::to_string(&before).unwrap()).unwrap(),
            before
        );
    }

    fn class(p: &Policy, path: &str) -> Class {
        let is_dir = path.ends_with('/');
        p.classify(&RelPath::from_text(path.trim_end_matches('/')).unwrap(), is_dir)
    }

    const PLAIN: Class = Class::Protected { sensitive: false };
    const SENSITIVE: Class = Class::Protected { sensitive: true };

    #[test]
    fn default_protects_everything() {
        let p = policy(&[], &["__pycache__/", "*.pyc"], &["media/", "logs/"], &[".env*"]);
        assert_eq!(class(&p, "a/b.py"), PLAIN);
        assert_eq!(class(&p, "a/b.pyc"), Class::Ignored);
        assert_eq!(class(&p, "a/__pycache__/x"), Class::Ignored);
        assert_eq!(class(&p, "a/__pycache__"), PLAIN); // a file of that name
        assert_eq!(class(&p, "media/"), Class::WritableTop);
        assert_eq!(class(&p, "media/up/load"), Class::Writable);
        assert_eq!(class(&p, ".env.prod"), SENSITIVE);
        assert_eq!(class(&p, "a/__pycache__/.env"), SENSITIVE);
    }

    #[test]
    fn anchored_and_bare() {
        let p = policy(&["backend/app/", "docker-compose.yml", "/scripts/", "conf/*/x.toml"], &[], &[], &[]);
        assert_eq!(class(&p, "backend/app/main.py"), PLAIN);
        assert_eq!(class(&p, "x/backend/app/main.py"), Class::Unprotected);
        assert_eq!(class(&p, "sub/docker-compose.yml"), PLAIN);
        assert_eq!(class(&p, "scripts/a.sh"), PLAIN);
        assert_eq!(class(&p, "x/scripts/a.sh"), Class::Unprotected);
        assert_eq!(class(&p, "conf/a/x.toml"), PLAIN);
        assert_eq!(class(&p, "conf/a/b/x.toml"), Class::Unprotected);
    }

    #[test]
    fn walks_only_where_something_may_be() {
        let p = policy(&["backend/app/", "conf/*/x.toml"], &[], &[], &[]);
        let descends = |d: &str| {
            let d = RelPath::from_text(d).unwrap();
            p.descends(&d, p.classify(&d, true))
        };
        assert!(descends("."));
        assert!(descends("backend"));
        assert!(descends("backend/app/sub"));
        assert!(!descends("frontend"));
        assert!(descends("conf/any"));
        assert!(!descends("conf/any/deeper"));
    }

    #[test]
    fn bad_patterns_are_all_named() {
        let text = PatternText {
            protect: vec!["".into(), "ok".into(), "!no".into()],
            ignore: vec!["../x".into(), "[".into()],
            ..PatternText::default()
        };
        let bad = Policy::new(text).unwrap_err();
        let places: Vec<_> = bad.iter().map(|(l, i, _)| (*l, *i)).collect();
        assert_eq!(places, [("protect", 0), ("protect", 2), ("ignore", 0), ("ignore", 1)]);
    }

    #[test]
    fn names_that_are_not_text_match_too() {
        let p = policy(&[], &["*.pyc"], &[], &[]);
        let path = RelPath::from_bytes(b"\xff\n.pyc").unwrap();
        assert_eq!(p.classify(&path, false), Class::Ignored);
    }
}
