"""The numbers beside the chart and the panels under it, as Dash components: old -> new, last anomalies, the comparison, the table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from dash import html

from detectors import DETECTORS
from redline import evaluate, view
from redline.monitor import Anomaly, Feed, Monitor
from redline.settings import Settings
from redline.sight import Sight, told

LATEST = 20  # anomalies in the list


def data(name: str, value: object) -> dict[str, Any]:
    """A data attribute of a component, for what the browser does with a click on it."""
    return {f"data-{name}": str(value)}


def aria(name: str, value: str) -> dict[str, Any]:
    """What a screen reader is told of a component."""
    return {f"aria-{name}": value}


def numbers(sight: Sight, by: str) -> dict[str, Any]:
    """Applied -> previewed, over the whole buffer: alarms, precision and recall, events."""
    old, new = sight.figures(sight.feed.applied), sight.figures(sight.settings)
    if new.events is None:
        none = html.Span("no labels for this stream", className="quiet")
        return {"alarms": change(f"{old.alarms:,}", f"{new.alarms:,}"), "precision": none, "recall": none, "caught": none}
    pairs = {name: (share(getattr(old, f"{by}_{name}")), share(getattr(new, f"{by}_{name}"))) for name in ("precision", "recall")}
    caught = [f"{f.hits} of {f.events}" for f in (old, new)]
    return {
        "alarms": change(f"{old.alarms:,}", f"{new.alarms:,}"),
        **{name: change(*pair) for name, pair in pairs.items()},
        "caught": change(*caught),
    }


def share(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.2f}"


def change(old: str, new: str) -> list[Any]:
    return [html.Span(f"{old} → ", className="old"), html.B(new)] if old != new else [html.B(new)]


def latest(feed: Feed) -> list[Any]:
    """The last anomalies as they were found, newest first; a click goes there."""
    found = list(feed.journal)[-LATEST:][::-1]
    return [entry(feed, anomaly) for anomaly in found] or [html.P("No anomalies yet.", className="quiet")]


def entry(feed: Feed, a: Anomaly) -> html.Button:
    stream = feed.stream
    words = told(feed, a).split(", ", 1)
    cells = [
        html.I(className=f"mark {view.severity(a.score, a.threshold)}"),
        html.Span(view.moment(a.time, stream.period)),
        html.B(words[0]),
        html.Small((f"{stream.names[a.feature]}: " if len(stream.names) > 1 else "") + words[1]),
        html.Em(view.severity(a.score, a.threshold)),
    ]
    return html.Button(cells, className="entry", title="show this moment", **data("step", str(a.step)))


def compared(monitor: Monitor, feed: Feed, settings: Settings, by: str) -> list[Any]:
    """The table of all detectors on the same buffer, best F1 first where labels exist; rows fill in as their tracks get ready."""
    rows = []
    for name in DETECTORS:
        sight = Sight(monitor, feed.name, replace(settings, detector=name), 1)
        rows.append((sight, sight.figures(sight.settings) if sight.ready and sight.track.scored else None))
    labelled = feed.labelled
    key = (lambda row: -np.nan_to_num(getattr(row[1], f"{by}_f1") or 0.0)) if labelled else (lambda row: 0)
    done, waiting = sorted([row for row in rows if row[1] is not None], key=key), [row for row in rows if row[1] is None]
    return [html.Tr(compare_row(*row, by), className="best" if labelled and done and i == 0 else "") for i, row in enumerate(done + waiting)]


def compare_row(sight: Sight, f: evaluate.Figures | None, by: str) -> list[Any]:
    name = html.Td(html.Button(sight.settings.detector, className="link", **data("detector", sight.settings.detector)))
    failure = sight.track.failure
    if f is None:
        words = f"failed, id {failure.id}" if failure else f"scoring {100 * sight.monitor.progress(sight.feed.name, sight.track):.0f} %"
        return [name, html.Td(words, colSpan=7, className="quiet")]
    speed = f"{1e6 * sight.track.pace:.2g}" if sight.track.scored else "–"
    if f.events is None:
        return [name, html.Td(f"{f.alarms:,}"), html.Td("no labels for this stream", colSpan=4, className="quiet"), html.Td(speed), html.Td("–")]
    shares = [html.Td(share(getattr(f, f"{by}_{figure}"))) for figure in ("precision", "recall", "f1")]
    delay = "–" if f.delay is None or np.isnan(f.delay) else f"{f.delay:.1f}"
    return [name, html.Td(f"{f.alarms:,}"), *shares, html.Td(delay), html.Td(speed), html.Td(last_fault(sight))]


def last_fault(sight: Sight) -> str:
    """Whether the last injected fault, or else the newest event, was caught, and how soon."""
    injections = getattr(sight.feed.stream, "injections", [])
    first, _, alarm, label = sight.history(sight.track)
    step = injections[-1].step - first if injections else None
    fate = evaluate.last_event_caught(alarm, label, sight.settings.threshold, step)
    if fate is None:
        return "–"
    if not np.isfinite(fate.delay):
        return "…" if fate.open else "missed"
    return "✓ now" if fate.delay < 1 else f"✓ {fate.delay:.0f} step{'s' if fate.delay > 1 else ''}"


def tabled(sight: Sight) -> list[Any]:
    """The newest hundred rows of the view as a table, newest first."""
    seen = view.scene(sight.feed, sight.track, sight.settings.threshold, max(sight.end - 100, sight.first), sight.end)
    stream = sight.feed.stream
    head = html.Tr(
        [html.Th(words) for words in ("time, UTC", *(f"{n}, {u}" if u else n for n, u in zip(stream.names, stream.units)), "score, σ", "anomaly")]
    )
    rows = []
    for i in reversed(range(len(seen.score))):
        anomalous = seen.score[i] > sight.settings.threshold
        values = [html.Td(view.plain(v)) for v in seen.x[i]]
        word = view.severity(seen.score[i], sight.settings.threshold) if anomalous else ""
        rows.append(html.Tr([html.Td(view.moment(seen.time[i], stream.period)), *values, html.Td(view.plain(seen.score[i], 0.1)), html.Td(word)]))
    return [html.Thead(head), html.Tbody(rows)]
