"""Which points are tried, and what is told of them."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Cut:
    """What one test tries: the commit points of an operation, and `most` of its other steps (all of them in a full run)."""

    case: Case
    fault: Fault
    most: int
    layout: Layout = Layout.TOGETHER

    def of(self, recording: Recording) -> list[Step]:
        """The steps that the fault can come at."""
        return [step for step in recording.steps if not self.fault.lives or step.call in NEEDS_SPACE]


class Matrix:
    """Operations that are recorded once and then cut short at their steps, side by side: also those of different tests, as
    a point mostly waits.
    """

    def __init__(self, top: Path, pool: ProcessPoolExecutor):
        self._top, self._pool = top, pool
        self._recorded: dict[tuple[str, Layout], tuple[World, Path, Future[Recording]]] = {}
        self._begun: dict[Cut, list[Future[Outcome]]] = {}

    def begin(self, cuts: Iterable[Cut]) -> None:
        """Starts what the tests will ask for, in their order."""
        cuts = list(cuts)
        # What does not begin is asked for again by its test, and told there. What was killed is recorded from what was not:
        # first those that wait for no other.
        for cut in sorted(cuts, key=lambda cut: bool(cut.case.interrupted)):
            with contextlib.suppress(Exception):
                self._record(cut.case, cut.layout)
        for cut in cuts:
            with contextlib.suppress(Exception):
                self._begin(cut)

    def _begin(self, cut: Cut) -> list[Future[Outcome]]:
        """Its points; the last one is not disturbed before its answer: what is done must last."""
        if cut not in self._begun:
            steps = cut.of(self._record(cut.case, cut.layout)[2].result())
            self._begun[cut] = self._try(cut, [*(steps if IS_FULL else sample(steps, cut.most)), None])
        return self._begun[cut]

    def _record(self, case: Case, layout: Layout) -> tuple[World, Path, Future[Recording]]:
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
                _, whole, of = self._record(next(c for c in CASES if c.operation is case.operation and c.name in case.name), layout)
                step = [step for step in of.result().steps if case.interrupted(step)][-1]
                recording = self._pool.submit(points.interrupt_and_record, case, world, whole, image, step)
            else:
                recording = self._pool.submit(points.prepare_and_record, case, world, image)
            self._recorded[key] = world, image, recording
        return self._recorded[key]

    def _try(self, cut: Cut, steps: Iterable[Step | None]) -> list[Future[Outcome]]:
        world, image, recording = self._record(cut.case, cut.layout)
        return [self._pool.submit(points.attempt, cut.case, world, image, recording.result(), cut.fault, step) for step in steps]

    def hold(self, cut: Cut) -> None:
        """Fails with what did not hold at any of its points."""
        outcomes = [point.result() for point in self._begin(cut)]
        for _ in range(1, TRIES):
            left = [o.step for o in outcomes if o.is_missed and not o.problems]
            outcomes = [o for o in outcomes if o.step not in left] + [point.result() for point in self._try(cut, left)]
        steps = cut.of(self._record(cut.case, cut.layout)[2].result())
        report(outcomes, len(steps), sum(is_commit(step) for step in steps))


def report(outcomes: list[Outcome], steps: int, commits: int) -> None:
    """Prints what was tried, and fails where anything did not hold."""
    first = outcomes[0]
    ends = Counter(outcome.became for outcome in outcomes)
    missed = [outcome.step for outcome in outcomes if outcome.is_missed]
    seconds = sum(outcome.seconds for outcome in outcomes) / len(outcomes)
    shares = ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))
    tried = f"{len(outcomes)} points tried of {steps + 1}, with all {commits} commit points"
    print(f"{first.case}, {first.fault.value}: {tried}, {seconds:.1f} s each: {shares}; {len(missed)} not reached")
    bad = [outcome for outcome in outcomes if outcome.problems]
    told = "\n".join(f"{outcome}\n" + "\n".join(f"    {problem}" for problem in outcome.problems) for outcome in bad)
    assert not bad, f"{len(bad)} of {len(outcomes)} points:\n{told}"
    # What a recording on a busy machine had of another thread's work may never come again. Most of it has to.
    never = "\n".join(map(str, missed))
    assert len(missed) * 2 < len(outcomes), f"{len(missed)} of {len(outcomes)} steps did not come in {TRIES} tries:\n{never}"
