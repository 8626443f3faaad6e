"""Who reads sensitive files, told by the installed service: within the protections of its unit."""

from __future__ import annotations

import pytest

import application
from guard import CONFIGURATION, ENVIRONMENT, ROOT, Guard
from machine import wait_until

SECRET = ".env.prod"


@pytest.fixture(scope="module")
def guard(machine) -> Guard:
    application.small(machine.on_disk(ROOT))
    guard = Guard(machine)
    guard.install()
    guard.configure(f'{CONFIGURATION}\n[environments.{ENVIRONMENT}.readers]\nunit = ["expected.service"]\n')
    guard.start()
    guard.ctl("lock", ENVIRONMENT, "--reason", "test")
    return guard


def readings(guard: Guard) -> list[dict]:
    return guard.ctl("who", "--reads", ENVIRONMENT, SECRET, "--json").json()["reads"]


def read_by(guard: Guard, unit: str) -> dict:
    """The service goes on, so that it can be asked who it is."""
    script = f"exec 3< {ROOT}/{SECRET}; read -r line <&3; exec sleep 1000"
    guard.machine.run(["systemd-run", f"--unit={unit}", "bash", "-c", script])

    def told():
        found = [r for r in readings(guard) if r["actor"] and r["actor"]["unit"] == f"{unit}.service"]
        return found and found[0]

    return wait_until(told, f"reading by {unit}")


def test_it_is_followed_and_said_by_what(guard):
    told = guard.status()["watch"]["reads"]
    # In a container the kernel's audit is not to be had.
    assert (told["by"], told["why"]) == ("fanotify", None)
    assert told["files"] >= 1 and told["blind"]


def test_who_is_expected_is_recorded_and_who_is_not_is_an_alert(guard):
    assert read_by(guard, "expected")["expected"] is True
    assert not [a for a in guard.alerts() if any("read" in f["change"] for f in a["findings"])]
    assert read_by(guard, "stranger")["expected"] is False
    found = guard.wait_finding(SECRET, "read")
    assert found.finding["actor"]["unit"] == "stranger.service"
    guard.wait_log("change=read", SECRET)
