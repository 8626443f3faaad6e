"""Debian root file systems for the machines: made once with mmdebstrap, then copied for each machine.

`python3 rootfs.py [RELEASE…]` makes what is missing, so that `tests/run` can do it before any clock runs.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
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
    "jq", "logrotate", "openssh-client", "python3", "sudo",
)


def ensure(release: str) -> Path:
    """The directory of a root file system of `release`, made if it is not in the cache. Never booted itself: copy it."""
    if release not in RELEASES:
        raise ValueError(f"unknown Debian release {release!r}: one of {', '.join(RELEASES)}")
    recipe = hashlib.sha256("\n".join((release, *PACKAGES, CUSTOMIZE)).encode()).hexdigest()[:12]
    target = CACHE / f"rootfs-{release}-{recipe}"
    with locked(CACHE / f"rootfs-{release}.lock"):
        if not target.is_dir():
            make(release, target)
            for old in CACHE.glob(f"rootfs-{release}-*"):
                if old != target:
                    shutil.rmtree(old)
    return target


CUSTOMIZE = """
mkdir -p "$1/var/log/journal"
: > "$1/etc/machine-id"
rm -f "$1/etc/hostname"
printf '127.0.0.1 localhost\\n' > "$1/etc/hosts"
"""
"""Run on the fresh root: a journal that survives reboots, and nothing that two machines would share."""


def make(release: str, target: Path) -> None:
    building = target.with_name(target.name + f".{os.getpid()}.tmp")
    command = [
        "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}",
        f"--customize-hook={CUSTOMIZE}", release, str(building),
    ]
    try:
        subprocess.run(command, check=True)
        building.rename(target)
    finally:
        if building.exists():
            shutil.rmtree(building)


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
