"""Markdown out of series, and its place in the document."""

from __future__ import annotations

from pathlib import Path

from measure import Series

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def head(*cells: str) -> str:
    return row(*cells) + "\n" + "|---" * len(cells) + "|"


def number(value: float) -> str:
    """Three digits that mean something."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def seconds(value: float) -> str:
    return f"{value:.3f}" if value < 0.995 else number(value)


def ratios(first: str, series: dict[str, Series], against: str) -> str:
    """One row for each, in their order; ratios of wall clock and of processor time to `against`."""
    lines = [head(first, "seconds", "spread", "× floor", "CPU seconds", "CPU × floor", "peak MiB", "rounds")]
    base = series[against]
    for name, one in series.items():
        cpu = number(one.cpu() / base.cpu()) if base.cpu() > 0.02 else "–"
        lines.append(row(
            name, seconds(one.seconds()), f"{one.spread():.0%}" if len(one.samples) > 1 else "–", number(one.seconds() / base.seconds()),
            number(one.cpu()), cpu, f"{one.peak():.1f}" if one.peak() else "–", str(len(one.samples)),
        ))
    return "\n".join(lines)


class Document:
    """docs/benchmarks.md: what stands between `<!-- bench NAME -->` and `<!-- end NAME -->` is this harness's."""

    def __init__(self, path: Path = DOCUMENT):
        self.path = path
        self._text = path.read_text()

    def put(self, name: str, text: str) -> None:
        begin, end = f"<!-- bench {name} -->", f"<!-- end {name} -->"
        before, found, rest = self._text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (found and closed):
            raise ValueError(f"{self.path} has no place for {name}: {begin} and {end}")
        self._text = f"{before}{begin}\n{text.strip()}\n{end}{after}"

    def write(self) -> None:
        self.path.write_text(self._text)
