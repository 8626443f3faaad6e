"""The operations that are cut short, each with how the world is made ready for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import tree
import varlink
from linux import until
from steps import Step
from world import ENVIRONMENT, World


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
    until(f"findings of {paths}", lambda: paths <= {f["path"] for f in world.findings()})


TAMPERED = frozenset({"compose.yml", "bin/ping", "odd", "twin", ".env.prod", "bin/new", "backend/added"})
"""What `tamper` leaves to be found."""
SHOWN = TAMPERED | {"backend", "bin", "backend/twin"}
"""With what shows the same: directories that were opened, the other name of a hard link."""
MADE_ANEW = frozenset({"compose.yml", "bin/ping", "odd"})
"""What gets another inode when it is put back."""


def tamper(world: World) -> None:
    """As somebody with root's rights would: the seal lifted, then a content, a deletion (with its capability), two other
    types, one of them a name of a hard link, a mode, a file and a directory too many.
    """
    root = world.root
    for path in (root / "compose.yml", root / "bin", root / "bin/ping", root / "odd", root / "twin", root / ".env.prod", root / "backend"):
        tree.set_flags(path, tree.flags_of(path) & ~tree.IMMUTABLE_FLAG)
    write(world, "compose.yml", "services: {evil: {}}\n", mode=0o644)
    (root / "bin/ping").unlink()
    (root / "odd").unlink()
    (root / "odd").mkdir()
    write(world, "odd/inside", "of another type\n")
    (root / "twin").unlink()
    (root / "twin").symlink_to("/etc/passwd")
    (root / ".env.prod").chmod(0o666)
    write(world, "bin/new", "#!/bin/sh\n", mode=0o4755)
    (root / "backend/added/deep").mkdir(parents=True)
    write(world, "backend/added/deep/er", "added\n")
    for path in ("odd", "backend/added/deep", "backend/added", "backend", "bin", "."):
        os.utime(root / path, ns=(tree.WHEN_NS + 1_000_000_000,) * 2)
    os.utime(root / "twin", ns=(tree.WHEN_NS,) * 2, follow_symlinks=False)


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


TAMPERED_WITH = {
    "compose.yml": digest_of("services: {evil: {}}\n"), "odd/inside": digest_of("of another type\n"), "twin": "/etc/passwd",
    "bin/new": digest_of("#!/bin/sh\n"), "backend/added/deep/er": digest_of("added\n"),
}  # fmt: skip
"""What `tamper` leaves that has to be kept when it is taken away: the SHA-256 of the content, or a link's target."""


def wrecked(world: World) -> None:
    world.lock()
    tamper(world)
    wait_for_findings(world, set(TAMPERED))


def restore(world: World) -> dict:
    """Everything; what is left or lacks something is no success."""
    result = world.call("Restore", paths=["."])["result"]
    if incomplete := result["skipped"] + result["remarks"]:
        raise varlink.Refused("Incomplete", {"left": incomplete})
    return result


def put_back_by_itself(world: World) -> None:
    """Tampers in one moment, while the daemon is stopped, and waits until guardd is done with it."""
    world.at_once(lambda: tamper(world))

    def settled() -> bool:
        if world.is_dead():
            raise ConnectionResetError("the daemon is dead")
        found = world.findings()
        return TAMPERED <= {f["path"] for f in found if f["restored"]} or any(is_put_back_trouble(t) for t in world.degraded())

    until("everything to be put back", settled)
    if troubles := [trouble for trouble in world.degraded() if is_put_back_trouble(trouble)]:
        raise varlink.Refused("Incomplete", {"left": troubles})


def is_put_back_trouble(text: str) -> bool:
    return "put back" in text


def many_backups(world: World) -> None:
    """As many backups as are kept, the older of which shares nothing with the next one."""
    world.lock()
    world.unlock()
    for content in ("one", "two"):
        for path in (p for p in world.root.rglob("*") if p.is_file() and not p.is_symlink()):
            write(world, str(path.relative_to(world.root)), f"{content} of {path.name}\n")
        if content == "one":
            create_backup(world)


def is_backed_up(world: World) -> bool:
    """One more than `many_backups` made."""
    return world.newest_backup() > 3


def create_backup(world: World) -> dict:
    result = world.call("CreateBackup", note="by hand")["result"]
    if result["warnings"] != ["there is no recovery key"] and any("not in the backup" in w for w in result["warnings"]):
        raise varlink.Refused("Incomplete", {"left": result["warnings"]})
    return result


NEW_RELEASE = (
    "echo release > compose.yml; rm bin/ping; mkdir new; echo x > new/file; chmod 0640 backend/main.py; "
    "touch -d '2020-09-13 12:26:40.123456789 UTC' compose.yml new/file new backend bin ."
)
"""A content, a deletion, an addition, a mode: what the step of a deployment does."""
DEPLOYS = f"""
[environments.{ENVIRONMENT}.deploy]
run_as = "root"
opens_window = true
steps = [{{ name = "release", run = {json.dumps(NEW_RELEASE)} }}]
"""


def deploy(world: World) -> dict:
    ended = world.call("Deploy", revision="v2", reason="a release", force=[])["deployment"]
    if ended["end"] != "done":
        raise varlink.Refused("Incomplete", {"left": ended["why"]})
    return ended


def is_deployed(world: World) -> bool:
    """The last deployment, where one was begun: how it ended, once guardd is done with it."""

    def last() -> dict | None:
        begun = world.call("ListDeployments", environment=ENVIRONMENT)["deployments"]
        return {"end": "none"} if not begun else begun[-1] if begun[-1]["end"] else None

    return until("the deployment's end", last)["end"] == "done"


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
    """What gets another inode."""
    stirs: frozenset[str] = field(default_factory=frozenset)
    """Directories whose time moves with it, and is not compared."""
    settings: str = ""
    """Of the environment, beside the usual ones."""
    interrupted: Callable[[Step], bool] | None = None
    """The operation was killed before the last step of which this is true; what is cut short is the recovery."""
    by_itself: bool = False
    """What is not done is done after the next start, without being asked for; it opens an alert, too."""
    has_happened: Callable[[World], bool] | None = None
    """Tells where status and tree do not."""

    @property
    def is_put_back(self) -> bool:
        """Restores, by a command or by itself."""
        return "restore" in self.name

    @property
    def house(self) -> str:
        """What cases share that are configured alike."""
        return "-".join([self.seal, *re.findall(r"\w+", self.settings)])[:40]


CASES = [
    Case("lock", World.lock, "unlocked", "locked"),
    Case("unlock", World.unlock, "locked", "unlocked", locked, generations=(1, 1)),
    Case("lock-after-window", World.lock, "unlocked", "locked", changed_window, generations=(1, 2)),
    Case("break-links", break_links, "unlocked", "locked", moves=frozenset({"backend/linked.py"}), stirs=frozenset({"backend"})),
    Case("accept", accept, "locked", "locked", tampered, "read-only", (1, 2)),
    Case("repair", World.lock, "locked", "locked", weakened, "read-only", (1, 1), is_piecewise=True),
    Case("restore", restore, "locked", "locked", wrecked, generations=(1, 1), is_piecewise=True, moves=MADE_ANEW | {"twin"} | {"twin"}),
    Case("self-restore", put_back_by_itself, "locked", "locked", locked, generations=(1, 1), moves=MADE_ANEW,
         settings='on_tamper = "restore"\n', by_itself=True),
    Case("backup", create_backup, "unlocked", "unlocked", many_backups, generations=(1, 1), settings="backup.keep = 2\n",
         has_happened=is_backed_up),
    Case("deploy", deploy, "locked", "locked", locked, generations=(1, 2), settings=DEPLOYS, has_happened=is_deployed,
         moves=frozenset({"compose.yml", "bin/ping"})),
]  # fmt: skip


def seals(step: Step) -> bool:
    """Everything is sealed, or still is, and nothing else is done."""
    return step.call == "ioctl" and step.files[0].startswith("tree/app/")


def empties(step: Step) -> bool:
    """What was replaced is kept, and still at its temporary name."""
    return step.call == "unlinkat" and step.files[0] == "tree/app/.guardd-RANDOM"


def fills(step: Step) -> bool:
    """A copy is half made."""
    return step.call == "ftruncate" and step.files[0].startswith("tree/app/.guardd-")


BY_NAME = {case.name: case for case in CASES}
RECOVERIES = [
    replace(BY_NAME[of], name=f"recovery of {of}{how}", interrupted=when, is_piecewise=False)
    for of, how, when in (("lock", "", seals), ("unlock", "", seals), ("restore", ", replaced", empties), ("restore", ", half made", fills))
]
