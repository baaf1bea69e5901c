"""The redraw: what a browser lacks of the chart, and the numbers beside it."""

from __future__ import annotations

import asyncio
from typing import Any

from dash import Patch, no_update
from plotly.io.json import to_json_plotly

from redline.api.payload import json_fragment
from redline.api.service import Service
from redline.engine.feed import Feed
from redline.evaluation import metrics
from redline.incidents.incident import RESOLVED, STATES
from redline.incidents.registry import IncidentQuery
from redline.page import figure, panels
from redline.page.query import ViewQuery, cached_answer, card_values, heartbeat, new_incidents
from redline.page.view import View
from redline.settings import Settings

LIVE_STATES = tuple(state for state in STATES if state != RESOLVED)
TRACK_PATIENCE = (
    0.12  # seconds a moved slider waits for its track, before the page says "scoring 40 %"
)


def chart_update(sight: ViewQuery, look: dict[str, Any], held: dict[str, Any] | None) -> Any:
    """The chart for a browser, whole, or only what it lacks beside what it holds."""
    since = held["end"] if held and can_append(held, sight, look) else None
    if (
        held
        and held["whole"]
        and held["look"] == look
        and (held["sheet"], held["end"]) == (sight.sheet, sight.end)
    ):
        return no_update
    if not sight.ready:
        return chart_figure(sight, look, since)
    return cached_answer(
        ("chart", *map(str, look.values()), sight.sheet, sight.end, since),
        lambda: serialize_figure(chart_figure(sight, look, since)),
    )


def can_append(held: dict[str, Any], sight: ViewQuery, look: dict[str, Any]) -> bool:
    """Whether the browser holds this very plot but for its newest steps, so that only those need to
    travel.
    """
    same = (
        held["look"] == look and held["sheet"] == sight.sheet and sight.at is None and sight.ready
    )
    return bool(same and sight.first <= held["end"] <= sight.end <= held["end"] + sight.span // 2)


def chart_figure(sight: ViewQuery, look: dict[str, Any], since: int | None) -> Any:
    """The whole chart, or a Patch with what came since a step."""
    seen = sight.seen
    theme = look["theme"]
    title = f"{look['stream']} {look['revision']}"
    made: Any = (
        figure.build_figure(seen, theme, sight.span, title)
        if since is None
        else append_patch(seen, theme, sight.span, since)
    )
    if look["zoom"]:
        made["layout"]["xaxis"]["range"] = look[
            "zoom"
        ]  # plotly keeps a zoom only until the page names another range
    return made


def append_patch(seen: View, theme: str, span: int, since: int) -> Patch:
    """What a browser that holds the steps up to `since` lacks."""
    patch = Patch()
    traces = patch["data"]
    layout = patch["layout"]
    new = figure.line_traces(seen, theme, since - seen.first)
    for i, trace in enumerate(new):
        line = traces[i]
        for way in ("x", "y"):
            line[way].extend(trace[way].tolist())
    for i, trace in enumerate(figure.overlay_traces(seen, theme), len(new)):
        traces[i] = trace
    for name, value in figure.moving_layout(seen, theme, span).items():
        layout[name] = value
    return patch


def serialize_figure(made: Any) -> Any:
    """A figure as Dash would write it, once for all who get it."""
    return json_fragment(to_json_plotly(made, engine="orjson"))


def redraw(
    sight: ViewQuery, theme: str, zoom: dict[str, Any], by: str, seen: Any
) -> dict[str, Any]:
    """Everything a tick may change, for a browser that holds what `seen` says."""
    feed = sight.feed
    settings = sight.settings
    look = {
        "stream": feed.id,
        "key": list(settings.key),
        "threshold": settings.threshold,
        "span": sight.span,
        "at": sight.at,
        "theme": theme,
    }
    look |= {
        "revision": zoom.get("revision", 0),
        "zoom": zoom["range"] if zoom.get("stream") == feed.id else None,
        "labels": sight.labels_version,
    }
    number = feed.journal[-1].number if feed.journal else 0
    held = {
        "look": look,
        "sheet": sight.sheet,
        "end": sight.end,
        "number": number,
        "whole": sight.ready,
    }
    answer = {
        "chart": chart_update(sight, look, seen),
        "seen": held,
        "explain": sight.sentence(),
        "status": sight.status(),
    }
    fresh = not seen or seen["look"]["stream"] != feed.id
    if fresh or held["number"] != seen["number"]:
        answer["history"] = panels.anomaly_list(feed)
    return {
        **answer,
        "pulse": heartbeat(sight.monitor, feed, sight.at),
        **card_values(feed),
        **panels.preview_numbers(sight, by),
    }


async def ready_query(
    service: Service, name: str, settings: Settings, span: int, at: dict[str, Any] | None
) -> ViewQuery:
    """A sight whose track is ready, if that is a matter of a moment: so a moved slider answers with
    its own numbers.
    """
    monitor = service.monitor
    until = monitor.clock() + TRACK_PATIENCE
    sight = ViewQuery(service, name, settings, span, at["end"] if at else None)
    while not sight.ready and monitor.clock() < until:
        await asyncio.sleep(0.005)
        sight = ViewQuery(service, name, settings, span, at["end"] if at else None)
    return sight


def announce_incidents(
    service: Service, feed: Feed, seen: Any, held: dict[str, Any]
) -> dict[str, Any]:
    """The incidents that are new to this browser; what it holds remembers the newest of them."""
    found = service.incidents.find(IncidentQuery(feed.name, LIVE_STATES, limit=20)).incidents
    before = seen["since"] if seen and seen["look"]["stream"] == feed.id else None
    held["since"] = max((i.start for i in found), default=before or 0.0)
    return (
        {}
        if before is None
        else {"news": new_incidents(feed.stream.title, found, before)}
        if held["since"] > before
        else {}
    )


def curve_update(sight: ViewQuery, by: str, theme: str) -> Any:
    def make() -> Any:
        points, _ = sight.curve()
        return serialize_figure(
            figure.build_curve(
                points, by, sight.settings.threshold, metrics.best_threshold(points, by), theme
            )
        )

    return cached_answer(("curve", *sight.asked, sight.track.end, by, theme), make)
