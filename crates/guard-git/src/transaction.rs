//! Which branches a reference transaction, or a push, would move.
//!
//! Git tells a hook what is to happen as lines `OLD NEW REF` (githooks(5)). An
//! all-zero OLD means "whatever it is now", so that only the repository itself
//! says whether anything changes.

use guard_model::path::escape;

use crate::error::GitError;

/// One line that git gives to reference-transaction or pre-receive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// Object id or `ref:…`; zeros for "none, or whatever it is".
    pub old: Vec<u8>,
    /// Object id or `ref:…`; zeros for a deletion.
    pub new: Vec<u8>,
    /// The reference.
    pub name: Vec<u8>,
}

/// What becomes of a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is made.
    Created,
    /// It comes to stand on another commit.
    Moved,
    /// It goes away.
    Deleted,
    /// It becomes another name of some other branch.
    Redirected,
}

/// What a repository says of a branch now.
pub trait Branches {
    /// The object id that it stands on, or `ref:…` where it is a symbolic reference.
    ///
    /// # Errors
    /// Where the repository cannot be asked: nothing may be concluded then.
    fn current(&self, name: &[u8]) -> Result<Option<Vec<u8>>, GitError>;
    /// True where git is only moving references into `packed-refs`, and this one is in there
    /// with that value already: its file goes away, the branch does not.
    ///
    /// # Errors
    /// As above.
    fn is_packed(&self, name: &[u8], value: &[u8]) -> Result<bool, GitError>;
}

impl Update {
    /// Reads a line without its newline.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let mut parts = line.splitn(3, |&b| b == b' ');
        let (old, new, name) = (parts.next()?, parts.next()?, parts.next()?);
        let name = name.trim_ascii_end();
        (!name.is_empty()).then(|| Self { old: old.to_vec(), new: new.to_vec(), name: name.to_vec() })
    }

    /// The branch that it is about, without `refs/heads/`.
    #[must_use]
    pub fn branch(&self) -> Option<&[u8]> {
        self.name.strip_prefix(b"refs/heads/").filter(|b| !b.is_empty())
    }

    /// What would become of the branch; `None` where it stays as it is.
    ///
    /// # Errors
    /// Where the repository cannot be asked.
    pub fn fate(&self, branches: &impl Branches) -> Result<Option<Fate>, GitError> {
        if self.old == self.new && !is_zero(&self.old) {
            return Ok(None);
        }
        let current = branches.current(&self.name)?;
        if is_zero(&self.new) {
            return Ok(match current {
                Some(value) if branches.is_packed(&self.name, &value)? => None,
                Some(_) => Some(Fate::Deleted),
                None => None,
            });
        }
        Ok(match current {
            Some(value) if value == self.new => None,
            _ if self.new.starts_with(b"ref:") => Some(Fate::Redirected),
            Some(_) => Some(Fate::Moved),
            None => Some(Fate::Created),
        })
    }

    /// `moved from 1a2b3c4 to 5d6e7f8`, for people.
    #[must_use]
    pub fn describe(&self, fate: Fate) -> String {
        let (old, new) = (short(&self.old), short(&self.new));
        match fate {
            Fate::Created => format!("would be created at {new}"),
            Fate::Deleted => "would be deleted".to_owned(),
            Fate::Redirected => format!("would become another name of {new}"),
            Fate::Moved if is_zero(&self.old) => format!("would be moved to {new}"),
            Fate::Moved => format!("would be moved from {old} to {new}"),
        }
    }
}

/// An object id of zeros only, in whatever hash.
#[must_use]
pub fn is_zero(id: &[u8]) -> bool {
    !id.is_empty() && id.iter().all(|&b| b == b'0')
}

/// An object id as people write it; a reference whole.
#[must_use]
pub fn short(id: &[u8]) -> String {
    match id.strip_prefix(b"ref:") {
        Some(name) => escape(name),
        None => escape(id.get(..12).unwrap_or(id)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZERO: &str = "0000000000000000000000000000000000000000";
    const A: &str = "70aa19d2867b93be7bed2f9825ebbd27c00b509f";
    const B: &str = "4067182de3823b4f735ed1e9a0adb6eb9e2b7df5";

    struct One {
        value: Option<&'static str>,
        packing: bool,
    }

    impl Branches for One {
        fn current(&self, _: &[u8]) -> Result<Option<Vec<u8>>, GitError> {
            Ok(self.value.map(|v| v.as_bytes().to_vec()))
        }
        fn is_packed(&self, _: &[u8], _: &[u8]) -> Result<bool, GitError> {
            Ok(self.packing)
        }
    }

    fn fate(old: &str, new: &str, value: Option<&'static str>) -> Option<Fate> {
        let update = Update::parse(format!("{old} {new} refs/heads/main").as_bytes()).unwrap();
        update.fate(&One { value, packing: false }).unwrap()
    }

    #[test]
    fn only_what_changes_a_branch_is_a_move() {
        assert_eq!(fate(A, A, Some(A)), None);
        assert_eq!(fate(ZERO, A, Some(A)), None);
        assert_eq!(fate(ZERO, A, Some(B)), Some(Fate::Moved));
        assert_eq!(fate(A, B, Some(A)), Some(Fate::Moved));
        assert_eq!(fate(ZERO, A, None), Some(Fate::Created));
        assert_eq!(fate(A, ZERO, Some(A)), Some(Fate::Deleted));
        assert_eq!(fate(ZERO, ZERO, Some(A)), Some(Fate::Deleted));
        assert_eq!(fate(ZERO, ZERO, None), None);
        assert_eq!(fate(ZERO, "ref:refs/heads/x", Some(A)), Some(Fate::Redirected));
        assert_eq!(fate(ZERO, "ref:refs/heads/x", Some("ref:refs/heads/x")), None);
    }

    #[test]
    fn packing_deletes_no_branch() {
        let update = Update::parse(format!("{A} {ZERO} refs/heads/main").as_bytes()).unwrap();
        assert_eq!(update.fate(&One { value: Some(A), packing: true }).unwrap(), None);
    }

    #[test]
    fn names_may_be_anything_but_nothing() {
        let update = Update::parse(b"a b refs/heads/\xff odd").unwrap();
        assert_eq!(update.branch(), Some(&b"\xff odd"[..]));
        assert_eq!(Update::parse(b"a b refs/tags/x").unwrap().branch(), None);
        for bad in [&b""[..], b"a", b"a b", b"a b "] {
            assert_eq!(Update::parse(bad), None);
        }
        assert_eq!(Update::parse(b"a b HEAD").unwrap().branch(), None);
    }

    #[test]
    fn it_is_told_in_words() {
        let told = |old: &str, new: &str, fate| {
            Update::parse(format!("{old} {new} refs/heads/main").as_bytes()).unwrap().describe(fate)
        };
        assert_eq!(told(A, B, Fate::Moved), "would be moved from 70aa19d2867b to 4067182de382");
        assert_eq!(told(ZERO, B, Fate::Moved), "would be moved to 4067182de382");
        assert_eq!(
            told(ZERO, "ref:refs/heads/x", Fate::Redirected),
            "would become another name of refs/heads/x"
        );
    }
}
