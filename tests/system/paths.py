"""Where the system tests keep what outlives a run, and where they leave what a person wants to see after a failure."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
"""The work tree under test."""

CACHE = Path(os.environ.get("GUARDD_TEST_CACHE", "/var/cache/guardd-tests"))
"""Root file systems, package downloads and built application trees. Safe to delete at any time while no test runs."""

MACHINES = CACHE / "machines"
"""One directory for each booted machine, removed when it is powered off."""

ARTIFACTS = Path(os.environ.get("GUARDD_TEST_ARTIFACTS", REPOSITORY / "target" / "test-artifacts"))
"""Journals, consoles and logs of machines on which a test failed."""
