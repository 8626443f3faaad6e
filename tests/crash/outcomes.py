"""What happens to an operation, what one looks like that nothing happens to, and what became of one."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from steps import Step
from world import Layout, World


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
    ended: tuple[str, int]
    """State and baseline afterwards."""
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

    @property
    def is_missed(self) -> bool:
        """The step did not come again."""
        return self.step is not None and not self.reached

    def __str__(self) -> str:
        return f"{self.case}, {self.fault.value} before {self.step or 'nothing'} (answer: {self.answered}, then {self.became})"
