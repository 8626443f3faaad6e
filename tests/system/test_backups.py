"""Backups in a machine: made with the shipped hardening, opened by Debian's own age, zstd, tar and jq."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

import application
from guard import ENVIRONMENT, ROOT, STATE, Guard, all_below, attributes
from paths import REPOSITORY

ELSEWHERE = "/opt/app-backups"
RESTORED = "/root/restored"
RECOVERY_KEY = "/root/recovery.key"


@pytest.fixture(scope="module")
def guard(machine) -> Guard:
    application.small(machine.on_disk(ROOT))
    guard = Guard(machine)
    guard.install()
    machine.run(["setfattr", "-n", "user.origin", "-v", "a \\ value", f"{ROOT}/docker-compose.unified.yml"], status=None)
    guard.configure()
    guard.start()
    return guard


@pytest.fixture(scope="module")
def before(guard) -> tuple[dict, dict]:
    """Attributes and digests of the tree before it is locked."""
    root = guard.machine.path(ROOT)
    return attributes(root), digests(root)


def digests(root: Path) -> dict[str, str]:
    files = (path for path in all_below(root) if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def lines(name: str) -> str:
    """The shell lines of docs/backups.md that are marked with this name."""
    page = (REPOSITORY / "docs/backups.md").read_text()
    return re.search(rf"<!-- test: {name} -->\n```sh\n(.*?)```", page, flags=re.DOTALL).group(1)


def backups(guard: Guard) -> list[dict]:
    return guard.ctl("backup", "list", ENVIRONMENT, "--json").json()["backups"]


def test_the_recovery_key_is_told_once_and_nowhere_kept(guard, before):
    identity = guard.ctl("backup", "init").out
    secret = identity.strip().splitlines()[-1]
    assert secret.startswith("AGE-SECRET-KEY-1")
    guard.machine.write(RECOVERY_KEY, identity)
    kept = guard.machine.run(["grep", "-rlF", secret, STATE, "/var/log/guardd", "/run/guardd"], status=None).out
    assert kept == ""
    assert secret not in str(guard.machine.journal("--unit=guardd.service"))


def test_lock_makes_a_backup_and_a_drill_proves_it(guard):
    guard.ctl("lock", ENVIRONMENT, "--reason", "first lock")
    assert [(b["kind"], b["proof"], b["missing"], b["recovery"]) for b in backups(guard)] == [("pre-lock", "verified", 0, True)]
    assert guard.ctl("backup", "verify", ENVIRONMENT, "--json").json()["ok"]
    drill = guard.ctl("backup", "drill", ENVIRONMENT, "--json").json()
    assert drill["ok"], drill
    assert not list(guard.machine.path(f"{STATE}/drill").glob("*"))
    assert guard.status()["backups"]["last_drill"]["id"] == backups(guard)[0]["id"]


def test_an_emergency_backup_before_unlock(guard):
    guard.ctl("unlock", ENVIRONMENT, "--reason", "look", "--maintainer", "anna")
    assert [b["kind"] for b in backups(guard)] == ["pre-lock", "emergency"]
    guard.ctl("lock", ENVIRONMENT, "--reason", "again")


@pytest.mark.parametrize("key", [RECOVERY_KEY, f"{STATE}/keys/backup-identity"])
def test_the_documented_lines_open_a_backup_without_guardd(guard, before, key):
    setting = lines("setting").replace(f"{STATE}/keys/backup-identity", key)
    names = ("verify", "decrypt", "make", "attributes", "xattrs", "finish")
    script = setting + "".join(lines(name) for name in names)
    said = guard.machine.run(["bash", "-e", "-o", "pipefail", "-c", script])
    assert 'Good "guardd-backup" signature' in said.out
    restored = guard.machine.path(RESTORED)
    wanted_attributes, wanted_digests = before
    found = attributes(restored)
    assert {path: kept(values) for path, values in found.items()} == {path: kept(values) for path, values in wanted_attributes.items() if path in found}
    unwritten = {path: sha256 for path, sha256 in wanted_digests.items() if not {"logs", "media"} & set(path.split("/"))}
    assert digests(restored) == {path: sha256 for path, sha256 in unwritten.items() if "__pycache__/" not in path and path != ".git/index.lock"}
    guard.machine.run(["rm", "-r", RESTORED])


def kept(values: tuple) -> tuple:
    """All but the inode flags, which the shell lines do not set."""
    return values[:-1]


def test_an_export_is_the_backup_in_one_file(guard):
    guard.ctl("backup", "export", ENVIRONMENT, "--to", "/root/export.tar")
    guard.machine.run("mkdir /root/export && tar -xf /root/export.tar -C /root/export")
    setting = lines("setting").replace(f"{STATE}/backups/{ENVIRONMENT}", "/root/export")
    guard.machine.run(["bash", "-e", "-o", "pipefail", "-c", setting + lines("verify")])


def test_a_damaged_backup_is_told_and_made_good_by_the_next(guard):
    pack = next(guard.machine.path(f"{STATE}/backups/{ENVIRONMENT}/packs").iterdir())
    content = bytearray(pack.read_bytes())
    content[len(content) // 2] ^= 1
    pack.write_bytes(content)
    assert "DAMAGED" in guard.ctl("backup", "verify", ENVIRONMENT, status=1).out
    assert any("is damaged" in alert["title"] for alert in guard.alerts())
    guard.ctl("backup", "create", ENVIRONMENT, "--note", "after the damage")
    guard.ctl("backup", "verify", ENVIRONMENT)
    guard.ctl("backup", "drill", ENVIRONMENT)


def test_backups_elsewhere(guard):
    guard.ctl("unlock", ENVIRONMENT, "--reason", "move the backups", "--maintainer", "anna")
    text = guard.machine.read(f"/etc/guardd/environments.d/{ENVIRONMENT}.toml")
    guard.machine.write(
        f"/etc/guardd/environments.d/{ENVIRONMENT}.toml", f'{text}\n[environments.{ENVIRONMENT}.backup]\ndir = "{ELSEWHERE}"\n'
    )
    guard.ctl("reload")
    guard.ctl("lock", ENVIRONMENT, "--reason", "moved")
    mode = guard.machine.run(["stat", "--format=%a %U", f"{ELSEWHERE}/{ENVIRONMENT}"]).out.split()
    assert mode == ["700", "root"]
    guard.ctl("backup", "verify", ENVIRONMENT)
