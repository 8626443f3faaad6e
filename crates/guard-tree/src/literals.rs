//! Patterns of which a user expects that something is there.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use guard_model::{Policy, RelPath};
use guard_sys::open::How;
use guard_sys::stat::{self, FileType};

use crate::Root;

/// The patterns without glob characters, and which of them something answers to. Anchored
/// ones are looked up at the end; bare names are looked for among the names of a walk.
#[derive(Debug, Default)]
pub(crate) struct Literals {
    all: Vec<Literal>,
    bare_left: bool,
}

#[derive(Debug)]
struct Literal {
    list: &'static str,
    text: String,
    /// Without the slashes at its ends and its escapes.
    core: Vec<u8>,
    directory_only: bool,
    anchored: bool,
    found: AtomicBool,
}

impl Literals {
    pub(crate) fn of(policy: &Policy) -> Self {
        let all: Vec<_> = policy.literals().map(|(list, _, text)| Literal::new(list, text)).collect();
        let bare_left = all.iter().any(|l| !l.anchored);
        Self { all, bare_left }
    }

    /// A walk came by `name`.
    pub(crate) fn note(&self, name: &[u8], is_dir: bool) {
        if !self.bare_left {
            return;
        }
        for literal in &self.all {
            if !literal.anchored && literal.core == name && (is_dir || !literal.directory_only) {
                literal.found.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Those that nothing answers to, as (list, pattern).
    pub(crate) fn unmatched(self, root: &Root) -> Vec<(String, String)> {
        self.all
            .into_iter()
            .filter(|l| if l.anchored { !l.is_there(root) } else { !l.found.load(Ordering::Relaxed) })
            .map(|l| (l.list.to_owned(), l.text))
            .collect()
    }
}

impl Literal {
    fn new(list: &'static str, text: &str) -> Self {
        let body = text.strip_prefix('/').unwrap_or(text);
        let core = body.strip_suffix('/').unwrap_or(body);
        Self {
            list,
            text: text.to_owned(),
            core: unescape(core.as_bytes()),
            directory_only: body.ends_with('/'),
            anchored: text.starts_with('/') || core.contains('/'),
            found: AtomicBool::new(false),
        }
    }

    fn is_there(&self, root: &Root) -> bool {
        let Ok(path) = RelPath::from_bytes(&self.core) else { return false };
        let Ok(handle) = root.open_beneath(&path, How::Locate) else { return false };
        let is_dir = stat::of(handle.as_fd()).is_ok_and(|s| s.kind == FileType::Directory);
        is_dir || !self.directory_only
    }
}

/// A backslash in a pattern stands for nothing but the byte after it.
fn unescape(pattern: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(pattern.len());
    let mut bytes = pattern.iter();
    while let Some(&b) = bytes.next() {
        match b {
            b'\\' => out.extend(bytes.next()),
            b => out.push(b),
        }
    }
    out
}
