"""File systems to tamper with, each mounted for this process and its children alone."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import syscalls as sys_

IMAGE_MIB = {"ext4": 128, "xfs": 320, "btrfs": 192}


@dataclass(frozen=True)
class Place:
    """A mounted file system."""

    top: Path
    """Where it is mounted."""
    device: Path | None = None
    """The block device below it."""
    lower: Path | None = None
    """The lower layer of an overlay."""


def on_device(kind: str) -> Callable[[Path], Place]:
    def make(work: Path) -> Place:
        image, top = work / "image", work / "fs"
        top.mkdir()
        with image.open("wb") as file:
            file.truncate(IMAGE_MIB[kind] << 20)
        subprocess.run([f"mkfs.{kind}", "-q", "-F" if kind == "ext4" else "-f", image], check=True, stderr=subprocess.DEVNULL)
        # The loop device goes with its last mount, which goes with this process.
        subprocess.run(["mount", "-o", "loop", image, top], check=True)
        device = subprocess.run(["findmnt", "-no", "SOURCE", top], check=True, capture_output=True, text=True).stdout.strip()
        return Place(top, Path(device))

    return make


def tmpfs(work: Path) -> Place:
    top = work / "fs"
    top.mkdir()
    sys_.mount("tamper", top, "tmpfs", data="size=64m")
    return Place(top)


def overlayfs(work: Path) -> Place:
    layers = {name: work / name for name in ("lower", "upper", "layer", "fs")}
    for path in layers.values():
        path.mkdir()
    return Place(layers["fs"], lower=layers["lower"])


def lay_over(place: Place) -> None:
    """Mounts the overlay, once its lower layer is furnished."""
    work = place.top.parent
    sys_.mount("tamper", place.top, "overlay", data=f"lowerdir={work}/lower,upperdir={work}/upper,workdir={work}/layer,redirect_dir=on")


PLACES: dict[str, Callable[[Path], Place]] = {
    "ext4": on_device("ext4"),
    "xfs": on_device("xfs"),
    "btrfs": on_device("btrfs"),
    "tmpfs": tmpfs,
    "overlayfs": overlayfs,
}


def why_not(kind: str) -> str | None:
    """Why a file system cannot be had here; `None` where it can."""
    if kind in IMAGE_MIB and not shutil.which(f"mkfs.{kind}"):
        return f"mkfs.{kind} is not installed"
    names = {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}
    name = "overlay" if kind == "overlayfs" else kind
    if name not in names and subprocess.run(["modprobe", name], capture_output=True, check=False).returncode != 0:
        return f"this kernel has no {name}"
    return None
