"""Deployments by the installed service with its hardening: steps run as their user outside its sandbox, and nothing of them is
left when they are cancelled, when guardd is killed, or when the machine loses its power in the middle."""

from __future__ import annotations

import json

import pytest

import application
from guard import ENVIRONMENT, ROOT, UNIT, Guard
from machine import wait_until

PORTS = {"bookworm": 18471, "trixie": 18472}
"""Machines that run side by side share the host's network."""

SERVER = """\
import http.server, pathlib
VERSION = pathlib.Path("/srv/app/backend/version").read_text().strip()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if VERSION != "broken" else 500)
        self.end_headers()
        self.wfile.write(VERSION.encode())
    def log_message(self, *args):
        pass
http.server.HTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
"""
SITE = """\
[Unit]
Description=The application
[Service]
ExecStart=/usr/bin/python3 /root/server.py
Restart=always
[Install]
WantedBy=multi-user.target
"""
ASKED = """\
[Path]
PathModified=/run/site/restart
[Install]
WantedBy=multi-user.target
"""
RESTARTS = "[Service]\nType=oneshot\nExecStart=systemctl restart site.service\n"
"""How a user who is not root has the application started again: he touches a file."""

CONFIGURATION = """\
[environments.production]
root = "/srv/app"
protect = ["backend/", "docker-compose.yml"]
writable = ["logs/", "media/"]
sensitive = [".env*"]
seal = "immutable"
[environments.production.deploy]
run_as = "deploy"
opens_window = true
stable_for = "2s"
deadline = "30s"
steps = [
    { name = "files", run = 'echo "$GUARDD_REVISION" > backend/version; git commit -qam "$GUARDD_REVISION"; if test "$GUARDD_REVISION" = hang; then touch logs/hangs; sleep 1001 & setsid sleep 1002 & sleep 1003; fi' },
    { name = "where", run = 'id -un; cat /proc/self/cgroup; grep -E "^(NoNewPrivs|CapEff):" /proc/self/status; touch /var/tmp/outside' },
    { name = "restart", run = "date +%N > /run/site/restart; sleep 1" },
]
rollback = [{ name = "restart", run = "date +%N > /run/site/restart; sleep 1" }]
health = [{ http = "http://127.0.0.1:PORT/", expect = 200 }, { tcp = "127.0.0.1:PORT" }]
"""


@pytest.fixture(scope="module")
def guard(machine, release) -> Guard:
    port = str(PORTS[release])
    application.small(machine.on_disk(ROOT))
    guard = Guard(machine)
    run = machine.run
    run("useradd --create-home deploy; groupadd guardd-deploy; useradd --create-home anna")
    run(f"echo v1 > {ROOT}/backend/version; chown -R deploy: {ROOT}; ip link set lo up || :")
    git = "git config --global user.name Deploy; git config --global user.email deploy@localhost; git add -A; git commit -qm v1"
    run(f"cd {ROOT}; {git}", user="deploy")
    machine.write("/root/server.py", SERVER.replace("PORT", port))
    for name, text in (("site.service", SITE), ("site-restart.path", ASKED), ("site-restart.service", RESTARTS)):
        machine.write(f"/etc/systemd/system/{name}", text)
    machine.write("/etc/tmpfiles.d/site.conf", "d /run/site 0755 deploy deploy\nf /run/site/restart 0644 deploy deploy\n")
    run("systemd-tmpfiles --create site.conf; systemctl daemon-reload; systemctl enable --now site.service site-restart.path")
    guard.install()
    # Of the one group to reach guardd at all, of the other to deploy.
    run("usermod --append --groups guardd,guardd-deploy anna")
    guard.configure(CONFIGURATION.replace("PORT", port))
    machine.write("/etc/guardd/guardd.toml", 'version = 1\n[daemon.allow]\ndeploy = ["guardd-deploy"]\n')
    guard.start()
    guard.ctl("lock", ENVIRONMENT, "--reason", "first lock")
    wait_until(lambda: answers(guard) == "v1", "the application")
    return guard


def answers(guard: Guard) -> str:
    """What the application says, and nothing where it does not."""
    port = PORTS[guard.machine.release]
    asked = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/', timeout=5).read().decode())"
    return guard.machine.look(["python3", "-c", asked], check=False).out.strip()


def deploy(guard: Guard, revision: str, status: int | None = 0) -> dict:
    """Deploys; the deployment as it ended."""
    said = guard.ctl("deploy", ENVIRONMENT, "--revision", revision, "--reason", "a test", "--json", status=status)
    return json.loads(said.out.strip().splitlines()[-1])["deployment"]


def begin_one_that_hangs(guard: Guard) -> None:
    guard.machine.run(f"rm -f {ROOT}/logs/hangs")
    guard.machine.run(["systemd-run", "--quiet", "--collect", "guardctl", "deploy", ENVIRONMENT, "--revision", "hang"])
    wait_until(lambda: guard.machine.path(f"{ROOT}/logs/hangs").exists(), "the step that hangs")


def last(guard: Guard) -> dict:
    return guard.ctl("deployments", "--json").json()[-1]


def ended(guard: Guard) -> dict:
    """Waits until the last deployment has ended."""

    def has_ended():
        found = guard.ctl("deployments", "--json", status=None)
        newest = found.json()[-1] if found.status == 0 else None
        return newest if newest and newest["end"] else None

    return wait_until(has_ended, "the deployment's end", seconds=180, every=0.2)


def left_over(guard: Guard) -> str:
    return guard.machine.look(["pgrep", "-fa", "sleep 100[123]"], check=False).out


def as_it_was(guard: Guard, version: str) -> None:
    """Locked, unchanged, and the application answers with that version."""
    guard.wait_ready()
    assert guard.machine.read(f"{ROOT}/backend/version").strip() == version
    wait_until(lambda: answers(guard) == version, f"the application's answer {version}")
    assert guard.ctl("check", ENVIRONMENT, "--json").json()["clean"]


def test_a_release_is_deployed_by_its_user_outside_the_sandbox(guard):
    done = deploy(guard, "v2")
    assert (done["end"], done["why"]) == ("done", "verified"), done
    assert done["revision_before"] != done["revision_after"], done
    as_it_was(guard, "v2")
    shown = guard.ctl("deployments", "show", str(done["id"]), "--json").json()
    printed = "\n".join(line["text"] for line in shown["lines"] if line["step"] == "where" and line["source"] == "out")
    assert printed.startswith("deploy\n"), printed
    assert f"guardd-deploy-production-{done['id']}-where.service" in printed and UNIT not in printed, printed
    for no_sandbox in ("NoNewPrivs: 0", "CapEff: 0000000000000000"):
        assert no_sandbox in printed, printed
    assert guard.machine.path("/var/tmp/outside").exists()
    assert guard.machine.look(["systemctl", "list-units", "--all", "--plain", "--no-legend", "guardd-deploy-*"]).out == ""
    history = guard.ctl("who", ENVIRONMENT, "backend/version", "--json").json()["history"]
    assert any(event["deployment"] == done["id"] for event in history), history


def test_one_whose_application_is_not_well_is_rolled_back(guard):
    done = deploy(guard, "broken", status=5)
    assert done["end"] == "rolled-back" and "500" in done["why"], done
    as_it_was(guard, "v2")
    guard.wait_log("deployment_ended", "end=rolled-back", log="deployments.log")


def test_a_member_of_a_group_deploys_and_nothing_else(guard):
    run = guard.machine.run
    run(["guardctl", "deploy", ENVIRONMENT, "--revision", "v3"], user="anna")
    as_it_was(guard, "v3")
    assert last(guard)["by"].startswith("anna")
    refused = run(["guardctl", "unlock", ENVIRONMENT, "--reason", "x", "--maintainer", "x"], user="anna", status=3)
    assert "does not permit it" in refused.err, refused.err


def test_after_a_cancelled_one_nothing_of_it_runs(guard):
    begin_one_that_hangs(guard)
    assert "sleep 1002" in left_over(guard)
    guard.ctl("lock", ENVIRONMENT, status=3)
    guard.ctl("cancel", ENVIRONMENT)
    assert ended(guard)["end"] == "rolled-back"
    assert left_over(guard) == ""
    as_it_was(guard, "v3")


def test_guardd_killed_in_the_middle_rolls_back_and_leaves_nothing_running(guard):
    begin_one_that_hangs(guard)
    old = guard.machine.main_pid(UNIT)
    guard.machine.run(["systemctl", "kill", "--signal=KILL", "--kill-who=main", UNIT])
    guard.wait_new_main_process(old)
    assert ended(guard)["end"] == "rolled-back"
    assert left_over(guard) == ""
    as_it_was(guard, "v3")


def test_power_lost_in_the_middle_ends_in_a_rollback(guard):
    begin_one_that_hangs(guard)
    guard.machine.power_cut()
    guard.machine.boot()
    guard.machine.run("ip link set lo up || :")
    wait_until(lambda: guard.ctl("status", status=None).status == 0, "guardd", seconds=180)
    assert ended(guard)["end"] == "rolled-back"
    as_it_was(guard, "v3")


def test_what_is_deployed_by_hand_can_be_brought_back_by_number(guard):
    releases = {d["revision"]: d["id"] for d in guard.ctl("deployments", "--json").json() if d["end"] == "done"}
    guard.ctl("rollback", ENVIRONMENT, "--to", str(releases["v2"]), "--reason", "v3 loses orders")
    as_it_was(guard, "v2")
