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

impl Seal {
    /// Is anything done at all?
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::None
    }
}

/// Why an entry is left unsealed, or sealed one step less than asked for.
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
    /// Its mode is sealed; its file system has no immutable flag.
    NoFlag,
    /// Its mode is sealed; this daemon may not set the immutable flag (`CAP_LINUX_IMMUTABLE`).
    FlagNotPermitted,
}

impl Skip {
    /// Is such an entry sealed all the same, only less than asked for?
    #[must_use]
    pub fn is_partial(self) -> bool {
        matches!(self, Self::NoFlag | Self::FlagNotPermitted)
    }

    /// Why a whole tree is sealed read-only where immutable was asked for.
    #[must_use]
    pub fn of_the_tree(self) -> Option<&'static str> {
        match self {
            Self::NoFlag => Some("the file system has no immutable flag"),
            Self::FlagNotPermitted => {
                Some("guardd may not set the immutable flag, which takes CAP_LINUX_IMMUTABLE")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Symlink => "symbolic link",
            Self::Special => "special file",
            Self::HardLinkOutside => "hard link to outside the root",
            Self::HoldsWritable => "directory holds ignored or writable entries",
            Self::NotPermitted => "not permitted to change its mode",
            Self::NoFlag => "without the immutable flag, which its file system does not have",
            Self::FlagNotPermitted => "without the immutable flag, which guardd may not set on it",
        })
    }
}

/// `FS_IMMUTABLE_FL` (`chattr +i`): nothing may change.
pub const IMMUTABLE: u32 = 0x10;
/// `FS_APPEND_FL` (`chattr +a`): may only grow.
pub const APPEND: u32 = 0x20;
/// The inode flags that keep even root from changing an entry: those that a seal sets or lifts.
pub const BINDING: u32 = IMMUTABLE | APPEND;

/// Inode flags as people call them: `immutable`, `append-only`, what else there is in hexadecimal; `none`.
#[must_use]
pub fn flags_in_words(flags: u32) -> String {
    let mut words = Vec::new();
    for (flag, word) in [(IMMUTABLE, "immutable"), (APPEND, "append-only")] {
        if flags & flag != 0 {
            words.push(word.to_owned());
        }
    }
    if flags & !BINDING != 0 {
        words.push(format!("{:#x}", flags & !BINDING));
    }
    if words.is_empty() { "none".to_owned() } else { words.join("+") }
}

/// What a seal changes of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Permission bits (`& 0o7777`).
    pub mode: u32,
    /// The flags of [`BINDING`] that it has.
    pub flags: u32,
}

impl Marks {
    /// Those of an entry.
    #[must_use]
    pub fn of(entry: &Entry) -> Self {
        Self { mode: entry.mode & 0o7777, flags: entry.flags & BINDING }
    }

    /// What they are under a seal: without write bits and, where it is
    /// [`Seal::Immutable`], with that flag. A flag that was there before stays.
    #[must_use]
    pub fn under(self, seal: Seal) -> Self {
        match seal {
            Seal::None => self,
            Seal::ReadOnly => Self { mode: sealed_mode(self.mode), ..self },
            Seal::Immutable => Self { mode: sealed_mode(self.mode), flags: self.flags | IMMUTABLE },
        }
    }
}

fn sealed_mode(original: u32) -> u32 {
    original & !0o222
}

/// `original` as it is expected on disk once it is sealed like this: its [`Marks`], and where
/// there is an access ACL, that one exactly as `chmod` makes it (acl(5): chmod changes the owner's
/// entry, the mask or else the group's entry, and the others' entry).
/// Only files and directories can be sealed; anything else stays.
#[must_use]
pub fn sealed(original: &Entry, seal: Seal) -> Entry {
    let mut e = original.clone();
    if !matches!(e.kind, Kind::File | Kind::Directory) || seal == Seal::None {
        return e;
    }
    let marks = Marks::of(&e).under(seal);
    e.mode = marks.mode;
    e.flags |= marks.flags;
    follow_mode(&mut e);
    e
}

/// What an entry that is sealed on disk was before, where it then had these [`Marks`]: the inverse of [`sealed`].
#[must_use]
pub fn unsealed(on_disk: Entry, original: Marks) -> Entry {
    let mut e = on_disk;
    e.mode = original.mode;
    e.flags = e.flags & !BINDING | original.flags;
    follow_mode(&mut e);
    e
}

/// Gives the access ACL, where there is one, the write bits of the mode, as `chmod` does.
fn follow_mode(e: &mut Entry) {
    for (name, value) in &mut e.xattrs {
        if name == b"system.posix_acl_access" {
            acl_write_as_in(e.mode, value);
        }
    }
}

/// Gives the entries of a `posix_acl_xattr` value that `chmod` rules the write bit that their class has in `mode`:
/// 4 bytes of version 2, then entries of tag u16, perm u16, id u32,
/// all little-endian (linux/posix_acl_xattr.h). Anything else is left as it is.
fn acl_write_as_in(mode: u32, value: &mut [u8]) {
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
        let may_write = match tag(e) {
            USER_OBJ => mode & 0o200,
            MASK => mode & 0o020,
            GROUP_OBJ if !has_mask => mode & 0o020,
            OTHER => mode & 0o002,
            _ => continue,
        };
        if let Some(perm) = e.get_mut(2) {
            *perm = *perm & !0o2 | if may_write == 0 { 0 } else { 0o2 };
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
        let under = |mode| Marks { mode, flags: 0 }.under(Seal::ReadOnly).mode;
        assert_eq!(under(0o6755), 0o6555);
        assert_eq!(under(0o1777), 0o1555);
    }

    #[test]
    fn flags_found_stay_and_the_immutable_one_is_added() {
        let mut e = file();
        e.flags = APPEND | 0x40;
        let how = |seal| (sealed(&e, seal).mode, sealed(&e, seal).flags);
        assert_eq!(how(Seal::None), (0o644, APPEND | 0x40));
        assert_eq!(how(Seal::ReadOnly), (0o444, APPEND | 0x40));
        assert_eq!(how(Seal::Immutable), (0o444, IMMUTABLE | APPEND | 0x40));
        assert_eq!(Marks::of(&e), Marks { mode: 0o644, flags: APPEND });
    }

    #[test]
    fn acl_follows_chmod() {
        let mut e = file();
        let name = b"system.posix_acl_access".to_vec();
        e.xattrs = vec![(name.clone(), acl(&[(1, 6), (2, 6), (4, 6), (0x10, 7), (0x20, 6)]))];
        assert_eq!(
            sealed(&e, Seal::ReadOnly).xattrs[0].1,
            acl(&[(1, 4), (2, 6), (4, 6), (0x10, 5), (0x20, 4)])
        );
        e.xattrs = vec![(name, acl(&[(1, 6), (4, 6), (0x20, 6)]))];
        assert_eq!(sealed(&e, Seal::ReadOnly).xattrs[0].1, acl(&[(1, 4), (4, 4), (0x20, 4)]));
    }

    /// As a kernel keeps them: the mode says what the owner's entry, the mask or else the group's, and the others' say.
    #[test]
    fn unsealed_is_the_inverse() {
        for mode in 0..0o1000 {
            let [owner, group, other] = [6, 3, 0].map(|shift| u16::try_from(mode >> shift & 7).unwrap());
            let acls = [
                acl(&[(1, owner), (4, group), (0x20, other)]),
                acl(&[(1, owner), (2, 7), (4, 6), (8, 3), (0x10, group), (0x20, other)]),
            ];
            for value in acls {
                let mut e = file();
                (e.mode, e.flags) = (mode, APPEND | 0x40);
                e.xattrs = vec![(b"system.posix_acl_access".to_vec(), value)];
                for seal in [Seal::None, Seal::ReadOnly, Seal::Immutable] {
                    assert_eq!(unsealed(sealed(&e, seal), Marks::of(&e)), e, "{mode:o} {seal}");
                }
            }
        }
    }

    #[test]
    fn symlinks_stay() {
        let mut e = file();
        e.kind = Kind::Symlink;
        e.mode = 0o777;
        assert_eq!(sealed(&e, Seal::Immutable), e);
    }
}
