"""The trees that are scanned: the same in each run, byte for byte."""

from __future__ import annotations

import math
import multiprocessing
import random
from dataclasses import dataclass
from pathlib import Path

PARTS = 2
"""Processes that make a tree."""


@dataclass(frozen=True)
class Tree:
    """Files of random sizes in directories of `each` files, nested three deep as in a web project's dependencies."""

    name: str
    files: int
    each: int
    kind: str
    """`web`: log-normal sizes around 7 KiB, some far larger; `tiny`: 0 to 512 bytes; `giant`: 1 GiB each."""

    def make(self, top: Path) -> None:
        """Makes it below `top` unless it is there from an earlier run."""
        is_made = top.parent / f"{top.name}.made"
        if is_made.exists():
            return
        top.mkdir()
        if self.kind == "giant":
            giant_files(top, self.files)
        else:
            work = [multiprocessing.Process(target=self._part, args=(top, part)) for part in range(PARTS)]
            for process in work:
                process.start()
            for process in work:
                process.join()
            if any(process.exitcode for process in work):
                raise RuntimeError(f"the tree {self.name} could not be made")
        is_made.touch()

    def _part(self, top: Path, part: int) -> None:
        noise = random.Random(1).randbytes(2 << 20)
        for number in range(part, math.ceil(self.files / self.each), PARTS):
            dice = random.Random(number)
            directory = top / f"package-{number // 50}" / f"lib-{number // 10 % 5}" / f"part-{number}"
            directory.mkdir(parents=True)
            for file in range(min(self.each, self.files - number * self.each)):
                size = self._size(dice)
                at = dice.randrange(1 << 20)
                (directory / f"module_{file}.js").write_bytes(noise[at : at + size])

    def _size(self, dice: random.Random) -> int:
        if self.kind == "tiny":
            return dice.randrange(513)
        return min(int(dice.lognormvariate(math.log(7000), 1.1)), 1 << 20)


def noise(path: Path, mebibytes: int) -> None:
    """A file of that size."""
    piece = random.Random(4).randbytes(1 << 20)
    with path.open("wb") as file:
        for _ in range(mebibytes):
            file.write(piece)


def giant_files(top: Path, count: int) -> None:
    """Not sparse, and no two alike."""
    noise = random.Random(2).randbytes(1 << 20)
    for number in range(count):
        with (top / f"volume-{number}").open("wb") as file:
            for block in range(1 << 10):
                file.write(block.to_bytes(4, "little") + number.to_bytes(4, "little") + noise[8:])


SMALL = Tree("small", 100_000, 20, "web")
HUGE = Tree("huge", 1_000_000, 50, "tiny")
BIG = Tree("big", 4, 4, "giant")
SIZES = (Tree("1k", 1_000, 20, "web"), Tree("10k", 10_000, 20, "web"), SMALL, HUGE)
"""Of the plot of cost against size."""

TREES = {tree.name: tree for tree in (SMALL, HUGE, BIG, *SIZES)}
