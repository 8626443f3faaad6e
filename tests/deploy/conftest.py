"""What the deployment tests share: one engine for all of them, and an application and a daemon for each."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import application as applications  # noqa: E402
import engine as engines  # noqa: E402
import guard as guards  # noqa: E402


def pytest_collection_modifyitems(items) -> None:
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs root: namespaces, and other users"))


@pytest.fixture(scope="session")
def engine():
    with engines.running() as engine:
        engine.image("app:1")
        yield engine


@pytest.fixture
def place(tmp_path) -> Path:
    # The user who deploys goes through it.
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o711)
    return tmp_path


@pytest.fixture
def application(engine, place):
    made = applications.Application(place / "app", engine)
    yield made
    made.down()


@pytest.fixture
def guard(place, application):
    made = guards.Guard(place, application.root, application.engine)
    yield made
    made.clean_up()
