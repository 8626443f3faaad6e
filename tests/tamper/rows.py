"""Every way to change a protected entry that is known to us, a row each.

A row has a directory of its own in the protected tree, with the same entries in each (`furnish`), and one outside of it. Its
act runs in a process of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import socket
import struct
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import syscalls as sys_
from linux import flags_of, set_flags

TEXT = b"".join(b"line %04d of what is protected\n" % n for n in range(512))
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in [(1, 6, 0xFFFFFFFF), (2, 7, 1002), (4, 4, 0xFFFFFFFF), (0x10, 7, 0xFFFFFFFF), (0x20, 4, 0xFFFFFFFF)]
)
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


class Seen(Enum):
    """What it takes for a change to be seen."""

    EVENT = "at once"
    TABLE = "at once, by the mount table"
    LOOK = "a look, every second"
    SWEEP = "sweep"
    DEEP = "deep rehash"
    START = "at the next start"


class Spell(Enum):
    """How guardd does not watch while something happens."""

    STOPPED = "stopped"
    KILLED = "killed"
    FROZEN = "stopped with SIGSTOP"
    STARTING = "being started"


class Who(Enum):
    """Whether the one who did it can be found."""

    LIVES = "it lives until it is found"
    GONE = "a program that may be gone"
    WALK = "what is new is walked, which may come before the events of what is in it"


@dataclass(frozen=True)
class Site:
    """Where an act happens: the row's own directory, one outside, and what was prepared."""

    here: Path
    outside: Path
    device: Path | None
    """What its file system lies on."""
    lower: Path | None
    """Where the row's directory lies below an overlay."""
    held: dict[str, object] = field(default_factory=dict)
    """What `prepare` keeps open from before the lock, and an act for as long as its process lives."""

    @property
    def f(self) -> Path:
        return self.here / "f"

    @property
    def above(self) -> Path:
        """The directory that holds the root."""
        return self.here.parent.parent


Act = Callable[[Site], None]
ABOVE = "ABOVE"


@dataclass(frozen=True)
class Row:
    name: str
    group: str
    act: Act
    finds: dict[str, str]
    """Paths below the row's directory (`ABOVE`: the directory above the root), and a change that is among those found
    there."""
    seen: Seen = Seen.EVENT
    prepare: Act = lambda site: None
    only_on: frozenset[str] = frozenset()
    """File systems that can do it; empty: all."""
    seen_on: dict[str, Seen] = field(default_factory=dict)
    """File systems where it is seen otherwise."""
    only_sealed: bool = False
    """It takes a seal off, and needs one."""
    only_unsealed: bool = False
    """It is what sealing does, and no change where there is a seal."""
    spell: Spell | None = None
    """It happens while guardd does not watch."""
    who: Who = Who.LIVES
    undo: Act | None = None
    """It happens above the root, and has to be undone before anything else can be tried."""

    @property
    def apart(self) -> bool:
        """It disturbs other rows: tried when those are done, and by itself."""
        return bool(self.spell or self.undo)


ROWS: list[Row] = []


def row(name: str, group: str, finds: dict[str, str], **more):
    def add(act: Act) -> Act:
        ROWS.append(Row(name, group, act, finds, **more))
        return act

    return add


def furnish(here: Path, outside: Path) -> None:
    """What every row begins with."""
    (here / "sub/inner").mkdir(parents=True)
    (here / "vacant").mkdir()
    outside.mkdir(parents=True)
    for name in ("f", "g", "sub/h", "sub/inner/i"):
        (here / name).write_bytes(TEXT)
        (here / name).chmod(0o640)
    (here / "link").symlink_to("f")
    (outside / "x").write_bytes(b"from outside\n")


def opened(path: Path, flags: int):
    """A handle for a `with`."""

    @contextlib.contextmanager
    def manager():
        handle = os.open(path, flags)
        try:
            yield handle
        finally:
            os.close(handle)

    return manager()


# Content -------------------------------------------------------------------------------------------------------------

CONTENT = "content"


@row("append", CONTENT, {"f": "content"})
def _(site):
    with site.f.open("ab") as file:
        file.write(b"more\n")


@row("overwrite in the middle, same size", CONTENT, {"f": "content"})
def _(site):
    with opened(site.f, os.O_WRONLY) as handle:
        os.pwrite(handle, b"X", 5000)


@row("overwrite, then put mtime back", CONTENT, {"f": "content"})
def _(site):
    before = site.f.stat()
    with opened(site.f, os.O_WRONLY) as handle:
        os.pwrite(handle, b"X", 5000)
    os.utime(site.f, ns=(before.st_atime_ns, before.st_mtime_ns))


@row("truncate, write the same", CONTENT, {"f": "mtime"})
def _(site):
    site.f.write_bytes(TEXT)


@row("truncate(2)", CONTENT, {"f": "size"})
def _(site):
    os.truncate(site.f, 2)


@row("ftruncate, longer", CONTENT, {"f": "size"})
def _(site):
    with opened(site.f, os.O_WRONLY) as handle:
        os.ftruncate(handle, 100_000)


def by_fallocate(name: str, mode: int, change: str, **more) -> None:
    def act(site: Site) -> None:
        with opened(site.f, os.O_RDWR) as handle:
            sys_.fallocate(handle, mode, *((0, 100_000) if mode == 0 else (4096, 4096)))

    ROWS.append(Row(f"fallocate, {name}", CONTENT, act, {"f": change}, **more))


by_fallocate("longer", 0, "size")
by_fallocate("punch a hole", sys_.PUNCH_HOLE | sys_.KEEP_SIZE, "content")
by_fallocate("zero a range", sys_.ZERO_RANGE | sys_.KEEP_SIZE, "content", only_on=frozenset({"ext4", "xfs", "btrfs"}))
by_fallocate("collapse a range", sys_.COLLAPSE_RANGE, "size", only_on=frozenset({"ext4", "xfs"}))


@row("copy_file_range", CONTENT, {"f": "content"})
def _(site):
    with opened(site.outside / "x", os.O_RDONLY) as source, opened(site.f, os.O_WRONLY) as target:
        os.copy_file_range(source, target, 13)


@row("sendfile", CONTENT, {"f": "content"})
def _(site):
    with opened(site.outside / "x", os.O_RDONLY) as source, opened(site.f, os.O_WRONLY) as target:
        os.sendfile(target, source, 0, 13)


@row("splice", CONTENT, {"f": "content"})
def _(site):
    source, sink = os.pipe()
    os.write(sink, b"spliced\n")
    with opened(site.f, os.O_WRONLY) as target:
        os.splice(source, target, 8)


@row("clone of another file's blocks", CONTENT, {"f": "content"}, only_on=frozenset({"xfs", "btrfs"}))
def _(site):
    (site.outside / "y").write_bytes(b"y" * len(TEXT))
    os.sync()
    with opened(site.outside / "y", os.O_RDONLY) as source, opened(site.f, os.O_WRONLY) as target:
        fcntl.ioctl(target, sys_.FICLONE, source)


@row("io_uring", CONTENT, {"f": "content"})
def _(site):
    with opened(site.f, os.O_WRONLY) as handle:
        sys_.uring_write(handle, b"X", 100)


@row("by its handle (open_by_handle_at)", CONTENT, {"f": "content"}, only_on=frozenset({"ext4", "xfs", "btrfs", "tmpfs"}))
def _(site):
    handle = sys_.open_by_handle(site.f, os.O_WRONLY)
    os.pwrite(handle, b"X", 100)
    os.close(handle)


@row("by /proc/PID/root", CONTENT, {"f": "content"})
def _(site):
    with opened(Path(f"/proc/{os.getpid()}/root{site.f}"), os.O_WRONLY) as handle:
        os.pwrite(handle, b"X", 100)


@row("by /proc/PID/fd", CONTENT, {"f": "content"})
def _(site):
    with opened(site.f, os.O_RDONLY) as reader, opened(Path(f"/proc/self/fd/{reader}"), os.O_WRONLY) as handle:
        os.pwrite(handle, b"X", 100)


@row("through a bind mount elsewhere", CONTENT, {"f": "content"})
def _(site):
    other = site.outside / "bound"
    other.mkdir()
    sys_.mount(str(site.here), other, flags=sys_.MS_BIND)
    try:
        with opened(other / "f", os.O_WRONLY) as handle:
            os.pwrite(handle, b"X", 100)
    finally:
        sys_.umount(other)


@row("in another mount namespace", CONTENT, {"f": "content"})
def _(site):
    sys_.unshare(sys_.CLONE_NEWNS)
    with opened(site.f, os.O_WRONLY) as handle:
        os.pwrite(handle, b"X", 100)


@row("in a user namespace", CONTENT, {"f": "content"})
def _(site):
    sys_.unshare(sys_.CLONE_NEWUSER)
    with opened(site.f, os.O_WRONLY) as handle:
        os.pwrite(handle, b"X", 100)


def store(handle: int, at: int = 0) -> mmap.mmap:
    mapped = mmap.mmap(handle, len(TEXT))
    mapped[at] = ord("X")
    return mapped


@row("through a mapping, then unmapped", CONTENT, {"f": "content"})
def _(site):
    with opened(site.f, os.O_RDWR) as handle:
        store(handle).close()


@row("through a mapping, file closed before the store", CONTENT, {"f": "content"}, seen_on={"overlayfs": Seen.SWEEP})
def _(site):
    handle = os.open(site.f, os.O_RDWR)
    mapped = mmap.mmap(handle, len(TEXT))
    os.close(handle)
    mapped[0] = ord("X")
    mapped.close()


@row("through a mapping that stays", CONTENT, {"f": "content"}, seen=Seen.SWEEP)
def _(site):
    with opened(site.f, os.O_RDWR) as handle:
        site.held["mapping"] = store(handle)


@row("through a name outside (hard link)", CONTENT, {"f": "content"}, seen=Seen.SWEEP, prepare=lambda site: os.link(site.f, site.outside / "alias"))
def _(site):
    with opened(site.outside / "alias", os.O_WRONLY) as handle:
        os.pwrite(handle, b"X", 100)


def prepared(name: str, flags: int):
    def prepare(site: Site) -> None:
        site.held[name] = os.open(site.f, flags)

    return prepare


@row("through a handle from before the lock", CONTENT, {"f": "content"}, prepare=prepared("handle", os.O_RDWR))
def _(site):
    os.pwrite(site.held["handle"], b"X", 100)


def mapped_before(site: Site) -> None:
    with opened(site.f, os.O_RDWR) as handle:
        site.held["mapping"] = mmap.mmap(handle, len(TEXT))


@row("through a mapping from before the lock", CONTENT, {"f": "content"}, seen=Seen.SWEEP, prepare=mapped_before)
def _(site):
    site.held["mapping"][0] = ord("X")


@row("sed -i", CONTENT, {"f": "content"}, who=Who.GONE)
def _(site):
    subprocess.run(["sed", "-i", "s/line/LINE/", "f"], cwd=site.here, check=True)


@row("cp over it", CONTENT, {"f": "content"}, who=Who.GONE)
def _(site):
    subprocess.run(["cp", site.outside / "x", "f"], cwd=site.here, check=True)


@row("dd conv=notrunc", CONTENT, {"f": "content"}, who=Who.GONE)
def _(site):
    subprocess.run(["dd", "if=/dev/zero", "of=f", "bs=1", "count=1", "conv=notrunc", "status=none"], cwd=site.here, check=True)


@row("on the block device, below the page cache", CONTENT, {"f": "content"}, seen=Seen.DEEP, only_on=frozenset({"ext4", "xfs"}))
def _(site):
    os.sync()
    at = sys_.first_block(site.f)
    with opened(site.device, os.O_WRONLY | os.O_SYNC) as handle:
        os.pwrite(handle, b"RAW", at)


@row("in the layer below an overlay", CONTENT, {"f": "content"}, seen=Seen.SWEEP, only_on=frozenset({"overlayfs"}), only_unsealed=True)
def _(site):
    with opened(site.lower / "f", os.O_WRONLY) as handle:
        os.pwrite(handle, b"X", 100)


# Attributes ----------------------------------------------------------------------------------------------------------

ATTRIBUTES = "attributes"


@row("chmod", ATTRIBUTES, {"f": "mode"})
def _(site):
    site.f.chmod(0o666)


@row("setuid", ATTRIBUTES, {"f": "mode"})
def _(site):
    site.f.chmod(0o4755)


@row("chmod of a directory", ATTRIBUTES, {"sub": "mode"})
def _(site):
    (site.here / "sub").chmod(0o777)


@row("chown", ATTRIBUTES, {"f": "owner"})
def _(site):
    os.chown(site.f, 1000, -1)


@row("chgrp of a directory", ATTRIBUTES, {"sub": "owner"})
def _(site):
    os.chown(site.here / "sub", -1, 1000)


@row("chown of a symbolic link", ATTRIBUTES, {"link": "owner"})
def _(site):
    os.chown(site.here / "link", 1000, 1000, follow_symlinks=False)


@row("extended attribute", ATTRIBUTES, {"f": "xattr"})
def _(site):
    os.setxattr(site.f, "user.note", b"new")


@row("access control list", ATTRIBUTES, {"f": "xattr"})
def _(site):
    os.setxattr(site.f, "system.posix_acl_access", ACL)


@row("default access control list", ATTRIBUTES, {"sub": "xattr"})
def _(site):
    os.setxattr(site.here / "sub", "system.posix_acl_default", ACL)


@row("capability", ATTRIBUTES, {"f": "xattr"})
def _(site):
    os.setxattr(site.f, "security.capability", CAPABILITY)


@row("mtime", ATTRIBUTES, {"f": "mtime"})
def _(site):
    os.utime(site.f, ns=(0, 1_000_000_000_000_000_000))


@row("mode through a name outside", ATTRIBUTES, {"f": "mode"}, seen=Seen.SWEEP, prepare=lambda site: os.link(site.f, site.outside / "alias"))
def _(site):
    (site.outside / "alias").chmod(0o666)


@row("chattr +d", ATTRIBUTES, {"f": "flags"}, seen=Seen.SWEEP)
def _(site):
    set_flags(site.f, flags_of(site.f) | sys_.NODUMP)


@row("chattr +i by file_setattr(2)", ATTRIBUTES, {"f": "flags"}, seen=Seen.SWEEP, only_unsealed=True)
def _(site):
    sys_.set_flags_by_path(site.f, 0x8)


# Names ---------------------------------------------------------------------------------------------------------------

NAMES = "names"


@row("create", NAMES, {"new": "created"})
def _(site):
    (site.here / "new").write_bytes(b"new\n")


@row("create under a name that is no text", NAMES, {"\\x1b[2Ja\\x0ab\\xff": "created"})
def _(site):
    with open(os.fsencode(site.here) + b"/\x1b[2Ja\nb\xff", "wb"):
        pass


@row("O_TMPFILE, then linked", NAMES, {"new": "created"})
def _(site):
    with opened(site.here, os.O_TMPFILE | os.O_WRONLY) as handle:
        os.write(handle, b"new\n")
        sys_.link_open(handle, site.here / "new")


@row("directories and files in them at once, four deep", NAMES, {"n/n/n/n/deepest": "created"}, who=Who.WALK)
def _(site):
    (site.here / "n/n/n/n").mkdir(parents=True)
    (site.here / "n/n/n/n/deepest").write_bytes(b"new\n")


@row("symbolic link", NAMES, {"new": "created"})
def _(site):
    (site.here / "new").symlink_to("/etc/shadow")


@row("hard link within", NAMES, {"new": "created"})
def _(site):
    os.link(site.f, site.here / "new")


@row("hard link to it from outside", NAMES, {"f": "links"}, seen=Seen.SWEEP)
def _(site):
    os.link(site.f, site.outside / "alias")


@row("fifo", NAMES, {"new": "created"})
def _(site):
    os.mkfifo(site.here / "new")


@row("socket", NAMES, {"new": "created"})
def _(site):
    os.chdir(site.here)
    socket.socket(socket.AF_UNIX).bind("new")


@row("device node", NAMES, {"new": "created"})
def _(site):
    os.mknod(site.here / "new", 0o20600, os.makedev(1, 3))


@row("delete", NAMES, {"f": "deleted"})
def _(site):
    site.f.unlink()


@row("delete a tree", NAMES, {"sub/inner/i": "deleted", "sub": "deleted"}, who=Who.GONE)
def _(site):
    subprocess.run(["rm", "-rf", site.here / "sub"], check=True)


@row("rename within", NAMES, {"f": "deleted", "new": "created"})
def _(site):
    site.f.rename(site.here / "new")


@row("move out", NAMES, {"f": "deleted"})
def _(site):
    site.f.rename(site.outside / "f")


@row("move in over it", NAMES, {"f": "content"})
def _(site):
    (site.outside / "x").rename(site.f)


@row("exchange two within", NAMES, {"f": "inode", "g": "inode"})
def _(site):
    sys_.rename(site.f, site.here / "g", sys_.RENAME_EXCHANGE)


@row("exchange with one outside", NAMES, {"f": "content"})
def _(site):
    sys_.rename(site.f, site.outside / "x", sys_.RENAME_EXCHANGE)


@row("rename with a whiteout", NAMES, {"f": "type", "new": "created"}, only_on=frozenset({"ext4", "xfs", "btrfs", "tmpfs"}))
def _(site):
    sys_.rename(site.f, site.here / "new", sys_.RENAME_WHITEOUT)


@row("delete and make again, the same", NAMES, {"f": "inode"})
def _(site):
    before = site.f.stat()
    (site.here / "g2").write_bytes(TEXT)
    site.f.unlink()
    (site.here / "g2").rename(site.f)
    site.f.chmod(0o640)
    os.utime(site.f, ns=(before.st_mtime_ns, before.st_mtime_ns))


@row("replace by a symbolic link to the same", NAMES, {"f": "type"})
def _(site):
    site.f.rename(site.outside / "f")
    site.f.symlink_to(site.outside / "f")


@row("replace by a directory", NAMES, {"f": "type"})
def _(site):
    site.f.unlink()
    site.f.mkdir()


@row("point a symbolic link elsewhere", NAMES, {"link": "target"})
def _(site):
    (site.here / "link2").symlink_to("/etc")
    (site.here / "link2").rename(site.here / "link")


@row("replace a directory by a link to a copy", NAMES, {"sub": "type"})
def _(site):
    (site.here / "sub").rename(site.outside / "sub")
    (site.here / "sub").symlink_to(site.outside / "sub")


@row("move a populated tree in", NAMES, {"came/inner/i": "created"}, who=Who.WALK)
def _(site):
    (site.outside / "came/inner").mkdir(parents=True)
    (site.outside / "came/inner/i").write_bytes(b"new\n")
    (site.outside / "came").rename(site.here / "came")


@row("rename a directory, write into it, rename it back", NAMES, {"sub/inner/i": "content"}, who=Who.WALK)
def _(site):
    (site.here / "sub").rename(site.here / "away")
    with opened(site.here / "away/inner/i", os.O_WRONLY) as handle:
        os.pwrite(handle, b"X", 100)
    (site.here / "away").rename(site.here / "sub")


# The seal ------------------------------------------------------------------------------------------------------------

SEAL = "seal"


@row("chattr -i alone", SEAL, {"f": "seal"}, seen=Seen.LOOK, only_sealed=True)
def _(site):
    set_flags(site.f, flags_of(site.f) & ~sys_.IMMUTABLE)


@row("chattr -i, edit, chattr +i", SEAL, {"f": "content"}, only_sealed=True)
def _(site):
    flags = flags_of(site.f)
    set_flags(site.f, flags & ~sys_.IMMUTABLE)
    site.f.write_bytes(b"changed\n")
    set_flags(site.f, flags)


@row("chattr -i of the directory, delete, chattr +i", SEAL, {"f": "deleted"}, only_sealed=True)
def _(site):
    flags = flags_of(site.here)
    set_flags(site.here, flags & ~sys_.IMMUTABLE)
    set_flags(site.f, flags_of(site.f) & ~sys_.IMMUTABLE)
    site.f.unlink()
    set_flags(site.here, flags)


# Mounts --------------------------------------------------------------------------------------------------------------

MOUNTS = "mounts"


@row("bind mount over a file", MOUNTS, {"f": "mount"}, seen=Seen.TABLE)
def _(site):
    sys_.mount(str(site.outside / "x"), site.f, flags=sys_.MS_BIND)


@row("bind mount of a directory over itself", MOUNTS, {"sub": "mount"}, seen=Seen.TABLE)
def _(site):
    sys_.mount(str(site.here / "sub"), site.here / "sub", flags=sys_.MS_BIND)


@row("tmpfs over a directory", MOUNTS, {"sub": "mount"}, seen=Seen.TABLE)
def _(site):
    sys_.mount("tamper", site.here / "sub", "tmpfs")


@row("bind mount over a directory", MOUNTS, {"sub": "mount", "sub/h": "deleted"}, seen=Seen.TABLE)
def _(site):
    sys_.mount(str(site.outside), site.here / "sub", flags=sys_.MS_BIND)


@row("unmount what was mounted at lock", MOUNTS, {"vacant": "mount"}, seen=Seen.TABLE, prepare=lambda site: sys_.mount("tamper", site.here / "vacant", "tmpfs"))
def _(site):
    sys_.umount(site.here / "vacant")


@row("overlay over a directory", MOUNTS, {"sub": "mount"}, seen=Seen.TABLE, only_on=frozenset({"ext4", "xfs", "btrfs", "tmpfs"}))
def _(site):
    for name in ("upper", "work"):
        (site.outside / name).mkdir()
    layers = f"lowerdir={site.here / 'sub'},upperdir={site.outside / 'upper'},workdir={site.outside / 'work'}"
    sys_.mount("tamper", site.here / "sub", "overlay", data=layers)


# Above the root ------------------------------------------------------------------------------------------------------

ABOVE_THE_ROOT = "above the root"


def back(site: Site) -> None:
    site.above.with_name("away").rename(site.above)


@row("the directory above is renamed", ABOVE_THE_ROOT, {ABOVE: "root"}, seen=Seen.LOOK, undo=back)
def _(site):
    site.above.rename(site.above.with_name("away"))


@row("it is renamed, a file written, it is renamed back", ABOVE_THE_ROOT, {"f": "content"}, who=Who.WALK, undo=lambda site: None)
def _(site):
    site.above.rename(site.above.with_name("away"))
    try:
        with opened(site.above.with_name("away") / site.f.relative_to(site.above), os.O_WRONLY) as handle:
            os.pwrite(handle, b"X", 100)
    finally:
        back(site)


@row("chmod of the directory above", ABOVE_THE_ROOT, {ABOVE: "mode"}, seen=Seen.LOOK, undo=lambda site: site.above.chmod(0o755))
def _(site):
    site.above.chmod(0o777)


@row("tmpfs over the directory above", ABOVE_THE_ROOT, {ABOVE: "mount"}, seen=Seen.TABLE, undo=lambda site: sys_.umount(site.above))
def _(site):
    sys_.mount("tamper", site.above, "tmpfs")


# While guardd does not watch -------------------------------------------------------------------------------------------

UNWATCHED = "while guardd does not watch"


def without_seal(path: Path) -> None:
    set_flags(path, flags_of(path) & ~sys_.IMMUTABLE)


def unwatched(spell: Spell, seen: Seen) -> None:
    def edit(site: Site) -> None:
        without_seal(site.f)
        before = site.f.stat()
        site.f.chmod(0o640)
        with opened(site.f, os.O_WRONLY) as handle:
            os.pwrite(handle, b"X", 100)
        os.utime(site.f, ns=(before.st_mtime_ns, before.st_mtime_ns))

    def names(site: Site) -> None:
        for path in (site.here, site.here / "g"):
            without_seal(path)
        (site.here / "new").write_bytes(b"new\n")
        (site.here / "g").unlink()

    ROWS.append(Row(f"{spell.value}: overwrite, same size, mtime put back", UNWATCHED, edit, {"f": "content"}, seen=seen, spell=spell))
    ROWS.append(Row(f"{spell.value}: create and delete", UNWATCHED, names, {"new": "created", "g": "deleted"}, seen=seen, spell=spell))


unwatched(Spell.STOPPED, Seen.START)
unwatched(Spell.KILLED, Seen.START)
unwatched(Spell.STARTING, Seen.START)
unwatched(Spell.FROZEN, Seen.EVENT)


# What must raise nothing ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Control:
    """An act that changes nothing protected."""

    name: str
    act: Act


def read_all(site: Site) -> None:
    for path in sorted(site.here.rglob("*")):
        if path.is_file():
            path.read_bytes()
        os.listxattr(path, follow_symlinks=False)
    subprocess.run(["ls", "-laR", site.here], check=True, stdout=subprocess.DEVNULL)


def outside_only(site: Site) -> None:
    (site.outside / "x").write_bytes(b"changed\n")
    (site.outside / "new").mkdir()
    (site.outside / "x").rename(site.outside / "new/x")


def ignored(site: Site) -> None:
    for name in ("noise/n", "ignored.tmp"):
        path = site.here.parent / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"noise\n" * 100)
        path.chmod(0o600)
        path.unlink()


def nothing_new(site: Site) -> None:
    """Events of the kernel that nothing comes of."""
    site.f.chmod(site.f.stat().st_mode & 0o7777)
    with opened(site.f, os.O_RDWR):
        pass


def flock(site: Site) -> None:
    with opened(site.f, os.O_RDONLY) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
    os.utime(site.outside / "x")


CONTROLS = [
    Control("reading every file, listing every directory", read_all),
    Control("changes outside the tree", outside_only),
    Control("changes in ignored and writable paths", ignored),
    Control("a mode set to itself, a file opened for writing and not written", nothing_new),
    Control("a lock on a file (flock)", flock),
]
