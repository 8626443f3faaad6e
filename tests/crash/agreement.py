"""What state directory, ledger and tree have to agree about, whatever happened: backups, quarantine, what was put back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping

from world import ENVIRONMENT, World


def of_backups(world: World, *, lives: bool, failed: bool) -> Iterator[str]:
    """The backups are those that the ledger knows, each is whole, and nothing else lies there. What `lives` and could
    not remove a backup that was to go has done so, or said anew that it is there, after its next start. One that was made for an operation that `failed` is whole,
    and the ledger is told of it then, too.
    """
    top = world.state / f"backups/{ENVIRONMENT}"
    listed = world.backups()
    yield from (f"backup {b['id']}: {b['problem'] or b['proof']}" for b in listed if b["problem"] or b["proof"] == "damaged")
    ids = {backup["id"] for backup in listed}
    there = {path.name for path in top.iterdir()} - {"packs", "proofs.json"} if top.exists() else set()
    events = world.events()
    known: set[str] = set()
    going: set[str] = set()
    for event in events:
        if event["event"] == "backup_created":
            known.add(event["backup"])
        elif event["event"] == "backup_pruned":
            known -= set(event["backups"])
            going |= set(event["backups"])
    # A record that could not be made durable stands in the file until the next one is written.
    if not failed:
        yield from (f"the backup {name} is gone, and the ledger does not say so" for name in known - ids)
        yield from (f"the ledger does not know the backup {name}" for name in ids - known - (going if lives else set()))
    leftovers = {f"{name}.tmp" for name in going} if lives else set()
    yield from (f"beside the backups: {name}" for name in there - ids - leftovers)
    manifests = [json.loads((top / name / "manifest.json").read_text()) for name in ids]
    needed = {f"{pack['sha256']}.tar.zst.age" for manifest in manifests for pack in manifest["packs"]}
    packs = {path.name for path in (top / "packs").iterdir()} if top.exists() else set()
    if not (lives and going):
        yield from (f"a pack that no backup needs: {name}" for name in packs - needed)
    yield from (f"a pack is gone: {name}" for name in needed - packs)
    if ids:
        proofs = world.call("VerifyBackup", all=True)["result"]
        yield from (f"backup {p['id']} does not verify: {p['problems']}" for p in proofs["backups"] if p["problems"])


def of_quarantine(world: World, taken: Mapping[str, str]) -> Iterator[str]:
    """What was `taken` away (path and SHA-256, or a link's target) is in the tree or kept; what is kept is whole, and
    the ledger tells of it.
    """
    kept: dict[str, set[str]] = {}
    told = [e for e in world.events() if e["event"] == "quarantined"]
    top = world.state / f"quarantine/{ENVIRONMENT}"
    cases = sorted(top.iterdir()) if top.exists() else []
    for case in cases:
        paths = {path for e in told if e["place"] == f"{ENVIRONMENT}/{case.name}" for path in e["paths"]}
        if not paths:
            yield f"the ledger does not know what is in quarantine/{case.name}"
        text = (case / "contents.jsonl").read_text()
        if not text.endswith("\n"):
            yield f"quarantine/{case.name} has a torn or no line"
        lines = [json.loads(line) for line in text.splitlines()]
        described = {line["data"] for line in lines if line["data"]} | {"contents.jsonl"}
        yield from (f"quarantine/{case.name}/{path.name} is described by nothing" for path in case.iterdir() if path.name not in described)
        for line in lines:
            content = line.get("target") or ""
            if line["data"]:
                content = hashlib.sha256((case / line["data"]).read_bytes()).hexdigest()
                if content != line["data_sha256"]:
                    yield f"what is kept of {line['path']} is not what its line says"
            kept.setdefault(line["path"], set()).add(content)
            if not any(line["path"] == path or line["path"].startswith(f"{path}/") for path in paths):
                yield f"the ledger does not say that {line['path']} was taken away"
    for path, content in taken.items():
        at = world.root / path
        if at.is_symlink():
            stands = str(at.readlink())
        else:
            stands = hashlib.sha256(at.read_bytes()).hexdigest() if at.is_file() else ""
        if content != stands and content not in kept.get(path, ()):
            yield f"what stood at {path} is neither there nor in quarantine"
    yield from (f"the ledger tells of {e['place']}, which is not there" for e in told if not (top.parent / e["place"]).exists())
