"""The panels beside and under the chart, as Dash components: old and new numbers, anomalies,
table, settings, log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from dash import dcc, html

from redline.engine import wording
from redline.engine.feed import Feed
from redline.engine.maintenance import MaintenanceWindow
from redline.engine.results import Anomaly
from redline.evaluation import metrics
from redline.page.query import ViewQuery
from redline.page.view import maintenance_text, read_track_rows
from redline.page.zones import format_moment, zone_words
from redline.settings import STREAM_SETTINGS, initial_settings
from redline.sources.recording import Recording
from streams import Simulated

LISTED_ANOMALIES = 20
TABLE_ROWS = 100
SEVERITY_INDEX_HELP = "severity from 0 to 100: 50 at the threshold, 90 at twice the threshold"


def data_attribute(name: str, value: object) -> dict[str, Any]:
    """Return a data attribute of a component, which says what a click on it does."""
    return {f"data-{name}": str(value)}


def aria_attribute(name: str, value: str) -> dict[str, Any]:
    """Return an ARIA attribute of a component, for screen readers."""
    return {f"aria-{name}": value}


def dropdown(name: str, options: Mapping[Any, str], value: Any) -> dcc.Dropdown:
    """Return a dropdown without a search box; `options` are value -> label."""
    return dcc.Dropdown(
        [{"label": label, "value": option} for option, label in options.items()],
        value,
        id=name,
        clearable=False,
        searchable=False,
    )


def preview_numbers(query: ViewQuery, by: str) -> dict[str, Any]:
    """Return the applied and the previewed numbers over the whole buffer.

    They are alarms, precision, recall and what is caught. All count the same: by "event" the
    alarms and the events that they hit, by "row" the anomalous steps. While nothing is previewed
    each is one number.
    """
    old = query.applied_metrics()
    new = query.preview_metrics()
    both = query.previews
    alarms = old_to_new(*(_found(m, by) for m in (old, new)), both=both)
    if new.events is None:
        none = html.Span("no labels for this stream", className="quiet")
        return {"alarms": alarms, "precision": none, "recall": none, "caught": none}

    if not new.events:
        none = html.Span("no labelled anomaly in the buffer", className="quiet")
        return {"alarms": alarms, "precision": none, "recall": none, "caught": none}

    def shares(name: str) -> list[Any]:
        return old_to_new(
            *(format_share(getattr(m, f"{by}_{name}")) for m in (old, new)), both=both
        )

    return {
        "alarms": alarms,
        "precision": shares("precision"),
        "recall": shares("recall"),
        "caught": old_to_new(*_caught(query, old, new, by), both=both),
    }


def _found(found: metrics.Metrics, by: str) -> str:
    """Return the number of alarms, or of anomalous steps."""
    return f"{found.alarms:,}" if by == "event" else f"{found.anomalies:,} steps"


def _caught(query: ViewQuery, old: metrics.Metrics, new: metrics.Metrics, by: str) -> list[str]:
    """Return how many events, or anomalous steps, are caught under both settings."""
    if by == "row":
        return [query.caught_rows(query.feed.applied), query.caught_rows(query.settings)]
    return [f"{found.hits} of {found.events}" for found in (old, new)]


def format_share(value: float | None) -> str:
    """Return a share between 0 and 1 as text; a dash where it is undefined."""
    return "–" if value is None or np.isnan(value) else f"{value:.2f}"


def old_to_new(old: str, new: str, *, both: bool) -> list[Any]:
    """Return a number before and after, or once where it is of the applied settings alone."""
    shown = html.B(new)
    return [html.Span(f"{old} → ", className="old"), shown] if both or old != new else [shown]


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
        html.Span(
            wording.format_time(anomaly.time, stream.period), **moment_attribute(feed, anomaly.time)
        ),
        html.B(value),
        html.Small(feature + reason),
        html.Em(f"{anomaly.severity} {anomaly.severity_index}", title=SEVERITY_INDEX_HELP),
    ]
    target = data_attribute("step", anomaly.step)
    return html.Button(cells, className="entry", title="show this moment", **target)


def moment_attribute(feed: Feed | None, time: float) -> dict[str, Any]:
    """Return the attribute of a time from which the browser says what the viewer's clock showed.

    None where the time is not that of the world: of a simulated stream, of a file, or of one that
    is gone.

    time: seconds since the epoch.
    """
    if feed is None or isinstance(feed.stream, Simulated | Recording):
        return {}
    return data_attribute("moment", round(time * 1_000))


def value_table(query: ViewQuery) -> list[Any]:
    """Return the newest TABLE_ROWS rows of the view as a table, newest first."""
    stream = query.feed.stream
    threshold = query.settings.threshold
    first = max(query.end - TABLE_ROWS, query.first)
    rows = read_track_rows(query.feed, query.track, threshold, first, query.end)
    features = [f"{n}, {u}" if u else n for n, u in zip(stream.names, stream.units)]
    zone = zone_words(float(rows.time[-1])) if len(rows.time) else "UTC"
    heads = [f"time, {zone}", *features, "score, σ", "anomaly"]
    body = []
    for i in reversed(range(len(rows.score))):
        score = rows.score[i]
        cells = [
            wording.format_time(rows.time[i], stream.period),
            *(wording.format_number(value) for value in rows.x[i]),
            wording.format_number(score, 0.1),
            severity_words(score, threshold) if score > threshold else "",
        ]
        body.append(html.Tr([html.Td(cell) for cell in cells]))
    head = html.Tr([html.Th(text) for text in heads])
    return [html.Thead(head), html.Tbody(body)]


def severity_words(score: float, threshold: float) -> str:
    """Return the severity as a word and a number from 0 to 100."""
    index = wording.severity_index(score, threshold)
    return f"{wording.severity(score, threshold)} {index}"


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
    """Return the applied settings, what the stream starts with, and what was applied before."""
    names = ("setting", "applied", "starts with", "what it does")
    heads = html.Tr([html.Th(words) for words in names])
    first = initial_settings(feed.stream)
    shown = []
    for name, row in STREAM_SETTINGS.items():
        applied = f"{getattr(feed.applied, name)} {row.unit}".strip()
        cells = [name, applied, str(getattr(first, name)), row.help]
        shown.append(html.Tr([html.Td(cell) for cell in cells]))
    past = [
        html.Li(
            f"{format_moment(h['at'])} {zone_words(h['at'])}: {settings_summary(h['settings'])}"
        )
        for h in history
    ]
    return [
        html.Table([html.Thead(heads), html.Tbody(shown)], className="words"),
        html.Ul(past, className="quiet"),
    ]


def maintenance_list(feed: Feed, windows: Sequence[MaintenanceWindow]) -> list[Any]:
    """Return the maintenance windows of a stream, newest first, each with a button to remove it."""
    period = feed.stream.period
    lines = [
        html.Li(
            [
                f"{wording.format_time(each.start, period)} to "
                f"{wording.format_time(each.end, period)}, {maintenance_text(each.note)}, "
                f"by {each.who} ",
                html.Button("Take back", className="link", **data_attribute("unmute", each.id)),
            ]
        )
        for each in reversed(windows)
    ]
    head = html.H3("Maintenance windows: nothing is alerted in them")
    return [head, html.Ul(lines, className="quiet")] if lines else []


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
            format_moment(line["at"]),
            line["who"],
            line["what"],
            line["stream"] or "",
            format_detail(line["detail"]),
        )
        for line in lines
    ]
    zone = zone_words(lines[0]["at"])
    names = (f"time, {zone}", "who", "what", "stream", "detail")
    head = html.Tr([html.Th(words) for words in names])
    body = [html.Tr([html.Td(cell) for cell in row]) for row in rows]
    return [html.Table([html.Thead(head), html.Tbody(body)], className="words")]


def format_detail(detail: dict[str, Any]) -> str:
    """Return the detail of an audit entry as text."""
    return ", ".join(f"{name} {value}" for name, value in detail.items())
