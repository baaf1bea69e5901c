"""The numbers beside the chart and the panels under it, as Dash components: old -> new, anomalies,
incidents, comparison, table, settings, log.
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
from redline.incidents.incident import SNOOZES, Incident
from redline.incidents.registry import IncidentPage
from redline.page import view
from redline.page.query import ViewQuery
from redline.settings import STREAM_SETTINGS, Settings

LISTED_ANOMALIES = 20  # anomalies in the list


def data_attribute(name: str, value: object) -> dict[str, Any]:
    """A data attribute of a component, for what the browser does with a click on it."""
    return {f"data-{name}": str(value)}


def aria_attribute(name: str, value: str) -> dict[str, Any]:
    """What a screen reader is told of a component."""
    return {f"aria-{name}": value}


def preview_numbers(sight: ViewQuery, by: str) -> dict[str, Any]:
    """Applied -> previewed, over the whole buffer: alarms, precision and recall, events."""
    old = sight.figures(sight.feed.applied)
    new = sight.figures(sight.settings)
    if new.events is None:
        none = html.Span("no labels for this stream", className="quiet")
        return {
            "alarms": old_to_new(f"{old.alarms:,}", f"{new.alarms:,}"),
            "precision": none,
            "recall": none,
            "caught": none,
        }
    pairs = {
        name: (
            format_share(getattr(old, f"{by}_{name}")),
            format_share(getattr(new, f"{by}_{name}")),
        )
        for name in ("precision", "recall")
    }
    caught = [f"{f.hits} of {f.events}" for f in (old, new)]
    return {
        "alarms": old_to_new(f"{old.alarms:,}", f"{new.alarms:,}"),
        **{name: old_to_new(*pair) for name, pair in pairs.items()},
        "caught": old_to_new(*caught),
    }


def format_share(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.2f}"


def old_to_new(old: str, new: str) -> list[Any]:
    return [html.Span(f"{old} → ", className="old"), html.B(new)] if old != new else [html.B(new)]


def anomaly_list(feed: Feed) -> list[Any]:
    """The last anomalies as they were found, newest first; a click goes there."""
    found = list(feed.journal)[-LISTED_ANOMALIES:][::-1]
    return [anomaly_entry(feed, anomaly) for anomaly in found] or [
        html.P("No anomalies yet.", className="quiet")
    ]


def anomaly_entry(feed: Feed, a: Anomaly) -> html.Button:
    stream = feed.stream
    words = a.reason(stream.units[a.feature]).split(", ", 1)
    cells = [
        html.I(className=f"mark {a.severity}"),
        html.Span(wording.format_time(a.time, stream.period)),
        html.B(words[0]),
        html.Small((f"{stream.names[a.feature]}: " if len(stream.names) > 1 else "") + words[1]),
        html.Em(a.severity),
    ]
    return html.Button(
        cells, className="entry", title="show this moment", **data_attribute("step", str(a.step))
    )


def comparison_rows(service: Service, feed: Feed, settings: Settings, by: str) -> list[Any]:
    """The table of all detectors on the same buffer, best F1 first where labels exist; rows fill in
    as their tracks get ready.
    """
    rows = []
    refused = []
    for name in DETECTORS:
        try:
            sight = ViewQuery(service, feed.name, replace(settings, detector=name), 1)
        except (
            ImportError,
            ValueError,
        ) as error:  # a library that is not there, a window that it cannot take
            refused.append([compare_name(name), html.Td(str(error), colSpan=7, className="quiet")])
            continue
        rows.append(
            (sight, sight.figures(sight.settings) if sight.ready and sight.track.scored else None)
        )
    labelled = feed.labelled
    key = (
        (lambda row: -np.nan_to_num(getattr(row[1], f"{by}_f1") or 0.0))
        if labelled
        else (lambda row: 0)
    )
    done = sorted([row for row in rows if row[1] is not None], key=key)
    waiting = [row for row in rows if row[1] is None]
    cells = [*(compare_row(*row, by) for row in done + waiting), *refused]
    return [
        html.Tr(each, className="best" if labelled and done and i == 0 else "")
        for i, each in enumerate(cells)
    ]


def compare_name(name: str, track: Track | None = None) -> html.Td:
    """A button that chooses the detector; it says what its score means, and once it has scored,
    whether it has a band.
    """
    says = " ".join((DETECTORS[name].__doc__ or "").partition("\n\n")[0].split())
    if track is not None and track.tape is not None:
        says += (
            " With a band of what is expected." if "centre" in track.tape.columns else " No band."
        )
    return html.Td(
        html.Button(name, className="link", title=says, **data_attribute("detector", name))
    )


def compare_row(sight: ViewQuery, f: metrics.Metrics | None, by: str) -> list[Any]:
    name = compare_name(sight.settings.detector, sight.track)
    failure = sight.track.failure
    if f is None:
        words = (
            f"failed, id {failure.id}"
            if failure
            else f"scoring {100 * sight.monitor.progress(sight.feed.name, sight.track):.0f} %"
        )
        return [name, html.Td(words, colSpan=7, className="quiet")]
    speed = (
        f"{1e6 * sight.track.pace:,.{int(sight.track.pace < 1e-5)}f}" if sight.track.scored else "–"
    )
    if f.events is None:
        return [
            name,
            html.Td(f"{f.alarms:,}"),
            html.Td("no labels for this stream", colSpan=4, className="quiet"),
            html.Td(speed),
            html.Td("–"),
        ]
    shares = [
        html.Td(format_share(getattr(f, f"{by}_{figure}")))
        for figure in ("precision", "recall", "f1")
    ]
    delay = "–" if f.delay is None or np.isnan(f.delay) else f"{f.delay:.1f}"
    return [
        name,
        html.Td(f"{f.alarms:,}"),
        *shares,
        html.Td(delay),
        html.Td(speed),
        html.Td(last_fault(sight)),
    ]


def last_fault(sight: ViewQuery) -> str:
    """Whether the last injected fault, or else the newest event, was caught, and how soon."""
    injections = getattr(sight.feed.stream, "injections", [])
    first, _, alarm, label = sight.history(sight.track)
    step = injections[-1].step - first if injections else None
    fate = metrics.last_event_outcome(alarm, label, sight.settings.threshold, step)
    if fate is None:
        return "–"
    if not np.isfinite(fate.delay):
        return "…" if fate.open else "missed"
    return "✓ now" if fate.delay < 1 else f"✓ {fate.delay:.0f} step{'s' if fate.delay > 1 else ''}"


def value_table(sight: ViewQuery) -> list[Any]:
    """The newest hundred rows of the view as a table, newest first."""
    seen = view.read_track_rows(
        sight.feed,
        sight.track,
        sight.settings.threshold,
        max(sight.end - 100, sight.first),
        sight.end,
    )
    stream = sight.feed.stream
    head = html.Tr(
        [
            html.Th(words)
            for words in (
                "time, UTC",
                *(f"{n}, {u}" if u else n for n, u in zip(stream.names, stream.units)),
                "score, σ",
                "anomaly",
            )
        ]
    )
    rows = []
    for i in reversed(range(len(seen.score))):
        anomalous = seen.score[i] > sight.settings.threshold
        values = [html.Td(wording.format_number(v)) for v in seen.x[i]]
        word = wording.severity(seen.score[i], sight.settings.threshold) if anomalous else ""
        rows.append(
            html.Tr(
                [
                    html.Td(wording.format_time(seen.time[i], stream.period)),
                    *values,
                    html.Td(wording.format_number(seen.score[i], 0.1)),
                    html.Td(word),
                ]
            )
        )
    return [html.Thead(head), html.Tbody(rows)]


def incident_list(feed: Feed, page: IncidentPage) -> list[Any]:
    """The incidents of a stream, live ones first, with what a person can do about them."""
    if not page.incidents:
        return [html.P("No incidents.", className="quiet")]
    more = (
        [html.P(f"and {page.total - len(page.incidents):,} more: /api/alerts", className="quiet")]
        if page.total > len(page.incidents)
        else []
    )
    return [incident_entry(feed, each) for each in page.incidents] + more


def incident_entry(feed: Feed, i: Incident) -> html.Div:
    when = wording.format_time(i.start, feed.stream.period)
    head = html.Button(
        [html.I(className=f"mark {i.severity}"), html.Span(when), html.B(i.severity)],
        className="link",
        **data_attribute("step", i.peak.step),
    )
    words = html.Small(
        [
            i.text,
            html.Em(
                f" {i.alarms} alarm{'s' if i.alarms > 1 else ''}, "
                f"{i.state}{f' by {i.acknowledged}' if i.acknowledged else ''}"
            ),
        ]
    )
    acts = (
        ["acknowledge", *(f"snooze {length}" for length in SNOOZES), "expected", "resolve"]
        if i.live
        else ["expected"]
    )
    buttons = [
        html.Button(
            act, className="link", **data_attribute("act", act), **data_attribute("incident", i.id)
        )
        for act in acts
    ]
    return html.Div(
        [head, words, html.Span(buttons, className="row small")], className=f"incident {i.state}"
    )


def day_bars(counts: list[tuple[int, int]]) -> list[Any]:
    """Anomalies a day by the stream's own time, as bars with their numbers."""
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
    """What the stream runs under, what each setting means, and what was applied before."""
    heads = html.Tr([html.Th(words) for words in ("setting", "applied", "default", "what it does")])
    rows = [(row, getattr(feed.applied, name)) for name, row in STREAM_SETTINGS.items()]
    shown = [
        html.Tr(
            [
                html.Td(r.name),
                html.Td(f"{v} {r.unit}".strip()),
                html.Td(str(r.default)),
                html.Td(r.help),
            ]
        )
        for r, v in rows
    ]
    past = [
        html.Li(f"{np.datetime64(int(h['at']), 's')} UTC: {settings_summary(h['settings'])}")
        for h in history
    ]
    return [
        html.Table([html.Thead(heads), html.Tbody(shown)], className="words"),
        html.Ul(past, className="quiet"),
    ]


def settings_summary(settings: dict[str, Any]) -> str:
    return (
        f"{settings['detector']}, window {settings['window']}, threshold "
        f"{settings['threshold']}, {settings['direction']}"
    )


def audit_log_table(lines: list[dict[str, Any]]) -> list[Any]:
    """The audit log, newest first: who changed what."""
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
    return [
        html.Table(
            [
                html.Thead(head),
                html.Tbody([html.Tr([html.Td(cell) for cell in row]) for row in rows]),
            ],
            className="words",
        )
    ]


def format_detail(detail: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in detail.items())
