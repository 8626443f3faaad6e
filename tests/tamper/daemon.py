"""A daemon on a place, and what it writes down."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import varlink
from linux import PATIENCE_SECONDS, until

REPOSITORY = Path(__file__).resolve().parents[2]
BINARIES = Path(os.environ.get("GUARDD_TEST_BINARIES", REPOSITORY / "target/debug"))
ENVIRONMENT = "site"
QUIET, LIVELY = "1h", "5s"
"""`rehash` while only the kernel's word may count, and while looking again may."""


class Daemon:
    """guardd over the directory `root`, as the tests run it: in the foreground, with everything below `work`."""

    def __init__(self, work: Path, root: Path, backend: str, seal: str, kernel: str | None = None):
        self.work, self.root, self.backend, self.seal = work, root, backend, seal
        self.state = work / "state"
        self.said = work / "said"
        self.socket = work / "run/control.sock"
        self.config = work / "guardd.toml"
        self.kernel = kernel
        """Which older kernel it believes to run on."""
        self._process: subprocess.Popen | None = None
        self._read: dict[Path, int] = {}
        self.records: list[tuple[float, dict]] = []
        """What the ledger says, with when (monotonic) it was there to be read."""

    def configure(self, rehash: str) -> None:
        self.config.write_text(
            f"""version = 1
[daemon]
state_dir = "{self.state}"
runtime_dir = "{self.socket.parent}"
log_dir = "{self.work}/log"
watch = "{self.backend}"
[environments.{ENVIRONMENT}]
root = "{self.root}"
seal = "{self.seal}"
rehash = "{rehash}"
deep_rehash = "{rehash}"
ignore = ["*.tmp"]
writable = ["noise/"]
window_default = "1h"
"""
        )
        self.config.chmod(0o600)

    def start(self) -> None:
        self.spawn()
        self.wait()

    def spawn(self) -> None:
        """Starts it and goes on at once."""
        with self.said.open("ab") as said:
            command = [BINARIES / "guardd", "run", "--config", self.config]
            if self.kernel:
                command = [sys.executable, Path(__file__).with_name("older.py"), self.kernel, *command]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)

    def wait(self) -> None:
        """Until it answers."""
        until("the daemon", self._answers)

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"the daemon ended:\n{self.said.read_text()}")
        with contextlib.suppress(OSError):
            self.call("Status")
            return True
        return False

    def signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number in (signal.SIGTERM, signal.SIGKILL):
            self._process.wait(PATIENCE_SECONDS)
            self._process = None

    def end(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGCONT)
            self.signal(signal.SIGKILL)

    @contextlib.contextmanager
    def running(self) -> Iterator[Daemon]:
        self.start()
        try:
            yield self
        finally:
            self.end()

    def call(self, method: str, **parameters) -> dict:
        return varlink.call(self.socket, method, **parameters)

    def site(self) -> dict:
        return next(e for e in self.call("Status")["environments"] if e["name"] == ENVIRONMENT)

    def follow(self) -> list[tuple[float, dict]]:
        """Reads on in the ledger; everything that was ever read."""
        for file in sorted((self.state / "ledger").glob("*.jsonl")):
            with file.open("rb") as handle:
                handle.seek(self._read.get(file, 0))
                text = handle.read()
            whole = text[: text.rfind(b"\n") + 1]
            self._read[file] = self._read.get(file, 0) + len(whole)
            now = time.monotonic()
            self.records += [(now, json.loads(line)) for line in whole.splitlines()]
        return self.records

    def findings(self) -> Iterator[tuple[float, dict, dict]]:
        """Every finding so far: when, the record that it is in, and itself."""
        for at, record in self.follow():
            found = record.get("findings")
            for finding in found if isinstance(found, list) else ():
                yield at, record, finding
