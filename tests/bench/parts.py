"""What is measured: one function for each part, which gives the Markdown of its place in docs/benchmarks.md."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import debian13
import plot
import residency
import trees
from guarded import Daemon, Floor
from measure import Failed, Sample, Series, drop_caches, interleaved, run, said_once, shell, syncs_of
from peers import PEERS, Aide13, Peer
from tables import DOCUMENT, head, number, ratios, row, seconds

READERS = (2, 4, 8, 16, 32)
IDLE_SECONDS = 20
REHASH_SECONDS = 300
PACED = "60s"
DATABASE_MIB = 128


@dataclass
class Bench:
    """What the parts have in common."""

    top: Path
    programs: Path
    rounds: int
    peers: list[type[Peer]]
    say: Callable[[str], None]
    cache: Path | None = None
    chosen: str | None = None
    """The tree that was asked for instead of a part's own."""

    checks: dict[str, dict[str, Series]] = field(default_factory=dict)
    """By tree, for the plot."""

    def tree(self, tree: trees.Tree) -> Path:
        top = self.top / tree.name
        with said_once(self.say, f"tree {tree.name}"):
            tree.make(top)
        return top

    def pick(self, usual: trees.Tree) -> trees.Tree:
        return trees.TREES[self.chosen] if self.chosen else usual

    @contextlib.contextmanager
    def daemon(self, root: Path, **how) -> Iterator[Daemon]:
        work = self.top / f"guardd-{time.monotonic_ns()}"
        try:
            with Daemon(self.programs, work, root, **how) as daemon:
                yield daemon
        finally:
            run(["chattr", "-R", "-f", "-i", work], (0, 1))
            shutil.rmtree(work, ignore_errors=True)

    def floor(self, root: Path) -> Floor:
        return Floor(self.programs, self.top, root)

    @contextlib.contextmanager
    def others(self, root: Path) -> Iterator[list[Peer]]:
        """The peers that can be had, and Debian 13's root in place."""
        with contextlib.ExitStack() as stack:
            if Aide13 in self.peers and self.cache and (image := debian13.image(self.cache)):
                Aide13.where = stack.enter_context(debian13.mounted(image, self.top, self.top))
            there = []
            for kind in self.peers:
                if why := kind.why_not():
                    self.say(f"{kind.name} is left out: {why}")
                else:
                    there.append(kind(self.top / "peers" / root.name, root))
            yield there

    def missing(self) -> str:
        without = [f"{kind.name} ({why})" for kind in self.peers if (why := kind.why_not())]
        without += [f"{kind.name} ({kind.only_if_asked})" for kind in PEERS if kind.only_if_asked and kind not in self.peers]
        return f"\n\nNot measured: {', '.join(without)}." if without and self.peers else ""


def check(bench: Bench, usual: trees.Tree = trees.SMALL) -> str:
    """Every byte read and hashed, all attributes compared."""
    tree = bench.pick(usual)
    root = bench.tree(tree)
    floor = bench.floor(root)
    is_huge = tree.files > 500_000
    with bench.others(root) as others, bench.daemon(root) as daemon:
        floor("record")
        tasks = {"floor": lambda: floor("check")}
        daemon.lock()
        tasks["guardd check"] = lambda: daemon.timed(daemon.clean)
        once = set()
        for peer in others:
            if is_huge and peer.slow:
                bench.say(f"{peer.name} is left out with {tree.files:,} files: it takes minutes")
                continue
            try:
                with said_once(bench.say, f"{peer.name}: its baseline"):
                    peer.baseline()
            except (Failed, OSError) as e:
                bench.say(f"{peer.name} failed: {e}")
                continue
            tasks[peer.name] = peer.check
            if is_huge or peer.slow:
                once.add(peer.name)
        daemon.wait_until_idle()
        series = interleaved(bench.rounds, tasks, floor.warm, frozenset(once), bench.say)
    bench.checks[tree.name] = series
    return ratios(f"full check of `{tree.name}`, {tree.files:,} files", series, "floor") + bench.missing()


def check_huge(bench: Bench) -> str:
    return check(bench, trees.HUGE)


def big(bench: Bench) -> str:
    """Files that cannot be split between threads: the hash's own speed."""
    root = bench.tree(trees.BIG)
    floor = bench.floor(root)
    with bench.daemon(root) as daemon:
        floor("record")
        daemon.lock()
        daemon.wait_until_idle()
        tasks = {
            "floor": lambda: floor("check"), "floor, one thread": lambda: floor("check", 1),
            "guardd check": lambda: daemon.timed(daemon.clean),
        }
        series = interleaved(bench.rounds, tasks, floor.warm, say=bench.say)
    return ratios("full check of 4 files of 1 GiB", series, "floor")


def sweep(bench: Bench) -> str:
    """Attributes alone."""
    tree = bench.pick(trees.SMALL)
    root = bench.tree(tree)
    floor = bench.floor(root)
    with bench.daemon(root) as daemon:
        floor("record")
        daemon.lock()
        daemon.wait_until_idle()
        tasks = {
            "floor with extended attributes": lambda: floor("sweep"), "statx alone": lambda: floor("stat"),
            "guardd check --quick": lambda: daemon.timed(lambda: daemon.clean("--quick")),
        }
        series = interleaved(bench.rounds, tasks, lambda: floor("sweep"), say=bench.say)
    return ratios(f"metadata of `{tree.name}`, {tree.files:,} files", series, "floor with extended attributes")


def baseline(bench: Bench) -> str:
    """A first look that is written down."""
    tree = bench.pick(trees.SMALL)
    root = bench.tree(tree)
    floor = bench.floor(root)
    with bench.others(root) as others:
        def lock() -> Sample:
            with bench.daemon(root) as daemon:
                floor.warm()
                return daemon.timed(daemon.lock)

        tasks = {"floor": lambda: floor("record"), "guardd lock, without seal and backup": lock}
        tasks |= {peer.name: peer.baseline for peer in others}
        floor("record")
        once = frozenset(peer.name for peer in others)
        series = interleaved(min(bench.rounds, 3), tasks, floor.warm, once, bench.say)
        waited: list[float] = []
        with bench.daemon(root) as daemon, syncs_of(daemon.seen.pid, waited):
            floor.warm()
            traced = daemon.timed(daemon.lock)
    text = ratios(f"baseline of `{tree.name}`, {tree.files:,} files", series, "floor")
    if waited:
        rest = traced.seconds - waited[0]
        text += (f"\n\nA lock of {seconds(traced.seconds)} s was {seconds(waited[0])} s in fsync, fdatasync and syncfs; "
                 f"without them {number(rest / series['floor'].seconds())} × floor.")
    return text + bench.missing()


def operations(bench: Bench) -> str:
    """Lock and unlock where a backup has the content already, beside what their changes of the tree cost bare."""
    tree = bench.pick(trees.SMALL)
    root = bench.tree(tree)
    floor = bench.floor(root)
    floor("record")
    taken: dict[str, list[Sample]] = {}

    def add(name: str, sample: Sample) -> None:
        taken.setdefault(name, []).append(sample)
        bench.say(f"  {name}: {sample.seconds:.3f} s, CPU {sample.cpu:.2f} s, {sample.peak / 1024:.1f} MiB")

    try:
        with bench.daemon(root, seal="immutable", backups=True) as daemon:
            with said_once(bench.say, "the first lock, with the first backup"):
                daemon.lock()
            daemon.unlock()
            for _ in range(min(bench.rounds, 3)):
                add("floor: record", floor("record"))
                add("floor: open, chmod, ioctl for each entry", floor("seal"))
                add("floor: the same back", floor("unseal"))
                floor.warm("record")
                add("guardd lock", daemon.timed(daemon.lock))
                add("guardd unlock, with its emergency backup", daemon.timed(daemon.unlock))
    finally:
        run(["chattr", "-R", "-f", "-i", root], (0, 1))
        floor("unseal")
    series = {name: Series(samples) for name, samples in taken.items()}
    seal, record = (series[name] for name in ("floor: open, chmod, ioctl for each entry", "floor: record"))
    goal = 2 * record.seconds() + seal.seconds()
    text = ratios(f"operations on `{tree.name}`, {tree.files:,} files, `immutable`", series, "floor: record")
    return f"{text}\n\nTwice the floor's baseline and once its change of every entry is {seconds(goal)} s."


def cold(bench: Bench) -> str:
    """Nothing in the page cache, no name and no inode either."""
    tree = bench.pick(trees.SMALL)
    root = bench.tree(tree)
    floor = bench.floor(root)
    with bench.daemon(root) as daemon:
        floor("record")
        daemon.lock()
        daemon.wait_until_idle()
        tasks: dict[str, Callable[[], Sample]] = {f"floor, {n} threads": (lambda n=n: floor("check", n)) for n in READERS}
        tasks["guardd check"] = lambda: daemon.timed(daemon.clean)
        series = interleaved(min(bench.rounds, 3), tasks, drop_caches, say=bench.say, is_warm=False)
    best = min((name for name in series if name.startswith("floor")), key=lambda name: series[name].seconds())
    return ratios(f"full check of `{tree.name}`, cold", series, best)


def paced(bench: Bench) -> str:
    """The rehash as the daemon does it by itself, where an application has two fifths of the tree in memory and a database half of
    its file. The kernel gives pages back for reasons of its own, too: what becomes of a copy that guardd does not know is beside it."""
    tree = bench.pick(trees.SMALL)
    root, beside = bench.tree(tree), bench.top / f"{tree.name}-beside"
    files = {"in the tree": root / "database", "beside it": beside / "database"}
    try:
        with said_once(bench.say, "a copy beside it"):
            trees.noise(files["in the tree"], DATABASE_MIB)
            residency.copy(root, beside)
        with bench.daemon(root, rehash=PACED) as daemon:
            daemon.lock()
            last = rehashed(daemon, None)
            daemon.stop()
            drop_caches()
            for top in (root, beside):
                shell(f"find {top} -path '*/lib-[12]/*' -type f -exec cat {{}} + > /dev/null")
            with residency.Database(files) as database:
                found = {top: residency.resident(top) for top in (root, beside)}
                daemon.start()
                before, began = daemon.seen.cpu(), time.monotonic()
                last = rehashed(daemon, last["finished_at"])
                used, passed = daemon.seen.cpu() - before, time.monotonic() - began
                moved = [residency.Moved.between(found[top], residency.resident(top)) for top in (root, beside)]
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        files["in the tree"].unlink(missing_ok=True)
    return "\n".join([
        head(f"paced rehash of `{tree.name}`, `rehash = \"{PACED}\"`, two fifths of it in the page cache", "the tree", "a copy that guardd does not read"),
        row("it took", f"{last['duration_ms'] / 1000:.1f} s", "–"),
        row("CPU of the daemon from READY=1 to its end", f"{number(used)} s in {passed:.0f} s: {used / passed:.1%} of a core", "–"),
        row("in the page cache before and after (fincore)", *(one.text() for one in moved)),
        row("random reads of a file's half in memory that found their page there", *(hits.text() for hits in database.hits.values())),
    ])


def rehashed(daemon: Daemon, before: str | None) -> dict:
    """Waits for a rehash that ended at another time than `before`."""
    began = time.monotonic()
    while time.monotonic() - began < REHASH_SECONDS:
        last = daemon.ctl("status")["environments"][0].get("last_rehash")
        if last and last["finished_at"] != before:
            return last
        time.sleep(0.5)
    raise Failed(f"no rehash in {REHASH_SECONDS} seconds")


def steady(bench: Bench) -> str:
    """Start, memory and idle processor time, by size."""
    lines = [head("files", "start until READY=1, s", "resident after a start, MiB", "after a check, MiB", "peak of the check, MiB")]
    idle = [head("files", "seal", "CPU between sweeps", "with the sweep, over a minute")]
    for tree in (trees.TREES["10k"], trees.SMALL):
        root = bench.tree(tree)
        with bench.daemon(root) as daemon:
            daemon.lock()
            starts = []
            for _ in range(min(bench.rounds, 3)):
                daemon.stop()
                starts.append(daemon.start())
            resident = daemon.seen.memory("VmRSS")
            idle.append(idle_row(bench, tree, "none", daemon))
            sample = daemon.timed(daemon.clean)
            after = daemon.seen.memory("VmRSS")
        with bench.daemon(root, seal="immutable") as daemon:
            daemon.lock()
            idle.append(idle_row(bench, tree, "immutable", daemon))
            daemon.unlock()
        cells = (f"{tree.files:,}", seconds(sorted(starts)[len(starts) // 2]), f"{resident / 1024:.1f}", f"{after / 1024:.1f}",
                 f"{sample.peak / 1024:.1f}")
        bench.say("  " + " | ".join(cells))
        lines.append(row(*cells))
    return "\n".join([*lines, "", *idle])


def idle_row(bench: Bench, tree: trees.Tree, seal: str, daemon: Daemon) -> str:
    """A minute in which nothing happens, in three parts: a sweep lies in one of them, or where two meet."""
    daemon.wait_until_idle()
    parts = []
    for _ in range(60 // IDLE_SECONDS):
        before = daemon.seen.cpu()
        time.sleep(IDLE_SECONDS)
        parts.append(daemon.seen.cpu() - before)
    cells = (f"{tree.files:,}", f"`{seal}`", f"{min(parts) / IDLE_SECONDS:.2%}", f"{sum(parts) / 60:.2%}")
    bench.say("  " + " | ".join(cells))
    return row(*cells)


def sizes(bench: Bench) -> str:
    """What a check costs by the size of the tree; those of the parts before are taken from there."""
    for tree in trees.SIZES:
        if tree.name not in bench.checks:
            check(bench, tree)
    lines: dict[str, list[plot.Point]] = {}
    for tree in trees.SIZES:
        for name, series in bench.checks[tree.name].items():
            lines.setdefault(name, []).append((tree.files, series.seconds()))
    picture = DOCUMENT.parent / "benchmarks.svg"
    picture.write_text(plot.svg("Full check by size of the tree, warm cache", "files", "seconds", lines))
    names = list(bench.checks[trees.SMALL.name])
    table = [head("seconds for files", *(f"{tree.files:,}" for tree in trees.SIZES))]
    for name in names:
        every = (bench.checks[tree.name].get(name) for tree in trees.SIZES)
        table.append(row(name, *(seconds(one.seconds()) if one else "–" for one in every)))
    return f"![Cost of a full check by size]({picture.name})\n\n" + "\n".join(table)


PARTS: dict[str, Callable[[Bench], str]] = {
    "check": check, "huge": check_huge, "sweep": sweep, "baseline": baseline, "operations": operations, "big": big, "cold": cold,
    "paced": paced, "steady": steady, "sizes": sizes,
}
