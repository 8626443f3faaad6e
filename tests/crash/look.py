"""Whether everything is right after an operation that was cut short."""

from __future__ import annotations

import contextlib
import re
import time
import traceback
from collections.abc import Iterator

import agreement
import tree
from cases import SHOWN, TAMPERED, TAMPERED_WITH, Case
from linux import until
from outcomes import Outcome, Recording
from steps import Step
from world import ENVIRONMENT, World


class Look:
    """What was there before an operation, and whether what is there afterwards is right."""

    def __init__(self, world: World, case: Case, recording: Recording):
        self._world, self._case, self._recording = world, case, recording
        self._inodes = tree.inodes(world.root)

    def compare(self, outcome: Outcome) -> list[str]:
        """What does not hold; says in `outcome` what became of the operation."""
        try:
            outcome.became = self._settled()
            problems = [*self._now(outcome), *self._next(outcome)]
        except Exception:  # noqa: BLE001 (told with the rest)
            problems = [traceback.format_exc()]
        return [*problems, self._world.said.read_text()] if problems else []

    def _picture(self) -> dict[str, dict]:
        return loose(self._case, tree.picture(self._world.root))

    def _settled(self) -> str:
        """Which of its two ends the operation came to, by what status says."""
        site, case = self._world.site(), self._case
        if case.by_itself:
            self._begin_again()
            until("everything to be put back", self._is_put_back)
            until("no operation", lambda: not self._world.site()["operation"])
            return "after"
        if case.has_happened:
            return "after" if case.has_happened(self._world) else "before"
        said = site["state"], site["generation"] or 0
        if case.interrupted:
            if said != self._recording.ended:
                raise AssertionError(f"status says {said}, and recovery led to {self._recording.ended} before")
            return "after"
        ends = {"before": (case.begins, case.generations[0]), "after": (case.ends, case.generations[1])}
        if ends["before"] == ends["after"]:
            return "after" if self._picture() == self._recording.after else "before"
        for end, meant in ends.items():
            if said == meant:
                return end
        raise AssertionError(f"status says {said}, which is neither before nor after")

    def _is_put_back(self) -> bool:
        # guardd is at work: what is listed may be gone, or be another thing, when it is looked at.
        with contextlib.suppress(OSError):
            return self._picture() == self._recording.after
        return False

    def _begin_again(self) -> None:
        """What guardd does not put back any more is put back when somebody has looked."""
        for trouble in self._world.degraded():
            if alert := re.search(r"guardctl alerts ack (\d+)", trouble):
                self._world.call("AcknowledgeAlert", id=int(alert[1]), note="there is space again")

    def _now(self, outcome: Outcome) -> Iterator[str]:
        """Tree, state, lock file, ledger and status agree, and nothing is left over."""
        world, case, recording = self._world, self._case, self._recording
        began = time.monotonic()
        # What waits for space is tried again by and by.
        until("the end of all trouble", lambda: not self._troubles(outcome) or time.monotonic() - began > 60)
        yield from (f"degraded: {trouble}" for trouble in self._troubles(outcome))
        now = self._picture()
        ends = [recording.before if outcome.became == "before" else recording.after]
        if outcome.fault.lives and case.stirs:
            # A link that could not be broken is left, with a warning.
            ends[0] = ends[0] | {path: now[path] for path in case.moves if now[path] == recording.before[path]}
        if case.is_piecewise:
            ends = [recording.before, recording.after]
        if case.is_piecewise and outcome.fault.lives:
            # Attributes are given one by one, and the answer says which could not be.
            ends.append({path: mixed(look, *(end.get(path) for end in ends)) for path, look in now.items()})
        if case.is_piecewise:
            paths = now.keys() | recording.before.keys() & recording.after.keys()
            yield from (f"{path} is neither as before nor as after: {now.get(path)}" for path in paths if all(e.get(path) != now.get(path) for e in ends))
        else:
            yield from tree.difference(ends[0], now)
        yield from (f"outside: {what}" for what in tree.difference(recording.outside, tree.picture(world.outside)))
        inodes = tree.inodes(world.root)
        yield from (f"{p}: another inode" for p, i in self._inodes.items() if inodes.get(p, i) != i and p not in case.moves)
        if outcome.answered == "done" and outcome.became != "after":
            yield "it was answered that it is done, and it is not"
        if outcome.fault.lives and outcome.answered != "done":
            if "No space left on device" not in outcome.answered:
                yield f"the answer does not say what is wrong: {outcome.answered}"
            if outcome.became == "after" and not case.is_piecewise and not case.by_itself:
                yield f"it was answered that it failed, and it is done: {outcome.answered}"
        site = world.site()
        if site["generation"]:
            says = world.lock_file_says()
            yield from (f"the lock file says {says[n]}, status {site[n]}" for n in ("state", "generation") if says[n] != site[n])
        yield from self._alerts(outcome)
        # A deployment is done, too, where its lock failed once and was tried again.
        failed = outcome.fault.lives and (outcome.answered != "done" or case.name == "deploy")
        yield from agreement.of_backups(world, lives=outcome.fault.lives, failed=failed)
        yield from agreement.of_quarantine(world, self._taken())
        yield from self._put_back(now, outcome)
        verified = world.call("VerifyLog")["result"]
        if not verified["ok"]:
            yield f"the ledger does not verify: {verified}"
        in_state = [f for f in world.files() if f.endswith((".new", ".tmp", ".old")) or f.startswith("plans/")]
        # Of those there is more to say: see `agreement`.
        in_state = [f for f in in_state if not f.startswith("backups/")]
        plan = f"plans/{ENVIRONMENT}.jsonl"
        if outcome.fault.lives and outcome.step and is_undecided(outcome.step, case) and plan in in_state:
            # Done, and not known to be on the disk: the plan stays for the next start.
            in_state.remove(plan)
        in_tree = [str(p) for p in world.root.rglob(".guardd-*")]
        yield from (f"left over: {name}" for name in in_state + in_tree)

    def _alerts(self, outcome: Outcome) -> Iterator[str]:
        """There is one of what somebody did, and none of what guardd did."""
        world, found = self._world, set()
        for alert in world.alerts():
            if alert["id"] in self._recording.alerts and not self._case.by_itself:
                continue
            if alert["title"].startswith("guardd does not put back") and outcome.fault.lives:
                continue
            paths = {finding["path"] for finding in alert["findings"]}
            found |= paths
            half = outcome.became == "before" and self._case.is_piecewise or self._case.interrupted
            if half and paths == {"backend/twin"}:
                # Its seal is back and its other name is not: that is news.
                continue
            if outcome.fault.lives and outcome.answered != "done" and self._case.is_put_back and paths and all(is_within(path, SHOWN) for path in paths):
                # What it could not do whole is told, also by an alert.
                continue
            if not self._case.by_itself or not paths or not all(is_within(path, SHOWN) for path in paths):
                yield f"an alert: {alert['title']} {sorted(paths)}"
        if world.was_changed:
            yield from (f"no alert of {path}" for path in sorted(TAMPERED - found))

    def _taken(self) -> dict[str, str]:
        """What somebody put into the tree and guardd takes away."""
        return TAMPERED_WITH if self._world.was_changed or self._case.is_put_back and not self._case.by_itself else {}

    def _put_back(self, now: dict[str, dict], outcome: Outcome) -> Iterator[str]:
        """The ledger tells of every path that came back."""
        if not self._taken() or self._case.interrupted:
            return
        if outcome.fault.lives and outcome.answered != "done":
            # What was put right and is not known to last has not been put back; that it is right again is seen later.
            return
        told = {standing["path"] for e in self._world.events() if e["event"] == "restored" for standing in e["paths"]}
        after = self._recording.after
        back = {path for path in TAMPERED & after.keys() if now.get(path) == after[path]}
        yield from (f"the ledger does not say that {path} came back" for path in sorted(back - told))

    def _troubles(self, outcome: Outcome) -> list[str]:
        """What status says is wrong. That the ledger could not be written is said until something is written to it again."""
        waits = "the ledger cannot be written" if outcome.fault.lives and not outcome.is_over else "nothing"
        return [trouble for trouble in self._world.status()["daemon"]["degraded"] if not trouble.startswith(waits)]

    def _next(self, outcome: Outcome) -> Iterator[str]:
        """The next operations work, and at last everything is open as it was."""
        world, case, recording = self._world, self._case, self._recording
        if case.interrupted and case.is_put_back:
            case.operation(world)
        elif outcome.became == "before" or case.is_piecewise:
            case.operation(world)
            yield from (f"again: {what}" for what in tree.difference(recording.after, self._picture()))
        if world.site()["state"] == "unlocked" and not case.is_put_back:
            world.lock()
        if world.site()["state"] == "locked":
            if case.name != "accept":
                yield from (f"check: {f['path']} {f['change']}" for f in world.call("Check")["result"]["findings"])
            world.unlock()
        outcome.is_over = True
        yield from (f"still degraded: {trouble}" for trouble in self._troubles(outcome))
        yield from (f"opened: {what}" for what in tree.difference(recording.opened, self._picture()))
        known = {int(e["generation"]) for e in world.events() if e["event"] in ("locked", "accepted")}
        kept = {int(f.name) for f in (world.state / f"baseline/{ENVIRONMENT}").iterdir()}
        if kept - known:
            yield f"baselines {sorted(kept - known)} that the ledger does not know"


def loose(case: Case, picture: dict[str, dict]) -> dict[str, dict]:
    """The time of a directory in which a name got another inode is not compared."""
    for path in case.stirs:
        picture[path].pop("mtime")
    return picture


def is_undecided(step: Step, case: Case) -> bool:
    """What an operation did is done, but whether it lasts is not known where this step fails."""
    if case.ends == "unlocked":
        return step.call == "syncfs"
    return case.is_put_back and step.files[0].startswith("state/ledger/")


def mixed(now: dict, before: dict | None, after: dict | None) -> dict | None:
    """What is there now, if each attribute is as before or as after."""
    if before is None or after is None:
        return before or after
    return now if all(value in (before.get(name), after.get(name)) for name, value in now.items()) else None


def is_within(path: str, tops: frozenset[str]) -> bool:
    """One of them, or below one."""
    return any(path == top or path.startswith(f"{top}/") for top in tops)


