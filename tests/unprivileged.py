#!/usr/bin/env python3
"""Runs the workspace's test binaries as the user nobody: what works only for root is found here, and the other way round.

The work tree may lie where nobody cannot go (a home directory). Then the tests run in a mount namespace in which the way
to it is open, so that the paths compiled into them stay right.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
NOBODY = 65534
TIMEOUT_SECONDS = 1200


def main() -> int:
    built = build()
    with tempfile.TemporaryDirectory(prefix="guardd-unprivileged.") as home:
        os.chown(home, NOBODY, NOBODY)
        open_way_to(REPOSITORY)
        failed = [name for name, binary, directory in built if not run(name, binary, directory, home)]
    for name in failed:
        print(f"failed as nobody: {name}")
    return 1 if failed else 0


def build() -> list[tuple[str, str, str]]:
    """Name, path and package directory of every test binary."""
    command = ["cargo", "test", "--workspace", "--lib", "--bins", "--tests", "--locked", "--no-run", "--message-format=json"]
    output = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    return [
        (f"{Path(m['manifest_path']).parent.name} {m['target']['name']}", m["executable"], str(Path(m["manifest_path"]).parent))
        for m in messages
        if m["reason"] == "compiler-artifact" and m["profile"]["test"] and m["executable"]
    ]


def run(name: str, binary: str, directory: str, home: str) -> bool:
    print(f"-- {name}", flush=True)
    environment = {
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME": home, "TMPDIR": home, "LC_ALL": "C.UTF-8",
        "CARGO_MANIFEST_DIR": directory, "RUST_BACKTRACE": "1",
    }
    command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs", binary, "--quiet"]
    # stderr into stdout, so that what a failed test said stays beside its result.
    done = subprocess.run(
        command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT, timeout=TIMEOUT_SECONDS
    )
    return done.returncode == 0


def open_way_to(directory: Path) -> None:
    """Makes `directory` reachable for everybody, for this process and its children only."""
    closed = [parent for parent in directory.parents if not parent.stat().st_mode & stat.S_IXOTH]
    if not closed:
        return
    os.unshare(os.CLONE_NEWNS) if hasattr(os, "unshare") else unshare_mounts()
    highest = closed[-1]
    with tempfile.TemporaryDirectory(prefix="guardd-tree.", dir="/run") as kept:
        mount("--make-rprivate", "/")
        mount("--bind", str(directory), kept)
        mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(highest))
        directory.mkdir(parents=True)
        mount("--move", kept, str(directory))
    os.chdir(directory)


def unshare_mounts() -> None:
    """unshare(2) of the mount namespace, which Python has only from 3.12 on."""
    import ctypes

    clone_newns = 0x00020000
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(clone_newns) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"unshare: {os.strerror(error)}")


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())
