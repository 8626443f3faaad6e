#!/usr/bin/python3
"""Writes docs/tamper-matrix.md from a run: what guardd saw of each row, and how long it took; what others see of it.

    python3 tests/tamper/document.py        (as root; inotify-tools, aide and samhain are measured where they are installed)
"""

from __future__ import annotations

import multiprocessing
import statistics
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import matrix  # noqa: E402
import peers  # noqa: E402
from matrix import Combination, Result, State, Verdict  # noqa: E402
from rows import ROWS, Seen  # noqa: E402

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/tamper-matrix.md"
HEAD = """# The tamper matrix

Each way to change a protected entry that is known to us, tried on ext4 by `tests/tamper/document.py`, which wrote this page;
`tests/run tamper` tries the same rows, and the other file systems, and fails where one is missed.

- **guardd**: the time from the end of the change to the fsynced record of the ledger. What is not closed, renamed or deleted
  is left alone for 20 ms first. *sweep* and *look*: the kernel sends no event; the bound is in [detection.md](detection.md). *who*: the
  process that did it was named.
- **sealed**: the same against `seal = "immutable"`, by root. *refused*: the kernel did not let it happen.
- **inotifywait**: `inotifywait -m -r`, an event of a change that names the path within a second.
- *at start*: found before the next start says that it is ready; what happened while guardd was stopped by SIGSTOP is told
  from the moment on when it goes on, by the events that waited.
- **AIDE**: `aide --check` after all changes, with every attribute that it compares; it sees nothing before its next check.
- **Samhain**: the same of `samhain -t check`, with a policy that compares whatever it can; between its checks it can watch by
  inotify, as the column beside it does.
"""


def of(results: dict[str, list[Result]], combination: Combination, row: str) -> Result | None:
    return next((r for r in results[combination.name] if r.row == row), None)


def cell(result: Result | None) -> str:
    if result is None:
        return ""
    if result.verdict is not Verdict.FOUND:
        return result.verdict.value
    if result.seen is Seen.SWEEP:
        return "sweep"
    if result.seen is Seen.DEEP:
        return "deep rehash"
    if result.seen is Seen.LOOK:
        return "look"
    if result.seen is Seen.START:
        return "at start"
    who = ", who" if result.actor == "verified" else ""
    return f"{result.delay_ms:.0f} ms{who}"


def seen(by: dict[str, bool] | None, row: str) -> str:
    if by is None or row not in by:
        return ""
    return "seen" if by[row] else "**missed**"


def main() -> None:
    top = Path(tempfile.mkdtemp(prefix="guardd-tamper.", dir="/tmp"))
    columns = [
        Combination("ext4", "fanotify", State.WATCHED),
        Combination("ext4", "inotify", State.WATCHED),
        Combination("ext4", "fanotify", State.SEALED),
    ]
    results: dict[str, list[Result]] = {}
    others: dict[str, dict[str, bool]] = {}
    # One after the other: what is measured has the machine for itself.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        for column in columns:
            results[column.name] = pool.submit(matrix.run, column, top).result()[0]
        for name in peers.installed():
            others[name] = pool.submit(peers.run, name, top).result()
    subprocess.run(["rm", "-rf", "--one-file-system", top], check=True)
    lines = [HEAD]
    for group in dict.fromkeys(row.group for row in ROWS):
        lines += ["", f"## {group.capitalize()}", "", "| change | guardd, fanotify | guardd, inotify | sealed | inotifywait | AIDE | Samhain |", "|---|---|---|---|---|---|---|"]
        for row in (row for row in ROWS if row.group == group):
            found = [of(results, column, row.name) for column in columns]
            if any(found):
                cells = [cell(r) for r in found] + [seen(others.get(name), row.name) for name in ("inotifywait", "aide", "samhain")]
                lines.append(f"| {row.name} | {' | '.join(cells)} |")
    delays = [r.delay_ms for r in results[columns[0].name] if r.seen is Seen.EVENT and r.delay_ms is not None]
    lines += [
        "",
        f"Median of the rows that the kernel tells of, fanotify: {statistics.median(delays):.0f} ms. Peers: "
        + "; ".join(peers.version(name) if name in others else f"{name} was not to be had where this ran" for name in peers.PEERS)
        + ".",
    ]
    DOCUMENT.write_text("\n".join(lines) + "\n")
    missed = [f"{name}: {r.row}: {r.why}" for name, all_ in results.items() for r in all_ if r.verdict is Verdict.MISSED]
    if missed:
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    main()
