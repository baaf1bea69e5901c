"""The panels beside and under the chart, as Dash components: old and new numbers, anomalies,
comparison, table, settings, log.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from dash import html

from detectors import DETECTORS
from redline.api.service import Service
from redline.engine import wording
from redline.engine.feed import Feed
from redline.engine.results import Anomaly
from redline.engine.track import Track
from redline.evaluation import metrics
from redline.page.query import ViewQuery
from redline.page.view import read_track_rows
from redline.settings import STREAM_SETTINGS, Settings

LISTED_ANOMALIES = 20
TABLE_ROWS = 100


def data_attribute(name: str, value: object) -> dict[str, Any]:
    """Return a data attribute of a component, which says what a click on it does."""
    return {f"data-{name}": str(value)}


def aria_attribute(name: str, value: str) -> dict[str, Any]:
    """Return an ARIA attribute of a component, for screen readers."""
    return {f"aria-{name}": value}


def preview_numbers(query: ViewQuery, by: str) -> dict[str, Any]:
    """Return the applied and the previewed numbers over the whole buffer.

    They are alarms, precision, recall and caught events; `by` is "event" or "row".
    """
    old = query.applied_metrics()
    new = query.preview_metrics()
    alarms = old_to_new(f"{old.alarms:,}", f"{new.alarms:,}")
    if new.events is None:
        none = html.Span("no labels for this stream", className="quiet")
        return {"alarms": alarms, "precision": none, "recall": none, "caught": none}

    if not new.events:
        none = html.Span("no labelled anomaly in the buffer", className="quiet")
        return {"alarms": alarms, "precision": none, "recall": none, "caught": none}

    def shares(name: str) -> list[Any]:
        return old_to_new(*(format_share(getattr(m, f"{by}_{name}")) for m in (old, new)))

    return {
        "alarms": alarms,
        "precision": shares("precision"),
        "recall": shares("recall"),
        "caught": old_to_new(f"{old.hits} of {old.events}", f"{new.hits} of {new.events}"),
    }


def format_share(value: float | None) -> str:
    """Return a share between 0 and 1 as text; a dash where it is undefined."""
    return "–" if value is None or np.isnan(value) else f"{value:.2f}"


def old_to_new(old: str, new: str) -> list[Any]:
    """Return a number before and after, or once where both are equal."""
    return [html.Span(f"{old} → ", className="old"), html.B(new)] if old != new else [html.B(new)]


def empty_state(said: str) -> list[Any]:
    """Return the content of a list or panel with nothing in it: one sentence."""
    return [html.P(said, className="quiet")]


def anomaly_list(feed: Feed) -> list[Any]:
    """Return the last anomalies as they were found, newest first; a click on one shows it."""
    found = list(feed.journal)[-LISTED_ANOMALIES:][::-1]
    if not found:
        return empty_state("No anomalies yet.")
    return [anomaly_entry(feed, anomaly) for anomaly in found]


def anomaly_entry(feed: Feed, anomaly: Anomaly) -> html.Button:
    """Return the entry of one anomaly in the list."""
    stream = feed.stream
    value, reason = anomaly.reason(stream.units[anomaly.feature]).split(", ", 1)
    feature = f"{stream.names[anomaly.feature]}: " if len(stream.names) > 1 else ""
    cells = [
        html.I(className=f"mark {anomaly.severity}"),
        html.Span(wording.format_time(anomaly.time, stream.period)),
        html.B(value),
        html.Small(feature + reason),
        html.Em(anomaly.severity),
    ]
    target = data_attribute("step", anomaly.step)
    return html.Button(cells, className="entry", title="show this moment", **target)


def comparison_rows(service: Service, feed: Feed, settings: Settings, by: str) -> list[Any]:
    """Return the table rows of all detectors on the same buffer.

    Best F1 first where there are labels, then detectors that are still scoring, then those that
    cannot run. `by` is "event" or "row".
    """
    scored: list[tuple[ViewQuery, metrics.Metrics]] = []
    waiting = []
    refused = []
    for name in DETECTORS:
        try:
            query = ViewQuery(service, feed.name, replace(settings, detector=name), 1)
        except (ImportError, ValueError) as error:  # a missing library, a window it cannot take
            refused.append([compare_name(name), html.Td(str(error), colSpan=7, className="quiet")])
            continue
        if query.ready and query.track.scored:
            scored.append((query, query.preview_metrics()))
        else:
            waiting.append(query)
    if feed.labelled:
        scored.sort(key=lambda row: -np.nan_to_num(getattr(row[1], f"{by}_f1") or 0.0))
    cells = [
        *(compare_row(query, found, by) for query, found in scored),
        *(compare_row(query, None, by) for query in waiting),
        *refused,
    ]
    best = 0 if feed.labelled and scored else None
    return [html.Tr(row, className="best" if i == best else "") for i, row in enumerate(cells)]


def compare_name(name: str, track: Track | None = None) -> html.Td:
    """Return a cell with a button that chooses a detector.

    Its tooltip says what the score means and, once the track has scored, whether it has a band.
    """
    tooltip = " ".join((DETECTORS[name].__doc__ or "").partition("\n\n")[0].split())
    if track is not None and track.tape is not None:
        has_band = "centre" in track.tape.columns
        tooltip += " With a band of what is expected." if has_band else " No band."
    return html.Td(
        html.Button(name, className="link", title=tooltip, **data_attribute("detector", name))
    )


def compare_row(query: ViewQuery, found: metrics.Metrics | None, by: str) -> list[Any]:
    """Return the cells of one detector; without metrics they say how far it has scored."""
    name = compare_name(query.settings.detector, query.track)
    if found is None:
        failure = query.track.failure
        progress = query.monitor.progress(query.feed.name, query.track)
        state = f"failed, id {failure.id}" if failure else f"scoring {100 * progress:.0f} %"
        return [name, html.Td(state, colSpan=7, className="quiet")]
    alarms = html.Td(f"{found.alarms:,}")
    speed = html.Td(format_pace(query.track))
    if found.events is None:
        none = html.Td("no labels for this stream", colSpan=4, className="quiet")
        return [name, alarms, none, speed, html.Td("–")]
    shares = [
        html.Td(format_share(getattr(found, f"{by}_{figure}")))
        for figure in ("precision", "recall", "f1")
    ]
    delay = "–" if found.delay is None or np.isnan(found.delay) else f"{found.delay:.1f}"
    return [name, alarms, *shares, html.Td(delay), speed, html.Td(last_fault(query))]


def format_pace(track: Track) -> str:
    """Return a track's µs per point, with a decimal below 10; a dash before it has scored."""
    if not track.scored:
        return "–"
    decimals = 1 if track.pace < 1e-5 else 0
    return f"{1e6 * track.pace:,.{decimals}f}"


def last_fault(query: ViewQuery) -> str:
    """Return whether and how soon the last injected fault, or else the newest event, was caught."""
    injections = getattr(query.feed.stream, "injections", [])
    first, _, alarm, label = query.buffer_scores(query.track)
    step = injections[-1].step - first if injections else None
    event = metrics.last_event_outcome(alarm, label, query.settings.threshold, step)
    if event is None:
        return "–"
    if not np.isfinite(event.delay):
        return "…" if event.open else "missed"
    if event.delay < 1:
        return "✓ now"
    return f"✓ {event.delay:.0f} step{'s' if event.delay > 1 else ''}"


def value_table(query: ViewQuery) -> list[Any]:
    """Return the newest TABLE_ROWS rows of the view as a table, newest first."""
    stream = query.feed.stream
    threshold = query.settings.threshold
    first = max(query.end - TABLE_ROWS, query.first)
    rows = read_track_rows(query.feed, query.track, threshold, first, query.end)
    features = [f"{n}, {u}" if u else n for n, u in zip(stream.names, stream.units)]
    heads = ["time, UTC", *features, "score, σ", "anomaly"]
    body = []
    for i in reversed(range(len(rows.score))):
        score = rows.score[i]
        cells = [
            wording.format_time(rows.time[i], stream.period),
            *(wording.format_number(value) for value in rows.x[i]),
            wording.format_number(score, 0.1),
            wording.severity(score, threshold) if score > threshold else "",
        ]
        body.append(html.Tr([html.Td(cell) for cell in cells]))
    head = html.Tr([html.Th(text) for text in heads])
    return [html.Thead(head), html.Tbody(body)]


def day_bars(counts: list[tuple[int, int]]) -> list[Any]:
    """Return bars of the anomalies per day, by the stream's own time; `counts` are (day, count)."""
    if not counts:
        return [html.P("No day with an anomaly yet.", className="quiet")]
    top = max(count for _, count in counts)
    return [
        html.Div(
            [
                html.Span(f"{np.datetime64(day, 'D')}"),
                html.I(style={"width": f"{78 * count / top:.1f}%"}),
                html.B(f"{count:,}"),
            ],
            className="day",
        )
        for day, count in reversed(counts)
    ]


def settings_panel(feed: Feed, history: list[dict[str, Any]]) -> list[Any]:
    """Return the applied settings, what each one does, and what was applied before."""
    heads = html.Tr([html.Th(words) for words in ("setting", "applied", "default", "what it does")])
    shown = []
    for name, row in STREAM_SETTINGS.items():
        applied = f"{getattr(feed.applied, name)} {row.unit}".strip()
        cells = [name, applied, str(row.default), row.help]
        shown.append(html.Tr([html.Td(cell) for cell in cells]))
    past = [
        html.Li(f"{np.datetime64(int(h['at']), 's')} UTC: {settings_summary(h['settings'])}")
        for h in history
    ]
    return [
        html.Table([html.Thead(heads), html.Tbody(shown)], className="words"),
        html.Ul(past, className="quiet"),
    ]


def settings_summary(settings: dict[str, Any]) -> str:
    """Return the main settings in one line."""
    return (
        f"{settings['detector']}, window {settings['window']}, threshold "
        f"{settings['threshold']}, {settings['direction']}"
    )


def audit_log_table(lines: list[dict[str, Any]]) -> list[Any]:
    """Return the audit log as a table, newest first: who changed what."""
    if not lines:
        return [
            html.P("Nothing was changed yet, or nothing is kept (no store).", className="quiet")
        ]
    rows = [
        (
            f"{np.datetime64(int(line['at']), 's')}",
            line["who"],
            line["what"],
            line["stream"] or "",
            format_detail(line["detail"]),
        )
        for line in lines
    ]
    head = html.Tr([html.Th(words) for words in ("time, UTC", "who", "what", "stream", "detail")])
    body = [html.Tr([html.Td(cell) for cell in row]) for row in rows]
    return [html.Table([html.Thead(head), html.Tbody(body)], className="words")]


def format_detail(detail: dict[str, Any]) -> str:
    """Return the detail of an audit entry as text."""
    return ", ".join(f"{name} {value}" for name, value in detail.items())
