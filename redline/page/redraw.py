"""The redraw: what a browser lacks of the chart, with the numbers beside it."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import numpy as np
from dash import Patch, no_update
from plotly.io.json import to_json_plotly

from redline.api.service import Service
from redline.engine.feed import Feed
from redline.engine.wording import VIEWER_ZONE
from redline.evaluation import metrics
from redline.incidents.incident import SNOOZED
from redline.page import figure, panels
from redline.page.lanes import MAX_LANES, choose_lanes, lanes_sentence, pick_lanes
from redline.page.preview import preview_state
from redline.page.query import (
    ViewQuery,
    cached_answer,
    card_values,
    heartbeat,
    incident_popups,
)
from redline.page.view import View
from redline.page.zones import axis_seconds, time_ticks, zone_name
from redline.settings import Settings
from redline.sources.payload import json_fragment

# what of a look only says how steps are scored, not which ones are drawn
SCORING = ("key", "threshold", "applied", "labels", "windows")
MAX_POPUPS = 3  # new incidents that one redraw announces, the newest
# seconds a moved slider waits for its track before the page says "scoring 40 %"
TRACK_PATIENCE = 0.12


class Update(NamedTuple):
    """What a browser lacks of the chart."""

    chart: Any  # the whole figure, a Patch, or no_update
    points: int  # how many points each line of the browser then has


def chart_update(query: ViewQuery, look: dict[str, Any], held: dict[str, Any] | None) -> Update:
    """Return the chart for a browser: whole, only what it lacks, or no_update.

    Args:
        query: the stream, the settings and the steps.
        look: all that the drawing depends on besides the steps.
        held: what the browser holds, as `redraw` answered it; None = nothing.
    """
    if held and (holds(held, query, look) or waits(held, query, look)):
        return Update(no_update, held["points"])
    view = pick_lanes(query.view, look["lanes"])
    if not held or not can_append(held, query, look):
        points = figure.count_points(view, 0)
        if not query.ready:
            return Update(chart_figure(query, look, None), points)
        key = ("chart", *map(str, look.values()), query.plot_first, query.end, None)
        whole = cached_answer(key, lambda: serialize_figure(chart_figure(query, look, None)))
        return Update(whole, points)
    since = held["end"]
    points = held["points"] + figure.count_points(view, since - view.first)
    others = replaced_lines(held, look)
    what = ("chart", *map(str, look.values()), query.plot_first, query.end, since, *others, points)
    patch = cached_answer(
        what, lambda: serialize_figure(chart_figure(query, look, since, others, points))
    )
    return Update(patch, points)


def waits(held: dict[str, Any], query: ViewQuery, look: dict[str, Any]) -> bool:
    """Return whether the browser keeps the plot of other settings until those asked for are
    scored.
    """
    return not query.ready and bool(held["whole"]) and same_lines(held, query, look)


def same_lines(held: dict[str, Any], query: ViewQuery, look: dict[str, Any]) -> bool:
    """Return whether the lines that the browser holds differ at most in band, scores and marks."""
    before = held["look"]
    same = all(before[name] == value for name, value in look.items() if name not in SCORING)
    return bool(same and held["plot_first"] == query.plot_first)


def replaced_lines(held: dict[str, Any], look: dict[str, Any]) -> tuple[str, ...]:
    """Return the lines that these settings change as a whole, by name.

    Another threshold changes the band alone.
    """
    before = held["look"]
    if before["key"] != look["key"]:
        return ("expected", "score")
    return ("expected",) if before["threshold"] != look["threshold"] else ()


def holds(held: dict[str, Any] | None, query: ViewQuery, look: dict[str, Any]) -> bool:
    """Return whether the browser holds the chart, or waits for its track with a first sight of it.

    A plot without all of its scores is sent once, not at each tick.
    """
    if not held or held["look"] != look or held["plot_first"] != query.plot_first:
        return False
    same_end = bool(held["whole"]) and held["end"] == query.end
    return bool(same_end or not (held["whole"] or query.ready))


def can_append(held: dict[str, Any], query: ViewQuery, look: dict[str, Any]) -> bool:
    """Return whether the browser holds the lines of this plot except for their newest steps.

    A plot that was drawn before its track was ready lacks scores and band: it is sent again.
    """
    whole = bool(held["whole"]) and query.ready and query.bucket == 1
    live = query.at is None
    recent = query.first <= held["end"] <= query.end <= held["end"] + query.span // 2
    same = whole and live and recent and same_lines(held, query, look)
    return bool(same and has_possible_points(held, query))


def has_possible_points(held: dict[str, Any], query: ViewQuery) -> bool:
    """Return whether a browser can hold so many points a line as it says.

    A crafted number would be the length of an array.
    """
    view = query.view
    steps = held["end"] - query.plot_first
    known = figure.count_points(view, 0) - figure.count_points(view, held["end"] - view.first)
    # steps that have left the buffer are still in the browser, each perhaps with a break
    most = figure.POINTS_PER_STEP * (steps + 1)
    return bool(known <= held["points"] <= most)


def chart_figure(
    query: ViewQuery,
    look: dict[str, Any],
    since: int | None,
    replaced: tuple[str, ...] = (),
    points: int = 0,
) -> Any:
    """Return the whole chart, or a Patch with the steps after `since`.

    replaced: names of the lines that are sent whole, each with so many points.
    """
    theme = look["theme"]
    view = pick_lanes(query.view, look["lanes"])
    chart: Any
    if since is None:
        revision = f"{look['stream']} {look['revision']}"
        chart = figure.build_figure(view, theme, query.span, revision)
    else:
        chart = append_patch(view, theme, query.span, since, replaced, points)
    if look["zoom"]:
        # plotly keeps a zoom only until the page names another range
        axis = chart["layout"]["xaxis"]
        axis["range"] = look["zoom"]
        for name, value in time_ticks(*map(axis_seconds, look["zoom"])).items():
            axis[name] = value
    return chart


def append_patch(
    view: View, theme: str, span: int, since: int, replaced: tuple[str, ...] = (), points: int = 0
) -> Patch:
    """Return the Patch for a browser that holds the steps up to `since`.

    All steps of the lines that are `replaced` are sent, `points` of each: those of other settings.
    The browser may hold older steps than the view has; there they are unknown.
    """
    patch = Patch()
    traces = patch["data"]
    layout = patch["layout"]
    new = figure.line_traces(view, theme, since - view.first)
    whole = figure.line_traces(view, theme, 0) if replaced else new
    for i, (trace, all_) in enumerate(zip(new, whole)):
        line = traces[i]
        if len(trace["x"]):
            line["x"].extend(trace["x"].tolist())
        if all_["name"] in replaced:
            unknown = np.full(points - len(all_["y"]), np.nan)
            line["y"] = np.concatenate([unknown, all_["y"]])
            line["showlegend"] = all_["showlegend"]
        elif len(trace["x"]):
            line["y"].extend(trace["y"].tolist())
    for i, trace in enumerate(figure.overlay_traces(view, theme, span), len(new)):
        traces[i] = trace
    if replaced:
        layout["meta"] = figure.hover_words(view)
    for name, value in figure.moving_layout(view, theme, span).items():
        layout[name] = value
    return patch


def serialize_figure(chart: Any) -> Any:
    """Return a figure as the JSON that Dash would write, so that it is written once for all."""
    return json_fragment(to_json_plotly(chart, engine="orjson"))


def redraw(
    query: ViewQuery,
    theme: str,
    zoom: dict[str, Any],
    by: str,
    held: dict[str, Any] | None,
    chosen: list[str] | None = None,
) -> dict[str, Any]:
    """Return everything a tick may change on the page, for a browser that holds `held`.

    Args:
        query: the stream, the settings and the steps.
        theme: "light" or "dark".
        zoom: the time range zoomed to, with its stream and revision; {} = none.
        by: "event" or "row", which precision and recall are shown.
        held: the answer's "seen" of the last redraw; None = the browser holds nothing.
        chosen: the features that the visitor wants to see, where there are too many; None = the
            worst.
    """
    feed = query.feed
    settings = query.settings
    names = feed.stream.names
    same_stream = held is not None and held["look"]["stream"] == feed.id
    lanes = choose_lanes(
        query.view,
        [names.index(name) for name in chosen or () if name in names],
        held["look"]["lanes"] if held and same_stream else [],
    )
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
        "windows": query.windows_version,
        "lanes": lanes,
        "zone": zone_name(VIEWER_ZONE.get()),
        "applied": [*feed.applied.key, feed.applied.threshold],
    }
    newest_anomaly = feed.journal[-1].number if feed.journal else 0
    update = chart_update(query, look, held)
    seen = {
        "look": look,
        "plot_first": query.plot_first,
        "end": query.end,
        "number": newest_anomaly,
        "whole": query.ready,
        "points": update.points,
    }
    if held and waits(held, query, look):
        seen = {**held, "number": newest_anomaly}
    answer = {
        "chart": update.chart,
        "seen": seen,
        "explain": query.sentence(),
        "status": query.status(),
    }
    if not same_stream:
        many = len(names) > MAX_LANES
        answer |= {"lanes": list(names) if many else [], "no_lanes": not many}
    answer["lanes_said"] = lanes_sentence(query.view, lanes)
    same_zone = held is not None and held["look"].get("zone") == look["zone"]
    if not held or not same_stream or held["number"] != newest_anomaly or not same_zone:
        answer["history"] = panels.anomaly_list(feed)
    return {
        **answer,
        "pulse": heartbeat(query.monitor, feed, query.at)
        # of the applied track, which is always scored: those of a new one come with its scores
        | preview_state(feed, query.applied_metrics().events)
        | {"incident": silenceable(query.service, feed), **sentence_mark(query)},
        "covers": query.coverage,
        **card_values(feed),
        **panels.preview_numbers(query, by),
    }


def sentence_mark(query: ViewQuery) -> dict[str, Any]:
    """Return the severity of what the sentence is about, "" = none, and whether it goes on."""
    view = query.view
    of_view = query.feed_end and not (query.feed.failure or query.track.failure)
    return {"severity": view.severity if of_view else "", "ongoing": view.ongoing}


async def ready_query(
    service: Service,
    name: str,
    settings: Settings,
    span: int,
    at: dict[str, Any] | None,
    patience: float = TRACK_PATIENCE,
) -> ViewQuery:
    """Return a query, after a wait of at most `patience` seconds for its track to be ready.

    So a moved slider is mostly answered with its own numbers.
    """
    monitor = service.monitor
    until = monitor.clock() + patience
    end = at["end"] if at else None
    query = ViewQuery(service, name, settings, span, end)
    while not query.ready and monitor.clock() < until:
        await asyncio.sleep(0.005)
        query = ViewQuery(service, name, settings, span, end)
    return query


def silenceable(service: Service, feed: Feed) -> dict[str, Any] | None:
    """Return {"id": incident, "start": ms} of what a person may silence now; None = nothing.

    It is the live incident of the stream, unless it is snoozed already.
    """
    incident = service.incidents.live_of(feed.name)
    if incident is None or incident.state == SNOOZED:
        return None
    return {"id": incident.id, "start": incident.start * 1_000}


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
