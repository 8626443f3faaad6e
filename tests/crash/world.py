"""A file system of its own with a tree, a state directory and a daemon, as often as it is asked for.

A world is an ext4 image, prepared once and copied for every point that is tried, so that inodes, and with them the
baseline, are the same in each. It is always mounted at the same place, which is another one in each worker's own mount
namespace; whatever happens to a worker, its mounts and loop devices go with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path

import tree
import varlink
from linux import PATIENCE_SECONDS, until

REPOSITORY = Path(__file__).resolve().parents[2]
BINARIES = Path(os.environ.get("GUARDD_TEST_BINARIES", REPOSITORY / "target/debug"))
IS_FULL = os.environ.get("GUARDD_TEST_FULL") == "1"
ENVIRONMENT = "site"
IMAGE_MIB = 64
# _IOR('X', 125, __u32), and: without writing the journal out.
EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587D, 2


class Layout(Enum):
    """Where tree and state lie."""

    TOGETHER = "together"
    APART = "apart"


class World:
    """One mounted copy of an image, and the daemon in it."""

    def __init__(self, top: Path, seal: str, settings: str, layout: Layout):
        self.top = top
        self.seal = seal
        self.settings = settings
        self.layout = layout
        self.mount = top / "world"
        self.away = top / "away"
        self.tree = self.mount / "tree"
        self.root, self.outside = self.tree / "app", self.tree / "outside"
        self.state = self.mount / "state"
        self.socket = self.away / "run/control.sock"
        self.config = top / "guardd.toml"
        self.said = self.away / "said"
        self.lock_file = self.state / f"locks/{ENVIRONMENT}.lock"
        self._daemon: subprocess.Popen | None = None
        self.traced: int | None = None
        """The daemon's pid while it runs under a tracer."""
        self.was_changed = False
        """`at_once` was there in this mount."""
        self.is_changing = False
        """`at_once` is at it: a power cut would take half of it back."""

    def configure(self) -> None:
        """Writes the one configuration that all worlds share."""
        for directory in (self.mount, self.away):
            directory.mkdir()
        text = f"version = 1\n[daemon]\nstate_dir = {str(self.state)!r}\nruntime_dir = {str(self.socket.parent)!r}\n"
        text += f"log_dir = {str(self.mount / 'log')!r}\nwatch = 'inotify'\n[environments.{ENVIRONMENT}]\nroot = {str(self.root)!r}\n"
        self.config.write_text(f'{text}seal = "{self.seal}"\n{tree.CONFIGURATION}{self.settings}')

    def format(self, image: Path) -> None:
        """Empty file systems in sparse files."""
        for file in self.images(image):
            with file.open("wb") as handle:
                handle.truncate(IMAGE_MIB << 20)
            # Nothing is initialised later, so that nothing happens by itself.
            options = "lazy_itable_init=0,lazy_journal_init=0,nodiscard"
            subprocess.run(["mkfs.ext4", "-q", "-F", "-I", "256", "-J", "size=4", "-E", options, file], check=True)

    def images(self, image: Path) -> list[Path]:
        """The files that make up an image: for the state, and for the tree where that lies apart."""
        return [image, image.with_name(f"{image.name}.tree")] if self.layout is Layout.APART else [image]

    def copy(self, image: Path) -> Path:
        """A copy for one point."""
        copy = image.with_name(f"{threading.get_native_id()}-{image.name}")
        for source, target in zip(self.images(image), self.images(copy), strict=True):
            subprocess.run(["cp", "--sparse=always", source, target], check=True)
        return copy

    def remove(self, image: Path) -> None:
        for file in self.images(image):
            file.unlink()

    @contextlib.contextmanager
    def mounted(self, image: Path) -> Iterator[World]:
        """The image is mounted and an empty runtime directory is there; afterwards the daemon is ended, all unmounted."""
        self.was_changed = False
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0755", "guardd-test", self.away], check=True)
        try:
            self.attach(image)
            yield self
        finally:
            self.kill()
            self.detach()
            subprocess.run(["umount", "-l", self.away], check=True)

    def attach(self, image: Path) -> None:
        for file, at in zip(self.images(image), (self.mount, self.tree), strict=False):
            at.mkdir(exist_ok=True)
            # The journal is written when somebody forces it, and not because time passes.
            subprocess.run(["mount", "-o", "loop,noatime,commit=300", file, at], check=True)
        self.root.parent.mkdir(exist_ok=True)

    def detach(self) -> None:
        """Unmounts, once nobody holds it."""

        def gone(at: Path) -> bool:
            return subprocess.run(["umount", at], stderr=subprocess.DEVNULL, check=False).returncode == 0

        for at in (self.tree, self.mount):
            if os.path.ismount(at):
                until("the file system to be free", lambda at=at: gone(at))

    def cut_power(self, at: Path) -> None:
        """What was not forced out is lost: nothing reaches the file system from now on, its journal neither."""
        handle = os.open(at, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, NOLOGFLUSH.to_bytes(4, "little"))
        finally:
            os.close(handle)

    # The daemon -------------------------------------------------------------------------------------------------------

    @property
    def command(self) -> list[str]:
        return [str(BINARIES / "guardd"), "run", "--config", str(self.config)]

    def start(self) -> None:
        """Starts the daemon and waits until it stands."""
        with self.said.open("ab") as said:
            self._daemon = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
        self.wait_until_it_stands(self.ended)

    def ended(self) -> bool:
        return self._daemon is None or self._daemon.poll() is not None

    def wait_until_it_stands(self, ended: Callable[[], bool]) -> None:
        """It answers, and what it does at its start is over: of what is locked, every file was read again."""

        def stands() -> bool:
            if ended():
                raise AssertionError(f"the daemon ended at its start:\n{self.said.read_text()}")
            try:
                found = self.site()
            except OSError:
                return False
            return found["state"] == "unlocked" or found["state"] == "locked" and all(g["until"] for g in found["watch"]["gaps"])

        until("the daemon's answer", stands)

    def kill(self) -> None:
        """Ends the daemon at once."""
        if self._daemon:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def stop(self) -> None:
        """Ends the daemon in order."""
        daemon, self._daemon = self._daemon, None
        assert daemon is not None
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(PATIENCE_SECONDS) == 0

    def is_alive(self) -> bool:
        return not self.ended()

    def is_dead(self) -> bool:
        """The traced daemon has ended."""
        return self.traced is None

    def at_once(self, change: Callable[[], None]) -> None:
        """Makes a change that the daemon sees the end of only, and that no power cut takes back."""
        daemon = self.traced if self.traced is not None else self._daemon.pid
        self.is_changing = True
        os.kill(daemon, signal.SIGSTOP)
        try:
            change()
            subprocess.run(["sync", "-f", self.root], check=True)
            self.was_changed = True
        finally:
            os.kill(daemon, signal.SIGCONT)
            self.is_changing = False

    def call(self, method: str, **parameters) -> dict:
        return varlink.call(self.socket, method, **parameters)

    def lock(self, **parameters) -> dict:
        return self.call("Lock", reason="test", **parameters)["result"]

    def unlock(self) -> dict:
        return self.call("Unlock", reason="repair", maintainer="ada")["result"]

    def status(self) -> dict:
        return self.call("Status")

    def site(self) -> dict:
        return next(e for e in self.status()["environments"] if e["name"] == ENVIRONMENT)

    def alerts(self) -> list[dict]:
        return self.call("ListAlerts", environment=ENVIRONMENT, all=True)["alerts"]

    def findings(self) -> list[dict]:
        """Of every alert."""
        return [finding for alert in self.alerts() for finding in alert["findings"]]

    def degraded(self) -> list[str]:
        return self.status()["daemon"]["degraded"]

    def backups(self) -> list[dict]:
        return self.call("ListBackups", environment=ENVIRONMENT)["backups"]

    def newest_backup(self) -> int:
        """Its number."""
        return max((int(backup["id"].partition("-")[0]) for backup in self.backups()), default=0)

    def events(self) -> list[dict]:
        """Every record of the ledger."""
        lines = [line for file in sorted((self.state / "ledger").glob("*.jsonl")) for line in file.read_bytes().splitlines()]
        return [json.loads(line) for line in lines]

    def lock_file_says(self) -> dict:
        """The first line of the lock file."""
        return json.loads(self.lock_file.read_text().splitlines()[0])

    def files(self) -> set[str]:
        """Every name in the state directory, the ledger's and the log's own business left out."""
        return {str(path.relative_to(self.state)) for path in self.state.rglob("*")}
