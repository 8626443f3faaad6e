"""The operations that are cut short, each with how the world is made ready for it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import tree
from world import World


def never_locked(_world: World) -> None:
    pass


def locked(world: World) -> None:
    world.lock()


def changed_window(world: World) -> None:
    """A window in which a file was changed, one added and one removed."""
    world.lock()
    world.unlock()
    write(world, "compose.yml", "services: {}\n")
    write(world, "bin/new", "#!/bin/sh\n", mode=0o755)
    (world.root / "empty").rmdir()


def tampered(world: World) -> None:
    """Locked, and findings that can be accepted."""
    world.lock()
    write(world, "compose.yml", "services: {}\n")
    write(world, "bin/new", "#!/bin/sh\n", mode=0o775)
    (world.root / "odd").unlink()
    wait_for_findings(world, {"compose.yml", "bin/new", "odd"})


def weakened(world: World) -> None:
    """Locked, and the seal taken from two entries."""
    world.lock()
    (world.root / "bin/tool").chmod(0o4755)
    (world.root / "backend").chmod(0o2775)
    wait_for_findings(world, {"bin/tool", "backend"})


def write(world: World, name: str, text: str, mode: int | None = None) -> None:
    path = world.root / name
    path.write_text(text)
    if mode is not None:
        path.chmod(mode)
    os.utime(path, ns=(tree.WHEN_NS, tree.WHEN_NS))


def wait_for_findings(world: World, paths: set[str]) -> None:
    from world import until

    until(f"findings of {paths}", lambda: paths <= {f["path"] for a in world.alerts() for f in a["findings"]})


def break_links(world: World) -> dict:
    return world.lock(break_links=True)


def accept(world: World) -> dict:
    return world.call("Accept", paths=["compose.yml", "bin/new", "odd"], reason="meant so")


@dataclass(frozen=True)
class Case:
    """One operation. It starts in `begins` and leads to `ends`, both states that status names."""

    name: str
    operation: Callable[[World], dict]
    begins: str
    ends: str
    prepare: Callable[[World], object] = never_locked
    seal: str = "immutable"
    """With the immutable flag every step of a read-only seal is there, too."""
    generations: tuple[int, int] = (0, 1)
    """The baseline before and after."""
    is_piecewise: bool = False
    """Every entry is as before or as after by itself: there is no plan, because there is nothing to undo."""
    moves: frozenset[str] = field(default_factory=frozenset)
    """What gets another inode; the directory's time moves with it."""


CASES = [
    Case("lock", World.lock, "unlocked", "locked"),
    Case("unlock", World.unlock, "locked", "unlocked", locked, generations=(1, 1)),
    Case("lock-after-window", World.lock, "unlocked", "locked", changed_window, generations=(1, 2)),
    Case("break-links", break_links, "unlocked", "locked", moves=frozenset({"backend/linked.py"})),
    Case("accept", accept, "locked", "locked", tampered, "read-only", (1, 2)),
    Case("repair", World.lock, "locked", "locked", weakened, "read-only", (1, 1), is_piecewise=True),
]  # fmt: skip

