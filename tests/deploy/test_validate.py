"""`guardctl validate` over a real compose application: what holds, and each thing that does not."""

from __future__ import annotations

import socket
import subprocess

import pytest
from application import URL
from linux import until

VALIDATE = f"""
[environments.production.validate]
env_files = [".env"]
required = ["SECRET_KEY"]
readers = ["compose", "python-dotenv", "shell"]
ports = ["18080"]
probes = [{{ http = "{URL}", body = "ok" }}]
[environments.production.compose]
"""


@pytest.fixture
def validated(guard, application):
    application.up()
    guard.configure(VALIDATE)
    return guard.start()


def test_everything_that_must_hold(validated, application):
    gates = validated.validate()
    assert all(gate["verdict"] == "pass" for gate in gates.values()), gates
    assert {"lock", "integrity", "seal", "backup", "disk", "env-file", "variable", "compose", "service", "port", "probe"} <= {k for k, _ in gates}
    assert {subject for kind, subject in gates if kind == "service"} == {"backend", "frontend", "migrate"}
    assert "held by app-backend-1" in gates["port", "18080"]["evidence"]
    validated.ctl("lock", "production", "--reason", "release 1")
    gates = validated.validate()
    assert all(gate["verdict"] == "pass" for gate in gates.values()), gates
    assert "signature is good" in gates["lock", ""]["evidence"]
    assert "as baseline 1 has them" in gates["integrity", ""]["evidence"]


def test_a_variable_that_is_missing_or_read_in_two_ways(validated, application):
    application.write(".env", "OTHER=1\n")
    gates = validated.validate()
    assert gates["variable", "SECRET_KEY"]["verdict"] == "fail"
    assert gates["compose", ""]["verdict"] == "fail" and "SECRET_KEY" in gates["compose", ""]["evidence"], gates["compose", ""]
    application.write(".env", "SECRET_KEY=django-insecure-)k#0&$x!(@z\n")
    gate = validated.validate()["variable", "SECRET_KEY"]
    assert gate["verdict"] != "pass" and "insecure" not in str(gate), gate


def test_services_that_are_not_well(validated, application):
    application.engine.docker("kill", application.container("frontend"))
    assert validated.verdicts("service") == {"backend": "pass", "frontend": "fail", "migrate": "pass"}
    application.up()
    application.replace("site.conf", "two\n")
    gate = validated.validate()["service", "backend"]
    assert gate["verdict"] == "fail" and "site.conf was replaced" in gate["evidence"], gate
    application.up("--force-recreate")
    # The tag moves: what runs is not what is configured any more.
    old = application.engine.docker("image", "inspect", "--format={{.Id}}", "app:1").stdout.strip()
    new = application.engine.image("app:1")
    try:
        gate = validated.validate()["service", "frontend"]
        assert gate["verdict"] == "fail" and "another image" in gate["evidence"], gate
    finally:
        application.engine.docker("tag", old, "app:1")
        application.engine.docker("rmi", new, check=False)
    application.down()
    assert set(validated.verdicts("service").values()) == {"fail"}
    assert validated.verdicts("probe") == {URL: "fail"}
    assert validated.verdicts("port") == {"18080": "pass"}, "free"


def test_an_engine_that_does_not_answer_is_unknown(guard, application):
    guard.configure(VALIDATE)
    guard.config.write_text(guard.config.read_text().replace("docker.sock", "nobody.sock"))
    guard.start()
    gates = guard.validate()
    assert gates["service", "" if ("service", "") in gates else "backend"]["verdict"] == "unknown", gates


def test_a_port_of_somebody_else(guard, application):
    guard.configure(VALIDATE)
    guard.start()
    holder = subprocess.Popen(application.engine.inside(["busybox", "httpd", "-f", "-p", "18080", "-h", "/tmp"]))
    try:
        until("the port to be taken", lambda: guard.verdicts("port") == {"18080": "fail"})
        evidence = guard.validate()["port", "18080"]["evidence"]
        assert "uid 0" in evidence, evidence
    finally:
        holder.kill()
        holder.wait()


def test_the_git_work_tree(guard, application):
    def git(*arguments: str) -> str:
        done = subprocess.run(["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "git", "-c", "user.name=x", "-c",
                               "user.email=x@y", *arguments], cwd=application.root, check=True, capture_output=True, text=True,
                              env={"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"})
        return done.stdout.strip()

    git("init", "-q", "-b", "main")
    git("add", "docker-compose.yml", "site.conf")
    git("commit", "-qm", "one")
    ran = application.root / "ran"
    # What the repository itself would run, as whoever asks git.
    for setting in ("core.fsmonitor", "filter.x.clean", "filter.x.process", "core.hooksPath"):
        git("config", setting, f"touch {ran};")
    application.write(".gitattributes", "* filter=x\n")
    git("config", "core.attributesFile", str(application.root / ".gitattributes"))
    guard.configure("")
    guard.start()
    gate = guard.validate()["git", ""]
    assert gate["verdict"] == "fail" and ".gitattributes" in gate["evidence"], gate
    (application.root / ".gitattributes").unlink()
    gate = guard.validate()["git", ""]
    assert gate["verdict"] == "pass" and ".env" not in gate["evidence"], gate
    application.write("site.conf", "changed\n")
    gate = guard.validate()["git", ""]
    assert gate["verdict"] == "fail" and "site.conf" in gate["evidence"], gate
    assert not ran.exists(), "git ran what the repository names"


def test_a_tree_that_differs(validated, application):
    validated.ctl("lock", "production", "--reason", "release 1")
    subprocess.run(["chattr", "-i", application.root / "site.conf"], check=True)
    with open(application.root / "site.conf", "a") as file:
        file.write("evil\n")
    gates = validated.validate()
    assert gates["integrity", ""]["verdict"] == "fail" and "site.conf" in gates["integrity", ""]["evidence"]
    assert gates["seal", ""]["verdict"] == "fail"
    done = validated.ctl("validate", "production", "--junit", str(validated.work / "v.xml"), "--sarif", str(validated.work / "v.sarif"), check=False)
    assert done.returncode == 1 and "not ready" in done.stdout
    assert "<failure" in (validated.work / "v.xml").read_text()


def test_a_free_network_is_no_other(engine):
    """The tests' ports are the engine's own network's."""
    with socket.socket() as ours:
        assert ours.connect_ex(("127.0.0.1", 18080)) != 0
