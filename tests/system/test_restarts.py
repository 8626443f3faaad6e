"""Whatever ends the daemon, it comes back guarding, and tells what happened while it was away."""

from __future__ import annotations

import os
import signal

import pytest

from guard import ROOT, UNIT, Guard
from machine import wait_until
from threads import Frozen, threads

WATCHDOG_SECONDS = 5
"""Shorter than the shipped 30 s, so that the tests do not wait for half a minute each."""


def edit(guard: Guard, path: str) -> None:
    guard.machine.run(f"echo changed >> {ROOT}/{path}")


def test_restart_keeps_the_lock(guard):
    before = guard.status()
    old = guard.machine.main_pid(UNIT)
    guard.machine.run(["systemctl", "restart", UNIT])
    guard.wait_new_main_process(old)
    after = guard.wait_ready()
    assert (after["generation"], after["reason"]) == (before["generation"], before["reason"])
    assert guard.alerts() == []
    edit(guard, "backend/app/urls.py")
    guard.wait_everywhere("backend/app/urls.py", "content")


def test_what_changed_while_it_was_stopped_is_reported_at_the_next_start(guard):
    guard.machine.run(["systemctl", "stop", UNIT])
    guard.ctl("status", status=4)
    edit(guard, "backend/app/settings.py")
    guard.machine.run(f"mkdir {ROOT}/backend/app/new && echo x > {ROOT}/backend/app/new/file.py; rm {ROOT}/scripts/backup.sh")
    guard.start()
    guard.wait_everywhere("backend/app/settings.py", "content")
    guard.wait_everywhere("backend/app/new/file.py", "created")
    guard.wait_everywhere("scripts/backup.sh", "deleted")


def test_the_time_it_was_down_is_a_gap_that_closes(guard):
    status = guard.wait_rehashed()
    gaps = [gap for gap in status["watch"]["gaps"] if gap["cause"] == "down"]
    assert gaps and all(gap["until"] and gap["verified"] for gap in gaps)
    guard.wait_log("gap_closed", log="protection.log")


def test_a_start_with_the_same_contents_but_other_times_reads_them_again(guard):
    """Who changes a file and puts size and time back is not believed: the inode's change time tells."""
    guard.machine.run(["systemctl", "stop", UNIT])
    target = f"{ROOT}/frontend/src/App.tsx"
    guard.machine.run(f"touch -r {target} /tmp/time; sed 's/hello/h3llo/' {target} > /tmp/x; cat /tmp/x > {target}; touch -r /tmp/time {target}")
    guard.start()
    guard.wait_everywhere("frontend/src/App.tsx", "content")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGABRT], ids=lambda number: number.name)
def test_ended_by_an_intruder_it_comes_back(guard, number):
    old = guard.machine.main_pid(UNIT)
    os.kill(guard.machine.host_pid(old), number)
    guard.wait_new_main_process(old)
    assert guard.wait_ready()["generation"] == 1
    path = f"scripts/after-{number.name}"
    edit(guard, path)
    guard.wait_everywhere(path, "created")


def test_ended_ten_times_in_a_row_it_still_comes_back(guard):
    for _ in range(10):
        old = guard.wait_new_main_process(0)
        os.kill(guard.machine.host_pid(old), signal.SIGKILL)
        guard.wait_new_main_process(old)
    guard.wait_ready()
    assert guard.ctl("log", "verify", "--json").json()["ok"]


def test_a_change_between_kill_and_restart_is_reported(guard):
    guard.machine.write(f"/etc/systemd/system/{UNIT}.d/slow.conf", "[Service]\nRestartSec=3s\n")
    guard.machine.run(["systemctl", "daemon-reload"])
    downs = [gap["id"] for gap in guard.status()["watch"]["gaps"] if gap["cause"] == "down"]
    old = guard.machine.main_pid(UNIT)
    os.kill(guard.machine.host_pid(old), signal.SIGKILL)
    wait_until(lambda: guard.machine.main_pid(UNIT) == 0, "the daemon's end")
    guard.machine.run(f"echo x > {ROOT}/scripts/in-between")
    guard.wait_new_main_process(old)
    seen = guard.wait_everywhere("scripts/in-between", "created")
    if guard.status()["watch"]["backend"] == "fanotify":
        # systemd kept what it watches by: who did it is told, by number at least, and no span was unwatched.
        assert seen.finding["actor"]["pid"] > 0
        assert [gap["id"] for gap in guard.status()["watch"]["gaps"] if gap["cause"] == "down"] == downs


def test_a_hung_daemon_is_restarted(guard):
    set_watchdog(guard)
    old = guard.machine.main_pid(UNIT)
    os.kill(guard.machine.host_pid(old), signal.SIGSTOP)
    guard.wait_new_main_process(old)
    assert guard.machine.show(UNIT, "NRestarts") != "0"
    assert any("atchdog" in entry["MESSAGE"] for entry in guard.machine.journal(f"UNIT={UNIT}"))


WATCHED_OVER = ("watch-0", "notify", "ledger", "warden", "observe")
"""Parts of the names of threads that must move for the watchdog to be fed."""


@pytest.mark.parametrize("part", WATCHED_OVER)
def test_one_hung_thread_is_enough(guard, part):
    set_watchdog(guard)
    old = guard.wait_new_main_process(0)
    guard.wait_ready()
    running = threads(guard.machine.host_pid(old))
    tid = next((tid for tid, name in running.items() if part in name), None)
    assert tid, f"no thread with {part!r} in its name: {sorted(running.values())}"
    with Frozen(tid) as frozen:
        def restarted():
            frozen.reap()
            return guard.machine.main_pid(UNIT) not in (0, old)

        wait_until(restarted, f"restart after thread {running[tid]} hung", seconds=12 * WATCHDOG_SECONDS)
    guard.wait_new_main_process(old)


def test_a_hung_log_writer_holds_up_nothing_and_is_said(guard):
    """A way out that hangs (a log on a dead network mount, say) is no reason for a restart, which would not help it."""
    guard.quiet()
    pid = guard.wait_new_main_process(0)
    guard.wait_ready()
    running = threads(guard.machine.host_pid(pid))
    tid = next(tid for tid, name in running.items() if name.startswith("log:security"))
    with Frozen(tid):
        edit(guard, "frontend/index.html")
        seen = guard.wait_finding("frontend/index.html", "content")
        guard.wait_journal(GUARDD_ALERT=str(seen.alert["id"]))
        wait_until(lambda: any("security-alerts" in s["name"] and s["behind"] for s in guard.daemon()["sinks"]), "word of it in status")
        assert not any("path=frontend/index.html" in line for line in guard.log_lines())
    guard.wait_log("path=frontend/index.html")
    assert guard.machine.main_pid(UNIT) == pid


def test_an_idle_daemon_is_not_restarted(guard):
    set_watchdog(guard)
    before = guard.machine.show(UNIT, "NRestarts")
    guard.machine.run(["sleep", str(3 * WATCHDOG_SECONDS)])
    assert guard.machine.show(UNIT, "NRestarts") == before


def set_watchdog(guard: Guard) -> None:
    drop_in = f"/etc/systemd/system/{UNIT}.d/watchdog.conf"
    if guard.machine.path(drop_in).exists():
        return
    guard.machine.write(drop_in, f"[Service]\nWatchdogSec={WATCHDOG_SECONDS}s\n")
    guard.machine.run(f"systemctl daemon-reload; systemctl restart {UNIT}")
    guard.wait_ready()


def test_reboot(guard):
    guard.machine.reboot()
    status = guard.wait_ready()
    assert status["generation"] == 1
    edit(guard, "backend/requirements.txt")
    guard.wait_everywhere("backend/requirements.txt", "content")


def test_changes_made_while_the_machine_was_off_are_reported(guard):
    guard.machine.power_off()
    guard.machine.path(f"{ROOT}/docker-compose.unified.yml").open("a").write("# from a rescue system\n")
    guard.machine.boot()
    guard.wait_everywhere("docker-compose.unified.yml", "content")


def test_after_a_crash_of_the_machine(guard):
    guard.machine.power_cut()
    guard.machine.boot()
    guard.wait_ready()
    verdict = guard.ctl("log", "verify", "--json").json()
    assert verdict["ok"], verdict
    edit(guard, "scripts/deploy.sh")
    guard.wait_everywhere("scripts/deploy.sh", "content")
