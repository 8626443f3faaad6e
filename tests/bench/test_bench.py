"""The harness itself, with a tiny tree and nothing that needs root or peers. No time is asserted."""

from __future__ import annotations

import dataclasses
import os
import shutil
import xml.etree.ElementTree
from pathlib import Path

import pytest

import plot
import trees
from measure import Failed, Sample, Series, interleaved, run, waited
from parts import Bench, check, sweep
from peers import Openssl, Sha256sum
from tables import Document, ratios

PROGRAMS = Path(os.environ.get("GUARDD_TEST_BINARIES", Path(__file__).resolve().parents[2] / "target/debug"))
TINY = trees.Tree("tiny", 45, 20, "web")

needs_time = pytest.mark.skipif(not shutil.which("time"), reason="time(1) is not installed")


@needs_time
def test_a_tiny_tree_is_measured_beside_the_floor_and_two_peers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trees.TREES, TINY.name, TINY)
    bench = Bench(tmp_path, PROGRAMS, 2, [Sha256sum, Openssl], lambda line: None, None, TINY.name)
    table = check(bench).partition("\n\n")[0].splitlines()
    assert [line.split(" | ")[0].strip("| ") for line in table[2:]] == ["floor", "guardd check", "sha256sum", "openssl"]
    assert all(len(series.samples) == 2 for series in bench.checks[TINY.name].values())
    assert bench.checks[TINY.name]["guardd check"].peak() > 1
    assert "guardd check --quick" in sweep(bench)
    assert sum(path.is_file() for path in (tmp_path / TINY.name).rglob("*")) == TINY.files


def test_a_tree_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "one", tmp_path / "two"
    for work in (first, second):
        work.mkdir()
        dataclasses.replace(TINY, kind="tiny").make(work / "tree")
    contents = [{path.name: path.read_bytes() for path in work.rglob("*.js")} for work in (first, second)]
    assert contents[0] == contents[1]


def test_what_fails_is_said_and_left_out() -> None:
    said: list[str] = []

    def fails() -> Sample:
        raise Failed("no database")

    done = interleaved(3, {"good": lambda: Sample(1.0, 0.5, 10), "bad": fails, "slow": lambda: Sample(9, 9, 9)},
                       lambda: None, frozenset({"slow"}), said.append)
    assert {name: len(series.samples) for name, series in done.items()} == {"good": 3, "slow": 1}
    assert sum("bad failed: no database" in line for line in said) == 1


@needs_time
def test_a_program_that_fails_is_no_measurement() -> None:
    with pytest.raises(Failed, match="exit status 3"):
        run(["sh", "-c", "exit 3"])
    assert run(["sh", "-c", "exit 3"], (3,)).peak > 100


def test_ratios_and_spread() -> None:
    series = {"floor": Series([Sample(1, 1, 1024), Sample(3, 1, 2048), Sample(2, 1, 1024)]), "other": Series([Sample(4, 3, 0)])}
    table = ratios("work", series, "floor").splitlines()
    assert table[2] == "| floor | 2.00 | 100% | 1.00 | 1.00 | 1.00 | 2.0 | 3 |"
    assert table[3] == "| other | 4.00 | – | 2.00 | 3.00 | 3.00 | – | 1 |"


def test_what_threads_wait_together_counts_once() -> None:
    def said(*lines: tuple[str, float, str]) -> str:
        return "\n".join(f"  {ids:>12} {at:.6f}: syscalls:sys_{event}: " for ids, at, event in lines)

    script = said(("7/8", 1.0, "enter_fsync"), ("9/9", 1.1, "enter_syncfs"), ("7/10", 1.5, "enter_fdatasync"), ("7/8", 2.0, "exit_fsync"),
                  ("7/10", 3.0, "exit_fdatasync"), ("9/9", 9.0, "exit_syncfs"), ("7/8", 4.0, "exit_fsync"), ("7/8", 5.0, "enter_fsync"), ("7/8", 5.5, "exit_fsync"))
    assert waited(7, script) == pytest.approx(2.5)


def test_only_what_is_between_the_marks_is_written(tmp_path: Path) -> None:
    path = tmp_path / "document.md"
    path.write_text("before\n<!-- bench one -->\nold\n<!-- end one -->\nafter\n")
    document = Document(path)
    document.put("one", "new\n")
    with pytest.raises(ValueError, match="no place for two"):
        document.put("two", "x")
    document.write()
    assert path.read_text() == "before\n<!-- bench one -->\nnew\n<!-- end one -->\nafter\n"


def test_the_plot_is_well_formed_and_labels_do_not_cover_each_other() -> None:
    picture = plot.svg("a < b", "files", "seconds", {"one": [(1000, 0.01), (100_000, 1.0)], "two": [(1000, 0.02), (100_000, 1.01)]})
    texts = [text for text in xml.etree.ElementTree.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    heights = [float(text.get("y")) for text in texts if text.text in ("one", "two")]
    assert abs(heights[0] - heights[1]) >= 14
