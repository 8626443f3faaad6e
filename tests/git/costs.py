"""What the hooks cost, for docs/benchmarks.md: prints medians, asserts nothing.

    costs.py GUARDD
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lockfile
import matrix

ROUNDS = 9


def timed(what) -> float:
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1000


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="guardd-costs.") as scratch:
        top = Path(scratch)
        state = top / "state"
        lockfile.write(state, "locked")
        setting = matrix.Setting(sys.argv[1], state)
        staged = top / "staged"
        staged.mkdir()
        setting.sh("git init -q -b main && git switch -q -c feature", staged)
        contents = {"json": '{"a": 1}\n', "py": "x = 1\n", "yml": "a: 1\n", "txt": "text\n"}
        for i in range(10_000):
            extension = list(contents)[i % 4]
            file = staged / f"src/{i % 100}/{i}.{extension}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(contents[extension])
        setting.sh("git add .", staged)
        validate = [timed(lambda: setting.sh(f"{sys.argv[1]} git validate", staged)) for _ in range(3)]
        print(f"validate, 10,000 staged files: {statistics.median(validate):.0f} ms")

        big = top / "big"
        big.mkdir()
        setting.sh("git init -q -b main && git switch -q -c feature", big)
        for i in range(50_000):
            file = big / f"{i % 500}/{i}.txt"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{i}\n")
        setting.sh("git add . && git commit -qm all", big)
        setting.install(big)
        hooks, without = [], []
        for round_ in range(ROUNDS):
            for hooked, times in ((True, hooks), (False, without)):
                (big / "0/0.txt").write_text(f"{round_} {hooked}\n")
                setting.sh("git add 0/0.txt", big)
                off = "" if hooked else "-c core.hooksPath=/dev/null"
                times.append(timed(lambda: setting.sh(f"git {off} commit -qm x", big)))
        print(f"commit in a repository of 50,000 files: {statistics.median(hooks):.0f} ms with the hooks, {statistics.median(without):.0f} ms without")

        hook = big / ".git/hooks/reference-transaction"
        line = f"{'0' * 40} {'1' * 40} refs/remotes/origin/main\n"
        empty = top / "empty"
        empty.write_text("#!/bin/sh\nexit 0\n")
        empty.chmod(0o755)
        run = lambda program: timed(lambda: subprocess.run([program, "prepared"], input=line, text=True, check=True))
        pairs = [(run(hook), run(empty)) for _ in range(300)]
        noop, bare = (statistics.median(column) for column in zip(*pairs))
        print(f"reference-transaction that concerns no branch: {noop:.2f} ms; a script that does nothing: {bare:.2f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
