"""An SVG of measurements over time: panels one below the other, and marks of what was done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# pixels
WIDTH = 860
LEFT = 112
RIGHT = 846
TOP = 14
HEIGHT = 62  # of a panel's plot
STEP = 96  # from one panel to the next
MARK_STEP = 15  # from one row of marks to the next
INK = "#1b2430"
SOFT = "#5b6675"
LINE = "#e3e7ec"
COLOURS = ("#3b6fb6", "#d6001c")
SHADE = "#f1f3f6"


class Curve(NamedTuple):
    """One line of a panel."""

    values: Sequence[float]  # NaN = missing
    name: str


class Panel(NamedTuple):
    """One plot."""

    title: str
    curves: Sequence[Curve]
    logarithmic: bool = False


class Mark(NamedTuple):
    """Something that was done."""

    kind: str
    at: float  # minutes


def chart(at: Sequence[float], panels: Sequence[Panel], marks: Sequence[Mark], end: float) -> str:
    """Return the SVG.

    Args:
        at: minutes of the values of all curves.
        panels: the plots.
        marks: a row of ticks for each kind, below the plots.
        end: minutes at the right edge.
    """
    kinds = sorted({mark.kind for mark in marks})
    bottom = TOP + STEP * len(panels)
    height = bottom + MARK_STEP * len(kinds) + 44
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="11">',
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#fff" '
        f'stroke="{LINE}"/>',
        f'<rect x="{across(end / 3, end):.1f}" y="{TOP}" '
        f'width="{(RIGHT - LEFT) / 3:.1f}" height="{bottom - TOP}" fill="{SHADE}"/>',
    ]
    for number, panel in enumerate(panels):
        parts += plot(panel, at, end, TOP + STEP * number + 22)
    for row, kind in enumerate(kinds):
        parts += mark_row(kind, marks, end, bottom + 12 + MARK_STEP * row)
    parts += axis(end, height - 24)
    return "\n".join([*parts, "</svg>", ""])


def across(minute: float, end: float) -> float:
    """Return the horizontal position of a moment, pixels."""
    return LEFT + (RIGHT - LEFT) * minute / end


def plot(panel: Panel, at: Sequence[float], end: float, top: float) -> list[str]:
    """Return a panel, its highest and lowest value beside the curves."""
    values = np.array([curve.values for curve in panel.curves], float)  # (curves, samples)
    low = float(np.nanmin(values)) if panel.logarithmic else 0.0
    high = float(np.nanmax(values))

    def up(value: float) -> float:
        if panel.logarithmic:
            share = np.log(value / low) / max(float(np.log(high / low)), 1e-9)
        else:
            share = value / max(high, 1e-9)
        return float(top + HEIGHT * (1 - share))

    parts = [f'<text x="{LEFT}" y="{top - 7}" fill="{INK}">{panel.title}</text>']
    for value in (low, high):
        parts += [
            f'<path d="M{LEFT},{up(value):.1f}H{RIGHT}" stroke="{LINE}"/>',
            f'<text x="{LEFT - 6}" y="{up(value) + 4:.1f}" text-anchor="end" '
            f'fill="{SOFT}">{number_text(value)}</text>',
        ]
    for row, colour in zip(values, COLOURS):
        known = np.flatnonzero(~np.isnan(row))
        points = (f"{across(at[i], end):.1f},{up(row[i]):.1f}" for i in known)
        parts.append(
            f'<path d="M{"L".join(points)}" fill="none" stroke="{colour}" stroke-width="1.2"/>'
        )
    return parts


def number_text(value: float) -> str:
    """Return a number with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def mark_row(kind: str, marks: Sequence[Mark], end: float, y: float) -> list[str]:
    """Return the ticks of one kind, its name at the left of the first."""
    times = [across(mark.at, end) for mark in marks if mark.kind == kind]
    ticks = "".join(f"M{x:.1f},{y - 8}V{y + 1}" for x in times)
    return [
        f'<text x="{LEFT - 6}" y="{y}" text-anchor="end" fill="{SOFT}" '
        f'font-size="8.5">{kind}</text>',
        f'<path d="{ticks}" stroke="{INK}" stroke-width="1.6"/>',
    ]


def axis(end: float, y: float) -> list[str]:
    """Return the time axis: a number at each of about six minutes."""
    step = next((s for s in (0.05, 0.1, 0.5, 1, 2, 5, 10, 20, 60) if end / s <= 8), 120)
    minutes = np.arange(0, end + step / 100, step)
    return [
        f'<text x="{across(minute, end):.1f}" y="{y + 12}" text-anchor="middle" '
        f'fill="{SOFT}">{minute:g}</text>'
        for minute in minutes
    ] + [f'<text x="{LEFT - 6}" y="{y + 12}" text-anchor="end" fill="{SOFT}">minutes</text>']
