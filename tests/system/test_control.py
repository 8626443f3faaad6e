"""The control socket: who may call what, clients that are not ours, and clients that mean no good."""

from __future__ import annotations

import json
import socket
import time

import pytest

import application
from guard import ENVIRONMENT, ROOT, SOCKET, UNIT, Guard
from machine import wait_until

INTERFACE = "org.guardd.Control"


@pytest.fixture(scope="module", autouse=True)
def people(guard) -> None:
    """alice is in the group guardd, mallory is not."""
    guard.machine.run("useradd --create-home --groups guardd alice; useradd --create-home mallory")
    guard.machine.copy_in(application.varlink_client(), "/opt/varlink")


# Who may


def test_the_socket_is_for_root_and_the_group(guard):
    assert guard.machine.run(["stat", "--format=%a %U:%G", SOCKET]).out.strip() == "660 root:guardd"


def test_a_member_of_the_group_may_read(guard):
    assert guard.ctl("status", "--json", user="alice").json()["environments"][0]["state"] == "locked"
    guard.ctl("check", ENVIRONMENT, "--quick", user="alice")
    guard.ctl("alerts", user="alice")
    guard.ctl("log", "verify", user="alice")


@pytest.mark.parametrize(
    "call",
    [
        ("lock", ENVIRONMENT, "--reason", "x"),
        ("unlock", ENVIRONMENT, "--reason", "x", "--maintainer", "alice"),
        ("accept", ENVIRONMENT, "backend/app/urls.py", "--reason", "x"),
        ("reload",),
        ("alerts", "ack", "1", "--note", "x"),
        # Change nothing, but one has the digests of the secrets in it.
        ("baseline", "export", ENVIRONMENT),
        ("baseline", "list", ENVIRONMENT),
        ("backup", "list", ENVIRONMENT),
    ],
    ids=lambda call: " ".join(call[:2]) if call[0] in ("baseline", "backup") else call[0],
)
def test_a_member_of_the_group_may_not_change_anything(guard, call):
    refused = guard.ctl(*call, user="alice", status=3)
    assert "permi" in refused.err.lower() or "allowed" in refused.err.lower(), refused.err


def test_a_refused_call_is_in_the_ledger_with_its_caller(guard):
    uid = guard.machine.run(["id", "-u", "alice"]).out.strip()
    guard.wait_log("method=org.guardd.Control.Unlock", "outcome=refused", f"uid={uid}", log="protection.log")


def test_others_do_not_even_reach_it(guard):
    guard.ctl("status", user="mallory", status=4)


def test_root_may(guard):
    guard.ctl("unlock", ENVIRONMENT, "--reason", "update", "--maintainer", "root", "--for", "10m")
    assert guard.status()["state"] == "unlocked"
    guard.ctl("lock", ENVIRONMENT, "--reason", "done")
    assert guard.status()["generation"] == 2


def test_a_reason_is_not_optional(guard):
    guard.ctl("unlock", ENVIRONMENT, "--maintainer", "root", status=2)


def test_a_window_relocks_by_itself(guard):
    guard.ctl("unlock", ENVIRONMENT, "--reason", "short", "--maintainer", "root", "--for", "3s")
    guard.machine.run(f"echo window >> {ROOT}/backend/app/views.py")
    status = guard.wait_ready(state="locked")
    assert status["generation"] == 3
    alert = wait_until(lambda: next(iter(guard.alerts()), None), "alert about unreviewed window changes")
    assert "window" in alert["title"]
    guard.ctl("alerts", "ack", str(alert["id"]), "--note", "seen")


def test_a_command_without_a_daemon_says_so(guard):
    elsewhere = guard.machine.run("GUARDD_SOCKET=/run/nothing.sock guardctl status", status=4)
    assert "/run/nothing.sock" in elsewhere.err


# Other clients


@pytest.fixture(scope="module")
def varlinkctl(machine, release):
    if release == "bookworm":
        pytest.skip("Debian 12 has no varlinkctl")
    return lambda *arguments, status=0: machine.run(["varlinkctl", *arguments], status=status)


def test_varlinkctl_introspects(varlinkctl):
    assert INTERFACE in varlinkctl("list-interfaces", SOCKET).out
    info = varlinkctl("info", SOCKET).out
    assert "guardd" in info
    shown = varlinkctl("introspect", SOCKET, INTERFACE).out
    assert "method Status" in shown and "error NotLocked" in shown


def test_varlinkctl_calls(varlinkctl):
    answer = varlinkctl("call", "--json=short", SOCKET, f"{INTERFACE}.Status", "{}").json()
    assert answer["environments"][0]["name"] == ENVIRONMENT


def test_varlinkctl_streams(varlinkctl):
    call = varlinkctl("call", "--more", "--json=short", SOCKET, f"{INTERFACE}.Check", json.dumps({"environment": ENVIRONMENT}))
    replies = [json.loads(line) for line in call.out.replace("\x1e", "").splitlines() if line.strip()]
    assert replies[-1]["result"]["clean"] is True
    assert all(reply["progress"] for reply in replies[:-1])


@pytest.mark.parametrize(
    ("method", "arguments", "error"),
    [
        (f"{INTERFACE}.Status2", "{}", "org.varlink.service.MethodNotFound"),
        (f"{INTERFACE}.Check", '{"environment": 7}', "org.varlink.service.InvalidParameter"),
        (f"{INTERFACE}.Check", '{"environment": "none"}', f"{INTERFACE}.UnknownEnvironment"),
        (f"{INTERFACE}.ShowAlert", '{"id": 999}', f"{INTERFACE}.UnknownAlert"),
        ("org.example.Other.Call", "{}", "org.varlink.service.InterfaceNotFound"),
    ],
)
def test_varlinkctl_gets_the_right_error(varlinkctl, method, arguments, error):
    call = varlinkctl("call", SOCKET, method, arguments, status=1)
    assert error.rpartition(".")[2] in call.err, call.err


CLIENT = """
import json, sys
sys.path.insert(0, "/opt/varlink")
import varlink

client = varlink.Client("unix:/run/guardd/control.sock")
said = {}
with client:
    with client.open("org.varlink.service") as service:
        said["interfaces"] = list(service.GetInfo()["interfaces"])
    with client.open("org.guardd.Control") as guard:
        said["state"] = guard.Status()["environments"][0]["state"]
        said["parts"] = [sorted(k for k, v in reply.items() if v is not None) for reply in guard.Check("production", _more=True)]
        for name, call in (("unknown", lambda: guard.Check("none")), ("reason", lambda: guard.Unlock("production", "", "x"))):
            try:
                call()
            except varlink.VarlinkError as error:
                said[name] = error.error()
    with client.open("org.guardd.Control", namespaced=True) as guard:
        replies = guard.Watch(_more=True)
        said["head"] = next(replies).head.seq
print(json.dumps(said))
"""


def test_the_python_client_calls_streams_and_gets_errors(guard):
    guard.machine.write("/root/client.py", CLIENT)
    said = guard.machine.run(["python3", "/root/client.py"]).json()
    assert INTERFACE in said["interfaces"]
    assert said["state"] == "locked"
    assert said["parts"][-1] == ["result"]
    assert said["unknown"] == f"{INTERFACE}.UnknownEnvironment"
    assert said["reason"] == f"{INTERFACE}.ReasonRequired"
    assert said["head"] > 0


def test_watch_shows_an_alert_as_it_comes(guard, tmp_path):
    seen = tmp_path / "watch"
    with seen.open("w") as out:
        watching = guard.machine.popen(["guardctl", "watch", "--json"], stdout=out)
        try:
            time.sleep(1)
            guard.machine.run(f"echo watched >> {ROOT}/backend/requirements.txt")
            wait_until(lambda: "backend/requirements.txt" in seen.read_text(), "the alert in guardctl watch", seconds=180)
        finally:
            watching.kill()
            watching.wait()


# Hostile clients


def connect(guard: Guard) -> socket.socket:
    client = socket.socket(socket.AF_UNIX)
    client.settimeout(20)
    client.connect(str(guard.machine.path(SOCKET)))
    return client


@pytest.mark.parametrize(
    "sent",
    [b"\0", b"{\0", b"[]\0", b'{"method":7}\0', b"\xff\xfe\0", b'{"method":"' + b"a" * 70_000 + b'"}\0', b"[" * 100_000 + b"\0"],
    ids=["empty", "cut", "array", "number", "not-utf8", "long", "deep"],
)
def test_nonsense_is_answered_or_the_connection_closed(guard, sent):
    with connect(guard) as client:
        client.sendall(sent)
        try:
            answer = client.recv(65536)
        except ConnectionResetError:
            answer = b""
        assert answer == b"" or b'"error"' in answer
    guard.ctl("status")


def test_a_message_without_end_is_cut_off(guard):
    with connect(guard) as client, pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(64):
            client.sendall(b"x" * 1024 * 1024)
    guard.ctl("status")


def test_many_silent_connections_leave_others_alone(guard):
    held = []
    try:
        for _ in range(300):
            try:
                held.append(connect(guard))
            except OSError:
                break
        guard.ctl("status", status=None)
    finally:
        for client in held:
            client.close()
    wait_until(lambda: guard.ctl("status", status=None).status == 0, "answer after the flood", seconds=180)


def test_a_subscriber_that_stops_reading_stops_nobody(guard):
    with connect(guard) as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        deaf.sendall(json.dumps({"method": f"{INTERFACE}.Watch", "more": True}).encode() + b"\0")
        guard.quiet()
        before = guard.last_alert()
        guard.machine.run(f"for i in $(seq 2000); do echo $i > {ROOT}/scripts/many-$i; done")
        guard.wait_finding("scripts/many-2000", "created", after_alert=before)
        guard.wait_log("alert=", "path=scripts/many-")
    assert guard.machine.show(UNIT, "NRestarts") == "0"
