//! What a difference in the git repository at the root means: which branch
//! moved, from which commit to which.
//!
//! The baseline keeps digests, not contents. The commit that a branch stood on is
//! therefore looked for among those that the repository's own logs name, and
//! told as a fact only where the file made from it has the baseline's digest:
//! logs are written by whoever writes the repository, the digest is not.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use guard_model::path::escape;
use guard_model::{Digest, Finding};
use guard_sys::open::{How, Resolver, absolute};
use sha2::Digest as _;

/// References are a line; logs are read at their end.
const MOST: u64 = 1024 * 1024;

/// What the finding means; `None` where it is not about a repository's references, settings or hooks.
pub(super) fn meaning(root: &Path, finding: &Finding) -> Option<String> {
    let inside = finding.path.strip_prefix(".git/")?;
    if inside == "config" {
        return Some(
            "git's settings changed here: they name programs that git runs, and where it looks for hooks"
                .to_owned(),
        );
    }
    if let Some(hook) = inside.strip_prefix("hooks/") {
        return Some(format!("git runs another {hook} here, or none"));
    }
    let repository = Repository { root };
    match inside {
        "HEAD" => Some(repository.head(finding)),
        "packed-refs" => repository.packed(),
        _ => Some(repository.branch(inside.strip_prefix("refs/")?, finding)),
    }
}

struct Repository<'a> {
    root: &'a Path,
}

impl Repository<'_> {
    /// A file of the repository, read beneath the root. What cannot be read tells nothing.
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        let root = absolute(self.root, How::LocateDirectory).ok()?;
        let handle = Resolver::detect().open(root.as_fd(), &Path::new(".git").join(name), How::Read).ok()?;
        let file = File::from(handle);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// `refs/NAME` is another one now.
    fn branch(&self, name: &str, finding: &Finding) -> String {
        let shown = match name.strip_prefix("heads/") {
            Some(branch) => format!("branch {branch}"),
            None => format!("reference {name}"),
        };
        let log = self.read(&format!("logs/refs/{name}")).unwrap_or_default();
        let ids = self.known_ids(&log);
        let before = finding.before.as_ref().and_then(|e| e.sha256);
        let old = before
            .and_then(|digest| ids.iter().find(|id| sha256(&[id.as_bytes(), b"\n"].concat()) == digest));
        let from = match (old, before) {
            (Some(id), _) => format!(" from {id}"),
            (None, Some(_)) => " from a commit that no log names".to_owned(),
            (None, None) => String::new(),
        };
        let now = self.read(&format!("refs/{name}")).map(|text| escape(text.trim_ascii()));
        let moved = match (&finding.before, now) {
            (_, None) => format!("{shown} is gone{from}, or in packed-refs alone"),
            (None, Some(id)) => format!("{shown} is new, at {id}"),
            (Some(_), Some(id)) => format!("{shown} moved{from} to {id}"),
        };
        match last_entry(&log) {
            Some((id, said))
                if self.read(&format!("refs/{name}")).is_some_and(|t| t.starts_with(id.as_bytes())) =>
            {
                format!("{moved}; git's log says by {said}")
            }
            _ => format!("{moved}; git's log does not say how"),
        }
    }

    fn head(&self, finding: &Finding) -> String {
        let log = self.read("logs/HEAD").unwrap_or_default();
        let before = finding.before.as_ref().and_then(|e| e.sha256);
        // `checkout: moving from A to B`
        let names = log.split(|b| b.is_ascii_whitespace()).filter_map(|w| std::str::from_utf8(w).ok());
        let old = before.and_then(|digest| {
            names
                .chain(["main", "master", "production"])
                .find(|n| sha256(format!("ref: refs/heads/{n}\n").as_bytes()) == digest)
                .map(|n| format!(" from branch {}", escape(n.as_bytes())))
        });
        let from = old.unwrap_or_default();
        let now = self.read("HEAD").unwrap_or_default();
        match now.trim_ascii().strip_prefix(b"ref: refs/heads/") {
            Some(branch) => format!("HEAD went{from} to branch {}", escape(branch)),
            None if now.is_empty() => format!("HEAD went{from}, and cannot be read"),
            None => format!("HEAD went{from} to commit {}", escape(now.trim_ascii())),
        }
    }

    /// A reference in `packed-refs` that is not where its log left it.
    fn packed(&self) -> Option<String> {
        let text = self.read("packed-refs")?;
        let mut moved = Vec::new();
        for line in text.split(|&b| b == b'\n').filter(|l| !l.starts_with(b"#") && !l.starts_with(b"^")) {
            let line = String::from_utf8_lossy(line).into_owned();
            let Some((id, name)) = line.split_once(' ') else { continue };
            // Its own file wins over the packed line.
            if name.contains("..") || self.read(name).is_some() {
                continue;
            }
            let log = self.read(&format!("logs/{name}")).unwrap_or_default();
            if let Some((last, _)) = last_entry(&log).filter(|(last, _)| last != id) {
                let shown = escape(name.trim_start_matches("refs/heads/").as_bytes());
                moved.push(format!(
                    "branch {shown} moved from {} (its log's last) to {}",
                    escape(last.as_bytes()),
                    escape(id.as_bytes())
                ));
            }
        }
        Some(if moved.is_empty() {
            "no branch stands elsewhere than its log says".to_owned()
        } else {
            moved.join("; ")
        })
    }

    /// Every commit that the repository's logs name for a reference, the last first.
    fn known_ids(&self, log: &[u8]) -> Vec<String> {
        let more =
            ["logs/HEAD", "ORIG_HEAD", "FETCH_HEAD", "packed-refs"].map(|n| self.read(n).unwrap_or_default());
        let mut found: Vec<String> = Vec::new();
        for text in std::iter::once(log).chain(more.iter().map(Vec::as_slice)) {
            let words = text.split(|b| b.is_ascii_whitespace()).filter(|w| is_id(w));
            found.extend(words.map(|w| String::from_utf8_lossy(w).into_owned()));
        }
        found.reverse();
        found.dedup();
        found
    }
}

/// The commit and the words of a log's last line: `OLD NEW NAME <MAIL> TIME ZONE\tWHAT`.
fn last_entry(log: &[u8]) -> Option<(String, String)> {
    let line = log.trim_ascii_end().rsplit(|&b| b == b'\n').next()?;
    let id = line.split(|&b| b == b' ').nth(1).filter(|w| is_id(w))?;
    let (who, what) = line.iter().position(|&b| b == b'\t').map(|at| line.split_at(at))?;
    let name = who.get(id.len() * 2 + 2..)?.split(|&b| b == b'>').next()?;
    Some((
        String::from_utf8_lossy(id).into_owned(),
        format!("{}>: {}", escape(name), escape(what.trim_ascii())),
    ))
}

fn is_id(word: &[u8]) -> bool {
    matches!(word.len(), 40 | 64) && word.iter().all(u8::is_ascii_hexdigit)
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}
