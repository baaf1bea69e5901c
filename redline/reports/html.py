"""The report of an evaluation as one HTML page, without scripts or links.

This module computes the plain values (numbers, SVG paths, ticks) that report.html.j2 lays out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from math import ceil, floor, isfinite, log10
from typing import Any, NamedTuple

import numpy as np

from redline.evaluation.comparison import count_noun
from redline.reports.ranking import lookup_figure, ranking_columns
from redline.reports.table import Cell, format_cell, is_absent

# pixels of the plot of the file: its width, and where its lines begin and end
WIDTH = 1080
LEFT = 56
RIGHT = 1072
COLUMNS = 508  # a line is drawn through the lowest and the highest value in each of so many columns
MAX_PANELS = 6  # features drawn, at most
MAX_ALARM_ROWS = 500  # alarms listed, at most

Scale = Callable[[float], float]  # a value -> its position in pixels


class ReportPlot(NamedTuple):
    """What the plot shows of a file under one detector."""

    time: np.ndarray | None  # (steps,) seconds since the Unix epoch; None = the file has no times
    x: np.ndarray  # (steps, features) in their units, NaN = missing
    names: tuple[str, ...]
    units: tuple[str, ...]
    score: np.ndarray | None  # (steps,) standard deviations, NaN = no opinion
    threshold: float  # standard deviations
    alarms: np.ndarray  # steps
    false: np.ndarray  # steps of the alarms in no event; empty without labels
    events: np.ndarray  # (events, 2) first and last step
    hit: np.ndarray  # (events,) bool
    cut: int = 0  # settings were learned on the rows before it


class Tick(NamedTuple):
    """A text on an axis."""

    at: float  # pixels
    text: str
    anchor: str = "end"


class Panel(NamedTuple):
    """One feature over time."""

    name: str
    top: float  # pixels, as all positions below
    bottom: float
    ticks: Sequence[Tick]
    path: str  # "" = no values
    marks: Sequence[tuple[float, float]]  # (x, y) of each alarm on a value


class ScorePanel(NamedTuple):
    """The score over time, cut at three times the threshold."""

    top: float
    bottom: float
    ticks: Sequence[Tick]
    path: str
    threshold: Tick


class Drawing(NamedTuple):
    """The plot of a file: panels, alarms, events, score and times, from top to bottom."""

    height: float
    panels: Sequence[Panel]
    alarms_at: float
    alarms: Sequence[tuple[float, bool]]  # (x, whether it is false)
    events: Sequence[tuple[float, float, bool]]  # (x of the first step, of the last, whether hit)
    score: ScorePanel | None
    cut: float | None  # x of the first row after those that settings were learned on
    times_at: float
    times: Sequence[Tick]


class Curve(NamedTuple):
    """One line of a chart."""

    path: str
    mark: str  # CSS class
    title: str


class Chart(NamedTuple):
    """A small chart of curves whose values lie between 0 and 1."""

    title: str
    axis: str  # what runs from left to right
    ticks: Sequence[Tick]
    curves: Sequence[Curve]
    key: Sequence[tuple[str, str]]  # (CSS class, text)
    best: Sequence[tuple[float, float, str]] = ()  # (x, y, text) of the chosen threshold


def render_report(document: Mapping[str, Any], plot: ReportPlot) -> str:
    """Return the page for an evaluation (see `comparison_document`) and the plot of its file."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("redline.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(px=lambda value: f"{value:.1f}", cell=format_cell, absent=is_absent)
    columns = ranking_columns(document)
    alarm_heads, alarm_rows = _alarm_table(document)
    return environment.get_template("report.html.j2").render(
        document=document,
        facts=_facts(document),
        cards=_cards(document),
        drawing=_drawing(plot),
        width=WIDTH,
        left=LEFT,
        right=RIGHT,
        features=plot.x.shape[1],
        max_panels=MAX_PANELS,
        charts=_charts(document) if document["labels"] else [],
        columns=columns,
        groups=[(name, len(list(same))) for name, same in groupby(c.group for c in columns)],
        figure=lookup_figure,
        alarm_heads=alarm_heads,
        alarm_rows=alarm_rows,
        max_alarms=MAX_ALARM_ROWS,
    )


def _facts(document: Mapping[str, Any]) -> list[str]:
    """Return what the file holds, one fact each."""
    facts = [f"{document['rows']:,} rows", ", ".join(document["names"])]
    if document["from"]:
        facts.append(f"{document['from']} to {document['to']}")
    labelled = count_noun(document["events"], "labelled event") if document["labels"] else ""
    facts.append(labelled or "no labels")
    return facts + [f"{count:,} {note}" for note, count in document["notes"].items()]


def _cards(document: Mapping[str, Any]) -> list[tuple[str, Cell, str]]:
    """Return (name, value, unit) of the figures at the top of the page."""
    if not document["labels"]:
        return [
            ("Detectors", len(document["ranking"]), ""),
            ("Threshold", document["threshold"], "σ"),
            ("Alarms by half of them", document["joint_alarms"], ""),
        ]
    first = _suggested(document)
    if first is None:
        return []
    best = first["best"]
    return [
        ("Detector", first["detector"], ""),
        ("Window", first["window"], "steps"),
        ("Threshold", f"{first['threshold']:.1f}", "σ"),
        ("Events hit", f"{best['hits']} of {best['events']}", ""),
        ("False alarms", best["false_alarms"], ""),
        ("Mean delay", "-" if best["delay"] is None else f"{best['delay']:.1f}", "steps"),
    ]


def _suggested(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((row for row in document["ranking"] if row["suggested"]), None)


def _drawing(plot: ReportPlot) -> Drawing:
    """Stack the parts of the plot from top to bottom; all positions in pixels."""
    across = _scale(0, max(len(plot.x) - 1, 1), LEFT, RIGHT)
    features = range(min(plot.x.shape[1], MAX_PANELS))
    height = 190 if len(features) == 1 else 92
    panels = [_panel(plot, i, across, 22 + i * (height + 30), height) for i in features]
    alarms_at = panels[-1].bottom + 24
    top = alarms_at + (38 if len(plot.events) else 14)
    score = _score_panel(plot.score, plot.threshold, across, top + 6)
    top += 88 if score else 0
    false = set(plot.false.tolist())
    return Drawing(
        top + 26,
        panels,
        alarms_at,
        [(across(at), at in false) for at in plot.alarms.tolist()],
        [
            (across(first), across(last), hit)
            for (first, last), hit in zip(plot.events.tolist(), plot.hit.tolist())
        ],
        score,
        across(plot.cut) if plot.cut else None,
        top + 16,
        _time_ticks(plot, across),
    )


def _panel(plot: ReportPlot, feature: int, across: Scale, top: float, height: float) -> Panel:
    values = plot.x[:, feature]  # (steps,)
    unit = plot.units[feature]
    name = plot.names[feature] + (f" ({unit})" if unit else "")
    bottom = top + height
    known = values[np.isfinite(values)]
    if not len(known):
        return Panel(name, top, bottom, [], "", [])
    low = float(known.min())
    high = float(known.max())
    ticks = nice_ticks(low, high, 4 if height > 100 else 2)
    up = _scale(min(ticks[0], low), max(ticks[-1], high), bottom, top)
    marks = [(across(at), up(values[at])) for at in plot.alarms if isfinite(values[at])]
    return Panel(name, top, bottom, _ticks(ticks, up), _path(thin_line(values), across, up), marks)


def _score_panel(
    score: np.ndarray | None, threshold: float, across: Scale, top: float
) -> ScorePanel | None:
    if score is None:
        return None
    highest = threshold * 3
    up = _scale(0, highest, top + 70, top)
    path = _path(thin_line(np.minimum(score, highest)), across, up)
    mark = Tick(up(threshold), f"{threshold:.1f} σ")
    return ScorePanel(top, top + 70, _ticks([0, highest], up), path, mark)


def _time_ticks(plot: ReportPlot, across: Scale) -> list[Tick]:
    """Return up to seven times in UTC, or row numbers where the file has no times."""
    rows = np.unique(np.linspace(0, len(plot.x) - 1, 7).astype(int)).tolist()
    anchors = {rows[0]: "start", rows[-1]: "end"}
    if plot.time is None:
        texts = [f"row {row + 1:,}" for row in rows]
    else:
        texts = _format_times(plot.time[rows], float(np.ptp(plot.time)))
    return [Tick(across(r), text, anchors.get(r, "middle")) for r, text in zip(rows, texts)]


def _format_times(times: np.ndarray, span: float) -> list[str]:
    """Format times (seconds since the Unix epoch) in UTC, the shorter their span (s) the finer."""
    form = "%d %b %Y" if span > 20 * 86_400 else "%d %b %H:%M" if span > 7200 else "%H:%M:%S"
    return [datetime.fromtimestamp(float(at), UTC).strftime(form) for at in times]


def _charts(document: Mapping[str, Any]) -> list[Chart]:
    """Return events against the threshold, then both curves over all thresholds."""
    first = _suggested(document) or document["ranking"][0]
    rows = [row for row in reversed(document["ranking"]) if row is not first]
    rows.append(first)  # drawn last, above the others
    return [
        _threshold_chart(first),
        _row_chart("Rows: ROC", "false-positive rate", rows, "roc", "roc_area"),
        _row_chart("Rows: precision and recall", "recall", rows, "pr", "average_precision"),
    ]


def _threshold_chart(row: Mapping[str, Any]) -> Chart:
    """Return precision, recall and F1 of events against the threshold of one detector."""
    curve = row["curve"]
    thresholds = curve["thresholds"]
    chosen = row["threshold"]
    across, up = _chart_scales(thresholds)
    best = []
    if chosen is not None:
        at = min(range(len(thresholds)), key=lambda i: abs(thresholds[i] - chosen))
        f1 = curve["event_f1"][at]
        best = [] if f1 is None else [(across(chosen), up(f1), f"{chosen:.1f} σ")]
    key = [("a", "precision"), ("b", "recall"), ("c", "F1")]
    curves = [
        Curve(_path(zip(thresholds, curve[f"event_{name.lower()}"]), across, up), mark, name)
        for mark, name in key
    ]
    ticks = _chart_ticks(thresholds, across)
    return Chart("Events against the threshold", "threshold, σ", ticks, curves, key, best)


def _row_chart(
    title: str, axis: str, rows: Sequence[Mapping[str, Any]], field: str, area: str
) -> Chart:
    """Return one curve of each detector over all thresholds, the last row's above the others."""
    span = (0, 1)
    scales = _chart_scales(span)
    curves = [
        Curve(
            _path(zip(row[field]["x"], row[field]["y"]), *scales),
            "c" if row is rows[-1] else "other",
            f"{row['detector']}: {format_cell(row[area])}",
        )
        for row in rows
    ]
    name = f"{rows[-1]['detector']}, area {format_cell(rows[-1][area])}"
    key = [("c", name), ("other", "the others")]
    return Chart(title, axis, _chart_ticks(span, scales[0]), curves, key)


def _chart_scales(span: Sequence[float]) -> tuple[Scale, Scale]:
    return _scale(span[0], span[-1], 34, 330), _scale(0, 1, 200, 10)


def _chart_ticks(span: Sequence[float], across: Scale) -> list[Tick]:
    inside = [t for t in nice_ticks(span[0], span[-1], 4) if span[0] <= t <= span[-1]]
    return [Tick(across(t), f"{t:g}", "middle") for t in inside]


def _alarm_table(document: Mapping[str, Any]) -> tuple[list[str], list[list[Cell]]]:
    """Return the headings and rows of the list of alarms, without columns that hold no value."""
    features = [
        f"{name}, {unit}" if unit else name
        for name, unit in zip(document["names"], document["units"])
    ]
    heads = ("time", "feature", "value", "expected", "score, σ", "in an event")
    rows: list[tuple[Cell, ...]] = [
        (
            alarm["time"] or f"row {alarm['step'] + 1:,}",
            features[alarm["feature"]],
            alarm["value"],
            alarm["expected"],
            alarm["score"],
            None if alarm["false"] is None else not alarm["false"],
        )
        for alarm in document["alarms"][:MAX_ALARM_ROWS]
    ]
    kept = [i for i in range(len(heads)) if any(not is_absent(row[i]) for row in rows)]
    return [heads[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _path(points: Iterable[tuple[float, float | None]], across: Scale, up: Scale) -> str:
    """Return a line as an SVG path; a missing value (None or NaN) breaks it."""
    pieces = []
    pen = "M"
    for x, y in points:
        if y is None or not isfinite(y):
            pen = "M"
            continue
        pieces.append(f"{pen}{across(x):.1f} {up(y):.1f}")
        pen = "L"
    return "".join(pieces)


def thin_line(values: np.ndarray) -> list[tuple[int, float]]:
    """Return (step, value) of the lowest and highest value in each column of the plot, in order.

    values: (steps,). A column that holds a missing value ends in NaN, which breaks the line.
    """
    size = ceil(len(values) / COLUMNS)  # steps in a column
    if size <= 2:
        return list(enumerate(values.tolist()))
    points = []
    for first in range(0, len(values), size):
        column = values[first : first + size]
        known = np.flatnonzero(np.isfinite(column))
        if len(known):
            ends = sorted({int(known[column[known].argmin()]), int(known[column[known].argmax()])})
            points += [(first + at, float(column[at])) for at in ends]
        if len(known) < len(column):
            points.append((first + size - 1, float("nan")))
    return points


def _scale(low: float, high: float, start: float, stop: float) -> Scale:
    """Map low..high to start..stop in pixels; an empty range maps to the middle."""
    if high == low:
        return lambda value: (start + stop) / 2
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def _ticks(values: Sequence[float], up: Scale) -> list[Tick]:
    return [Tick(up(value), format_metric(value)) for value in values]


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Return round numbers that span low to high in about `count` steps.

    >>> nice_ticks(0.3, 9.2, 4)
    [0.0, 5.0, 10.0]
    """
    width = (high - low) or abs(high) or 1.0
    power = 10.0 ** floor(log10(width / count))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= width / count * 0.999)
    # the smallest multiples of `step` that enclose the range, but for rounding errors
    first = floor(low / step + 1e-9)
    last = ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def format_metric(value: float) -> str:
    """Format a number with three digits and an SI prefix.

    >>> format_metric(12345), format_metric(0.25), format_metric(-3), format_metric(2.5e-5)
    ('12.3k', '0.25', '-3', '25µ')
    """
    if 1e-2 <= abs(value) < 1e3:
        return f"{value:.3g}"
    prefixes = {1e12: "T", 1e9: "G", 1e6: "M", 1e3: "k", 1e-3: "m", 1e-6: "µ", 1e-9: "n"}
    for size, prefix in prefixes.items():
        if abs(value) >= size:
            return f"{value / size:.3g}{prefix}"
    return f"{value:.3g}"
