"""What the tests of whole daemons share: waiting for something, mounts of their own, inode flags."""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import time
from collections.abc import Callable

PATIENCE_SECONDS = 120
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x00020000, 0x4000, 0x40000
GETFLAGS, SETFLAGS = 0x80086601, 0x40086602
LAYOUT_FLAGS = 0x00080000 | 0x00001000 | 0x10000000
"""Those that only echo how a file system lays it out: extents, index, inline data."""

libc = ctypes.CDLL(None, use_errno=True)


def until(what: str, holds: Callable[[], object], patience: float = PATIENCE_SECONDS):
    """Waits until `holds` gives something true, and gives it back."""
    deadline = time.monotonic() + patience
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.002)
    return found


def private_mounts() -> None:
    """From now on this process and its children mount for themselves only."""
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "cannot have mounts of its own")


def flags_of(path: os.PathLike | str) -> int:
    """All inode flags of a file or directory."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        held = array.array("l", [0])
        fcntl.ioctl(handle, GETFLAGS, held)
        return held[0] & 0xFFFFFFFF
    finally:
        os.close(handle)


def set_flags(path: os.PathLike | str, flags: int) -> None:
    """Sets inode flags; those of the layout stay as they are."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        kept = flags_of(path) & LAYOUT_FLAGS
        fcntl.ioctl(handle, SETFLAGS, array.array("l", [flags & ~LAYOUT_FLAGS | kept]))
    finally:
        os.close(handle)
