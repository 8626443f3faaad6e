"""guardd in a machine: installing it, calling guardctl, and waiting for what it says."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from machine import Machine, Result, wait_until
from paths import REPOSITORY

PACKAGES = Path(os.environ.get("GUARDD_TEST_PACKAGES", REPOSITORY / "target/deb"))
UNIT = "guardd.service"
ENVIRONMENT = "production"
ROOT = "/srv/app"
LOGS = "/var/log/guardd"
STATE = "/var/lib/guardd"
SOCKET = "/run/guardd/control.sock"

CONFIGURATION = """\
[environments.production]
root = "/srv/app"
ignore = ["__pycache__/", ".git/index.lock"]
writable = ["logs/", "media/"]
sensitive = [".env*"]
seal = "read-only"
"""
"""An environment that protects all of the application but what it writes itself."""

JOINING_SECONDS = 2
"""A change within this time after another joins its alert."""

ALERT_SECONDS = 60
"""Longest wait for an alert. Usual is well under a second; a loaded test machine must not make a test fail."""


def package(upgrade: bool = False) -> Path:
    """The built Debian package, or the one that upgrades it (tests/run makes both)."""
    found = sorted(path for path in PACKAGES.glob("guardd_*.deb") if ("+" in path.name) == upgrade)
    assert len(found) == 1, f"expected one package in {PACKAGES}, found {found}: run `tests/run deb`"
    return found[0]


@dataclass(frozen=True)
class Seen:
    """A finding and the alert that carries it."""

    alert: dict
    finding: dict

    @property
    def change(self) -> set[str]:
        return set(self.finding["change"])


class Guard:
    """guardd in one machine."""

    def __init__(self, machine: Machine):
        self.machine = machine

    # Installation

    def install(self, deb: Path | None = None, status: int | None = 0) -> Result:
        deb = deb or package()
        self.machine.copy_in(deb, f"/root/{deb.name}")
        return self.machine.run(["dpkg", "--install", f"/root/{deb.name}"], status=status)

    def set_up(self, root: str = ROOT) -> None:
        """What the README tells a user to do: init, enable, lock."""
        self.ctl("init", root)
        self.machine.run(["systemctl", "enable", "--now", UNIT])
        self.ctl("lock", ENVIRONMENT, "--reason", "first lock")

    def configure(self, text: str = CONFIGURATION, environment: str = ENVIRONMENT) -> None:
        """Writes the configuration of an environment."""
        self.machine.write(f"/etc/guardd/environments.d/{environment}.toml", text)

    # Calls

    def ctl(self, *arguments: str, status: int | None = 0, **options) -> Result:
        return self.machine.run(["guardctl", *arguments], status=status, **options)

    def start(self) -> None:
        """Enables and starts the service. (Enabled too: a reboot without it starts nothing.)"""
        self.machine.run(["systemctl", "enable", "--now", UNIT])

    def status(self, environment: str = ENVIRONMENT) -> dict:
        """One environment's part of `status --json`."""
        found = [e for e in self.ctl("status", "--json").json()["environments"] if e["name"] == environment]
        assert found, f"status knows no environment {environment}"
        return found[0]

    def daemon(self) -> dict:
        """The daemon's part of `status --json`."""
        return self.ctl("status", "--json").json()["daemon"]

    def alerts(self, *arguments: str) -> list[dict]:
        """Alerts with all their findings."""
        listed = self.ctl("alerts", *arguments, "--json").json()
        return [
            a if a["findings_total"] == len(a["findings"]) else self.ctl("alerts", "show", str(a["id"]), "--json").json()["alert"]
            for a in listed
        ]

    # Waiting

    def wait_ready(self, environment: str = ENVIRONMENT, state: str = "locked") -> dict:
        """Waits until the daemon answers and the environment is in that state."""

        def ready():
            answer = self.ctl("status", "--json", status=None)
            if answer.status != 0:
                return None
            return next((e for e in answer.json()["environments"] if e["name"] == environment and e["state"] == state), None)

        return wait_until(ready, f"{environment} {state}", seconds=60, every=0.2)

    def wait_rehashed(self, since: str = "", environment: str = ENVIRONMENT) -> dict:
        """Waits until a rehash ended after `since`, and no gap is open."""

        def done():
            status = self.status(environment)
            finished = status["last_rehash"] and status["last_rehash"]["finished_at"] > since
            return status if finished and all(gap["until"] for gap in status["watch"]["gaps"]) else None

        return wait_until(done, "finished rehash", seconds=120, every=0.2)

    def wait_finding(self, path: str, *changes: str, environment: str = ENVIRONMENT, after_alert: int = 0) -> Seen:
        """Waits for an open alert that says that `path` changed in these ways (among others)."""

        def found():
            for alert in self.alerts():
                if alert["environment"] != environment or alert["id"] <= after_alert:
                    continue
                for finding in alert["findings"]:
                    if finding["path"] == path and set(changes) <= set(finding["change"]):
                        return Seen(alert, finding)
            return None

        return wait_until(found, f"alert about {path} ({', '.join(changes) or 'any change'})", seconds=ALERT_SECONDS, every=0.1)

    def quiet(self) -> None:
        """Waits until a change is no longer counted to what came before it: it opens an alert of its own."""
        time.sleep(JOINING_SECONDS + 0.5)

    def last_alert(self) -> int:
        return max((alert["id"] for alert in self.ctl("alerts", "list", "--all", "--json").json()), default=0)

    def wait_log(self, *words: str, log: str = "security-alerts.log") -> str:
        """Waits for a line with all the words in one of guardd's log files."""

        def found():
            return next((line for line in self.log_lines(log) if all(word in line for word in words)), None)

        return wait_until(found, f"line with {words} in {log}", seconds=ALERT_SECONDS)

    def log_lines(self, log: str = "security-alerts.log") -> list[str]:
        path = self.machine.path(f"{LOGS}/{log}")
        return path.read_text(errors="backslashreplace").splitlines() if path.exists() else []

    def wait_journal(self, **fields: str) -> dict:
        """Waits for an entry of guardd in journald with these fields."""

        def found():
            matches = [f"{name}={value}" for name, value in fields.items()]
            return next(iter(self.machine.journal(f"--unit={UNIT}", *matches)), None)

        return wait_until(found, f"journal entry with {fields}", seconds=ALERT_SECONDS, every=0.2)

    def wait_everywhere(self, path: str, *changes: str, **options) -> Seen:
        """Waits until the change is in `guardctl alerts`, in security-alerts.log and in journald."""
        seen = self.wait_finding(path, *changes, **options)
        number = seen.alert["id"]
        if seen.alert["findings_total"] <= 20:
            self.wait_log(f"alert={number}", f"path={path}")
            self.wait_journal(GUARDD_ALERT=str(number), GUARDD_PATH=path)
        else:
            self.wait_log(f"alert={number}")
            self.wait_journal(GUARDD_ALERT=str(number))
        return seen

    def wait_new_main_process(self, old: int, seconds: float = 60) -> int:
        """Waits until systemd has started the daemon again and it has said READY=1."""

        def back():
            show = self.machine.look(["systemctl", "show", "--property=MainPID,ActiveState", UNIT]).out
            values = dict(line.split("=", 1) for line in show.splitlines())
            pid = int(values["MainPID"])
            return pid if values["ActiveState"] == "active" and pid not in (0, old) else None

        return wait_until(back, "new main process", seconds=seconds)


WRITTEN = ("logs", "media")
"""What the application writes at its top: files there come and go while one looks."""


def attributes(root: Path, without: Collection[str] = ()) -> dict[str, tuple]:
    """Everything of a tree that an unlock must give back, read from outside the machine; `without` are names at its top."""
    found = {}
    for path in [root, *all_below(root, without)]:
        meta = path.lstat()
        xattrs = {} if stat.S_ISLNK(meta.st_mode) else {name: os.getxattr(path, name) for name in os.listxattr(path)}
        kept_time = meta.st_mtime_ns if not stat.S_ISDIR(meta.st_mode) else None
        found[str(path.relative_to(root))] = (oct(meta.st_mode), meta.st_uid, meta.st_gid, kept_time, xattrs, flags(path, meta))
    return found


def all_below(root: Path, without: Collection[str] = ()) -> Iterable[Path]:
    for directory, names, files in os.walk(root):
        if Path(directory) == root:
            names[:] = [name for name in names if name not in without]
        yield from (Path(directory, name) for name in (*names, *files))


def flags(path: Path, meta: os.stat_result) -> str:
    """The inode flags that lsattr(1) shows, of files and directories."""
    if not (stat.S_ISREG(meta.st_mode) or stat.S_ISDIR(meta.st_mode)):
        return ""
    shown = subprocess.run(["lsattr", "-d", str(path)], check=True, capture_output=True, text=True).stdout
    return shown.split()[0].replace("e", "")
