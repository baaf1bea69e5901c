"""The redraw: what a browser lacks of the chart, with the numbers beside it."""

from __future__ import annotations

import asyncio
from typing import Any

from dash import Patch, no_update
from plotly.io.json import to_json_plotly

from redline.api.payload import json_fragment
from redline.api.service import Service
from redline.evaluation import metrics
from redline.page import figure, panels
from redline.page.preview import preview_state
from redline.page.query import (
    ViewQuery,
    cached_answer,
    card_values,
    heartbeat,
    incident_popups,
)
from redline.page.view import View
from redline.settings import Settings

MAX_POPUPS = 3  # new incidents that one redraw announces, the newest
# seconds a moved slider waits for its track before the page says "scoring 40 %"
TRACK_PATIENCE = 0.12


def chart_update(query: ViewQuery, look: dict[str, Any], held: dict[str, Any] | None) -> Any:
    """Return the chart for a browser: whole, only what it lacks, or no_update.

    Args:
        query: the stream, the settings and the steps.
        look: all that the drawing depends on besides the steps.
        held: what the browser holds, as `redraw` answered it; None = nothing.
    """
    if holds(held, query, look):
        return no_update
    since = held["end"] if held and can_append(held, query, look) else None
    if not query.ready:
        return chart_figure(query, look, since)
    return cached_answer(
        ("chart", *map(str, look.values()), query.plot_first, query.end, since),
        lambda: serialize_figure(chart_figure(query, look, since)),
    )


def holds(held: dict[str, Any] | None, query: ViewQuery, look: dict[str, Any]) -> bool:
    """Return whether the browser holds the chart, or waits for its track with a first sight of it.

    A plot without all of its scores is sent once, not at each tick.
    """
    if not held or held["look"] != look or held["plot_first"] != query.plot_first:
        return False
    same_end = bool(held["whole"]) and held["end"] == query.end
    return same_end or not (held["whole"] or query.ready)


def can_append(held: dict[str, Any], query: ViewQuery, look: dict[str, Any]) -> bool:
    """Return whether the browser holds this plot except for its newest steps.

    A plot that was drawn before its track was ready lacks scores and band: it is sent again.
    """
    same_plot = held["look"] == look and held["plot_first"] == query.plot_first
    same_plot = same_plot and bool(held["whole"]) and query.bucket == 1
    live = query.at is None and query.ready
    recent = query.first <= held["end"] <= query.end <= held["end"] + query.span // 2
    return bool(same_plot and live and recent)


def chart_figure(query: ViewQuery, look: dict[str, Any], since: int | None) -> Any:
    """Return the whole chart, or a Patch with the steps after `since`."""
    theme = look["theme"]
    chart: Any
    if since is None:
        revision = f"{look['stream']} {look['revision']}"
        chart = figure.build_figure(query.view, theme, query.span, revision)
    else:
        chart = append_patch(query.view, theme, query.span, since)
    if look["zoom"]:
        # plotly keeps a zoom only until the page names another range
        chart["layout"]["xaxis"]["range"] = look["zoom"]
    return chart


def append_patch(view: View, theme: str, span: int, since: int) -> Patch:
    """Return the Patch for a browser that holds the steps up to `since`."""
    patch = Patch()
    traces = patch["data"]
    layout = patch["layout"]
    new = figure.line_traces(view, theme, since - view.first)
    for i, trace in enumerate(new):
        line = traces[i]
        for axis in ("x", "y"):
            line[axis].extend(trace[axis].tolist())
    for i, trace in enumerate(figure.overlay_traces(view, theme, span), len(new)):
        traces[i] = trace
    for name, value in figure.moving_layout(view, theme, span).items():
        layout[name] = value
    return patch


def serialize_figure(chart: Any) -> Any:
    """Return a figure as the JSON that Dash would write, so that it is written once for all."""
    return json_fragment(to_json_plotly(chart, engine="orjson"))


def redraw(
    query: ViewQuery, theme: str, zoom: dict[str, Any], by: str, held: dict[str, Any] | None
) -> dict[str, Any]:
    """Return everything a tick may change on the page, for a browser that holds `held`.

    Args:
        query: the stream, the settings and the steps.
        theme: "light" or "dark".
        zoom: the time range zoomed to, with its stream and revision; {} = none.
        by: "event" or "row", which precision and recall are shown.
        held: the answer's "seen" of the last redraw; None = the browser holds nothing.
    """
    feed = query.feed
    settings = query.settings
    look = {
        "stream": feed.id,
        "key": list(settings.key),
        "threshold": settings.threshold,
        "span": query.span,
        "at": query.at,
        "theme": theme,
        "revision": zoom.get("revision", 0),
        "zoom": zoom["range"] if zoom.get("stream") == feed.id else None,
        "labels": query.labels_version,
    }
    newest_anomaly = feed.journal[-1].number if feed.journal else 0
    answer = {
        "chart": chart_update(query, look, held),
        "seen": {
            "look": look,
            "plot_first": query.plot_first,
            "end": query.end,
            "number": newest_anomaly,
            "whole": query.ready,
        },
        "explain": query.sentence(),
        "status": query.status(),
    }
    if not held or held["look"]["stream"] != feed.id or held["number"] != newest_anomaly:
        answer["history"] = panels.anomaly_list(feed)
    return {
        **answer,
        "pulse": heartbeat(query.monitor, feed, query.at)
        | preview_state(feed, query.preview_metrics().events),
        "covers": query.coverage,
        **card_values(feed),
        **panels.preview_numbers(query, by),
    }


async def ready_query(
    service: Service, name: str, settings: Settings, span: int, at: dict[str, Any] | None
) -> ViewQuery:
    """Return a query, after a wait of at most TRACK_PATIENCE for its track to be ready.

    So a moved slider is mostly answered with its own numbers.
    """
    monitor = service.monitor
    until = monitor.clock() + TRACK_PATIENCE
    end = at["end"] if at else None
    query = ViewQuery(service, name, settings, span, end)
    while not query.ready and monitor.clock() < until:
        await asyncio.sleep(0.005)
        query = ViewQuery(service, name, settings, span, end)
    return query


def announce_incidents(service: Service, heard: int | None) -> dict[str, Any]:
    """Return {"news": pop-ups, "heard": number} of what opened on any stream, {} for nothing.

    Args:
        service: whose incidents.
        heard: the number of the last opening that the browser heard of; None = it was just opened.
    """
    newest = service.incidents.newest_opening
    if heard == newest:
        return {}
    if heard is None or heard > newest:  # that of a server before this one
        return {"heard": newest}
    opened = service.incidents.opened_since(heard)[-MAX_POPUPS:]
    return {"heard": newest, "news": incident_popups(service.monitor, opened)}


def curve_update(query: ViewQuery, by: str, theme: str) -> Any:
    """Return the curve of precision and recall over the threshold, cached as JSON."""

    def make() -> Any:
        points, _ = query.curve()
        best = metrics.best_threshold(points, by)
        return serialize_figure(
            figure.build_curve(points, by, query.settings.threshold, best, theme)
        )

    return cached_answer(("curve", *query.cache_key, query.track.end, by, theme), make)
