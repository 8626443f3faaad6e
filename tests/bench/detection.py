#!/usr/bin/python3
"""What detection does in figures, for docs/detection.md: who did it, how late, and what storms do. Asserts nothing. Run it as
root on an idle machine; it takes some six minutes.

    detection.py PROGRAMS [--dir DIR] [--only SECTION…] [--write]

PROGRAMS is a directory with guardd (`target/release`); DIR lies on the file system to measure (the temporary directory if not
given). Everything is made below DIR and removed at the end. `--write` puts the tables between the markers in
docs/detection.md, otherwise they are printed. Sections: attribution, commands, latency, storms, burst, database, million.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))

import varlink  # noqa: E402
from linux import until  # noqa: E402

DOCUMENT = REPOSITORY / "docs/detection.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
PATIENCE = 240
ATTRIBUTED = 60
"""Changes by each command."""
GOALS = 4
"""The first ones, which the goals are for."""
COMMANDS = 3000
"""Of what does not concern guardd, as a build would start them."""
NOBODY = 65534
LATENCIES = 150
NAMED_IN_LOG = 15
STORM = 60_000
BURST = 20_000


class Daemon:
    """guardd over `root`, with everything else beside it."""

    def __init__(self, programs: Path, top: Path, root: Path):
        self.top, self.root = top, root
        top.mkdir()
        config = top / "guardd.toml"
        config.write_text(
            f'version = 1\n[daemon]\nstate_dir = "{top}/state"\nruntime_dir = "{top}/run"\nlog_dir = "{top}/log"\n'
            f'[environments.bench]\nroot = "{root}"\nseal = "none"\nrehash = "1h"\nignore = ["ignored/"]\n'
        )
        config.chmod(0o600)
        self.said = (top / "said").open("wb")
        self.process = subprocess.Popen([programs / "guardd", "run", "--config", config], stdout=self.said, stderr=self.said)
        until("the daemon", self._answers, PATIENCE)
        self._read: dict[Path, int] = {}
        self.alerts_log = top / "log/security-alerts.log"

    def _answers(self) -> bool:
        if self.process.poll() is not None:
            sys.exit((self.top / "said").read_text())
        with contextlib.suppress(OSError):
            self.call("Status")
            return True
        return False

    def call(self, method: str, **parameters) -> dict:
        return varlink.call(self.top / "run/control.sock", method, **parameters)

    def lock(self) -> None:
        self.call("Lock", reason="bench", anyway=True)
        self.follow()

    def site(self) -> dict:
        return self.call("Status")["environments"][0]

    def gaps(self) -> list[dict]:
        return self.site()["watch"]["gaps"]

    def follow(self) -> list[dict]:
        """The records that are new."""
        new = []
        for file in sorted((self.top / "state/ledger").glob("*.jsonl")):
            with file.open("rb") as handle:
                handle.seek(self._read.get(file, 0))
                text = handle.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[file] = self._read.get(file, 0) + len(whole)
            new += [json.loads(line) for line in whole.splitlines()]
        return new

    def findings(self) -> Iterator[dict]:
        for record in self.follow():
            found = record.get("findings")
            yield from found if isinstance(found, list) else ()

    def kib(self, field: str) -> int:
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def cpu(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def settle(self) -> None:
        """Until it has nothing to do."""

        def is_idle() -> bool:
            before = self.cpu()
            time.sleep(0.5)
            return self.cpu() - before < 0.03 and all(g["until"] for g in self.gaps())

        until("idleness", is_idle, PATIENCE)
        self.follow()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.said.close()


@contextlib.contextmanager
def guarded(programs: Path, top: Path, name: str, make: Callable[[Path], None]) -> Iterator[Daemon]:
    """A locked tree that nothing happens in."""
    work = top / name
    root = work / "tree"
    root.mkdir(parents=True)
    make(root)
    os.sync()
    daemon = Daemon(programs, work / "guard", root)
    try:
        daemon.lock()
        daemon.settle()
        yield daemon
    finally:
        daemon.stop()
        shutil.rmtree(work)


def files(count: int, size: int = 4096, per_directory: int = 100) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        content = os.urandom(size)
        for number in range(count):
            directory = root / f"{number // per_directory:05}"
            if number % per_directory == 0:
                directory.mkdir()
            (directory / f"f{number}").write_bytes(content)

    return make


def table(*rows: tuple) -> list[str]:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:], ""]


def percentiles(seconds: list[float]) -> tuple[str, str]:
    ordered = sorted(seconds)
    return f"{statistics.median(ordered) * 1000:.1f} ms", f"{ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000:.1f} ms"


FORKED = "import os, sys\nif os.fork() == 0: open(sys.argv[1], 'a').write('x'); os._exit(0)\nos.wait()"
SETUID = f"import os, sys\nf = open(sys.argv[1], 'a'); os.setuid({NOBODY}); f.write('x')"


def attribution(programs: Path, top: Path, changes: int = ATTRIBUTED) -> list[str]:
    """Short-lived commands, each with a file of its own."""
    other = top / "other"
    other.write_bytes(b"from elsewhere\n")
    commands: dict[str, tuple[list[str], set[str]]] = {
        "touch FILE": (["touch", "FILE"], {"touch"}),
        "sed -i s/a/b/ FILE": (["sed", "-i", "1s/^/changed /", "FILE"], {"sed"}),
        "cp OTHER FILE": (["cp", str(other), "FILE"], {"cp"}),
        "sh -c 'echo >> FILE'": (["sh", "-c", 'echo >> "$1"', "sh", "FILE"], {"sh"}),
        "bash -c 'echo >> FILE'": (["bash", "-c", 'echo >> "$1"', "bash", "FILE"], {"bash"}),
        "chmod 600 FILE": (["chmod", "600", "FILE"], {"chmod"}),
        "rm FILE": (["rm", "FILE"], {"rm"}),
        "dd of=FILE": (["dd", "if=/dev/zero", "of=FILE", "bs=1", "count=1", "conv=notrunc", "status=none"], {"dd"}),
        "sh -c '(echo >> FILE); …'": (["sh", "-c", '(echo >> "$1"); :', "sh", "FILE"], {"sh"}),
        "python, after fork(2)": (["/usr/bin/python3", "-c", FORKED, "FILE"], {"python3"}),
        "python, after setuid(2)": (["/usr/bin/python3", "-c", SETUID, "FILE"], {"python3"}),
    }

    def make(root: Path) -> None:
        for place in range(len(commands)):
            (root / str(place)).mkdir()
            for number in range(changes):
                (root / str(place) / str(number)).write_text("a line of text\n")

    rows: list[tuple] = [("command", "changes", "with pid and name", "with the program", "wrongly named")]
    counts: list[tuple[int, ...]] = []
    with guarded(programs, top, "attribution", make) as daemon:
        for place, (name, (command, right)) in enumerate(commands.items()):
            actors: dict[str, dict | None] = {}
            # Not what sed calls its copy in the meantime.
            wanted = {f"{place}/{number}" for number in range(changes)}

            def heard(actors=actors, wanted=wanted) -> int:
                for finding in daemon.findings():
                    if finding["path"] in wanted:
                        actors[finding["path"]] = finding.get("actor") or actors.get(finding["path"])
                return len(actors)

            for number in range(changes):
                path = daemon.root / str(place) / str(number)
                subprocess.run([part.replace("FILE", str(path)) for part in command], check=True)
                time.sleep(0.02)
            until(name, lambda heard=heard: heard() >= changes, PATIENCE)
            told = [a for a in actors.values() if a]
            named = sum(bool(a.get("comm")) for a in told)
            programs_known = sum(bool(a.get("exe")) for a in told)
            # A child of the shell is itself for a moment before it becomes the program.
            wrong = sum(bool(a.get("comm")) and (a["comm"] not in right or a["uid"] != (NOBODY if command[-2] == SETUID else 0)) for a in told)
            share = lambda n: f"{100 * n / changes:.0f} %"  # noqa: E731
            rows.append((f"`{name}`", changes, share(named), share(programs_known), wrong))
            counts.append((changes, named, programs_known, wrong))
    for name, chosen in (("the first four (goals: 95 %, 85 %)", counts[:GOALS]), ("all", counts)):
        every, named, known, wrong = map(sum, zip(*chosen, strict=True))
        rows.append((name, every, f"{100 * named / every:.1f} %", f"{100 * known / every:.1f} %", wrong))
    return ["Who did it: commands that change one file and end, one after the other.", "", *table(*rows)]


def commands(programs: Path, top: Path) -> list[str]:
    """What it costs to hear of every process."""
    with guarded(programs, top, "commands", files(10)) as daemon:
        used, began, memory = daemon.cpu(), time.monotonic(), daemon.kib("VmRSS")
        script = f"i=0; while [ $i -lt {COMMANDS} ]; do /bin/true; i=$((i+1)); done"
        subprocess.run(["sh", "-c", script], check=True)
        took = time.monotonic() - began
        daemon.settle()
        cpu = daemon.cpu() - used
        grown = daemon.kib("VmRSS") - memory
    head = ("commands that change nothing, one after the other", "a second", "CPU of guardd", "for each", "more memory")
    row = (f"{COMMANDS:,}", f"{COMMANDS / took:,.0f}", f"{100 * cpu / took:.1f} % of a core", f"{1e6 * cpu / COMMANDS:.0f} µs", f"{grown} KiB")
    return ["A build, say: processes that guardd hears of.", "", *table(head, row)]


def written(path: Path, data: bytes) -> float:
    """When it was closed."""
    with path.open("wb", buffering=0) as file:
        file.write(data)
    return time.monotonic()


def latency(programs: Path, top: Path) -> list[str]:
    with guarded(programs, top, "latency", files(10_000)) as daemon:
        chosen = sorted(daemon.root.rglob("f*"))[:: 10_000 // LATENCIES][:LATENCIES]
        ledger, log = [], []
        for number, path in enumerate(chosen):
            name = str(path.relative_to(daemon.root))
            at_log = daemon.alerts_log.stat().st_size if daemon.alerts_log.exists() else 0
            closed = written(path, b"%d\n" % number * 512)
            in_ledger = in_log = None
            while in_ledger is None or in_log is None:
                if in_ledger is None and any(f["path"] == name for f in daemon.findings()):
                    in_ledger = time.monotonic()
                if in_log is None and daemon.alerts_log.exists():
                    with daemon.alerts_log.open("rb") as handle:
                        handle.seek(at_log)
                        if name.encode() in handle.read():
                            in_log = time.monotonic()
                if time.monotonic() - closed > PATIENCE:
                    sys.exit(f"{name}: ledger {in_ledger}, log {in_log}")
                time.sleep(0.0001)
            ledger.append(in_ledger - closed)
            log.append(in_log - closed)
            # The log names so many files of one alert, which ends when it has been quiet for two seconds.
            time.sleep(2.3 if number % NAMED_IN_LOG == NAMED_IN_LOG - 1 else 0.03)
        synced = []
        with (daemon.top / "synced").open("ab", buffering=0) as file:
            for _ in range(LATENCIES):
                began = time.monotonic()
                file.write(b"x" * 600)
                os.fsync(file.fileno())
                synced.append(time.monotonic() - began)
                time.sleep(0.01)
    rows: list[tuple] = [("from close(2) of a changed 4 KiB file to", "median", "99th percentile")]
    rows.append(("the fsynced record in the ledger", *percentiles(ledger)))
    rows.append(("the line in security-alerts.log", *percentiles(log)))
    rows.append(("beside it: a write of 600 bytes and fsync(2) on that file system", *percentiles(synced)))
    if shutil.which("inotifywait"):
        rows.append(("beside it: the line of `inotifywait -m -r` in a file, not synced", *percentiles(by_inotifywait(top))))
    return ["How late, in an environment of 10,000 files.", "", *table(*rows)]


def by_inotifywait(top: Path) -> list[float]:
    root = top / "watched"
    root.mkdir()
    files(10_000)(root)
    said = top / "inotifywait"
    delays = []
    with said.open("wb") as out:
        watching = subprocess.Popen(["inotifywait", "-m", "-r", "-e", "close_write", "--format", "%w%f", root], stdout=out, stderr=subprocess.PIPE)
        while b"Watches established" not in watching.stderr.readline():
            pass
        for path in sorted(root.rglob("f*"))[:: 10_000 // LATENCIES][:LATENCIES]:
            closed = written(path, b"changed\n")
            while str(path).encode() not in said.read_bytes():
                time.sleep(0.0001)
            delays.append(time.monotonic() - closed)
            time.sleep(0.01)
        watching.kill()
        watching.wait()
    shutil.rmtree(root)
    return delays


def storms(programs: Path, top: Path) -> list[str]:
    rows: list[tuple] = [
        (f"{STORM:,} files made at once in", "seconds of it", "named after it", "a change inside, alerted after", "gaps, closed after", "peak memory", "CPU"),
    ]

    def make(root: Path) -> None:
        files(1000)(root)
        for name in ("ignored", "protected"):
            (root / name).mkdir()

    for name in ("protected", "ignored"):
        with guarded(programs, top, f"storm-{name}", make) as daemon:
            daemon.forget_peak()
            used = daemon.cpu()
            wanted = daemon.root / "00005/f500"
            seen: set[str] = set()
            alerted = None
            began = time.monotonic()
            changed = None
            for number in range(STORM):
                os.close(os.open(daemon.root / name / f"s{number}", os.O_CREAT | os.O_WRONLY, 0o644))
                if number == STORM // 2:
                    changed = written(wanted, b"the change that matters\n")
            storm = time.monotonic() - began
            over = time.monotonic()
            expected = STORM if name == "protected" else 0
            while alerted is None or len(seen) < expected:
                for finding in daemon.findings():
                    if finding["path"] == "00005/f500":
                        alerted = alerted or time.monotonic()
                    elif finding["path"].startswith("protected/s"):
                        seen.add(finding["path"])
                if time.monotonic() - over > PATIENCE:
                    sys.exit(f"{name}: {len(seen)} named, change alerted: {alerted}")
                time.sleep(0.005)
            named = f"{len(seen):,} of {expected:,}, {time.monotonic() - over:.1f} s" if expected else "none, rightly"
            until("the gaps to close", lambda: all(g["until"] for g in daemon.gaps()), PATIENCE)
            closed = time.monotonic() - over
            gaps = len(daemon.gaps())
            daemon.settle()
            rows.append(
                (
                    f"{name} paths", f"{storm:.1f} s", named, f"{alerted - changed:.2f} s", f"{gaps}, {closed:.1f} s" if gaps else "none",
                    f"{daemon.kib('VmHWM') / 1024:.0f} MiB", f"{daemon.cpu() - used:.1f} s",
                )
            )  # fmt: skip
    return ["Storms. The kernel's queue holds 16,384 events; what is beyond is a gap, closed by looking at everything.", "", *table(*rows)]


def burst(programs: Path, top: Path) -> list[str]:
    with guarded(programs, top, "burst", files(BURST)) as daemon:
        paths = sorted(daemon.root.rglob("f*"))
        daemon.forget_peak()
        used = daemon.cpu()
        began = time.monotonic()
        for path in paths:
            with path.open("r+b", buffering=0) as file:
                file.write(b"changed\n")
        over = time.monotonic()
        seen: set[str] = set()
        while len(seen) < BURST:
            seen.update(f["path"] for f in daemon.findings())
            if time.monotonic() - over > PATIENCE:
                sys.exit(f"{len(seen)} of {BURST} named")
            time.sleep(0.002)
        done = time.monotonic() - over
        gaps = len(daemon.gaps())
        memory, cpu = daemon.kib("VmHWM") / 1024, daemon.cpu() - used
    head = (f"{BURST:,} files of 4 KiB changed in", "all named and durable after the last write", "gaps", "peak memory", "CPU")
    return ["A burst of real changes.", "", *table(head, (f"{over - began:.2f} s", f"{done:.2f} s", gaps, f"{memory:.0f} MiB", f"{cpu:.1f} s"))]


def database(programs: Path, top: Path) -> list[str]:
    seconds, rate = 10, 50_000
    with guarded(programs, top, "database", files(1000)) as daemon:
        handle = os.open(top / "database/heap", os.O_CREAT | os.O_RDWR, 0o600)
        os.ftruncate(handle, 1 << 24)
        page = os.urandom(512)
        used, began, done = daemon.cpu(), time.monotonic(), 0
        while (now := time.monotonic() - began) < seconds:
            for _ in range(max(0, int(now * rate) - done)):
                os.pwrite(handle, page, (done * 8192) % (1 << 24))
                done += 1
            time.sleep(0.001)
        took = time.monotonic() - began
        cpu = daemon.cpu() - used
        os.close(handle)
    head = ("writes a second to a file beside the tree, on its file system", "seconds", "CPU of guardd")
    return ["A busy database that is not protected.", "", *table(head, (f"{done / took:,.0f}", f"{took:.0f}", f"{100 * cpu / took:.1f} % of a core"))]


def slab(cache: str) -> int:
    """Bytes of kernel memory that one object takes; 0 where the kernel does not tell. How many there are cannot be read, since
    caches of one size are one."""
    with contextlib.suppress(OSError):
        return int(Path(f"/sys/kernel/slab/{cache}/slab_size").read_text())
    return 0


def million(programs: Path, top: Path) -> list[str]:
    directories, per_directory = 10_000, 100
    work = top / "million"
    root = work / "tree"
    root.mkdir(parents=True)
    for number in range(directories):
        directory = root / f"{number // 100:03}/{number:05}"
        directory.mkdir(parents=True)
        at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        for name in range(per_directory):
            os.mknod(f"f{name}", 0o100644, dir_fd=at)
        os.close(at)
    began = time.monotonic()
    daemon = Daemon(programs, work / "guard", root)
    took = time.monotonic() - began
    watched = daemon.site()["watch"]
    resident = daemon.kib("VmRSS") / 1024
    daemon.stop()
    shutil.rmtree(work)
    mark = slab("fanotify_mark") + slab("fsnotify_mark_connector")
    directory = slab("ext4_inode_cache") + slab("dentry")
    mib = lambda each: f"{watched['directories'] * each / (1 << 20):.1f} MiB"  # noqa: E731
    head = ("entries", "directories watched", "watching stands after", "marks", "directories that they keep in memory", "resident memory of guardd")
    row = (f"{directories * per_directory:,} files", f"{watched['directories']:,}", f"{took:.1f} s", mib(mark), mib(directory), f"{resident:.0f} MiB")
    words = f"A mark takes {mark} bytes of the kernel's memory, and keeps its directory's inode and name there ({directory} bytes on ext4). Files are not marked."
    return ["A million entries. There is one mark for each directory.", "", *table(head, row), words, ""]


SECTIONS = {f.__name__: f for f in (attribution, commands, latency, storms, burst, database, million)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", type=Path)
    parser.add_argument("--dir", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--changes", type=int, default=ATTRIBUTED, help="by each command, to see who is named")
    parser.add_argument("--write", action="store_true", help="into docs/detection.md")
    asked = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("fanotify is root's")
    top = Path(tempfile.mkdtemp(prefix="guardd-bench.", dir=asked.dir))
    kind = subprocess.run(["stat", "-f", "-c", "%T", top], capture_output=True, text=True, check=True).stdout.strip()
    lines = [f"Linux {platform.release().split('-')[0]}, {os.cpu_count()} cores, {kind}; load {os.getloadavg()[0]:.1f} at the start.", ""]
    try:
        for name in asked.only:
            print(f"… {name}", file=sys.stderr, flush=True)
            began = time.monotonic()
            more = (asked.changes,) if name == "attribution" else ()
            lines += SECTIONS[name](asked.programs.resolve(), top, *more)
            print(f"  {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    finally:
        shutil.rmtree(top, ignore_errors=True)
    text = "\n".join(lines).rstrip() + "\n"
    if not asked.write:
        print(text)
        return
    document = DOCUMENT.read_text()
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


if __name__ == "__main__":
    main()
