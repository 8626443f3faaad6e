"""What the crash tests share: a mount namespace of their own, prepared images, and workers that try points side by side."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import steps  # noqa: E402
import world as worlds  # noqa: E402
from linux import private_mounts  # noqa: E402
from matrix import Matrix  # noqa: E402

IMAGES_MIB = 1024
WORKERS_PER_CPU = 3
"""Most of the time a point waits: for its daemon, or until an entry has been left alone for 20 ms."""


def pytest_report_header(config):
    return f"crash: {'every point' if worlds.IS_FULL else 'a sample of the points; GUARDD_TEST_FULL=1 tries every one'}"


def pytest_collection_modifyitems(config, items):
    if why := steps.why_not():
        for item in items:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def top(tmp_path_factory) -> Path:
    """A directory that only this run's processes see mounts in; images are kept in memory."""
    if not (worlds.BINARIES / "guardd").exists():
        pytest.fail(f"{worlds.BINARIES}/guardd is missing: cargo build -p guardd")
    private_mounts()
    # A socket's path is short.
    top = Path(subprocess.run(["mktemp", "-d", "/tmp/guardd-crash.XXXXXX"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip())
    (top / "images").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={IMAGES_MIB}m", "guardd-test", top / "images"], check=True)
    yield top
    subprocess.run(["umount", "-l", top / "images"], check=True)
    subprocess.run(["rm", "-rf", "--one-file-system", top], check=True)


@pytest.fixture(scope="session")
def matrix(top, request):
    """Runs operations and their points: those of all tests that were asked for, from the first one on."""
    workers = WORKERS_PER_CPU * (os.cpu_count() or 1)
    fork = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, mp_context=fork, initializer=private_mounts) as pool:
        matrix = Matrix(top, pool)
        matrix.begin(item.callspec.params["cut"] for item in request.session.items)
        yield matrix
        pool.shutdown(cancel_futures=True)
