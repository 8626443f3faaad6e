"""Which points are tried, and what is told of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import points
from cases import Case
from points import Fault, Outcome, Recording
from steps import NEEDS_SPACE, Step
from world import IS_FULL, Layout, World

FOLLOWS = ("state/guardd.db", "state/sinks/", "log/", "state/heartbeat")
"""What is written after the ledger and made anew from it: it decides nothing, and is cut short less often."""
FOLLOWS_EVERY = 8
TURNS = frozenset("rename renameat renameat2 fsync fdatasync syncfs unlink unlinkat link linkat mkdir".split())
"""Steps after which a crash may find something else."""


def every(turns: int, others: int) -> Callable[[int, Step], bool]:
    """So many of the turns, and of the other steps."""
    return lambda number, step: number % (turns if step.call in TURNS else others) == 0


class Matrix:
    """Operations that are recorded once and then cut short at their steps, side by side."""

    def __init__(self, top: Path, pool: ProcessPoolExecutor):
        self._top, self._pool = top, pool
        self._recorded: dict[tuple[str, Layout], tuple[World, Path, Recording]] = {}

    def record(self, case: Case, layout: Layout) -> tuple[World, Path, Recording]:
        """The world of a case, its image, and the operation undisturbed."""
        key = case.name, layout
        if key not in self._recorded:
            top = self._top / f"{case.seal}-{layout.value}"
            world = World(top, case.seal, layout)
            if not top.exists():
                top.mkdir()
                world.configure()
            image = self._top / f"images/{case.name}-{layout.value}"
            recording = self._pool.submit(points.prepare_and_record, case, world, image).result()
            self._recorded[key] = world, image, recording
        return self._recorded[key]

    def cut(
        self, case: Case, fault: Fault, chosen: Callable[[int, Step], bool], layout: Layout = Layout.TOGETHER
    ) -> None:
        """Tries every point that is `chosen` (all of them in a full run); fails with what did not hold."""
        began = time.monotonic()
        world, image, recording = self.record(case, layout)
        steps = [step for step in recording.steps if not fault.lives or step.call in NEEDS_SPACE]
        tried = [step for number, step in enumerate(steps) if IS_FULL or self._is_tried(number, step, chosen)]
        # And one that is not disturbed before its answer: what is done must last.
        todo = [self._pool.submit(points.attempt, case, world, image, recording, fault, step) for step in [*tried, None]]
        report([point.result() for point in todo], len(steps), time.monotonic() - began)

    @staticmethod
    def _is_tried(number: int, step: Step, chosen: Callable[[int, Step], bool]) -> bool:
        if step.files[0].startswith(FOLLOWS):
            return number % FOLLOWS_EVERY == 0
        return chosen(number, step)


def report(outcomes: list[Outcome], steps: int, seconds: float) -> None:
    """Prints what was tried, and fails where anything did not hold."""
    first = outcomes[0]
    ends = Counter(outcome.became for outcome in outcomes)
    missed = sum(1 for outcome in outcomes if outcome.step and not outcome.reached)
    shares = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    print(f"{first.case}, {first.fault.value}: {len(outcomes)} points of {steps} steps in {seconds:.0f} s: {shares}; {missed} not reached")
    bad = [outcome for outcome in outcomes if outcome.problems]
    told = "\n".join(f"{outcome}\n" + "\n".join(f"    {problem}" for problem in outcome.problems) for outcome in bad)
    assert not bad, f"{len(bad)} of {len(outcomes)} points:\n{told}"
    assert missed * 4 < len(outcomes), f"{missed} of {len(outcomes)} steps did not come again: the operation is not the same each time"
