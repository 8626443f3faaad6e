"""What others see of the same rows: inotifywait as it watches, AIDE and Samhain at their next check."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import places
import rows as table
import syscalls as sys_
from linux import private_mounts
from matrix import Acting, Combination, State
from rows import Row, Site

WAIT_SECONDS = 1.0
SAMHAIN_CONFIGURATION = "/etc/samhain/samhainrc"


class Stage:
    """A tree on ext4 with all rows in it, nobody guarding it."""

    def __init__(self, top: Path):
        private_mounts()
        self.work = Path(tempfile.mkdtemp(dir=top, prefix=""))
        place = places.PLACES["ext4"](self.work)
        self.app, self.outside = place.top / "app", place.top / "outside"
        # What is about guardd itself, or would move the tree away from under the others, is left out.
        self.rows = [row for row in Combination("ext4", "none", State.WATCHED).rows() if not row.apart]
        self.sites = {row.name: Site(self.app / f"{n:02}", self.outside / f"{n:02}", place.device, None) for n, row in enumerate(self.rows)}
        for site in self.sites.values():
            table.furnish(site.here, site.outside)
        for row in self.rows:
            row.prepare(self.sites[row.name])

    def paths(self, row: Row) -> set[str]:
        """As they may be written: a name that is no text is its bytes, or something with a backslash."""
        here = self.sites[row.name].here
        return {f"{here}/{spelled}" for path in row.finds for spelled in ([path] if "\\" not in path else ["\x1b", "\\", "?"])}

    @contextlib.contextmanager
    def done(self, row: Row):
        acting = Acting(row.act, self.sites[row.name])
        try:
            yield
        finally:
            acting.release()


def inotifywait(top: Path) -> dict[str, bool]:
    """Is there an event that names one of the row's paths?"""
    stage = Stage(top)
    said = stage.work / "said"
    seen = {}
    with said.open("wb") as out:
        watching = subprocess.Popen(["inotifywait", "-m", "-r", "--format", "%e %w%f", stage.app], stdout=out, stderr=subprocess.PIPE)
        try:
            while b"Watches established" not in watching.stderr.readline():
                pass
            for row in stage.rows:
                before = said.stat().st_size
                with stage.done(row):
                    deadline = time.monotonic() + WAIT_SECONDS
                    seen[row.name] = False
                    while not seen[row.name] and time.monotonic() < deadline:
                        changes = [line for line in said.read_bytes()[before:].decode(errors="replace").splitlines() if is_change(line)]
                        seen[row.name] = any(path in line for line in changes for path in stage.paths(row))
                        time.sleep(0.01)
        finally:
            watching.kill()
            watching.wait()
    return seen


def is_change(line: str) -> bool:
    """Opening and reading are told as well."""
    names = ("MODIFY", "ATTRIB", "CLOSE_WRITE", "CREATE", "DELETE", "MOVED", "MOVE_SELF")
    return any(name in line.split(" ", 1)[0] for name in names)


def after_all(stage: Stage, check) -> dict[str, bool]:
    """Does the report of one check after all acts name one of the row's paths?"""
    # Times are compared by the second.
    time.sleep(1.1)
    with contextlib.ExitStack() as all_done:
        for row in stage.rows:
            all_done.enter_context(stage.done(row))
        report = check()
    return {row.name: any(path in report for path in stage.paths(row)) for row in stage.rows}


def aide(top: Path) -> dict[str, bool]:
    """With every attribute that it can compare."""
    stage = Stage(top)
    config = stage.work / "aide.conf"
    everything = "p+ftype+i+l+n+u+g+s+m+c+sha256+acl+xattrs+e2fsattrs+caps"
    config.write_text(
        f"database_in=file:{stage.work}/db\ndatabase_out=file:{stage.work}/db\nreport_url=stdout\nreport_level=list_entries\n"
        f"All = {everything}\n{stage.app} All\n"
    )
    subprocess.run(["aide", "--config", config, "--init"], check=True, stdout=subprocess.DEVNULL)

    def check() -> str:
        done = subprocess.run(["aide", "--config", config, "--check"], capture_output=True, text=True, errors="replace", check=False)
        if done.returncode >= 8:
            raise RuntimeError(f"aide failed: {done.stderr}")
        return done.stdout

    return after_all(stage, check)


def samhain(top: Path) -> dict[str, bool]:
    """By its policy that compares most, checks of anything but files left out."""
    stage = Stage(top)
    config = stage.work / "samhainrc"
    others = "".join(
        f"[{section}]\n{key}=no\n"
        for section, key in [
            ("SuidCheck", "SuidCheckActive"), ("ProcessCheck", "ProcessCheckActive"), ("PortCheck", "PortCheckActive"), ("Utmp", "LoginCheckActive"),
        ]
    )  # fmt: skip
    config.write_text(
        f"[User0]\ndir=99{stage.app}\n[Log]\nLogSeverity=none\nPrintSeverity=crit\nSyslogSeverity=none\nMailSeverity=none\n"
        f"{others}[Misc]\nDaemon=no\nSetDatabasePath={stage.work}/db\nSetLogfilePath={stage.work}/log\n"
        f"SetLockfilePath={stage.work}/lock\nRedefUser0=+CHK,+LNK,+HLN,+INO,+USR,+GRP,+MTM,+CTM,+SIZ,+RDEV,+MOD\n[EOF]\n"
    )
    config.chmod(0o600)
    # It reads its configuration from this place alone; the mount is this process's own.
    sys_.mount(str(config), SAMHAIN_CONFIGURATION, flags=sys_.MS_BIND)

    def asked(what: str) -> str:
        done = subprocess.run(["samhain", "-t", what, "--foreground"], capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise RuntimeError(f"samhain failed: {done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    asked("init")
    return after_all(stage, lambda: "".join(line for line in asked("check").splitlines(keepends=True) if "POLICY" in line))


PEERS = {"inotifywait": inotifywait, "aide": aide, "samhain": samhain}


def version(program: str) -> str:
    asked = {"inotifywait": ["inotifywait", "--help"], "aide": ["aide", "--version"], "samhain": ["samhain", "--help"]}[program]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    if program == "samhain":
        number = re.search(r"samhain \(([\d.]+)\)", said)
        return f"Samhain {number.group(1)}" if number else "Samhain"
    return said.splitlines()[0].strip()


def installed() -> list[str]:
    return [name for name in PEERS if shutil.which(name)]


def run(name: str, top: Path) -> dict[str, bool]:
    """For a worker with mounts of its own."""
    os.environ["LC_ALL"] = "C"
    return PEERS[name](top)
