"""One point: an operation is cut short before one of its steps, and everything is looked at afterwards."""

from __future__ import annotations

import errno
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import steps
import tree
import varlink
from cases import Case
from steps import Step, Traced, Verdict
from world import ENVIRONMENT, Layout, World, until

QUIET_SECONDS = 0.06
"""An operation's last steps come after its answer: it is over when there was none for so long."""


class Fault(Enum):
    """What happens at a step."""

    KILL = "killed"
    POWER = "power cut"
    POWER_OF_TREE = "power cut at the tree's disk"
    POWER_OF_STATE = "power cut at the state's disk"
    FULL_ONCE = "no space once"
    FULL = "no space from then on"

    @property
    def lives(self) -> bool:
        """The daemon is to live through it."""
        return self in (Fault.FULL_ONCE, Fault.FULL)

    def without_power(self, world: World) -> list[Path]:
        """The file systems that lose what was not forced out."""
        both = [world.tree] * (world.layout is Layout.APART) + [world.mount]
        return {Fault.POWER: both, Fault.POWER_OF_TREE: [world.tree], Fault.POWER_OF_STATE: [world.mount]}.get(self, [])


@dataclass
class Recording:
    """An operation that nothing disturbed: its steps, and what everything looked like."""

    steps: list[Step]
    before: dict[str, dict]
    after: dict[str, dict]
    opened: dict[str, dict]
    outside: dict[str, dict]
    alerts: frozenset[int]
    """Alerts that were there before."""


@dataclass
class Outcome:
    """What became of one point; `problems` is empty where everything held."""

    case: str
    fault: Fault
    step: Step | None
    reached: bool = False
    answered: str = "nothing"
    became: str = ""
    seconds: float = 0.0
    is_over: bool = False
    """The operations that followed it are done, too."""
    problems: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.case}, {self.fault.value} before {self.step or 'nothing'} (answer: {self.answered}, then {self.became})"


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
        is_it = step == self._step
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
    heard = ["nothing"]
    failure: list[str] = []

    def drive() -> None:
        try:
            world.wait_until_it_stands(lambda: False)
            traced.arm()
            try:
                case.operation(world)
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
    driver.join()
    if failure:
        raise AssertionError(failure[0])
    return heard[0]


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
        assert (site["state"], site["generation"] or 0) == (case.ends, case.generations[1]), site
        if case.ends == "locked":
            world.unlock()
        opened = loose(case, tree.picture(world.root))
    world.remove(copy)
    return Recording(cut.steps, before, after, opened, outside, frozenset(alerts))


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
        said = site["state"], site["generation"] or 0
        ends = {"before": (case.begins, case.generations[0]), "after": (case.ends, case.generations[1])}
        if ends["before"] == ends["after"]:
            return "after" if self._picture() == self._recording.after else "before"
        for end, meant in ends.items():
            if said == meant:
                return end
        raise AssertionError(f"status says {said}, which is neither before nor after")

    def _now(self, outcome: Outcome) -> Iterator[str]:
        """Tree, state, lock file, ledger and status agree, and nothing is left over."""
        world, case, recording = self._world, self._case, self._recording
        began = time.monotonic()
        # What waits for space is tried again by and by.
        until("the end of all trouble", lambda: not self._troubles(outcome) or time.monotonic() - began > 10)
        yield from (f"degraded: {trouble}" for trouble in self._troubles(outcome))
        now = self._picture()
        ends = [recording.before if outcome.became == "before" else recording.after]
        if outcome.fault.lives:
            # A link that could not be broken is left, with a warning.
            ends[0] = ends[0] | {path: now[path] for path in case.moves if now[path] == recording.before[path]}
        if case.is_piecewise:
            ends = [recording.before, recording.after]
        if case.is_piecewise:
            yield from (f"{path} is neither as before nor as after" for path in now if all(e.get(path) != now[path] for e in ends))
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
            if outcome.became == "after" and not case.is_piecewise:
                yield f"it was answered that it failed, and it is done: {outcome.answered}"
        site = world.site()
        if site["generation"]:
            says = world.lock_file_says()
            yield from (f"the lock file says {says[n]}, status {site[n]}" for n in ("state", "generation") if says[n] != site[n])
        unknown = [a["title"] for a in world.alerts() if a["id"] not in recording.alerts]
        yield from (f"an alert: {title}" for title in unknown)
        verified = world.call("VerifyLog")["result"]
        if not verified["ok"]:
            yield f"the ledger does not verify: {verified}"
        in_state = [f for f in world.files() if f.endswith((".new", ".tmp", ".old")) or f.startswith("plans/")]
        if outcome.fault.lives and outcome.step and outcome.step.call == "syncfs" and case.ends == "unlocked":
            # Committed, and not known to be on the disk: the plan stays for the next start.
            in_state.remove(f"plans/{ENVIRONMENT}.jsonl")
        in_tree = [str(p) for p in world.root.rglob(".guardd-*")]
        yield from (f"left over: {name}" for name in in_state + in_tree)

    def _troubles(self, outcome: Outcome) -> list[str]:
        """What status says is wrong. That the ledger could not be written is said until something is written to it again."""
        waits = "the ledger cannot be written" if outcome.fault.lives and not outcome.is_over else "nothing"
        return [trouble for trouble in self._world.status()["daemon"]["degraded"] if not trouble.startswith(waits)]

    def _next(self, outcome: Outcome) -> Iterator[str]:
        """The next operations work, and at last everything is open as it was."""
        world, case, recording = self._world, self._case, self._recording
        if outcome.became == "before" or case.is_piecewise:
            case.operation(world)
            yield from (f"again: {what}" for what in tree.difference(recording.after, self._picture()))
        if case.ends == "unlocked":
            world.lock()
        if world.site()["state"] == "locked":
            if not recording.alerts:
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
    for path in case.moves:
        picture[str(Path(path).parent)].pop("mtime")
    return picture


