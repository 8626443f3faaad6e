"""Timing programs: wall clock, processor time, peak memory; and the page cache that they find."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median


class Failed(Exception):
    """A program did not do what was to be timed."""


@dataclass(frozen=True)
class Sample:
    """One run. Peak memory is of the largest of its processes, in KiB; 0 where it was not measured. `read` is what came from a disk, in KiB."""

    seconds: float
    cpu: float
    peak: int
    read: int = 0


def run(argv: list, good: tuple[int, ...] = (0,), said: Path | None = None) -> Sample:
    """Runs a program whose answer is thrown away, or goes into `said`.

    It is started by time(1): the kernel counts what a process had in memory before it became another program, and this one's
    interpreter is larger than most of what is measured."""
    with tempfile.NamedTemporaryFile("r") as told:
        out = said.open("wb") if said else contextlib.nullcontext(subprocess.DEVNULL)
        with out as to:
            began = time.perf_counter()
            done = subprocess.run(
                ["time", "--quiet", "--format=%U %S %M %I", f"--output={told.name}", *map(str, argv)],
                stdin=subprocess.DEVNULL, stdout=to, stderr=to, check=False,
            )
            took = time.perf_counter() - began
        if done.returncode not in good:
            text = said.read_text(errors="replace")[-2000:] if said else ""
            raise Failed(f"{' '.join(map(str, argv))}: exit status {done.returncode}\n{text}")
        user, system, peak, blocks = told.read().split()
    return Sample(took, float(user) + float(system), int(peak), int(blocks) // 2)


def shell(script: str, good: tuple[int, ...] = (0,)) -> Sample:
    return run(["/bin/sh", "-c", script], good)


class Process:
    """A running process, by its files in /proc."""

    def __init__(self, pid: int):
        self.pid = pid
        self._proc = Path(f"/proc/{pid}")

    def memory(self, field: str) -> int:
        """KiB."""
        return self._number("status", field)

    def cpu(self) -> float:
        """Seconds, of user and system, of threads that have ended, too: its clock as clock_getcpuclockid(3) numbers it, which is
        finer than the ticks in /proc."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def read(self) -> int:
        """KiB that came from a disk."""
        return self._number("io", "read_bytes") // 1024

    def _number(self, file: str, field: str) -> int:
        lines = (self._proc / file).read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))

    def forget_peak(self) -> None:
        with contextlib.suppress(OSError):
            (self._proc / "clear_refs").write_text("5")

    def measured(self, what: Callable[[], object]) -> Sample:
        """What this process needs for something that somebody else waits for."""
        self.forget_peak()
        read, cpu, began = self.read(), self.cpu(), time.perf_counter()
        what()
        took = time.perf_counter() - began
        return Sample(took, self.cpu() - cpu, self.memory("VmHWM"), self.read() - read)


SYNCS = ("fsync", "fdatasync", "syncfs")


@contextlib.contextmanager
def syncs_of(pid: int, seconds: list[float]) -> Iterator[None]:
    """Adds how long a process was waiting for a disk in such calls of any of its threads, by perf(1); nothing where it cannot be had."""
    if not shutil.which("perf"):
        yield
        return
    events = [word for call in SYNCS for side in ("enter", "exit") for word in ("-e", f"syscalls:sys_{side}_{call}")]
    with tempfile.TemporaryDirectory() as work:
        data = f"{work}/data"
        # Of the whole machine: threads that begin later would not be followed.
        trace = subprocess.Popen(["perf", "record", "-q", "-a", "-o", data, *events], stderr=subprocess.DEVNULL)
        try:
            time.sleep(1)  # Nobody says when it has begun.
            yield
        finally:
            trace.send_signal(signal.SIGINT)
            trace.wait()
        said = subprocess.run(["perf", "script", "-i", data, "-F", "pid,tid,time,event"], capture_output=True, text=True, check=True).stdout
    seconds.append(waited(pid, said))


def waited(pid: int, script: str) -> float:
    """Seconds in which at least one thread of the process was in one of the calls, from the lines of perf-script(1)."""
    total, since, inside = 0.0, 0.0, set()
    for line in script.splitlines():
        ids, at, event = line.split()[:3]
        process, _, thread = ids.partition("/")
        if process != str(pid):
            continue
        if "sys_enter_" in event:
            since = since if inside else float(at.rstrip(":"))
            inside.add(thread)
        elif thread in inside:
            inside.discard(thread)
            total += 0.0 if inside else float(at.rstrip(":")) - since
    return total


def drop_caches() -> None:
    """Everything is read from the disk again, names and attributes too."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


@dataclass
class Series:
    """Runs of the same thing."""

    samples: list[Sample]

    def seconds(self) -> float:
        return median(s.seconds for s in self.samples)

    def cpu(self) -> float:
        return median(s.cpu for s in self.samples)

    def peak(self) -> float:
        """MiB."""
        return max(s.peak for s in self.samples) / 1024

    def spread(self) -> float:
        """From the fastest to the slowest, as a part of the median."""
        seconds = [s.seconds for s in self.samples]
        return (max(seconds) - min(seconds)) / self.seconds()


Task = Callable[[], Sample]

LITTLE = 4096
"""KiB: whoever reads more from a disk did not find the page cache warm."""

TRIES = 5


def warm(reads: Task) -> None:
    """Runs it until everything it reads is in the page cache: some machines write out again what lay there for half a minute."""
    for _ in range(TRIES):
        if reads().read <= LITTLE:
            return


def interleaved(rounds: int, tasks: dict[str, Task], before: Callable[[], object], once: frozenset[str] = frozenset(),
                say: Callable[[str], None] = lambda line: None, is_warm: bool = True) -> dict[str, Series]:
    """Each task in each round, in turn, `before` before each; those in `once` in the first round only. What fails is said and left
    out of the rounds that follow. Where the page cache `is_warm`, who had to read from a disk all the same tries again."""
    done: dict[str, list[Sample]] = {}
    failed: set[str] = set()
    for number in range(rounds):
        for name, task in tasks.items():
            if name in failed or (number and name in once):
                continue
            try:
                for tries in range(TRIES):
                    before()
                    sample = task()
                    if not is_warm or name in once or sample.read <= LITTLE:
                        break
                    again = "again" if tries + 1 < TRIES else "it counts, as none did without"
                    say(f"  round {number + 1}: {name}: {sample.seconds:.3f} s, with {sample.read / 1024:.1f} MiB from the disk; {again}")
            except (Failed, OSError) as e:
                say(f"{name} failed: {e}")
                failed.add(name)
                continue
            done.setdefault(name, []).append(sample)
            say(f"  round {number + 1}: {name}: {sample.seconds:.3f} s, CPU {sample.cpu:.2f} s, {sample.peak / 1024:.1f} MiB")
    return {name: Series(samples) for name, samples in done.items() if name not in failed}


@contextlib.contextmanager
def said_once(say: Callable[[str], None], what: str) -> Iterator[None]:
    began = time.perf_counter()
    say(f"{what} …")
    yield
    say(f"{what}: {time.perf_counter() - began:.1f} s")
