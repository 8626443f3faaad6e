"""One point: an operation is cut short before one of its steps, and everything is looked at afterwards."""

from __future__ import annotations

import contextlib
import errno
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import steps
import tree
import varlink
from cases import Case
from linux import until
from look import Look, loose
from outcomes import Fault, Outcome, Recording
from steps import Step, Traced, Verdict
from world import ENVIRONMENT, World

QUIET_SECONDS = 0.06
"""An operation's last steps come after its answer: it is over when there was none for so long."""


class Cut:
    """What happens when the step comes; afterwards whether it came."""

    def __init__(self, world: World, fault: Fault, step: Step | None):
        self._world, self._fault, self._step = world, fault, step
        self.reached = False
        self.healed = False
        self.steps: list[Step] = []
        self.last = time.monotonic()

    def __call__(self, step: Step) -> Verdict:
        self.last = time.monotonic()
        self.steps.append(step)
        is_it = step == self._step and not self.healed and not self._world.is_changing
        self.reached |= is_it
        if is_it and not self._fault.lives:
            for at in self._fault.without_power(self._world):
                self._world.cut_power(at)
            return steps.KILL
        stays = self._fault is Fault.FULL and self.reached and not self.healed
        if (is_it and self._fault is Fault.FULL_ONCE or stays) and step.call in steps.NEEDS_SPACE:
            return Verdict(error=errno.ENOSPC)
        return steps.GO_ON


def prepare(case: Case, world: World, image: Path) -> None:
    """Makes the image from which every point of a case starts."""
    world.format(image)
    with world.mounted(image):
        world.root.mkdir(parents=True)
        tree.build(world.root, world.outside)
        world.start()
        case.prepare(world)
        world.stop()


def run(case: Case, world: World, cut: Cut, then: Callable[[str], None] = lambda _heard: None) -> str:
    """The operation under the tracer, until it is over or the daemon is dead; what the caller heard. `then` is done with
    the daemon that is still alive.
    """
    traced = Traced(world.command, world.mount, cut, world.said)
    world.traced = traced.pid
    heard = ["nothing"]
    failure: list[str] = []

    def drive() -> None:
        try:
            if not case.interrupted:
                world.wait_until_it_stands(lambda: False)
            traced.arm()
            try:
                operate(case, world)
                heard[0] = "done"
            except varlink.Refused as refused:
                heard[0] = str(refused)
            except OSError as error:
                heard[0] = f"nothing ({error})"
                return
            cut.last = time.monotonic()
            until("quiet", lambda: time.monotonic() - cut.last > QUIET_SECONDS)
            then(heard[0])
        except Exception:  # noqa: BLE001 (told by the thread that waits)
            failure.append(traceback.format_exc())
        finally:
            traced.kill()

    driver = threading.Thread(target=drive)
    driver.start()
    traced.run()
    world.traced = None
    driver.join()
    if failure:
        raise AssertionError(failure[0])
    return heard[0]


def operate(case: Case, world: World) -> None:
    """The operation, which may be nothing but the start."""
    if not case.interrupted:
        case.operation(world)
        return

    def stands() -> bool:
        if world.is_dead():
            raise ConnectionResetError("the daemon is dead")
        with contextlib.suppress(OSError):
            return world.site()["state"] in ("locked", "unlocked")
        return False

    until("the end of the recovery", stands)


def interrupt(case: Case, world: World, whole: Path, image: Path, step: Step) -> None:
    """Makes the image of a world in which the operation was killed before a step."""
    for source, target in zip(world.images(whole), world.images(image), strict=True):
        subprocess.run(["cp", "--sparse=always", source, target], check=True)
    with world.mounted(image):
        cut = Cut(world, Fault.KILL, step)
        run(replace(case, interrupted=None), world, cut)
        assert cut.reached, f"{case.name} did not come to {step}"


def interrupt_and_record(case: Case, world: World, whole: Path, image: Path, step: Step) -> Recording:
    """Both, for a worker."""
    interrupt(case, world, whole, image, step)
    return record(case, world, image)


def record(case: Case, world: World, image: Path) -> Recording:
    """Runs the operation undisturbed, and then what opens the tree again."""
    copy = world.copy(image)
    with world.mounted(copy):
        before, outside = loose(case, tree.picture(world.root)), tree.picture(world.outside)
        cut = Cut(world, Fault.KILL, None)
        heard = run(case, world, cut)
        assert heard == "done", heard
        after = loose(case, tree.picture(world.root))
        world.start()
        site = world.site()
        alerts = [alert["id"] for alert in world.alerts()]
        ended = site["state"], site["generation"] or 0
        assert case.interrupted or ended == (case.ends, case.generations[1]), site
        if case.interrupted and case.is_put_back:
            case.operation(world)
        if site["state"] == "locked":
            world.unlock()
        opened = loose(case, tree.picture(world.root))
    world.remove(copy)
    return Recording(cut.steps, before, after, opened, outside, ended, frozenset(alerts))


def prepare_and_record(case: Case, world: World, image: Path) -> Recording:
    """Both, for a worker."""
    prepare(case, world, image)
    return record(case, world, image)


def attempt(case: Case, world: World, image: Path, recording: Recording, fault: Fault, step: Step | None) -> Outcome:
    """One point."""
    began = time.monotonic()
    outcome = Outcome(case.name, fault, step)
    copy = world.copy(image)
    try:
        with world.mounted(copy):
            look_before = Look(world, case, recording)
            cut = Cut(world, fault, step)

            def live(heard: str) -> None:
                cut.healed = True
                outcome.answered = heard
                outcome.problems += look_before.compare(outcome)

            outcome.answered = run(case, world, cut, live if fault.lives else lambda _heard: None)
            outcome.reached = cut.reached
            if fault.lives:
                if not outcome.became:
                    outcome.problems.append("the daemon did not live through it")
                return outcome
            if step is None:
                # It was answered, and killed a moment later.
                for at in fault.without_power(world):
                    world.cut_power(at)
            if fault.without_power(world):
                world.detach()
                world.attach(copy)
            had_plan = (world.state / f"plans/{ENVIRONMENT}.jsonl").exists()
            world.start()
            outcome.problems += look_before.compare(outcome)
            if had_plan and not any(e["event"] == "recovered" and e.get("environment") for e in world.events()):
                outcome.problems.append("a plan was left, and the ledger does not say that anything was recovered")
    except Exception:  # noqa: BLE001 (a point that fails is told, and the others go on)
        outcome.problems.append(traceback.format_exc())
    finally:
        world.remove(copy)
        outcome.seconds = time.monotonic() - began
    return outcome
