"""The package: what installing, upgrading, removing and purging it do, and that its unit is what it says."""

from __future__ import annotations

import re

import pytest

import application
from guard import ENVIRONMENT, LOGS, ROOT, STATE, UNIT, Guard, attributes, package
from machine import wait_until
from paths import REPOSITORY

HIGHEST_EXPOSURE = 3.5


@pytest.fixture(scope="module")
def guard(machine) -> Guard:
    application.small(machine.on_disk(ROOT))
    return Guard(machine)


@pytest.fixture(scope="module")
def before(guard) -> dict:
    """The application's attributes before anything of ours touched it."""
    scripts = guard.machine.path(f"{ROOT}/scripts")
    scripts.chmod(0o2775)
    (scripts / "backup.sh").chmod(0o4755)
    guard.machine.run(f"setfacl -m u:nobody:r,m:r {ROOT}/backend/app/settings.py; setfattr -n user.note -v kept {ROOT}/.env.prod")
    guard.machine.run(f"chown nobody:nogroup {ROOT}/backend/app/urls.py; chmod 0600 {ROOT}/backend/app/urls.py")
    return attributes(guard.machine.path(ROOT))


def test_installs_without_starting_anything(guard, before):
    guard.install()
    run = guard.machine.run
    assert run(["systemctl", "is-enabled", UNIT], status=None).out.strip() == "disabled"
    assert run(["systemctl", "is-active", UNIT], status=None).out.strip() == "inactive"
    assert run(["getent", "group", "guardd"]).out.startswith("guardd:")
    stat = ["stat", "--format=%a %U:%G %n"]
    assert run([*stat, STATE, LOGS, "/etc/guardd", "/etc/guardd/guardd.toml"]).lines() == [
        f"711 root:root {STATE}", f"2750 root:guardd {LOGS}", "755 root:root /etc/guardd", "644 root:root /etc/guardd/guardd.toml",
    ]
    assert run(["dpkg", "--verify", "guardd"]).out == ""


def test_the_shipped_configuration_is_good(guard):
    guard.ctl("check-config")


def test_the_service_starts_with_nothing_to_guard(guard):
    guard.start()
    assert guard.ctl("status", "--json").json()["environments"] == []
    guard.machine.run(["systemctl", "stop", UNIT])


def test_init_enable_lock(guard, before):
    guard.set_up()
    status = guard.status()
    assert (status["state"], status["generation"], status["reason"]) == ("locked", 1, "first lock")
    assert status["protected"]["files"] >= 10
    sealed = guard.machine.path(f"{ROOT}/backend/app/settings.py").stat()
    assert sealed.st_mode & 0o222 == 0, "a locked file is read-only"
    assert status["seal"]["done"] == "immutable", status["seal"]
    assert "i" in guard.machine.run(["lsattr", f"{ROOT}/backend/app/settings.py"]).out.split()[0]
    assert guard.ctl("alerts", "--json").json() == []


def test_the_unit_is_valid_and_confined(guard):
    verify = guard.machine.run(["systemd-analyze", "--man=no", "verify", UNIT])
    assert UNIT not in verify.err, verify.err
    exposure = guard.machine.run(["systemd-analyze", "security", "--no-pager", UNIT]).out
    level = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", exposure).group(1))
    print(f"exposure level {level}")
    assert level <= HIGHEST_EXPOSURE, exposure


def test_anybody_can_verify_the_lock_file(guard):
    verify = (
        f"head -n1 {STATE}/locks/{ENVIRONMENT}.lock | ssh-keygen -Y verify -f {STATE}/public/allowed_signers"
        f" -I guardd -n guardd-lock -s signature"
    )
    run = guard.machine.run
    shell = ["bash", "-c", f"cd $(mktemp -d) && tail -n +2 {STATE}/locks/{ENVIRONMENT}.lock > signature && {verify}"]
    assert "Good \"guardd-lock\" signature for guardd" in run(shell, user="nobody").out
    lock = run(f"head -n1 {STATE}/locks/{ENVIRONMENT}.lock | jq -r .environment,.state,.generation", user="nobody")
    assert lock.lines() == [ENVIRONMENT, "locked", "1"]
    forged = ["bash", "-c", shell[2].replace("head -n1", "sed -n '1s/locked/unlocked/p'", 1)]
    run(forged, user="nobody", status=255)


def test_everything_opens_without_guardd(guard, before):
    """The shell lines of the operations guide, as they stand there, on a copy of the tree and of the state."""
    text = (REPOSITORY / "docs/operations.md").read_text().partition("## Without guardd")[2]
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)[:4]
    blocks[0] = blocks[0].replace("/mnt/", "/root/mnt/")
    run = guard.machine.run
    run(f"mkdir -p /root/mnt/srv /root/mnt/var/lib && cp -a {ROOT} /root/mnt/srv/ && cp -a {STATE} /root/mnt/var/lib/")
    said = run(["bash", "-e", "-o", "pipefail", "-c", "\n".join(blocks)])
    assert 'Good "guardd-baseline" signature' in said.out and "undo.jsonl: OK" in said.out
    found = attributes(guard.machine.path("/root/mnt/srv/app"))
    assert {path: values[0] for path, values in found.items()} == {path: values[0] for path, values in before.items()}


def test_logs_are_for_the_group(guard):
    lines = guard.machine.run(f"stat --format='%a %U:%G' {LOGS}/*.log").lines()
    assert lines and set(lines) == {"640 root:guardd"}


def test_logrotate_loses_no_line(guard):
    guard.machine.run("chattr -i /srv/app/backend/app/settings.py && echo 1 >> /srv/app/backend/app/settings.py")
    guard.wait_log("path=backend/app/settings.py")
    guard.machine.run("logrotate --force /etc/logrotate.d/guardd")
    assert len(list(guard.machine.path(LOGS).glob("security-alerts.log-*"))) == 1
    guard.machine.run("chattr -i /srv/app/backend/app/views.py && echo 1 >> /srv/app/backend/app/views.py")
    guard.wait_log("path=backend/app/views.py")
    stat = guard.machine.run(f"stat --format='%a %U:%G' {LOGS}/security-alerts.log").out.strip()
    assert stat == "640 root:guardd"


def test_an_upgrade_keeps_the_lock(guard):
    old = guard.machine.main_pid(UNIT)
    lock = guard.machine.read(f"{STATE}/locks/{ENVIRONMENT}.lock")
    guard.install(package(upgrade=True))
    assert guard.machine.main_pid(UNIT) not in (0, old), "the upgrade restarts a running service"
    status = guard.wait_ready()
    assert (status["generation"], status["reason"]) == (1, "first lock")
    assert guard.machine.read(f"{STATE}/locks/{ENVIRONMENT}.lock").splitlines()[0] == lock.splitlines()[0]
    guard.machine.run("chattr -i /srv/app/backend/app/urls.py && echo 2 >> /srv/app/backend/app/urls.py")
    guard.wait_finding("backend/app/urls.py", "content")


def test_a_removal_that_cannot_unseal_is_refused(guard):
    plans = guard.machine.path(f"{STATE}/baseline/{ENVIRONMENT}")
    hidden = plans.with_name("hidden")
    plans.rename(hidden)
    try:
        refused = guard.machine.run(["dpkg", "--remove", "guardd"], status=1)
        assert "guardd is not removed" in refused.err
    finally:
        hidden.rename(plans)
    wait_until(lambda: guard.machine.show(UNIT, "ActiveState") == "active", "the service that the refused removal stopped")


def test_removal_unseals_exactly(guard, before):
    changed = {"backend/app/settings.py", "backend/app/views.py", "backend/app/urls.py"}
    guard.machine.run(["dpkg", "--remove", "guardd"])
    after = attributes(guard.machine.path(ROOT))
    assert after.keys() == before.keys()
    for path, expected in before.items():
        found = after[path]
        if path in changed:
            # Their content was changed above, and with it the time of the last change.
            found, expected = found[:3] + found[4:], expected[:3] + expected[4:]
        assert found == expected, path
    assert guard.machine.run(["systemctl", "is-enabled", UNIT], status=None).out.strip() in ("", "not-found")
    assert guard.machine.path(STATE).is_dir()


def test_purge_keeps_backups_and_the_keys_to_open_them(guard):
    guard.machine.write(f"{STATE}/backups/{ENVIRONMENT}/1/pack", "precious")
    guard.machine.run(["dpkg", "--purge", "guardd"])
    kept = {path.name for path in guard.machine.path(STATE).iterdir()}
    assert kept == {"backups", "keys", "public"}
    assert not guard.machine.path("/etc/guardd").exists()
    assert not guard.machine.path(LOGS).exists()


def test_purge_removes_all_if_asked(guard):
    guard.install()
    guard.machine.run("GUARDD_PURGE_BACKUPS=1 dpkg --purge guardd")
    assert not guard.machine.path(STATE).exists()
