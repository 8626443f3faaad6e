"""Who reads sensitive files, told by the kernel's audit: also those that are gone at once, in containers, and of a file that
took the place of another. Rules are guardd's own, put up again where somebody removes them, and gone with guardd."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path

import audit
import pytest
from daemon import ENVIRONMENT, Daemon
from linux import until

SECRET = ".env.prod"
READERS = 30


@pytest.fixture
def guarded():
    if why := audit.why_not():
        pytest.skip(why)
    with tempfile.TemporaryDirectory(prefix="guardd-reads.", dir="/tmp") as top, audit.switched_on():
        work = Path(top)
        root = work / "app"
        root.mkdir()
        (root / SECRET).write_text("PASSWORD=correct horse\n")
        daemon = Daemon(work, root, "auto", "none")
        daemon.configure("1h")
        with daemon.config.open("a") as config:
            config.write(f'sensitive = ["{SECRET}"]\n')
        with daemon.running():
            daemon.call("Lock", reason="test", anyway=True)
            yield daemon


def state(daemon: Daemon) -> dict:
    return daemon.site()["watch"]["reads"]


def readings(daemon: Daemon) -> list[dict]:
    return daemon.call("Reads", environment=ENVIRONMENT)["reads"]


def own_rules(daemon: Daemon) -> list[bytes]:
    return [rule for rule in audit.rules() if str(daemon.root).encode() in rule]


def read_by(daemon: Daemon, comm: str, *command) -> dict:
    """What is told of a program of this name that opens the file and ends."""
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    by = lambda: [r for r in readings(daemon) if r["actor"] and r["actor"]["comm"] == comm]  # noqa: E731
    return until(f"the reading by {comm}", by)[0]


def test_who_is_gone_at_once_is_named_by_audit(guarded):
    told = state(guarded)
    assert (told["by"], told["files"], told["why"], told["instead"]) == ("audit", 1, None, None)
    assert told["blind"]
    assert len(own_rules(guarded)) == 1
    secret = guarded.root / SECRET

    for _ in range(READERS):
        subprocess.run(["cat", secret], check=True, stdout=subprocess.DEVNULL)
    named = read_by(guarded, "cat", "cat", secret)
    assert named["actor"]["exe"].endswith("/cat") and named["actor"]["uid"] == 0
    nameless = [r for r in readings(guarded) if not r["actor"] or not r["actor"]["exe"]]
    assert not nameless, nameless

    # In other namespaces, and by a name that could be mistaken for part of the record.
    inside = read_by(guarded, "head", "unshare", "--mount", "--pid", "--fork", "head", "-c1", secret)
    assert inside["actor"]["exe"].endswith("/head")
    named = read_by(guarded, 'a" exe="/x', "bash", "-c", f"""printf '%s' 'a" exe="/x' > /proc/$$/comm; : < '{secret}'""")
    assert named["actor"]["exe"].endswith("/bash")

    # A file that takes its place is followed at once.
    new = guarded.root / ".new"
    new.write_text("PASSWORD=battery staple\n")
    new.rename(secret)
    assert read_by(guarded, "tail", "tail", "-c1", secret)["path"] == SECRET
    assert "correct horse" not in str(readings(guarded))
    # guardd reads it, too.
    guarded.call("Check", environment=ENVIRONMENT)
    assert not [r for r in readings(guarded) if r["actor"] and r["actor"]["comm"] == "guardd"]


def test_rules_are_put_up_again_and_go_with_guardd(guarded):
    for rule in own_rules(guarded):
        audit.delete(rule)
    until("the rule to be put up again", lambda: own_rules(guarded))
    until("that it is said", lambda: any(r.get("missed") for _, r in guarded.follow() if r["event"] == "accessed"))

    # Killed, it leaves its rule; the next start makes it its own.
    guarded.signal(signal.SIGKILL)
    assert len(own_rules(guarded)) == 1
    guarded.start()
    until("that it follows the file", lambda: state(guarded)["files"] == 1)
    assert state(guarded)["by"] == "audit"
    assert len(own_rules(guarded)) == 1
    guarded.signal(signal.SIGTERM)
    assert not own_rules(guarded)


def test_without_audit_fanotify_tells(guarded):
    guarded.signal(signal.SIGTERM)
    audit.enable(0)
    guarded.start()
    told = until("that it follows the file", lambda: state(guarded) if state(guarded)["files"] else None)
    assert told["by"] == "fanotify" and "not enabled" in told["instead"]
    assert not own_rules(guarded)
