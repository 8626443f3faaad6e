//! Does an observation differ from what is expected, and in what?

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::entry::{Entry, Kind, Observed};

/// One way in which a path differs. The names are part of the outer contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Something is there that should not be.
    Created,
    /// Nothing is there and something should be.
    Deleted,
    /// A file became a symlink, and so on.
    Type,
    /// The content's SHA-256 differs, or the content could not be read.
    Content,
    /// The size differs.
    Size,
    /// Permission bits differ.
    Mode,
    /// User or group differs.
    Owner,
    /// The time of the last change of content differs.
    Mtime,
    /// Another inode stands at this name.
    Inode,
    /// The number of hard links differs.
    Links,
    /// A symlink points elsewhere, or a device node names another device.
    Target,
    /// Extended attributes differ.
    Xattr,
    /// Inode flags differ.
    Flags,
    /// Something was mounted here, or the device number changed.
    Mount,
    /// The seal was weakened.
    Seal,
    /// The lock file was touched.
    LockFile,
    /// The root or one of its ancestors is not what was locked.
    Root,
    /// Nothing differs: somebody who is not expected to opened or read it.
    Read,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Deleted => "deleted",
            Self::Type => "type",
            Self::Content => "content",
            Self::Size => "size",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Mtime => "mtime",
            Self::Inode => "inode",
            Self::Links => "links",
            Self::Target => "target",
            Self::Xattr => "xattr",
            Self::Flags => "flags",
            Self::Mount => "mount",
            Self::Seal => "seal",
            Self::LockFile => "lock_file",
            Self::Root => "root",
            Self::Read => "read",
        })
    }
}

/// Does the content need to be read to know whether `now` still is `expected`?
/// True where ctime, mtime, size, inode or device differ, or nothing is recorded to compare with.
#[must_use]
pub fn needs_content(expected: Option<&Entry>, now: &Entry) -> bool {
    if now.kind != Kind::File {
        return false;
    }
    match expected {
        Some(e) if e.kind == Kind::File => {
            e.sha256.is_none()
                || e.ctime != now.ctime
                || e.mtime != now.mtime
                || e.size != now.size
                || e.ino != now.ino
                || e.dev != now.dev
        }
        _ => true,
    }
}

/// Every way in which `observed` differs from `expected`; empty when it does not.
///
/// `expected` is `None` where nothing should be. ctime alone is no difference.
/// Of a directory, size, mtime and link count are not compared: they only echo
/// changes that are found at its children.
#[must_use]
pub fn compare(expected: Option<&Entry>, observed: &Observed) -> Vec<Change> {
    match (expected, observed) {
        (None, Observed::Absent) => Vec::new(),
        (None, _) => vec![Change::Created],
        (Some(_), Observed::Absent) => vec![Change::Deleted],
        (Some(e), Observed::Unreadable { entry, .. }) => {
            let mut found = entry.as_ref().map(|now| attributes(e, now)).unwrap_or_default();
            if !found.contains(&Change::Content) {
                found.insert(0, Change::Content);
            }
            found
        }
        (Some(e), Observed::Present(now)) => attributes(e, now),
    }
}

fn attributes(e: &Entry, now: &Entry) -> Vec<Change> {
    use Change as C;
    let mut found = Vec::new();
    let mut add = |differs: bool, change: C| {
        if differs {
            found.push(change);
        }
    };
    if e.kind != now.kind {
        add(true, C::Type);
        add(e.mode != now.mode, C::Mode);
        add((e.uid, e.gid) != (now.uid, now.gid), C::Owner);
        return found;
    }
    let is_dir = e.kind == Kind::Directory;
    let content = match (e.sha256, now.sha256) {
        (Some(a), Some(b)) => a != b,
        _ => false,
    };
    add(content, C::Content);
    add(!is_dir && e.kind != Kind::Symlink && e.size != now.size, C::Size);
    add(e.target != now.target || e.rdev != now.rdev, C::Target);
    add(e.mode != now.mode, C::Mode);
    add((e.uid, e.gid) != (now.uid, now.gid), C::Owner);
    add(!is_dir && e.mtime != now.mtime, C::Mtime);
    add(e.ino != now.ino, C::Inode);
    add(!is_dir && e.nlink != now.nlink, C::Links);
    add(e.xattrs != now.xattrs, C::Xattr);
    add(e.flags != now.flags, C::Flags);
    add(e.dev != now.dev, C::Mount);
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Digest, Stamp, tests::file};
    use proptest::prelude::*;

    fn vs(change: impl FnOnce(&mut Entry)) -> Vec<Change> {
        let e = file();
        let mut now = e.clone();
        change(&mut now);
        compare(Some(&e), &Observed::Present(now))
    }

    #[test]
    fn every_attribute_is_compared() {
        assert_eq!(vs(|_| ()), []);
        assert_eq!(vs(|e| e.ctime.sec += 1), []);
        assert_eq!(vs(|e| e.mode = 0o600), [Change::Mode]);
        assert_eq!(vs(|e| e.uid = 0), [Change::Owner]);
        assert_eq!(vs(|e| e.gid = 0), [Change::Owner]);
        assert_eq!(vs(|e| e.size += 1), [Change::Size]);
        assert_eq!(vs(|e| e.mtime = Stamp::default()), [Change::Mtime]);
        assert_eq!(vs(|e| e.ino += 1), [Change::Inode]);
        assert_eq!(vs(|e| e.nlink += 1), [Change::Links]);
        assert_eq!(vs(|e| e.xattrs.clear()), [Change::Xattr]);
        assert_eq!(vs(|e| e.flags = 16), [Change::Flags]);
        assert_eq!(vs(|e| e.dev += 1), [Change::Mount]);
        assert_eq!(vs(|e| e.rdev += 1), [Change::Target]);
        assert_eq!(vs(|e| e.target = Some(vec![b'x'])), [Change::Target]);
        assert_eq!(vs(|e| e.sha256 = Some(Digest([8; 32]))), [Change::Content]);
        assert_eq!(vs(|e| e.kind = Kind::Fifo), [Change::Type]);
    }

    #[test]
    fn metadata_alone_never_says_content() {
        assert_eq!(vs(|e| e.sha256 = None), []);
    }

    #[test]
    fn what_cannot_be_read_is_a_difference() {
        let e = file();
        let o = Observed::Unreadable { entry: Some(e.clone()), why: "open: EIO".into() };
        assert_eq!(compare(Some(&e), &o), [Change::Content]);
        assert_eq!(compare(None, &o), [Change::Created]);
    }

    #[test]
    fn when_content_must_be_read() {
        let e = file();
        assert!(!needs_content(Some(&e), &e));
        let mut now = e.clone();
        now.ctime.nsec += 1;
        assert!(needs_content(Some(&e), &now));
        assert!(needs_content(None, &e));
        now.kind = Kind::Symlink;
        assert!(!needs_content(Some(&e), &now));
    }

    proptest! {
        #[test]
        fn equal_iff_silent(mode in 0u32..0o10000, size: u64, ino: u64) {
            let e = file();
            let now = Entry { mode, size, ino, ..e.clone() };
            let same = (mode, size, ino) == (e.mode, e.size, e.ino);
            prop_assert_eq!(compare(Some(&e), &Observed::Present(now)).is_empty(), same);
        }
    }
}
