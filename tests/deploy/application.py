"""A three-service compose application of nothing but busybox: a migration, a backend behind it, and a frontend."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from engine import RUN_AS, Engine
from linux import until

BACKEND = "echo ok > /www/health; exec httpd -f -p 8080 -h /www"
URL = "http://127.0.0.1:18080/health"


def compose_file(backend: str = BACKEND, migrate: str = "true", restart: str = "no", check: bool = True) -> str:
    """Compose files are YAML, of which JSON is a part."""
    health = {"test": ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/health"], "interval": "1s", "timeout": "2s",
              "retries": 2, "start_period": "1s"}
    services = {
        "migrate": {"image": "app:1", "command": ["sh", "-c", migrate], "network_mode": "none"},
        "backend": {
            "image": "app:1", "command": ["sh", "-c", backend], "restart": restart, "stop_grace_period": "0s",
            "environment": {"SECRET_KEY": "${SECRET_KEY}"}, "ports": ["127.0.0.1:18080:8080"],
            "volumes": ["./site.conf:/www/site.conf:ro"],
            "depends_on": {"migrate": {"condition": "service_completed_successfully"}},
        } | ({"healthcheck": health} if check else {}),
        "frontend": {"image": "app:1", "command": ["httpd", "-f", "-p", "8081", "-h", "/www"], "stop_grace_period": "0s"},
    }
    return json.dumps({"name": "app", "services": services}, indent=1)


class Application:
    """Its directory belongs to the user who deploys."""

    def __init__(self, root: Path, engine: Engine):
        self.root, self.engine = root, engine
        root.mkdir()
        self.write("docker-compose.yml", compose_file())
        self.write(".env", "SECRET_KEY=abc-123\nDEBUG=\n")
        self.write("site.conf", "one\n")
        shutil.chown(root, RUN_AS)

    def write(self, name: str, text: str) -> None:
        """Writes a file in place."""
        path = self.root / name
        path.write_text(text)
        shutil.chown(path, RUN_AS)

    def replace(self, name: str, text: str) -> None:
        """Puts another file in its place, as editors and git do."""
        self.write(f"{name}.new", text)
        os.rename(self.root / f"{name}.new", self.root / name)

    def compose(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        return self.engine.docker("compose", *arguments, check=check, cwd=self.root)

    def up(self, *arguments: str) -> None:
        self.compose("up", "--detach", "--wait", *arguments)

    def down(self) -> None:
        self.compose("down", "--timeout", "0", "--volumes", "--remove-orphans", check=False)

    def container(self, service: str) -> str:
        return until(f"a container of {service}", lambda: self.compose("ps", "--all", "--quiet", service).stdout.strip())
