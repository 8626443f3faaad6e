#!/usr/bin/env python3
"""Gate on third-party code: licences, bans, duplicates, sources, and a written reason for each direct dependency.

Applies deny.toml (cargo-deny's format) to what `cargo metadata` says would be built. cargo-deny itself does the same and
more, but takes minutes to build where it is not at hand; this needs cargo and Python.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
REASONS = REPOSITORY / "docs/dependencies.md"


def main() -> int:
    policy = tomllib.loads((REPOSITORY / "deny.toml").read_text())
    graph = metadata(policy["graph"]["targets"])
    packages = {package["id"]: package for package in graph["packages"]}
    own = set(graph["workspace_members"])
    built = built_by(graph, policy["graph"]["targets"], "--workspace", "--edges=normal,build,dev")
    foreign = [packages[i] for i in sorted(built - own)]

    problems = [
        *licences(foreign, policy["licenses"]),
        *bans(graph, packages, built, policy["bans"]),
        *duplicates(graph, packages, built, policy["bans"]),
        *sources(packages[i] for i in sorted(built)),
        *wildcards([packages[i] for i in own]),
        *reasons([packages[i] for i in own]),
    ]
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    print(f"{len(foreign)} crates of others looked at, {len(problems)} problems")
    return 1 if problems else 0


def metadata(targets: list[str]) -> dict:
    command = ["cargo", "metadata", "--format-version=1", "--locked", *(f"--filter-platform={t}" for t in targets)]
    return json.loads(subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE).stdout)


def built_by(graph: dict, targets: list[str], *selection: str) -> set[str]:
    """The ids of the packages that cargo would really build: unlike `cargo metadata`, `cargo tree` leaves out what a
    feature that is off would need."""
    command = ["cargo", "tree", "--locked", "--prefix=none", "--format={p}", *selection, *(f"--target={t}" for t in targets)]
    lines = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    wanted = {(words[0], words[1].removeprefix("v")) for words in map(str.split, lines) if len(words) > 1}
    return {package["id"] for package in graph["packages"] if (package["name"], package["version"]) in wanted}


def users(graph: dict, packages: dict, built: set[str], wanted: str) -> list[str]:
    nodes = (node for node in graph["resolve"]["nodes"] if node["id"] in built)
    return sorted({packages[node["id"]]["name"] for node in nodes if wanted in node["dependencies"]})


def licences(foreign: list[dict], policy: dict) -> list[str]:
    found = []
    excepted = {exception["crate"]: exception["allow"] for exception in policy.get("exceptions", ())}
    for package in foreign:
        expression = package["license"]
        allowed = {*policy["allow"], *excepted.get(package["name"], ())}
        if not expression:
            found.append(f"{package['name']} {package['version']} names no licence")
        elif not satisfied(expression, allowed):
            found.append(f"{package['name']} {package['version']}: licence {expression} is not allowed by deny.toml")
    return found


def satisfied(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met with allowed licences alone. `/` is the old way to write OR."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    value, rest = either(tokens, allowed)
    if rest:
        raise ValueError(f"cannot read the licence expression {expression!r}")
    return value


def either(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    value, tokens = both(tokens, allowed)
    while tokens[:1] == ["OR"]:
        other, tokens = both(tokens[1:], allowed)
        value = value or other
    return value, tokens


def both(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    value, tokens = one(tokens, allowed)
    while tokens[:1] == ["AND"]:
        other, tokens = one(tokens[1:], allowed)
        value = value and other
    return value, tokens


def one(tokens: list[str], allowed: set[str]) -> tuple[bool, list[str]]:
    if tokens[0] == "(":
        value, tokens = either(tokens[1:], allowed)
        return value, tokens[1:]
    name, tokens = tokens[0], tokens[1:]
    if tokens[:1] == ["WITH"]:
        name, tokens = f"{name} WITH {tokens[1]}", tokens[2:]
    return name in allowed, tokens


def bans(graph: dict, packages: dict, built: set[str], policy: dict) -> list[str]:
    found = []
    for ban in policy["deny"]:
        for i in sorted(i for i in built if packages[i]["name"] == ban["crate"]):
            unexpected = [user for user in users(graph, packages, built, i) if user not in ban.get("wrappers", ())]
            if unexpected:
                found.append(f"{ban['crate']} is banned ({ban['reason']}); needed by {', '.join(unexpected)}")
    return found


def duplicates(graph: dict, packages: dict, built: set[str], policy: dict) -> list[str]:
    versions = defaultdict(dict)
    for i in built:
        versions[packages[i]["name"]][packages[i]["version"]] = i
    skipped = [tuple(skip["crate"].split("@")) for skip in policy["skip"]]
    found = []
    for name, having in sorted(versions.items()):
        counted = {v: i for v, i in having.items() if not any(name == n and covers(spec, v) for n, spec in skipped)}
        if len(counted) > 1:
            uses = "; ".join(f"{v} by {', '.join(users(graph, packages, built, i))}" for v, i in sorted(counted.items()))
            found.append(f"{name} is built in {len(counted)} versions: {uses}")
    for name, spec in skipped:
        having = versions.get(name, {})
        if len(having) < 2 or not any(covers(spec, version) for version in having):
            found.append(f"deny.toml skips {name}@{spec}, which is no duplicate any more: remove the line")
    return found


def covers(spec: str, version: str) -> bool:
    """Whether `0.10` means `0.10.9`."""
    return version == spec or version.startswith(spec + ".")


def sources(built) -> list[str]:
    return [
        f"{package['name']} comes from {package['source']}, not from crates.io"
        for package in built
        if package["source"] is not None and not package["source"].endswith("/crates.io-index")
    ]


def wildcards(own: list[dict]) -> list[str]:
    return [
        f"{package['name']} takes any version of {dep['name']}"
        for package in own
        for dep in package["dependencies"]
        if dep["req"] == "*" and not dep.get("path")
    ]


def reasons(own: list[dict]) -> list[str]:
    """Every crate that ours name has a line in docs/dependencies.md, and every line names one of those."""
    direct = {dep["name"] for package in own for dep in package["dependencies"] if not dep.get("path")}
    rows = re.findall(r"^\|\s*`?([a-z][\w-]*)`?\s*\|", REASONS.read_text(), flags=re.MULTILINE) if REASONS.exists() else []
    return [f"docs/dependencies.md has no line for {name}" for name in sorted(direct - set(rows))] + [
        f"docs/dependencies.md has a line for {name}, which no crate of ours uses" for name in sorted(set(rows) - direct - {"crate"})
    ]


if __name__ == "__main__":
    sys.exit(main())
