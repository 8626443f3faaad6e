"""Which points are tried, and what is told of them."""

from __future__ import annotations

import re
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import points
from cases import CASES, Case
from outcomes import Fault, Outcome, Recording
from steps import NEEDS_SPACE, Step
from world import IS_FULL, Layout, World

FOLLOWS = ("state/guardd.db", "state/sinks/", "log/", "state/heartbeat")
"""What is written after the ledger and made anew from it: it decides nothing."""
FEW = 2
"""So many of those are tried."""
TRIES = 3
"""On a busy machine two writes become one, or the work of another thread comes after the end: a step that does not come is
tried again.
"""
COMMITS = (
    re.compile(r"fdatasync state/ledger/"),
    re.compile(r"(rename|renameat|renameat2|unlink) state/(plans|locks|baseline|backups)/(?!.*proofs)"),
    re.compile(r"renameat2 tree/"),
    re.compile(r"fsync state/quarantine/.*contents\.jsonl"),
    re.compile(r"syncfs"),
)
"""Steps at which something is decided: each is always tried."""


def is_commit(step: Step) -> bool:
    return any(pattern.match(str(step)) for pattern in COMMITS)


def spread(steps: list[Step], most: int) -> list[Step]:
    """At most so many of them, evenly."""
    if len(steps) <= most:
        return steps
    return [steps[(2 * number + 1) * len(steps) // (2 * most)] for number in range(most)]


def sample(steps: list[Step], most: int) -> list[Step]:
    """Every commit point, `most` of the other steps, and a few of those that only follow."""
    commits = [step for step in steps if is_commit(step)]
    follow = [step for step in steps if step.files[0].startswith(FOLLOWS)]
    rest = [step for step in steps if not is_commit(step) and not step.files[0].startswith(FOLLOWS)]
    return [*commits, *spread(rest, most), *spread(follow, FEW)]


class Matrix:
    """Operations that are recorded once and then cut short at their steps, side by side."""

    def __init__(self, top: Path, pool: ProcessPoolExecutor):
        self._top, self._pool = top, pool
        self._recorded: dict[tuple[str, Layout], tuple[World, Path, Recording]] = {}

    def record(self, case: Case, layout: Layout) -> tuple[World, Path, Recording]:
        """The world of a case, its image, and the operation undisturbed."""
        key = case.name, layout
        if key not in self._recorded:
            top = self._top / f"{case.house}-{layout.value}"
            world = World(top, case.seal, case.settings, layout)
            if not top.exists():
                top.mkdir()
                world.configure()
            image = self._top / f"images/{case.name.replace(' ', '-')}-{layout.value}"
            if case.interrupted:
                _, whole, of = self.record(next(c for c in CASES if c.operation is case.operation and c.name in case.name), layout)
                step = [step for step in of.steps if case.interrupted(step)][-1]
                recording = self._pool.submit(points.interrupt_and_record, case, world, whole, image, step).result()
            else:
                recording = self._pool.submit(points.prepare_and_record, case, world, image).result()
            self._recorded[key] = world, image, recording
        return self._recorded[key]

    def cut(self, case: Case, fault: Fault, most: int, layout: Layout = Layout.TOGETHER) -> None:
        """Tries the commit points and `most` of the other steps (all of them in a full run); fails with what did not hold."""
        began = time.monotonic()
        world, image, recording = self.record(case, layout)
        steps = [step for step in recording.steps if not fault.lives or step.call in NEEDS_SPACE]
        tried = steps if IS_FULL else sample(steps, most)
        commits = sum(is_commit(step) for step in steps)
        # And one that is not disturbed before its answer: what is done must last.
        outcomes: list[Outcome] = []
        left: list[Step | None] = [*tried, None]
        for _ in range(TRIES):
            todo = [self._pool.submit(points.attempt, case, world, image, recording, fault, step) for step in left]
            outcomes = [o for o in outcomes if o.step not in left] + [point.result() for point in todo]
            left = [o.step for o in outcomes if o.is_missed and not o.problems]
        report(outcomes, len(steps), commits, time.monotonic() - began)


def report(outcomes: list[Outcome], steps: int, commits: int, seconds: float) -> None:
    """Prints what was tried, and fails where anything did not hold."""
    first = outcomes[0]
    ends = Counter(outcome.became for outcome in outcomes)
    missed = [outcome.step for outcome in outcomes if outcome.is_missed]
    shares = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    tried = f"{len(outcomes)} points tried of {steps + 1}, with all {commits} commit points"
    print(f"{first.case}, {first.fault.value}: {tried}, in {seconds:.0f} s: {shares}; {len(missed)} not reached")
    bad = [outcome for outcome in outcomes if outcome.problems]
    told = "\n".join(f"{outcome}\n" + "\n".join(f"    {problem}" for problem in outcome.problems) for outcome in bad)
    assert not bad, f"{len(bad)} of {len(outcomes)} points:\n{told}"
    # What a recording on a busy machine had of another thread's work may never come again. Most of it has to.
    never = "\n".join(map(str, missed))
    assert len(missed) * 2 < len(outcomes), f"{len(missed)} of {len(outcomes)} steps did not come in {TRIES} tries:\n{never}"
