"""A control group of its own for each machine, in every hierarchy that systemd manages.

systemd-nspawn --keep-unit puts a machine into the group `payload` below the caller's. Machines started by one caller would
share it: each one's systemd would take the other's `/system.slice/guardd.service` for its own, and kill what is in there.
"""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "guardd-test-"


def of_machine(name: str) -> list[Path]:
    """The machine's groups below the caller's own, whether or not they are there."""
    return [group / f"{PREFIX}{name}" for group in own()]


def enter(groups: list[Path]) -> None:
    """Moves the calling process into them. For a child between fork and exec: does nothing but system calls."""
    for group in groups:
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text("0")


def end(groups: list[Path]) -> None:
    """Kills what is left in cgroup v2 groups."""
    for group in groups:
        try:
            (group / "cgroup.kill").write_text("1")
        except OSError:
            pass  # Gone already, or v1: nothing of a machine is in those alone.


def remove(groups: list[Path]) -> bool:
    """Removes them with all below. False while a process is still in one."""
    for group in groups:
        for directory, _, _ in os.walk(group, topdown=False):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                pass
            except OSError:
                return False
    return True


def own() -> list[Path]:
    """Where the caller is, in cgroup v2 and in systemd's own v1 hierarchy (proc(5), cgroups(7))."""
    mounts = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, point = before.split()[3:5]
        kind, _, options = after.split()[:3]
        if kind == "cgroup2":
            mounts[""] = (root, point)
        elif kind == "cgroup" and "name=systemd" in options.split(","):
            mounts["name=systemd"] = (root, point)
    found = []
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, hierarchy, path = line.split(":", 2)
        if hierarchy in mounts:
            root, point = mounts[hierarchy]
            found.append(Path(point) / os.path.relpath(path, root))
    return found
