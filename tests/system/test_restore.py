"""Putting back, as the installed service with its hardening, under the immutable seal: by guardd itself, by hand, and never
without end. The intruder has root's rights and takes the seal off first."""

from __future__ import annotations

import shlex
import time

import pytest

import application
from guard import CONFIGURATION, ENVIRONMENT, LOGS, ROOT, STATE, UNIT, WRITTEN, Guard, attributes
from machine import wait_until

BY_HAND = CONFIGURATION.replace('seal = "read-only"', 'seal = "immutable"\non_tamper = "alert"')
BY_ITSELF = BY_HAND.replace('"alert"', '"restore"')

CANARY = "canary-c8d1-of-a-secret"
TAMPER = """\
import fcntl, os, struct, sys
edited, deleted, replaced, widened, owned, lost_xattr, lost_acl, added, added_directory = sys.argv[1:]
for path in {*sys.argv[1:], *(os.path.dirname(path) or "." for path in sys.argv[1:])}:
    if os.path.exists(path):
        fd = os.open(path, os.O_RDONLY)
        flags, = struct.unpack("i", fcntl.ioctl(fd, 0x80086601, b"\\0" * 4))
        fcntl.ioctl(fd, 0x40086602, struct.pack("i", flags & ~0x10))
open(edited, "a").write("x")
os.unlink(deleted)
os.unlink(replaced)
os.symlink("/etc/shadow", replaced)
os.chmod(widened, 0o666)
os.chown(owned, 0, 0)
os.removexattr(lost_xattr, "user.note")
os.removexattr(lost_acl, "system.posix_acl_access")
open(added, "w").write("<?php")
os.mkdir(added_directory)
open(added_directory + "/deeper", "w").write("x")
"""

MINUTE = 60
"""Within which guardd counts how often it puts something back."""


@pytest.fixture(scope="module")
def guard(machine) -> Guard:
    application.small(machine.on_disk(ROOT))
    guard = Guard(machine)
    run = machine.run
    run(f"chown nobody:nogroup {ROOT}/backend/app/urls.py; setfattr -n user.note -v kept {ROOT}/backend/app/views.py;"
        f" setfacl -m u:nobody:r {ROOT}/backend/app/settings.py; mkdir {ROOT}/backend/__pycache__")
    machine.write("/root/working.py", application.WORKING)
    machine.write("/root/secret", f"ADDED_KEY={CANARY}\n")
    run(["systemd-run", "--unit=working", "python3", "/root/working.py"])
    guard.install()
    guard.configure(BY_HAND)
    guard.start()
    guard.ctl("lock", ENVIRONMENT, "--reason", "first lock")
    return guard


def tree(guard: Guard) -> dict:
    """What everything that is protected looks like: attributes, seal and content."""
    found = attributes(guard.machine.path(ROOT), without=WRITTEN)
    sums = guard.machine.run(
        f"find {ROOT} -path {ROOT}/logs -prune -o -path {ROOT}/media -prune -o -type f -print0 | sort -z | xargs -0 sha256sum"
    ).out
    return {"attributes": found, "sums": sums}


def tamper(guard: Guard, act: str, *unsealed: str) -> None:
    """Lifts the flag of these and does something; all at once, and again if guardd was quicker."""
    names = shlex.join(unsealed)
    script = f"for n in $(seq 50); do chattr -f -i {names}; if {act}; then exit 0; fi; done; exit 1"
    guard.machine.run(["sh", "-c", script], directory=ROOT)


def wait_put_back(guard: Guard, *paths: str, after_alert: int) -> None:
    """Waits until alerts say of each path that it was put back."""

    def missing():
        findings = [f for alert in guard.alerts() if alert["id"] > after_alert for f in alert["findings"]]
        return [path for path in paths if not any(f["path"] == path and f["restored"] for f in findings)]

    wait_until(lambda: not missing(), f"word that {paths} were put back", seconds=180, every=0.2)


def wait_clean(guard: Guard) -> None:
    def clean():
        return guard.ctl("check", ENVIRONMENT, "--json", status=None).json()["clean"]

    wait_until(clean, "an environment as it was locked", seconds=180, every=0.3)


def acknowledge_all(guard: Guard) -> None:
    for alert in guard.alerts():
        guard.ctl("alerts", "ack", str(alert["id"]), "--note", "seen")


def in_quarantine(guard: Guard) -> list[str]:
    return guard.machine.run(f"cat {STATE}/quarantine/{ENVIRONMENT}/*/contents.jsonl | jq -r .path").lines()


# By hand


def test_plan_then_one_path_by_hand(guard):
    before = tree(guard)
    path = "backend/app/urls.py"
    tamper(guard, f"echo '# intruder' >> {path}", path)
    guard.wait_finding(path, "content")
    shown = guard.ctl("diff", ENVIRONMENT, path, status=1).out
    assert "+# intruder" in shown, shown
    tampered = tree(guard)
    planned = guard.ctl("restore", ENVIRONMENT, path, "--plan").out
    assert path in planned and "would be put back" in planned, planned
    assert tree(guard) == tampered, "a plan changes nothing"
    guard.ctl("restore", ENVIRONMENT, path)
    wait_clean(guard)
    assert tree(guard) == before
    assert path in in_quarantine(guard)


def test_everything_by_hand(guard):
    before = tree(guard)
    run = guard.machine.run
    run("chattr -R -f -i scripts frontend; rm -rf scripts frontend/src && mkdir scripts && echo x > scripts/evil", directory=ROOT)
    guard.wait_finding("scripts/evil", "created")
    guard.wait_finding("frontend/src", "deleted")
    guard.ctl("restore", ENVIRONMENT, "--all")
    wait_clean(guard)
    assert tree(guard) == before
    assert run("test -e scripts/evil", directory=ROOT, status=1) and "scripts/evil" in in_quarantine(guard)


def test_no_secret_is_shown_or_kept_in_the_clear(guard):
    before = tree(guard)
    tamper(guard, "cat /root/secret >> .env.prod", ".env.prod")
    guard.wait_everywhere(".env.prod", "content")
    for said in (guard.ctl("diff", ENVIRONMENT, ".env.prod", status=1), guard.ctl("restore", ENVIRONMENT, ".env.prod", "--plan"),
                 guard.ctl("diff", ENVIRONMENT, "--json", status=1), guard.ctl("restore", ENVIRONMENT, ".env.prod", "--json"),
                 guard.ctl("alerts", "list", "--all", "--json"), guard.ctl("log", ENVIRONMENT, "--json")):
        assert CANARY not in said.out + said.err, said.describe()
        assert said.command.split()[1] != "diff" or "ADDED_KEY" in said.out, said.describe()
    wait_clean(guard)
    assert tree(guard) == before
    places = f"{LOGS} {STATE}/ledger {STATE}/guardd.db* {STATE}/baseline {STATE}/backups {STATE}/plans /var/log/journal /run/guardd"
    # Not as a unit of systemd, which tells the journal what it starts.
    assert guard.machine.look(["sh", "-c", f"grep -rlF {CANARY} {places}"], check=False).out == ""


def test_from_an_older_backup_in_a_window(guard):
    original = guard.machine.read(f"{ROOT}/backend/app/views.py")
    older = guard.ctl("backup", "list", ENVIRONMENT, "--json").json()["backups"][-1]["id"]
    refused = guard.ctl("restore", ENVIRONMENT, "backend/app/views.py", "--from", older, status=3)
    assert "unlock" in refused.err, refused.describe()
    guard.ctl("unlock", ENVIRONMENT, "--reason", "look at an older state", "--maintainer", "anna")
    guard.machine.run(f"echo '# later' >> {ROOT}/backend/app/views.py")
    guard.ctl("lock", ENVIRONMENT, "--reason", "a later state")
    guard.ctl("unlock", ENVIRONMENT, "--reason", "back to the older one", "--maintainer", "anna")
    guard.ctl("restore", ENVIRONMENT, "backend/app/views.py", "--from", older)
    assert guard.machine.read(f"{ROOT}/backend/app/views.py") == original


def test_who_has_the_old_one_is_named(guard):
    run = guard.machine.run
    guard.ctl("lock", ENVIRONMENT, "--reason", "ready")
    holding = f"{ROOT}/backend/Dockerfile"
    tamper(guard, "echo x >> backend/Dockerfile", "backend/Dockerfile")
    run(f"chattr -i {holding}; systemd-run --unit=writing sh -c 'exec 3>>{holding}; exec sleep infinity'")
    # As an engine does it for `./nginx.conf.template:/etc/nginx.conf`.
    path = "deployment/nginx.conf.template"
    tamper(guard, f"echo x >> {path}", path)
    run(f"touch /root/inside; systemd-run --unit=container --property=BindPaths={ROOT}/{path}:/root/inside sleep infinity")
    guard.wait_finding(path, "content")
    guard.wait_finding("backend/Dockerfile", "content")
    writing, container = (guard.machine.main_pid(f"{unit}.service") for unit in ("writing", "container"))
    wait_until(lambda: guard.machine.run(f"ls -l /proc/{writing}/fd").out.count("Dockerfile"), "the open file")
    said = guard.ctl("restore", ENVIRONMENT, "--all")
    told = said.out + said.err
    assert f"sleep (pid {writing})" in told and f"sleep (pid {container})" in told, said.describe()
    assert "recreate that container" in told
    run("systemctl stop writing container")
    wait_clean(guard)


# By itself


def test_whatever_root_does_is_put_back(guard):
    guard.ctl("unlock", ENVIRONMENT, "--reason", "from now on by itself", "--maintainer", "anna")
    guard.configure(BY_ITSELF)
    guard.ctl("reload")
    guard.ctl("lock", ENVIRONMENT, "--reason", "by itself")
    acknowledge_all(guard)
    guard.quiet()
    before, last = tree(guard), guard.last_alert()
    edited, deleted, replaced, widened = "docker-compose.unified.yml", "scripts/backup.sh", "frontend/index.html", ".env.prod"
    owned, lost_xattr, lost_acl = "backend/app/urls.py", "backend/app/views.py", "backend/app/settings.py"
    added, added_directory = "backend/app/shell.php", "backend/hidden"
    # In one process, which is done before guardd has looked.
    guard.machine.write("/root/tamper.py", TAMPER)
    guard.machine.run(["python3", "/root/tamper.py", edited, deleted, replaced, widened, owned, lost_xattr, lost_acl, added, added_directory],
                      directory=ROOT)
    wait_put_back(guard, edited, deleted, replaced, widened, owned, added, after_alert=last)
    wait_clean(guard)
    assert tree(guard) == before
    assert {added, replaced, edited} <= set(in_quarantine(guard))
    assert guard.machine.run(["stat", "--format=%a %U", f"{STATE}/quarantine"]).out.split() == ["700", "root"]
    guard.wait_log("put back", edited)


def test_lifting_the_flag_and_editing_is_reported_and_put_back(guard):
    guard.quiet()
    before, last = tree(guard), guard.last_alert()
    path = "backend/requirements.txt"
    tamper(guard, f"echo evil==1 >> {path}", path)
    seen = guard.wait_everywhere(path, "content", after_alert=last)
    wait_put_back(guard, path, after_alert=last)
    wait_clean(guard)
    assert tree(guard) == before
    assert seen.alert["severity"] == "critical"


def test_what_the_application_writes_is_never_put_back(guard):
    run = guard.machine.run
    run(f"echo upload > {ROOT}/media/upload.bin; rm {ROOT}/media/.keep; chmod 0600 {ROOT}/media/upload.bin;"
        f" echo cached > {ROOT}/backend/__pycache__/x.pyc", status=None)
    lines = guard.machine.read(f"{ROOT}/logs/app.log").count("\n")
    wait_until(lambda: guard.machine.read(f"{ROOT}/logs/app.log").count("\n") > lines + 40, "the application's log growing")
    assert guard.machine.show("working.service", "ActiveState") == "active"
    wait_clean(guard)
    assert run(["stat", "--format=%a", f"{ROOT}/media/upload.bin"]).out.strip() == "600"
    run(f"test ! -e {ROOT}/media/.keep")
    kept = in_quarantine(guard)
    assert not [path for path in kept if path.startswith(("media/", "logs/"))], kept


# Without end it is not


def over(guard: Guard) -> bool:
    return any("put back" in alert["title"] and alert["severity"] == "critical" for alert in guard.alerts())


def expect_stopped(guard: Guard) -> None:
    """Waits until guardd says that it goes on no longer: a critical alert, and in `status`."""
    wait_until(lambda: over(guard), "the end of the fight", seconds=180, every=0.2)
    assert any("not put back any more" in line for line in guard.daemon()["degraded"]), guard.daemon()["degraded"]
    assert guard.ctl("log", ENVIRONMENT, "-n", "200").out.count("not put back any more")


def goes_on(guard: Guard) -> None:
    """Acknowledged, it begins again, and puts back what differs."""
    acknowledge_all(guard)
    wait_clean(guard)
    assert not any("not put back any more" in line for line in guard.daemon()["degraded"])


def test_a_fight_over_one_path_is_stopped(guard):
    path = "scripts/deploy.sh"
    deadline = time.monotonic() + 2 * MINUTE
    while not over(guard):
        assert time.monotonic() < deadline, "it fights for ever"
        tamper(guard, f"echo intruder >> {path}", path)
    expect_stopped(guard)
    # Others are put back all the same.
    last = guard.last_alert()
    tamper(guard, "echo x >> backend/app/__init__.py", "backend/app/__init__.py")
    wait_put_back(guard, "backend/app/__init__.py", after_alert=min(last, guard.last_alert() - 1))
    goes_on(guard)


def test_a_quarantine_that_is_full_stops_it(guard):
    run = guard.machine.run
    tamper(guard, "truncate --size=1100M frontend/huge", "frontend")
    guard.wait_finding("frontend/huge", "created")
    expect_stopped(guard)
    run(f"chattr -f -i {ROOT}/frontend; rm {ROOT}/frontend/huge")
    goes_on(guard)


def test_a_fight_over_many_paths_is_stopped(guard):
    deadline = time.monotonic() + 2 * MINUTE
    round_ = 0
    while not over(guard):
        assert time.monotonic() < deadline, "it fights for ever"
        round_ += 1
        tamper(guard, f"echo {round_} > frontend/new-{round_}", "frontend")
        new = guard.machine.path(f"{ROOT}/frontend/new-{round_}")
        wait_until(lambda: not new.exists() or over(guard), "it gone, or the end of the fight")
    expect_stopped(guard)
    assert round_ >= 10
    goes_on(guard)


def test_it_was_the_same_process_all_the_time_and_the_ledger_holds(guard):
    assert guard.machine.show(UNIT, "NRestarts") == "0"
    assert guard.ctl("log", "verify", "--json").json()["ok"]
