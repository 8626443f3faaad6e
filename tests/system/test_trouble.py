"""When what guardd stands on breaks, or somebody takes it away: a clear word, nothing lost, no crash."""

from __future__ import annotations

import json
import os
import signal
from contextlib import contextmanager

import pytest

import application
from guard import ENVIRONMENT, LOGS, ROOT, SOCKET, STATE, UNIT, Guard
from machine import wait_until

STATE_MIB = 64


@pytest.fixture(scope="module")
def guard(machine) -> Guard:
    """Like the usual one, with the state directory on a file system of its own that can be filled."""
    application.small(machine.on_disk(ROOT))
    machine.run(f"mkdir --parents {STATE}")
    machine.write(
        "/etc/systemd/system/var-lib-guardd.mount",
        f"[Mount]\nWhat=tmpfs\nWhere={STATE}\nType=tmpfs\nOptions=size={STATE_MIB}M,mode=0711\n[Install]\nWantedBy=local-fs.target\n",
    )
    machine.run("systemctl daemon-reload; systemctl enable --now var-lib-guardd.mount")
    guard = Guard(machine)
    guard.install()
    guard.configure()
    guard.start()
    guard.ctl("lock", ENVIRONMENT, "--reason", "first lock")
    return guard


def edit(guard: Guard, path: str) -> None:
    guard.quiet()
    guard.machine.run(f"echo changed >> {ROOT}/{path}")


def degraded(guard: Guard, *words: str) -> str:
    """Waits until the daemon says of itself something with these words."""

    def said():
        answer = guard.ctl("status", "--json", status=None)
        lines = answer.json()["daemon"]["degraded"] if answer.status == 0 else []
        return next((line for line in lines if all(word in line.lower() for word in words)), None)

    return wait_until(said, f"word of {words} in status", seconds=180, every=0.2)


def healthy(guard: Guard, *words: str) -> None:
    def nothing_said():
        lines = guard.daemon()["degraded"]
        return not any(all(word in line.lower() for word in words) for line in lines)

    wait_until(nothing_said, f"end of what status said of {words}", seconds=180, every=0.5)


@contextmanager
def process_stopped(guard: Guard, unit: str):
    pid = guard.machine.host_pid(guard.machine.main_pid(unit))
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


# journald


def test_journald_stalled_delays_nothing_and_loses_nothing(guard):
    with process_stopped(guard, "systemd-journald.service"):
        for number in range(30):
            guard.machine.path(f"{ROOT}/scripts/stalled-{number}").write_text("x")
        guard.wait_log("path=scripts/stalled-0")
        guard.wait_finding("scripts/stalled-29", "created")
    guard.wait_journal(GUARDD_PATH="scripts/stalled-0")


def test_journald_gone_delays_nothing_and_loses_nothing(guard):
    guard.quiet()
    with journald_gone(guard):
        guard.machine.path(f"{ROOT}/scripts/no-journal").write_text("x")
        guard.wait_log("path=scripts/no-journal")
        guard.wait_finding("scripts/no-journal", "created")
        degraded(guard, "journal")
    guard.wait_journal(GUARDD_PATH="scripts/no-journal")
    healthy(guard, "journal")


@contextmanager
def journald_gone(guard: Guard):
    sockets = "systemd-journald.socket systemd-journald-dev-log.socket"
    guard.machine.run(
        f"systemctl mask --runtime {sockets} systemd-journald.service && systemctl stop {sockets} systemd-journald.service;"
        " rm -f /run/systemd/journal/socket",
        status=None,
    )
    try:
        yield
    finally:
        guard.machine.run(f"systemctl unmask --runtime {sockets} systemd-journald.service; systemctl start {sockets} systemd-journald.service")


# Log files


def test_log_directory_removed(guard):
    guard.machine.run(["rm", "-r", LOGS])
    edit(guard, "backend/app/urls.py")
    guard.wait_log("path=backend/app/urls.py")
    guard.wait_finding("backend/app/urls.py", "content")


def test_log_file_replaced_by_a_directory(guard):
    guard.machine.run(f"rm {LOGS}/security-alerts.log; mkdir {LOGS}/security-alerts.log")
    edit(guard, "backend/app/views.py")
    guard.wait_finding("backend/app/views.py", "content")
    degraded(guard, "security-alerts")
    guard.machine.run(["rmdir", f"{LOGS}/security-alerts.log"])
    guard.wait_log("path=backend/app/views.py")
    healthy(guard, "security-alerts")


# The socket


def test_socket_removed_comes_back_or_is_reported(guard):
    guard.machine.run(["rm", SOCKET])
    wait_until(lambda: guard.ctl("status", status=None).status == 0, "the socket's return", seconds=180, every=0.5)
    assert guard.machine.run(["stat", "--format=%a %U:%G", SOCKET]).out.strip() == "660 root:guardd"


# The disk


def test_full_disk_under_the_state_directory(guard):
    run = guard.machine.run
    filler = f"{STATE}/filler"
    run(f"dd if=/dev/zero of={filler} bs=64k status=none", status=1)
    try:
        edit(guard, "backend/app/settings.py")
        guard.wait_log("path=backend/app/settings.py")
        degraded(guard, "full")
        # The reserve lets the first alerts be durable. Once that is used up, alerts go out all the same, marked.
        run(f"dd if=/dev/zero of={filler}2 bs=64k status=none", status=1)
        edit(guard, "scripts/deploy.sh")
        guard.wait_log("path=scripts/deploy.sh")
        refused = guard.ctl("unlock", ENVIRONMENT, "--reason", "x", "--maintainer", "x", status=None)
        assert refused.status in (3, 5), refused.describe()
        assert guard.status()["state"] == "locked"
    finally:
        run(f"rm -f {filler} {filler}2")
    guard.wait_finding("scripts/deploy.sh", "content")
    guard.wait_finding("backend/app/settings.py", "content")
    healthy(guard, "full")
    assert guard.ctl("log", "verify", "--json").json()["ok"]
    assert guard.machine.show(UNIT, "NRestarts") == "0"


# guardd itself


@pytest.mark.parametrize(
    ("path", "edit_line"),
    [
        ("/etc/guardd/environments.d/production.toml", "sed -i 's/^seal.*/seal = \"none\"/'"),
        ("/etc/guardd/guardd.toml", "echo '# harmless?' >>"),
        (f"/usr/lib/systemd/system/{UNIT}", "sed -i s/WatchdogSec=30s/WatchdogSec=0/"),
        ("/usr/bin/guardctl", "echo x >>"),
        ("/usr/bin/guardd", "cp /usr/bin/guardd /tmp/g && echo x >> /tmp/g && mv /tmp/g"),
    ],
    ids=["environment", "configuration", "unit", "guardctl", "guardd"],
)
def test_what_guardd_consists_of_is_watched_too(guard, path, edit_line):
    run = guard.machine.run
    kept = run(f"cp --preserve {path} /root/kept && {edit_line} {path}")
    assert kept.status == 0
    guard.wait_log(path.rpartition("/")[2])
    run(f"cp --preserve /root/kept {path}")


def test_keys_are_watched_too(guard):
    guard.machine.run(f"cp -a {STATE}/keys /root/keys; for f in {STATE}/keys/*; do echo >> $f; done")
    guard.wait_log("keys/")
    guard.machine.run(f"cp -a /root/keys/. {STATE}/keys/")


def test_a_tampered_lock_file_is_reported_and_put_right(guard):
    lock = f"{STATE}/locks/{ENVIRONMENT}.lock"
    signer = f"-f {STATE}/public/allowed_signers -I guardd -n guardd-lock"
    verify = f"head -n1 {lock} | ssh-keygen -Y verify {signer} -s <(tail -n +2 {lock})"

    def right() -> bool:
        lines = guard.machine.read(lock).splitlines()
        return json.loads(lines[0])["state"] == "locked" and guard.machine.run(["bash", "-c", verify], status=None).status == 0

    assert right()
    guard.machine.run(f"sed -i '1s/locked/unlocked/' {lock}")
    guard.wait_log("lock_file")
    wait_until(right, "the lock file put right")
    guard.machine.run(["rm", lock])
    wait_until(lambda: guard.machine.path(lock).exists() and right(), "the lock file put back")


def test_a_second_daemon_on_the_same_state_is_refused(guard):
    second = guard.machine.run("guardd run", status=None, seconds=30)
    assert second.status not in (0, None)
    assert str(guard.machine.main_pid(UNIT)) in second.err + second.out, second.describe()
    guard.ctl("status")


def test_a_bad_configuration_is_refused_whole_and_the_last_good_one_guards(guard):
    guard.machine.write("/etc/guardd/environments.d/more.toml", "[environments.more]\nrooot = \"/srv/more\"\nseal = 7\n")
    refused = guard.ctl("reload", status=None)
    assert refused.status in (2, 3)
    assert "more.toml:2" in refused.err and "rooot" in refused.err and "more.toml:3" in refused.err
    guard.machine.run(["systemctl", "restart", UNIT])
    guard.wait_ready()
    degraded(guard, "configuration")
    edit(guard, "backend/requirements.txt")
    guard.wait_finding("backend/requirements.txt", "content")
    guard.machine.run("rm /etc/guardd/environments.d/more.toml")
    guard.ctl("reload")
    healthy(guard, "configuration")


# The root (last: the tree is taken from under the daemon's feet)


def test_root_mounted_over_is_reported(guard):
    guard.machine.run(f"mkdir /srv/other && mount --bind /srv/other {ROOT}")
    try:
        guard.wait_log("change=", "root")
        refused = guard.ctl("check", ENVIRONMENT, status=None)
        assert refused.status != 0, "a tree that cannot be seen is never ok"
    finally:
        guard.machine.run(["umount", ROOT])


def test_root_renamed_away_is_reported_and_its_return_too(guard):
    guard.machine.run(["mv", ROOT, "/srv/gone"])
    wait_until(lambda: "root" in str([f["change"] for a in guard.alerts() for f in a["findings"]]), "alert about the root")
    assert guard.ctl("check", ENVIRONMENT, status=None).status != 0
    guard.machine.run(["mv", "/srv/gone", ROOT])
    wait_until(lambda: guard.ctl("check", ENVIRONMENT, status=None).status in (0, 1), "a check after the root's return")
    edit(guard, "backend/Dockerfile")
    guard.wait_finding("backend/Dockerfile", "content")


def test_it_is_the_same_process_all_the_time(guard):
    """Nothing of all this crashed it: the one restart above was asked for."""
    assert guard.machine.show(UNIT, "NRestarts") == "0"
