"""What guarding a tree costs, for docs/benchmarks.md: prints Markdown tables, asserts nothing. Run it as root.

    costs.py PROGRAMS [--files N] [--rounds N] [--dir DIR]

PROGRAMS is a directory with guardd and guardctl (`target/release`); DIR lies on the file system to measure (the temporary
directory if not given). Everything is made below DIR and removed at the end.

Beside guardd's operations, in the same rounds, the bare work is timed: reading and hashing the tree with two processes, `cp
--archive`, `tar | zstd | age`. Ratios are between medians. Memory is the daemon's peak during one operation (VmHWM, which is
set back before it). CPU time is the daemon's, or the bare work's; its ratios hold on a busy machine, too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import resource
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

FILES_PER_DIRECTORY = 25
MEAN_SIZE = 6300
CHANGED = 1000
PUT_BACK_ROUNDS = 15
"""guardd puts something back twenty times a minute at most."""

ENVIRONMENT = """
[environments.bench]
root = "{root}"
seal = "{seal}"
rehash = "1h"
on_tamper = "{on_tamper}"
"""


def make_tree(top: Path, files: int) -> int:
    """Text that compresses and noise that does not, in about equal parts; returns the bytes. The same in each run."""
    source = random.Random(1)
    noise = source.randbytes(1 << 20)
    words = " ".join(hex(source.randrange(1 << 20)) for _ in range(1 << 17)).encode()
    total = 0
    for number in range(files):
        directory = top / f"{number // 2500:03}" / f"{number // FILES_PER_DIRECTORY:05}"
        if number % FILES_PER_DIRECTORY == 0:
            directory.mkdir(parents=True)
        size = min(int(source.expovariate(1 / MEAN_SIZE)) + 1, 1 << 19)
        content = noise if number % 2 else words
        at = source.randrange(len(content) - size)
        (directory / f"file-{number}").write_bytes(f"{number}\n".encode() + content[at : at + size])
        total += size
    return total


def read_and_hash(directories: list[str]) -> None:
    """The bare work of a baseline: list, lstat, open, read, SHA-256."""
    for top in directories:
        for directory, _, names in os.walk(top):
            for name in names:
                path = os.path.join(directory, name)
                os.lstat(path)
                with open(path, "rb", buffering=0) as file:
                    hashlib.sha256(file.read()).digest()


def with_two_processes(directories: list[str]) -> None:
    work = [multiprocessing.Process(target=read_and_hash, args=(directories[half::2],)) for half in (0, 1)]
    for process in work:
        process.start()
    for process in work:
        process.join()


def cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Bench:
    """Seconds of everything, by name, in the order in which things were first done: as a user waits, and of CPU."""

    def __init__(self):
        self.times: dict[str, list[float]] = defaultdict(list)
        self.cpu: dict[str, list[float]] = defaultdict(list)
        self.peaks: dict[str, list[int]] = defaultdict(list)

    def bare(self, name: str, what: Callable[[], object], cpu: Callable[[], float] = cpu_of_children) -> None:
        os.sync()
        used, began = cpu(), time.perf_counter()
        what()
        self.times[name].append(time.perf_counter() - began)
        self.cpu[name].append(cpu() - used)

    def guarded(self, name: str, daemon: Daemon, what: Callable[[], object]) -> None:
        daemon.forget_peak()
        self.bare(name, what, daemon.cpu)
        self.peaks[name].append(daemon.memory("VmHWM"))


class Daemon:
    """guardd in the foreground, with a state directory of its own."""

    def __init__(self, programs: Path, top: Path, root: Path, seal: str, on_tamper: str = "alert"):
        self.top = top
        self.guardctl = programs / "guardctl"
        top.mkdir()
        configuration = top / "guardd.toml"
        configuration.write_text(
            f'version = 1\n[daemon]\nstate_dir = "{top}/state"\nruntime_dir = "{top}/run"\nlog_dir = "{top}/log"\n'
            + ENVIRONMENT.format(root=root, seal=seal, on_tamper=on_tamper)
        )
        configuration.chmod(0o600)
        self.environment = os.environ | {"GUARDD_SOCKET": f"{top}/run/control.sock"}
        with (top / "said").open("wb") as said:
            self.process = subprocess.Popen([programs / "guardd", "run", "--config", configuration], stdout=said, stderr=said)
        while subprocess.run([self.guardctl, "status"], env=self.environment, capture_output=True).returncode != 0:
            if self.process.poll() is not None:
                sys.exit((top / "said").read_text())
            time.sleep(0.1)

    def ctl(self, *arguments: str, statuses: tuple[int, ...] = (0,)) -> dict:
        done = subprocess.run([self.guardctl, *arguments, "--json"], env=self.environment, capture_output=True, text=True)
        if done.returncode not in statuses:
            sys.exit(f"guardctl {' '.join(arguments)}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return json.loads(done.stdout) if done.stdout else {}

    def watch(self) -> subprocess.Popen:
        return subprocess.Popen([self.guardctl, "watch", "--json"], env=self.environment, stdout=subprocess.PIPE)

    def memory(self, field: str) -> int:
        """KiB."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))

    def cpu(self) -> float:
        """Seconds, of user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def unlocked(daemon: Daemon) -> None:
    daemon.ctl("unlock", "bench", "--reason", "bench", "--maintainer", "bench")


def change(root: Path, count: int) -> None:
    """Other content of the same size in `count` files."""
    every = sorted(path for path in root.rglob("file-*"))
    chosen = every[:: max(1, len(every) // count)][:count]
    subprocess.run(["xargs", "-0", "chattr", "-i"], input="\0".join(map(str, chosen)).encode(), check=True)
    for path in chosen:
        with path.open("r+b") as file:
            file.write(b"tampered")


def one_round(bench: Bench, programs: Path, top: Path, root: Path) -> None:
    directories = sorted(str(path) for path in root.iterdir())
    bench.bare("hash", lambda: with_two_processes(directories))
    bench.bare("copy", lambda: subprocess.run(["cp", "--archive", "--reflink=never", root, top / "copy"], check=True))
    shutil.rmtree(top / "copy")
    key = top / "key"
    key.unlink(missing_ok=True)
    subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
    shell = f"tar -C {root} -c . | zstd -q -3 -c | age -e -i {key} > {top}/archive"
    bench.bare("archive", lambda: subprocess.run(shell, shell=True, check=True))
    (top / "archive").unlink()

    daemon = Daemon(programs, top / "first", root, "immutable")
    bench.guarded("lock, the first one, with the first backup", daemon, lambda: daemon.ctl("lock", "bench"))
    unlocked(daemon)
    daemon.stop()
    shutil.rmtree(top / "first")

    daemon = Daemon(programs, top / "guard", root, "immutable")
    run = daemon.ctl
    bench.guarded("backup, the first one", daemon, lambda: run("backup", "create", "bench"))
    bench.guarded("backup, nothing changed", daemon, lambda: run("backup", "create", "bench"))
    bench.guarded("lock, where a backup has the content", daemon, lambda: run("lock", "bench"))
    bench.guarded("check", daemon, lambda: run("check", "bench"))
    bench.guarded("check --quick", daemon, lambda: run("check", "bench", "--quick"))
    bench.guarded("unlock, with its emergency backup", daemon, lambda: unlocked(daemon))
    run("lock", "bench")
    bench.guarded("backup verify", daemon, lambda: run("backup", "verify", "bench"))
    bench.guarded("backup drill", daemon, lambda: run("backup", "drill", "bench"))
    change(root, 1)
    found = run("check", "bench", statuses=(1,))["findings"]
    path = next(f["path"] for f in found if "content" in f["change"])
    bench.guarded("restore of one file", daemon, lambda: run("restore", "bench", path))
    change(root, CHANGED)
    bench.guarded(f"restore --all, {CHANGED:,} files changed", daemon, lambda: run("restore", "bench", "--all"))
    run("check", "bench")
    unlocked(daemon)
    daemon.stop()
    shutil.rmtree(top / "guard")


def put_back(programs: Path, top: Path) -> dict[str, list[tuple[float, float]]]:
    """Seconds from the change to the alert, and from the alert to the file being back."""
    root = top / "small"
    root.mkdir()
    sizes = {"4 KiB": 4096, "1 MiB": 1 << 20}
    for name, size in sizes.items():
        for number in range(PUT_BACK_ROUNDS):
            (root / name).mkdir(exist_ok=True)
            (root / name / str(number)).write_bytes(random.Random(number).randbytes(size))
    daemon = Daemon(programs, top / "putting-back", root, "none", "restore")
    daemon.ctl("lock", "bench")
    shown = defaultdict(list)
    for name, size in sizes.items():
        for number in range(PUT_BACK_ROUNDS):
            # Each an alert of its own: none joins the one before.
            time.sleep(3.5)
            watch = daemon.watch()
            time.sleep(0.3)
            other = root.parent / "other"
            other.write_bytes(b"tampered")
            path = root / name / str(number)
            began = time.perf_counter()
            other.rename(path)
            alert = None
            while alert is None:
                alert = time.perf_counter() if b"alert_opened" in watch.stdout.readline() else None
            while path.stat().st_size != size:
                select.select([], [], [], 0.0002)
            shown[name].append((alert - began, time.perf_counter() - alert))
            watch.kill()
            watch.wait()
    daemon.stop()
    return shown


def tables(bench: Bench, shown: dict[str, list[tuple[float, float]]]) -> None:
    bare = {"hash": "read and hash", "copy": "cp --archive", "archive": "tar \\| zstd \\| age"}
    time_of = {name: statistics.median(times) for name, times in bench.times.items()}
    cpu_of = {name: statistics.median(times) for name, times in bench.cpu.items()}
    print("| the bare work | seconds | CPU seconds |\n|---|---|---|")
    for key, name in bare.items():
        print(f"| {name} | {time_of[key]:.1f} | {cpu_of[key]:.1f} |")
    columns = ["operation", "seconds", *(f"× {name}" for name in bare.values()), "CPU seconds", "CPU × read and hash", "peak, MiB"]
    print("\n| " + " | ".join(columns) + " |\n" + "|---" * len(columns) + "|")
    for name, peaks in bench.peaks.items():
        ratios = (f"{time_of[name] / time_of[key]:.2f}" for key in bare)
        cpu = (f"{cpu_of[name]:.1f}", f"{cpu_of[name] / cpu_of['hash']:.2f}", f"{statistics.median(peaks) / 1024:.0f}")
        print("| " + " | ".join([name, f"{time_of[name]:.1f}", *ratios, *cpu]) + " |")
    print("\n| a tampered file is put back by itself | change to alert, ms | alert to back, ms | most |\n|---|---|---|---|")
    for name, times in shown.items():
        to_alert, to_back = zip(*times)
        print(f"| {name} | {statistics.median(to_alert) * 1000:.0f} | {statistics.median(to_back) * 1000:.0f} | {max(to_back) * 1000:.0f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", type=Path)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    asked = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("the immutable flag is root's to set")
    top = Path(tempfile.mkdtemp(prefix="guardd-bench.", dir=asked.dir))
    top.chmod(0o755)
    bench = Bench()
    try:
        root = top / "tree"
        size = make_tree(root, asked.files)
        print(f"{asked.files:,} files of {size / (1 << 20):.0f} MiB, load {os.getloadavg()[0]:.1f} at the start", flush=True)
        for number in range(asked.rounds):
            one_round(bench, asked.programs.resolve(), top, root)
            print(f"round {number + 1}: " + json.dumps({k: round(v[-1], 2) for k, v in bench.times.items()}), file=sys.stderr, flush=True)
        tables(bench, put_back(asked.programs.resolve(), top))
    finally:
        subprocess.run(["chattr", "-R", "-f", "-i", top], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
