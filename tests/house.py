#!/usr/bin/env python3
"""Rules of the house that no compiler checks (docs/architecture.md): floors, sizes, names, unsafe, and that the tests
which docs/guarantees.md names exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import dependencies

REPOSITORY = Path(__file__).resolve().parents[1]

FLOORS = {
    "guard-model": 1, "guard-sys": 1, "guard-api": 1,
    "guard-config": 2, "guard-tree": 2, "guard-watch": 2, "guard-store": 2,
    "guard-alert": 3, "guard-deploy": 3, "guard-git": 3,
    "guardd": 4, "guardctl": 4,
    "guard-docgen": 5,
    "guard-floor": 5, "guard-bench": 5,
}
"""A crate uses only crates on lower floors."""

LONGEST_FILE = 800
USUAL_LONGEST_FILE = 450
MAY_BE_LONGER = 0.1
"""No source file has more lines than the first; nine in ten stay under the second."""

NAMELESS = ("utils", "util", "helpers", "helper", "common", "manager", "misc")
"""Module names that say nothing."""

MAY_BE_UNSAFE = "guard-sys"
GUARANTEES = REPOSITORY / "docs/guarantees.md"


def main() -> int:
    workspace = [package for package in dependencies.metadata([])["packages"] if package["source"] is None]
    sources = tracked("*.rs")
    problems = [*floors(workspace), *sizes(sources), *names(sources), *unsafe(workspace), *guarantees(sources)]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(workspace)} crates, {len(sources)} source files, {len(problems)} problems")
    return 1 if problems else 0


def tracked(pattern: str) -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z", pattern], cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout
    return [path for name in listed.split(b"\0") if name and (path := REPOSITORY / name.decode()).exists()]


def floors(workspace: list[dict]) -> list[str]:
    found = []
    for package in workspace:
        name = package["name"]
        if name not in FLOORS:
            found.append(f"{name} has no floor: give it one in tests/house.py and docs/architecture.md")
            continue
        for dep in package["dependencies"]:
            below = FLOORS.get(dep["name"])
            if below is not None and dep["kind"] != "dev" and below >= FLOORS[name]:
                found.append(f"{name} (floor {FLOORS[name]}) uses {dep['name']} (floor {below})")
    return found


def sizes(sources: list[Path]) -> list[str]:
    lengths = {path: len(path.read_bytes().splitlines()) for path in sources}
    found = [f"{shown(path)} has {n} lines, more than {LONGEST_FILE}" for path, n in lengths.items() if n > LONGEST_FILE]
    longer = sorted(shown(path) for path, n in lengths.items() if n > USUAL_LONGEST_FILE)
    if len(longer) > MAY_BE_LONGER * len(lengths):
        found.append(f"{len(longer)} of {len(lengths)} files have more than {USUAL_LONGEST_FILE} lines: {', '.join(longer)}")
    return found


def names(sources: list[Path]) -> list[str]:
    return [f"{shown(path)}: a name that says nothing" for path in sources if path.stem in NAMELESS]


def unsafe(workspace: list[dict]) -> list[str]:
    found = []
    for package in workspace:
        for target in package["targets"]:
            is_ours = {"lib", "bin"} & set(target["kind"])
            if is_ours and package["name"] != MAY_BE_UNSAFE and "#![forbid(unsafe_code)]" not in Path(target["src_path"]).read_text():
                found.append(f"{shown(Path(target['src_path']))} does not forbid unsafe code")
    return found


def guarantees(sources: list[Path]) -> list[str]:
    """Every test that docs/guarantees.md names as `file::test` exists."""
    if not GUARANTEES.exists():
        return ["docs/guarantees.md is missing"]
    found = []
    for file, test in re.findall(r"`([\w./-]+\.(?:rs|py))::(\w+)`", GUARANTEES.read_text()):
        path = REPOSITORY / file
        if not path.exists():
            found.append(f"docs/guarantees.md names {file}, which does not exist")
        elif not re.search(rf"\b(?:fn|def) {test}\b", path.read_text()):
            found.append(f"docs/guarantees.md names {test}, which is not in {file}")
    return found


def shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


if __name__ == "__main__":
    sys.exit(main())
