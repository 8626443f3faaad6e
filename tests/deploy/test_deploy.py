"""Deployments of a compose application on a real engine: each way in which `docker compose up --wait` is content with a
release that is not good ends with the old one back, verified."""

from __future__ import annotations

import hashlib
import os
import shutil

import pytest
from application import BACKEND, URL, compose_file
from engine import RUN_AS
from linux import until

FULL = os.environ.get("GUARDD_TEST_FULL") == "1"

DEPLOY = f"""steps = [
    {{ name = "copy", run = "cp -r ../releases/$GUARDD_REVISION/. ." }},
    {{ name = "up", run = "docker compose up --detach --wait", deadline = "60s" }},
]
rollback = [{{ name = "up", run = "docker compose up --detach --wait", deadline = "60s" }}]
health = [{{ http = "{URL}", body = "ok" }}, {{ compose = "healthy" }}]
stable_for = "4s"
deadline = "24s"
opens_window = true
"""


def digest(root) -> str:
    whole = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        whole.update(f"{path.relative_to(root)} {path.lstat().st_mode:o} {path.lstat().st_uid}\n".encode())
        if path.is_file():
            whole.update(path.read_bytes())
    return whole.hexdigest()


@pytest.fixture
def release(application, place):
    """Makes a release of these files."""
    def make(files: dict[str, str]) -> None:
        directory = place / "releases/next"
        directory.mkdir(parents=True)
        for name, text in files.items():
            (directory / name).write_text(text)
            shutil.chown(directory / name, RUN_AS)

    return make


@pytest.fixture
def deployed(guard, application):
    application.up()
    guard.configure("[environments.production.compose]\n", DEPLOY)
    guard.start()
    guard.ctl("lock", "production", "--reason", "release 1")
    return guard


def test_a_good_release(deployed, application, release):
    release({"docker-compose.yml": compose_file(f"echo new > /www/new; {BACKEND}"), "site.conf": "two\n"})
    done = deployed.deploy("--revision", "next", "--reason", "release 2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert deployed.state() == "locked"
    assert application.engine.docker("exec", application.container("backend"), "cat", "/www/site.conf", "/www/new").stdout == "two\nnew\n"


TRAPS = {
    "crash loop without a health check": compose_file("test -e /www/health || echo ok > /www/health; httpd -p 8080 -h /www; sleep 2; exit 1",
                                                      restart="always", check=False),
    "failing one-shot migration": compose_file(migrate="exit 3"),
    "missing variable": compose_file().replace("${SECRET_KEY}", "${NEW_KEY:?is not set}"),
    "healthy, then dead": compose_file(f"(sleep 5; rm /www/health) & {BACKEND}"),
    "health URL that flaps": compose_file(f"(while true; do sleep 1; rm -f /www/health; sleep 1; echo ok > /www/health; done) & {BACKEND}",
                                          check=False),
}
DEFAULT = ("failing one-shot migration",)


@pytest.mark.parametrize("trap", TRAPS)
def test_a_trap_ends_with_the_old_release(deployed, application, release, trap):
    if not FULL and trap not in DEFAULT:
        pytest.skip("GUARDD_TEST_FULL=1; the verification itself is tested for each")
    release({"docker-compose.yml": TRAPS[trap], "added": "by the release\n"})
    before = digest(application.root)
    done = deployed.deploy("--revision", "next", "--reason", trap)
    assert done.returncode == 5, done.stdout + done.stderr
    last = deployed.last()
    assert last["end"] == "rolled-back", last
    assert digest(application.root) == before
    assert deployed.state() == "locked"
    assert application.engine.docker("exec", application.container("backend"), "cat", "/www/health").stdout == "ok\n"
    until("every gate", lambda: all(g["verdict"] == "pass" for g in deployed.validate().values()))


@pytest.mark.skipif(not FULL, reason="GUARDD_TEST_FULL=1; the verification itself is tested for it")
def test_a_replaced_bind_mounted_file(deployed, application, release):
    """`up -d` says Running, and the container goes on with the old file."""
    release({"site.conf": "two\n"})
    deployed.configure("[environments.production.compose]\n", DEPLOY.replace("cp -r", "cp --remove-destination -r"))
    deployed.ctl("reload")
    before = digest(application.root)
    done = deployed.deploy("--revision", "next", "--reason", "new settings")
    assert done.returncode == 5, done.stdout + done.stderr
    assert "site.conf was replaced" in deployed.last()["why"], deployed.last()
    assert digest(application.root) == before
