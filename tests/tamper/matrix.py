"""Runs the rows: one daemon for a file system, a backend and a state, all rows in it one after the other."""

from __future__ import annotations

import ctypes
import os
import re
import select
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import places
import rows as table
from daemon import LIVELY, QUIET, Daemon
from linux import flags_of, private_mounts, set_flags, until
from rows import CONTROLS, ROWS, Row, Seen, Site, Spell

PR_SET_NAME, PR_SET_PDEATHSIG = 15, 1
ACTOR = "tamper"
REAL_PROGRAMS = {"sed", "cp", "dd", "rm", "ls"}
ACT_SECONDS = 60
AT_ONCE = {Seen.EVENT, Seen.TABLE}


class State(Enum):
    """How the tree stands while it is tampered with."""

    WATCHED = "locked, watched only"
    SEALED = "locked and sealed"
    UNLOCKED = "in a maintenance window"


class Verdict(Enum):
    FOUND = "found"
    REFUSED = "refused"
    MISSED = "missed"


@dataclass
class Result:
    row: str
    verdict: Verdict
    seen: Seen | None = None
    delay_ms: float | None = None
    """From the end of the act to the durable record."""
    actor: str | None = None
    """The confidence that the right process was named with; `None`: nobody was named."""
    why: str = ""


@dataclass(frozen=True)
class Combination:
    filesystem: str
    backend: str
    state: State
    kernel: str | None = None
    """Which older kernel the daemon believes to run on."""

    @property
    def name(self) -> str:
        older = f"-{self.kernel}" if self.kernel else ""
        return f"{self.filesystem}-{self.backend}-{self.state.name.lower()}{older}"

    def rows(self) -> list[Row]:
        """What can be done here and would be a change."""
        return [row for row in ROWS if self._is_possible(row)]

    def _is_possible(self, row: Row) -> bool:
        if row.only_on and self.filesystem not in row.only_on:
            return False
        # The lock that ends a window reads what is in the page cache.
        if row.seen is Seen.DEEP and self.state is State.UNLOCKED:
            return False
        is_sealed = self.state is State.SEALED
        return not (row.only_unsealed if is_sealed else row.only_sealed)

    def seen(self, row: Row) -> Seen:
        """How the change of a row is seen here."""
        return row.seen_on.get(self.filesystem, row.seen)


class Acting:
    """An act in a process of its own, which lives until it is released: who did it can still be looked at."""

    def __init__(self, act: table.Act, site: Site):
        result, said = os.pipe()
        self._wait, self._release = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            # Nothing of the parent's may run here.
            status = 1
            try:
                libc = ctypes.CDLL(None)
                libc.prctl(PR_SET_NAME, ACTOR.encode())
                libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
                os.close(self._release)
                try:
                    act(site)
                    os.write(said, b"\n")
                except OSError as error:
                    os.write(said, f"{error.strerror}\n".encode())
                except subprocess.CalledProcessError as error:
                    os.write(said, f"{error.cmd[0]} failed\n".encode())
                os.read(self._wait, 1)
                status = 0
            finally:
                os._exit(status)
        os.close(said)
        os.close(self._wait)
        self.error = self._listen(result)
        self.done_at = time.monotonic()

    @staticmethod
    def _listen(result: int) -> str:
        """What went wrong, or nothing."""
        with os.fdopen(result, "rb") as heard:
            if not select.select([heard], [], [], ACT_SECONDS)[0]:
                return "it hangs"
            line = heard.readline()
        return line.decode().strip() if line else "killed by a signal"

    def release(self) -> None:
        os.close(self._release)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@dataclass
class Pending:
    """A change that was made and is not found yet."""

    row: Row
    base: str
    acting: Acting
    left: dict[str, str]
    at: float = 0.0
    actors: list[dict | None] | None = None


class Run:
    """One combination, from the empty file system to the last finding."""

    def __init__(self, combination: Combination, top: Path):
        self.combination = combination
        self.work = Path(tempfile.mkdtemp(dir=top, prefix=""))
        self.results: list[Result] = []
        self.noise: list[str] = []
        """Findings that nothing explains."""
        self._names = {row.name: f"{n:02}" for n, row in enumerate(combination.rows())}
        self._controls = {control.name: f"c{n}" for n, control in enumerate(CONTROLS)}

    def go(self) -> Run:
        combination = self.combination
        private_mounts()
        place = places.PLACES[combination.filesystem](self.work)
        below = place.lower or place.top
        for name in [*self._names.values(), *self._controls.values(), "zz"]:
            table.furnish(below / "srv/app" / name, below / "outside" / name)
        for path in [below / "srv", below / "srv/app", *(below / "srv/app").iterdir()]:
            path.chmod(0o755)
        if place.lower:
            places.lay_over(place)
        self.app, self.outside, self.place = place.top / "srv/app", place.top / "outside", place
        sites = {row.name: self.site(self._names[row.name]) for row in combination.rows()}
        for row in combination.rows():
            row.prepare(sites[row.name])
        seal = "immutable" if combination.state is State.SEALED else "none"
        # Where there is no fanotify it is not asked for.
        asked = "auto" if combination.kernel else combination.backend
        self.daemon = Daemon(self.work, self.app, asked, seal, combination.kernel)
        self.daemon.configure(QUIET)
        with self.daemon.running():
            self.daemon.call("Lock", reason="test", anyway=True)
            if combination.state is State.UNLOCKED:
                self.daemon.call("Unlock", reason="test", maintainer="ada")
            self._settle()
            self._act_all(sites)
            self._act_apart(sites)
            self._controls_raise_nothing()
        return self

    def site(self, name: str) -> Site:
        lower = self.place.lower
        return Site(self.app / name, self.outside / name, self.place.device, lower and lower / "srv/app" / name)

    def _settle(self) -> None:
        """Until what the daemon does first is over."""
        # In a window the rehash that closes a gap of that cause waits for the lock.
        may_stay = {"down"} if self.combination.state is State.UNLOCKED else set()
        until("no open gap", lambda: all(g["until"] or g["cause"] in may_stay for g in self.daemon.site()["watch"]["gaps"]))
        watch = self.daemon.site()["watch"]
        assert watch["backend"] == self.combination.backend, watch

    def _act_all(self, sites: dict[str, Site]) -> None:
        c = self.combination
        later: list[Pending] = []
        # What the kernel tells of: one after the other, while nobody looks by himself.
        rows = [row for row in c.rows() if not row.apart]
        for row in sorted(rows, key=lambda row: c.seen(row) not in AT_ONCE):
            pending = self._act(row, sites[row.name])
            if pending is None:
                continue
            if c.seen(row) in AT_ONCE:
                self._await([pending], "the kernel's word")
            else:
                later.append(pending)
        looks = [p for p in later if c.seen(p.row) is Seen.LOOK]
        self._await(looks, "a look")
        self.daemon.configure(LIVELY)
        self.daemon.call("Reload")
        self._await([p for p in later if p not in looks], "sweep and rehash")

    def _act_apart(self, sites: dict[str, Site]) -> None:
        """What needs a daemon that does not watch, or moves the root: one after the other."""
        for row in filter(lambda row: row.apart, self.combination.rows()):
            site = sites[row.name]
            self._fall_silent(row.spell)
            try:
                pending = self._act(row, site)
            finally:
                self._wake(row.spell)
            if pending:
                if row.spell:
                    pending.acting.done_at = time.monotonic()
                self._await([pending], row.name)
            if row.undo:
                row.undo(site)
            self._settle()

    def _fall_silent(self, spell: Spell | None) -> None:
        match spell:
            case Spell.STOPPED | Spell.STARTING:
                self.daemon.signal(signal.SIGTERM)
            case Spell.KILLED:
                self.daemon.signal(signal.SIGKILL)
            case Spell.FROZEN:
                self.daemon.signal(signal.SIGSTOP)
        if spell is Spell.STARTING:
            self.daemon.spawn()

    def _wake(self, spell: Spell | None) -> None:
        match spell:
            case Spell.STOPPED | Spell.KILLED:
                self.daemon.start()
            case Spell.STARTING:
                self.daemon.wait()
            case Spell.FROZEN:
                self.daemon.signal(signal.SIGCONT)

    def _act(self, row: Row, site: Site) -> Pending | None:
        self.daemon.follow()
        acting = Acting(row.act, site)
        if acting.error:
            acting.release()
            refused = self.combination.state is State.SEALED
            self.results.append(Result(row.name, Verdict.REFUSED if refused else Verdict.MISSED, why=acting.error))
            return None
        base = self._names[row.name]
        left = {str(site.above) if p == table.ABOVE else f"{base}/{p}": c for p, c in row.finds.items()}
        return Pending(row, base, acting, left, actors=[])

    def _await(self, pending: list[Pending], what: str) -> None:
        def all_found() -> bool:
            for at, _, finding in self.daemon.findings():
                for p in pending:
                    if p.left.get(finding["path"]) in finding["change"]:
                        del p.left[finding["path"]]
                        p.at = max(p.at, at)
                        p.actors.append(finding.get("actor"))
            return not any(p.left for p in pending)

        try:
            until(what, all_found)
        except TimeoutError:
            pass
        for p in pending:
            self.results.append(self._judge(p))
            p.acting.release()

    def _judge(self, p: Pending) -> Result:
        c = self.combination
        seen = c.seen(p.row)
        if p.left:
            told = [(f["path"], f["change"]) for _, _, f in self.daemon.findings() if f["path"].split("/")[0] == p.base]
            return Result(p.row.name, Verdict.MISSED, seen, why=f"nothing of {p.left}; findings there: {told}")
        actor = None
        for named in filter(None, p.actors or []):
            if named["confidence"] != "unknown" and named["pid"] != p.acting.pid and named.get("comm") not in REAL_PROGRAMS:
                return Result(p.row.name, Verdict.MISSED, seen, why=f"somebody else was named: {named}")
            actor = named["confidence"]
        return Result(p.row.name, Verdict.FOUND, seen, round((p.at - p.acting.done_at) * 1000, 1), actor)

    def _controls_raise_nothing(self) -> None:
        for control in CONTROLS:
            name = self._controls[control.name]
            acting = Acting(control.act, self.site(name))
            acting.release()
            if acting.error and self.combination.state is not State.SEALED:
                self.noise.append(f"{control.name}: {acting.error}")
        # What comes after them is found: so they were looked at.
        last = self.site("zz")
        if self.combination.state is State.SEALED:
            for path in (last.here, last.f):
                set_flags(path, flags_of(path) & ~table.sys_.IMMUTABLE)
        last.f.write_bytes(b"the last\n")
        until("the last change", lambda: any(f["path"] == "zz/f" and "content" in f["change"] for _, _, f in self.daemon.findings()))
        own = re.compile(r"^c\d+(/|$)")
        self.noise += [f"{f['path']}: {f['change']}" for _, _, f in self.daemon.findings() if own.match(f["path"])]
        top = [f for _, _, f in self.daemon.findings() if f["path"] in (".", "noise", "ignored.tmp")]
        self.noise += [f"{f['path']}: {f['change']}" for f in top]


def run(combination: Combination, top: Path) -> tuple[list[Result], list[str]]:
    """For a worker."""
    done = Run(combination, top)
    try:
        done.go()
    except Exception as error:
        said = (done.work / "said").read_text(errors="replace") if (done.work / "said").exists() else ""
        raise RuntimeError(f"{combination.name}: {error!r}\n{said[-4000:]}") from error
    return done.results, done.noise
