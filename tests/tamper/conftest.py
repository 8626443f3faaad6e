"""Runs the combinations side by side before the tests ask for their results."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import daemon  # noqa: E402
import matrix  # noqa: E402

IS_FULL = os.environ.get("GUARDD_TEST_FULL") == "1"
OLDER = [("fanotify", "6.1"), ("fanotify", "5.10"), ("inotify", "bare")]
"""What is used where newer calls are not there, and which of them are not."""
WORKERS_PER_CPU = 2
"""Most of the time a combination waits: for a finding, or for a look."""


def combinations() -> list[matrix.Combination]:
    """All with `GUARDD_TEST_FULL=1`; else every state and backend on ext4, and elsewhere the first and the sealed one."""
    every = [
        matrix.Combination(filesystem, backend, state)
        for filesystem in matrix.places.PLACES
        for backend in ("inotify", "fanotify")
        for state in matrix.State
    ]
    sample = [
        c
        for c in every
        if c.filesystem == "ext4" or c.state is matrix.State.WATCHED or (c.state, c.backend) == (matrix.State.SEALED, "fanotify")
    ]
    older = [matrix.Combination("ext4", backend, matrix.State.WATCHED, kernel) for backend, kernel in OLDER]
    return [*(every if IS_FULL else sample), *older]


def pytest_report_header(config):
    return f"tamper: {'all combinations' if IS_FULL else 'a sample of the combinations; GUARDD_TEST_FULL=1 tries all'}"


def pytest_collection_modifyitems(config, items):
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs root: mounts, owners, flags"))


def pytest_generate_tests(metafunc):
    if "combination" in metafunc.fixturenames:
        metafunc.parametrize("combination", combinations(), ids=lambda c: c.name)


@pytest.fixture(scope="session")
def results():
    """What is to come of each combination, by name."""
    if not (daemon.BINARIES / "guardd").exists():
        pytest.fail(f"{daemon.BINARIES}/guardd is missing: cargo build -p guardd")
    # A socket's path is short.
    top = Path(tempfile.mkdtemp(prefix="guardd-tamper.", dir="/tmp"))
    workers = WORKERS_PER_CPU * (os.cpu_count() or 1)
    # Each in a process of its own: it has mounts of its own.
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        possible = [c for c in combinations() if not matrix.places.why_not(c.filesystem)]
        running: dict[str, Future] = {c.name: pool.submit(matrix.run, c, top) for c in possible}
        yield running
    subprocess.run(["rm", "-rf", "--one-file-system", top], check=True)
