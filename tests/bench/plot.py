"""Cost against size as an SVG, both axes logarithmic."""

from __future__ import annotations

import math
from html import escape

WIDTH, HEIGHT = 760, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 30, 50
COLOURS = ("#1b6ca8", "#888888", "#c0392b", "#e67e22", "#27ae60", "#8e44ad", "#16a085", "#7f5539", "#d81b60")

Point = tuple[float, float]


def svg(title: str, across: str, up: str, lines: dict[str, list[Point]]) -> str:
    """One polyline for each name, labelled at its end."""
    points = [point for line in lines.values() for point in line]
    xs, ys = ([math.log10(p[axis]) for p in points] for axis in (0, 1))
    left, right = math.floor(min(xs)), math.ceil(max(xs))
    low, high = math.floor(min(ys)), math.ceil(max(ys))

    def place(point: Point) -> Point:
        x = LEFT + (math.log10(point[0]) - left) / max(right - left, 1) * (WIDTH - LEFT - RIGHT)
        y = HEIGHT - BOTTOM - (math.log10(point[1]) - low) / max(high - low, 1) * (HEIGHT - TOP - BOTTOM)
        return round(x, 1), round(y, 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{escape(title)}</text>',
    ]
    for power in range(low, high + 1):
        _, y = place((10**left, 10**power))
        parts.append(f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#ddd"/><text x="{LEFT - 6}" y="{y + 4}" text-anchor="end">{tick(power)}</text>')
    for power in range(left, right + 1):
        x, _ = place((10**power, 10**low))
        parts.append(f'<path d="M{x} {TOP}V{HEIGHT - BOTTOM}" stroke="#ddd"/><text x="{x}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{tick(power)}</text>')
    parts.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">{escape(across)}</text>')
    parts.append(f'<text transform="translate(16 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">{escape(up)}</text>')
    labels = apart({name: place(line[-1])[1] for name, line in lines.items()})
    for (name, line), colour in zip(lines.items(), COLOURS * len(lines)):
        places = [place(point) for point in line]
        path = "L".join(f"{x} {y}" for x, y in places)
        parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.extend(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>' for x, y in places)
        parts.append(f'<text x="{WIDTH - RIGHT + 10}" y="{labels[name] + 4}" fill="{colour}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def apart(wanted: dict[str, float], least: float = 14) -> dict[str, float]:
    """Heights of labels, moved down so that none covers another."""
    found: dict[str, float] = {}
    last = -least
    for name in sorted(wanted, key=wanted.__getitem__):
        last = max(wanted[name], last + least)
        found[name] = round(last, 1)
    return found


def tick(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10**power:g}"
