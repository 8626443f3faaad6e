"""Deployments of a plain process: nobody needs Docker for them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import urllib.request
from pathlib import Path

import pytest
from engine import RUN_AS
from guard import BINARIES, Guard
from linux import until

START = """#!/bin/sh
# A step's own processes end with it: the server gets a session of its own.
if test -e ../pid; then
    old=$(cat ../pid)
    kill "$old" 2>/dev/null
    # Until then the port is its own, and the new one cannot have it.
    while grep -q '^State:.[^Z]' "/proc/$old/status" 2>/dev/null; do sleep 0.1; done
    rm ../pid
fi
setsid -f sh -c 'echo $$ > ../pid; exec busybox httpd -f -p 127.0.0.1:PORT -h "$PWD/www"' </dev/null >/dev/null 2>&1
# Before it has its session it would end with the step.
until test -s ../pid; do sleep 0.1; done
"""


class Site:
    """A directory that a web server of nobody's shows, and releases of it beside."""

    def __init__(self, place: Path):
        self.place, self.root = place, place / "site"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        (self.root / "www").mkdir(parents=True)
        (self.root / "www/health").write_text("ok 1\n")
        (self.root / "www/old").write_text("stays or comes back\n")
        (self.root / "start").write_text(START.replace("PORT", str(self.port)))
        (self.root / "start").chmod(0o755)
        self.release("2", {"health": "ok 2\n"})
        self.owned(self.place)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/health"

    def owned(self, *paths: Path) -> None:
        for top in paths:
            for path in (top, *top.rglob("*")):
                shutil.chown(path, RUN_AS)

    def release(self, name: str, files: dict[str, str]) -> None:
        directory = self.place / "releases" / name
        directory.mkdir(parents=True)
        for file, text in files.items():
            (directory / file).write_text(text)
        self.owned(self.place / "releases")

    def digest(self) -> str:
        """Of every name, mode and content."""
        whole = hashlib.sha256()
        for path in sorted(self.root.rglob("*")):
            whole.update(f"{path.relative_to(self.root)} {path.lstat().st_mode:o} {path.lstat().st_uid}\n".encode())
            if path.is_file():
                whole.update(path.read_bytes())
        return whole.hexdigest()

    def says(self) -> str:
        with contextlib.suppress(OSError):
            return urllib.request.urlopen(self.url, timeout=5).read().decode().strip()
        return ""

    def end(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int((self.place / "pid").read_text()), signal.SIGKILL)


COPY = '{ name = "copy", run = "cp ../releases/$GUARDD_REVISION/* www/ && rm -f www/old && touch www/added" }'
UP = '{ name = "up", run = "./start" }'


def deploy_table(site: Site, steps: str, more: str = "", body: str = "ok") -> str:
    return f"""steps = [{steps}]
rollback = [{UP}]
health = [{{ http = "{site.url}", body = "{body}" }}, {{ tcp = "127.0.0.1:{site.port}" }}]
stable_for = "2s"
deadline = "15s"
{more}"""


@pytest.fixture
def site(place):
    (place / "home").mkdir()
    made = Site(place / "home")
    yield made
    made.end()


@pytest.fixture
def plain(place, site):
    work = place / "guardd"
    work.mkdir()
    subprocess.run(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "./start"], cwd=site.root, check=True)
    until("the site", lambda: site.says() == "ok 1")
    made = Guard(work, site.root, None)
    yield made
    made.clean_up()


def started(guard: Guard, site: Site, steps: str, more: str = "", body: str = "ok") -> Guard:
    guard.configure("", deploy_table(site, steps, more, body))
    return guard.start()


def test_a_good_deployment(plain, site):
    guard = started(plain, site, f"{COPY}, {UP}")
    done = guard.deploy("--revision", "2", "--reason", "release 2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert site.says() == "ok 2"
    assert (site.root / "www/added").exists() and not (site.root / "www/old").exists()
    assert guard.last()["end"] == "done"


@pytest.mark.parametrize("steps,why", [
    (f'{COPY}, {{ name = "migrate", run = "echo no column >&2; exit 3" }}, {UP}', "migrate"),
    (f'{COPY}, {{ name = "hang", run = "sleep 1000 & sleep 1000", deadline = "2s" }}', "hang"),
    (f'{COPY}, {{ name = "killed", run = "kill -9 $$" }}', "killed"),
], ids=["step that fails", "step that hangs", "step that is killed"])
def test_a_step_that_goes_wrong_is_rolled_back(plain, site, steps, why):
    guard = started(plain, site, steps)
    before = site.digest()
    done = guard.deploy("--revision", "2", "--reason", "release 2")
    assert done.returncode == 5, done.stdout + done.stderr
    assert site.digest() == before
    assert guard.last()["end"] == "rolled-back" and why in guard.last()["why"], guard.last()
    until("the site as before", lambda: site.says() == "ok 1")


def test_a_release_that_is_not_well_is_rolled_back(plain, site):
    site.release("3", {"health": "down\n"})
    guard = started(plain, site, f"{COPY}, {UP}")
    before = site.digest()
    done = guard.deploy("--revision", "3", "--reason", "release 3")
    assert done.returncode == 5, done.stdout + done.stderr
    assert site.digest() == before and site.says() == "ok 1"
    assert guard.last()["end"] == "rolled-back", guard.last()


def test_a_locked_environment_is_unlocked_for_it_and_locked_again(plain, site):
    site.release("3", {"health": "down\n"})
    guard = started(plain, site, f"{COPY}, {UP}", "opens_window = true")
    guard.ctl("lock", "production", "--reason", "release 1")
    before = site.digest()
    assert guard.deploy("--revision", "3", "--reason", "release 3").returncode == 5
    assert site.digest() == before
    assert guard.state() == "locked"
    done = guard.deploy("--revision", "2", "--reason", "release 2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert guard.state() == "locked" and site.says() == "ok 2"
    gates = guard.validate()
    assert all(gate["verdict"] == "pass" for gate in gates.values()), gates
    done = guard.ctl("rollback", "production", "--reason", "back", check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    until("the site as before", lambda: site.says() == "ok 1")
    assert guard.state() == "locked" and (site.root / "www/old").exists() and not (site.root / "www/added").exists()


def test_two_at_once(plain, site):
    guard = started(plain, site, f'{{ name = "wait", run = "touch ../begun; while test ! -e ../go; do sleep 0.1; done" }}, {COPY}, {UP}')
    command = [BINARIES / "guardctl", "deploy", "production", "--revision", "2", "--reason", "first"]
    environment = os.environ | {"GUARDD_SOCKET": f"{guard.work}/run/control.sock"}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        # What a deployment begins with may take a while.
        until("the first step", (site.place / "begun").exists)
        second = guard.deploy("--revision", "2", "--reason", "second")
        assert second.returncode == 3, second.stdout + second.stderr
        (site.place / "go").touch()
        said, _ = first.communicate(timeout=60)
        assert first.returncode == 0, said
    finally:
        first.kill()
        first.wait()
    assert site.says() == "ok 2"


def test_a_gate_that_does_not_hold_stops_it_before_it_begins(plain, site):
    guard = started(plain, site, f"{COPY}, {UP}", "", body="never said")
    before = site.digest()
    done = guard.deploy("--revision", "2", "--reason", "release 2")
    assert done.returncode in (3, 5), done.stdout + done.stderr
    assert site.digest() == before and site.says() == "ok 1"
