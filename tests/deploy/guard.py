"""guardd over an application, beside its engine; and its worker alone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path

from engine import RUN_AS, Engine
from linux import until

REPOSITORY = Path(__file__).resolve().parents[2]
BINARIES = Path(os.environ.get("GUARDD_TEST_BINARIES", REPOSITORY / "target/debug"))


def inside(engine: Engine | None, command: list) -> list[str]:
    return engine.inside(command) if engine else [str(c) for c in command]


def worker(engine: Engine | None, root: Path, look: dict, **options) -> list[dict]:
    """What `guardd deploy-worker` says, run as root's own, line by line."""
    spec = {"directory": str(root), "environment": engine.environment if engine else {}, "work": {"look": look}}
    process = subprocess.Popen(inside(engine, [BINARIES / "guardd", "deploy-worker"]), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env={"PATH": os.environ["PATH"], "HOME": "/root"}, **options)
    process.stdin.write(json.dumps(spec) + "\n")
    process.stdin.flush()
    # Its input stays open until it has said everything: closing it is how it is stopped.
    lines = [json.loads(line) for line in process.stdout]
    process.stdin.close()
    assert process.wait(60) == 0, process.stderr.read()
    assert lines[-1] == {"line": "done"}
    return lines[:-1]


def verify(engine: Engine | None, root: Path, probes: list[dict | str], stable: float, deadline: float, compose: dict | None = None) -> dict:
    """How a verification ends."""
    look = {"probes": probes, "compose": compose, "stable_ms": int(stable * 1000), "deadline_ms": int(deadline * 1000), "interval_ms": 500}
    return worker(engine, root, {"verify": look})[-1]


class Guard:
    """A daemon in the foreground with everything below `work`, and its client."""

    def __init__(self, work: Path, root: Path, engine: Engine | None):
        self.work, self.root, self.engine = work, root, engine
        self.config = work / "guardd.toml"
        self._process: subprocess.Popen | None = None

    def configure(self, environment: str, deploy: str = "") -> None:
        """`environment` and `deploy` are what follows `[environments.production]` and its `deploy` table's first line."""
        variables = ""
        if self.engine:
            lines = "\n".join(f'{name} = "{value}"' for name, value in self.engine.environment.items())
            variables = f"[environments.production.deploy.variables]\n{lines}\n"
        default = 'steps = [{ name = "nothing", run = "true" }]'
        self.config.write_text(f"""version = 1
[daemon]
state_dir = "{self.work}/state"
runtime_dir = "{self.work}/run"
log_dir = "{self.work}/log"
[environments.production]
root = "{self.root}"
sensitive = [".env*"]
{environment}
[environments.production.deploy]
run_as = "{RUN_AS}"
{deploy or default}
{variables}""")
        self.config.chmod(0o600)

    def start(self) -> Guard:
        said = open(self.work / "said", "ab")
        self._process = subprocess.Popen(inside(self.engine, [BINARIES / "guardd", "run", "--config", self.config]), stdin=subprocess.DEVNULL,
                                         stdout=said, stderr=said)

        def is_up() -> bool:
            assert self._process.poll() is None, (self.work / "said").read_text(errors="replace")[-3000:]
            return self.ctl("status", check=False).returncode == 0

        until("guardd", is_up)
        return self

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self._process and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(60)

    def ctl(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run([BINARIES / "guardctl", *arguments], capture_output=True, text=True, errors="replace",
                              env=os.environ | {"GUARDD_SOCKET": f"{self.work}/run/control.sock"})
        assert not check or done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def validate(self) -> dict[tuple[str, str], dict]:
        """The gates by kind and subject."""
        done = self.ctl("validate", "production", "--json", check=False)
        assert done.returncode in (0, 1), done.stderr
        result = json.loads(done.stdout)
        holds = all(gate["verdict"] in ("pass", "waived") for gate in result["gates"])
        assert (done.returncode == 0) == result["passed"] == holds, done.stdout
        return {(gate["gate"], gate["subject"]): gate for gate in result["gates"]}

    def deploy(self, *arguments: str) -> subprocess.CompletedProcess:
        return self.ctl("deploy", "production", *arguments, check=False)

    def last(self) -> dict:
        """The last deployment."""
        return max(json.loads(self.ctl("deployments", "production", "--json").stdout), key=lambda d: d["id"])

    def state(self) -> str:
        return json.loads(self.ctl("status", "--json").stdout)["environments"][0]["state"]

    def verdicts(self, kind: str) -> dict[str, str]:
        return {subject: gate["verdict"] for (gate_kind, subject), gate in self.validate().items() if gate_kind == kind}

    def clean_up(self) -> None:
        self.stop()
        # Sealed files could not be removed.
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["chattr", "-R", "-i", self.root], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
