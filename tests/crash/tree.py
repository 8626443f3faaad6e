"""The tree that is locked and unlocked, and what it looks like."""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import subprocess
from pathlib import Path

import linux
from linux import set_flags

NOATIME_FLAG, NODUMP_FLAG, IMMUTABLE_FLAG = 0x80, 0x40, 0x10
OWNER, GROUP = 1000, 1001
WHEN_NS = 1_600_000_000_123_456_789

CONFIGURATION = """
rehash = "1h"
writable = ["logs/"]
ignore = ["*.pyc"]
sensitive = [".env*"]
"""
"""The patterns of the environment; seal and root are added."""


def build(root: Path, outside: Path) -> None:
    """A dozen entries that hold everything lock has to give back: setgid, setuid, ACLs, a capability, inode flags."""
    files = {
        ".env.prod": 0o640, "compose.yml": 0o644, "backend/main.py": 0o664, "backend/linked.py": 0o644, "backend/twin": 0o444,
        "bin/tool": 0o4755, "bin/ping": 0o755, "odd": 0o622, "logs/access.log": 0o644, "cache/x.pyc": 0o644,
    }  # fmt: skip
    directories = {"backend": 0o2775, "bin": 0o755, "logs": 0o755, "cache": 0o775, "empty": 0o700}
    outside.mkdir()
    for name in directories:
        (root / name).mkdir(parents=True)
    for name in files:
        (root / name).write_text(f"this is {name}\n" * 3)
    os.link(root / "backend/linked.py", outside / "linked.py")
    os.link(root / "backend/twin", root / "twin")
    (root / "current").symlink_to("backend")
    os.mkfifo(root / "queue", 0o620)
    everything = [root, *sorted(root.rglob("*"), reverse=True)]
    for path in everything:
        os.chown(path, OWNER, GROUP, follow_symlinks=False)
    for name, mode in (files | directories).items():
        (root / name).chmod(mode)
    root.chmod(0o755)
    subprocess.run(["setfacl", "-m", "u:1002:rw", root / "backend/main.py"], check=True)
    subprocess.run(["setfacl", "-m", "d:g:1003:rwx,g:1003:rwx", root / "backend"], check=True)
    os.setxattr(root / "bin/tool", "user.note", b"kept")
    # struct vfs_cap_data, revision 2: cap_net_raw, permitted and effective.
    os.setxattr(root / "bin/ping", "security.capability", struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0))
    set_flags(root / "odd", flags_of(root / "odd") | NODUMP_FLAG | NOATIME_FLAG)
    for path in everything:
        os.utime(path, ns=(WHEN_NS, WHEN_NS), follow_symlinks=False)


def picture(top: Path) -> dict[str, dict]:
    """Every attribute of every entry that an operation must not lose: all but inode, links, ctime and atime."""
    return {str(path.relative_to(top)): look(path) for path in sorted([top, *top.rglob("*")])}


def look(path: Path) -> dict:
    """One entry."""
    found = path.lstat()
    seen = {
        "mode": f"{found.st_mode:06o}", "owner": (found.st_uid, found.st_gid), "mtime": found.st_mtime_ns,
        "xattrs": {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in os.listxattr(path, follow_symlinks=False)},
    }  # fmt: skip
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        seen["flags"] = flags_of(path)
    if stat.S_ISREG(found.st_mode):
        seen["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    if stat.S_ISLNK(found.st_mode):
        seen["target"] = os.readlink(path)
    return seen


def inodes(top: Path) -> dict[str, int]:
    """The inode at every name."""
    return {str(path.relative_to(top)): path.lstat().st_ino for path in [top, *top.rglob("*")]}


def difference(before: dict[str, dict], after: dict[str, dict]) -> list[str]:
    """What differs between two pictures, for people."""
    told = []
    for path in sorted(before.keys() | after.keys()):
        old, new = before.get(path), after.get(path)
        if old is None or new is None:
            told.append(f"{path} {'came' if old is None else 'is gone'}")
        else:
            told += [f"{path} {what}: {old.get(what)} -> {new.get(what)}" for what in old | new if old.get(what) != new.get(what)]
    return told


def flags_of(path: Path) -> int:
    """Inode flags, without those that only echo how the file system lays it out."""
    return linux.flags_of(path) & ~linux.LAYOUT_FLAGS
