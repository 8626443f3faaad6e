"""The seal with the immutable flag, as a service: whom it stops, whom it does not, and that it is taken off exactly,
by guardd, and by hand from the document alone when guardd is gone."""

from __future__ import annotations

import hashlib
import re
import struct
import time
from pathlib import Path

import pytest

import application
from guard import CONFIGURATION, ENVIRONMENT, LOGS, ROOT, STATE, UNIT, WRITTEN, Guard, all_below, attributes
from machine import wait_until
from paths import REPOSITORY

IMMUTABLE = CONFIGURATION.replace('seal = "read-only"', 'seal = "immutable"')

SLACK = 3
"""What a loaded test machine may add to a bound, seconds."""


@pytest.fixture(scope="module")
def guard(machine) -> Guard:
    application.small(machine.on_disk(ROOT))
    return Guard(machine)


@pytest.fixture(scope="module")
def before(guard) -> dict:
    """Everything that is easy to lose, before anything of ours touched it; and the application at work."""
    run = guard.machine.run
    run(f"git clone --quiet --bare --no-hardlinks {ROOT} /root/origin.git")
    run(f"cd {ROOT} && git remote add origin /root/origin.git && git fetch --quiet")
    run("git clone --quiet /root/origin.git /root/other && cd /root/other && echo new >> backend/app/views.py"
        " && git -c user.email=a@b -c user.name=a commit --quiet --all --message second && git push --quiet")
    run(f"cd {ROOT} && git branch --quiet --set-upstream-to=origin/$(git branch --show-current)")
    run(f"chmod 2775 {ROOT}/scripts; chmod 4755 {ROOT}/scripts/backup.sh; chmod 0600 {ROOT}/backend/app/urls.py;"
        f" chmod 1777 {ROOT}/frontend/src; chown nobody:nogroup {ROOT}/backend/app/urls.py;"
        f" setfacl -m u:nobody:rwx,m:rx {ROOT}/backend/app/settings.py; setfacl -d -m u:nobody:rwx {ROOT}/backend/app;"
        f" setfattr -n user.note -v kept {ROOT}/.env.prod; ln {ROOT}/scripts/deploy.sh {ROOT}/scripts/second-name")
    # cap_net_bind_service=ep, as setcap(8) would write it.
    capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
    run(["python3", "-c", f"import os; os.setxattr('{ROOT}/scripts/deploy.sh', 'security.capability', {capability!r})"])
    run(f"chattr +d {ROOT}/backend/requirements.txt; chattr +A {ROOT}/backend/Dockerfile; chattr +a {ROOT}/frontend/index.html;"
        f" chattr +i {ROOT}/frontend/package.json; chattr +i {ROOT}/deployment")
    guard.machine.write("/root/working.py", application.WORKING)
    run(["systemd-run", "--unit=working", "python3", "/root/working.py"])
    return protected(guard)


@pytest.fixture(scope="module")
def sealed(guard, before) -> dict:
    """Locked, for the first time: what everything looks like under the seal."""
    guard.install()
    guard.configure(IMMUTABLE)
    guard.start()
    said = guard.ctl("lock", ENVIRONMENT, "--reason", "first lock").out
    assert "seal immutable\n" in said
    assert "    .\n" in said, "the root, which holds logs/ and media/, is listed"
    return protected(guard)


def protected(guard) -> dict:
    """The attributes of what is protected."""
    return attributes(guard.machine.path(ROOT), without=WRITTEN)


def contents(guard) -> str:
    """One digest over names and contents of what is protected."""
    root = guard.machine.path(ROOT)
    digest = hashlib.sha256()
    for path in sorted(all_below(root, without=WRITTEN)):
        if path.is_file() and not path.is_symlink():
            name = path.relative_to(root)
            digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def lines_of_log(guard) -> int:
    return guard.machine.read(f"{ROOT}/logs/app.log").count("\n")


def test_it_locks_with_the_flag(guard, before, sealed):
    seal = guard.status()["seal"]
    assert (seal["asked"], seal["done"], seal["why"]) == ("immutable", "immutable", None)
    for path in ("backend/app/settings.py", "backend/app", ".env.prod", "frontend/index.html", "scripts/second-name", ".git/config"):
        mode, flags = int(sealed[path][0], 8), sealed[path][5]
        assert mode & 0o222 == 0 and "i" in flags, (path, sealed[path])
    assert sealed["."][0] == before["."][0] and "i" not in sealed["."][5]


def test_the_application_goes_on(guard, sealed):
    already = lines_of_log(guard)
    wait_until(lambda: lines_of_log(guard) > already + 60, "more lines in the application's log")
    assert guard.machine.show("working.service", "ActiveState") == "active"
    assert guard.machine.path(f"{ROOT}/media/upload-7").exists()
    assert guard.alerts("list", "--all") == []


@pytest.mark.parametrize("command", [
    "echo DEBUG=1 >> .env.prod",
    "echo x > backend/app/settings.py",
    "sed -i s/False/True/ backend/app/settings.py",
    "vim.tiny -es -u NONE -c 'normal Gox' -c 'wq!' backend/app/settings.py",
    "rm -f backend/app/views.py",
    "rm -rf frontend/src",
    "mv backend/app/urls.py backend/app/views.py",
    "mv backend backend.old",
    "mv .env.prod .env.old",
    "cp /etc/passwd backend/app/new.py",
    "ln -sf /etc/passwd backend/app/settings.py",
    "ln backend/app/settings.py logs/settings.py",
    "chmod u+w backend/app/settings.py",
    "chown nobody backend/app/settings.py",
    "truncate --size=0 scripts/deploy.sh",
    "touch backend/app/settings.py",
    "setfattr -n user.x -v y backend/app/settings.py",
    "setfacl -m u:nobody:rwx backend/app/settings.py",
    "git pull --quiet",
    "git checkout --quiet -b other",
])
def test_root_is_refused(guard, sealed, command):
    contents_then = contents(guard)
    refused = guard.machine.run(["sh", "-c", command], directory=ROOT, status=None)
    # vim in this mode says nothing about a file that it could not write.
    assert refused.status != 0 or command.startswith("vim"), refused.describe()
    assert contents(guard) == contents_then


def test_what_was_refused_changed_nothing_and_is_no_alert(guard, sealed):
    assert protected(guard) == sealed
    assert guard.ctl("check", ENVIRONMENT, "--json").json()["clean"]
    assert guard.alerts("list", "--all") == []


@pytest.mark.parametrize("path", [".env.prod", "backend/app/settings.py", "frontend/src"])
def test_a_lifted_flag_alone_is_an_alert_within_its_bound(guard, sealed, path):
    bound = wait_until(lambda: guard.status()["seal"]["every_ms"], "a whole round over the seal") / 1000
    guard.quiet()
    last, began = guard.last_alert(), time.time()
    guard.machine.run(["chattr", "-i", f"{ROOT}/{path}"])
    seen = guard.wait_finding(path, "flags", "seal", after_alert=last)
    from_start = time.time() - began
    limit = 2 if path == ".env.prod" else bound + 1
    print(f"{path}: seen within {from_start:.2f} s; a round takes {bound:.2f} s")
    assert from_start < limit + SLACK
    assert seen.change == {"flags", "seal"}
    repaired = guard.ctl("lock", ENVIRONMENT, "--json").json()
    assert repaired["repaired"] == 1 and repaired["skipped"] == []


def test_a_widened_mode_is_an_alert(guard, sealed):
    guard.quiet()
    last = guard.last_alert()
    guard.machine.run(f"chattr -i {ROOT}/scripts/backup.sh && chmod u+w {ROOT}/scripts/backup.sh")
    guard.wait_finding("scripts/backup.sh", "mode", "flags", "seal", after_alert=last)
    assert guard.ctl("lock", ENVIRONMENT, "--json").json()["repaired"] == 1


def test_an_edit_after_lifting_the_flag_is_an_alert(guard, sealed):
    guard.quiet()
    last = guard.last_alert()
    name = f"{ROOT}/backend/app/views.py"
    guard.machine.run(f"cp -p {name} /root/kept && chattr -i {name} && echo '# x' >> {name}")
    guard.wait_finding("backend/app/views.py", "content", "seal", after_alert=last)
    guard.machine.run(f"cat /root/kept > {name} && touch -r /root/kept {name}")
    guard.ctl("lock", ENVIRONMENT)
    assert guard.ctl("check", ENVIRONMENT, "--json").json()["clean"]


def test_unlock_gives_back_exactly(guard, before, sealed):
    assert protected(guard) == sealed
    guard.ctl("unlock", ENVIRONMENT, "--reason", "release", "--maintainer", "ada")
    assert protected(guard) == before
    guard.ctl("lock", ENVIRONMENT, "--reason", "released")
    assert protected(guard) == sealed


def blocks_of(document: Path, heading: str) -> list[str]:
    """The shell blocks of one section."""
    section = document.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)


def test_removed_by_force_the_tree_is_verified_and_unsealed_by_hand(guard, before, sealed):
    """With the very lines of the operations guide, on a machine where guardd is gone."""
    run = guard.machine.run
    run("rm -f /usr/bin/guardd /usr/sbin/guardd /usr/bin/guardctl /usr/sbin/guardctl")
    # What was ending already need not be ended.
    run(["systemctl", "kill", "--signal=KILL", UNIT], status=None)
    run(["dpkg", "--remove", "--force-all", "guardd"], status=None)
    run(["systemctl", "stop", UNIT], status=None)
    assert run("command -v guardd guardctl", status=None).out == ""
    assert guard.machine.run(f"echo x >> {ROOT}/backend/app/settings.py", status=None).status != 0, "it is still sealed"
    setting, verify, compare, undo, *_ = blocks_of(REPOSITORY / "docs/operations.md", "Without guardd")
    for word in ("jq", "chmod", "chattr"):
        assert word in undo
    said = run(["bash", "-euo", "pipefail", "-c", "\n".join((setting.replace("/mnt/", "/"), verify, compare, undo))])
    assert 'Good "guardd-baseline" signature' in said.out and "undo.jsonl: OK" in said.out
    assert protected(guard) == before
    assert guard.machine.show("working.service", "ActiveState") == "active"
    run(f"sed -i s/False/True/ {ROOT}/backend/app/settings.py && cd {ROOT} && git pull --quiet")
    assert guard.machine.path(STATE).is_dir() and guard.machine.path(LOGS).is_dir()
