"""The worker's verification against a real engine, each way in which `docker compose up --wait` says that all is well."""

from __future__ import annotations

import threading

from application import BACKEND, URL, compose_file
from guard import verify, worker

HTTP = {"http": {"url": URL, "expect": 200, "body": "ok"}}
COMPOSE = {"files": [], "env_files": [], "project": None, "services": []}


def test_a_good_release_is_good(engine, application):
    application.up()
    end = verify(engine, application.root, [HTTP, "compose"], stable=2, deadline=60)
    assert end["well"], end
    assert end["after_ms"] >= 2000


def test_a_container_in_a_crash_loop(engine, application):
    application.write("docker-compose.yml", compose_file("echo it is broken >&2; sleep 1; exit 1", restart="always", check=False))
    application.up()
    end = verify(engine, application.root, ["compose"], stable=4, deadline=6)
    assert not end["well"]
    assert "crash loop" in end["why"] or "restarting" in end["why"], end
    assert "it is broken" in end["why"], "the container's last words"


def test_healthy_and_then_dead(engine, application):
    application.write("docker-compose.yml", compose_file(f"(sleep 5; rm /www/health) & {BACKEND}"))
    application.up()
    end = verify(engine, application.root, ["compose", HTTP], stable=7, deadline=10)
    assert not end["well"]
    assert "unhealthy" in end["why"] and "404" in end["why"], end


def test_a_migration_that_fails(engine, application):
    application.up()
    application.write("docker-compose.yml", compose_file(migrate="echo no column >&2; exit 3"))
    assert application.compose("up", "--detach", "--wait", check=False).returncode != 0
    end = verify(engine, application.root, ["compose"], stable=1, deadline=3)
    assert not end["well"]
    assert "migrate" in end["why"] and "exit code 3" in end["why"] and "no column" in end["why"], end


def test_a_file_that_was_replaced_under_a_container(engine, application):
    application.up()
    application.replace("site.conf", "two\n")
    assert "Running" in application.compose("up", "--detach").stderr, "compose sees nothing to do"
    end = verify(engine, application.root, ["compose"], stable=1, deadline=3)
    assert not end["well"]
    assert "site.conf was replaced" in end["why"], end
    application.up("--force-recreate")
    assert verify(engine, application.root, ["compose"], stable=1, deadline=60)["well"]
    # The same content at another inode is what the container sees.
    application.replace("site.conf", "two\n")
    assert verify(engine, application.root, ["compose"], stable=1, deadline=60)["well"]


def test_a_health_url_that_flaps(engine, application):
    flap = "(while true; do sleep 1; rm -f /www/health; sleep 1; echo ok > /www/health; done) & "
    application.write("docker-compose.yml", compose_file(flap + BACKEND, check=False))
    application.up()
    end = verify(engine, application.root, [HTTP], stable=3, deadline=5)
    assert not end["well"]
    assert "404" in end["why"], end


def test_a_container_that_somebody_recreates_meanwhile(engine, application):
    application.up()
    again = threading.Timer(1.5, lambda: application.compose("up", "--detach", "--force-recreate", "--no-deps", "frontend"))
    again.start()
    lines = worker(engine, application.root, {"verify": {"probes": ["compose"], "compose": None, "stable_ms": 3000, "deadline_ms": 60000,
                                                         "interval_ms": 300}})
    again.join()
    assert lines[-1]["well"], lines[-1]
    seen = [line for line in lines if line["line"] == "probed" and not line["ok"]]
    assert seen, "nothing was noticed of another container in its place"
    assert lines[-1]["after_ms"] > 3000


def test_images_are_kept_and_given_back(engine, application):
    application.up()
    keep = worker(engine, application.root, {"pin": {"compose": COMPOSE, "prefix": "guardd-keep/production:7-"}})
    old = {line["service"]: line for line in keep}
    assert set(old) == {"backend", "frontend", "migrate"}
    assert all(line["kept_as"] == f"guardd-keep/production:7-{name}" for name, line in old.items())
    # The tag moves to a new release, nothing runs the old one, and everything unused is pruned.
    application.down()
    new = engine.image("app:1")
    assert new != old["backend"]["id"]
    try:
        engine.docker("image", "prune", "--force")
        tags = [{"image": line["image"], "id": line["id"]} for line in keep]
        assert worker(engine, application.root, {"repin": {"tags": tags}}) == []
        assert engine.docker("image", "inspect", "--format={{.Id}}", "app:1").stdout.strip() == old["backend"]["id"]
        assert worker(engine, application.root, {"unpin": {"repository": "guardd-keep/production", "keep": ["7-"]}}) == []
        assert engine.docker("image", "ls", "--quiet", "guardd-keep/production").stdout.strip()
        worker(engine, application.root, {"unpin": {"repository": "guardd-keep/production", "keep": []}})
        assert not engine.docker("image", "ls", "--quiet", "guardd-keep/production").stdout.strip()
        assert engine.docker("image", "ls", "--quiet", "app:1").stdout.strip(), "only our own tags go"
    finally:
        engine.docker("rmi", new, check=False)


def test_what_cannot_be_asked_is_not_well(engine, application):
    application.write("docker-compose.yml", "services: [")
    end = verify(engine, application.root, ["compose"], stable=1, deadline=2)
    assert not end["well"] and "docker" in end["why"], end
    end = verify(None, application.root, ["compose"], stable=1, deadline=2)
    assert not end["well"], "no engine answers where none is named"
