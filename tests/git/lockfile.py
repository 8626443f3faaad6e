"""A state directory with a signed lock file, as guardd keeps it, made by ssh-keygen: for tests that need no daemon.

`lockfile.py STATE locked|unlocked` writes it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ENVIRONMENT = "production"
BRANCHES = ["main", "release/*"]


def make_key(state: Path) -> None:
    for name in ("locks", "public", "keys"):
        (state / name).mkdir(parents=True, exist_ok=True)
        (state / name).chmod(0o755)
    state.chmod(0o755)
    key = state / "keys/host"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "guardd", "-f", str(key)], check=True)
    (state / "public/host.pub").write_bytes((state / "keys/host.pub").read_bytes())


def write(state: Path, how: str, root: Path = Path("/srv/app"), **changed) -> Path:
    make_key(state)
    line = {
        "environment": ENVIRONMENT, "state": how, "generation": 3, "baseline": "0" * 64,
        "machine_id": Path("/etc/machine-id").read_text().strip(), "since": "2026-01-02T03:04:05.000000Z",
        "by": "anna (uid 1000)", "reason": "release 4.2", "root": str(root), "branches": BRANCHES,
        "ledger": {"seq": 7, "hash": "1" * 64}, **changed,
    }
    text = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    armour = subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", str(state / "keys/host"), "-n", "guardd-lock"],
        input=text, check=True, capture_output=True,
    ).stdout
    file = state / "locks" / f"{line['environment']}.lock"
    new = file.with_suffix(".new")
    new.write_bytes(text + armour)
    new.chmod(0o644)
    new.rename(file)
    return file


if __name__ == "__main__":
    write(Path(sys.argv[1]), sys.argv[2])
