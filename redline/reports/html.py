"""An evaluation for people to read: a table in the terminal, or one HTML page without a script or a
link to anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from itertools import groupby
from math import ceil, floor, isfinite, log10
from typing import Any, NamedTuple

import numpy as np

from redline.reports.table import Table, format_cell, is_absent

# pixels of the wide picture; its plots lie between LEFT and RIGHT
WIDTH = 1080
LEFT = 56
RIGHT = 1072
COLUMNS = 508  # a line is drawn through the lowest and the highest value in each of so many columns
MAX_PANELS = 6  # features drawn, at most
MAX_ALARM_ROWS = 500  # alarms listed, at most


class ReportPlot(NamedTuple):
    """What the wide picture shows of a file under one detector."""

    time: np.ndarray | None  # (steps,) seconds since the Unix epoch; None: rows are counted
    x: np.ndarray  # (steps, features) in their units, NaN = missing
    names: tuple[str, ...]
    units: tuple[str, ...]
    score: np.ndarray | None  # (steps,) standard deviations, NaN = no opinion
    threshold: float  # standard deviations
    alarms: np.ndarray  # steps
    false: np.ndarray  # steps, those of the alarms in no event; none without labels
    events: np.ndarray  # (events, 2) first and last step
    hit: np.ndarray  # (events,) bool
    cut: int = 0  # settings were learned on the rows before it


def render_report(document: Mapping[str, Any], picture: ReportPlot) -> str:
    """The whole report on what `evaluate.document` and one picture say."""
    labelled = document["labels"]
    parts = [_header(document), _cards(document), _series(picture, document)]
    parts += [_labelled(document)] if labelled else [_unlabelled(document)]
    parts += [_ranking(document), _alarms(document), _reading(document)]
    title = escape(f"Redline: {document['source']}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{''.join(parts)}</main>\n</body>\n</html>\n"
    )


def _header(document: Mapping[str, Any]) -> str:
    facts = [f"{document['rows']:,} rows", ", ".join(document["names"])]
    facts += [f"{document['from']} to {document['to']}"] if document["from"] else []
    facts += (
        [f"{document['events']:,} labelled event{'' if document['events'] == 1 else 's'}"]
        if document["labels"]
        else ["no labels"]
    )
    facts += [f"{count:,} {what}" for what, count in document["notes"].items()]
    lines = [
        ("h1", "", document["source"]),
        ("p", ' class="facts"', " · ".join(facts)),
        ("p", ' class="lead"', document["sentence"]),
    ]
    return f'<header><p class="brand">Redline</p>{"".join(f"<{tag}{kind}>{escape(text)}</{tag}>" for tag, kind, text in lines)}</header>\n'


def _cards(document: Mapping[str, Any]) -> str:
    """The figures a reader looks for first."""
    if not document["labels"]:
        cards = [
            ("Detectors", len(document["ranking"]), ""),
            ("Threshold", document["threshold"], "σ"),
        ]
        cards += [("Alarms by half of them", document["joint_alarms"], "")]
    else:
        first = next((row for row in document["ranking"] if row["suggested"]), None)
        if first is None:
            return ""
        best = first["best"]
        cards = [
            ("Detector", first["detector"], ""),
            ("Window", first["window"], "steps"),
            ("Threshold", f"{first['threshold']:.1f}", "σ"),
        ]
        cards += [
            ("Events hit", f"{best['hits']} of {best['events']}", ""),
            ("False alarms", best["false_alarms"], ""),
        ]
        cards += [("Mean delay", "-" if best["delay"] is None else f"{best['delay']:.1f}", "steps")]
    drawn = (
        f'<div class="{"long" if name == "Detector" else "short"}"><dt>{name}</dt><dd>{escape(format_cell(value))}<small> {unit}</small></dd></div>'
        for name, value, unit in cards
    )
    return f'<dl class="cards">{"".join(drawn)}</dl>\n'


def _series(picture: ReportPlot, document: Mapping[str, Any]) -> str:
    """The lines, the alarms, the truth and the score over all rows."""
    steps = len(picture.x)
    top = 22
    place = _scale(0, max(steps - 1, 1), LEFT, RIGHT)
    shown_features = range(min(picture.x.shape[1], MAX_PANELS))
    height = 190 if len(shown_features) == 1 else 92
    parts = []
    for i in shown_features:
        unit = f" ({picture.units[i]})" if picture.units[i] else ""
        parts.append(
            _panel(
                picture.x[:, i], place, (top, top + height), picture.names[i] + unit, picture.alarms
            )
        )
        top += height + (24 if i + 1 == len(shown_features) else 30)
    top = _lanes(parts, picture, place, top)
    if picture.score is not None:
        parts.append(_score(picture, place, (top + 6, top + 76)))
        top += 88
    parts.append(_learned(picture, place, top - 6) if picture.cut else "")
    parts.append(_times(picture, place, top + 4))
    more = picture.x.shape[1] - MAX_PANELS
    note = f" The first {MAX_PANELS} of {picture.x.shape[1]} features." if more > 0 else ""
    return (
        f'<section><h2>{escape(document["picture"])}</h2><div class="wide"><svg viewBox="0 0 {WIDTH} {top + 26}" role="img" '
        f'aria-label="{escape(document["picture"])}">{PATTERN}{"".join(parts)}</svg></div>{_legend(document, note)}</section>\n'
    )


def _panel(
    values: np.ndarray,
    place: Callable[[float], float],
    span: tuple[float, float],
    name: str,
    alarms: np.ndarray,
) -> str:
    """One feature's line over its grid, with its alarms in red."""
    known = values[np.isfinite(values)]
    if not len(known):
        return f'<text x="{LEFT}" y="{span[1] - 20}">{escape(name)}: no values</text>'
    ticks = nice_ticks(float(known.min()), float(known.max()), 4 if span[1] - span[0] > 100 else 2)
    level = _scale(min(ticks[0], known.min()), max(ticks[-1], known.max()), span[1], span[0])
    marks = "".join(_dot(place(at), level(values[at])) for at in alarms if isfinite(values[at]))
    hair = "".join(
        f'<path class="hair" d="M{place(at):.1f} {span[0]}V{span[1]}"/>' for at in alarms
    )
    line = f'<path class="line" d="{_path(values, place, level)}"/>'
    return (
        f"{_grid(ticks, level)}{hair}{line}{marks}"
        + f'<text class="name" x="{LEFT}" y="{span[0] - 8}">{escape(name)}</text>'
    )


def _dot(x: float, y: float) -> str:
    return f'<circle class="mark" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'


def _grid(ticks: Sequence[float], level: Callable[[float], float]) -> str:
    return "".join(
        f'<path class="grid" d="M{LEFT} {level(t):.1f}H{RIGHT}"/>{_text(LEFT - 8, level(t) + 4, format_metric(t))}'
        for t in ticks
    )


def _text(x: float, y: float, words: str, anchor: str = "end") -> str:
    return (
        f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def _path(
    values: np.ndarray, place: Callable[[float], float], level: Callable[[float], float]
) -> str:
    """A line as an SVG path; long ones go through the extremes of each column, and a missing value
    breaks it.
    """
    pieces = []
    pen = "M"
    for at, value in _thinned(values):
        if isfinite(value):
            pieces.append(f"{pen}{place(at):.1f} {level(value):.1f}")
        pen = "L" if isfinite(value) else "M"
    return "".join(pieces)


def _thinned(values: np.ndarray) -> list[tuple[int, float]]:
    """(step, value) of the lowest and the highest value in each column, in order; a column with a
    missing one ends in it.
    """
    size = ceil(len(values) / COLUMNS)
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


def _lanes(parts: list[str], picture: ReportPlot, place: Callable[[float], float], top: int) -> int:
    """The alarms by their outcome, under them the truth; returns where the next thing may begin."""
    false = set(picture.false.tolist())
    shapes = "".join(
        _cross(place(at), top)
        if at in false
        else f'<circle class="mark" cx="{place(at):.1f}" cy="{top}" r="4.5"/>'
        for at in picture.alarms
    )
    parts.append(
        f'<path class="grid" d="M{LEFT} {top}H{RIGHT}"/>{_text(LEFT - 8, top + 4, "alarms")}{shapes}'
    )
    if not len(picture.events):
        return top + 14
    top += 14
    runs = zip(picture.events.tolist(), np.where(picture.hit, "truth", "missed").tolist())
    boxes = (
        f'<rect class="{fate}" x="{place(a) - 1:.1f}" y="{top}" width="{place(b) - place(a) + 3:.1f}" height="12"/>'
        for (a, b), fate in runs
    )
    parts.append(_text(LEFT - 8, top + 10, "truth") + "".join(boxes))
    return top + 24


def _cross(x: float, y: float) -> str:
    return f'<g class="false"><circle cx="{x:.1f}" cy="{y}" r="4.5"/><path d="M{x - 2.2:.1f} {y - 2.2:.1f}l4.4 4.4m0-4.4l-4.4 4.4"/></g>'


def _score(picture: ReportPlot, place: Callable[[float], float], span: tuple[int, int]) -> str:
    """The score, cut at three times the threshold, red where it is above it."""
    assert picture.score is not None
    most = picture.threshold * 3
    level = _scale(0, most, span[1], span[0])
    at = level(picture.threshold)
    path = _path(np.minimum(picture.score, most), place, level)
    return (
        f'<clipPath id="above"><rect x="0" y="{span[0] - 2}" width="{WIDTH}" height="{at - span[0] + 2:.1f}"/></clipPath>'
        f'<clipPath id="below"><rect x="0" y="{at:.1f}" width="{WIDTH}" height="{span[1] - at + 2:.1f}"/></clipPath>{_grid([0, most], level)}'
        f'<path class="quiet" clip-path="url(#below)" d="{path}"/><path class="loud" clip-path="url(#above)" d="{path}"/>'
        f'<path class="threshold" d="M{LEFT} {at:.1f}H{RIGHT}"/>{_text(LEFT - 8, at + 4, f"{picture.threshold:.1f} σ")}'
    )


def _learned(picture: ReportPlot, place: Callable[[float], float], bottom: float) -> str:
    """Shades the rows that settings were learned on."""
    x = place(picture.cut)
    words = _text(x - 6, 14, "learned here") + _text(x + 6, 14, "judged here", "start")
    return f'<rect class="learned" x="{LEFT}" y="20" width="{x - LEFT:.1f}" height="{bottom - 20:.0f}"/>{words}'


def _times(picture: ReportPlot, place: Callable[[float], float], top: float) -> str:
    """Six stamps under the picture, at their rows."""
    rows = np.unique(np.linspace(0, len(picture.x) - 1, 7).astype(int)).tolist()
    ends = {rows[0]: "start", rows[-1]: "end"}
    stamps = (
        [f"row {row + 1:,}" for row in rows]
        if picture.time is None
        else _stamps(picture.time[rows], float(np.ptp(picture.time)))
    )
    return "".join(
        _text(place(row), top + 12, stamp, ends.get(row, "middle"))
        for row, stamp in zip(rows, stamps)
    )


def _stamps(times: np.ndarray, span: float) -> list[str]:
    """Times in UTC, as exactly as their span (seconds) asks for."""
    form = "%d %b %Y" if span > 20 * 86_400 else "%d %b %H:%M" if span > 7200 else "%H:%M:%S"
    return [datetime.fromtimestamp(float(at), UTC).strftime(form) for at in times]


def _legend(document: Mapping[str, Any], note: str) -> str:
    full = '<circle class="mark" cx="6" cy="6" r="4.5"/>'
    items = [
        (full, "alarm in an event"),
        (_cross(6, 6), "false alarm"),
        ('<rect class="truth" x="0" y="1" width="12" height="10"/>', "event, hit"),
        ('<rect class="missed" x="1" y="1" width="10" height="10"/>', "event, missed"),
    ]
    drawn = (
        f'<span><svg viewBox="0 0 12 12">{shape}</svg>{name}</span>'
        for shape, name in (items if document["labels"] else [(full, "alarm")])
    )
    return f'<p class="legend">{"".join(drawn)}<span>{escape(note)}</span></p>'


def _labelled(document: Mapping[str, Any]) -> str:
    """Figures against the threshold, then the curves over all thresholds."""
    first = next((row for row in document["ranking"] if row["suggested"]), document["ranking"][0])
    others = [row for row in document["ranking"] if row is not first]
    curve = first["curve"]
    name = first["detector"]
    lines = [
        ("precision", curve["event_precision"], "a"),
        ("recall", curve["event_recall"], "b"),
        ("F1", curve["event_f1"], "c"),
    ]
    against = "".join(
        _curve(curve["thresholds"], y, _frame(curve["thresholds"]), mark, what)
        for what, y, mark in lines
    )
    dot = "" if first["threshold"] is None else _best(curve, first["threshold"])
    key = '<p class="key"><i class="a"></i>precision<i class="b"></i>recall<i class="c"></i>F1</p>'
    charts = [
        _chart(
            "Events against the threshold", against + dot, curve["thresholds"], "threshold, σ", key
        )
    ]
    for title, field, across, area in (
        ("Rows: ROC", "roc", "false-positive rate", "roc_area"),
        ("Rows: precision and recall", "pr", "recall", "average_precision"),
    ):
        drawn = "".join(
            _curve(
                row[field]["x"],
                row[field]["y"],
                _frame([0, 1]),
                "other",
                f"{row['detector']}: {format_cell(row[area])}",
            )
            for row in reversed(others)
        )
        drawn += _curve(
            first[field]["x"],
            first[field]["y"],
            _frame([0, 1]),
            "c",
            f"{name}: {format_cell(first[area])}",
        )
        what = f'<p class="key"><i class="c"></i>{escape(name)}, area {format_cell(first[area])}<i class="other"></i>the others</p>'
        charts.append(_chart(title, drawn, [0, 1], across, what))
    return f'<section class="charts">{"".join(charts)}</section>\n'


def _frame(across: Sequence[float]) -> tuple[Callable[[float], float], Callable[[float], float]]:
    return _scale(across[0], across[-1], 34, 330), _scale(0, 1, 200, 10)


def _chart(title: str, drawn: str, across: Sequence[float], under: str, key: str) -> str:
    place, level = _frame(across)
    rules = "".join(
        f'<path class="grid" d="M34 {level(t):.1f}H330"/>{_text(28, level(t) + 4, f"{t:g}")}'
        for t in (0, 0.5, 1)
    )
    inside = (t for t in nice_ticks(across[0], across[-1], 4) if across[0] <= t <= across[-1])
    ticks = "".join(_text(place(t), 216, f"{t:g}", "middle") for t in inside) + _text(
        182, 234, under, "middle"
    )
    picture = f'<svg viewBox="0 0 340 240" role="img" aria-label="{escape(title)}">{rules}{ticks}{drawn}</svg>'
    return f"<figure><h2>{escape(title)}</h2>{picture}{key}</figure>"


def _curve(
    x: Sequence[float],
    y: Sequence[float | None],
    frame: tuple[Callable[[float], float], Callable[[float], float]],
    mark: str,
    title: str,
) -> str:
    place, level = frame
    pieces = []
    pen = "M"
    for a, b in zip(x, y):
        if b is not None:
            pieces.append(f"{pen}{place(a):.1f} {level(b):.1f}")
        pen = "M" if b is None else "L"
    return f'<path class="curve {mark}" d="{"".join(pieces)}"><title>{escape(title)}</title></path>'


def _best(curve: Mapping[str, Any], threshold: float) -> str:
    """The dot on the chosen threshold."""
    place, level = _frame(curve["thresholds"])
    at = min(range(len(curve["thresholds"])), key=lambda i: abs(curve["thresholds"][i] - threshold))
    f1 = curve["event_f1"][at]
    return (
        ""
        if f1 is None
        else f'<circle class="best" cx="{place(threshold):.1f}" cy="{level(f1):.1f}" r="4.5"><title>{threshold:.1f} σ</title></circle>'
    )


def _unlabelled(document: Mapping[str, Any]) -> str:
    """How far detectors agree, as a grid: without labels nothing says who is right."""
    names = [row["detector"] for row in document["ranking"]]
    matrix = document["agreement"]
    if len(names) < 2:
        return ""
    size = 26
    left = 170
    cells = "".join(
        f'<rect class="agree" x="{left + j * size}" y="{i * size}" width="{size - 2}" height="{size - 2}" rx="3" '
        f'fill-opacity="{0 if is_absent(share) else 0.06 + 0.94 * share:.2f}">'
        f"<title>{escape(f'{format_cell(share)} of the alarms of {mine} have one of {theirs} beside them')}</title></rect>"
        for i, (mine, row) in enumerate(zip(names, matrix))
        for j, (theirs, share) in enumerate(zip(names, row))
    )
    rows = "".join(_text(left - 8, i * size + 17, name) for i, name in enumerate(names))
    foot = len(names) * size
    columns = "".join(
        f'<g transform="translate({left + j * size + 16} {foot + 8}) rotate(-50)">{_text(0, 0, name)}</g>'
        for j, name in enumerate(names)
    )
    across = left + foot + 20
    return (
        f"<section><h2>Agreement</h2><p>The share of a row's alarms that have an alarm of the column's at most {document['reach']} steps away: "
        f'the fuller the colour, the more they agree.</p><div class="wide"><svg class="agreement" style="width:{across}px" '
        f'viewBox="0 0 {across} {foot + 130}" role="img" aria-label="Agreement between detectors">{rows}{columns}{cells}</svg></div></section>\n'
    )


class RankingColumn(NamedTuple):
    """A column of the ranking: its heading, above it what is counted, how its value is found, and
    its heading where room is short.
    """

    head: str
    group: str
    keys: tuple[str, ...]  # the way to its value in a row of the document's ranking
    brief: str = ""  # "": left out of the terminal
    bar: bool = False  # a share drawn as a bar


LABELLED = (
    RankingColumn("detector", "", ("detector",), "detector"),
    RankingColumn("window", "", ("window",), "window"),
    RankingColumn("threshold", "", ("threshold",), "threshold"),
    RankingColumn("precision", "events", ("best", "event_precision"), "precision"),
    RankingColumn("recall", "events", ("best", "event_recall"), "recall"),
    RankingColumn("F1", "events", ("best", "event_f1"), "F1", bar=True),
    RankingColumn("delay", "events", ("best", "delay"), "delay"),
    RankingColumn("false/day", "events", ("best", "false_alarms_per_day"), "false/day"),
    RankingColumn("precision", "rows", ("best", "row_precision")),
    RankingColumn("recall", "rows", ("best", "row_recall")),
    RankingColumn("F1", "rows", ("best", "row_f1"), "row F1", bar=True),
    RankingColumn("ROC", "rows", ("roc_area",), "ROC"),
    RankingColumn("AP", "rows", ("average_precision",), "AP"),
    RankingColumn("F1", "untuned", ("start", "event_f1"), "untuned F1"),
    RankingColumn("µs/point", "", ("micros",), "µs/point"),
)
UNLABELLED = (
    RankingColumn("detector", "", ("detector",), "detector"),
    RankingColumn("window", "", ("window",), "window"),
    RankingColumn("anomalies", "", ("start", "anomalies"), "anomalies"),
    RankingColumn("alarms", "", ("start", "alarms"), "alarms"),
    RankingColumn("alarms a day", "", ("start", "alarms_per_day"), "alarms/day"),
    RankingColumn("agreement", "", ("agreement",), "agreement", bar=True),
    RankingColumn("µs/point", "", ("micros",), "µs/point"),
)


def ranking_columns(document: Mapping[str, Any]) -> tuple[RankingColumn, ...]:
    """What there is to say of each detector, with labels or without."""
    return LABELLED if document["labels"] else UNLABELLED


def lookup_figure(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    """A value of the ranking; None where there is none."""
    value: Any = row
    for key in keys:
        value = None if value is None else value[key]
    return value


def ranking_table(document: Mapping[str, Any]) -> Table:
    """The ranking for a terminal, a star on the suggested one, then a row of dashes for each that
    could not run.
    """
    brief = [column for column in ranking_columns(document) if column.brief]
    rows = [
        ("*" if row["suggested"] else "", *(lookup_figure(row, column.keys) for column in brief))
        for row in document["ranking"]
    ]
    rows += [
        ("!", fault["detector"], fault["window"], *(None for _ in brief[2:]))
        for fault in document["faults"]
    ]
    return Table(("", *(column.brief for column in brief)), rows)


def failure_lines(document: Mapping[str, Any]) -> list[str]:
    """Why each of them could not run, a line for each reason."""
    said = {(fault["detector"], fault["why"]): None for fault in document["faults"]}
    return [f"{detector} did not run: {why}" for detector, why in said]


def _ranking(document: Mapping[str, Any]) -> str:
    """The table of all detectors, the suggested one marked."""
    chosen = ranking_columns(document)
    same = [
        (group, len(list(columns))) for group, columns in groupby(column.group for column in chosen)
    ]
    groups = "".join(
        f'<th colspan="{count}" scope="colgroup">{f"<span>{group}</span>" if group else ""}</th>'
        for group, count in same
    )
    above = f"<tr>{groups}</tr>" if document["labels"] else ""
    heads = "".join(f'<th scope="col">{column.head}</th>' for column in chosen)
    rows = "".join(_row(row, chosen) for row in document["ranking"])
    rows += "".join(
        f'<tr><th scope="row">{escape(fault["detector"])}</th><td>{format_cell(fault["window"])}</td>'
        f'<td class="why" colspan="{len(chosen) - 2}">did not run: {escape(fault["why"])}</td></tr>'
        for fault in document["faults"]
    )
    drawn = f"<table><thead>{above}<tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
    return f'<section><h2>All detectors</h2><div class="wide">{drawn}</div></section>\n'


def _row(row: Mapping[str, Any], chosen: Sequence[RankingColumn]) -> str:
    mark = "<em>suggested</em>" if row["suggested"] else ""
    cells = [f'<th scope="row">{escape(row["detector"])}{mark}</th>']
    for column in chosen[1:]:
        value = lookup_figure(row, column.keys)
        style = (
            f' class="bar" style="--share:{value:.3f}"'
            if column.bar and not is_absent(value)
            else ""
        )
        cells.append(f"<td{style}>{format_cell(value)}</td>")
    first = ' class="first"' if row["suggested"] else ""
    return f"<tr{first}>{''.join(cells)}</tr>"


def _alarms(document: Mapping[str, Any]) -> str:
    """Each alarm that is drawn: when, which feature raised it, its value, what was expected."""
    alarms = document["alarms"]
    if not alarms:
        return ""
    units = [
        f"{name}, {unit}" if unit else name
        for name, unit in zip(document["names"], document["units"])
    ]
    heads = ("time", "feature", "value", "expected", "score, σ", "in an event")
    rows = [
        (call["time"] or f"row {call['step'] + 1:,}", units[call["feature"]], *_told(call))
        for call in alarms[:MAX_ALARM_ROWS]
    ]
    kept = [
        i for i in range(len(heads)) if any(not is_absent(row[i]) for row in rows)
    ]  # a column that nobody fills is left out
    top = "".join(f'<th scope="col">{heads[i]}</th>' for i in kept)
    body = "".join(
        f'<tr><th scope="row">{row[0]}</th>{"".join(f"<td>{escape(format_cell(row[i]))}</td>" for i in kept[1:])}</tr>'
        for row in rows
    )
    more = (
        f"<p>The first {MAX_ALARM_ROWS} of {len(alarms):,}.</p>"
        if len(alarms) > MAX_ALARM_ROWS
        else ""
    )
    drawn = f'<div class="wide"><table class="alarms"><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
    return f"<section><h2>{escape(document['picture'])}, one by one</h2>{more}{drawn}</section>\n"


def _told(call: Mapping[str, Any]) -> tuple[Any, ...]:
    """A missing value, an alarm where nothing is expected and a file without labels leave dashes."""
    return (
        call["value"],
        call["expected"],
        call["score"],
        None if call["false"] is None else not call["false"],
    )


def _reading(document: Mapping[str, Any]) -> str:
    return f'<section class="small"><h2>How to read this</h2><ul>{"".join(f"<li>{escape(line)}</li>" for line in document["reading"])}</ul></section>\n'


def _scale(low: float, high: float, start: float, stop: float) -> Callable[[float], float]:
    """A value's place in pixels; a range without width lies in the middle."""
    if high == low:
        return lambda value: (start + stop) / 2
    return lambda value: start + (value - low) / (high - low) * (stop - start)


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers that span low to high in about `count` steps.

    >>> nice_ticks(0.3, 9.2, 4)
    [0.0, 5.0, 10.0]
    """
    width = (high - low) or abs(high) or 1.0
    power = 10.0 ** floor(log10(width / count))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= width / count * 0.999)
    return [
        float(f"{i * step:.12g}")
        for i in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)
    ]


def format_metric(value: float) -> str:
    """A number with three digits and an SI prefix.

    >>> format_metric(12345), format_metric(0.25), format_metric(-3), format_metric(2.5e-5)
    ('12.3k', '0.25', '-3', '25µ')
    """
    for size, prefix in (
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1e-2, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
        (1e-9, "n"),
    ):
        if abs(value) >= size:
            return f"{value / (1 if size == 1e-2 else size):.3g}{prefix}"
    return f"{value:.3g}"


PATTERN = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">'
    '<rect class="hatch" width="2.5" height="5"/></pattern></defs>'
)
STYLE = """
:root { color-scheme: light dark; --paper: #fbfcfd; --card: #fff; --ink: #17202b; --soft: #566373; --rule: #e3e8ee; --line: #3b6fb6;
  --band: #9db7d9; --red: #d6001c; --truth: #0b7a75; --chip: #7a5195; --shade: #3b6fb60d; --first: #f3f7fb; }
@media (prefers-color-scheme: dark) { :root { --paper: #10151c; --card: #171e27; --ink: #e8edf3; --soft: #9aa8b8; --rule: #2a3441;
  --line: #7fb2f0; --band: #7fb2f0; --red: #ff5a5f; --truth: #3fc7bd; --chip: #f2b134; --shade: #7fb2f012; --first: #1c2632; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  font-variant-numeric: tabular-nums; }
main { max-width: 1200px; margin: 0 auto; padding: 32px 20px 64px; }
header { margin-bottom: 20px; }
.brand { margin: 0; color: var(--soft); font-size: 13px; letter-spacing: .08em; text-transform: uppercase; }
h1 { margin: 2px 0 4px; font-size: 30px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 0 0 10px; font-size: 16px; }
.facts { margin: 0; color: var(--soft); }
.lead { margin: 14px 0 0; font-size: 18px; max-width: 62em; }

.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); gap: 12px; margin: 0 0 16px; }
.cards .long { grid-column: span 2; }
.cards div, section, figure { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; }
.cards div { padding: 10px 14px; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; font-size: 20px; font-weight: 600; }
dd small { color: var(--soft); font-size: 13px; font-weight: 400; }
section { padding: 16px 18px; margin: 0 0 16px; }
section p { margin: 0 0 10px; color: var(--soft); }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(290px, 1fr)); gap: 16px; padding: 0; background: none; border: 0; }
figure { margin: 0; padding: 16px 18px 10px; }
.small { font-size: 14px; }
.small ul { margin: 0; padding-left: 18px; color: var(--soft); }

svg { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; }
.wide > svg { min-width: 720px; }
.wide > svg.agreement { min-width: 0; max-width: none; }
.legend, .key { display: flex; flex-wrap: wrap; align-items: center; gap: 4px 18px; margin: 8px 0 0; color: var(--soft); font-size: 13px; }
.legend span { display: flex; align-items: center; gap: 6px; }
.legend svg { width: 12px; }
.key { gap: 4px 6px; }
.key i { width: 18px; margin-left: 10px; border-top-width: 2px; border-top-style: solid; }
.key i:first-child { margin-left: 0; }
.key i.a { border-top-style: dashed; }
.key i.b { border-top-style: dotted; }

text { fill: var(--ink); font: 12px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
.tick { fill: var(--soft); }
.name { font-weight: 600; }
.grid { stroke: var(--rule); fill: none; }
.line { stroke: var(--line); fill: none; stroke-width: 1.5; stroke-linejoin: round; }
.mark { fill: var(--red); stroke: var(--card); }
.false circle { fill: var(--card); stroke: var(--red); stroke-width: 1.4; }
.false path { stroke: var(--red); stroke-width: 1.4; }
.hair { stroke: var(--red); stroke-opacity: .22; }
.truth { fill: url(#hatch); stroke: var(--truth); }
.hatch { fill: var(--truth); }
.missed { fill: none; stroke: var(--truth); stroke-width: 1.6; }
.quiet { stroke: var(--line); stroke-opacity: .55; fill: none; }
.loud { stroke: var(--red); fill: none; }
.threshold { stroke: var(--soft); stroke-dasharray: 4 3; }
.learned { fill: var(--shade); }
.curve { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.a { stroke: var(--chip); border-color: var(--chip); stroke-dasharray: 5 3; }
.b { stroke: var(--truth); border-color: var(--truth); stroke-dasharray: 1 4; stroke-linecap: round; }
.c { stroke: var(--line); border-color: var(--line); }
.curve.b, .curve.c { stroke-width: 2.2; }
.other { stroke: var(--soft); border-color: var(--soft); stroke-opacity: .4; }
.other:hover { stroke: var(--ink); stroke-opacity: 1; stroke-width: 2.2; }
.best { fill: var(--line); stroke: var(--card); stroke-width: 2; }
.agree { fill: var(--line); stroke: var(--rule); }

table { border-collapse: collapse; width: 100%; font-size: 14px; white-space: nowrap; }
th, td { padding: 6px 8px; border-bottom: 1px solid var(--rule); text-align: right; font-weight: 400; }
thead th { padding-top: 2px; padding-bottom: 4px; color: var(--soft); font-size: 12px; }
thead tr:first-child:not(:last-child) th { border: 0; padding-bottom: 0; text-align: center; }
thead span { display: block; border-bottom: 1px solid var(--rule); }
th:first-child { position: sticky; left: 0; background: var(--card); text-align: left; }
tbody th { font-weight: 500; }
tr.first > * { background-color: var(--first); }
tr.first th { font-weight: 700; }
tbody tr:last-child > * { border-bottom: 0; }
em { margin-left: 8px; padding: 1px 7px; border: 1px solid var(--line); border-radius: 9px; color: var(--line); font-size: 11px; font-style: normal;
  font-weight: 500; }
.bar { background-image: linear-gradient(var(--band), var(--band)); background-repeat: no-repeat; background-origin: content-box;
  background-position: 100% 100%; background-size: calc(var(--share) * 100%) 3px; }

td.why { text-align: left; color: var(--soft); white-space: normal; }
.alarms :is(th, td):nth-child(2) { text-align: left; }

@media (max-width: 600px) { main { padding: 20px 12px 40px; } h1 { font-size: 24px; } .lead { font-size: 16px; } }
@media print { body { background: #fff; } section, figure { break-inside: avoid; } }
"""
