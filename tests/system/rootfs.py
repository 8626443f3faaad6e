"""Debian root file systems for the machines: disk images, made once with mmdebstrap, then copied for each machine.

An image rather than a directory: it is copied and thrown away in no time, however many files a test has put in it, and
each machine has an ext4 of its own.

`python3 rootfs.py [RELEASE…]` makes what is missing, so that `tests/run` can do it before any clock runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

from paths import CACHE

RELEASES = ("bookworm", "trixie")
"""Debian 12 and 13."""

PACKAGES = (
    # What makes it boot.
    "systemd", "systemd-sysv", "dbus", "procps",
    # What people and intruders change files with.
    "acl", "attr", "e2fsprogs", "git", "rsync", "vim-tiny",
    # What the tests drive and verify with; python3 is also what some intruders are written in.
    "age", "jq", "logrotate", "openssh-client", "python3", "sudo", "zstd",
)


def ensure(release: str) -> Path:
    """The image of a root file system of `release`, made if it is not in the cache. Never mounted itself: copy it."""
    if release not in RELEASES:
        raise ValueError(f"unknown Debian release {release!r}: one of {', '.join(RELEASES)}")
    recipe = hashlib.sha256("\n".join((release, *PACKAGES, CUSTOMIZE)).encode()).hexdigest()[:12]
    target = CACHE / f"rootfs-{release}-{recipe}.ext4"
    with locked(CACHE / f"rootfs-{release}.lock"):
        if not target.is_file():
            make(release, target)
            for old in CACHE.glob(f"rootfs-{release}-*"):
                if old != target:
                    old.unlink()
    return target


SIZE = "6G"
"""Of the file system. The image file holds only what is used of it."""

INODES = 600_000

CUSTOMIZE = """
mkdir -p "$1/var/log/journal"
: > "$1/etc/machine-id"
rm -f "$1/etc/hostname"
printf '127.0.0.1 localhost\\n' > "$1/etc/hosts"
"""
"""Run on the fresh root: a journal that survives reboots, and nothing that two machines would share."""


def make(release: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(prefix=f"{target.name}.", dir=CACHE) as building:
        root, image = Path(building, "root"), Path(building, "image")
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}",
             f"--customize-hook={CUSTOMIZE}", release, str(root)],
            check=True,
        )
        subprocess.run(
            ["mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1,lazy_journal_init=1", "-N", str(INODES),
             "-d", str(root), str(image), SIZE],
            check=True,
        )
        image.rename(target)


@contextmanager
def locked(path: Path):
    """Holds an exclusive lock on `path`, so that two test processes do not build the same thing twice."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    for name in sys.argv[1:] or RELEASES:
        print(ensure(name))
