//! An entry: one path with its recorded attributes.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::path::{escape, unescape};

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file, the only kind whose content is read.
    File,
    /// A directory.
    Directory,
    /// A symbolic link: recorded, never followed.
    Symlink,
    /// A named pipe: never opened.
    Fifo,
    /// A Unix socket: never opened.
    Socket,
    /// A character device: never opened.
    CharDevice,
    /// A block device: never opened.
    BlockDevice,
}

/// A time as the file system keeps it, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// Seconds since the epoch.
    pub sec: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nsec: u32,
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match jiff::Timestamp::new(self.sec, i32::try_from(self.nsec).unwrap_or(0)) {
            Ok(t) => s.collect_str(&format_args!("{t:.9}")),
            Err(_) => s.collect_str(&format_args!("@{}.{:09}", self.sec, self.nsec)),
        }
    }
}

impl<'de> Deserialize<'de> for Stamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let bad = || serde::de::Error::custom("not a time");
        if let Some(raw) = text.strip_prefix('@') {
            let (sec, nsec) = raw.split_once('.').ok_or_else(bad)?;
            return Ok(Self { sec: sec.parse().map_err(|_| bad())?, nsec: nsec.parse().map_err(|_| bad())? });
        }
        let t: jiff::Timestamp = text.parse().map_err(|_| bad())?;
        // Floor semantics: the file system's nanoseconds are never negative.
        let nanos = t.as_nanosecond();
        let sec = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| bad())?;
        let nsec = u32::try_from(nanos.rem_euclid(1_000_000_000)).map_err(|_| bad())?;
        Ok(Self { sec, nsec })
    }
}

/// A SHA-256 of a file's content.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Gives it in hexadecimal, without an allocation: it is written some hundred thousand times with each baseline.
    pub fn text<T>(&self, with: impl FnOnce(&str) -> T) -> T {
        let mut text = [0; 64];
        // Neither can fail: it is twice as long, and of digits.
        hex::encode_to_slice(self.0, &mut text).ok();
        with(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text(|text| f.write_str(text))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        self.text(|text| s.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let mut out = [0; 32];
        hex::decode_to_slice(&text, &mut out)
            .map_err(|_| serde::de::Error::custom("not a SHA-256 in hexadecimal"))?;
        Ok(Self(out))
    }
}

/// Everything recorded about one path. The same type serves as what was
/// recorded (in a baseline) and what is read now (an observation).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What the path names.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Permission bits with setuid, setgid and sticky (`mode & 0o7777`).
    #[serde(with = "octal")]
    pub mode: u32,
    /// Owning user id.
    pub uid: u32,
    /// Owning group id.
    pub gid: u32,
    /// Length in bytes; of a symlink, of its target; 0 for directories, whose size means nothing portable.
    pub size: u64,
    /// Last change of content.
    pub mtime: Stamp,
    /// Last change of the inode: a reason to look again, never a finding alone.
    pub ctime: Stamp,
    /// Device number (major << 32 | minor) of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Number of hard links; 0 recorded for directories, where file systems disagree.
    pub nlink: u32,
    /// Device number (major << 32 | minor) of a device node, else 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rdev: u64,
    /// Inode flags as `FS_IOC_GETFLAGS` gives them, masked to those `chattr` can set; 0 where not read.
    #[serde(default, skip_serializing_if = "is_zero32")]
    pub flags: u32,
    /// A symlink's target.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "escaped_option")]
    pub target: Option<Vec<u8>>,
    /// Extended attributes, sorted by name: ACLs, capabilities and labels among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "escaped_pairs")]
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// SHA-256 of a regular file's content; `None` for other kinds and in a metadata-only observation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// What was found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observed {
    /// The entry as it is now.
    Present(Entry),
    /// Nothing is there.
    Absent,
    /// Something is there that could not be read, which is never "unchanged".
    Unreadable {
        /// What could be learned by `statx`, if anything.
        entry: Option<Entry>,
        /// The failed step and the error, for people.
        why: String,
    },
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

fn is_zero32(n: &u32) -> bool {
    *n == 0
}

/// Permission bits as four octal digits in text, for serde's `with`.
pub mod octal {
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes `0644`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(mode: &u32, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&format_args!("{mode:04o}"))
    }

    /// Reads octal digits up to `7777`.
    ///
    /// # Errors
    /// Where the text is no octal mode.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
        let text = String::deserialize(d)?;
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(mode),
            _ => Err(serde::de::Error::custom("not an octal mode")),
        }
    }
}

mod escaped_option {
    use super::{Deserialize, Deserializer, Serializer, escape, unescape};

    pub(super) fn serialize<S: Serializer>(v: &Option<Vec<u8>>, s: S) -> Result<S::Ok, S::Error> {
        match v {
            Some(bytes) => s.serialize_str(&escape(bytes)),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Vec<u8>>, D::Error> {
        match Option::<String>::deserialize(d)? {
            Some(text) => unescape(&text).map(Some).ok_or_else(|| serde::de::Error::custom("bad escape")),
            None => Ok(None),
        }
    }
}

mod escaped_pairs {
    use std::collections::BTreeMap;

    use super::{Deserialize, Deserializer, Serializer, escape, unescape};

    type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

    pub(super) fn serialize<S: Serializer>(v: &[(Vec<u8>, Vec<u8>)], s: S) -> Result<S::Ok, S::Error> {
        s.collect_map(v.iter().map(|(k, v)| (escape(k), escape(v))))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Pairs, D::Error> {
        let map = BTreeMap::<String, String>::deserialize(d)?;
        let mut pairs = Vec::with_capacity(map.len());
        for (k, v) in map {
            let bad = || serde::de::Error::custom("bad escape");
            pairs.push((unescape(&k).ok_or_else(bad)?, unescape(&v).ok_or_else(bad)?));
        }
        pairs.sort();
        Ok(pairs)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plain file to vary in tests.
    pub(crate) fn file() -> Entry {
        Entry {
            kind: Kind::File,
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            size: 3,
            mtime: Stamp { sec: 1, nsec: 5 },
            ctime: Stamp { sec: 2, nsec: 6 },
            dev: 1,
            ino: 10,
            nlink: 1,
            rdev: 0,
            flags: 0,
            target: None,
            xattrs: vec![(b"user.x".to_vec(), b"\xff\0".to_vec())],
            sha256: Some(Digest([7; 32])),
        }
    }

    #[test]
    fn json_round_trip() {
        let mut e = file();
        e.mtime = Stamp { sec: -5, nsec: 999_999_999 };
        e.target = Some(b"../\xff".to_vec());
        let text = serde_json::to_string(&e).unwrap();
        assert!(text.contains(r#""mode":"0644""#), "{text}");
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), e);
        e.mtime = Stamp { sec: i64::MAX, nsec: 1 };
        let text = serde_json::to_string(&e).unwrap();
        assert_eq!(serde_json::from_str::<Entry>(&text).unwrap(), e);
    }
}
