//! What a sealed entry looks like, and which entries cannot be sealed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::entry::{Entry, Kind};

/// How hard a locked tree is to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seal {
    /// Watched only.
    None,
    /// No write bits in any mode.
    ReadOnly,
    /// Read-only, and the immutable flag.
    Immutable,
}

impl fmt::Display for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ReadOnly => "read-only",
            Self::Immutable => "immutable",
        })
    }
}

/// Why an entry is left unsealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// Symlinks have no mode of their own.
    Symlink,
    /// Fifos, sockets and devices are used by being written to.
    Special,
    /// Another name of this inode lies outside the root.
    HardLinkOutside,
    /// A directory whose direct children are ignored or writable; sealing it would stop the application.
    HoldsWritable,
    /// The file belongs to somebody else and this daemon may not change its mode.
    NotPermitted,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symlink => "symbolic link",
            Self::Special => "special file",
            Self::HardLinkOutside => "hard link to outside the root",
            Self::HoldsWritable => "directory holds ignored or writable entries",
            Self::NotPermitted => "not permitted to change its mode",
        })
    }
}

/// The mode that a sealed entry has on disk: the original without write bits.
#[must_use]
pub fn sealed_mode(original: u32) -> u32 {
    original & !0o222
}

/// `original` as it is expected on disk once sealed read-only: without write
/// bits in the mode and, where there is one, in the access ACL, exactly as
/// `chmod` makes it (acl(5): chmod changes the owner's entry, the mask or else
/// the group's entry, and the others' entry).
#[must_use]
pub fn sealed(original: &Entry) -> Entry {
    let mut e = original.clone();
    if !matches!(e.kind, Kind::File | Kind::Directory) {
        return e;
    }
    e.mode = sealed_mode(e.mode);
    for (name, value) in &mut e.xattrs {
        if name == b"system.posix_acl_access" {
            drop_acl_write(value);
        }
    }
    e
}

/// Clears the write bit of the entries of a `posix_acl_xattr` value that
/// `chmod` rules: 4 bytes of version 2, then entries of tag u16, perm u16, id u32,
/// all little-endian (linux/posix_acl_xattr.h). Anything else is left as it is.
fn drop_acl_write(value: &mut [u8]) {
    const USER_OBJ: u16 = 0x01;
    const GROUP_OBJ: u16 = 0x04;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    let Some((version, entries)) = value.split_at_mut_checked(4) else { return };
    if version != [2, 0, 0, 0] || !entries.len().is_multiple_of(8) {
        return;
    }
    let tag = |e: &[u8]| e.first_chunk::<2>().map_or(0, |b| u16::from_le_bytes(*b));
    let has_mask = entries.chunks_exact(8).any(|e| tag(e) == MASK);
    for e in entries.chunks_exact_mut(8) {
        let ruled = match tag(e) {
            USER_OBJ | MASK | OTHER => true,
            GROUP_OBJ => !has_mask,
            _ => false,
        };
        if let (true, Some(perm)) = (ruled, e.get_mut(2)) {
            *perm &= !0o2;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::tests::file;

    fn acl(entries: &[(u16, u16)]) -> Vec<u8> {
        let mut v = vec![2, 0, 0, 0];
        for (tag, perm) in entries {
            v.extend(tag.to_le_bytes());
            v.extend(perm.to_le_bytes());
            v.extend(u32::MAX.to_le_bytes());
        }
        v
    }

    #[test]
    fn keeps_setuid_setgid_sticky() {
        assert_eq!(sealed_mode(0o6755), 0o6555);
        assert_eq!(sealed_mode(0o1777), 0o1555);
    }

    #[test]
    fn acl_follows_chmod() {
        let mut e = file();
        let name = b"system.posix_acl_access".to_vec();
        e.xattrs = vec![(name.clone(), acl(&[(1, 6), (2, 6), (4, 6), (0x10, 7), (0x20, 6)]))];
        assert_eq!(sealed(&e).xattrs[0].1, acl(&[(1, 4), (2, 6), (4, 6), (0x10, 5), (0x20, 4)]));
        e.xattrs = vec![(name, acl(&[(1, 6), (4, 6), (0x20, 6)]))];
        assert_eq!(sealed(&e).xattrs[0].1, acl(&[(1, 4), (4, 4), (0x20, 4)]));
    }

    #[test]
    fn symlinks_stay() {
        let mut e = file();
        e.kind = Kind::Symlink;
        e.mode = 0o777;
        assert_eq!(sealed(&e), e);
    }
}
