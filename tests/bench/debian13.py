"""Debian 13's aide, run from a root file system of its own: a copy of the one that the system tests boot."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

IMAGE = "aide-trixie.ext4"


def image(cache: Path) -> Path | None:
    """The image with aide in it, made at the first use from the system tests' (`tests/system/rootfs.py trixie`)."""
    target = cache / IMAGE
    sources = sorted(cache.glob("rootfs-trixie-*.ext4"))
    if target.exists() or not sources:
        return target if target.exists() else None
    building = cache / f"{IMAGE}.new"
    subprocess.run(["cp", "--sparse=always", sources[0], building], check=True)
    with mounted(building, cache) as top:
        (top / "etc/resolv.conf").write_bytes(Path("/etc/resolv.conf").read_bytes())
        for step in (["update"], ["install", "-y", "--no-install-recommends", "aide"]):
            done = subprocess.run(["chroot", top, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", *step], capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr[-1000:], file=sys.stderr)
                building.unlink()
                return None
    building.rename(target)
    return target


@contextlib.contextmanager
def mounted(path: Path, work: Path, *inside: Path) -> Iterator[Path]:
    """The image's root, in which the directories `inside` are where they are outside."""
    top = work / "debian-13"
    top.mkdir(exist_ok=True)
    mounts = [top]
    subprocess.run(["mount", "-o", "loop", path, top], check=True)
    try:
        for directory in (Path("/proc"), Path("/dev"), *inside):
            there = top / directory.relative_to("/")
            there.mkdir(parents=True, exist_ok=True)
            subprocess.run(["mount", "--bind", directory, there], check=True)
            mounts.append(there)
        yield top
    finally:
        for there in reversed(mounts):
            subprocess.run(["umount", there], check=False)
