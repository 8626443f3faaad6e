//! What differs, and who did it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Time;

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// Said by a later daemon.
    #[serde(other)]
    Unknown,
}

/// Everything recorded about one path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What the path names.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Permission bits in octal, four digits.
    pub mode: String,
    /// Owning user id.
    pub uid: u32,
    /// Owning group id.
    pub gid: u32,
    /// Bytes; of a symbolic link, of its target.
    pub size: u64,
    /// Last change of content, RFC 3339 with nanoseconds.
    pub mtime: String,
    /// Last change of the inode, RFC 3339 with nanoseconds.
    pub ctime: String,
    /// Device number (major << 32 | minor) of the file system.
    pub dev: u64,
    /// Inode number.
    pub ino: u64,
    /// Hard links; 0 for directories.
    pub nlink: u32,
    /// The device that a device node names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdev: Option<u64>,
    /// Inode flags as `FS_IOC_GETFLAGS` gives them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<u32>,
    /// What a symbolic link holds, escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Extended attributes, names and values escaped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub xattrs: Option<BTreeMap<String, String>>,
    /// Of a regular file's content, in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// How far an actor can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// Read while the process still lived.
    Verified,
    /// The process had ended; only part could be read.
    Exited,
    /// Nothing certain.
    #[serde(other)]
    Unknown,
}

/// Who made a change. All text is escaped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// Process id.
    pub pid: i32,
    /// Its name, at most 15 bytes, chosen by itself.
    #[serde(default)]
    pub comm: Option<String>,
    /// The executable.
    pub exe: Option<String>,
    /// The command line, arguments joined by spaces.
    pub cmdline: Option<String>,
    /// Real user id.
    pub uid: Option<u32>,
    /// The user who logged in, before any su or sudo.
    pub login_uid: Option<u32>,
    /// When the process started.
    pub started_at: Option<Time>,
    /// Ancestors, nearest first.
    #[serde(default)]
    pub parents: Vec<String>,
    /// systemd unit.
    pub unit: Option<String>,
    /// Container id.
    pub container: Option<String>,
    /// How far to believe this.
    pub confidence: Confidence,
}

/// One way in which a path differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Something is there that should not be.
    Created,
    /// Nothing is there and something should be.
    Deleted,
    /// A file became a symlink, and so on.
    Type,
    /// The content differs, or could not be read.
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
    /// Something was mounted here, or the device changed.
    Mount,
    /// The seal was weakened.
    Seal,
    /// The lock file was touched.
    LockFile,
    /// The root or one of its ancestors is not what was locked.
    Root,
    /// Nothing differs: somebody who is not expected to opened or read it.
    Read,
    /// Said by a later daemon.
    #[serde(other)]
    Unknown,
}

impl Change {
    /// The word on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
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
            Self::Unknown => "unknown",
        }
    }
}

/// One difference between what a path should be and what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Escaped, relative to the root (`.` the root itself), absolute where it lies outside.
    pub path: String,
    /// When guardd observed it.
    pub at: Time,
    /// What differs; never empty.
    pub change: Vec<Change>,
    /// What was expected; `None` for an addition.
    pub before: Option<Entry>,
    /// What is there; `None` for a deletion or where nothing could be read.
    pub after: Option<Entry>,
    /// Who did it, where known.
    pub actor: Option<Actor>,
    /// The original has been put back.
    #[serde(default)]
    pub restored: bool,
    /// More for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}
