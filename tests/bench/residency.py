"""Which pages are in the page cache, and a program that needs them there."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path

PAGE = mmap.PAGESIZE
MIB = 1 << 20

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
LIBC.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
LIBC.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


class Mapped:
    """A file, mapped and never touched through the mapping, so that mincore(2) can be asked about it."""

    def __init__(self, path: Path):
        self.file = os.open(path, os.O_RDONLY)
        self.size = os.fstat(self.file).st_size
        self._at = LIBC.mmap(None, self.size, 0, mmap.MAP_SHARED, self.file, 0)
        if self._at == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), f"mmap {path}")
        os.posix_fadvise(self.file, 0, 0, os.POSIX_FADV_RANDOM)

    def is_there(self, page: int) -> bool:
        answer = ctypes.create_string_buffer(1)
        if LIBC.mincore(self._at + page * PAGE, PAGE, answer):
            raise OSError(ctypes.get_errno(), "mincore")
        return bool(answer.raw[0] & 1)

    def read(self, page: int) -> None:
        os.pread(self.file, PAGE, page * PAGE)

    def close(self) -> None:
        LIBC.munmap(self._at, self.size)
        os.close(self.file)


@dataclass
class Hits:
    """Random reads of one file, and those that found their page gone."""

    reads: int = 0
    cold: int = 0

    def text(self) -> str:
        return f"{1 - self.cold / max(self.reads, 1):.3%} of {self.reads:,} reads ({self.cold:,} cold)"


class Database:
    """Reads single pages, at random, of the first half of each file, about `EACH_SECOND` times in all, as long as it is entered. What
    it reads is brought into memory first; the other halves are not. Before each read mincore(2) says whether it will have to wait."""

    EACH_SECOND = 2000

    def __init__(self, files: dict[str, Path]):
        self._files = {name: Mapped(path) for name, path in files.items()}
        self.hits = {name: Hits() for name in files}
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        for mapped in self._files.values():
            for page in range(self._used(mapped)):
                mapped.read(page)

    @staticmethod
    def _used(mapped: Mapped) -> int:
        return mapped.size // PAGE // 2

    def __enter__(self) -> Database:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._ends.set()
        self._thread.join()
        for mapped in self._files.values():
            mapped.close()

    def _run(self) -> None:
        dice = random.Random(3)
        while not self._ends.is_set():
            for _ in range(self.EACH_SECOND // 100):
                for name, mapped in self._files.items():
                    page, hits = dice.randrange(self._used(mapped)), self.hits[name]
                    hits.reads += 1
                    hits.cold += not mapped.is_there(page)
                    mapped.read(page)
            time.sleep(0.02)


def resident(top: Path) -> dict[str, int]:
    """Bytes of each file that are in the page cache, by its path below `top` (fincore)."""
    found = subprocess.run(
        "find . -type f -print0 | xargs -0 fincore --raw --bytes --noheadings --output RES,FILE",
        cwd=top, shell=True, check=True, capture_output=True, text=True,
    )
    return {name: int(count) for count, name in (line.split(" ", 1) for line in found.stdout.splitlines())}


@dataclass(frozen=True)
class Moved:
    """MiB in the page cache before and after; and of single files, what went and what came."""

    before: float
    after: float
    went: float
    came: float

    @classmethod
    def between(cls, before: dict[str, int], after: dict[str, int]) -> Moved:
        differences = [after.get(name, 0) - count for name, count in before.items()]
        sums = sum(before.values()), sum(after.values()), -sum(d for d in differences if d < 0), sum(d for d in differences if d > 0)
        return cls(*(count / MIB for count in sums))

    def text(self) -> str:
        return f"{self.before:.1f} and {self.after:.1f} MiB: {self.went:.1f} went, {self.came:.1f} came"


def copy(what: Path, to: Path) -> None:
    """On the disk when it returns: what is dirty cannot leave the page cache."""
    shutil.copytree(what, to) if what.is_dir() else shutil.copyfile(what, to)
    os.sync()
