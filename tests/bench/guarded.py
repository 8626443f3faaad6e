"""guardd in the foreground with everything below one directory, and the floor beside it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from measure import Failed, Process, Sample, run, warm

PATIENCE_SECONDS = 600

AS_IN_THE_UNIT = {"MALLOC_ARENA_MAX": "2", "MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""What systemd/guardd.service sets."""

CONFIGURATION = """version = 1
[daemon]
state_dir = "{work}/state"
runtime_dir = "{run}"
log_dir = "{work}/log"
[environments.bench]
root = "{root}"
seal = "{seal}"
rehash = "{rehash}"
{backup}
"""


class Daemon:
    """A daemon on a tree. Without `backups` it locks with `--anyway` and makes none: what a baseline costs by itself."""

    def __init__(self, programs: Path, work: Path, root: Path, seal: str = "none", backups: bool = False, rehash: str = "4h"):
        self.programs, self.work, self.root, self.backups = programs, work, root, backups
        work.mkdir(parents=True, exist_ok=True)
        (work / "no-directory").touch()
        backup = "" if backups else f'[environments.bench.backup]\ndir = "{work}/no-directory/backups"'
        # The path of a socket is short, whatever is measured where.
        self._run = Path(tempfile.mkdtemp(prefix="guardd-bench.", dir="/tmp"))
        self._config = work / "guardd.toml"
        self._config.write_text(CONFIGURATION.format(work=work, run=self._run / "run", root=root, seal=seal, rehash=rehash, backup=backup))
        self._config.chmod(0o600)
        self._environment = os.environ | AS_IN_THE_UNIT | {"GUARDD_SOCKET": f"{self._run}/run/control.sock"}
        self._process: subprocess.Popen | None = None
        self._started = datetime.now(UTC)
        self.seen = Process(os.getpid())

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()
        shutil.rmtree(self._run, ignore_errors=True)

    def start(self) -> float:
        """Seconds until it is ready."""
        (self._run / "ready").unlink(missing_ok=True)
        self._started = datetime.now(UTC)
        began = time.perf_counter()
        with (self.work / "said").open("ab") as said, Ready(self._run / "ready") as ready:
            self._process = subprocess.Popen(
                [self.programs / "guardd", "run", "--config", self._config],
                env=self._environment | {"NOTIFY_SOCKET": ready.path}, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            )
            ready.wait(PATIENCE_SECONDS, self._process, self.work / "said")
        took = time.perf_counter() - began
        self.seen = Process(self._process.pid)
        return took

    def stop(self) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait(PATIENCE_SECONDS)
            self._process = None

    def ctl(self, *arguments: str, good: tuple[int, ...] = (0,)) -> dict:
        done = subprocess.run(
            [self.programs / "guardctl", *arguments, "--json"], env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode not in good:
            raise Failed(f"guardctl {' '.join(arguments)}: exit status {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
        return json.loads(done.stdout) if done.stdout else {}

    def lock(self) -> None:
        self.ctl("lock", "bench", *([] if self.backups else ["--anyway"]))

    def unlock(self) -> None:
        self.ctl("unlock", "bench", "--reason", "bench", "--maintainer", "bench", *([] if self.backups else ["--anyway"]))

    def clean(self, *arguments: str) -> None:
        """A check that finds nothing."""
        self.ctl("check", "bench", *arguments)

    def timed(self, what) -> Sample:
        return self.seen.measured(what)

    def wait_until_idle(self) -> None:
        """The rehash that follows a start is over, and nothing runs."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            # A paced rehash rests now and then, longer where it waits for a disk: its end is asked for.
            before = self.seen.cpu()
            time.sleep(0.5)
            if self.seen.cpu() - before <= 0.01 and self._is_rehashed():
                return
        raise Failed("guardd does not come to rest")

    def _is_rehashed(self) -> bool:
        environment = self.ctl("status")["environments"][0]
        last = environment["last_rehash"]
        began = max(self._started, datetime.fromisoformat(environment["since"] or self._started.isoformat()))
        # A lock reads everything: then there is none before `rehash` has passed.
        is_due = environment["state"] == "locked" and began == self._started
        return not is_due or (last is not None and datetime.fromisoformat(last["finished_at"]) > began)


class Ready:
    """The socket by which systemd would hear of READY=1."""

    def __init__(self, path: Path):
        self.path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Ready:
        self._socket.bind(self.path)
        return self

    def __exit__(self, *_) -> None:
        self._socket.close()

    def wait(self, seconds: float, process: subprocess.Popen, said: Path) -> None:
        self._socket.settimeout(1)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                if b"READY=1" in self._socket.recv(4096):
                    return
            if process.poll() is not None:
                raise Failed(f"guardd ended:\n{said.read_text()[-2000:]}")
        raise Failed("guardd is not ready")


class Floor:
    """The bare work."""

    def __init__(self, programs: Path, work: Path, root: Path):
        self._program, self._records, self.root = programs / "floor", work / "floor-records", root

    def __call__(self, work: str, threads: int = 2) -> Sample:
        return run([self._program, work, self.root, self._records, threads])

    def warm(self, work: str = "check") -> None:
        """Everything is in the page cache."""
        warm(lambda: self(work))
