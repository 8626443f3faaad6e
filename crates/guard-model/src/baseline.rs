//! What a baseline holds: records, totals, the signed manifest, the lock file.

use serde::{Deserialize, Serialize};

use crate::compare::{Change, compare};
use crate::entry::{Digest, Entry, Kind, Observed};
use crate::ledger::Head;
use crate::path::RelPath;
use crate::policy::PatternText;
use crate::seal::{IMMUTABLE, Seal, Skip, sealed};
use crate::time::Timestamp;

/// Why a path is in the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Protected whole.
    Protected,
    /// Protected, and its content is a secret.
    Sensitive,
    /// The top of a `writable` path: identity, mode and owner only.
    WritableTop,
    /// A directory between the root and something protected: identity, mode and owner only.
    Passage,
}

/// One path in a baseline.
///
/// `entry` keeps the attributes to give back at unlock (mode and xattrs as they
/// were before sealing); its ctime is the one seen after sealing, so that an
/// untouched file is known by its ctime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineRecord {
    /// Where.
    pub path: RelPath,
    /// Why it is here.
    pub role: Role,
    /// How far it was sealed. In JSON `false`, `"read-only"` or `"immutable"`; `true`, which was
    /// written before there was the flag, is read-only.
    #[serde(with = "sealed_json")]
    pub sealed: Seal,
    /// Why it was not sealed, or less than the environment is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<Skip>,
    /// The attributes.
    #[serde(flatten)]
    pub entry: Entry,
}

/// How an environment stands, which decides what is expected on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Locked: sealed entries have no write bits and, as far as it was set, the immutable flag.
    Sealed,
    /// Unlocked: the originals' modes.
    Original,
}

impl BaselineRecord {
    /// What should be on disk.
    #[must_use]
    pub fn expected(&self, expect: Expect) -> Entry {
        match expect {
            Expect::Sealed => sealed(&self.entry, self.sealed),
            Expect::Original => self.entry.clone(),
        }
    }

    /// How `observed` differs from what should be on disk; empty when it does not.
    #[must_use]
    pub fn differences(&self, observed: &Observed, expect: Expect) -> Vec<Change> {
        let expected = self.expected(expect);
        let mut found = match observed {
            // It could not be read at lock either, which lock said; its metadata still counts.
            Observed::Unreadable { entry: Some(now), .. }
                if expected.kind == Kind::File && expected.sha256.is_none() =>
            {
                compare(Some(&expected), &Observed::Present(now.clone()))
            }
            _ => compare(Some(&expected), observed),
        };
        if matches!(self.role, Role::WritableTop | Role::Passage) {
            found.retain(|c| {
                matches!(
                    c,
                    Change::Deleted
                        | Change::Type
                        | Change::Mode
                        | Change::Owner
                        | Change::Inode
                        | Change::Target
                        | Change::Mount
                )
            });
        }
        if expect == Expect::Sealed && self.is_weakened(observed) {
            found.push(Change::Seal);
        }
        found
    }

    /// Has it lost what sealing gave it? Said of the inode that was sealed and of one that
    /// stands in its place.
    fn is_weakened(&self, observed: &Observed) -> bool {
        let (Observed::Present(now) | Observed::Unreadable { entry: Some(now), .. }) = observed else {
            return false;
        };
        let widened = self.sealed.is_some() && now.mode & 0o222 != 0;
        let lifted = self.sealed == Seal::Immutable && now.flags & IMMUTABLE == 0;
        widened || lifted
    }
}

/// [`BaselineRecord::sealed`]: false, or how far.
mod sealed_json {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::Seal;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Read {
        Plain(bool),
        Named(Seal),
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(super) fn serialize<S: Serializer>(seal: &Seal, s: S) -> Result<S::Ok, S::Error> {
        match seal {
            Seal::None => s.serialize_bool(false),
            seal => seal.serialize(s),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Seal, D::Error> {
        Ok(match Read::deserialize(d)? {
            Read::Plain(false) => Seal::None,
            Read::Plain(true) => Seal::ReadOnly,
            Read::Named(seal) => seal,
        })
    }
}

/// What a baseline adds up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Everything that is not a directory.
    pub files: u64,
    /// Directories, passages and the root among them.
    pub directories: u64,
    /// Bytes of regular files.
    pub bytes: u64,
}

impl Totals {
    /// Counts one record in.
    pub fn add(&mut self, entry: &Entry) {
        if entry.kind == Kind::Directory {
            self.directories += 1;
        } else {
            self.files += 1;
            if entry.kind == Kind::File {
                self.bytes = self.bytes.saturating_add(entry.size);
            }
        }
    }
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

/// The digests of a generation's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileDigests {
    /// `SHA256SUMS`.
    pub sha256sums: Digest,
    /// `undo.jsonl`.
    pub undo: Digest,
    /// `records`, the compact form that guardd itself reads.
    pub records: Digest,
}

/// A directory above the root, as it was at lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ancestor {
    /// Absolute, escaped.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Owning user.
    pub uid: u32,
    /// Owning group.
    pub gid: u32,
    /// Inode number.
    pub ino: u64,
}

/// `manifest.json`: the small file that is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// The environment's name.
    pub environment: String,
    /// Only grows.
    pub generation: u64,
    /// When it was committed.
    pub created_at: Timestamp,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The canonical root, escaped.
    pub root: String,
    /// The root's device and inode.
    pub root_identity: (u64, u64),
    /// The directories above the root, from `/` down: whoever may rename one of
    /// them may replace the root.
    #[serde(default)]
    pub ancestors: Vec<Ancestor>,
    /// Where within the root something was mounted; absent in manifests of versions that did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mounts: Option<Vec<RelPath>>,
    /// The policy it was taken by.
    pub policy: PatternText,
    /// What the configuration asks for.
    pub seal: Seal,
    /// What was done.
    pub seal_done: Seal,
    /// What it holds.
    pub totals: Totals,
    /// Digests of the files beside it.
    pub digests: FileDigests,
    /// SHA-256 of the previous generation's manifest.
    pub previous: Option<Digest>,
}

impl Manifest {
    /// Is an entry that was skipped for this reason one of those that are listed? Not where the
    /// whole tree is sealed less than asked for, and it no less than the tree.
    #[must_use]
    pub fn lists(&self, skip: Skip) -> bool {
        !skip.is_partial() || self.seal_done == Seal::Immutable
    }
}

/// Line 1 of a lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockFile {
    /// The environment's name.
    pub environment: String,
    /// `locked` or `unlocked`.
    pub state: LockState,
    /// The baseline's number.
    pub generation: u64,
    /// SHA-256 of its manifest.
    pub baseline: Digest,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Since when it is in this state.
    pub since: Timestamp,
    /// Who brought it there.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The canonical root, escaped.
    pub root: String,
    /// Branches that git hooks refuse to move while locked.
    #[serde(default)]
    pub branches: Vec<String>,
    /// The ledger's head when it was written: a shorter ledger has lost its tail.
    pub ledger: Head,
}

/// The two states of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockState {
    /// Changes are alerts.
    Locked,
    /// Changes are recorded under a window, or nothing was locked yet.
    Unlocked,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::file;

    fn record() -> BaselineRecord {
        BaselineRecord {
            path: RelPath::from_text("a").unwrap(),
            role: Role::Protected,
            sealed: Seal::ReadOnly,
            skip: None,
            entry: file(),
        }
    }

    #[test]
    fn a_sealed_entry_is_expected_without_write_bits() {
        let r = record();
        let on_disk = Observed::Present(sealed(&r.entry, Seal::ReadOnly));
        assert_eq!(r.differences(&on_disk, Expect::Sealed), []);
        assert_eq!(r.differences(&on_disk, Expect::Original), [Change::Mode]);
        let widened = Observed::Present(r.entry.clone());
        assert_eq!(r.differences(&widened, Expect::Sealed), [Change::Mode, Change::Seal]);
    }

    #[test]
    fn what_was_never_readable_is_compared_by_metadata() {
        let mut r = record();
        r.entry.sha256 = None;
        r.sealed = Seal::None;
        let now = r.entry.clone();
        let unread = |entry| Observed::Unreadable { entry: Some(entry), why: "open: EACCES".into() };
        assert_eq!(r.differences(&unread(now.clone()), Expect::Sealed), []);
        assert_eq!(r.differences(&unread(Entry { size: 99, ..now }), Expect::Sealed), [Change::Size]);
    }

    #[test]
    fn a_writable_top_keeps_identity_only() {
        let mut r = record();
        r.role = Role::WritableTop;
        r.sealed = Seal::None;
        let mut now = r.entry.clone();
        now.xattrs.clear();
        now.nlink = 9;
        assert_eq!(r.differences(&Observed::Present(now.clone()), Expect::Sealed), []);
        now.uid = 0;
        assert_eq!(r.differences(&Observed::Present(now), Expect::Sealed), [Change::Owner]);
    }

    #[test]
    fn a_lifted_flag_is_the_seal_weakened() {
        let r = BaselineRecord { sealed: Seal::Immutable, ..record() };
        let on_disk = sealed(&r.entry, Seal::Immutable);
        assert_eq!(r.differences(&Observed::Present(on_disk.clone()), Expect::Sealed), []);
        let lifted = Observed::Present(Entry { flags: 0, ..on_disk.clone() });
        assert_eq!(r.differences(&lifted, Expect::Sealed), [Change::Flags, Change::Seal]);
        let appending = Observed::Present(Entry { flags: IMMUTABLE | 0x20, ..on_disk });
        assert_eq!(r.differences(&appending, Expect::Sealed), [Change::Flags]);
    }

    #[test]
    fn json_of_a_record_is_flat() {
        let text = serde_json::to_string(&record()).unwrap();
        assert!(text.starts_with(
            r#"{"path":"a","role":"protected","sealed":"read-only","type":"file","mode":"0644""#
        ));
        assert_eq!(serde_json::from_str::<BaselineRecord>(&text).unwrap(), record());
        for (old, seal) in
            [("true", Seal::ReadOnly), ("false", Seal::None), (r#""immutable""#, Seal::Immutable)]
        {
            let text = text.replace(r#""read-only""#, old);
            assert_eq!(serde_json::from_str::<BaselineRecord>(&text).unwrap().sealed, seal);
        }
        assert!(serde_json::from_str::<BaselineRecord>(&text.replace("read-only", "soft")).is_err());
    }
}
