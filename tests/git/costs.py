"""What the hooks cost, for docs/benchmarks.md: prints medians, asserts nothing.

    costs.py GUARDD
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import lockfile
import matrix

ROUNDS = 15


def timed(what) -> float:
    """Milliseconds that pass."""
    began = time.perf_counter()
    what()
    return (time.perf_counter() - began) * 1000


def spent(what) -> tuple[float, float]:
    """Milliseconds that pass, and those that processors work for it: other work on the machine adds less to these."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    passed = timed(what)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return passed, (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime) * 1000


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
        validate = [timed(lambda: setting.sh(f"{sys.argv[1]} git validate >/dev/null", staged)) for _ in range(3)]
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
                times.append(spent(lambda: setting.sh(f"git {off} commit -qm x", big)))
        for column, what in enumerate(("pass", "are worked")):
            with_, without_ = (statistics.median(row[column] for row in times) for times in (hooks, without))
            print(f"commit in a repository of 50,000 files: {with_:.0f} ms {what} with the hooks, {without_:.0f} ms without: {with_ - without_:.0f} ms more")

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
