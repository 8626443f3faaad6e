"""What all system tests share: the Debian release under test, a machine per module, and what is kept of a failure."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import application  # noqa: E402
import machine as machines  # noqa: E402
import rootfs  # noqa: E402
from guard import ENVIRONMENT, ROOT, Guard  # noqa: E402
from paths import ARTIFACTS  # noqa: E402

JOURNAL_LINES_SHOWN = 120


def pytest_addoption(parser):
    parser.addoption("--debian", choices=rootfs.RELEASES, default=rootfs.RELEASES[0], help="the release to boot")


def pytest_configure(config):
    if os.geteuid() != 0:
        raise pytest.UsageError("the system tests boot machines: run them as root")


def pytest_sessionstart(session):
    machines.reap()


@pytest.fixture(scope="session")
def release(request) -> str:
    return request.config.getoption("--debian")


@pytest.fixture(scope="module")
def machine(release, request):
    """A freshly booted machine with nothing of ours in it, for one test module."""
    with machines.Machine(release, name=f"{release}-{request.module.__name__.removeprefix('test_').replace('_', '-')}") as booted:
        yield booted


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    used = item.funcargs.get("machine") if hasattr(item, "funcargs") else None
    if not report.failed or used is None:
        return
    journal, console = used.journal_text(), used.console()
    directory = ARTIFACTS / f"{used.name}-{item.name}-{report.when}"
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "journal").write_text(journal)
    (directory / "console").write_text(console)
    (directory / "guardctl").write_text(asked(used))
    for log in used.path("/var/log/guardd").glob("*.log"):
        (directory / log.name).write_bytes(log.read_bytes())
    tail = "\n".join(journal.splitlines()[-JOURNAL_LINES_SHOWN:])
    report.sections.append((f"journal of {used.name} (all of it: {directory})", tail))
    report.sections.append((f"guardctl in {used.name}", asked(used)))
    report.sections.append((f"console of {used.name}", console))


def asked(used: machines.Machine) -> str:
    """What guardctl and systemctl say now."""
    try:
        questions = (["guardctl", "status"], ["guardctl", "alerts"], ["systemctl", "status", "--no-pager", "guardd"])
        return "\n".join(used.look(question, check=False, seconds=10).describe() for question in questions)
    except (AssertionError, machines.MachineError) as error:
        return str(error)


@pytest.fixture(scope="module")
def guard(machine) -> Guard:
    """guardd guarding the small application, locked, with nothing changed yet."""
    application.small(machine.on_disk(ROOT))
    guard = Guard(machine)
    guard.install()
    guard.configure()
    guard.start()
    guard.ctl("lock", ENVIRONMENT, "--reason", "first lock")
    return guard
