//! What is looked at: the blobs that are staged, of a commit, or of a range of
//! commits. Never the work tree, which may say something else.

use std::io::{BufRead, BufReader, Read};

use crate::error::GitError;
use crate::git::Git;

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// What a commit would change now: index against HEAD.
    Staged,
    /// Every file of a commit.
    Commit(String),
    /// What changed between two commits, and for secrets also what came and went in between.
    Range(String, String),
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob {
    /// Relative to the top of the repository.
    pub path: Vec<u8>,
    /// Git's mode: `100644`, `100755`, `120000`.
    pub mode: Vec<u8>,
    /// Its object.
    pub id: String,
    /// What it replaces.
    pub before: Option<String>,
    /// False for what a later commit of the range took away again.
    pub stays: bool,
}

/// Bytes of a blob, or why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content<'a> {
    /// All of it.
    Bytes(&'a [u8]),
    /// It is longer than what is looked at.
    TooLong(u64),
    /// The repository does not have it (a partial clone, a damaged one).
    Missing,
}

/// Longest blob that is looked at.
pub const LONGEST: u64 = 8 * 1024 * 1024;

/// The files to look at, by path.
///
/// # Errors
/// [`GitError`]; where a commit does not exist, too.
pub fn list(git: &Git, selection: &Selection) -> Result<Vec<Blob>, GitError> {
    match selection {
        Selection::Staged => {
            // Nothing was ever committed, as a rule, where that fails: then everything is new.
            let raw = match staged(git, "HEAD") {
                Ok(raw) => raw,
                Err(e) => match git.line(&["rev-parse", "-q", "--verify", "HEAD^{commit}"])? {
                    Some(_) => return Err(e),
                    None => staged(git, &text(git.output(&["hash-object", "-t", "tree", "/dev/null"])?))?,
                },
            };
            parse_raw(&raw, true)
        }
        Selection::Commit(name) => {
            let commit = resolve(git, name)?;
            let all = git.output(&["ls-tree", "-r", "-z", "--full-tree", &commit])?;
            all.split(|&b| b == 0)
                .filter(|l| !l.is_empty())
                .filter_map(|l| parse_tree(l).transpose())
                .collect()
        }
        Selection::Range(from, to) => {
            let (from, to) = (resolve(git, from)?, resolve(git, to)?);
            let raw = ["--raw", "-z", "--no-renames", "--no-abbrev", "--no-ext-diff"];
            let mut words = vec!["diff-tree", "-r"];
            words.extend(raw);
            words.extend([from.as_str(), to.as_str()]);
            let mut found = parse_raw(&git.output(&words)?, true)?;
            let range = format!("{from}..{to}");
            let mut words = vec!["log", "--format=", "-m"];
            words.extend(raw);
            words.push(&range);
            let known: std::collections::HashSet<String> = found.iter().map(|b| b.id.clone()).collect();
            let passing = parse_raw(&git.output(&words)?, false)?;
            found.extend(passing.into_iter().filter(|b| !known.contains(&b.id)));
            Ok(found)
        }
    }
}

/// The index against a tree.
fn staged(git: &Git, base: &str) -> Result<Vec<u8>, GitError> {
    let how = ["diff-index", "--cached", "--raw", "-z", "--no-renames", "--no-abbrev", "--no-ext-diff"];
    let mut words = how.to_vec();
    words.extend([base, "--"]);
    git.output(&words)
}

/// The files in the index whose name is that of a file of secrets, whether this commit changes them or not.
///
/// # Errors
/// [`GitError`]
pub fn tracked_env_files(git: &Git) -> Result<Vec<Blob>, GitError> {
    if git.index().is_some_and(|path| !crate::index::may_hold_env_files(&path)) {
        return Ok(Vec::new());
    }
    // Wider than what is meant, so that git gives few of them and `is_env_file` decides.
    let wide = [":(top,icase,glob)**/.env*", ":(top,icase,glob)**/*.env"];
    let listed = git.output(&["ls-files", "-s", "-z", "--full-name", "--", wide[0], wide[1]])?;
    let mut found = Vec::new();
    for line in listed.split(|&b| b == 0).filter(|l| !l.is_empty()) {
        let at = line.iter().position(|&b| b == b'\t').ok_or(ODD)?;
        let (head, path) = (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default());
        let words: Vec<&[u8]> = head.split(|&b| b == b' ').collect();
        let [mode, id, _stage] = words.as_slice() else { return Err(ODD) };
        if crate::secrets::is_env_file(path) && mode.starts_with(b"100") {
            let (mode, id) = (mode.to_vec(), text(id.to_vec()));
            found.push(Blob { path: path.to_vec(), mode, id, before: None, stays: true });
        }
    }
    Ok(found)
}

/// A commit's id.
fn resolve(git: &Git, name: &str) -> Result<String, GitError> {
    let commit = format!("{name}^{{commit}}");
    Ok(text(git.output(&["rev-parse", "--verify", "--end-of-options", &commit])?))
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(bytes.trim_ascii()).into_owned()
}

const ODD: GitError = GitError::Answer { command: "diff", what: "a line is not as documented" };

/// `:MODE MODE ID ID STATUS\0PATH\0` for each file.
fn parse_raw(raw: &[u8], stays: bool) -> Result<Vec<Blob>, GitError> {
    let mut found = Vec::new();
    let mut parts = raw.split(|&b| b == 0);
    while let Some(head) = parts.next() {
        let head = head.trim_ascii_start();
        if head.is_empty() {
            continue;
        }
        let path = parts.next().ok_or(ODD)?;
        let words: Vec<&[u8]> = head.strip_prefix(b":").ok_or(ODD)?.split(|&b| b == b' ').collect();
        let [_, mode, before, id, _] = words.as_slice() else { return Err(ODD) };
        // Deletions, and entries that are only meant to be added.
        if crate::transaction::is_zero(id) {
            continue;
        }
        let before = (!crate::transaction::is_zero(before)).then(|| text(before.to_vec()));
        found.push(Blob { path: path.to_vec(), mode: mode.to_vec(), id: text(id.to_vec()), before, stays });
    }
    Ok(found)
}

/// `MODE TYPE ID\tPATH`; `None` for a submodule.
fn parse_tree(line: &[u8]) -> Result<Option<Blob>, GitError> {
    let at = line.iter().position(|&b| b == b'\t').ok_or(ODD)?;
    let (head, path) = (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default());
    let words: Vec<&[u8]> = head.split(|&b| b == b' ').collect();
    let [mode, kind, id] = words.as_slice() else { return Err(ODD) };
    Ok((*kind == b"blob").then(|| Blob {
        path: path.to_vec(),
        mode: mode.to_vec(),
        id: text(id.to_vec()),
        before: None,
        stays: true,
    }))
}

/// Gives each blob's content, and that of what it replaces, one after the other.
///
/// # Errors
/// [`GitError`] where git ends in the middle.
pub fn read(
    git: &Git,
    blobs: &[Blob],
    mut each: impl FnMut(&Blob, Content<'_>, Content<'_>),
) -> Result<(), GitError> {
    let files: Vec<&Blob> = blobs.iter().filter(|b| b.mode != b"160000").collect();
    if files.is_empty() {
        return Ok(());
    }
    let mut questions = Vec::new();
    for blob in &files {
        for id in [Some(&blob.id), blob.before.as_ref()].into_iter().flatten() {
            questions.extend_from_slice(id.as_bytes());
            questions.push(b'\n');
        }
    }
    git.converse("cat-file", &["cat-file", "--batch", "--buffer"], questions, |output| {
        let mut output = BufReader::with_capacity(256 * 1024, output);
        let (mut new, mut old) = (Vec::new(), Vec::new());
        for blob in files {
            let now = answer(&mut output, &mut new)?;
            let before = match blob.before {
                Some(_) => answer(&mut output, &mut old)?,
                None => Answer::Missing,
            };
            each(blob, now.with(&new), before.with(&old));
        }
        Ok(())
    })
}

enum Answer {
    Bytes,
    TooLong(u64),
    Missing,
}

impl Answer {
    fn with(self, bytes: &[u8]) -> Content<'_> {
        match self {
            Self::Bytes => Content::Bytes(bytes),
            Self::TooLong(length) => Content::TooLong(length),
            Self::Missing => Content::Missing,
        }
    }
}

/// `ID TYPE SIZE\n`, the bytes, a newline; or `ID missing\n`.
fn answer(output: &mut impl BufRead, into: &mut Vec<u8>) -> Result<Answer, GitError> {
    const CUT: GitError = GitError::Answer { command: "cat-file", what: "it ended early" };
    let mut head = String::new();
    output.read_line(&mut head).map_err(|_| CUT)?;
    let words: Vec<&str> = head.split_whitespace().collect();
    let length = match words.as_slice() {
        [_, "missing"] => return Ok(Answer::Missing),
        [_, _, length] => length.parse::<u64>().map_err(|_| CUT)?,
        _ => return Err(CUT),
    };
    into.clear();
    let mut body = output.take(length + 1);
    if length > LONGEST {
        std::io::copy(&mut body, &mut std::io::sink()).map_err(|_| CUT)?;
        return Ok(Answer::TooLong(length));
    }
    body.read_to_end(into).map_err(|_| CUT)?;
    if into.pop().is_none() || into.len() as u64 != length {
        return Err(CUT);
    }
    Ok(Answer::Bytes)
}

/// One file of the selection by its path, where it is there.
#[must_use]
pub fn one(git: &Git, selection: &Selection, path: &[u8]) -> Option<Vec<u8>> {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let tree = match selection {
        Selection::Staged => "",
        Selection::Commit(name) | Selection::Range(_, name) => name,
    };
    let name = std::ffi::OsString::from_vec([tree.as_bytes(), b":", path].concat());
    git.output(&[std::ffi::OsStr::from_bytes(b"cat-file"), std::ffi::OsStr::from_bytes(b"blob"), &name]).ok()
}
