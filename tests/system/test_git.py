"""The lock and git, with the release's own git and the real daemon: what cannot get around the hooks, and what is told of
what can."""

from __future__ import annotations

import json

import pytest

import application
from guard import CONFIGURATION, ENVIRONMENT, ROOT, STATE, UNIT, Guard
from paths import REPOSITORY

REASON = "release 4.2"
"""What tests/git/matrix.py looks for in a refusal."""

BYPASS = "git -c core.hooksPath=/dev/null -c user.name=Eve -c user.email=eve@example.org"

HOME = "/home/deploy"


@pytest.fixture(scope="module")
def guard(machine) -> Guard:
    """An environment that is a repository of the user deploy's; its hooks were installed by root, before it was locked."""
    guard = Guard(machine)
    application.small(machine.on_disk(ROOT))
    machine.run(f"useradd --create-home deploy && chown -R deploy:deploy {ROOT}")
    machine.write("/etc/sudoers.d/lock", "ALL ALL=(root) NOPASSWD: /usr/bin/guardctl lock *, /usr/bin/guardctl unlock *\n", mode=0o440)
    for name in ("matrix.py", "lockfile.py"):
        machine.copy_in(REPOSITORY / "tests/git" / name, f"/usr/local/lib/guardd-tests/{name}")
    guard.install()
    guard.configure(CONFIGURATION + 'branches = ["main"]\n')
    guard.start()
    # The hooks come first: the seal covers them. They learn of an environment from its first lock.
    guard.ctl("lock", ENVIRONMENT, "--reason", "first lock")
    unlock(guard)
    guard.ctl("git", "install", ROOT)
    lock(guard)
    machine.run("git config --global user.name Deploy && git config --global user.email deploy@example.org", user="deploy")
    return guard


def lock(guard: Guard) -> None:
    guard.ctl("lock", ENVIRONMENT, "--reason", REASON)


def unlock(guard: Guard) -> None:
    guard.ctl("unlock", ENVIRONMENT, "--reason", "tests", "--maintainer", "test", "--for", "1h")


def deploy(guard: Guard, command: str, status: int | None = 0, where: str = f"{HOME}/app"):
    return guard.machine.run(f"cd {where} && {command}", user="deploy", status=status)


@pytest.mark.parametrize("kind", ["normal", "worktree", "submodule", "shallow", "bare"])
def test_no_operation_gets_around_the_lock(guard, kind):
    """As the user nobody, who is in no group of guardd's."""
    done = guard.machine.run(
        ["python3", "/usr/local/lib/guardd-tests/matrix.py", "--guardd", "/usr/bin/guardd", "--state", STATE, "--kind", kind,
         "--lock", f"sudo -n guardctl lock {ENVIRONMENT} --reason '{REASON}'",
         "--unlock", f"sudo -n guardctl unlock {ENVIRONMENT} --reason tests --maintainer test --for 1h"],
        user="nobody", status=None, directory="/tmp", seconds=900,
    )
    rows = [json.loads(line) for line in done.lines()]
    assert len(rows) > 40, done.describe()
    wrong = [f"{r['operation']} ({r['state']} {r['branch']}, {r['expected']}): {r['problems']}\n{r['said']}" for r in rows if r["problems"]]
    assert not wrong, "\n".join(wrong)
    assert {"refused", "allowed"} <= {r["expected"] for r in rows}


def test_what_root_installs_is_the_owners_and_whole(guard):
    status = guard.ctl("git", "status", ROOT, "--json").json()
    assert status["whole"] and status["environment"] == ENVIRONMENT and "raises an alert" in status["past_the_hooks"]
    owners = guard.machine.run(f"find {ROOT}/.git -printf '%u\\n' | sort -u").lines()
    assert owners == ["deploy"]


def test_a_clone_of_a_user_without_rights(guard):
    """The state comes from the signed lock file: no group is needed, nor the daemon."""
    deploy(guard, f"git clone --quiet {ROOT} app", where=HOME)
    deploy(guard, f"guardctl git install --environment {ENVIRONMENT}")
    commit = "git commit --quiet --allow-empty --message x"
    refused = deploy(guard, commit, status=1)
    assert "branch main would get a commit, but it is locked with environment production" in refused.err
    assert "locked by" in refused.err and REASON in refused.err and "git switch -c" in refused.err
    assert "guardd: refused" in deploy(guard, f"{commit} --no-verify", status=128).err
    deploy(guard, f"git switch --quiet -c mine && {commit}")
    guard.machine.run(["systemctl", "stop", UNIT])
    try:
        assert REASON in deploy(guard, f"git switch --quiet main && {commit} --no-verify", status=None).err
        deploy(guard, f"git switch --quiet mine && {commit}")
    finally:
        guard.start()
        guard.wait_ready()
    unlock(guard)
    deploy(guard, f"git switch --quiet main && {commit}")
    lock(guard)
    refused = deploy(guard, f"{commit} --no-verify", status=128)
    assert "branch main would be moved from" in refused.err


def test_a_value_of_a_sensitive_file_does_not_get_into_a_commit(guard):
    """Checked for members of the group guardd; for others it is listed as unchecked."""
    secret = "not-a-real-secret-0123456789"
    leak = f"git switch --quiet mine && echo \"KEY = '{secret}'\" > leak.py && git add leak.py && git commit --quiet --message x"
    passed = deploy(guard, leak)
    assert "unchecked: values of sensitive files, as this user may not ask guardd" in passed.err
    deploy(guard, "git reset --quiet --hard HEAD~1")
    guard.machine.run("usermod --append --groups guardd deploy")
    refused = deploy(guard, leak, status=1)
    assert "leak.py:1:8: error: the value of DJANGO_SECRET_KEY in .env.prod" in refused.err and secret not in refused.err
    recorded = guard.ctl("log", "--json").out
    assert "found: .env.prod DJANGO_SECRET_KEY" in recorded and "uid" in recorded and secret not in recorded
    assert not any(secret in line for line in guard.log_lines("protection.log"))
    deploy(guard, "git reset --quiet --hard")


def test_the_seal_stops_the_owner_who_goes_past_the_hooks(guard):
    before = guard.machine.run(f"cat {ROOT}/.git/refs/heads/main").out
    refused = deploy(guard, f"{BYPASS} commit --quiet --allow-empty --message x", status=None, where=ROOT)
    assert refused.status != 0 and "denied" in refused.err
    assert guard.machine.run(f"cat {ROOT}/.git/refs/heads/main").out == before


def test_a_branch_moved_past_the_hooks_is_told_with_its_commits_and_by_whom(guard):
    """By root, whom modes do not stop, through a shell of somebody's who logged in."""
    run = guard.machine.run
    commits = lambda: run(f"git -c safe.directory=* -C {ROOT} rev-parse main").out.strip()
    guard.quiet()
    last, before = guard.last_alert(), commits()
    run(f"cd {ROOT} && {BYPASS} -c safe.directory=* commit --quiet --allow-empty --message 'past the hooks'")
    after = commits()
    seen = guard.wait_everywhere(".git/refs/heads/main", "content", after_alert=last)
    assert seen.finding["note"] == (
        f"branch main moved from {before} to {after}; git's log says by Eve <eve@example.org>: commit: past the hooks"
    )
    actor = seen.finding["actor"]
    assert actor and actor["uid"] == 0 and actor["exe"].endswith("/git") and "core.hooksPath=/dev/null" in actor["cmdline"], actor
    told = guard.ctl("alerts", "show", str(seen.alert["id"])).out
    assert before in told and after in told
    line = guard.wait_log(f"alert={seen.alert['id']}", "path=.git/refs/heads/main")
    assert "git" in line


def test_a_reference_written_by_hand_is_told_with_its_commits(guard):
    run = guard.machine.run
    guard.quiet()
    last = guard.last_alert()
    # From where it stood when the environment was locked, wherever it was meanwhile.
    locked, other = (run(f"git -c safe.directory=* -C {ROOT} rev-parse {name}").out.strip() for name in ("main~1", "feature"))
    run(f"echo {other} > {ROOT}/.git/refs/heads/main")
    seen = guard.wait_everywhere(".git/refs/heads/main", "content", after_alert=last)
    assert seen.finding["note"] == f"branch main moved from {locked} to {other}; git's log does not say how"
    run(f"git -c safe.directory=* -C {ROOT} config core.hooksPath /dev/null")
    seen = guard.wait_everywhere(".git/config", "content", after_alert=last)
    assert "where it looks for hooks" in seen.finding["note"]
    assert "core.hooksPath" in guard.ctl("git", "status", ROOT, status=1).out
